"""The segments of an activation store: one process's rows in one flat file, with an index and checksums."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from dermafuse.errors import OutputError
from dermafuse.files import write_atomic, write_json
from dermafuse.parallel import origin
from dermafuse.temporaries import try_lock

#: A digest (16 bytes), a view (1 byte), the place in the data, and a checksum, packed: one row of a store.
ROW_ID: Final = np.dtype([("digest", "V16"), ("view", "u1"), ("slot", "<u8"), ("check", "<u8")])

#: Endings of the files of a segment: rows, where they are, and who computed them.
DATA, INDEX, SOURCE = ".f16", ".index", ".json"

#: Seconds between commits: what a killed run can lose.
_COMMIT_EVERY: Final = 15.0

#: Bytes read at once while checking.
_BLOCK: Final = 4 << 20


def checksum(digest: bytes, view: int, row: bytes | memoryview) -> int:
    """Return what a row must hash to (XXH3-64). Digest and view count: a row under another's name is damage too."""
    return xxhash.xxh3_64_intdigest(row, seed=int.from_bytes(digest[:8], "little") ^ view)


class Segment:
    """The rows of one finished or growing segment.

    Attributes:
        rows: memory map, (slots, \\*shape) float16.
    """

    def __init__(self, data: Path, slots: int, shape: tuple[int, ...]) -> None:
        self._data = data
        self._row_bytes = int(np.prod(shape)) * 2
        self.rows = np.memmap(data, np.float16, "r", shape=(slots, *shape))

    def damaged(self, entries: list[tuple[int, bytes, int, int]]) -> list[tuple[bytes, int]]:
        """Return digest and view of the rows that are not what was written.

        Args:
            entries: slot, digest, view and checksum of each row to look at, ascending.
        """
        bad = []
        step = max(1, _BLOCK // self._row_bytes)
        with self._data.open("rb", buffering=0) as stream:
            start, held = 0, memoryview(b"")
            for slot, digest, view, check in entries:
                offset = (slot - start) * self._row_bytes
                if not held or slot < start or offset + self._row_bytes > len(held):
                    start, offset, held = slot, 0, self._read(stream, slot, step)
                row = held[offset : offset + self._row_bytes]
                if len(row) < self._row_bytes or checksum(digest, view, row) != check:
                    bad.append((digest, view))
        return bad

    def _read(self, stream: io.FileIO, slot: int, count: int) -> memoryview:
        # Read, not mapped: a sector that cannot be read is an error then, and not the end of the process.
        for rows in (count, 1):
            with contextlib.suppress(OSError):
                stream.seek(slot * self._row_bytes)
                return memoryview(stream.read(rows * self._row_bytes))
        return memoryview(b"")


class SegmentWriter:
    """Appends rows to one segment; what is committed survives a kill, what is not is never read."""

    def __init__(self, folder: Path, row_values: int, on_end: Callable[[], None]) -> None:
        self._row_values = row_values
        self._on_end = on_end
        # Names sort by age: the youngest copy of a row counts, so that one computed again replaces the damaged one.
        self._data = folder / f"{time.time_ns():x}-{uuid.uuid4().hex[:12]}{DATA}"
        self._lock = threading.Lock()
        self._next_slot = 0
        self._done: list[tuple[bytes, int, int, int]] = []
        self._committed = 0
        self._last_commit = time.monotonic()
        self._file = self._data.open("xb", buffering=0)
        try_lock(self._file.fileno())  # tells it from a dead process's leftover

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            self._file.close()
        if self._committed == 0:
            self._data.unlink(missing_ok=True)
        self._on_end()

    def add(self, digest: bytes, view: int, row: NDArray[Any]) -> None:
        """Store one row (any float dtype; kept as float16). Safe to call from several threads.

        Raises:
            OutputError: the disk is full.
            ArithmeticError: the row holds values that float16 cannot (beyond +-65504, or not a number).
        """
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(row, dtype=np.float16).reshape(-1)
        if half.size != self._row_values:
            raise ValueError(f"a row of {half.size} values in a store of {self._row_values}")
        if not np.isfinite(half).all():
            raise ArithmeticError("an activation is beyond the range of float16; train with --set cache=false")
        content = half.tobytes()
        check = checksum(digest, view, content)
        with self._lock:
            self._append(content)
            self._done.append((digest, view, self._next_slot, check))
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
        entries = np.array([(np.void(digest), *rest) for digest, *rest in done], dtype=ROW_ID)
        write_json(self._data.with_suffix(SOURCE), {**origin(), "rows": len(done)})
        write_atomic(self._data.with_suffix(INDEX), entries.tobytes())


def source_of(segment: Path) -> dict[str, Any]:
    """Return who computed the rows of a segment, as far as that is written down."""
    said: Any = None
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(segment.with_suffix(SOURCE).read_bytes())
    return {"segment": segment.name, **(said if isinstance(said, dict) else {})}


def remove_orphans(folder: Path) -> None:
    """Delete the data of processes that died before their first commit: no index names it, and nobody writes it."""
    for data in folder.glob(f"*{DATA}"):
        if data.with_suffix(INDEX).exists():
            continue
        with contextlib.suppress(OSError), data.open("rb") as stream:
            if try_lock(stream.fileno()) and not data.with_suffix(INDEX).exists():
                data.unlink()
