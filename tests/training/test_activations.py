import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dermafuse.errors import OutputError
from dermafuse.training.features.store import (
    ActivationStore,
    StoreKey,
    content_digest,
)
from dermafuse.training.features.store_listing import describe_stores, list_stores, prune_stores

KEY = StoreKey("efficientnet_lite0", "random-seed0", "block6", 64, 1, 1, "f32", (2, 2, 3))


def digest(number: int) -> bytes:
    return content_digest(str(number).encode())


def row(number: int, view: int = 0) -> np.ndarray:
    return np.full((2, 2, 3), number + view / 8, np.float32)


def fill(root: Path, numbers: range, views: tuple[int, ...] = (0,)) -> None:
    store = ActivationStore(KEY, root)
    with store.writer() as writer:
        for number in numbers:
            for view in views:
                writer.add(digest(number), view, row(number, view))


def test_rows_come_back_by_content_and_view_in_the_order_asked(tmp_path: Path) -> None:
    fill(tmp_path, range(5), (0, 3))
    table = ActivationStore(KEY, tmp_path).rows([digest(4), digest(1), digest(4)], [0, 3])
    got = table.gather(np.array([0, 1, 2]), np.array([1, 0, 0]))
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, np.stack([row(4, 3), row(1), row(4)]).astype(np.float16))


def test_rows_of_several_segments_are_one_table(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    fill(tmp_path, range(3, 6))
    table = ActivationStore(KEY, tmp_path).rows([digest(n) for n in (5, 0, 3, 2)], [0])
    np.testing.assert_array_equal(table.gather(np.arange(4))[:, 0, 0, 0], [5, 0, 3, 2])


def test_only_what_is_not_stored_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    store = ActivationStore(KEY, tmp_path)
    assert store.missing({digest(0): [0], digest(7): [0], digest(2): [0]}) == [digest(7)]
    assert store.missing({digest(0): [0, 1]}) == [digest(0)]


@pytest.mark.parametrize("field", ["backbone", "weights", "cut", "precision"])
def test_a_changed_key_never_meets_stale_rows(tmp_path: Path, field: str) -> None:
    fill(tmp_path, range(3))
    other = StoreKey(**{**KEY.__dict__, field: "other"})
    assert len(ActivationStore(other, tmp_path)) == 0


def test_values_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    store = ActivationStore(KEY, tmp_path)
    with store.writer() as writer, pytest.raises(ArithmeticError, match="float16"):
        writer.add(digest(0), 0, np.full((2, 2, 3), 1e6))
    assert len(store) == 0


def test_a_disk_that_is_too_full_is_told_before_the_work(tmp_path: Path) -> None:
    store = ActivationStore(KEY, tmp_path)
    with pytest.raises(OutputError, match=r"needs .* GB .*DERMAFUSE_CACHE"):
        store.check_space(10**15)


def test_a_data_file_cut_short_is_not_believed(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    store = ActivationStore(KEY, tmp_path)
    (data,) = store.folder.glob("*.f16")
    os.truncate(data, store.row_bytes * 4)
    again = ActivationStore(KEY, tmp_path)
    assert again.missing({digest(n): [0] for n in range(10)}) == [digest(n) for n in range(4, 10)]


def _write_forever(root: Path, ready: str) -> None:
    store = ActivationStore(KEY, root)
    writer = store.writer()
    for number in range(10**9):
        writer.add(digest(number), 0, row(number))
        if number % 50 == 49:
            writer.commit()
        if number == 100:
            Path(ready).touch()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.13])
def test_a_killed_writer_leaves_only_whole_rows(tmp_path: Path, delay: float) -> None:
    ready = tmp_path / "ready"
    process = multiprocessing.get_context("spawn").Process(target=_write_forever, args=(tmp_path / "s", str(ready)))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    store = ActivationStore(KEY, tmp_path / "s")
    assert len(store) >= 100
    stored = list(range(len(store)))
    table = store.rows([digest(number) for number in stored], [0])
    np.testing.assert_array_equal(table.gather(np.arange(len(stored)))[:, 1, 1, 2], np.array(stored, np.float16))


