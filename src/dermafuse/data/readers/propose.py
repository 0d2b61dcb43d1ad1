"""Looking at a folder or a table that has no dermafuse.toml yet: which format it is in, or what it may be."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dermafuse.data.image_names import fold, take_apart
from dermafuse.data.readers.description import label_word
from dermafuse.data.readers.given_split import PART_WORDS
from dermafuse.data.readers.guess import guess
from dermafuse.data.readers.layout_csv import read_described
from dermafuse.data.readers.proposal import Format, Proposal, known_formats
from dermafuse.data.readers.read import DESCRIPTION
from dermafuse.data.records import Records
from dermafuse.data.scan import Scan, image_files
from dermafuse.data.table_files import read_header
from dermafuse.data.tables import read_table
from dermafuse.errors import DataError, examples

#: Folders of images that say nothing about what is on them.
_PLAIN: Final = re.compile(
    r"(.*[_\- ])?(images?|imgs?|parts?|input|data|photos?|pictures?|pics|files|batch)([_\- ]?\d+)?", re.IGNORECASE
)
_PART: Final = re.compile(r"(train|val|test)", re.IGNORECASE)
#: A column that names fewer of its rows' images than this (share) is no image column.
_NAMED: Final = 0.3
#: Fewer groups of a class than this are pointed at.
_FEW: Final = 5


def propose(folder: Path, found: Scan, tables: Sequence[Path]) -> tuple[Proposal, Records | None]:
    """Return a description of the data, and what is read by it (``None`` where it cannot be read as yet).

    Args:
        folder: where the TOML file is to lie.
        found: the images and tables below it.
        tables: those to choose from.

    Raises:
        DataError: no images, no table that names them and no folder a class, or several tables that could be meant.
    """
    if not found.images:
        raise DataError(f"{folder} holds no images; name the folder that holds images and table.")
    made = _known(folder, found, tables) or _unknown(folder, found, tables) or _folders(folder, tables)
    if made is None:
        names = examples([path.relative_to(folder).as_posix() for path in tables])
        what = f"no table that names them (looked at {names})" if tables else "no table"
        raise DataError(
            f"{folder} holds {len(found.images):,} images, {what} and no folder for each class; name the folder "
            "above images and table, or write a dermafuse.toml by hand (docs/reference/tables.md)."
        )
    records = _read(made, folder / DESCRIPTION)
    if records is not None:
        _narrow(made, records)
    return made, records


def _known(folder: Path, found: Scan, tables: Sequence[Path]) -> Proposal | None:
    """Return the description of a published table."""
    headers = {path: read_header(path) for path in tables}
    fitting = [(path, entry) for path, header in headers.items() for entry in known_formats() if entry.fits(header)]
    if not fitting:
        return None
    most = max(len(entry.header) for _, entry in fitting)
    best = [(path, entry) for path, entry in fitting if len(entry.header) == most]
    _refuse_several([path for path, _ in best], folder)
    table, entry = best[0]
    return _filled(entry, folder, found, table)


def _filled(entry: Format, folder: Path, found: Scan, table: Path) -> Proposal:
    """Fill in what depends on the files: columns that are there, table, image folder, second table."""
    frame = read_table(table)
    keys: dict[str, Any] = dict(entry.keys)
    there = {str(name).lower(): str(name) for name in frame.columns}
    for key in ("numeric", "categorical"):
        value = keys.get(key, {})
        pairs = value.items() if isinstance(value, dict) else [(name, name) for name in value]
        keys[key] = {feature: there[name.lower()] for feature, name in pairs if name.lower() in there}
    keys["values"] = {name: told for name, told in keys.get("values", {}).items() if name in keys["categorical"]}
    keys["lesion"] = next(
        (there[name.lower()] for name in keys.get("lesion", []) if _filled_in(frame, there, name)), None
    )
    for key in ("split", "source"):
        keys[key] = there.get(str(keys.get(key)).lower())
    image = there[keys["image"].lower()]
    keys |= {"table": table.relative_to(folder).as_posix(), "images": _images(frame[image], found, folder, table)}
    if entry.other:
        others = [path for path in found.tables if entry.joins(read_header(path))]
        if not others:
            raise DataError(
                f"{table} is of {entry.name}, and the table of its labels ({', '.join(entry.other)}, ...) is not below "
                f"{folder}; put it there."
            )
        _refuse_several(others, folder)
        keys["join"] = {"table": others[0].relative_to(folder).as_posix(), **keys["join"]}
    left_out = {name: why for name, why in entry.left_out.items() if name.lower() in there}
    why = {key: text for key, text in entry.why.items() if keys.get(key)}
    return Proposal(entry.name, keys, why, left_out, list(entry.decide), tuple(there.values()))


def _filled_in(frame: pd.DataFrame, there: dict[str, str], name: str) -> bool:
    """Whether a column is there and says something in at least half of the rows."""
    return name.lower() in there and bool((frame[there[name.lower()]] != "").mean() >= 0.5)


def _unknown(folder: Path, found: Scan, tables: Sequence[Path]) -> Proposal | None:
    """Return guesses about the one table that names most of its images."""
    fitting: list[tuple[Path, Proposal]] = []
    known = {fold(name) for name in found.images}
    for table in tables:
        try:
            frame = read_table(table)
        except DataError:
            if len(tables) == 1:
                raise
            continue
        shares = {
            name: sum(_stem(cell) in known for cell in frame[name]) / max(len(frame), 1) for name in frame.columns
        }
        image = max(shares, key=lambda name: shares[name], default="")
        if not image or shares[image] < _NAMED:
            continue
        made = guess(frame, image)
        made.columns = tuple(map(str, frame.columns))
        made.keys |= {"table": table.relative_to(folder).as_posix()}
        made.keys |= {"images": _images(frame[image], found, folder, table)}
        fitting.append((table, made))
    # A list of images without diagnoses (a test set, a submission) is not what there is to learn from.
    told = [(table, made) for table, made in fitting if "label" in made.keys] or fitting
    if not told:
        return None
    _refuse_several([table for table, _ in told], folder)
    table, made = told[0]
    left = [other.relative_to(folder).as_posix() for other, _ in fitting if other != table]
    if left:
        made.decide.append(f"Not read: {examples(left)}, which name images but no diagnoses.")
    return made


def _refuse_several(tables: Sequence[Path], folder: Path) -> None:
    if len(tables) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in tables[:6])
        raise DataError(
            f"{folder} holds {len(tables)} tables that could be meant ({names}); name one: dermafuse init {tables[0]}"
        )


def _images(cells: pd.Series, found: Scan, folder: Path, table: Path) -> str:
    """Return the narrowest folder, relative to ``folder``, that holds all images that the table names."""
    by_name = {fold(name): path for name, path in found.images.items()}
    paths = [by_name[stem] for cell in cells if (stem := _stem(cell)) in by_name]
    if not paths:
        raise DataError(
            f"None of the {len(found.images):,} images below {folder} is named in {table}; check the paths."
        )
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return common.relative_to(folder).as_posix()


def _stem(cell: object) -> str:
    """Return the file name in a cell, without folders and suffix, as names compare."""
    return fold(take_apart(str(cell)).stem)


def _folders(folder: Path, tables: Sequence[Path]) -> Proposal | None:
    """Return the description of a folder a class, with or without folders of parts above or below them."""
    files = image_files(folder)
    top = Path(os.path.commonpath([path.parent for path in files]))
    inside = [path.relative_to(top).parts[:-1] for path in files]
    deep = [parts for parts in inside if parts]
    if not deep:
        return None
    levels = ["label"]
    if all(_PART.match(parts[0]) for parts in deep):
        levels = ["split", "label"]
    elif all(len(parts) > 1 and _PART.match(parts[1]) for parts in deep):
        levels = ["label", "split"]
    deep = [parts for parts in deep if len(parts) >= len(levels)]
    named = {level: sorted({parts[place] for parts in deep}) for place, level in enumerate(levels)}
    classes = list({label_word(name): name for name in named["label"]}.values())
    if len(classes) < 2 or all(_PLAIN.fullmatch(name) for name in classes):
        return None
    keys: dict[str, Any] = {
        "folders": levels,
        "images": top.relative_to(folder).as_posix(),
        "label": ["label"],
        "classes": classes,
    }
    made = Proposal("folders that are classes", keys)
    made.why["folders"] = "the folders below `images`, from the top, as columns of these names"
    if "split" in levels:
        keys["split"] = "split"
        words = {"train": "train", "val": "validation", "test": "test"}
        odd = [name for name in named["split"] if name.lower() not in PART_WORDS]
        keys["values"] = {"split": {name: words[_PART.match(name)[1].lower()] for name in odd}}  # type: ignore[index]
        keys["values"] = keys["values"] if odd else {}
    made.decide = [
        "Folders do not say which images show the same lesion or patient: they may be on both sides of a split.",
        "Which classes are malignant is not known: say `malignant = [...]` (and `critical`, the one not to miss).",
    ]
    if tables:
        names = examples([path.relative_to(folder).as_posix() for path in tables])
        made.decide.append(f"Not read: {names}, in which no image is named.")
    return made


def _read(made: Proposal, path: Path) -> Records | None:
    """Read the data by the description; where that fails, the description says so."""
    try:
        return read_described(made.description(), path, labelled=False)
    except (DataError, ValueError) as error:
        made.decide.append(f"As it stands it cannot be read: {' '.join(str(error).split())}")
        return None


def _narrow(made: Proposal, records: Records) -> None:
    """Leave out classes without an image, and point at those with few."""
    if not made.keys.get("label"):
        return
    counts = records.counts()
    there = [code for code, count in counts.items() if count]
    if len(there) < 2:
        made.decide.append(
            f"Only the class {there[0] if there else '(none)'} has images: there is nothing to tell apart."
        )
        return
    gone = [code for code in counts if code not in there]
    if gone:
        made.decide.append(f"Classes without an image here are left out: {', '.join(gone)}.")
    made.keys["classes"] = there
    for key in ("malignant", "labels"):
        value = made.keys.get(key)
        if isinstance(value, list):
            made.keys[key] = [code for code in value if code in there]
        elif value:
            made.keys[key] = {word: code for word, code in value.items() if code in there}
    if made.keys.get("critical") not in there:
        made.keys.pop("critical", None)
    groups = records.table.groupby("label")["lesion_id"].nunique()
    for code in there:
        if groups[code] < _FEW:
            made.decide.append(
                f"The class '{code}' has {groups[code]} lesion(s) or patient(s): too few to learn or judge; join it "
                "with another by [labels], or move it from `classes` to `ignore`."
            )
