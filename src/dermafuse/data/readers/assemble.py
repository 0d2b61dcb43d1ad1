"""The last step of every reader: a layout's columns, checked and joined to the images, become records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.data.image_names import ImageFinder, fold, image_ids, refuse_rivals, take_apart
from dermafuse.data.readers.dicom_facts import FileFacts
from dermafuse.data.records import COLUMNS, SYNTHETIC_MARKER, Records
from dermafuse.data.scan import Scan
from dermafuse.data.tables import check_image_ids, check_labels, text_column
from dermafuse.data.words import one_spelling
from dermafuse.errors import DataError, examples
from dermafuse.labels import HAM10000, LabelSet
from dermafuse.printable import plain


@dataclass
class Draft:
    """What a layout read, before the checks that are the same for all of them.

    Attributes:
        table: the file the rows come from, for messages.
        ids: image names as the table has them, one a row (see `dermafuse.data.image_names`).
        labels: one a row; ``None`` for "not labelled".
        lesions: lesion ids, ``None`` where unknown; an empty list where the layout has none.
        group: what these ids name, as ``Records.group``.
        text: further text columns (categorical features, ``dx_type``, ``source``).
        numbers: numeric features, float64, NaN where missing.
        dropped: image names that the table has but the layout leaves out (said in ``notes``).
        notes: sentences for the user.
        values: how categorical words were mapped (``Records.values``).
    """

    table: Path
    ids: Sequence[str]
    labels: Sequence[str | None]
    lesions: Sequence[str | None] = ()
    group: str = "lesion"
    text: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    numbers: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    values: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)


def assemble(
    draft: Draft,
    found: Scan,
    *,
    layout: str,
    root: Path,
    labelled: bool,
    classes: LabelSet = HAM10000,
    numeric: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
) -> Records:
    """Check a draft, find its images among the scanned files, and return the records.

    Raises:
        DataError: no rows, ids empty or given twice, labels missing (where ``labelled``) or unknown, or no
            image found at all. Rows whose own image is missing are skipped and listed instead.
    """
    ids = image_ids(draft.ids)
    if not ids:
        raise DataError(f"{draft.table} has no rows that can be used; it needs one row an image.")
    check_image_ids(ids, draft.table)
    labels = list(_plain(draft.labels))  # as the classes of a `LabelSet` are
    own = layout == "csv"
    check_labels(
        labels,
        ids,
        classes.codes,
        draft.table,
        drop=f'; map them in [labels], or drop them by `ignore = ["*"]` in {root.name}' if own else "",
    )
    bare = [name for name, label in zip(ids, labels, strict=True) if label is None]
    if labelled and bare:
        raise DataError(
            f"{draft.table}: {len(bare):,} row(s) have no diagnosis ({examples(bare)}); fill or remove them"
            + (f', or drop them by `ignore = [""]` in {root.name}.' if own else ".")
        )
    finder = ImageFinder(found, lambda: draft.ids)
    paths = _find_images(draft, finder)
    here = np.array([path is not None for path in paths])
    if not here.any():
        what = (
            f"holds {len(found.images):,} images, none of which is named in" if found.images else "holds no image for"
        )
        raise DataError(
            f"{root} {what} {draft.table.name} (first row: {draft.ids[0]}); check the image folders."
            f"{finder.nearest(draft.ids[0])}"
        )

    lesions, known = _lesions(draft, ids)
    columns: dict[str, pd.Series] = {name: text_column([None] * len(ids)) for name in COLUMNS}
    columns |= {
        "image_id": text_column(map(plain, ids)),
        "lesion_id": text_column(map(plain, lesions)),
        "label": text_column(labels),
        "path": text_column(None if path is None else str(path) for path in paths),
        "age": pd.Series(np.full(len(ids), np.nan)),
    }
    spelled = _spellings(draft, categorical)
    columns |= {
        name: text_column(_plain(spelled.get(name, {}).get(value or "", value) for value in values))
        for name, values in draft.text.items()
    }
    columns |= {name: pd.Series(np.asarray(values, np.float64)) for name, values in draft.numbers.items()}
    filed = FileFacts(columns, paths, numeric=numeric, categorical=categorical, values=draft.values)
    whole = pd.DataFrame(columns)
    folder = root if root.is_dir() else root.parent
    return Records(
        table=whole[here].reset_index(drop=True),
        layout=layout,
        root=root,
        labels=classes,
        numeric=filed.numeric,
        categorical=filed.categorical,
        skipped=_skipped([name for name, path in zip(ids, paths, strict=True) if path is None]),
        notes=(
            *draft.notes,
            *_spelling_notes(draft, spelled),
            *filed.notes(),
            *_notes(whole[here], draft, finder, found, paths, known),
        ),
        synthetic=(folder / SYNTHETIC_MARKER).exists(),
        has_lesions=known > 0,
        values=draft.values,
        group=draft.group,
    )


def _plain(values: Iterable[str | None]) -> Iterator[str | None]:
    """Yield texts fit to be shown wherever the records go: terminal, tables, pages, figures (see `plain`)."""
    return (None if value is None else plain(value) for value in values)


def _find_images(draft: Draft, finder: ImageFinder) -> list[Path | None]:
    """Return the file of every row, ``None`` where there is none.

    Raises:
        DataError: a name could be several files, or two names are one file.
    """
    matches = [finder.find(name) for name in draft.ids]
    refuse_rivals({name: files for name, files in zip(draft.ids, matches, strict=True) if len(files) > 1})
    paths = [files[0] if files else None for files in matches]
    first: dict[int, str] = {}  # by the identity of the scan's path, which is hashed many times faster than the path
    shared = [
        f"'{earlier}' and '{name}' are both {path}"
        for name, path in zip(draft.ids, paths, strict=True)
        if path is not None and (earlier := first.setdefault(id(path), name)) is not name
    ]
    if shared:
        raise DataError(
            f"{draft.table}: {len(shared):,} row(s) name an image file that another row names too "
            f"({examples(shared, limit=1)}); keep one row an image."
        )
    return paths


def _lesions(draft: Draft, ids: list[str]) -> tuple[list[str], int]:
    """Return a lesion id for every row (the image id where none is known) and how many are known."""
    named = list(draft.lesions) or [None] * len(ids)
    real = {lesion for lesion in named if lesion is not None}
    # A stand-in equal to some real lesion's id would tie two strangers together.
    filled = [
        lesion if lesion is not None else (f"image {name}" if name in real else name)
        for lesion, name in zip(named, ids, strict=True)
    ]
    return filled, sum(lesion is not None for lesion in named)


def _skipped(ids: list[str]) -> pd.DataFrame:
    count = len(ids)
    return pd.DataFrame(
        {
            "image_id": text_column(ids),
            "path": text_column([None] * count),
            "reason": text_column(["image file not found"] * count),
        }
    )


def _spellings(draft: Draft, categorical: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return categorical feature -> word -> the word of the column that it stands for."""
    return {
        name: one_spelling(draft.text[name], draft.values.get(name, {}).values())
        for name in categorical
        if name in draft.text
    }


