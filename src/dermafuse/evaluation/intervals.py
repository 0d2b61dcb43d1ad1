"""How sure is each number? Cluster bootstrap over lesions for single models and for paired differences."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError
from dermafuse.evaluation.metric_table import metric_at
from dermafuse.evaluation.metrics import nest
from dermafuse.evaluation.predictions import FloatArray, Scored, check_groups, check_predictions
from dermafuse.evaluation.resampling import ALPHA, count_groups, interval, resampled_weights
from dermafuse.evaluation.weighted import Measures, WeightedMetrics, proportion_bases
from dermafuse.labels import Classes


def cluster_bootstrap(
    true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    classes: Classes,
    *,
    replicates: int = 2000,
    seed: int = 0,
    predicted: npt.ArrayLike | None = None,
    malignant: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return the 95 % interval of every scalar metric of ``evaluate_predictions``: its ``ci95`` block.

    Lesions are drawn with replacement with all their images (sources: :mod:`.resampling`): two images of one
    lesion are not two independent observations, and intervals that take them so are too narrow.

    Args:
        true: (n,) class indices.
        probabilities: (n, k) rows summing to 1.
        groups: (n,) lesion ids of any type; ``None`` = each row by itself.
        classes: the label set, or the k codes.
        replicates: bootstrap replicates, at least 40.
        seed: the same seed and groups give the same resamples.
        predicted: (n,) decisions, where not the largest probability.
        malignant: codes counted as malignant; ``None``: as the label set says.

    Returns:
        The metrics block's shape with ``[low, high]`` for each number: ``{"accuracy": [..], "malignant":
        {"auroc": [..]}, "per_class": {CODE: {"recall": [..]}}}``. ``None`` where no honest interval exists
        (metric undefined, too few lesions of a class, or no variation). A replicate without a class takes the
        macro means over the classes it has. Proportions of 0 or 1 get the exact interval over lesions.

    Raises:
        DataError: unusable arrays, a missing lesion id, or too few replicates.
    """
    rows = check_predictions(true, probabilities, classes, malignant=malignant, predicted=predicted, groups=groups)
    return intervals_of(rows, replicates=replicates, seed=seed)


