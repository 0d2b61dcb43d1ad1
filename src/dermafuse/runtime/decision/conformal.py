"""Prediction sets that hold the true class as often as promised, in each class: fitted on held-out rows.

Class-conditional (Mondrian) split conformal prediction with the score ``1 - p(class)``. A class is in the set where
its calibrated probability reaches the class's minimum. Sources: Vovk, Gammerman & Shafer, "Algorithmic learning in
a random world", 2005, section 4.5 (Mondrian); Sadinle, Lei & Wasserman, JASA 2019 (the score, class-conditional
error); for images that share a lesion, Dunn, Wasserman & Ramdas, "Distribution-free prediction sets for two-layer
hierarchical models", JASA 2023 (pooling).

The promise: of new images of class c, from where the held-out ones came, ``coverage`` or more have c in their set, on
average over held-out sets. It is exact where each lesion has one image. Where lesions have several, images count
alike (lesions that were photographed again are the hard ones, and a lesion's weight must not hide that) and the
finite-sample correction counts lesions; the promise then holds up to terms of one lesion. Needs NumPy alone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dermafuse.errors import ConfigError, DataError
from dermafuse.runtime.bundle.schema import PredictionSets

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

#: Room for rounding: 9 images of 10 parts must count as 0.9.
_SLACK: Final = 1e-9


def fit_prediction_sets(
    probabilities: npt.ArrayLike,
    true: npt.ArrayLike,
    *,
    alpha: float = 0.1,
    groups: npt.ArrayLike | None = None,
) -> PredictionSets:
    """Return the rule of the prediction sets, with the finite-sample correction.

    Args:
        probabilities: (n, k) calibrated probabilities of rows that trained nothing, the temperature included or
            on rows of their own (one number fitted on many rows: the effect is negligible).
        true: (n,) class indices.
        alpha: share of misses allowed in each class, between 0 and 1.
        groups: (n,) lesion ids; ``None``: each row by itself.

    A class with fewer than ``1 / alpha - 1`` lesions (9 at 0.1) supports no threshold: its minimum is 0, so it is
    in every set, which is the only honest answer. Without groups the minimum of a class of m rows is its
    ``floor((m + 1) * alpha)``-th smallest probability.

    Raises:
        DataError: arrays that do not fit each other.
        ConfigError: alpha outside 0..1.
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"alpha is {alpha}; give a number between 0 and 1, such as 0.1.")
    p, labels = _checked(probabilities, true)
    names = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if names.shape != labels.shape:
        raise DataError(f"groups has {names.size:,} values for {len(labels):,} rows; pass one lesion id a row.")
    minima = []
    for code in range(p.shape[1]):
        rows = labels == code
        minima.append(_minimum(p[rows, code], names[rows], alpha))
    return PredictionSets(coverage=1.0 - alpha, minimum_probability=minima)


def _minimum(p: Floats, names: npt.NDArray[np.int64], alpha: float) -> float:
    """Return the quantile of one class: the largest minimum that lets ``1 - alpha`` of the weight in."""
    lesions = len(np.unique(names))
    if not lesions:
        return 0.0
    # The new lesion, which could be anywhere, has 1 of (lesions + 1) parts of the weight; the images share the rest.
    inside = np.arange(1, len(p) + 1) * (lesions / ((lesions + 1) * len(p)))
    enough = np.flatnonzero(inside >= 1.0 - alpha - _SLACK)
    return float(min(1.0, np.sort(p)[::-1][enough[0]])) if len(enough) else 0.0


def apply_prediction_sets(probabilities: npt.ArrayLike, rule: PredictionSets) -> Bools:
    """Return which classes are in each row's set, (n, k): those that reach their own minimum probability.

    A set may be empty: then no class looks like its own held-out rows.

    Args:
        probabilities: (n, k) calibrated probabilities.
        rule: from :func:`fit_prediction_sets`.

    Raises:
        DataError: another number of classes than the rule has.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    minima = np.asarray(rule.minimum_probability)
    if p.ndim != 2 or p.shape[1:] != minima.shape:
        raise DataError(f"probabilities have shape {p.shape}; the rule is for (rows, {minima.size}).")
    sets: Bools = p >= minima
    return sets


def calibration_counts(true: npt.ArrayLike, k: int, groups: npt.ArrayLike | None = None) -> list[int]:
    """Return how many lesions (rows, without groups) of each of k classes a fit on these rows rests on."""
    labels = np.asarray(true)
    names = np.arange(len(labels)) if groups is None else np.asarray(groups, dtype=str)
    return [len(np.unique(names[labels == code])) for code in range(k)]


def _checked(probabilities: npt.ArrayLike, true: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    p, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(true)
    if p.ndim != 2 or labels.shape != p.shape[:1] or not len(labels) or labels.dtype.kind not in "iu":
        raise DataError(
            f"probabilities {p.shape} and true {labels.shape} ({labels.dtype}) do not fit; "
            "pass (n, k) and one integer class index a row."
        )
    if not np.isfinite(p).all() or p.min() < 0 or p.max() > 1 + 1e-6:
        raise DataError("probabilities hold values outside 0..1; pass calibrated probabilities.")
    if labels.min() < 0 or labels.max() >= p.shape[1]:
        raise DataError(f"true holds classes {labels.min()}..{labels.max()}; expected 0..{p.shape[1] - 1}.")
    return p, labels.astype(np.int64)
