"""Do the probabilities mean what they say? Reliability tables, ECE, Brier score and log loss.

Sources:
    ECE: Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI
        2015; top-label form: Guo et al., "On calibration of modern neural networks", ICML 2017.
    Equal-mass bins: Nguyen & O'Connor, EMNLP 2015. Class-wise ECE: Kull et al., NeurIPS 2019; Nixon et al.,
        "Measuring calibration in deep learning", CVPR workshops 2019.
    Brier score: Brier, Monthly Weather Review 78, 1950 (the original form over all classes, 0..2).
    Wilson interval: Wilson, JASA 22, 1927.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError
from dermafuse.evaluation.predictions import FloatArray, IntArray, Scored, check_predictions
from dermafuse.labels import Classes

#: Bins of equal mass; 15 as in Guo et al. 2017.
BINS: Final = 15

#: 97.5 % point of the standard normal distribution.
Z95: Final = 1.959963984540054


def equal_mass_bins(confidence: npt.ArrayLike, bins: int = BINS) -> IntArray:
    """Return (n,) bin numbers 0..bins-1 such that the bins hold equal numbers of rows.

    Rows of equal confidence always share a bin, so the result does not depend on the order of the rows;
    without ties bin sizes differ by at most one. With ties, some bins may stay empty.
    """
    values = np.asarray(confidence, dtype=np.float64)
    if bins < 1:
        raise DataError(f"bins is {bins}; use at least 1.")
    below = np.searchsorted(np.sort(values), values, side="left")  # rows strictly less confident
    numbers: IntArray = (below * bins // max(len(values), 1)).astype(np.int64)
    return numbers


def expected_calibration_error(confidence: npt.ArrayLike, outcome: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Return the ECE, 0..1: the mean over equal-mass bins of |share that came true - mean confidence|.

    Args:
        confidence: (n,) predicted probability of an event, 0..1.
        outcome: (n,) whether the event came true.
        bins: number of equal-mass bins.

    The estimate is biased upward (noise inside the absolute value); compare it with
    :func:`ece_if_calibrated`.
    """
    said, came = _pair(confidence, outcome)
    sums = np.bincount(equal_mass_bins(said, bins), weights=said - came, minlength=bins)
    return float(np.abs(sums).sum() / len(said))


def ece_if_calibrated(confidence: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Return the ECE that a perfectly calibrated model of these confidences would show from chance alone.

    In each bin the summed gap is then normal with variance sum c(1-c), and the mean of its absolute value is
    sqrt(2/pi) of its standard deviation (folded normal). An ECE near this floor is no evidence of
    miscalibration.
    """
    said = np.asarray(confidence, dtype=np.float64)
    if len(said) == 0:
        raise DataError("confidence is empty; pass at least one row.")
    variance = np.bincount(equal_mass_bins(said, bins), weights=said * (1 - said), minlength=bins)
    return float(np.sqrt(2 / np.pi * np.maximum(variance, 0)).sum() / len(said))


def reliability_table(confidence: npt.ArrayLike, outcome: npt.ArrayLike, *, bins: int = BINS) -> list[dict[str, Any]]:
    """Return one record a non-empty equal-mass bin, from the least to the most confident.

    Each holds ``n``, ``low`` and ``high`` (smallest and largest confidence), ``confidence`` (mean),
    ``frequency`` (share that came true) and ``ci95`` of the frequency (Wilson, rows taken as independent).
    """
    said, came = _pair(confidence, outcome)
    numbers = equal_mass_bins(said, bins)
    table = []
    for number in np.unique(numbers):
        inside = numbers == number
        hits, n = float(came[inside].sum()), int(inside.sum())
        table.append(
            {
                "n": n,
                "low": float(said[inside].min()),
                "high": float(said[inside].max()),
                "confidence": float(said[inside].mean()),
                "frequency": hits / n,
                "ci95": wilson_interval(hits, n),
            }
        )
    return table


def wilson_interval(hits: float, n: float) -> list[float]:
    """Return the 95 % Wilson score interval [low, high] of a proportion of ``n`` independent rows, n > 0."""
    share, z2 = hits / n, Z95**2
    centre = share + z2 / (2 * n)
    half = Z95 * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)))
    return [max(0.0, (centre - half) / (1 + z2 / n)), min(1.0, (centre + half) / (1 + z2 / n))]


def log_losses(rows: Scored) -> FloatArray:
    """Return (n,) ``-log p(true)`` in nats; probabilities are kept above the float64 epsilon (2.2e-16)."""
    of_true = rows.probabilities[np.arange(len(rows)), rows.true]
    losses: FloatArray = -np.log(np.clip(of_true, np.finfo(np.float64).eps, 1.0))
    return losses


def brier_scores(rows: Scored) -> FloatArray:
    """Return (n,) ``sum_c (p_c - [true = c])**2``, 0..2."""
    errors = rows.probabilities.copy()
    errors[np.arange(len(rows)), rows.true] -= 1
    scores: FloatArray = (errors**2).sum(axis=1)
    return scores


def overconfidences(rows: Scored) -> FloatArray:
    """Return (n,) the largest probability minus whether that class is the true one, -1..1."""
    right = rows.probabilities.argmax(axis=1) == rows.true
    gaps: FloatArray = rows.probabilities.max(axis=1) - right
    return gaps


def calibration_report(
    true: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Classes, *, bins: int = BINS
) -> dict[str, Any]:
    """Return the JSON-ready calibration block of one set of rows.

    Args:
        true: (n,) class indices.
        probabilities: (n, k) rows summing to 1.
        classes: the label set, or the k codes.
        bins: equal-mass bins of every table.

    Returns:
        ``n``, ``nll``, ``brier``, ``ece`` (top label), ``ece_if_calibrated`` (its noise floor),
        ``classwise_ece`` (mean over classes), ``overconfidence`` (mean confidence minus accuracy),
        ``reliability`` (top label) and ``per_class`` {code: {ece, ece_if_calibrated, reliability}}.

    Raises:
        DataError: arrays that are not labels and probabilities of the same rows.
    """
    rows = check_predictions(true, probabilities, classes)
    top = rows.probabilities.max(axis=1)
    right = rows.probabilities.argmax(axis=1) == rows.true
    per_class = {
        code: {
            "ece": expected_calibration_error(rows.probabilities[:, c], rows.true == c, bins=bins),
            "ece_if_calibrated": ece_if_calibrated(rows.probabilities[:, c], bins=bins),
            "reliability": reliability_table(rows.probabilities[:, c], rows.true == c, bins=bins),
        }
        for c, code in enumerate(rows.classes)
    }
    return {
        "n": len(rows),
        "bins": bins,
        "nll": float(log_losses(rows).mean()),
        "brier": float(brier_scores(rows).mean()),
        "ece": expected_calibration_error(top, right, bins=bins),
        "ece_if_calibrated": ece_if_calibrated(top, bins=bins),
        "classwise_ece": float(np.mean([block["ece"] for block in per_class.values()])),
        "overconfidence": float(top.mean() - right.mean()),
        "reliability": reliability_table(top, right, bins=bins),
        "per_class": per_class,
    }


def _pair(confidence: npt.ArrayLike, outcome: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    said = np.asarray(confidence, dtype=np.float64)
    came = np.asarray(outcome, dtype=np.float64)
    if said.ndim != 1 or said.shape != came.shape or len(said) == 0:
        raise DataError(
            f"confidence {said.shape} and outcome {came.shape} must be two equally long, non-empty vectors."
        )
    return said, came
