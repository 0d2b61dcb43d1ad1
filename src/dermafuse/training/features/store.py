"""The activation store: outputs of the frozen part of a backbone, computed once and kept on disk.

A store is a folder named by a hash of its key (backbone, weights, cut, input size, preprocessing version,
engine precision), so a changed key can never meet old rows. Inside, every writing process appends to a
segment of its own: a flat float16 file plus an index that lists the rows known to be on disk. The index is
replaced atomically after the data is flushed; a process killed at any moment loses only what came after its
last commit, and two processes cannot touch each other's files. A row is named by the content of its image
file and the view, so a moved folder costs nothing and a replaced image is computed anew.

Every row has a checksum, and is checked once before it is served; what is damaged counts as missing. While a store is
open it is locked against pruning, and while it is filled, against a second process that would compute the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from dermafuse.errors import OutputError
from dermafuse.files import cache_folder, write_json
from dermafuse.runtime.engine import bounded_map, cpu_count
from dermafuse.training.features.segments import DATA, INDEX, ROW_ID, Segment, SegmentWriter, remove_orphans, source_of
from dermafuse.training.features.store_lock import StoreLock

#: Raised when the files of a store change meaning; old stores are then never read.
STORE_FORMAT: Final = 2

#: Digest of the image file, and view.
RowName = tuple[bytes, int]

#: Rows that one thread checks at a time.
_ROWS_A_PART: Final = 2_000

#: Bytes of a row from which on several threads check faster than one.
_WORTH_A_THREAD: Final = 8_192

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
        return self.digest_of(STORE_FORMAT)

    def digest_of(self, store_format: int) -> str:
        """Return the same for the files of another format."""
        text = json.dumps({**asdict(self), "format": store_format}, sort_keys=True)
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
        root = root or stores_folder()
        self.folder = root / f"{key.backbone}-{key.cut}-{key.digest}"
        self.outdated = root / f"{key.backbone}-{key.cut}-{key.digest_of(1)}"
        self.row_values = int(np.prod(key.shape))
        self.row_bytes = self.row_values * 2
        try:
            self._hold = StoreLock(self.folder)
        except OSError as error:
            raise OutputError(
                f"Cannot write the activation store {self.folder}: {error.strerror}; set DERMAFUSE_CACHE elsewhere."
            ) from error
        described = self.folder / "key.json"
        if not described.exists():
            write_json(described, {**asdict(key), "format": STORE_FORMAT})
        remove_orphans(self.folder)
        self._segments: dict[str, Segment] = {}
        self._where: dict[RowName, tuple[str, int, int]] = {}
        self._sound: set[RowName] = set()
        self._bad: set[tuple[str, int]] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read the indexes of all segments, those of other processes too."""
        for index in sorted(self.folder.glob(f"*{INDEX}")):
            content = index.read_bytes()
            entries = np.frombuffer(content[: len(content) // ROW_ID.itemsize * ROW_ID.itemsize], dtype=ROW_ID)
            name, data = index.stem, index.with_suffix(DATA)
            # An index never names a row that was not flushed before; a shorter file means a damaged disk or
            # a file cut by hand: its rows are computed again rather than believed.
            held = data.stat().st_size // self.row_bytes if data.exists() else 0
            if held == 0:
                continue
            self._segments[name] = Segment(data, held, self.key.shape)
            for digest, view, slot, check in entries.tolist():
                if slot < held and (name, slot) not in self._bad:
                    before = self._where.get((digest, view))
                    if before is None or before[0] < name:
                        self._where[digest, view] = (name, slot, check)
                        self._sound.discard((digest, view))
        os.utime(self.folder)

    def __contains__(self, row: RowName) -> bool:
        return row in self._where

    def __len__(self) -> int:
        return len(self._where)

    def check(self, wanted: Mapping[bytes, Sequence[int]]) -> int:
        """Check the stored ones of the wanted rows that were not checked yet, and forget those that are damaged.

        Returns:
            How many are damaged: they count as missing now.
        """
        return self._check([(digest, view) for digest, views in wanted.items() for view in set(views)])

    def _check(self, asked: list[RowName]) -> int:
        new = [row for row in asked if row not in self._sound and row in self._where]
        by_segment: dict[str, list[tuple[int, bytes, int, int]]] = {}
        for digest, view in new:
            name, slot, check = self._where[digest, view]
            by_segment.setdefault(name, []).append((slot, digest, view, check))
        parts = [
            (name, entries[start : start + _ROWS_A_PART])
            for name, entries in ((name, sorted(entries)) for name, entries in by_segment.items())
            for start in range(0, len(entries), _ROWS_A_PART)
        ]
        damaged: list[RowName] = []

        def look(part: tuple[str, list[tuple[int, bytes, int, int]]]) -> None:
            damaged.extend(self._segments[part[0]].damaged(part[1]))

        # Rows of pooled features are too small to share: threads would wait for Python's lock.
        workers = min(cpu_count(), len(parts)) if self.row_bytes >= _WORTH_A_THREAD else 1
        for _ in bounded_map(parts, look, workers=workers) if workers > 1 else map(look, parts):
            pass
        self._sound.update(new)
        for row in damaged:
            name, slot, _ = self._where.pop(row)
            self._bad.add((name, slot))
            self._sound.discard(row)
        return len(damaged)

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
            KeyError: a row is not stored, or damaged.
        """
        if counts is None:
            counts = np.full(len(digests), len(views), np.int64)
        asked = [
            (digest, view) for digest, count in zip(digests, counts.tolist(), strict=True) for view in views[:count]
        ]
        if not self._sound.issuperset(asked):
            self._check(asked)
        names = sorted(self._segments)
        number = {name: position for position, name in enumerate(names)}
        found = [self._where[row] for row in asked]
        places = np.array([(number[name], slot) for name, slot, _ in found], dtype=np.int64).reshape(-1, 2)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)[: len(digests)]
        used = [names[position] for position in np.unique(places[:, 0]).tolist()]
        return RowTable(
            [self._segments[name].rows for name in names],
            places,
            first,
            counts,
            self.key.shape,
            hold=self._hold,
            sources=[source_of(self.folder / name) for name in used],
        )

    def writer(self) -> SegmentWriter:
        """Return a writer of a new segment; use it as a context manager."""
        return SegmentWriter(self.folder, self.row_values, self.refresh)

    def filling(
        self, say: Callable[[str], None], *, beside_others: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from computing rows of this store while the block runs; wait for one that does.

        ``beside_others``: but not the other parts of the same extraction.
        """
        return self._hold.filling(say, beside_others=beside_others)

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
        sources: who computed the rows: ``segment``, and where it is known ``host``, ``pid``, ``finished``, ``rows``.
    """

    def __init__(
        self,
        segments: list[NDArray[np.float16]],
        places: NDArray[np.int64],
        first: NDArray[np.int64],
        views: NDArray[np.int64],
        shape: tuple[int, ...],
        *,
        hold: StoreLock | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.sources = tuple(sources)
        self._hold = hold  # as long as there is a table, its store is in use
        self._segments = segments
        self._places = places  # (all rows, 2): segment, slot; the views of an entry stand together
        self._first = first  # (n,)
        self.views = views
        self.shape = shape

    def __len__(self) -> int:
        return len(self._first)

    def subset(self, positions: NDArray[np.int64]) -> RowTable:
        """Return a table of some of the entries, in the order given; nothing is copied from disk."""
        return RowTable(
            self._segments,
            self._places,
            self._first[positions],
            self.views[positions],
            self.shape,
            hold=self._hold,
            sources=self.sources,
        )

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


def stores_folder() -> Path:
    """Return the folder that holds all activation stores."""
    return cache_folder() / "activations"
