"""What the columns of an unknown table may mean: guesses by name and by what the cells hold, each said as a guess."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from dermafuse.data.readers.description import label_word
from dermafuse.data.readers.given_split import PART_WORDS
from dermafuse.data.readers.proposal import Proposal
from dermafuse.data.tables import MISSING
from dermafuse.labels import HAM10000, ISIC_CODES

#: Names of a label column, the likeliest first.
_LABELS: Final = (
    "dx",
    "diagnosis",
    "diagnostic",
    "diagnosis_1",
    "label",
    "labels",
    "class",
    "target",
    "finding",
    "disease",
    "category",
    "lesion_type",
    "benign_malignant",
    "malignant",
    "histology",
    "pathology",
)
_LABEL_LIKE: Final = re.compile(r"diagn|label|class|target|disease", re.IGNORECASE)
_GROUPS: Final = (
    "patient_id",
    "patient",
    "patientid",
    "pid",
    "subject_id",
    "subject",
    "lesion_id",
    "lesion",
    "lesionid",
    "case_id",
    "case",
)
_FOLDS: Final = ("fold", "folds", "kfold", "cv_fold")
#: Decided with or after the diagnosis, or another name of it.
_LEAKS: Final = re.compile(
    r"biops|^dx|diagn|benign|malig|manag|treat|therap|histo|patho|confirm|excis|surg|outcome|score|target|label|"
    r"melanocyt|breslow|mitotic|thick|follow|recurr|metast",
    re.IGNORECASE,
)
_AGES: Final = ("age", "age_approx", "age_years", "patient_age")
_SEXES: Final = ("sex", "gender")
_SITES: Final = (
    "localization",
    "localisation",
    "location",
    "site",
    "body_site",
    "anatom_site_general",
    "anatom_site_general_challenge",
    "anatomical_site",
    "region",
)
_NO_CLASS: Final = frozenset({"unk", "unknown"})
_MOST_CLASSES: Final = 60
_MOST_WORDS: Final = 30


def guess(frame: pd.DataFrame, image: str) -> Proposal:
    """Return what the columns of a table may mean.

    Args:
        frame: cells as text.
        image: the column of image names.
    """
    columns = {str(name): [_value(cell) for cell in frame[name]] for name in frame.columns if str(name).strip()}
    del columns[image]
    made = Proposal("a table that dermafuse does not know: every line below is a guess", {"image": image})
    labels = _label(columns, made)
    used = {name.lower() for name in made.keys.get("label", [])}
    for key, name in (
        ("lesion", _first(columns, _GROUPS)),
        ("fold", _first(columns, _FOLDS)),
        ("split", _parts(columns)),
    ):
        if name is not None and name.lower() not in used:
            made.keys[key] = name
            used.add(name.lower())
    if "lesion" in made.keys:
        made.why["lesion"] = "images that share it stay on one side of a split"
    else:
        made.decide.append(
            "No column of patients or lesions was found: each image counts as its own, so a patient may be on both "
            "sides of a split."
        )
    _features({name: cells for name, cells in columns.items() if name.lower() not in used}, labels, made)
    return made


def _value(cell: Any) -> str | None:
    text = str(cell)
    return None if text.lower() in MISSING else text


def _first(columns: Mapping[str, Sequence[str | None]], names: Sequence[str]) -> str | None:
    spelling = {name.lower().replace(" ", "_"): name for name in columns}
    return next(
        (
            spelling[name]
            for name in names
            if name in spelling and any(cell is not None for cell in columns[spelling[name]])
        ),
        None,
    )


def _parts(columns: Mapping[str, Sequence[str | None]]) -> str | None:
    """Return the column that says train, validation or test, whatever it is called."""
    for name, cells in columns.items():
        words = {cell.lower() for cell in cells if cell is not None}
        if len(words) > 1 and words <= PART_WORDS.keys():
            return name
    return None


def _label(columns: Mapping[str, list[str | None]], made: Proposal) -> list[str | None]:
    """Find the label, fill in its keys, and return it row by row."""
    for name in (*filter(None, (_first(columns, [known]) for known in _LABELS)), *filter(_LABEL_LIKE.search, columns)):
        words = {cell.lower() for cell in columns[name] if cell is not None}
        if 2 <= len(words) <= min(_MOST_CLASSES, sum(cell is not None for cell in columns[name]) // 2):
            made.keys["label"] = [name]
            _classes(columns[name], made)
            return columns[name]
    marked = _one_hot(columns)
    if marked is not None:
        names, labels = marked
        made.keys["label"] = names
        made.why["label"] = "one-hot columns: exactly one of them is 1 in a row"
        _classes(labels, made)
        return labels
    made.decide.append("No column of diagnoses was found: say `label` and `classes` before training.")
    return [None] * len(next(iter(columns.values()), []))


def _one_hot(columns: Mapping[str, list[str | None]]) -> tuple[list[str], list[str | None]] | None:
    """Return columns of which each row marks at most one, nearly every row one, and the marked one of each row."""
    marks = {"0", "1", "0.0", "1.0", None}
    binary = [name for name, cells in columns.items() if set(cells) <= marks]
    named = [
        name
        for name in binary
        if name.upper() in ISIC_CODES or name.lower() in HAM10000.codes or name.lower() in _NO_CLASS
    ]
    for names in (binary, named):
        if len(names) < 2:
            continue
        rows = [
            [name for name, cell in zip(names, row, strict=True) if cell in ("1", "1.0")]
            for row in zip(*(columns[name] for name in names), strict=True)
        ]
        if all(len(row) <= 1 for row in rows) and sum(map(len, rows)) >= 0.9 * len(rows):
            return names, [row[0] if row else None for row in rows]
    return None


def _classes(labels: Sequence[str | None], made: Proposal) -> None:
    """Fill in ``classes``, ``ignore`` and ``labels`` from the diagnoses of all rows."""
    spelling: dict[str, str] = {}
    for label in labels:
        if label is not None:
            spelling.setdefault(label_word(label), label)
    ignored = [word for word in spelling if word in _NO_CLASS]
    ignored += [name for name in made.keys["label"] if len(made.keys["label"]) > 1 and name.lower() in _NO_CLASS]
    made.keys["ignore"] = [*([""] if None in labels else []), *dict.fromkeys(spelling.get(w, w) for w in ignored)]
    words = sorted(word for word in spelling if word not in _NO_CLASS)
    codes = {word: code for word in words if (code := word if word in HAM10000.codes else ISIC_CODES.get(word.upper()))}
    if len(codes) == len(words):
        made.keys["classes"] = sorted(set(codes.values()))
        made.keys["labels"] = {spelling[word]: code for word, code in codes.items() if word != code}
        return
    made.keys["classes"] = [spelling[word] for word in words]
    made.decide.append(
        "Which classes are malignant is not known: say `malignant = [...]` (and `critical`, the one not to miss)."
    )


def _features(columns: Mapping[str, list[str | None]], labels: Sequence[str | None], made: Proposal) -> None:
    numeric: dict[str, str] = {}
    categorical: dict[str, str] = {}
    own = {**dict.fromkeys(_AGES, "age"), **dict.fromkeys(_SEXES, "sex"), **dict.fromkeys(_SITES, "localization")}
    for name, cells in columns.items():
        there = [cell for cell in cells if cell is not None]
        words = {cell.lower() for cell in there}
        feature = own.get(name.lower(), name)
        if feature in numeric or feature in categorical:
            feature = name
        if len(words) < 2 or feature in ("image_id", "lesion_id", "label", "path", "dx_type", "source"):
            continue
        if _LEAKS.search(name) and feature == name:
            made.left_out[name] = (
                "may be decided with the diagnosis, or after it: a model that sees it reads the answer"
            )
        elif len(words) <= _MOST_WORDS and _gives_away(cells, labels):
            made.left_out[name] = "each of its values goes with one diagnosis: it may give the answer away"
        elif (
            all(map(_number, there))
            and (len(words) > 10 or feature == "age")
            and feature not in ("sex", "localization")
        ):
            # Whole numbers, all different, count the rows.
            if feature != name or len(words) < len(there) or not all(cell.isdigit() for cell in there):
                numeric[feature] = name
        elif feature != "age" and len(words) <= min(_MOST_WORDS, max(2, len(there) // 3)):
            categorical[feature] = name
    made.keys |= {"numeric": numeric, "categorical": categorical}


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _gives_away(cells: Sequence[str | None], labels: Sequence[str | None]) -> bool:
    """Whether every value goes with one diagnosis alone, over at least four rows a value."""
    met: dict[str, set[str]] = {}
    count = 0
    for cell, label in zip(cells, labels, strict=True):
        if cell is not None and label is not None:
            met.setdefault(cell.lower(), set()).add(label.lower())
            count += 1
    return len(met) > 1 and count >= 4 * len(met) and all(len(found) == 1 for found in met.values())
