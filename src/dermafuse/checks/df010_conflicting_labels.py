"""DF010: lesions with more than one diagnosis."""

from __future__ import annotations

from typing import Final

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding
from dermafuse.errors import examples

CODE: Final = "DF010"
TITLE: Final = "Lesions with more than one diagnosis"


def check(given: Given) -> Finding | None:
    """Return the lesions whose images carry different labels; a patient may have several diagnoses."""
    group = given.records.group
    if group == "patient":
        return None
    kinds = given.table.dropna(subset=["label"]).groupby("lesion_id")["label"].unique()
    mixed = {str(lesion): sorted(map(str, labels)) for lesion, labels in kinds.items() if len(labels) > 1}
    if not mixed:
        return None
    shown = examples([f"{lesion}: {' and '.join(labels)}" for lesion, labels in mixed.items()])
    if group != "lesion":
        return Finding(
            CODE,
            f"{group.capitalize()}s with more than one diagnosis",
            "info",
            f"{len(mixed):,} {group}(s) carry more than one diagnosis ({shown}): as patients may, but not lesions.",
            "If the column names lesions, correct the table; if patients, this is as it should be.",
            {"lesions": mixed},
        )
    return Finding(
        CODE,
        TITLE,
        "warning",
        f"{len(mixed):,} lesion(s) carry more than one diagnosis ({shown}). Either the lesion id or a label is wrong.",
        "Correct the table; until then these images teach and test contradictions.",
        {"lesions": mixed},
    )
