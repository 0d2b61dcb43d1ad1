"""DF009: classes too small for a sure number, or for training at all."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding
from dermafuse.data.readers.given_split import given_split, training_part
from dermafuse.data.splits import check_training_side, make_split, refuse_one_class
from dermafuse.errors import DataError

CODE: Final = "DF009"
TITLE: Final = "Classes too small for sure numbers"

#: A sensitivity is called unsure where its 95 % interval is wider than plus and minus this (at a value of 0.8).
WIDE: Final = 0.15
#: Lesions in validation under which a number is hardly one.
FEW: Final = 10


def check(given: Given) -> Finding | None:
    """Return what training would refuse, or how unsure the sensitivity of a class will be in a fifth of the lesions."""
    refused = _refused(given)
    if refused:
        return Finding(
            CODE,
            "Classes too small to train on",
            "error",
            refused,
            "Add images, or leave the class out (`ignore` in dermafuse.toml, or another class for it in [labels]).",
            {"refused": refused},
        )
    table, group = given.table, given.records.group
    lesions = table.groupby("label")["lesion_id"].nunique()
    small: dict[str, dict[str, Any]] = {}
    for code, images in given.records.counts().items():
        if not images:
            continue
        count = int(lesions[code])
        held = count / 5
        if given.split is not None:
            rows = table.iloc[given.split.validation]
            held = int(rows.loc[rows["label"] == code, "lesion_id"].nunique())
        half_width = float(1.96 * np.sqrt(0.8 * 0.2 / held)) if held else 1.0
        if half_width > WIDE:
            small[code] = {"lesions": count, "validation_lesions": round(held), "half_width": min(half_width, 1.0)}
    if not small:
        return None
    parts = ", ".join(
        f"{code} (about {f['validation_lesions']} of {f['lesions']:,} {group}s, ±{100 * f['half_width']:.0f} points)"
        for code, f in small.items()
    )
    tiny = any(figures["validation_lesions"] < FEW for figures in small.values())
    return Finding(
        CODE,
        TITLE,
        "warning" if tiny else "info",
        f"In a validation part of a fifth, the sensitivity of these classes is known only roughly: {parts}.",
        f"Report the intervals, and use --folds 5 to judge every {group} once.",
        {"classes": small},
    )


def _refused(given: Given) -> str:
    """Return what training would say of too small classes, ``""`` where it would not.

    Without a split the records are divided as training would; a split that was drawn is there, so nothing refused it.
    """
    records = given.records.subset(given.table["label"].notna())
    if not len(records):  # nothing is labelled: there is nothing to train
        return ""
    who = "Training"
    try:
        records = training_part(records)
        refuse_one_class(records)
        own = given_split(records)
        if given.split is None:
            who = "A split by lesion"
            make_split(records, by="lesion", seed=0)
            who = "A recipe that holds out tuning rows by lesion, such as standard,"
            make_split(records, by="lesion", seed=0, train_parts=2)
        elif own is not None:
            check_training_side(records, own.train, 1)
            who = "A recipe that holds out tuning rows by lesion, such as standard,"
            check_training_side(records, own.train, 2)
    except DataError as error:
        return f"{who} will refuse these data: {error}"
    return ""
