"""Any table of images, read as a TOML file describes it (`dermafuse.data.description`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from dermafuse.data.assemble import Draft, assemble
from dermafuse.data.description import TableDescription, read_description
from dermafuse.data.records import Records
from dermafuse.data.scan import IMAGE_SUFFIXES, scan
from dermafuse.data.tables import (
    AGE_RANGE,
    check_image_ids,
    find_columns,
    optional_text,
    parse_numbers,
    read_table,
)
from dermafuse.errors import ConfigError, DataError


def read_csv(path: Path, *, labelled: bool) -> Records:
    """Read the table that a TOML file describes, and join it to its images.

    Raises:
        ConfigError: see `read_description`.
        DataError: see `dermafuse.data.readers.read_dataset`.
    """
    told = read_description(path)
    home = path.parent
    table = home / told.table
    if not table.is_file():
        raise DataError(f"The table {table}, named in {path.name}, does not exist; check the path.")
    if labelled and told.label is None:
        raise ConfigError(f"{path}: the key 'label' is missing; name the column of the diagnosis.")
    found = scan(
        [home / folder for folder in told.images],
        suffixes=frozenset({told.extension}) if told.extension else IMAGE_SUFFIXES,
    )
    frame = read_table(table)
    names = [told.image, told.label, told.lesion, told.source, *told.numeric.values(), *told.categorical.values()]
    if not labelled and told.label is not None and told.label.lower() not in map(str.lower, frame.columns):
        names.remove(told.label)
    column = find_columns(frame, [name for name in names if name], table)

    raw: list[str | None] = [None] * len(frame)
    if told.label in column:
        raw = optional_text(frame[column[told.label]])
    ignored = {label.lower() for label in told.ignore}
    dropped = pd.Series([label is not None and label.lower() in ignored for label in raw], dtype=bool)
    names_of_images = [_bare(str(name)) for name in frame[column[told.image]]]
    check_image_ids(names_of_images, table)
    gone = frozenset(name for name, out in zip(names_of_images, dropped, strict=True) if out)
    frame = frame[~dropped].reset_index(drop=True)
    ids = [name for name in names_of_images if name not in gone]
    notes: list[str] = []
    if gone:
        notes.append(f"{len(gone):,} row(s) are dropped, as `ignore` says ({', '.join(told.ignore)}).")
    labels = _labels([label for label, out in zip(raw, dropped, strict=True) if not out], told, notes)

    text: dict[str, list[str | None]] = {
        feature: _categories(frame[column[name]], told.values.get(feature, {}))
        for feature, name in told.categorical.items()
    }
    if told.source is not None:
        text["source"] = optional_text(frame[column[told.source]])
    return assemble(
        Draft(
            table=table,
            ids=ids,
            labels=labels,
            lesions=[] if told.lesion is None else optional_text(frame[column[told.lesion]]),
            text=text,
            numbers={
                feature: parse_numbers(
                    list(frame[column[name]]), ids, name, table, AGE_RANGE if feature == "age" else None
                )
                for feature, name in told.numeric.items()
            },
            dropped=gone,
            notes=notes,
        ),
        found,
        layout="csv",
        root=path,
        labelled=labelled,
        classes=tuple(told.classes),
        numeric=tuple(told.numeric),
        categorical=tuple(told.categorical),
    )


def _bare(name: str) -> str:
    """Return an image name without its image suffix (other dots belong to the name)."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _labels(raw: list[str | None], told: TableDescription, notes: list[str]) -> list[str | None]:
    """Map the table's diagnoses to classes, without regard to case; unknown ones are left as they are."""
    known = {name.lower(): name for name in told.classes}
    known |= {name.lower(): code for name, code in told.labels.items()}
    labels = [None if label is None else known.get(label.lower(), label) for label in raw]
    moved = Counter((a, b) for a, b in zip(raw, labels, strict=True) if a and b and a.lower() != b.lower())
    if moved:
        listed = ", ".join(f"{old} -> {new} ({n:,})" for (old, new), n in sorted(moved.items()))
        notes.append(f"Diagnoses mapped: {listed}.")
    return labels


def _categories(values: pd.Series, mapping: dict[str, str]) -> list[str | None]:
    lowered = {old.lower(): new.lower() for old, new in mapping.items()}
    return optional_text(lowered.get(str(value).lower(), str(value).lower()) for value in values)
