"""DF001: lesions with images in training and in validation."""

from __future__ import annotations

from typing import Any, Final

from dermafuse.data.splits import Leakage, leakage, make_split
from dermafuse.errors import DataError
from dermafuse.evaluation.checks.findings import Finding
from dermafuse.evaluation.checks.given import Given, listed, share

CODE: Final = "DF001"
TITLE: Final = "Lesions shared between training and validation"

_WHY: Final = (
    "A model that saw one photograph of a lesion in training recognises the next one: such images make every "
    "validation number look better than it is."
)


def check(given: Given) -> Finding | None:
    """Return how much leaks with the split in use, or with an image-level split where there is none yet."""
    records = given.records
    if not records.has_lesions:
        return Finding(
            CODE,
            "Lesion ids are unknown",
            "warning",
            f"The data do not say which images show the same lesion, so leakage cannot be ruled out. {_WHY}",
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
        f"{together:,} of {len(records):,} images ({share(together, len(records))}) share their lesion with another."
    )
    if given.split is not None:
        found = leakage(records, given.split)
        data |= {"split": "given", **found.to_dict()}
        if not found.leaked_images:
            return None
        return Finding(
            CODE,
            TITLE,
            "error",
            f"{_leaks(found)} {_WHY} {overall}",
            "Train with --split lesion; report numbers of this split only to compare with published ones.",
            data,
        )
    if not together:
        return None
    try:
        found = leakage(records, make_split(records, by="image", seed=0))
    except DataError:
        explanation = f"{overall} A split by image would put photographs of one lesion on both sides. {_WHY}"
    else:
        data |= {"split": "image-level 80/20, seed 0", **found.to_dict()}
        explanation = f"{overall} With an image-level 80/20 split, {_leaks(found, start=False)} {_WHY}"
    return Finding(
        CODE, "Lesions that an image-level split would share", "warning", explanation,
        "Split by lesion: --split lesion (the default).", data,
    )  # fmt: skip


def _leaks(found: Leakage, *, start: bool = True) -> str:
    by_class = listed({code: part.share for code, part in found.per_class.items()})
    return (
        f"{found.leaked_images:,} of {found.validation_images:,} validation images "
        f"({share(found.leaked_images, found.validation_images)}) show one of {found.shared_lesions:,} lesions that "
        f"{'are' if start else 'would be'} in training too (by class: {by_class})."
    )
