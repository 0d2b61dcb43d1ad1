"""DF007: values outside of what is known, and diagnoses without images."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding
from dermafuse.data.readers.layout_ham import LOCALIZATIONS
from dermafuse.data.words import UNKNOWN, Words, says_nothing
from dermafuse.errors import examples

CODE: Final = "DF007"
TITLE: Final = "Values outside the known vocabulary"

SEXES: Final = frozenset({"female", "male", UNKNOWN})
#: Ages in years that are more likely a placeholder or a slip than a patient: at or below, above.
PLAUSIBLE_AGE: Final = (0.0, 100.0)


def check(given: Given) -> Finding | None:
    """Return words that a model does not know, ages that are hardly true, and classes or labels that are absent."""
    table = given.table
    data: dict[str, Any] = {}
    said = []
    foreign = {}
    for name, known in _vocabulary(given).items():
        words = table[name].dropna().value_counts()
        strange = {
            str(word): int(n)
            for word, n in words.items()
            if known.find(str(word)) is None and not says_nothing(str(word))
        }
        if strange:
            foreign[name] = strange
            shown = examples([f"'{word}'" for word in strange])
            said.append(f"'{name}' holds {shown} in {sum(strange.values()):,} images, which the model will not know")
    if "age" in given.records.numeric:
        ages = table["age"].to_numpy(dtype=np.float64)
        odd = ages[(ages <= PLAUSIBLE_AGE[0]) | (ages > PLAUSIBLE_AGE[1])]
        if len(odd):
            data["implausible_ages"] = {f"{age:g}": int((odd == age).sum()) for age in np.unique(odd)}
            said.append(
                f"{len(odd):,} images give an age of {examples([f'{age:g}' for age in np.unique(odd)])} years, which "
                "may stand for an unknown age"
            )
    absent = [code for code, n in given.records.counts().items() if not n]
    if absent:
        said.append(f"there is no image of {examples(absent, limit=8)}, so nothing can be said of these classes")
    unlabelled = int(table["label"].isna().sum())
    if unlabelled:
        said.append(f"{unlabelled:,} images have no diagnosis and cannot be judged")
    if not said:
        return None
    data |= {"unknown_words": foreign, "absent_classes": absent, "unlabelled": unlabelled}
    text = "; ".join(said)
    return Finding(
        CODE,
        TITLE,
        "warning" if foreign or absent or unlabelled else "info",
        f"{text[0].upper()}{text[1:]}.",
        "Map the words in the description of the table ([values.NAME]), and correct or empty implausible values.",
        data,
    )


def _vocabulary(given: Given) -> dict[str, Words]:
    known = given.vocabulary
    if known is None:
        usual = {"sex": SEXES} if given.records.layout == "csv" else {"sex": SEXES, "localization": LOCALIZATIONS}
        known = {name: Words(sorted(words), {}) for name, words in usual.items()}
    return {name: words for name, words in known.items() if name in given.records.categorical}
