"""Checkpoints that are whole or not there: written aside, flushed, renamed, and verified by hash on reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from dermafuse.errors import OutputError
from dermafuse.files import write_atomic

_PREFIX: Final = "epoch-"
_KEPT: Final = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of training after an epoch.

    Attributes:
        epoch: number of epochs finished.
        tensors: name -> array: weights, optimizer, random generators, best weights so far.
        state: JSON-able: best value, epochs without improvement, history.
        run: identity of the run (configuration and rows); another run's checkpoint is not resumed.
    """

    epoch: int
    tensors: Mapping[str, NDArray[Any]]
    state: Mapping[str, Any]
    run: str


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into ``folder``; the newest two are kept, so a torn disk still leaves one.

    The file's name carries the SHA-256 of its content: a file is whole exactly if the two agree.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.asarray(value, order="C") for name, value in checkpoint.tensors.items()}
    metadata = {
        "epoch": str(checkpoint.epoch),
        "run": checkpoint.run,
        "state": json.dumps(checkpoint.state),
    }
    content = safetensors.numpy.save(tensors, metadata=metadata)
    digest = hashlib.sha256(content).hexdigest()[:24]
    path = folder / f"{_PREFIX}{checkpoint.epoch:05d}-{digest}.safetensors"
    write_atomic(path, content)
    for old in _newest_first(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path, run: str) -> Checkpoint | None:
    """Return the newest whole checkpoint in ``folder``, or ``None`` where there is none.

    Raises:
        OutputError: the checkpoint there belongs to a run with other settings or other rows.
    """
    for path in _newest_first(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:24] != path.stem.rpartition("-")[2]:
            continue
        with safetensors.safe_open(path, "numpy") as opened:
            metadata = opened.metadata()
        if metadata["run"] != run:
            raise OutputError(
                f"The unfinished run in {folder.parent} has other settings or other data; use the same ones to "
                "resume it, or --overwrite to start again."
            )
        tensors = safetensors.numpy.load(content)
        return Checkpoint(int(metadata["epoch"]), tensors, json.loads(metadata["state"]), run)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*.safetensors"), reverse=True)
