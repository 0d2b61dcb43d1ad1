"""ISIC 2018 Task 3 and ISIC 2019 as their archives unpack.

ISIC 2018 Task 3: ``ISIC2018_Task3_{Training,Validation,Test}_Input/*.jpg`` and
``..._GroundTruth/..._GroundTruth.csv`` (one-hot ``image,MEL,NV,BCC,AKIEC,BKL,DF,VASC``). No metadata; lesion
ids where ``ISIC2018_Task3_*_LesionGroupings.csv`` is present.

ISIC 2019: ``ISIC_2019_{Training,Test}_Input/``, ``..._GroundTruth.csv`` (one-hot
``image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK``) and ``..._Metadata.csv`` (``image``, ``age_approx``, ``sex``,
``anatom_site_general``; ``lesion_id`` in the training part).

Any of the parts may be there; ``source`` of a record is its part in lower case (``training``, ...).
`dermafuse.labels.ISIC_CODES` maps the diagnoses, `SITES` the body sites.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd

from dermafuse.data.image_names import image_ids
from dermafuse.data.readers.assemble import Draft, assemble
from dermafuse.data.records import Records
from dermafuse.data.scan import Scan
from dermafuse.data.tables import (
    AGE_RANGE,
    check_image_ids,
    find_columns,
    marked_column,
    optional_text,
    parse_numbers,
    read_table,
)
from dermafuse.data.words import Words, mapped, mapping, normal
from dermafuse.errors import DataError, examples
from dermafuse.labels import ISIC_CODES

#: ``anatom_site_general`` of ISIC 2019 (and plain ``torso``, ISIC 2020) -> ``localization`` of HAM10000.
#: A coarse ISIC site goes to the HAM10000 site that contains it (anterior and lateral torso: trunk) or, where
#: none does, to the most frequent of its parts in HAM10000 (head/neck: face 745, neck 168, scalp 128, ear 56).
SITES: Final[dict[str, str]] = {
    "anterior torso": "trunk",
    "lateral torso": "trunk",
    "torso": "trunk",
    "posterior torso": "back",
    "head/neck": "face",
    "upper extremity": "upper extremity",
    "lower extremity": "lower extremity",
    "palms/soles": "acral",
    "oral/genital": "genital",
}

_YEARS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "isic2018": (r"isic2018_task3_([a-z0-9]+)", ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")),
    "isic2019": (r"isic_2019_([a-z0-9]+)", ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")),
}


def find_isic(found: Scan) -> str | None:
    """Return ``"isic2018"`` or ``"isic2019"`` where a table or an ``_Input`` folder has its name, else None.

    Raises:
        DataError: both are there (their images are the same in part: they must not be mixed unseen).
    """
    present = [
        layout
        for layout, (pattern, _) in _YEARS.items()
        if any(_parts(found, pattern, kind) for kind in ("groundtruth", "metadata"))
        or any(re.fullmatch(pattern + "_input", folder.name.lower()) for folder in found.folders)
    ]
    if len(present) > 1:
        raise DataError(
            f"{found.folders[0]} holds both ISIC 2018 and ISIC 2019, which share images; name the folder of one."
        )
    return present[0] if present else None


def isic_tables(found: Scan) -> list[Path]:
    """Return the ground truths of ISIC 2018 Task 3 and ISIC 2019 by their names."""
    return [path for pattern, _ in _YEARS.values() for path in _parts(found, pattern, "groundtruth")]


def read_isic(layout: str, found: Scan, root: Path, *, labelled: bool) -> Records:
    """Read all parts of one ISIC year that are there and join them to the scanned images.

    Without ``labelled``, an image that no ground truth names, or whose class has no counterpart (UNK), is
    kept with label ``None``; with it, the former is left out and the latter dropped, both counted in notes.

    Raises:
        DataError: see `dermafuse.data.readers.read.read_dataset`.
    """
    pattern, required = _YEARS[layout]
    truths = _parts(found, pattern, "groundtruth")
    details = _parts(found, pattern, "metadata") | _parts(found, pattern, "lesiongroupings")
    if labelled and not truths:
        raise DataError(
            f"{root} holds no *_GroundTruth.csv of {layout}; unpack the GroundTruth archive next to the images."
        )
    codes: dict[str, str] = {}  # image id -> one-hot column name, "" where none is marked
    source: dict[str, str] = {}
    notes: list[str] = []
    for path, part in truths.items():
        marked = _one_hot(path, required, notes, labelled=labelled)
        again = [name for name in marked if name in codes]
        if again:
            raise DataError(
                f"{path}: {len(again):,} image id(s) also stand in another ground truth ({examples(again)}); "
                "keep one row an image."
            )
        codes |= marked
        source |= dict.fromkeys(marked, part)
    facts = {path: _indexed(path, notes) for path in details}
    if not labelled:
        for path, frame in facts.items():
            source |= {name: details[path] for name in frame.index if name not in source}
        for name, path in found.images.items():
            source.setdefault(name, _part_of(path, pattern))
    elif not codes:
        raise DataError(f"{next(iter(truths))} has no rows; it needs one row an image.")

    said, labels = _labels(codes, source, labelled=labelled)
    notes += said
    ids = list(labels)
    has_metadata = any("age_approx" in _lower(frame) for frame in facts.values())
    draft = Draft(
        table=next(iter([*truths, *details]), root),
        ids=ids,
        labels=list(labels.values()),
        lesions=_column(facts, "lesion_id", ids),
        dropped=frozenset(source) - frozenset(ids),
        notes=notes,
        text={
            "source": [source[name] or None for name in ids],
            "dx_type": _column(facts, "diagnosis_confirm_type", ids),
        },
    )
    if has_metadata:
        ages = [value or "" for value in _column(facts, "age_approx", ids)]
        table = next(path for path in facts if "age_approx" in _lower(facts[path]))
        draft.numbers = {"age": parse_numbers(ages, ids, "age_approx", table, AGE_RANGE, notes)}
        sexes = mapped((value or "" for value in _column(facts, "sex", ids)), {})
        sites = _sites(_column(facts, "anatom_site_general", ids), notes)
        draft.text = {**draft.text, "sex": sexes, "localization": sites}
        draft.values = {"localization": mapping(SITES)}
        lacking = len(set(ids) - {name for frame in facts.values() for name in frame.index})
        if lacking:
            notes.append(f"{lacking:,} image(s) have no row in the metadata: age, sex and site are missing.")
    else:
        notes.append(f"{layout} comes without metadata here: age, sex and localization are unknown.")
    return assemble(
        draft,
        found,
        layout=layout,
        root=root,
        labelled=labelled,
        numeric=("age",) if has_metadata else (),
        categorical=("sex", "localization") if has_metadata else (),
    )


def _parts(found: Scan, pattern: str, kind: str) -> dict[Path, str]:
    """Return table -> part (``training``, ...) of the tables whose whole name is ``pattern_kind.csv``."""
    matches = ((path, re.fullmatch(f"{pattern}_{kind}", path.stem.lower())) for path in found.tables)
    return {path: match[1] for path, match in matches if match}


def _part_of(image: Path, pattern: str) -> str:
    """Return the part of the ``..._Input`` folder an image lies in, ``""`` where it lies in none."""
    for folder in image.parents:
        match = re.fullmatch(f"{pattern}_input", folder.name.lower())
        if match:
            return match[1]
    return ""


def _one_hot(path: Path, required: tuple[str, ...], notes: list[str], *, labelled: bool) -> dict[str, str]:
    """Return image id -> name of its one marked column; ``""`` for none marked, where not ``labelled``."""
    frame = read_table(path, notes)
    names = [*required, *(name for name in ("UNK",) if name.lower() in _lower(frame))]
    column = find_columns(frame, ["image", *names], path)
    ids = image_ids(list(frame[column["image"]]))
    check_image_ids(ids, path)
    columns = [column[name] for name in names]
    spelt = dict(zip(columns, names, strict=True))
    found = marked_column(frame, columns, ids, path, required=labelled)
    marked = ["" if name is None else spelt[name] for name in found]
    return dict(zip(ids, marked, strict=True))


def _labels(
    codes: dict[str, str], source: dict[str, str], *, labelled: bool
) -> tuple[list[str], dict[str, str | None]]:
    """Return the notes on mapping, and image id -> label for every record to be made."""
    labels: dict[str, str | None] = {}
    for name in source:
        code = codes.get(name, "")
        label = ISIC_CODES[code] if code else None
        if label is not None or not labelled:
            labels[name] = label
    tally = Counter(codes.values())
    notes = []
    if tally["SCC"]:
        notes.append(f"{tally['SCC']:,} image(s) of squamous cell carcinoma (SCC) count as {ISIC_CODES['SCC']}.")
    if tally["AK"]:
        notes.append(f"{tally['AK']:,} image(s) of actinic keratosis (AK) count as {ISIC_CODES['AK']}.")
    if tally["UNK"]:
        fate = "are dropped" if labelled else "are kept without a label"
        notes.append(f"{tally['UNK']:,} image(s) of unknown class (UNK) have no counterpart and {fate}.")
    return notes, labels


def _indexed(path: Path, notes: list[str]) -> pd.DataFrame:
    """Read a table about images, with the image id as index."""
    frame = read_table(path, notes)
    ids = image_ids(list(frame[find_columns(frame, ["image"], path)["image"]]))
    check_image_ids(ids, path)
    return frame.set_index(pd.Index(ids, dtype=object))


def _lower(frame: pd.DataFrame) -> set[str]:
    return {str(name).lower() for name in frame.columns}


def _column(facts: dict[Path, pd.DataFrame], name: str, ids: list[str]) -> list[str | None]:
    """Return a column gathered from all tables that have it, one value an id, ``None`` where missing."""
    known: dict[str, str | None] = {}
    for path, frame in facts.items():
        if name in _lower(frame):
            own = find_columns(frame, [name], path)[name]
            values = optional_text(frame[own])
            known |= {k: v for k, v in zip(map(str, frame.index), values, strict=True) if v is not None}
    return [known.get(image) for image in ids]


def _sites(values: list[str | None], notes: list[str]) -> list[str | None]:
    """Map body sites through `SITES`; a site that stands for none of them becomes missing. Both are noted."""
    words = Words(sorted(set(SITES.values())), mapping(SITES))
    tally = Counter(normal(value or "") for value in values)
    found = {site: words.find(site) for site in sorted(tally.keys() - {None})}  # type: ignore[type-var]
    mapped_to = [f"{site} -> {word} ({tally[site]:,})" for site, word in found.items() if word]
    strange = [f"'{site}' ({tally[site]:,})" for site, word in found.items() if not word]
    if mapped_to:
        notes.append(f"Body sites mapped onto those of HAM10000: {', '.join(mapped_to)}.")
    if strange:
        notes.append(f"Body sites without a counterpart count as missing: {', '.join(strange)}.")
    return [found.get(normal(value or "")) for value in values]
