"""Classical tests of two models on the same images, and the correction for many of them.

They take images as independent, which two images of one lesion are not: they stand beside the bootstrap over lesions
(`dermafuse.evaluation.intervals.paired_bootstrap`), not in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from dermafuse.evaluation.predictions import BoolArray, FloatArray


def mcnemar(right_a: BoolArray, right_b: BoolArray) -> dict[str, Any]:
    """Return whether two models are right equally often: McNemar's test in its exact form.

    McNemar, Psychometrika 12, 1947; exact: the images that only one model names rightly are coin tosses under the
    null hypothesis, Binomial(only_a + only_b, 1/2), two-sided.

    Args:
        right_a: bool (n,), where model A is right.
        right_b: bool (n,), where model B is right, the same images.

    Returns:
        ``only_a``, ``only_b`` (counts of images that only one names rightly), ``both``, ``neither`` and ``p`` (0..1).

    >>> mcnemar(np.array([True] * 9 + [False]), np.array([False] * 9 + [True]))["p"]
    0.021484375
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {
        "only_a": only_a,
        "only_b": only_b,
        "both": int((right_a & right_b).sum()),
        "neither": int((~right_a & ~right_b).sum()),
        "p": p,
    }


def delong(score_a: FloatArray, score_b: FloatArray, positive: BoolArray) -> dict[str, float | None]:
    """Return whether two scores of the same images have the same AUROC.

    DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988, by mid-ranks as Sun & Xu, IEEE Signal Processing Letters 21,
    2014; two-sided normal test of the difference.

    Args:
        score_a: (n,), larger for the positive.
        score_b: (n,), of the other model.
        positive: bool (n,).

    Returns:
        ``auroc_a``, ``auroc_b``, ``difference`` (B minus A), ``standard_error`` and ``p``; all ``None`` with fewer than
        two images on either side. ``p`` is ``None`` where the standard error is 0 and the difference is not.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return dict.fromkeys(("auroc_a", "auroc_b", "difference", "standard_error", "p"))
    parts = [_placements(score, positive) for score in (score_a, score_b)]
    of_positives = np.stack([part[0] for part in parts])  # (2, m)
    of_negatives = np.stack([part[1] for part in parts])  # (2, n)
    areas = of_positives.mean(axis=1)
    covariance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    contrast = np.array([-1.0, 1.0])
    variance = float(contrast @ covariance @ contrast)
    difference = float(areas[1] - areas[0])
    error = float(np.sqrt(max(variance, 0.0)))
    if error > 1e-12:
        p: float | None = float(2.0 * stats.norm.sf(abs(difference) / error))
    else:
        p = 1.0 if abs(difference) < 1e-12 else None
    return {
        "auroc_a": float(areas[0]),
        "auroc_b": float(areas[1]),
        "difference": difference,
        "standard_error": error,
        "p": p,
    }


def _placements(score: FloatArray, positive: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return for each positive the share of negatives below it, and for each negative that of positives above it."""
    m, n = int(positive.sum()), int((~positive).sum())
    overall = stats.rankdata(score)
    above = (overall[positive] - stats.rankdata(score[positive])) / n
    below = 1.0 - (overall[~positive] - stats.rankdata(score[~positive])) / m
    return above, below


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for their number, so that any false alarm among them is as rare as said.

    Holm, Scandinavian Journal of Statistics 6, 1979. ``None`` (not tested) stays and does not count.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, place) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        corrected[place] = running
    return corrected
