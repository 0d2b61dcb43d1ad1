"""Predict every image of a CSV: streamed, in order, resumable, never stopped by a bad row."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from dermafuse.errors import ConfigError, OutputError, nearest
from dermafuse.files import write_json
from dermafuse.parallel import Part, Runner, ShardFolder
from dermafuse.runtime.batch.data_rows import DataRows
from dermafuse.runtime.batch.row_answers import cells_of, predict_rows
from dermafuse.runtime.batch.table_output import Lines, OutputTable, columns_of, refuse_running, to_parquet
from dermafuse.runtime.batch.table_rows import Row, TableReader
from dermafuse.runtime.batch.table_shards import ShardedTable
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.prediction import Prediction, Views
from dermafuse.runtime.predictor import Predictor

FORMATS: Final = (".csv", ".jsonl", ".parquet")

#: Finished rows reach the disk at least this often, in rows; a killed run loses no more.
_FLUSH_EVERY: Final = 256


@dataclass(frozen=True)
class TableSummary:
    """What a run over a table left.

    Attributes:
        rows: of the output.
        predicted: rows with a prediction.
        failed: rows without one; each is in ``skipped`` with its reason.
        resumed: rows that an earlier, interrupted run had done.
        absent: metadata fields of the model that the table has no column for, and no DICOM file says.
        notes: sentences on how the table was read and its images were found.
        unknown: metadata field -> word that the model does not know -> rows of this run that have it.
        unknown_notes: the same in sentences, with what the model knows.
        out: the output.
        skipped: CSV of the failed rows (``row``, ``image``, ``reason``); ``None`` where there are none.
        seconds: wall time of this run.
        shards: of a run in shards: how many are there of those asked for, and how many the table has.
    """

    rows: int
    predicted: int
    failed: int
    resumed: int
    absent: tuple[str, ...]
    notes: tuple[str, ...]
    unknown: Mapping[str, Mapping[str, int]]
    unknown_notes: tuple[str, ...]
    out: Path
    skipped: Path | None
    seconds: float
    shards: tuple[int, int] | None = None


def predict_table(
    predictor: Predictor,
    table: Path | str | DataRows,
    out: Path | str,
    *,
    image_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    image_root: Path | str | None = None,
    extension: str | None = None,
    views: Views = 1,
    spreadsheet_safe: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    shard: Part | None = None,
    runner: Runner | None = None,
) -> TableSummary:
    """Predict all rows of a table and write one row each, in the same order.

    While it runs, finished rows are in ``OUT.partial``, which ``resume`` continues. The output has the columns
    ``image``, ``predicted``, ``p_<class>``..., ``malignant``, ``prediction_set`` (codes joined by ``|``),
    ``out_of_distribution``, ``ood_score``, ``missing`` (fields joined by ``|``) and ``error``.

    With ``shard`` only a part of the table is predicted, into ``OUT.shards``; any number of processes and machines may
    do that at the same time. A call without ``shard`` computes what is missing of them and joins them to the output,
    which is byte by byte the same as without shards; ``OUT.shards.json`` then says which came from where.

    Args:
        predictor: best loaded with ``mode="throughput"``.
        table: CSV (comma, semicolon or tab) with a column of image paths or ids, of any length; or a `DataRows`.
        out: ``.csv``, ``.jsonl`` or ``.parquet`` (needs pyarrow).
        image_column, columns, image_root, extension: see `TableReader`.
        views: 8 averages over flips and quarter turns.
        spreadsheet_safe: put ``'`` before cells of a CSV that a spreadsheet would take for a formula.
        resume: continue an interrupted run of the same table, model and options.
        overwrite: replace ``out`` and what an interrupted run left.
        progress: called with the number of rows done since the last call, those of an earlier run included.
        shard: the part to predict; ``None``: all.
        runner: computes shards elsewhere (`dermafuse.cluster`); ``None``: here.

    Raises:
        DataError: the table cannot be read or lacks a column.
        OutputError: ``out`` exists or cannot be written; or ``resume`` with another model, table or options.
        ConfigError: ``out`` has another ending, or pyarrow is missing.
    """
    started = time.monotonic()
    out = Path(out)
    kind = _check_format(out)
    if isinstance(table, DataRows):
        if shard is not None or runner is not None:
            raise ConfigError("Shards are parts of a --csv table; a data set (--data) is predicted in one go.")
        lines = Lines(columns_of(predictor.classes), kind, spreadsheet_safe)
        task = _Task(predictor, table, out, lines, views, progress or (lambda done: None))
        return _in_one_go(task, started, resume=resume, overwrite=overwrite)
    reader = TableReader(
        Path(table),
        fields=predictor.fields,
        image_column=image_column,
        columns=columns,
        image_root=None if image_root is None else Path(image_root),
        extension=extension,
    )
    lines = Lines(columns_of(predictor.classes), kind, spreadsheet_safe)
    task = _Task(predictor, reader, out, lines, views, progress or (lambda done: None))
    if shard is not None or runner is not None or task.shards.exists():
        return _in_shards(task, reader, shard, runner, started, overwrite=overwrite)
    return _in_one_go(task, started, resume=resume, overwrite=overwrite)


@dataclass(frozen=True)
class _Task:
    """What is predicted, and where to."""

    predictor: Predictor
    reader: TableReader | DataRows
    out: Path
    lines: Lines
    views: Views
    progress: Callable[[int], None]

    @property
    def partial(self) -> Path:
        return self.out.with_name(self.out.name + ".partial")

    @property
    def state(self) -> Path:
        return self.out.with_name(self.out.name + ".partial.json")

    @property
    def shards(self) -> Path:
        return self.out.with_name(self.out.name + ".shards")

    def identity(self) -> dict[str, Any]:
        """Return what decides the answers, the rows of the table apart."""
        return {
            "model": self.predictor.bundle.digest,
            "precision": self.predictor.precision,
            "columns": [self.reader.columns.image, dict(self.reader.columns.fields)],
            "views": self.views,
            "format": self.lines.kind,
            "spreadsheet_safe": self.lines.spreadsheet,
        }

    def make_folder(self) -> None:
        try:
            self.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make {self.out.parent}: {error.strerror}; choose another --out.") from error

    def publish(self, output: OutputTable) -> None:
        output.publish(self.out, convert=to_parquet if self.lines.kind == ".parquet" else None)

    def summary(self, started: float, unknown: UnknownWords, **counts: Any) -> TableSummary:
        return TableSummary(
            predicted=counts["rows"] - counts["failed"],
            absent=tuple(name for name in self.reader.columns.absent if name not in unknown.from_file),
            notes=(*self.reader.notes(), *counts.pop("notes", ())),
            unknown={name: dict(words) for name, words in unknown.counts.items()},
            unknown_notes=tuple(unknown.sentences()),
            seconds=time.monotonic() - started,
            **counts,
        )


def _in_one_go(task: _Task, started: float, *, resume: bool, overwrite: bool) -> TableSummary:
    """Predict from the first row to the last."""
    predictor, table = task.predictor, task.reader.table
    identity = {**task.identity(), "table": str(table.absolute())}
    _check_output(task, identity, resume=resume, overwrite=overwrite)
    unknown = UnknownWords(predictor.bundle.encoder)
    if not task.partial.exists():  # what it will be is written down first
        task.make_folder()
        write_json(task.state, identity)
    with OutputTable(task.partial, task.lines, resume=resume) as output:
        rows = iter(task.reader)
        _check_done(output, islice(rows, output.done), table)
        resumed = output.done
        if resumed:
            task.progress(resumed)
        with contextlib.closing(predict_rows(predictor, rows, task.views)) as outcomes:
            for row, outcome in outcomes:
                reason = outcome if isinstance(outcome, str) else None
                if isinstance(outcome, Prediction):
                    unknown.add(outcome)
                output.add(row.number, cells_of(row.name, outcome, predictor.classes), reason)
                if output.done % _FLUSH_EVERY == 0:
                    output.flush()
                task.progress(1)
        done, failed = output.done, output.failed
    task.publish(output)
    task.state.unlink(missing_ok=True)
    skipped = output.skipped if failed else None
    return task.summary(started, unknown, rows=done, failed=failed, resumed=resumed, out=task.out, skipped=skipped)


def _in_shards(
    task: _Task, reader: TableReader, shard: Part | None, runner: Runner | None, started: float, *, overwrite: bool
) -> TableSummary:
    """Predict a part of the table into the folder of shards; or what is missing of all, and join it."""
    _refuse_existing(task.out, overwrite=overwrite)
    if task.state.exists() and not overwrite:
        raise OutputError(
            f"{task.partial} holds an interrupted run without shards; end it with --resume, or add --overwrite."
        )
    task.make_folder()
    asked = {**task.identity(), "images": str(reader.root), "block_rows": reader.block_rows}
    folder = ShardFolder(task.shards, asked, again=overwrite)
    table = ShardedTable(task.predictor, reader, task.lines, task.views, folder)
    done = table.compute(shard or Part(1, 1), runner, task.progress)
    counts = {"rows": done.rows, "failed": done.failed, "resumed": done.resumed, "notes": table.notes()}
    if shard is not None:
        return task.summary(
            started, done.unknown, out=task.shards, skipped=None, shards=(done.own, done.shards), **counts
        )
    with OutputTable(task.partial, task.lines, resume=False) as output:
        names = table.join(output)
    task.publish(output)
    task.state.unlink(missing_ok=True)
    folder.close(task.out.with_name(task.out.name + ".shards.json"), names)
    skipped = output.skipped if done.failed else None
    return task.summary(
        started, done.unknown, out=task.out, skipped=skipped, shards=(done.shards, done.shards), **counts
    )


def _check_format(out: Path) -> str:
    kind = out.suffix.lower()
    if kind not in FORMATS:
        raise ConfigError(
            f"{out} ends in '{out.suffix}'; predictions are written as {', '.join(FORMATS)}.{nearest(kind, FORMATS)}"
        )
    if kind == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"Writing {out.name} needs pyarrow; run 'pip install pyarrow', or name a .csv or .jsonl file."
        )
    return kind


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already; add --overwrite to replace it, or choose another --out.")


def _check_output(task: _Task, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Refuse to destroy or to mix results, before any work starts."""
    partial, state = task.partial, task.state
    _refuse_existing(task.out, overwrite=overwrite)
    refuse_running(partial)
    if overwrite and not resume:
        for leftover in (partial, state):
            leftover.unlink(missing_ok=True)
    if not partial.exists():
        return
    if not resume:
        raise OutputError(f"{partial} holds an interrupted run; add --resume to continue it, or --overwrite.")
    try:
        before = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{state}, which says what {partial.name} is, cannot be read; use --overwrite.") from error
    changed = [key for key, value in identity.items() if not isinstance(before, dict) or before.get(key) != value]
    if changed:
        raise OutputError(
            f"{partial} was begun with another {changed[0]}; repeat that command, or use --overwrite to begin again."
        )


def _check_done(output: OutputTable, rows: Iterator[Row], table: Path) -> None:
    """Go past the rows that are done, and make sure that they are the rows the output has."""
    names = iter(output.names_done())
    for row in rows:
        name = next(names)
        if output.written_name(row.name) != name:
            raise OutputError(
                f"{table} has changed since the interrupted run (row {row.number} is '{row.name}', was '{name}'); "
                "use --overwrite to begin again."
            )
    if next(names, None) is not None:
        raise OutputError(f"{table} has fewer rows than the interrupted run did; use --overwrite to begin again.")
