"""Where to set the alarm: thresholds chosen on one set of rows and judged on another.

A threshold chosen on the rows that are reported promises a sensitivity that the next patients will not get.
So choosing (:func:`threshold_at_sensitivity` and its siblings) and judging (:func:`apply_threshold`) are two
calls, and :func:`operating_points` takes both sets of rows.

Sources:
    Number needed to biopsy = biopsies for each malignancy found = 1 / PPV (as the number needed to excise: English,
    Del Mar & Burton, Med. J. Aust. 180, 2004). PPV at another prevalence: Bayes' rule, e.g. Altman & Bland, BMJ 309,
    1994.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError
from dermafuse.evaluation.confusion import ratio
from dermafuse.evaluation.enough import least_for_level
from dermafuse.evaluation.metrics import number
from dermafuse.evaluation.predictions import (
    BoolArray,
    FloatArray,
    IntArray,
    check_groups,
    check_predictions,
)
from dermafuse.evaluation.resampling import count_groups, interval, resampled_weights
from dermafuse.labels import Classes

#: The rules of the report: what is fixed, and at which level.
RULES: Final = (("sensitivity", 0.90), ("sensitivity", 0.95), ("specificity", 0.90))


def threshold_at_sensitivity(positive: npt.ArrayLike, score: npt.ArrayLike, level: float) -> float:
    """Return the highest threshold t with sensitivity of ``score >= t`` at or above ``level`` on these rows.

    Args:
        positive: (n,) bool, at least one True.
        score: (n,) finite; larger = more suspicious.
        level: the sensitivity to reach, 0 < level <= 1.

    Raises:
        DataError: no positive row, a level outside 0..1, or arrays that do not fit.
    """
    is_positive, scores = _check_pair(positive, score)
    _check_level("sensitivity", level)
    own = np.sort(scores[is_positive])[::-1]
    if len(own) == 0:
        raise DataError("No positive row to choose a threshold on; choose it on rows that hold some.")
    # The slack keeps 0.9 * 10 = 9.000000000000002 from asking for a tenth positive.
    needed = max(1, int(np.ceil(level * len(own) - 1e-9)))
    return float(own[needed - 1])


def threshold_at_specificity(positive: npt.ArrayLike, score: npt.ArrayLike, level: float) -> float:
    """Return the lowest threshold t with specificity of ``score >= t`` at or above ``level`` on these rows.

    Only scores that occur are candidates, and the next number above the largest score (nothing is flagged).

    Raises:
        DataError: no negative row, a level outside 0..1, or arrays that do not fit.
    """
    is_positive, scores = _check_pair(positive, score)
    _check_level("specificity", level)
    negatives = np.sort(scores[~is_positive])
    if len(negatives) == 0:
        raise DataError("No negative row to choose a threshold on; choose it on rows that hold some.")
    candidates = np.append(np.unique(scores), np.nextafter(scores.max(), np.inf))
    cleared = np.searchsorted(negatives, candidates, side="left")  # negatives below each candidate
    return float(candidates[np.argmax(cleared >= level * len(negatives) - 1e-9)])


def apply_threshold(
    positive: npt.ArrayLike,
    score: npt.ArrayLike,
    threshold: float,
    groups: npt.ArrayLike | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge ``score >= threshold`` on rows that had no say in the threshold.

    Args:
        positive: (n,) bool.
        score: (n,) finite.
        threshold: flags a row where its score reaches it.
        groups: (n,) lesion ids for the cluster bootstrap; ``None`` = each row by itself.
        replicates: bootstrap replicates, at least 40.
        seed: of the resamples.

    Returns:
        ``n``, ``positives``, ``flagged`` (share of rows), ``sensitivity``, ``specificity``, ``ppv``, ``npv``,
        ``number_needed_to_biopsy`` (flagged rows for each true positive, at the prevalence of these rows) and
        ``ci95`` of those six, ``flagged`` included, taking the threshold as given. ``None`` where undefined.
    """
    is_positive, scores = _check_pair(positive, score)
    codes = check_groups(groups, len(scores))
    flag = scores >= threshold
    found = _judge(is_positive, flag, np.ones((len(scores), 1)))
    chunks = [_judge(is_positive, flag, w) for w in resampled_weights(codes, replicates, seed)]
    bases = {
        "flagged": np.ones(len(scores), dtype=np.bool_),
        "sensitivity": is_positive,
        "specificity": ~is_positive,
        "ppv": flag,
        "npv": ~flag,
    }
    intervals = {
        name: interval(
            np.concatenate([chunk[name] for chunk in chunks]),
            float(values[0]),
            trials=count_groups(codes, bases[name]) if name in bases else None,
        )
        for name, values in found.items()
    }
    return {
        "n": len(scores),
        "positives": int(is_positive.sum()),
        **{name: number(float(values[0])) for name, values in found.items()},
        "ci95": intervals,
    }


def ppv_at_prevalence(sensitivity: float, specificity: float, prevalence: float) -> float | None:
    """Return the PPV that this sensitivity and specificity give at another prevalence (all 0..1).

    A specialist's collection such as HAM10000 holds far more malignancies than a screening clinic; its PPV
    and number needed to biopsy (1 / PPV) do not carry over, sensitivity and specificity rather do.
    """
    for name, share in (("sensitivity", sensitivity), ("specificity", specificity), ("prevalence", prevalence)):
        if not 0 <= share <= 1:
            raise DataError(f"The {name} is {share}; it must be between 0 and 1.")
    caught = sensitivity * prevalence
    flagged = caught + (1 - specificity) * (1 - prevalence)
    return caught / flagged if flagged > 0 else None


