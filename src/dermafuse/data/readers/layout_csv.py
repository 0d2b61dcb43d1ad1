"""Any table of images, read as a TOML file describes it (`dermafuse.data.readers.description`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.data.image_names import image_ids
from dermafuse.data.readers.assemble import Draft, assemble
from dermafuse.data.readers.description import (
    FOLD,
    OTHERS,
    SPLIT,
    TableDescription,
    group_word,
    label_word,
    read_description,
)
from dermafuse.data.readers.gather import gather
from dermafuse.data.readers.given_split import TEST, read_folds, read_parts, split_notes
from dermafuse.data.records import Records
from dermafuse.data.tables import AGE_RANGE, check_image_ids, find_columns, marked_column, optional_text, parse_numbers
from dermafuse.data.words import mapped, mapping
from dermafuse.errors import ConfigError, DataError, examples


def read_csv(path: Path, *, labelled: bool) -> Records:
    """Read the table (or the folders) that a TOML file describes, and join it to its images.

    Raises:
        ConfigError: see `read_description`.
        DataError: see `dermafuse.data.readers.read.read_dataset`.
    """
    return read_described(read_description(path), path, labelled=labelled)


def read_described(told: TableDescription, path: Path, *, labelled: bool) -> Records:
    """Read what a description says; ``path`` is the TOML file that it stands in, or is to stand in.

    Raises:
        DataError, ConfigError: as `read_csv`.
    """
    if labelled and not told.label:
        raise ConfigError(f"{path}: the key 'label' is missing; name the column of the diagnosis.")
    rows = gather(told, path)
    frame, table = rows.frame, rows.table
    column = find_columns(frame, _wanted(told), table)
    every = [str(name) for name in frame[rows.image]]
    raw: list[str | None] = [None] * len(frame)
    if told.label and set(told.label) <= column.keys():
        # A blank is refused with all the others, after rows were dropped.
        raw = _raw_labels(frame, [column[name] for name in told.label], every, table)
    known = {feature: mapping(words) for feature, words in told.values.items() if feature in told.categorical}
    text: dict[str, list[str | None]] = {
        feature: mapped(frame[column[name]], known.get(feature, {})) for feature, name in told.categorical.items()
    }
    if told.source is not None:
        text["source"] = optional_text(frame[column[told.source]])
    text |= _given(told, frame, column, table)
    notes = [*rows.notes, *_malignant_note(told, path)]
    word, groups = _groups(told, frame, column, table)
    keep = _kept_rows(raw, text.get(SPLIT), told, notes, labelled=labelled)
    ids = [name for name, stays in zip(every, keep, strict=True) if stays]
    shown = image_ids(ids)
    check_image_ids(shown, table)
    frame = frame[keep].reset_index(drop=True)
    records = assemble(
        Draft(
            table=table,
            ids=ids,
            labels=_labels([label for label, stays in zip(raw, keep, strict=True) if stays], told, notes),
            lesions=[group for group, stays in zip(groups, keep, strict=True) if stays] if groups else [],
            group=word,
            text={
                name: [value for value, stays in zip(values, keep, strict=True) if stays]
                for name, values in text.items()
            },
            numbers={
                feature: parse_numbers(
                    list(frame[column[name]]), shown, name, table, AGE_RANGE if feature == "age" else None, notes
                )
                for feature, name in told.numeric.items()
            },
            dropped=frozenset([*every, *rows.left_out]) - frozenset(ids),
            notes=notes,
            values=known,
        ),
        rows.found,
        layout="csv",
        root=path,
        labelled=labelled,
        classes=told.label_set(),
        numeric=tuple(told.numeric),
        categorical=tuple(told.categorical),
    )
    return replace(records, notes=(*records.notes, *split_notes(records, told.split, told.fold)))


def _malignant_note(told: TableDescription, path: Path) -> list[str]:
    """Return what must be said where nobody named the malignant classes: silence would read as "none is"."""
    if told.malignant is not None or told.label_set().malignant:
        return []
    return [
        f"Nobody said which of the classes {', '.join(told.classes)} are malignant, so no probability of that is "
        f"given; name them in {path.name} (malignant = [...])."
    ]


def _wanted(told: TableDescription) -> list[str]:
    """Return the columns that must be there: a name that is none is a slip, whatever it is needed for."""
    names = [*told.label, told.lesion, told.patient, told.source, told.split, told.fold, *told.numeric.values()]
    return [name for name in (*names, *told.categorical.values()) if name]


def _groups(
    told: TableDescription, frame: pd.DataFrame, column: dict[str, str], table: Path
) -> tuple[str, list[str | None]]:
    """Return what keeps images together, ``lesion``, ``patient`` or ``group``, and its id in each row.

    Where patients are named, all images of one stay together, and with them those of each of its lesions; a row
    without a patient counts by its lesion.

    Raises:
        DataError: a lesion of two patients.
    """
    lesions = None if told.lesion is None else optional_text(frame[column[told.lesion]])
    if told.patient is None:
        return group_word(told.lesion or "lesion"), lesions or []
    patients = optional_text(frame[column[told.patient]])
    if lesions is None:
        return "patient", patients
    pairs = list(zip(lesions, patients, strict=True))
    owner: dict[str, str] = {}
    torn = [one for one, patient in pairs if one and patient and owner.setdefault(one, patient) != patient]
    if torn:
        raise DataError(
            f"{table}: {len(set(torn)):,} lesion(s) of '{told.lesion}' belong to two patients of '{told.patient}' "
            f"({examples(dict.fromkeys(torn))}); correct the table, or leave out one of the two keys."
        )
    # A lesion that stands in for a patient must not be taken for the patient of that name.
    return "patient", [
        patient or (None if lesion is None else owner.get(lesion, f"lesion {lesion}")) for lesion, patient in pairs
    ]


def _raw_labels(frame: pd.DataFrame, columns: list[str], ids: list[str], table: Path) -> list[str | None]:
    """Return the diagnoses as the table has them: one column of words, or the marked one of several."""
    if len(columns) == 1:
        return optional_text(frame[columns[0]])
    return marked_column(frame, columns, ids, table, required=False)


def _given(
    told: TableDescription, frame: pd.DataFrame, column: dict[str, str], table: Path
) -> dict[str, list[str | None]]:
    """Return the columns of a given split and given folds."""
    given: dict[str, list[str | None]] = {}
    if told.split is not None:
        values = optional_text(frame[column[told.split]])
        given[SPLIT] = read_parts(values, told.values.get("split", {}), told.split, table)
    if told.fold is not None:
        values = optional_text(frame[column[told.fold]])
        given[FOLD], parts = read_folds(values, given.get(SPLIT, []))
        if SPLIT in given or TEST in parts:
            given[SPLIT] = parts
    return given


def _kept_rows(
    raw: list[str | None],
    parts: list[str | None] | None,
    told: TableDescription,
    notes: list[str],
    *,
    labelled: bool,
) -> npt.NDArray[np.bool_]:
    """Return which rows stay, (n,), after what ``ignore`` drops and test rows without a diagnosis; both are noted."""
    ignored = {label_word(label) for label in told.ignore}
    known = told.label_words()
    dropped: Counter[str] = Counter()
    blind = 0
    keep = np.ones(len(raw), bool)
    for row, label in enumerate(raw):
        word = label_word(label or "")
        out = word in ignored or (OTHERS in ignored and word != "" and word not in known)
        if out:
            dropped[label or "no diagnosis"] += 1
        elif labelled and label is None and parts is not None and parts[row] in (TEST, None):
            blind += 1
            out = True
        keep[row] = not out
    if dropped:
        listed = examples([f"{name} {count:,}" for name, count in dropped.most_common()], limit=8)
        notes.append(f"{dropped.total():,} row(s) are dropped, as `ignore` says: {listed}.")
    if blind:
        notes.append(f"{blind:,} row(s) of the test part have no diagnosis and are left out.")
    return keep


def _labels(raw: list[str | None], told: TableDescription, notes: list[str]) -> list[str | None]:
    """Map the table's diagnoses to classes, as `label_word` compares them; unknown ones are left as they are."""
    known = told.label_words()
    labels = [None if label is None else known.get(label_word(label), label) for label in raw]
    moved = Counter((a, b) for a, b in zip(raw, labels, strict=True) if a and b and label_word(a) != label_word(b))
    if moved:
        listed = ", ".join(f"{old} -> {new} ({n:,})" for (old, new), n in sorted(moved.items()))
        notes.append(f"Diagnoses mapped: {listed}.")
    return labels