def intervals_of(rows: Scored, *, replicates: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Return the ``ci95`` block of some rows; see `cluster_bootstrap`."""
    codes = check_groups(rows.lesion_id, len(rows))
    engine = WeightedMetrics(rows)
    found = _gather(engine.measure(weights) for weights in resampled_weights(codes, replicates, seed))
    trials = {path: count_groups(codes, mask) for path, mask in proportion_bases(rows).items()}
    estimate = engine.measure(np.ones((len(rows), 1)))
    return nest(
        {
            path: interval(
                values,
                float(estimate[path][0]),
                trials=trials.get(path),
                recentre=metric_at(path).biased_upward,
            )
            for path, values in found.items()
        }
    )


def paired_bootstrap(
    true: npt.ArrayLike,
    probabilities_a: npt.ArrayLike,
    probabilities_b: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    classes: Classes,
    *,
    replicates: int = 2000,
    seed: int = 0,
    predicted_a: npt.ArrayLike | None = None,
    predicted_b: npt.ArrayLike | None = None,
    malignant: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return the difference A minus B of every scalar metric, with its 95 % interval and p value.

    Both models see the same resampled lesions, so what the two share cancels and the interval is that of the
    difference, usually far narrower than either model's own.

    Args:
        true: (n,) class indices, the same rows for both.
        probabilities_a: (n, k) of model A.
        probabilities_b: (n, k) of model B.
        groups: (n,) lesion ids; ``None`` = each row by itself.
        classes: the label set, or the k codes.
        replicates: at least 40.
        seed: of the resamples.
        predicted_a: (n,) decisions of A, where not the largest probability.
        predicted_b: (n,) decisions of B.
        malignant: codes counted as malignant; ``None``: as the label set says.

    Returns:
        The shape of the metrics block with ``{"difference", "low", "high", "p"}`` for each number; all
        ``None`` where a model's metric is undefined. ``p`` is two-sided and inverts the
        interval: twice the smaller share of replicates on either side of zero, counted as (1 + hits) /
        (1 + replicates) (Davison & Hinkley 1997, chapter 4), at most 1. It is not corrected for the number
        of metrics looked at.

    Raises:
        DataError: as :func:`cluster_bootstrap`.
    """
    a, b = (
        check_predictions(true, each, classes, malignant=malignant, predicted=decided, groups=groups)
        for each, decided in ((probabilities_a, predicted_a), (probabilities_b, predicted_b))
    )
    return paired(a, b, replicates=replicates, seed=seed)


def paired(a: Scored, b: Scored, *, replicates: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Return the differences A minus B of two models on the same images in the same order; see `paired_bootstrap`."""
    if len(a) != len(b):
        raise DataError(f"Model A has {len(a):,} rows and model B {len(b):,}; compare them on the same rows.")
    engines = WeightedMetrics(a), WeightedMetrics(b)
    unit = np.ones((len(a), 1))
    estimate = _difference(engines[0].measure(unit), engines[1].measure(unit))
    found = _gather(
        _difference(engines[0].measure(weights), engines[1].measure(weights))
        for weights in resampled_weights(check_groups(a.lesion_id, len(a)), replicates, seed)
    )
    return nest(
        {
            path: _paired(values, float(estimate[path][0]), recentre=metric_at(path).biased_upward)
            for path, values in found.items()
        }
    )


def unpaired(a: Scored, b: Scored, *, replicates: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Return the difference A minus B of every scalar metric for models judged on different rows.

    Each side is resampled by itself (two independent cluster bootstraps; Efron & Tibshirani 1993, section 8.3),
    so the interval is wider than a paired one: it holds the chance of which rows each side got, too.

    Args:
        a: what A says of its rows.
        b: what B says of others, of the same classes.
        replicates: at least 40.
        seed: of A's resamples; B's are drawn with ``seed + 1``.

    Returns:
        As :func:`paired_bootstrap`.

    Raises:
        DataError: as :func:`cluster_bootstrap`.
    """
    sides = []
    for offset, rows in enumerate((a, b)):
        engine = WeightedMetrics(rows)
        codes = check_groups(rows.lesion_id, len(rows))
        found = _gather(engine.measure(weights) for weights in resampled_weights(codes, replicates, seed + offset))
        sides.append((engine.measure(np.ones((len(rows), 1))), found))
    (estimate_a, found_a), (estimate_b, found_b) = sides
    estimate, found = _difference(estimate_a, estimate_b), _difference(found_a, found_b)
    return nest(
        {
            path: _paired(values, float(estimate[path][0]), recentre=metric_at(path).biased_upward)
            for path, values in found.items()
        }
    )


def _paired(replicates: FloatArray, difference: float, *, recentre: bool) -> dict[str, float | None]:
    """Summarise one paired difference; see :func:`paired_bootstrap`."""
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(difference) or len(defined) < (1 - ALPHA) * len(replicates):
        return {
            "difference": None if np.isnan(difference) else difference,
            "low": None,
            "high": None,
            "p": None,
        }
    if np.ptp(defined) < 1e-12 and abs(difference) > 1e-12:
        # The same difference in every replicate: resampling says nothing about its uncertainty.
        return {"difference": difference, "low": None, "high": None, "p": None}
    if recentre:
        defined = defined + (difference - defined.mean())
    low, high = np.quantile(defined, [ALPHA / 2, 1 - ALPHA / 2])
    tail = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    p = min(1.0, 2 * (1 + tail) / (1 + len(defined)))
    return {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}


def _difference(a: Measures, b: Measures) -> Measures:
    return {path: a[path] - b[path] for path in a}


def _gather(chunks: Iterable[Measures]) -> Measures:
    """Join the chunks of replicates of every metric."""
    listed = list(chunks)
    return {path: np.concatenate([chunk[path] for chunk in listed]) for path in listed[0]}
