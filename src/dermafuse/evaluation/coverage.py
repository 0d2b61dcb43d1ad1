"""Do the prediction sets hold the true class as often as promised, class by class?

Source of the expected range: for exchangeable rows the coverage of split conformal sets, given the held-out rows,
is Beta-distributed, and the number of covered new rows Beta-binomial (Vovk, "Conditional validity of inductive
conformal predictors", 2012; Angelopoulos & Bates, "Conformal prediction: a gentle introduction", 2023, section 3.2).
Where lesions have several images, lesions are counted as the independent rows: an approximation on the wide side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError
from dermafuse.evaluation.resampling import ALPHA
from dermafuse.runtime.bundle.schema import PredictionSets
from dermafuse.runtime.decision.conformal import apply_prediction_sets


def coverage_report(
    probabilities: npt.ArrayLike,
    true: npt.ArrayLike,
    classes: Sequence[str],
    rule: PredictionSets,
    counts: Sequence[int],
    *,
    groups: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Return coverage and size of the sets, overall and by class.

    Args:
        probabilities: (n, k) calibrated probabilities of rows that did not fit the rule.
        true: (n,) class indices.
        classes: k class codes.
        rule: of the sets.
        counts: (k,) lesions that the rule of each class was fitted on (`calibration_counts`).
        groups: (n,) lesion ids: the expected range then counts lesions, not rows, as independent.

    Returns:
        ``{"target", "coverage", "mean_size", "empty_share", "single_share", "per_class": {code: {"n", "covered",
        "coverage", "mean_size", "calibration_lesions", "expected": [low, high], "within_sampling_error"}}}``.
        ``expected`` is the central 95 % range of the coverage if the promise holds exactly as fitted; ``None``
        (and ``within_sampling_error`` with it) for classes without rows. A class whose minimum is 0 is always
        covered and expects [1, 1].

    Raises:
        DataError: arrays that do not fit each other.
    """
    labels = np.asarray(true)
    sets = apply_prediction_sets(probabilities, rule)
    if labels.shape != (len(sets),) or len(counts) != len(classes) or sets.shape[1] != len(classes) or not len(sets):
        raise DataError(
            f"true {labels.shape}, {len(counts)} counts and {len(classes)} classes do not fit {sets.shape}."
        )
    names = np.arange(len(labels)) if groups is None else np.asarray(groups, dtype=str)
    sizes = sets.sum(axis=1)
    hit = sets[np.arange(len(sets)), labels]
    per_class = {}
    for number, code in enumerate(classes):
        rows = labels == number
        n = int(rows.sum())
        covered = int(hit[rows].sum())
        trials = len(np.unique(names[rows]))
        fixed = rule.minimum_probability[number] == 0.0
        expected = [1.0, 1.0] if fixed else expected_range(counts[number], trials, 1 - rule.coverage)
        inside = None
        if n:
            # Steps of one lesion: a range between two possible counts must not exclude both.
            inside = bool(expected[0] - 0.5 / trials <= covered / n <= expected[1] + 0.5 / trials)
        per_class[code] = {
            "n": n,
            "covered": covered,
            "coverage": covered / n if n else None,
            "mean_size": float(sizes[rows].mean()) if n else None,
            "calibration_lesions": int(counts[number]),
            "expected": expected if n else None,
            "within_sampling_error": inside,
        }
    return {
        "target": rule.coverage,
        "coverage": float(hit.mean()),
        "mean_size": float(sizes.mean()),
        "empty_share": float((sizes == 0).mean()),
        "single_share": float((sizes == 1).mean()),
        "per_class": per_class,
    }


def expected_range(fitted: int, trials: int, alpha: float) -> list[float]:
    """Return the central 95 % range of the coverage over ``trials`` new units after a fit on ``fitted``."""
    rank = int(np.floor((fitted + 1) * alpha + 1e-9))  # the order statistic that is the minimum
    if rank < 1 or trials < 1:
        return [1.0, 1.0]
    from scipy.stats import betabinom

    law = betabinom(trials, fitted + 1 - rank, rank)
    return [float(law.ppf(ALPHA / 2) / trials), float(law.ppf(1 - ALPHA / 2) / trials)]
