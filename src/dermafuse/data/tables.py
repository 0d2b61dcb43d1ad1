"""A table as text columns, checked: every cell as text, every doubt a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.data.table_files import open_table
from dermafuse.data.values import AGE_RANGE, is_open_range, why_no_number, written_number
from dermafuse.data.words import MISSING, says_nothing
from dermafuse.errors import DataError, examples, nearest

__all__ = ["AGE_RANGE", "MISSING"]


def read_table(path: Path, notes: list[str] | None = None) -> pd.DataFrame:
    """Read a text table (`dermafuse.data.table_files`); cells are stripped ``str``, never converted.

    Columns without a name are left out.

    Args:
        path: the table.
        notes: where to say which table was read, and what had to be told from it.

    Raises:
        DataError: not a readable text table, empty, a column named twice, or a row with too few or too many cells
            (named by its line).
    """
    table = open_table(path)
    rows: list[list[str]] = []
    for line, cells, problem in table.rows():
        if problem is not None:
            raise DataError(f"{path}, line {line}: {problem}; mend that line.")
        rows.append(cells)
    if notes is not None:
        notes.append(f"Table: {path.name}, {len(rows):,} rows, {table.separated}.")
        notes += table.notes
    columns = zip(*rows, strict=True) if rows else ([] for _ in table.header)
    return pd.DataFrame({name: text_column(cells) for name, cells in zip(table.header, columns, strict=True) if name})


def text_column(values: Iterable[str | None]) -> pd.Series:
    """Return a text column of the records: dtype object, ``str`` or ``None``, on every pandas alike."""
    return pd.Series(list(values), dtype=object)


def optional_text(values: Iterable[str]) -> list[str | None]:
    """Return the values with `MISSING` cells as ``None``; any other text stays as it is."""
    return [None if value.lower() in MISSING else value for value in values]


def find_columns(frame: pd.DataFrame, wanted: Sequence[str], path: Path) -> dict[str, str]:
    """Return wanted name -> the table's own spelling of it (upper and lower case are the same).

    Raises:
        DataError: a column is missing; names it, what is there, and the nearest name.
    """
    spelling = {str(name).lower(): str(name) for name in reversed(frame.columns)}
    missing = [name for name in wanted if name not in frame.columns and name.lower() not in spelling]
    if missing:
        there = examples([str(name) for name in frame.columns], limit=12)
        raise DataError(
            f"{path} has no column '{missing[0]}' (it has {there}); rename or add it."
            f"{nearest(missing[0], spelling.values())}"
        )
    return {name: name if name in frame.columns else spelling[name.lower()] for name in wanted}


def check_image_ids(ids: Sequence[str], path: Path) -> None:
    """Refuse image ids that are empty, given twice, or hold control characters.

    An id is only ever looked up among the file names of the scanned folders (`dermafuse.data.image_names`).

    Raises:
        DataError: with the first examples and the count.
    """
    empty = sum(not name for name in ids)
    if empty:
        raise DataError(f"{path}: {empty:,} row(s) name no image; fill the column or remove those rows.")
    unsafe = [repr(name) for name in ids if not name.isprintable()]
    if unsafe:
        raise DataError(
            f"{path}: {len(unsafe):,} image id(s) hold control characters ({examples(unsafe)}); "
            "give the names of the files."
        )
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for name in ids:
        if name in seen:
            repeated[name] = None
        seen.add(name)
    if repeated:
        raise DataError(
            f"{path}: {len(repeated):,} image id(s) stand in more than one row ({examples(repeated)}); "
            "keep one row an image."
        )


def check_labels(
    labels: Sequence[str | None], ids: Sequence[str], classes: Sequence[str], path: Path, *, drop: str = ""
) -> None:
    """Refuse labels that are not one of ``classes``; ``None`` is let through. ``drop`` says how to leave them out.

    Raises:
        DataError: with the first examples, the count, and the known labels.
    """
    wrong = [
        (name, label) for name, label in zip(ids, labels, strict=True) if label not in classes and label is not None
    ]
    if wrong:
        shown = examples([f"'{label}' of {name}" for name, label in wrong])
        raise DataError(
            f"{path}: {len(wrong):,} row(s) have an unknown diagnosis ({shown}); known are "
            f"{', '.join(classes)}{drop}.{nearest(str(wrong[0][1]), classes)}"
        )


def parse_numbers(
    values: Sequence[str],
    ids: Sequence[str],
    name: str,
    path: Path,
    limits: tuple[float, float] | None = None,
    notes: list[str] | None = None,
) -> npt.NDArray[np.float64]:
    """Return a numeric column as float64; `MISSING` cells and ``unknown`` become NaN (`written_number` reads the rest).

    Args:
        values: cells as text, one a row.
        ids: image ids of the rows, for the message.
        name: the column's name, for the message.
        path: the table, for the message.
        limits: smallest and largest value allowed, or ``None``.
        notes: where to say which values are not quite what the table has.

    Raises:
        DataError: a cell is not a finite number or lies outside ``limits``; first examples and the count.
    """
    numbers = np.full(len(values), np.nan)
    bad: list[str] = []
    outside: list[str] = []
    ranges: list[str] = []
    for row, text in enumerate(values):
        if says_nothing(text):
            continue
        number = written_number(text)
        if number is None or not math.isfinite(number):
            bad.append(f"'{text}' of {ids[row]}{'' if bad else why_no_number(text)}")
            continue
        if not text[-1:].isdigit() or not text[:1].isdigit():
            ranges += [text] if is_open_range(text) else []
        if limits and not limits[0] <= number <= limits[1]:
            outside.append(f"{text} of {ids[row]}")
        numbers[row] = number
    if bad:
        raise DataError(
            f"{path}: {len(bad):,} value(s) of '{name}' are not numbers ({examples(bad)}); "
            "mend them or leave them empty."
        )
    if outside and limits:
        raise DataError(
            f"{path}: {len(outside):,} value(s) of '{name}' lie outside {limits[0]:g} to {limits[1]:g} "
            f"({examples(outside)}); mend them or leave them empty."
        )
    if ranges and notes is not None:
        notes.append(
            f"{len(ranges):,} value(s) of '{name}' are open ranges, of which the lower end counts "
            f"({examples(dict.fromkeys(ranges))})."
        )
    return numbers


#: Words that people write for 1 and 0.
_TRUTH = {"true": "1", "yes": "1", "false": "0", "no": "0", "": "0"}


def marked_column(
    frame: pd.DataFrame, columns: Sequence[str], ids: Sequence[str], path: Path, *, required: bool
) -> list[str | None]:
    """Return for every row the one of ``columns`` that holds a 1; ``None`` where none does.

    Args:
        frame: cells as text.
        columns: of ``frame``, as it spells them.
        ids: image ids of the rows, for the message.
        path: the table, for the message.
        required: whether every row must mark one.

    Raises:
        DataError: a cell that is neither 0 nor 1, more than one 1 in a row, or none where one is required.
    """
    cells = ([_TRUTH.get(str(cell).lower(), str(cell)) for cell in frame[name]] for name in columns)
    numbers = [parse_numbers(list(column), ids, name, path) for column, name in zip(cells, columns, strict=True)]
    values = np.column_stack(numbers).reshape(len(ids), len(columns))
    total = values.sum(axis=1)  # (n,)
    wrong = ~np.isin(values, (0.0, 1.0)).all(axis=1) | (total > 1) | ((total == 0) if required else False)
    if wrong.any():
        shown = examples([ids[row] for row in np.flatnonzero(wrong).tolist()], int(wrong.sum()))
        raise DataError(
            f"{path}: {int(wrong.sum()):,} row(s) do not mark exactly one diagnosis with 1 ({shown}); mend them."
        )
    best: list[int] = values.argmax(axis=1).tolist()
    return [columns[place] if some else None for place, some in zip(best, total > 0, strict=True)]
