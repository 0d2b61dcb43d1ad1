"""Reading a legacy PyTorch state dict without torch and without executing anything in it.

The format (``torch.save`` before version 1.6): five pickles (magic number, protocol version, machine facts,
the state dict, the storage keys in file order), then for each key an int64 element count and the raw
little-endian elements. Pickle is a language that can call functions; this reader answers each of its
requests with an inert stand-in or not at all, so a hostile file can at most be refused.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dermafuse.errors import WeightsError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_MAX_RANK = 8

_STORAGES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


class _Dict(dict[Any, Any]):
    """Stands for OrderedDict; drops the attributes (``_metadata``) that a pickle would set on it."""

    def __setstate__(self, state: object) -> None:
        pass


class _Storage:
    """A named stretch of numbers that comes later in the file."""

    def __init__(self, key: str, dtype: np.dtype[Any], count: int) -> None:
        self.key, self.dtype, self.count = key, dtype, count

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a storage cannot be given a state")


class _Tensor:
    """A view of a storage: offset, size and strides in elements."""

    def __init__(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> None:
        if not isinstance(storage, _Storage) or len(size) != len(stride) or len(size) > _MAX_RANK:
            raise pickle.UnpicklingError("a tensor is malformed")
        if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor has sizes that are not whole numbers")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        elements = math.prod(size)
        # A stride of zero could turn four bytes into terabytes: no tensor is larger than its storage.
        if elements > storage.count or (elements and last >= storage.count):
            raise pickle.UnpicklingError("a tensor reaches beyond its storage")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a tensor cannot be given a state")

    def read(self, buffer: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a contiguous copy of the tensor's elements."""
        steps = tuple(step * buffer.itemsize for step in self.stride)
        if not math.prod(self.size):
            return np.empty(self.size, buffer.dtype)
        view = np.lib.stride_tricks.as_strided(buffer[self.offset :], self.size, steps, writeable=False)
        return np.array(view, order="C")


class _Reader(pickle._Unpickler):
    """An unpickler whose whole world is ``OrderedDict``, tensors and storages.

    It is the pure-Python one: the compiled one fills its memo as a list, so that five bytes naming a high
    memo slot would cost gigabytes.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global that the file asks for; anything unexpected is refused."""
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _STORAGES:
            return name  # a plain string: it cannot be called
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a ``("storage", type, key, location, count, view)`` reference names."""
        kind, dtype, key, _location, count, view = pid
        if kind != "storage" or dtype not in _STORAGES or type(key) is not str or view is not None:
            raise pickle.UnpicklingError("a storage is malformed")
        if type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage has no element count")
        storage = self.storages.setdefault(key, _Storage(key, _STORAGES[dtype], count))
        if (storage.dtype, storage.count) != (_STORAGES[dtype], count):
            raise pickle.UnpicklingError("a storage is declared twice with different types")
        return storage


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return ``{tensor name: array}`` of a legacy PyTorch file; nothing in the file is executed.

    Arrays keep the file's element type (float32 weights, int64 counters) and are C-contiguous copies.

    Raises:
        WeightsError: the file cannot be read, is damaged, is not a legacy state dict, or asks for anything
            other than tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"Cannot read the weights file {path}: {error.strerror}.") from error
    try:
        return _parse(data)
    except Exception as error:  # whatever a hostile or damaged pickle can provoke means the same to the user
        raise WeightsError(
            f"{path} is not a PyTorch weights file that can be read safely ({error}); "
            "reinstall the package it came from, or name the published file."
        ) from error


def _parse(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Parse the whole file; raises whatever is wrong with it."""
    stream = io.BytesIO(data)
    if _Reader(stream).load() != MAGIC or _Reader(stream).load() != PROTOCOL:
        raise ValueError("it has no legacy PyTorch header")
    facts = _Reader(stream).load()
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise ValueError("it is not little-endian")
    reader = _Reader(stream)
    tensors = reader.load()
    keys = _Reader(stream).load()
    if not isinstance(tensors, dict) or not isinstance(keys, list):
        raise ValueError("it holds no state dict")

    buffers: dict[str, npt.NDArray[Any]] = {}
    offset = stream.tell()
    for key in keys:
        storage = reader.storages[key]
        (count,) = struct.unpack_from("<q", data, offset)
        if count != storage.count:
            raise ValueError("a storage has another length than declared")
        buffers[key] = np.frombuffer(data, storage.dtype, count, offset + 8)
        offset += 8 + count * storage.dtype.itemsize
    if offset != len(data):
        raise ValueError("there are bytes after its end")

    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError("it holds something that is not a tensor")
        arrays[name] = tensor.read(buffers[tensor.storage.key])
    return arrays
