"""What happens to long work: two runs on one output, a clock that jumps, a scheduler's SIGTERM, a full disk."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dermafuse
from dermafuse.errors import OutputError
from dermafuse.files import write_atomic
from dermafuse.runtime.batch.predict_table import predict_table
from dermafuse.runtime.predictor import Predictor
from dermafuse.temporaries import try_lock
from tiny_bundle import tiny_bundle, tiny_image

ROWS = 2500


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a table of many rows."""
    folder = tmp_path_factory.mktemp("faults")
    tiny_bundle(folder / "model")
    for number in range(4):
        Image.fromarray(tiny_image(number)).save(folder / f"i{number}.png")
    with (folder / "table.csv").open("w", newline="") as stream:
        lines = [[f"i{number % 4}.png", 20 + number % 60, "male", "back"] for number in range(ROWS)]
        csv.writer(stream).writerows([["image", "age", "sex", "localization"], *lines])
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> Predictor:
    return dermafuse.load(place / "model", precision="f32", mode="throughput")


@pytest.fixture(scope="module")
def whole(place: Path, model: Predictor) -> bytes:
    """What a run writes that nothing happens to."""
    predict_table(model, place / "table.csv", place / "whole.csv")
    return (place / "whole.csv").read_bytes()


def command(place: Path, out: Path, *more: str) -> list[str]:
    words = [
        "predict",
        str(place / "model"),
        "--csv",
        str(place / "table.csv"),
        "--out",
        str(out),
        "--precision",
        "f32",
    ]
    return [sys.executable, "-m", "dermafuse", *words, *more]


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}])
def test_a_second_run_leaves_the_output_of_a_living_one_alone(
    place: Path, model: Predictor, tmp_path: Path, how: dict[str, bool]
) -> None:
    partial = tmp_path / "o.csv.partial"
    with partial.open("wb") as living:
        living.write(b"rows of the first")
        living.flush()
        assert try_lock(living.fileno())
        with pytest.raises(OutputError, match="Another process is writing"):
            predict_table(model, place / "table.csv", tmp_path / "o.csv", **how)  # type: ignore[arg-type]
        assert partial.read_bytes() == b"rows of the first"
    assert not (tmp_path / "o.csv").exists()


def test_an_output_whose_rows_somebody_replaced_is_not_published(place: Path, model: Predictor, tmp_path: Path) -> None:
    partial = tmp_path / "o.csv.partial"

    def replace(done: int) -> None:
        if partial.exists():
            partial.unlink()
            partial.write_bytes(b"half of another run")

    with pytest.raises(OutputError, match="was replaced by another run"):
        predict_table(model, place / "table.csv", tmp_path / "o.csv", progress=replace)
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("seconds", [-10 * 365 * 86_400, 10 * 365 * 86_400])
def test_a_clock_that_jumps_changes_nothing_in_what_is_resumed(
    place: Path, model: Predictor, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    left = [ROWS // 2]

    def stop(done: int) -> None:
        left[0] -= done
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_table(model, place / "table.csv", tmp_path / "o.csv", progress=stop)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)
    for path in (*tmp_path.iterdir(), place / "table.csv"):
        os.utime(path, (now() - seconds, now() - seconds))
    summary = predict_table(model, place / "table.csv", tmp_path / "o.csv", resume=True)
    assert (tmp_path / "o.csv").read_bytes() == whole
    assert summary.resumed >= ROWS // 2 - 300
    assert 0 <= summary.seconds < 300


def test_a_schedulers_sigterm_ends_a_table_in_one_line_and_resume_gives_the_same_bytes(
    place: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "o.csv"
    child = subprocess.Popen(command(place, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = out.with_name("o.csv.partial")
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 20_000):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert not out.exists()
    done = subprocess.run(command(place, out, "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB: a tmpfs, which only root may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.decode().strip()} (run as root where mounting is allowed)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)


def test_a_full_disk_under_the_output_is_one_sentence_and_resume_gives_the_same_bytes(
    place: Path, whole: bytes, small_disk: Path
) -> None:
    out = small_disk / "o.csv"
    full = subprocess.run(command(place, out), capture_output=True, text=True)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert "No space left on device; make room" in full.stderr
    assert not out.exists()
    grow(small_disk)
    done = subprocess.run(command(place, out, "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(small_disk: Path) -> None:
    path = small_disk / "metrics.json"
    write_atomic(path, b"old")
    with pytest.raises(OutputError, match="make room"):
        write_atomic(path, b"x" * 400_000)
    assert path.read_bytes() == b"old"
    assert [each.name for each in small_disk.iterdir()] == ["metrics.json"]


def test_a_full_disk_under_the_cache_keeps_whole_rows_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    from dermafuse.training.features.store import ActivationStore, StoreKey, content_digest

    key = StoreKey("efficientnet_lite0", "random-seed0", "block6", 64, 1, 1, "f32", (2, 2, 3))

    def digest(number: int) -> bytes:
        return content_digest(str(number).encode())

    def row(number: int) -> np.ndarray:
        return np.full((2, 2, 3), number % 1000, np.float32)

    def fill_for_ever() -> None:
        with ActivationStore(key, small_disk).writer() as writer:
            for number in range(100_000):
                writer.add(digest(number), 0, row(number))
                if number % 50 == 49:
                    writer.commit()

    with pytest.raises((OSError, OutputError)) as refused:
        fill_for_ever()
    assert getattr(refused.value, "errno", errno.ENOSPC) == errno.ENOSPC
    grow(small_disk)
    again = ActivationStore(key, small_disk)
    kept = len(again)
    assert kept % 50 == 0
    with again.writer() as writer:
        for number in range(kept, kept + 10):
            writer.add(digest(number), 0, row(number))
    table = ActivationStore(key, small_disk).rows([digest(number) for number in range(kept + 10)], [0])
    found = table.gather(np.arange(kept + 10))[:, 0, 0, 0]
    np.testing.assert_array_equal(found, (np.arange(kept + 10) % 1000).astype(np.float16))
