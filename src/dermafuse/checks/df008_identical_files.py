"""DF008: the same file under two image ids."""

from __future__ import annotations

from typing import Final

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding
from dermafuse.errors import examples

CODE: Final = "DF008"
TITLE: Final = "Identical files under different image ids"


def check(given: Given) -> Finding | None:
    """Return groups of images with the same content; those with different labels or lesions are the serious ones."""
    if given.images is None:
        return None
    rows: dict[bytes, list[int]] = {}
    for row, digest in enumerate(given.images.digests):
        if digest:
            rows.setdefault(digest, []).append(row)
    groups = [group for group in rows.values() if len(group) > 1]
    if not groups:
        return None
    table = given.table
    conflicting = [group for group in groups if table["label"].iloc[group].nunique(dropna=False) > 1]
    apart = [group for group in groups if table["lesion_id"].iloc[group].nunique() > 1]
    shown = examples([" = ".join(table["image_id"].iloc[group]) for group in groups])
    text = f"{sum(map(len, groups)):,} images are {len(groups):,} files under several names ({shown})."
    if conflicting:
        text += f" In {len(conflicting):,} of these groups the diagnoses differ: at least one of them is wrong."
    if apart:
        text += f" In {len(apart):,} the lesion ids differ, so that a split by lesion may put copies on both sides."
    return Finding(
        CODE,
        TITLE,
        "error" if conflicting else "warning" if apart else "info",
        text,
        "Keep one of each group." if not conflicting else "Find out which diagnosis is right and keep one of each.",
        {
            "groups": [list(table["image_id"].iloc[group]) for group in groups],
            "different_diagnoses": len(conflicting),
            "different_lesions": len(apart),
        },
    )
