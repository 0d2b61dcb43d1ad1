"""DF004: some classes are far rarer than others."""

from __future__ import annotations

from typing import Final

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding

CODE: Final = "DF004"
TITLE: Final = "Classes of very different size"

#: Ratio of the largest to the smallest class from which it is named.
RATIO: Final = 5.0


def check(given: Given) -> Finding | None:
    """Return how unequal the classes are."""
    counts = {code: n for code, n in given.records.counts().items() if n}
    if len(counts) < 2:
        return None
    most, least = max(counts, key=lambda code: counts[code]), min(counts, key=lambda code: counts[code])
    ratio = counts[most] / counts[least]
    if ratio < RATIO:
        return None
    majority = counts[most] / sum(counts.values())
    return Finding(
        CODE,
        TITLE,
        "warning",
        f"There are {counts[most]:,} images of {most} and {counts[least]:,} of {least} ({ratio:.0f} to 1). A program "
        f"that always answers {most} would be right on {majority:.0%} of the images, so accuracy alone says "
        "little.".replace("%", " %"),
        f"Judge by balanced accuracy and per-class sensitivity. {given.against_imbalance}".strip(),
        {"counts": counts, "ratio": ratio, "accuracy_of_the_commonest_class": majority},
    )