def operating_points(
    chosen_true: npt.ArrayLike,
    chosen_probabilities: npt.ArrayLike,
    true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    classes: Classes,
    *,
    chosen_groups: npt.ArrayLike | None = None,
    malignant: Collection[str] | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the report's operating points: chosen on the first two arrays, judged on the next three.

    Args:
        chosen_true: (m,) class indices of the rows on which the thresholds are chosen.
        chosen_probabilities: (m, k) of those rows.
        true: (n,) class indices of the reported rows.
        probabilities: (n, k) of the reported rows.
        groups: (n,) lesion ids of the reported rows, for the intervals.
        classes: the label set, or the k codes.
        chosen_groups: (m,) lesion ids of the rows on which the thresholds are chosen; ``None``: each by itself.
        malignant: codes counted as malignant; ``None``: as the label set says.
        replicates: bootstrap replicates.
        seed: of the resamples.

    Returns:
        One record for each of the critical class (by its code) and "malignant", as far as ``classes`` names them
        (`Scored.targets`), and each of
        sensitivity 0.90, 0.95 and specificity 0.90: ``target``, ``rule``, ``level``, ``threshold``,
        ``chosen_on`` {n, positives, lesions, sensitivity, specificity} and the keys of :func:`apply_threshold`; there
        ``lesions`` are those of the positives (for a specificity: negatives). Where they are fewer than
        ``enough.least_for_level``, ``threshold`` and what follows from it is None.

    Raises:
        DataError: unusable arrays, or the same rows given twice.
    """
    chooser = check_predictions(chosen_true, chosen_probabilities, classes, malignant=malignant)
    reported = check_predictions(true, probabilities, classes, malignant=malignant)
    if np.array_equal(chooser.probabilities, reported.probabilities):
        raise DataError(
            "The thresholds would be chosen on the rows that are reported; choose them on rows held out for it."
        )
    codes = check_groups(groups, len(reported))
    chosen_codes = check_groups(chosen_groups, len(chooser))
    points = []
    asked = reported.targets()
    for target, chosen_by in chooser.targets().items():
        chosen, judged = ((each.positive, each.score) for each in (chosen_by, asked[target]))
        for rule, level in RULES:
            deciding = chosen[0] if rule == "sensitivity" else ~chosen[0]
            lesions = len(np.unique(chosen_codes[deciding]))
            points.append(
                {"target": target, "rule": rule, "level": level}
                | _point(rule, level, (*chosen, lesions), judged, codes, replicates, seed)
            )
    return points


def _point(
    rule: str,
    level: float,
    chosen: tuple[BoolArray, FloatArray, int],
    judged: tuple[BoolArray, FloatArray],
    codes: IntArray,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    positive, score, lesions = chosen
    counts = {"n": len(score), "positives": int(positive.sum()), "lesions": lesions}
    if lesions < least_for_level(level):
        names = ("flagged", "sensitivity", "specificity", "ppv", "npv", "number_needed_to_biopsy")
        empty = dict.fromkeys(names)
        return {
            "threshold": None,
            "chosen_on": counts | {"sensitivity": None, "specificity": None},
            "n": len(judged[1]),
            "positives": int(judged[0].sum()),
            **empty,
            "ci95": dict(empty),
        }
    choose = threshold_at_sensitivity if rule == "sensitivity" else threshold_at_specificity
    threshold = choose(positive, score, level)
    there = _judge(positive, score >= threshold, np.ones((len(score), 1)))
    reached = {name: number(float(there[name][0])) for name in ("sensitivity", "specificity")}
    return {
        "threshold": threshold,
        "chosen_on": counts | reached,
        **apply_threshold(*judged, threshold, codes, replicates=replicates, seed=seed),
    }


def _judge(positive: BoolArray, flag: BoolArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Return each share (r,) for row weights (n, r), NaN where undefined."""
    cells = np.stack([positive & flag, positive & ~flag, ~positive & flag, ~positive & ~flag])
    caught, missed, alarm, clear = cells.astype(np.float64) @ weights
    return {
        "flagged": ratio(caught + alarm, weights.sum(axis=0)),
        "sensitivity": ratio(caught, caught + missed),
        "specificity": ratio(clear, clear + alarm),
        "ppv": ratio(caught, caught + alarm),
        "npv": ratio(clear, clear + missed),
        "number_needed_to_biopsy": ratio(caught + alarm, caught),
    }


def _check_pair(positive: npt.ArrayLike, score: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    flags = np.asarray(positive)
    scores = np.asarray(score, dtype=np.float64)
    if flags.dtype != np.bool_ or flags.shape != scores.shape or scores.ndim != 1 or len(scores) == 0:
        raise DataError(
            f"positive {flags.shape} ({flags.dtype}) and score {scores.shape} do not fit; "
            "pass two equally long, non-empty vectors, the first of bool."
        )
    if not np.isfinite(scores).all():
        raise DataError("score holds NaN or infinity; check the model that made it.")
    return flags, scores


def _check_level(name: str, level: float) -> None:
    if not 0 < level <= 1:
        raise DataError(f"The {name} to reach is {level}; it must be above 0 and at most 1.")
