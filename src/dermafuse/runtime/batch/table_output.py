"""The growing output of a run over a table: rows appended in order, a torn last row cut off on resume."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from dermafuse.errors import OutputError
from dermafuse.files import sync_folder
from dermafuse.printable import csv_line, for_spreadsheet, plain
from dermafuse.temporaries import temporary_folder, try_lock

_SKIPPED_COLUMNS: Final = ("row", "image", "reason")


def columns_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the output's columns, in order."""
    probabilities = [f"p_{code}" for code in classes]
    return (
        "image",
        "predicted",
        *probabilities,
        "malignant",
        "prediction_set",
        "out_of_distribution",
        "ood_score",
        "missing",
        "error",
    )


@dataclass(frozen=True)
class Lines:
    """How rows are written: one line each, whatever the cells hold (resuming and joining rely on it).

    Attributes:
        columns: names.
        kind: ``.jsonl``, or else CSV (parquet is converted from it at the end).
        spreadsheet: in CSV, mark cells that a spreadsheet would take for a formula.
    """

    columns: tuple[str, ...]
    kind: str
    spreadsheet: bool = False

    @property
    def json(self) -> bool:
        """Whether rows are JSON."""
        return self.kind == ".jsonl"

    def row(self, cells: Mapping[str, Any]) -> bytes:
        """Return an output row."""
        if not self.json:
            return self.csv([_text(cells.get(name)) for name in self.columns])
        whole = {name: cells.get(name) for name in self.columns}
        whole["prediction_set"] = _split(whole["prediction_set"])
        whole["missing"] = _split(whole["missing"])
        return (json.dumps(whole, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")

    def skipped(self, number: int, image: str, reason: str) -> bytes:
        """Return a row of the list of failed rows."""
        return self.csv([str(number), image, reason])

    def csv(self, cells: Sequence[str]) -> bytes:
        """Return a line of CSV."""
        return csv_line(cells, spreadsheet=self.spreadsheet and not self.json).encode()


class OutputTable:
    """Writes rows to ``OUT.partial`` and the failed ones also to ``OUT.skipped.csv.partial``.

    Args:
        partial: where finished rows go until all are there.
        lines: how they are written.
        resume: keep the complete rows that ``partial`` holds.

    Attributes:
        done: rows in ``partial``.
        failed: how many of them have no prediction.
        skipped: path of the published list of failed rows.

    Raises:
        OutputError: the files cannot be written, or ``partial`` is not the output of such a run.
    """

    def __init__(self, partial: Path, lines: Lines, *, resume: bool) -> None:
        self._partial = partial
        self._lines = lines
        self.skipped = partial.with_name(partial.name.removesuffix(".partial") + ".skipped.csv")
        self._skipped_partial = self.skipped.with_name(self.skipped.name + ".partial")
        self.done = self.failed = 0
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._open(resume)
            self._list: BinaryIO = self._skipped_partial.open("wb")
            self._list.write(self._lines.csv(_SKIPPED_COLUMNS))
            for cells in self._rows_done():
                self.done += 1
                if cells.get("error"):
                    self._add_skipped(self.done, str(cells["image"]), str(cells["error"]))
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> OutputTable:
        return self

    def __exit__(self, *details: object) -> None:
        try:
            self.flush()
        finally:
            for stream in (self._stream, self._list):
                with contextlib.suppress(OSError):  # flushed above: what fails again here has been said
                    stream.close()

    def add(self, number: int, cells: dict[str, Any], error: str | None) -> None:
        """Append row ``number`` (counted from 1)."""
        line = self._lines.row(cells)
        try:
            self._stream.write(line)
            if error is not None:
                self._add_skipped(number, str(cells["image"]), error)
        except OSError as failure:
            raise self._cannot_write(failure) from failure
        self.done += 1

    def add_block(self, rows: bytes, skipped: bytes, *, count: int, failed: int) -> None:
        """Append ``count`` rows that are lines already, ``failed`` of them also in the list of failed rows."""
        try:
            self._stream.write(rows)
            self._list.write(skipped)
        except OSError as failure:
            raise self._cannot_write(failure) from failure
        self.done += count
        self.failed += failed

    def flush(self) -> None:
        """Hand all rows to the operating system, so that a killed process loses none of them."""
        try:
            self._stream.flush()
            self._list.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def written_name(self, name: str) -> str:
        """Return how the name of an image stands in the output."""
        if self._lines.json:
            return name
        return for_spreadsheet(plain(name)) if self._lines.spreadsheet else plain(name)

    def names_done(self) -> Iterator[str]:
        """Yield the image names of the rows that are done, as they stand in the output."""
        for cells in self._rows_done():
            yield str(cells["image"])

    def publish(self, out: Path, *, convert: Callable[[Path, Path], None] | None = None) -> None:
        """Put the complete output in its place, atomically, and the list of failed rows beside it."""
        try:
            if self._partial.stat().st_ino != self._inode:
                raise OutputError(f"{self._partial} was replaced by another run meanwhile; run the command again.")
            for path in (self._partial, self._skipped_partial):
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
            if self.failed:
                self._skipped_partial.replace(self.skipped)
            else:
                self._skipped_partial.unlink()
                self.skipped.unlink(missing_ok=True)  # of an earlier run
            if convert is None:
                self._partial.replace(out)
            else:
                convert(self._partial, out)
                self._partial.unlink()
            sync_folder(out.absolute().parent)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _open(self, resume: bool) -> BinaryIO:
        # Not "wb": what another process is writing must not be cut off before that is known.
        stream = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666), "rb+")
        if try_lock(stream.fileno()) is False:
            stream.close()
            raise _at_work(self._partial)
        self._inode = os.fstat(stream.fileno()).st_ino
        stream.truncate(self._complete_bytes(stream) if resume else 0)
        stream.seek(0, io.SEEK_END)
        if resume and (stream.tell() or self._lines.json):
            return stream
        if not self._lines.json:
            stream.write(self._lines.csv(self._lines.columns))
            stream.flush()
        return stream

    def _complete_bytes(self, stream: BinaryIO) -> int:
        """Return the length up to the last line end: rows are written without line breaks inside."""
        stream.seek(0, io.SEEK_END)
        end = stream.tell()
        while end:
            start = max(0, end - 65_536)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _rows_done(self) -> Iterator[dict[str, Any]]:
        with self._partial.open(encoding="utf-8", newline="") as stream:
            if self._lines.json:
                for line in stream:
                    yield _loads(line, self._partial)
                return
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != self._lines.columns:
                raise OutputError(f"{self._partial} has other columns than this model gives; use --overwrite.")
            yield from reader

    def _add_skipped(self, number: int, image: str, reason: str) -> None:
        self.failed += 1
        self._list.write(self._lines.skipped(number, image, reason))

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(
            f"Cannot write {self._partial}: {error.strerror}; make room or choose another --out, then --resume."
        )


