"""Predict every image of a CSV: streamed, in order, resumable, never stopped by a bad row."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from dermafuse.errors import ConfigError, DermafuseError, OutputError, nearest
from dermafuse.files import open_regular, write_json
from dermafuse.runtime.batch.ordered import ordered_map
from dermafuse.runtime.batch.table_output import OutputTable, columns_of, to_parquet
from dermafuse.runtime.batch.table_rows import Row, TableReader
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.prediction import Prediction, Query, Views
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
        absent: metadata fields of the model that the table has no column for.
        notes: sentences on how the table was read and its images were found.
        unknown: metadata field -> word that the model does not know -> rows of this run that have it.
        unknown_notes: the same in sentences, with what the model knows.
        out: the output.
        skipped: CSV of the failed rows (``row``, ``image``, ``reason``); ``None`` where there are none.
        seconds: wall time of this run.
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


def predict_table(
    predictor: Predictor,
    table: Path | str,
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
) -> TableSummary:
    """Predict all rows of a table and write one row each, in the same order.

    While it runs, finished rows are in ``OUT.partial``, which ``resume`` continues. The output has the columns
    ``image``, ``predicted``, ``p_<class>``..., ``malignant``, ``prediction_set`` (codes joined by ``|``),
    ``out_of_distribution``, ``ood_score``, ``missing`` (fields joined by ``|``) and ``error``.

    Args:
        predictor: best loaded with ``mode="throughput"``.
        table: CSV (comma, semicolon or tab) with a column of image paths or ids; any length.
        out: ``.csv``, ``.jsonl`` or ``.parquet`` (needs pyarrow).
        image_column, columns, image_root, extension: see `TableReader`.
        views: 8 averages over flips and quarter turns.
        spreadsheet_safe: put ``'`` before cells of a CSV that a spreadsheet would take for a formula.
        resume: continue an interrupted run of the same table, model and options.
        overwrite: replace ``out`` and what an interrupted run left.
        progress: called with the number of rows done since the last call, those of an earlier run included.

    Raises:
        DataError: the table cannot be read or lacks a column.
        OutputError: ``out`` exists or cannot be written; or ``resume`` with another model, table or options.
        ConfigError: ``out`` has another ending, or pyarrow is missing.
    """
    started = time.monotonic()
    table, out = Path(table), Path(out)
    kind = _check_format(out)
    reader = TableReader(
        table,
        fields=predictor.fields,
        image_column=image_column,
        columns=columns,
        image_root=None if image_root is None else Path(image_root),
        extension=extension,
    )
    identity = {
        "model": predictor.bundle.digest,
        "precision": predictor.precision,
        "table": str(table.absolute()),
        "columns": [reader.columns.image, dict(reader.columns.fields)],
        "views": views,
        "format": kind,
        "spreadsheet_safe": spreadsheet_safe,
    }
    partial = out.with_name(out.name + ".partial")
    state = out.with_name(out.name + ".partial.json")
    _check_output(out, partial, state, identity, resume=resume, overwrite=overwrite)
    names = columns_of(predictor.classes)
    unknown = UnknownWords(predictor.bundle.encoder)
    if not partial.exists():  # what it will be is written down first
        try:
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make {out.parent}: {error.strerror}; choose another --out.") from error
        write_json(state, identity)
    with OutputTable(partial, names, kind, resume=resume, spreadsheet=spreadsheet_safe) as output:
        rows = iter(reader)
        _check_done(output, islice(rows, output.done), table)
        resumed = output.done
        if progress is not None and resumed:
            progress(resumed)
        with contextlib.closing(_predict_rows(predictor, rows, views)) as outcomes:
            for row, outcome in outcomes:
                reason = outcome if isinstance(outcome, str) else None
                if isinstance(outcome, Prediction):
                    unknown.add(outcome)
                output.add(row.number, _cells(row.name, outcome, predictor.classes), reason)
                if output.done % _FLUSH_EVERY == 0:
                    output.flush()
                if progress is not None:
                    progress(1)
        done, failed = output.done, output.failed
    output.publish(out, convert=to_parquet if kind == ".parquet" else None)
    state.unlink(missing_ok=True)
    return TableSummary(
        rows=done,
        predicted=done - failed,
        failed=failed,
        resumed=resumed,
        absent=reader.columns.absent,
        notes=reader.notes(),
        unknown={name: dict(words) for name, words in unknown.counts.items()},
        unknown_notes=tuple(unknown.sentences()),
        out=out,
        skipped=output.skipped if failed else None,
        seconds=time.monotonic() - started,
    )


def count_rows(table: Path | str) -> int:
    """Return about how many rows a table has (its lines but the first), for a progress bar; 0 where unreadable."""
    lines = 0
    last = b"\n"
    try:
        with open_regular(table) as stream:
            while chunk := stream.read(1 << 20):
                lines += chunk.count(b"\n") or chunk.count(b"\r")
                last = chunk[-1:]
    except (OSError, ValueError):
        return 0  # whoever reads it says why
    return max(0, lines - 1 + (last not in b"\r\n"))


def _predict_rows(
    predictor: Predictor, rows: Iterator[Row], views: Views
) -> Generator[tuple[Row, Prediction | str], None, None]:
    """Yield each row with its prediction, or with the reason why there is none."""

    def work(row: Row) -> tuple[Row, Prediction | str]:
        if row.error is not None or row.path is None:
            return row, row.error or "the row names no image"
        try:
            return row, predictor.predict_query(Query(row.path, row.metadata), views)
        except DermafuseError as error:
            return row, str(error)

    return ordered_map(rows, work, workers=predictor.workers)


def _cells(name: str, outcome: Prediction | str, classes: Sequence[str]) -> dict[str, Any]:
    """Return the values of one output row; a failed row has its name and error only."""
    cells: dict[str, Any] = {"image": name}
    if isinstance(outcome, str):
        cells["error"] = outcome
        return cells
    cells["predicted"] = outcome.label
    cells |= {f"p_{code}": float(f"{outcome.probabilities[code]:.8g}") for code in classes}
    bad = outcome.malignant_probability
    cells["malignant"] = None if bad is None else float(f"{bad:.8g}")
    cells["prediction_set"] = None if outcome.prediction_set is None else "|".join(outcome.prediction_set)
    cells["out_of_distribution"] = outcome.out_of_distribution
    cells["ood_score"] = None if outcome.ood_score is None else float(f"{outcome.ood_score:.8g}")
    cells["missing"] = "|".join(outcome.missing)
    return cells


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


def _check_output(
    out: Path, partial: Path, state: Path, identity: dict[str, Any], *, resume: bool, overwrite: bool
) -> None:
    """Refuse to destroy or to mix results, before any work starts."""
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already; add --overwrite to replace it, or choose another --out.")
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