def test_two_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(tmp_path, range(start, start + 150))) for start in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    table = ActivationStore(KEY, tmp_path).rows([digest(n) for n in range(250)], [0])
    np.testing.assert_array_equal(table.gather(np.arange(250))[:, 0, 0, 0], np.arange(250, dtype=np.float16))


def test_many_threads_write_one_segment(tmp_path: Path) -> None:
    store = ActivationStore(KEY, tmp_path)
    with store.writer() as writer:
        threads = [
            threading.Thread(target=lambda part=part: [writer.add(digest(n), 0, row(n)) for n in range(part, 400, 4)])
            for part in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    table = store.rows([digest(n) for n in range(400)], [0])
    np.testing.assert_array_equal(table.gather(np.arange(400))[:, 0, 0, 0], np.arange(400, dtype=np.float16))


def test_stores_are_listed_and_pruned(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    (entry,) = list_stores(tmp_path)
    assert entry["rows"] == 3
    assert entry["bytes"] >= 3 * 24
    assert prune_stores(older_than_days=1, root=tmp_path) == []
    assert len(prune_stores(root=tmp_path)) == 1
    assert list_stores(tmp_path) == []


def test_entries_may_have_fewer_views_than_others(tmp_path: Path) -> None:
    fill(tmp_path, range(3), (0, 1, 2))
    table = ActivationStore(KEY, tmp_path).rows([digest(n) for n in (2, 0, 1)], [1, 0, 1], np.array([1, 3, 2]))
    np.testing.assert_array_equal(table.views, [1, 3, 2])
    full = ActivationStore(KEY, tmp_path).rows([digest(n) for n in range(3)], [0, 1, 2])
    np.testing.assert_array_equal(
        table.gather(np.array([0, 1, 1, 1, 2]), np.array([0, 0, 1, 2, 1])),
        full.gather(np.array([2, 0, 0, 0, 1]), np.array([1, 1, 0, 1, 0])),
    )
    np.testing.assert_array_equal(table.subset(np.array([2])).gather(np.array([0]), 1), full.gather(np.array([1]), 0))
    with pytest.raises(IndexError, match="fewer views"):
        table.gather(np.array([0]), np.array([1]))


def flip(path: Path, byte: int, bit: int = 6) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def only(folder: Path, ending: str) -> Path:
    (found,) = folder.glob(f"*{ending}")
    return found


@pytest.mark.parametrize("view", [0, 3])
def test_one_flipped_bit_makes_its_row_missing_and_no_other(tmp_path: Path, view: int) -> None:
    fill(tmp_path, range(10), (0, 3))
    store = ActivationStore(KEY, tmp_path)
    flip(only(store.folder, ".f16"), store.row_bytes * (2 * 4 + view // 3) + 7)
    wanted = {digest(n): [0, 3] for n in range(10)}
    assert store.check(wanted) == 1
    assert store.missing(wanted) == [digest(4)]
    with pytest.raises(KeyError):
        ActivationStore(KEY, tmp_path).rows([digest(4)], [view])


def test_a_row_that_became_nan_is_never_served(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    store = ActivationStore(KEY, tmp_path)
    data = only(store.folder, ".f16")
    data.write_bytes(b"\x00\x7e" * (data.stat().st_size // 2))
    for number in range(3):
        with pytest.raises(KeyError):
            ActivationStore(KEY, tmp_path).rows([digest(number)], [0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(byte=st.integers(0, 10 * 33 - 1), bit=st.integers(0, 7))
def test_damage_to_the_index_never_serves_a_row_under_another_name(tmp_path: Path, byte: int, bit: int) -> None:
    root = tmp_path / f"{byte}-{bit}"
    fill(root, range(10))
    store = ActivationStore(KEY, root)
    flip(only(store.folder, ".index"), byte, bit)
    for number in range(10):
        for view in (0, 1, 2, 4, 8, 16, 32, 64, 128):
            try:
                got = ActivationStore(KEY, root).rows([digest(number)], [view]).gather(np.array([0]))
            except KeyError:
                continue
            np.testing.assert_array_equal(got[0], row(number, view))


def test_a_row_computed_again_takes_the_place_of_the_damaged_one_for_good(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    store = ActivationStore(KEY, tmp_path)
    flip(only(store.folder, ".f16"), 1)
    assert store.check({digest(0): [0]}) == 1
    with store.writer() as writer:
        writer.add(digest(0), 0, row(0))
    for again in (store, ActivationStore(KEY, tmp_path)):
        assert again.check({digest(n): [0] for n in range(3)}) == 0
        np.testing.assert_array_equal(again.rows([digest(0)], [0]).gather(np.array([0]))[0], row(0))


def _hold_a_store(root: Path, ready: str) -> None:
    fill(root, range(3))
    table = ActivationStore(KEY, root).rows([digest(0)], [0])
    Path(ready).touch()
    time.sleep(60)
    print(table)


def test_pruning_keeps_a_store_that_a_living_process_uses_and_takes_that_of_a_dead_one(tmp_path: Path) -> None:
    root, ready = tmp_path / "s", tmp_path / "ready"
    process = multiprocessing.get_context("spawn").Process(target=_hold_a_store, args=(root, str(ready)))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    assert prune_stores(root=root) == []
    (entry,) = list_stores(root)
    assert entry["in_use"]
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert len(prune_stores(root=root)) == 1
    assert list(root.iterdir()) == []


def test_a_table_keeps_its_store_in_use_and_its_end_frees_it(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    table = ActivationStore(KEY, tmp_path).rows([digest(0)], [0]).subset(np.array([0]))
    assert prune_stores(root=tmp_path) == []
    del table
    assert len(prune_stores(root=tmp_path)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"format": 2}'])
def test_a_damaged_key_is_listed_and_pruned_like_any_other(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, range(3))
    only(ActivationStore(KEY, tmp_path).folder, "key.json").write_bytes(content)
    found = list_stores(tmp_path)
    assert "stores" in describe_stores(found, deleted=False)
    assert found[0]["rows"] == 3
    assert len(prune_stores(root=tmp_path)) == 1


def test_looking_at_stores_does_not_make_them_younger(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    folder = ActivationStore(KEY, tmp_path).folder
    (folder / "in-use.lock").unlink()  # as an earlier version left it
    os.utime(folder, (1.0, 1.0))
    list_stores(tmp_path)
    assert folder.stat().st_mtime == 1.0


def _write_uncommitted(root: Path, ready: str) -> None:
    writer = ActivationStore(KEY, root).writer()
    writer.add(digest(0), 0, row(0))
    Path(ready).touch()
    time.sleep(60)


def test_data_that_a_killed_process_never_committed_is_removed_but_not_that_of_a_living_one(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = multiprocessing.get_context("spawn").Process(target=_write_uncommitted, args=(tmp_path / "s", str(ready)))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    folder = ActivationStore(KEY, tmp_path / "s").folder
    assert len(list(folder.glob("*.f16"))) == 1
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    ActivationStore(KEY, tmp_path / "s")
    assert list(folder.glob("*.f16")) == []


def _fill_what_lacks(root: Path, numbers: range, go: float) -> None:
    time.sleep(max(0.0, go - time.time()))
    store = ActivationStore(KEY, root)
    with store.filling(lambda text: None):
        store.refresh()
        lacking = store.missing({digest(n): [0] for n in numbers})
        with store.writer() as writer:
            for number in numbers:
                if digest(number) in lacking:
                    time.sleep(0.001)
                    writer.add(digest(number), 0, row(number))


def test_of_two_processes_on_one_cold_cache_each_row_is_stored_once(tmp_path: Path) -> None:
    go = time.time() + 1.5
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill_what_lacks, args=(tmp_path, range(100), go)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    (entry,) = list_stores(tmp_path)
    assert entry["rows"] == 100
