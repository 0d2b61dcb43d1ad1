"""A split or folds that the data themselves give: read, counted, and used by training instead of drawing.

Records of such data have the columns `SPLIT` (``train``, ``validation``, ``test`` or ``None``) and/or `FOLD` (a
word, ``None`` for a row of no fold). Training never sees a row of the test part or of no part (`training_part`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dermafuse.data.readers.description import FOLD, SPLIT
from dermafuse.data.records import Records
from dermafuse.data.splits import Split
from dermafuse.data.words import normal
from dermafuse.errors import ConfigError, DataError, examples, nearest

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"

#: What people call the parts, in lower case.
PART_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("train", "training", "trn", "tr"), TRAIN),
    **dict.fromkeys(("validation", "valid", "validate", "val", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "hold-out"), TEST),
}


def read_parts(values: Sequence[str | None], told: dict[str, str], column: str, table: Path) -> list[str | None]:
    """Return the part of every row; ``told`` is ``[values.split]``, word -> part ("" for no part).

    Raises:
        DataError: a word that is no part; names it, its count and the known ones.
    """
    known = {str(normal(word)): part for word, part in (PART_WORDS | told).items()}
    words = [normal(value) for value in values]
    wrong = [value for value, word in zip(values, words, strict=True) if word is not None and word not in known]
    if wrong:
        listed = examples(dict.fromkeys(f"'{value}'" for value in wrong))
        raise DataError(
            f"{table}: {len(wrong):,} row(s) of '{column}' name no part of a split ({listed}); say in "
            f"[values.split] which of train, validation or test they are.{nearest(str(normal(wrong[0])), known)}"
        )
    return [None if word is None else known[word] or None for word in words]


def read_folds(values: Sequence[str | None], parts: Sequence[str | None]) -> tuple[list[str | None], list[str | None]]:
    """Return folds and parts, where a fold called ``test`` is the test part and not a fold."""
    words = [normal(value) for value in values]
    test = [word is not None and PART_WORDS.get(word) == TEST for word in words]
    folds = [None if out else word for word, out in zip(words, test, strict=True)]
    named = list(parts) or [None if value is None else TRAIN for value in folds]
    return folds, [TEST if out else part for part, out in zip(named, test, strict=True)]


def split_notes(records: Records, split: str | None, fold: str | None) -> list[str]:
    """Return sentences about the given parts: how many images each has, and which groups cross them."""
    notes = []
    table = records.table
    if split is not None:
        tally = table[SPLIT].value_counts()
        counts = ", ".join(f"{part} {tally.get(part, 0):,}" for part in (TRAIN, VALIDATION, TEST))
        bare = int(table[SPLIT].isna().sum())
        notes.append(
            f"The split is given by '{split}': {counts}{f', no part {bare:,} (never trained on)' if bare else ''}."
            + ("" if tally.get(VALIDATION, 0) else " Validation is drawn from its train part.")
            + ("" if fold else " Folds (--folds) are drawn from train and validation.")
        )
        notes += _crossing(records, SPLIT, f"more than one part of '{split}'")
    if fold is not None:
        tally = table[FOLD].value_counts()
        counts = ", ".join(f"{name} ({tally[name]:,})" for name in fold_names(records))
        test = (table[SPLIT] == TEST) if split is None and SPLIT in table.columns else pd.Series(False, table.index)
        rest = {"test": int(test.sum()), "no fold": int((table[FOLD].isna() & ~test).sum())}
        said = "".join(f", {name} {count:,} (never trained on)" for name, count in rest.items() if count)
        notes.append(f"The folds are given by '{fold}': {counts}{said}.")
        notes += _crossing(records, FOLD, f"more than one fold of '{fold}'")
    return notes


def _crossing(records: Records, column: str, what: str) -> list[str]:
    if not records.has_lesions:
        return []
    parts = records.table.groupby("lesion_id")[column].nunique()
    crossing = parts.index[parts > 1]
    if crossing.empty:
        return []
    images = int(records.table["lesion_id"].isin(crossing).sum())
    return [
        f"{len(crossing):,} lesion(s) or patient(s) with {images:,} images are in {what} "
        f"({examples(map(str, crossing), len(crossing))}): what is judged there was in part seen in training."
    ]


def fold_names(records: Records) -> list[str]:
    """Return the names of the given folds, numbers in order of their value."""
    names = {str(name) for name in records.table[FOLD].dropna()}
    return sorted(
        names,
        key=lambda name: [
            (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)
        ],
    )


def training_part(records: Records) -> Records:
    """Return the records that training may see: without the test part and rows of no part, which is said.

    Raises:
        DataError: nothing is left.
    """
    gone = np.zeros(len(records), bool)
    said = []
    for column, part in ((SPLIT, "part"), (FOLD, "fold")):
        if column not in records.table.columns:
            continue
        if column == SPLIT:
            test = (records.table[SPLIT] == TEST).to_numpy(bool)
            said += [f"{int(test.sum()):,} of the test part"] if test.any() else []
            gone |= test
        bare = records.table[column].isna().to_numpy(bool) & ~gone
        said += [f"{int(bare.sum()):,} of no {part}"] if bare.any() else []
        gone |= bare
    if not gone.any():
        return records
    if gone.all():
        raise DataError(f"{records.root} gives no row to learn from ({', '.join(said)}); check `split` and `fold`.")
    note = f"Left out of training: {', '.join(said)}; `dermafuse evaluate` judges them."
    return replace(records.subset(~gone), notes=(*records.notes, note))


def given_split(records: Records) -> Split | None:
    """Return the split that the data give, ``None`` where training is to draw one.

    The validation part validates; without one, and where folds are given, the first fold does.
    """
    table = records.table
    if SPLIT in table.columns and (table[SPLIT] == VALIDATION).any():
        return _split(table[SPLIT] == TRAIN, table[SPLIT] == VALIDATION)
    if FOLD in table.columns:
        first = table[FOLD] == fold_names(records)[0]
        return _split(~first & table[FOLD].notna() & _learnt(table), first & _learnt(table))
    return None


def given_folds(records: Records, k: int) -> list[Split] | None:
    """Return the folds that the data give, ``None`` where ``k`` are to be drawn.

    Raises:
        ConfigError: the data give another number of folds.
    """
    if FOLD not in records.table.columns:
        return None
    names = fold_names(records)
    if len(names) != k:
        raise ConfigError(
            f"{records.root} gives {len(names)} fold(s) ({examples(names)}), not {k}; use --folds {len(names)}, or "
            "take out `fold`."
        )
    there = records.table[FOLD].notna() & _learnt(records.table)
    return [_split(there & (records.table[FOLD] != name), there & (records.table[FOLD] == name)) for name in names]


def _learnt(table: pd.DataFrame) -> pd.Series:
    """Return which rows are not of the test part."""
    return table[SPLIT] != TEST if SPLIT in table.columns else pd.Series(True, index=table.index)


def _split(train: pd.Series, validation: pd.Series) -> Split:
    if not train.any() or not validation.any():
        raise DataError("The given split leaves no row to learn from or none to validate; check `split` and `fold`.")
    return Split(np.flatnonzero(train).astype(np.int64), np.flatnonzero(validation).astype(np.int64))
