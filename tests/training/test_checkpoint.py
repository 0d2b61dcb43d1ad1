from pathlib import Path

import numpy as np
import pytest

from dermafuse.errors import OutputError
from dermafuse.training.loop.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def made(epoch: int, run: str = "r") -> Checkpoint:
    return Checkpoint(epoch, {"w": np.full(3, epoch, np.float32), "i": np.int64([epoch])}, {"best": 0.5}, run)


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(3))
    found = load_checkpoint(tmp_path, "r")
    assert found is not None
    assert (found.epoch, found.state) == (3, {"best": 0.5})
    np.testing.assert_array_equal(found.tensors["w"], np.full(3, 3, np.float32))
    assert found.tensors["i"].dtype == np.int64


def test_the_newest_is_taken_and_only_two_are_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 9, 10):
        save_checkpoint(tmp_path, made(epoch))
    found = load_checkpoint(tmp_path, "r")
    assert found is not None
    assert found.epoch == 10
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, made(1))
    path = save_checkpoint(tmp_path, made(2))
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-4])
    else:
        content[-1] ^= 1
        path.write_bytes(content)
    found = load_checkpoint(tmp_path, "r")
    assert found is not None
    assert found.epoch == 1


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(1))
    with pytest.raises(OutputError, match="other settings"):
        load_checkpoint(tmp_path, "another")


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing", "r") is None
