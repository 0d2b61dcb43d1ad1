"""DF002: pictures of one lesion under two lesion ids."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding
from dermafuse.checks.near_duplicates import NearDuplicates, Validation, find_near_duplicates
from dermafuse.checks.neighbours import Search
from dermafuse.data.splits import Split

CODE: Final = "DF002"
TITLE: Final = "Near-duplicate images under different lesion ids"

#: Pairs listed in the data of the finding.
LISTED: Final = 100


def check(given: Given) -> Finding | None:
    """Return the near-duplicates that the lesion ids miss, and how good the search for them is."""
    if given.images is None:
        return None
    rows = np.flatnonzero(given.images.readable)
    table = given.table.iloc[rows]
    embeddings = None if given.embeddings is None else given.embeddings[rows]
    group = given.records.group
    # Pictures of one patient are no pictures of one lesion, and no measure of the search.
    one_lesion = table["lesion_id" if group == "lesion" else "image_id"].to_numpy()
    found = find_near_duplicates(given.images.grey[rows], one_lesion, embeddings=embeddings, report=given.report)
    groups = table["lesion_id"].to_numpy()
    missed = np.flatnonzero(found.missed & (groups[found.first] != groups[found.second]))
    if not len(missed):
        return None
    first, second = rows[found.first[missed]], rows[found.second[missed]]
    agree = _records_agree(given, first, second)
    pairs = [
        {
            "images": [str(given.table["image_id"][row]) for row in (a, b)],
            "lesions": [str(given.table["lesion_id"][row]) for row in (a, b)],
            "labels": [given.table["label"][row] for row in (a, b)],
            "fit": round(float(fit), 4),
            "record_agrees": bool(same),
        }
        for a, b, fit, same in list(zip(first, second, found.fit[missed], agree, strict=True))[:LISTED]
    ]
    data: dict[str, Any] = {
        "pairs": len(missed),
        "record_agrees": int(agree.sum()),
        "threshold": found.threshold,
        "listed": pairs,
        "validation": _validation(found),
        "used_embeddings": embeddings is not None,
        "search": asdict(found.search),
    }
    explanation = (
        f"{len(missed):,} pair(s) of images look like pictures of one lesion although their {group} ids differ; in "
        f"{int(agree.sum()):,} of them the patient's record (diagnosis, age, sex, site) is the same as well. Those "
        "whose records differ are mostly look-alikes."
    )
    if given.split is not None:
        crossing = _crossing(given.split, len(given.table), first, second)
        data["across_the_split"] = crossing
        explanation += f" {crossing:,} of the pairs lie across the split."
    explanation += _quality(found.validation) + _searched(found.search)
    likely = int(agree.sum()) > 0 or found.validation is None
    return Finding(
        CODE,
        TITLE,
        "warning" if likely else "info",
        explanation,
        f"Look at the pairs, those whose records agree first; give real ones the same {group} id before splitting.",
        data,
    )


def _records_agree(given: Given, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return for each pair whether label and all features are equal, at least one of them known."""
    agree = np.ones(len(first), dtype=bool)
    known = np.zeros(len(first), dtype=bool)
    for name in ("label", *given.features):
        a, b = (given.table[name].to_numpy()[rows] for rows in (first, second))
        both_missing = np.array([_none(x) and _none(y) for x, y in zip(a, b, strict=True)], dtype=bool)
        agree &= (a == b) | both_missing
        known |= ~both_missing & (name != "label")
    return agree & known


def _none(value: object) -> bool:
    return value is None or value != value


def _crossing(split: Split, n: int, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> int:
    side = np.zeros(n, dtype=np.int8)
    side[split.train], side[split.validation] = 1, 2
    return int(((side[first] * side[second]) == 2).sum())


def _quality(quality: Validation | None) -> str:
    """Return a sentence on how good the search is, with a leading blank, else ``""``."""
    if quality is None or quality.precision is None or quality.recall is None:
        return ""
    return (
        f" Measured on lesions of known ids, {quality.precision:.0%} of the pairs found are of one lesion, and "
        f"{quality.recall:.0%} of all pairs of one lesion are found; the others were taken from another angle "
        "or at another time."
    ).replace("%", " %")


def _searched(search: Search) -> str:
    """Return a sentence on what a search that was not exact overlooks, with a leading blank, else ``""``."""
    if search.recall is None or search.engine == "exact":
        return ""
    return (
        f" So many images are not compared with all others: of the similar pairs of {search.sampled:,} images that "
        f"were, the search found {search.recall:.1%}."
    ).replace("%", " %")


def _validation(found: NearDuplicates) -> dict[str, Any] | None:
    if found.validation is None:
        return None
    return {
        "precision": found.validation.precision,
        "recall": found.validation.recall,
        "true_pairs": found.validation.true_pairs,
        "found_pairs": found.validation.found_pairs,
        "lesions": found.validation.lesions,
        "threshold_chosen_on_the_other_half": found.validation.chosen,
    }
