"""DF001: lesions with images in training and in validation."""

from __future__ import annotations

from typing import Any, Final

from dermafuse.checks.context import Given, listed, share
from dermafuse.checks.findings import Finding
from dermafuse.data.splits import Leakage, leakage, make_split
from dermafuse.errors import DataError

CODE: Final = "DF001"
TITLE: Final = "Lesions shared between training and validation"


def check(given: Given) -> Finding | None:
    """Return how much leaks with the split in use, or with an image-level split where there is none yet."""
    records, group = given.records, given.records.group
    why = (
        f"A model that saw one photograph of a {group} in training recognises the next one: such images make every "
        "validation number look better than it is."
    )
    if not records.has_lesions:
        return Finding(
            CODE,
            "Lesion ids are unknown",
            "warning",
            f"The data do not say which images show the same lesion, so leakage cannot be ruled out. {why}",
            "Name a lesion (or patient) column in the description of the table, or look at DF002 for copies.",
            {"lesions_known": False},
        )
    sizes = given.table.groupby("lesion_id").size()
    together = int(sizes[sizes > 1].sum())
    data: dict[str, Any] = {
        "lesions_known": True,
        "images": len(records),
        "images_sharing_a_lesion": together,
        "share_sharing_a_lesion": together / len(records) if len(records) else 0.0,
        "lesions_with_several_images": int((sizes > 1).sum()),
    }
    overall = (
        f"{together:,} of {len(records):,} images ({share(together, len(records))}) share their {group} with another."
    )
    if given.split is not None:
        found = leakage(records, given.split)
        data |= {"split": "given", **found.to_dict()}
        if not found.leaked_images:
            return None
        return Finding(
            CODE,
            f"{group.capitalize()}s shared between training and validation",
            "error",
            f"{_leaks(found, group)} {why} {overall}",
            "Train with --split lesion; report numbers of this split only to compare with published ones.",
            data,
        )
    if not together:
        return None
    try:
        found = leakage(records, make_split(records, by="image", seed=0))
    except DataError:
        explanation = f"{overall} A split by image would put photographs of one {group} on both sides. {why}"
    else:
        data |= {"split": "image-level 80/20, seed 0", **found.to_dict()}
        explanation = f"{overall} With an image-level 80/20 split, {_leaks(found, group, start=False)} {why}"
    return Finding(
        CODE,
        f"{group.capitalize()}s that an image-level split would share",
        "warning",
        explanation,
        f"Split by {group}: --split lesion (the default).",
        data,
    )


def _leaks(found: Leakage, group: str, *, start: bool = True) -> str:
    by_class = listed({code: part.share for code, part in found.per_class.items()})
    return (
        f"{found.leaked_images:,} of {found.validation_images:,} validation images "
        f"({share(found.leaked_images, found.validation_images)}) show one of {found.shared_lesions:,} {group}s that "
        f"{'are' if start else 'would be'} in training too (by class: {by_class})."
    )
