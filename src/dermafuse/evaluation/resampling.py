"""Resampling whole lesions, and the interval that a set of replicates supports.

Sources:
    Cluster bootstrap (draw clusters with replacement, keep their rows together): Field & Welsh, J. R. Stat.
        Soc. B 69, 2007; Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
    Percentile interval: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    Exact interval at 0 and 1: Clopper & Pearson, Biometrika 26, 1934.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from dermafuse.errors import DataError
from dermafuse.evaluation.predictions import BoolArray, FloatArray, IntArray

#: 95 % intervals throughout.
ALPHA: Final = 0.05

#: Weights held at once, as a number of elements (4 MB of float64): bounds the memory at any n and stays
#: near the processor's cache.
CHUNK_ELEMENTS = 500_000


def resampled_weights(groups: IntArray, replicates: int, seed: int) -> Iterator[FloatArray]:
    """Yield row weights (n, r) in chunks, ``replicates`` columns in all: how often each row was drawn.

    In each replicate G groups are drawn with replacement from the G there are; a row weighs as often as its
    group was drawn. The same groups, count and seed give the same weights, however they are chunked.

    Raises:
        DataError: fewer than 40 replicates, which leave no 2.5 % tail to read.
    """
    if replicates < 40:
        raise DataError(f"replicates is {replicates}; a 95 % interval needs at least 40, better 2000.")
    count = int(groups.max()) + 1
    generator = np.random.default_rng(seed)
    chunk = max(1, min(replicates, CHUNK_ELEMENTS // len(groups)))
    for begin in range(0, replicates, chunk):
        drawn = np.stack(
            [
                np.bincount(generator.integers(0, count, size=count), minlength=count)
                for _ in range(min(chunk, replicates - begin))
            ],
            axis=1,
        )  # (G, r)
        yield drawn.astype(np.float64)[groups]


def count_groups(groups: IntArray, mask: BoolArray) -> int:
    """Return how many groups the masked rows come from."""
    return len(np.unique(groups[mask]))


def interval(
    replicates: FloatArray, estimate: float, *, trials: int | None = None, recentre: bool = False
) -> list[float] | None:
    """Return the 95 % percentile interval [low, high], or None where the replicates cannot support one.

    Args:
        replicates: (r,) the metric in each replicate, NaN where undefined.
        estimate: the metric of the rows themselves.
        trials: for plain proportions, the number of groups in the denominator. A proportion of 0 or 1 is the
            same in every replicate, and the percentile interval collapses to a point; then the exact
            interval of Clopper & Pearson takes its place, with lesions (not rows) as the trials.
        recentre: shift the replicates so that their mean is the estimate, and cut at 0. For ECE: resampling
            adds its own noise inside the absolute value, so the raw replicates lie too high.

    None when the estimate is undefined, when more than 5 % of the replicates are, or when all replicates are
    equal although the metric is not a proportion (an AUROC of 1, an F1 of 0, a single lesion).
    """
    if np.isnan(estimate):
        return None
    if trials is not None and trials > 0 and estimate in (0.0, 1.0):
        edge = (ALPHA / 2) ** (1 / trials)
        return [0.0, 1 - edge] if estimate == 0.0 else [edge, 1.0]
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < (1 - ALPHA) * len(replicates) or np.ptp(defined) < 1e-12:
        return None
    if recentre:
        defined = np.maximum(defined + (estimate - defined.mean()), 0.0)
    low, high = np.quantile(defined, [ALPHA / 2, 1 - ALPHA / 2])
    return [float(low), float(high)]
