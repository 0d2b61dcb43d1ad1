"""Hashes of large files, computed once a process."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from dermafuse.errors import WeightsError


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
