import itertools
import threading
import time

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from dermafuse.errors import ConfigError
from dermafuse.runtime import engine as engine_module
from dermafuse.runtime.engine import Engine, bounded_map, choose_precision


def doubling() -> ov.Model:
    entrance = ops.parameter([-1, 4], np.float32, name="x")
    return ov.Model([ops.multiply(entrance, np.float32(2))], [entrance], "doubling")


def test_every_item_is_inferred_once_whatever_the_thread() -> None:
    engine = Engine(doubling(), precision="f32", threads=2)
    out = np.zeros((500, 4), np.float32)

    def work(item: int) -> None:
        (result,) = engine.infer(np.full((1, 4), item, np.float32))
        out[item] = result[0]

    counts: list[int] = []
    engine.map_threads(range(500), work, on_done=counts.append)
    np.testing.assert_array_equal(out[:, 0], np.arange(500) * 2.0)
    assert sum(counts) == 500


def test_an_endless_source_is_not_read_ahead_of_the_workers() -> None:
    taken = 0
    release = threading.Event()

    def source() -> "itertools.count[int]":
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    def work(item: int) -> None:
        if item > 20:
            release.wait(0.2)
            raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        for _ in bounded_map(source(), work, workers=2):
            pass
    assert taken < 100


def test_the_first_error_ends_the_run_and_is_raised() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 5:
            raise ValueError("five")
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match="five"):
        for _ in bounded_map(range(10_000), work, workers=4):
            pass
    assert len(done) < 1000


def test_bf16_is_refused_where_the_cpu_would_only_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "supports_bf16", lambda: False)
    assert choose_precision("auto") == "f32"
    with pytest.raises(ConfigError, match="precision=f32"):
        choose_precision("bf16")
    monkeypatch.setattr(engine_module, "supports_bf16", lambda: True)
    assert choose_precision("auto") == "bf16"
    assert choose_precision("f32") == "f32"
