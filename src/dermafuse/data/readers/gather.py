"""From a description to one frame, a row an image: the table or the folders, a second table joined, rows chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dermafuse.data.image_names import image_ids
from dermafuse.data.readers.description import FOLDER_IMAGE, Join, TableDescription, label_word
from dermafuse.data.scan import IMAGE_SUFFIXES, Scan, image_files, scan
from dermafuse.data.tables import find_columns, read_table, text_column
from dermafuse.errors import DataError, examples


@dataclass
class Gathered:
    """Rows before they are checked.

    Attributes:
        frame: cells as stripped text, "" where a joined table has no row.
        image: the column of image names.
        found: the images.
        table: the file (or folder) that the rows come from, for messages.
        notes: sentences for the user.
        left_out: image names of rows that ``keep`` does not keep.
    """

    frame: pd.DataFrame
    image: str
    found: Scan
    table: Path
    notes: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()


def gather(told: TableDescription, path: Path) -> Gathered:
    """Return the rows that the TOML file ``path`` describes, and the images it names.

    Raises:
        DataError: a table or folder is missing or not readable, a column is missing, a key stands twice.
    """
    home = path.parent
    rows = _from_folders(told, home) if told.table is None else _from_table(told, told.table, path)
    if told.join is not None:
        rows = _joined(rows, told.join, path)
    for name, wanted in told.keep.items():
        rows = _kept(rows, name, wanted)
    return rows


def suffixes_of(told: TableDescription) -> frozenset[str]:
    """Return the suffixes of the images to look for."""
    return frozenset({told.extension}) if told.extension else IMAGE_SUFFIXES


def named_table(name: str, path: Path) -> Path:
    """Return a table that the TOML file ``path`` names.

    Raises:
        DataError: it does not exist.
    """
    table = path.parent / name
    if not table.is_file():
        raise DataError(f"The table {table}, named in {path.name}, does not exist; check the path.")
    return table


def _from_table(told: TableDescription, name: str, path: Path) -> Gathered:
    table = named_table(name, path)
    found = scan([path.parent / folder for folder in told.images], suffixes=suffixes_of(told))
    notes: list[str] = []
    frame = read_table(table, notes)
    return Gathered(frame, find_columns(frame, [str(told.image)], table)[str(told.image)], found, table, notes)


def _from_folders(told: TableDescription, home: Path) -> Gathered:
    """Return one row an image file: its id, and the names of the folders that it lies in, from the top."""
    tops = [(home / folder).absolute() for folder in told.images]
    places = [(file, file.relative_to(top)) for top in tops for file in image_files(top, suffixes=suffixes_of(told))]
    deep = [place for place in places if len(place[1].parts) > len(told.folders)]
    if not deep:
        raise DataError(
            f"{tops[0]} holds {len(places):,} images, none of them in {' / '.join(told.folders)} folders; "
            "check `images` and `folders`."
        )
    ids = image_ids([inner.as_posix() for _, inner in deep])
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{tops[0]}: {len(twice):,} image name(s) stand twice ({examples(twice)}); rename one of each.")
    columns = {name: text_column(inner.parts[level] for _, inner in deep) for level, name in enumerate(told.folders)}
    notes = []
    outside = [inner.as_posix() for _, inner in places if len(inner.parts) <= len(told.folders)]
    if outside:
        notes.append(
            f"{len(outside):,} image(s) lie outside of {' / '.join(told.folders)} folders and are left out "
            f"({examples(outside)})."
        )
    images = dict(zip(ids, (file for file, _ in deep), strict=True))
    frame = pd.DataFrame({FOLDER_IMAGE: text_column(ids), **columns})
    return Gathered(frame, FOLDER_IMAGE, Scan(images=images), tops[0], notes)


def _joined(rows: Gathered, join: Join, path: Path) -> Gathered:
    """Add the columns of a second table; rows whose key it lacks get empty cells there."""
    table = named_table(join.table, path)
    notes = list(rows.notes)
    other = read_table(table, notes)
    ((here, there),) = join.on.items()
    key = find_columns(rows.frame, [here], rows.table)[here]
    own = find_columns(other, [there], table)[there]
    often = other[own].value_counts()
    twice = [str(name) for name in often.index[often > 1]]
    if twice:
        raise DataError(f"{table}: '{own}' has {len(twice):,} value(s) in several rows ({examples(twice)}); keep one.")
    taken = {str(name).lower() for name in rows.frame.columns}
    added = other.set_index(own)
    clash = [str(name) for name in added.columns if str(name).lower() in taken]
    # Cells under one name in both tables are the first one's, where the two agree; else nobody knows which is meant.
    matched = added.reindex(rows.frame[key]).fillna("").reset_index(drop=True)
    spelling = {str(name).lower(): str(name) for name in rows.frame.columns}
    for name in clash:
        differ = (matched[name] != rows.frame[spelling[name.lower()]]) & (matched[name] != "")
        if differ.any():
            raise DataError(
                f"The column '{name}' stands in {rows.table.name} and in {table.name} with other values in "
                f"{int(differ.sum()):,} row(s); rename one of them."
            )
    lacking = ~rows.frame[key].isin(set(added.index))
    if lacking.all():
        raise DataError(f"No '{key}' of {rows.table} stands under '{own}' in {table}; check [join].")
    if lacking.any():
        names = examples(dict.fromkeys(rows.frame[key][lacking]))
        notes.append(f"{int(lacking.sum()):,} row(s) have no counterpart in {table.name} ({key}: {names}).")
    strangers = set(added.index) - set(rows.frame[key])
    if strangers:
        notes.append(f"{len(strangers):,} row(s) of {table.name} belong to no image and are left out.")
    frame = pd.concat([rows.frame, matched.drop(columns=clash)], axis=1)
    return Gathered(frame, rows.image, rows.found, rows.table, notes, rows.left_out)


def _kept(rows: Gathered, name: str, wanted: list[str]) -> Gathered:
    """Keep the rows whose column ``name`` has one of the values, compared as diagnoses are."""
    column = find_columns(rows.frame, [name], rows.table)[name]
    chosen = {label_word(value) for value in wanted}
    inside = pd.Series([label_word(cell) in chosen for cell in rows.frame[column]], dtype=bool)
    if not inside.any():
        there = examples(sorted(set(rows.frame[column])), limit=6)
        raise DataError(f"{rows.table}: no row has '{column}' {' or '.join(wanted)} (there is {there}); mend [keep].")
    out = rows.frame[~inside]
    notes = list(rows.notes)
    if len(out):
        tally = ", ".join(f"{value or 'blank'} {count:,}" for value, count in out[column].value_counts().items())
        notes.append(f"{len(out):,} row(s) are dropped, as [keep] says ({column}: {tally}).")
    frame = rows.frame[inside].reset_index(drop=True)
    gone = (*rows.left_out, *out[rows.image].astype(str))
    return Gathered(frame, rows.image, rows.found, rows.table, notes, gone)
