"""Tensors of the Open Inference Protocol v2, as JSON and in its binary extension.

Source: KServe, "Open Inference Protocol V2"; Triton, "Binary tensor data extension": after the JSON header, whose
length ``Inference-Header-Content-Length`` gives, come the tensors in order, little-endian; each element of BYTES is
preceded by its length in 4 bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.serving.limits import Problem

#: Datatype -> NumPy's name, little-endian as on the wire. BYTES has none.
_TYPES: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_MAX_INPUTS: Final = 100
_LARGEST_SIDE: Final = 2**31
_MAX_RANK: Final = 8


@dataclass(frozen=True)
class Tensor:
    """One named tensor.

    Attributes:
        name: of the input or output.
        datatype: of the protocol.
        shape: non-negative sizes.
        values: a list of ``bytes`` for BYTES (row-major), else an array of that shape.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[bytes] | npt.NDArray[Any]


@dataclass(frozen=True)
class InferRequest:
    """What an infer request asks.

    Attributes:
        id: of the caller, given back.
        inputs: by name.
        outputs: name -> whether it is wanted in binary; ``None``: all of them.
        binary: whether outputs are binary where nothing else is said.
        parameters: of the request.
    """

    id: str | None
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool] | None
    binary: bool
    parameters: Mapping[str, Any]


def read_request(body: bytes, header_length: str | None) -> InferRequest:
    """Read an infer request.

    Args:
        body: of the HTTP request.
        header_length: ``Inference-Header-Content-Length``; ``None``: all of it is JSON.

    Raises:
        Problem: 400, it is not what the protocol says.
    """
    split = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and int(header_length[:12]) <= len(body)):
            raise _bad("Inference-Header-Content-Length is not a length within the body")
        split = int(header_length)
    try:
        header = json.loads(body[:split], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _bad("the request is not JSON") from error
    if not isinstance(header, dict):
        raise _bad("the request is not a JSON object")
    identity = header.get("id")
    if identity is not None and not (isinstance(identity, str) and len(identity) <= 256):
        raise _bad("'id' is not a text of at most 256 characters")
    parameters = _object(header.get("parameters", {}), "'parameters'")
    binary = parameters.get("binary_data_output", False) is True
    return InferRequest(
        identity,
        _inputs(header.get("inputs"), body[split:]),
        _outputs(header.get("outputs"), binary),
        binary,
        parameters,
    )


def _inputs(entries: Any, binary: bytes) -> dict[str, Tensor]:
    if not isinstance(entries, list) or not entries or len(entries) > _MAX_INPUTS:
        raise _bad(f"'inputs' is not a list of 1 to {_MAX_INPUTS} tensors")
    inputs: dict[str, Tensor] = {}
    place = 0
    for entry in entries:
        item = _object(entry, "an input")
        name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
        if not isinstance(name, str) or name in inputs:
            raise _bad("an input has no name, or two have the same")
        if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in _TYPES):
            raise _bad("an input has no datatype of the protocol")
        if not isinstance(shape, list) or not 1 <= len(shape) <= _MAX_RANK or not all(_is_size(side) for side in shape):
            raise _bad(f"an input has no shape of 1 to {_MAX_RANK} whole numbers")
        size = _object(item.get("parameters", {}), "'parameters' of an input").get("binary_data_size")
        if size is None:
            values = _from_json(item.get("data"), datatype, tuple(shape), image=name == "image")
        else:
            if not _is_size(size) or place + size > len(binary):
                raise _bad("an input's binary_data_size goes beyond the body")
            values = _from_binary(binary[place : place + size], datatype, tuple(shape))
            place += size
        inputs[name] = Tensor(name, datatype, tuple(shape), values)
    if place != len(binary):
        raise _bad("the body has more bytes than its inputs say")
    return inputs


def _from_json(data: Any, datatype: str, shape: tuple[int, ...], *, image: bool) -> list[bytes] | npt.NDArray[Any]:
    count = math.prod(shape)
    if not isinstance(data, list):
        raise _bad("an input has neither 'data' nor binary data")
    flat: list[Any] = data
    for _ in range(_MAX_RANK):  # nested rows are allowed
        if not any(isinstance(value, list) for value in flat):
            break
        if not all(isinstance(value, list) for value in flat):
            raise _bad("the data of an input is ragged")
        flat = [value for row in flat for value in row]
    if len(flat) != count:
        raise _bad(f"an input has {len(flat)} values where its shape says {count}")
    if datatype == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise _bad("BYTES in JSON are texts")
        return [_base64(value) if image else value.encode("utf-8", "replace") for value in flat]
    expected = (bool,) if datatype == "BOOL" else (int, float) if datatype.startswith("FP") else (int,)
    if not all(isinstance(value, expected) and (datatype == "BOOL" or not isinstance(value, bool)) for value in flat):
        raise _bad(f"a value of an input is no {datatype}")
    try:
        return np.array(flat, dtype=_TYPES[datatype]).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise _bad(f"a value of an input is out of the range of {datatype}") from error


def _from_binary(data: bytes, datatype: str, shape: tuple[int, ...]) -> list[bytes] | npt.NDArray[Any]:
    count = math.prod(shape)
    if datatype != "BYTES":
        kind = np.dtype(_TYPES[datatype])
        if len(data) != count * kind.itemsize:
            raise _bad(f"an input has {len(data)} bytes where its shape says {count * kind.itemsize}")
        return np.frombuffer(data, kind).reshape(shape)
    values: list[bytes] = []
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "little")
        place += 4 + length
        if place > len(data) or len(values) >= count:
            raise _bad("the elements of a BYTES input do not fit its size and shape")
        values.append(data[place - length : place])
    if len(values) != count:
        raise _bad(f"a BYTES input has {len(values)} elements where its shape says {count}")
    return values


def _outputs(entries: Any, binary: bool) -> dict[str, bool] | None:
    if entries is None or entries == []:
        return None
    if not isinstance(entries, list) or len(entries) > _MAX_INPUTS:
        raise _bad("'outputs' is not a list")
    wanted: dict[str, bool] = {}
    for entry in entries:
        item = _object(entry, "an output")
        if not isinstance(item.get("name"), str):
            raise _bad("an output has no name")
        told = _object(item.get("parameters", {}), "'parameters' of an output")
        if "classification" in told:
            raise _bad("the classification extension is not supported; ask for 'probabilities' or 'label'")
        wanted[item["name"]] = told.get("binary_data", binary) is True
    return wanted


def write_answer(head: Mapping[str, Any], tensors: Sequence[tuple[Tensor, bool]]) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an answer.

    Args:
        head: its fields besides ``outputs``.
        tensors: the outputs, each with whether it is binary.
    """
    entries: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for tensor, binary in tensors:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary:
            data = _to_binary(tensor)
            tail.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        elif isinstance(tensor.values, list):
            entry["data"] = [value.decode() for value in tensor.values]
        else:
            entry["data"] = tensor.values.ravel().tolist()
        entries.append(entry)
    text = json.dumps({**head, "outputs": entries}, allow_nan=False).encode()
    if not tail:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return b"".join([text, *tail]), headers


def _to_binary(tensor: Tensor) -> bytes:
    if isinstance(tensor.values, list):
        return b"".join(len(value).to_bytes(4, "little") + value for value in tensor.values)
    return tensor.values.astype(_TYPES[tensor.datatype]).tobytes()


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad("an image in JSON is base64") from error


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{what} is not a JSON object")
    return value


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_SIDE


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _bad(what: str) -> Problem:
    return Problem(400, f"{what[0].upper()}{what[1:]}.")
