"""DF005: metadata that are missing more often in some diagnoses than in others.

Tested on lesions, not images (those of one lesion share their record): chi-squared of missing by class with
Monte-Carlo p values (Hope, "A simplified Monte Carlo significance test procedure", 1968), which hold for small
counts too; strength as Cramér's V, 0..1.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.checks.context import Given, listed, share
from dermafuse.checks.findings import Finding

CODE: Final = "DF005"
TITLE: Final = "Metadata missing more often in some diagnoses"

#: All features together may raise a false alarm in this share of data sets.
LEVEL: Final = 0.05
#: Associations weaker than this Cramér's V are not worth a word however sure they are.
WEAK: Final = 0.05
_DRAWS: Final = 9_999


def check(given: Given) -> Finding | None:
    """Return which features are missing, and whether the label has to do with it."""
    table = given.table
    measured = {}
    for name in given.features:
        missing = given.records.is_missing(name)
        if missing.any():
            measured[name] = _measure(table, missing)
    if not measured:
        return None
    level = LEVEL / len(given.features)
    tied = [
        name
        for name, figures in measured.items()
        if figures["p"] is not None and figures["p"] < level and figures["cramers_v"] >= WEAK
    ]
    counts = "; ".join(f"{name} in {f['images']:,} ({share(f['images'], len(table))})" for name, f in measured.items())
    text = f"Missing or unknown: {counts}."
    if not tied:
        return Finding(
            CODE,
            "Some metadata are missing",
            "info",
            f"{text} No class is affected more than chance explains.",
            "Nothing; missing values are filled in as the model was trained to.",
            {"features": measured},
        )
    parts = "; ".join(f"{name} ({listed(_extremes(measured[name]['share_by_class']))})" for name in tied)
    return Finding(
        CODE,
        TITLE,
        "warning",
        f"{text} It depends on the diagnosis for {parts}. A model can then take a missing value for a sign of the "
        "disease, which holds in these data and nowhere else.",
        "Train with metadata dropout (the standard recipe does) and look at the results by subgroup.",
        {"features": measured, "associated": tied},
    )


def _measure(table: pd.DataFrame, missing: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Count the rows without a value, and measure on the labelled ones whether the class has to do with it."""
    images = int(missing.sum())
    labelled = table["label"].notna().to_numpy(bool)
    table, missing = table[labelled], missing[labelled]
    labels = table["label"].to_numpy()
    classes = sorted(set(labels))
    lesions = pd.DataFrame({"lesion": table["lesion_id"], "label": labels, "missing": missing})
    lesions = lesions.groupby(["lesion", "label"], sort=True)["missing"].min().reset_index()
    sizes = np.array([(lesions["label"] == code).sum() for code in classes])
    gone = np.array([lesions.loc[lesions["label"] == code, "missing"].sum() for code in classes], dtype=np.int64)
    p, strength = association(gone, sizes)
    return {
        "images": images,
        "share_by_class": {code: float(missing[labels == code].mean()) for code in classes},
        "p": p,
        "cramers_v": strength,
    }


def association(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> tuple[float | None, float]:
    """Return p value and Cramér's V of "is in the part" by group; p is ``None`` where there is nothing to test.

    Args:
        part: (k,) how many of each group are in the part.
        whole: (k,) sizes of the groups.
    """
    drawn, total = int(part.sum()), int(whole.sum())
    if len(whole) < 2 or drawn in (0, total):
        return None, 0.0
    expected = whole * drawn / total
    scale = total / (total - drawn)  # folds the row of those not in the part into the sum

    def statistic(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        value: npt.NDArray[np.float64] = (np.square(counts - expected) / expected).sum(axis=-1) * scale
        return value

    chance = np.random.default_rng(0).multivariate_hypergeometric(whole, drawn, size=_DRAWS)
    seen = float(statistic(part))
    hits = int((statistic(chance) >= seen - 1e-9).sum())
    return (1 + hits) / (1 + _DRAWS), float(np.sqrt(seen / total))


def _extremes(shares: dict[str, float]) -> dict[str, float]:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return dict([ordered[0], ordered[-1]])
