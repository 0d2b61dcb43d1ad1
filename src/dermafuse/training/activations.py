"""The activation store: outputs of the frozen part of a backbone, computed once and kept on disk.

A store is a folder named by a hash of its key (backbone, weights, cut, input size, preprocessing version,
engine precision), so a changed key can never meet old rows. Inside, every writing process appends to a
segment of its own: a flat float16 file plus an index that lists the rows known to be on disk. The index is
replaced atomically after the data is flushed; a process killed at any moment loses only what came after its
last commit, and two processes cannot touch each other's files. A row is named by the content of its image
file and the view, so a moved folder costs nothing and a replaced image is computed anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from dermafuse.errors import OutputError
from dermafuse.files import cache_folder, write_atomic, write_json

#: Raised when the files of a store change meaning; old stores are then never read.
STORE_FORMAT: Final = 1

#: A digest (16 bytes) and a view (1 byte), packed: one row of a store.
ROW_ID: Final = np.dtype([("digest", "V16"), ("view", "u1"), ("slot", "<u8")])

#: Seconds between commits: what a killed run can lose.
_COMMIT_EVERY: Final = 15.0

#: Disk space left free on purpose, in bytes.
_SPARE_BYTES: Final = 500_000_000


@dataclass(frozen=True)
class StoreKey:
    """Everything that decides what an activation is."""

    backbone: str
    weights: str
    cut: str
    image_size: int
    preprocessing: int
    random_views: int | str
    precision: str
    shape: tuple[int, ...]

    @property
    def digest(self) -> str:
        """Return the name of the store's folder: 20 hexadecimal digits."""
        text = json.dumps({**asdict(self), "format": STORE_FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def content_digest(data: bytes) -> bytes:
    """Return the 16-byte identity of an image file's content (XXH3-128; fast, not for security)."""
    return xxhash.xxh3_128_digest(data)


class ActivationStore:
    """Rows of float16 activations of one key, read and appended.

    Args:
        key: what the rows are.
        root: folder of all stores; default ``DERMAFUSE_CACHE/activations``.
    """

    def __init__(self, key: StoreKey, root: Path | None = None) -> None:
        self.key = key
        self.folder = (root or stores_folder()) / f"{key.backbone}-{key.cut}-{key.digest}"
        self.row_values = int(np.prod(key.shape))
        self.row_bytes = self.row_values * 2
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"Cannot write the activation store {self.folder}: {error.strerror}; set DERMAFUSE_CACHE elsewhere."
            ) from error
        described = self.folder / "key.json"
        if not described.exists():
            write_json(described, {**asdict(key), "format": STORE_FORMAT})
        self._segments: dict[str, NDArray[np.float16]] = {}
        self._where: dict[tuple[bytes, int], tuple[str, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the indexes of all segments, those of other processes too."""
        for index in sorted(self.folder.glob("*.index")):
            entries = np.fromfile(index, dtype=ROW_ID)
            name = index.stem
            data = self.folder / f"{name}.f16"
            # An index never names a row that was not flushed before; a shorter file means a damaged disk or
            # a file cut by hand: its rows are computed again rather than believed.
            held = data.stat().st_size // self.row_bytes if data.exists() else 0
            if held == 0:
                continue
            self._segments[name] = np.memmap(data, np.float16, "r", shape=(held, *self.key.shape))
            for digest, view, slot in zip(
                entries["digest"].tolist(), entries["view"].tolist(), entries["slot"].tolist(), strict=True
            ):
                if slot < held:
                    self._where.setdefault((digest, view), (name, slot))
        os.utime(self.folder)

    def __contains__(self, row: tuple[bytes, int]) -> bool:
        return row in self._where

    def __len__(self) -> int:
        return len(self._where)

    def missing(self, wanted: Mapping[bytes, Sequence[int]]) -> list[bytes]:
        """Return the digests of which at least one of the wanted views is not stored, in order."""
        return [digest for digest, views in wanted.items() if any((digest, view) not in self._where for view in views)]

    def rows(self, digests: Sequence[bytes], views: Sequence[int], counts: NDArray[np.int64] | None = None) -> RowTable:
        """Return a table of the rows ``digests`` x ``views``, all of which must be stored.

        Args:
            digests: one an entry of the table.
            views: by number.
            counts: int64, how many of ``views``, from the first on, each entry has; ``None``: all.

        Raises:
            KeyError: a row is not stored.
        """
        names = sorted(self._segments)
        number = {name: position for position, name in enumerate(names)}
        if counts is None:
            counts = np.full(len(digests), len(views), np.int64)
        places = np.array(
            [
                (number[name], slot)
                for digest, count in zip(digests, counts.tolist(), strict=True)
                for name, slot in (self._where[digest, view] for view in views[:count])
            ],
            dtype=np.int64,
        ).reshape(-1, 2)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)[: len(digests)]
        return RowTable([self._segments[name] for name in names], places, first, counts, self.key.shape)

    def writer(self) -> SegmentWriter:
        """Return a writer of a new segment; use it as a context manager."""
        return SegmentWriter(self)

    def check_space(self, rows: int) -> None:
        """Refuse to start where the disk cannot hold ``rows`` more rows.

        Raises:
            OutputError: with how much is needed and how much is free.
        """
        needed, free = rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if needed + _SPARE_BYTES > free:
            raise OutputError(
                f"The activation store needs {needed / 1e9:.1f} GB in {self.folder.parent} and "
                f"{max(0, free - _SPARE_BYTES) / 1e9:.1f} GB can be used; free some (dermafuse cache --prune), set "
                "DERMAFUSE_CACHE to a larger disk, or train with --set cache=false."
            )


class RowTable:
    """Random access to stored rows by position and view.

    Attributes:
        shape: of one row.
        views: int64 (n,), number of views of each entry.
    """

    def __init__(
        self,
        segments: list[NDArray[np.float16]],
        places: NDArray[np.int64],
        first: NDArray[np.int64],
        views: NDArray[np.int64],
        shape: tuple[int, ...],
    ) -> None:
        self._segments = segments
        self._places = places  # (all rows, 2): segment, slot; the views of an entry stand together
        self._first = first  # (n,)
        self.views = views
        self.shape = shape

    def __len__(self) -> int:
        return len(self._first)

    def subset(self, positions: NDArray[np.int64]) -> RowTable:
        """Return a table of some of the entries, in the order given; nothing is copied from disk."""
        return RowTable(self._segments, self._places, self._first[positions], self.views[positions], self.shape)

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> NDArray[np.float16]:
        """Return float16 (n, \\*shape): entry ``positions[i]`` seen in its view ``views[i]``.

        Raises:
            IndexError: an entry has fewer views.
        """
        if np.any(np.asarray(views) >= self.views[positions]):
            raise IndexError("an entry has fewer views than were asked for")
        places = self._places[self._first[positions] + views]
        out = np.empty((len(places), *self.shape), np.float16)
        for segment in np.unique(places[:, 0]):
            mine = np.flatnonzero(places[:, 0] == segment)
            source = self._segments[segment]
            slots = places[mine, 1]
            if len(mine) == len(places):
                np.take(source, slots, axis=0, out=out, mode="clip")
            else:
                out[mine] = source[slots]
        return out


class SegmentWriter:
    """Appends rows to one segment; what is committed survives a kill, what is not is never read."""

    def __init__(self, store: ActivationStore) -> None:
        self._store = store
        self._name = f"{int(time.time()):x}-{uuid.uuid4().hex[:12]}"
        self._data = store.folder / f"{self._name}.f16"
        self._lock = threading.Lock()
        self._next_slot = 0
        self._done: list[tuple[bytes, int, int]] = []
        self._committed = 0
        self._last_commit = time.monotonic()
        self._file = self._data.open("xb", buffering=0)

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            self._file.close()
        if self._committed == 0:
            self._data.unlink(missing_ok=True)
        self._store.refresh()

    def add(self, digest: bytes, view: int, row: NDArray[Any]) -> None:
        """Store one row (any float dtype; kept as float16). Safe to call from several threads.

        Raises:
            OutputError: the disk is full.
            ArithmeticError: the row holds values that float16 cannot (beyond +-65504, or not a number).
        """
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(row, dtype=np.float16).reshape(-1)
        if half.size != self._store.row_values:
            raise ValueError(f"a row of {half.size} values in a store of {self._store.row_values}")
        if not np.isfinite(half).all():
            raise ArithmeticError("an activation is beyond the range of float16; train with --set cache=false")
        with self._lock:
            self._append(half.tobytes())
            self._done.append((digest, view, self._next_slot))
            self._next_slot += 1
            due = time.monotonic() - self._last_commit > _COMMIT_EVERY
            if due:
                self._last_commit = time.monotonic()
        if due:
            self.commit()

    def _append(self, data: bytes) -> None:
        # Plain writes, not a writable memory map: a full disk is then an error to report, not a bus error.
        try:
            written = self._file.write(data)
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(
                    f"The disk of {self._data.parent} is full; free some space (dermafuse cache --prune) or set "
                    "DERMAFUSE_CACHE to a larger disk. What was computed is kept."
                ) from error
            raise

    def commit(self) -> None:
        """Flush the data, then publish the index of the rows flushed."""
        with self._lock:
            done = list(self._done)
            if len(done) == self._committed:
                return
            self._committed = len(done)
        os.fsync(self._file.fileno())
        entries = np.array([(np.void(digest), view, slot) for digest, view, slot in done], dtype=ROW_ID)
        write_atomic(self._data.with_suffix(".index"), entries.tobytes())


def stores_folder() -> Path:
    """Return the folder that holds all activation stores."""
    return cache_folder() / "activations"
