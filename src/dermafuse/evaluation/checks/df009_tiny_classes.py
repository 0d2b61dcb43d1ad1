"""DF009: classes too small for a sure number."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dermafuse.evaluation.checks.findings import Finding
from dermafuse.evaluation.checks.given import Given

CODE: Final = "DF009"
TITLE: Final = "Classes too small for sure numbers"

#: A sensitivity is called unsure where its 95 % interval is wider than plus and minus this (at a value of 0.8).
WIDE: Final = 0.15
#: Lesions in validation under which a number is hardly one.
FEW: Final = 10


def check(given: Given) -> Finding | None:
    """Return the classes whose sensitivity in a validation part of a fifth will be unsure, and by how much."""
    table = given.table
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
        f"{code} (about {f['validation_lesions']} of {f['lesions']:,} lesions, ±{100 * f['half_width']:.0f} points)"
        for code, f in small.items()
    )
    tiny = any(figures["validation_lesions"] < FEW for figures in small.values())
    return Finding(
        CODE,
        TITLE,
        "warning" if tiny else "info",
        f"In a validation part of a fifth, the sensitivity of these classes is known only roughly: {parts}.",
        "Report the intervals, and use --folds 5 to judge every lesion once.",
        {"classes": small},
    )