def refuse_running(partial: Path) -> None:
    """Refuse an output that a living process is writing.

    Raises:
        OutputError: says so.
    """
    with contextlib.suppress(OSError), partial.open("rb") as stream:
        if try_lock(stream.fileno()) is False:
            raise _at_work(partial)


def _at_work(partial: Path) -> OutputError:
    return OutputError(f"Another process is writing {partial}; wait for it, or choose another --out.")


def to_parquet(partial: Path, out: Path) -> None:
    """Convert the finished CSV to Parquet, batch by batch, in bounded memory (needs pyarrow)."""
    pa, pa_csv, pa_parquet = map(importlib.import_module, ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    with partial.open(encoding="utf-8", newline="") as stream:
        names = next(csv.reader(stream))
    texts = {"image", "predicted", "prediction_set", "missing", "error"}
    types = {name: pa.string() if name in texts else pa.float64() for name in names}
    types["out_of_distribution"] = pa.bool_()
    options = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    with (
        temporary_folder(out) as folder,
        pa_csv.open_csv(partial, convert_options=options) as batches,
    ):
        with pa_parquet.ParquetWriter(folder / out.name, batches.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        (folder / out.name).replace(out)


def _text(value: object) -> str:
    if value is None:
        return ""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _split(value: str | None) -> list[str] | None:
    return None if value is None else [part for part in value.split("|") if part]


def _loads(line: str, path: Path) -> dict[str, Any]:
    try:
        cells = json.loads(line)
        if isinstance(cells, dict) and "image" in cells:
            return cells
    except ValueError:
        pass
    raise OutputError(f"{path} is not the output of an interrupted run; use --overwrite.")