def _spelling_notes(draft: Draft, spelled: Mapping[str, Mapping[str, str]]) -> list[str]:
    notes = []
    for name, words in spelled.items():
        tally = Counter(draft.text[name])
        listed = [f"{word} -> {first} ({tally[word]:,})" for word, first in sorted(words.items())]
        if listed:
            notes.append(f"Words of '{name}' that mean the same are one: {examples(listed, limit=8)}.")
    return notes


def _notes(
    table: pd.DataFrame, draft: Draft, finder: ImageFinder, found: Scan, paths: list[Path | None], known: int
) -> list[str]:
    """Return the sentences that hold for any layout."""
    notes = finder.notes()
    used = {id(path) for path in paths}  # the scan's own paths
    dropped = {fold(take_apart(name).stem) for name in draft.dropped}
    strangers = [
        stem
        for stem, path in found.images.items()
        if not any(id(file) in used for file in found.clashes.get(stem, (path,))) and fold(stem) not in dropped
    ]
    gone = [name for name, path in zip(draft.ids, paths, strict=True) if path is None]
    if gone:
        near = finder.nearest(gone[0], strangers)
        notes.append(
            f"{len(gone):,} of {len(paths):,} rows have no image file and are skipped ({examples(gone)}).{near}"
        )
    if strangers:
        notes.append(
            f"{len(strangers):,} image(s) have no row in the table and are left out ({examples(sorted(strangers))})."
        )
    if found.copies:
        notes.append(f"{found.copies:,} image file(s) are copies of others of the same name; the first counts.")
    if not known:
        notes.append(
            "Lesion ids are unknown: each image counts as its own lesion, so a lesion-level split is "
            "an image-level split and leakage cannot be measured."
        )
    elif known < len(paths):
        notes.append(f"{len(paths) - known:,} image(s) have no {draft.group} id and count as their own {draft.group}.")
    per_lesion = table.dropna(subset=["label"]).groupby("lesion_id")["label"].nunique()
    mixed = per_lesion[per_lesion > 1]
    if len(mixed):  # a patient may well have several
        said = {"lesion": "check them", "patient": "each stays whole on one side of a split"}
        notes.append(
            f"{len(mixed):,} {draft.group}(s) carry more than one diagnosis "
            f"({examples(map(str, mixed.index), len(mixed))}); "
            f"{said.get(draft.group, 'check them, unless they are patients')}."
        )
    return notes
