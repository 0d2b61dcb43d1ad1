"""What people ask of a model first: what it misses, whether acting on it does good, and what costs nothing.

Sources:
    Net benefit: Vickers & Elkin, Med. Decis. Making 26, 2006.
    Calibration slope and intercept: Cox, Biometrika 45, 1958; Van Calster et al., J. Clin. Epidemiol. 74, 2016. The
        intercept is that of slope 1 (calibration in the large). Intervals: the sandwich over lesions of Liang & Zeger,
        Biometrika 73, 1986.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.evaluation.metric_table import shown
from dermafuse.evaluation.metrics import number
from dermafuse.evaluation.predictions import MALIGNANT, BoolArray, FloatArray, IntArray, Scored, Target, check_groups
from dermafuse.evaluation.resampling import interval, resampled_weights
from dermafuse.evaluation.weighted import WeightedMetrics

#: The threshold probability of the net benefit: nine needless biopsies are worth one malignant lesion found.
THRESHOLD: Final = 0.10
#: Probabilities nearer to 0 or 1 have no logit worth the name.
_EDGE: Final = 1e-6
_STEPS: Final = 50


def at_a_glance(rows: Scored, *, seed: int = 0) -> dict[str, Any]:
    """Return what the first screen of a report shows beside the metrics.

    Returns:
        ``missed``: {"critical": {"name", "support", "missed", "called_benign"}, "malignant": {"support",
        "called_benign"}}, counts of images by the model's decision, as far as the label set names such classes and the
        rows hold some;
        ``net_benefit``: {"threshold", "model", "all", "ci95"}, or None; ``calibration_line``: {"of", "slope",
        "intercept", "ci95"}, or None where it cannot be fitted.
    """
    question = list(rows.targets().values())[-1:]
    return {
        "missed": missed(rows),
        "net_benefit": net_benefit(question[0], rows.lesion_id, seed=seed) if question else None,
        "calibration_line": calibration_line(question[0] if question else _own_answer(rows), rows.lesion_id),
    }


def first_alarm(block: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
    """Return the operating point that is named first, and its number: malignant before the critical class."""
    known = [each for each in enumerate(block.get("operating_points") or []) if each[1]["threshold"] is not None]
    return min(known, key=lambda each: (each[1]["target"] != MALIGNANT, each[0]), default=None)


def missed(rows: Scored) -> dict[str, dict[str, Any]]:
    """Return how many images of the critical class, and of the malignant ones, the decision misses."""
    found: dict[str, dict[str, Any]] = {}
    benign = ~rows.malignant[rows.predicted]
    if rows.labels.critical is not None:
        c = rows.classes.index(rows.labels.critical)
        own = rows.true == c
        lost = int((own & (rows.predicted != c)).sum())
        found["critical"] = {"name": rows.labels.critical_name, "support": int(own.sum()), "missed": lost}
        if rows.has_malignant:
            found["critical"]["called_benign"] = int((own & benign).sum())
    if rows.has_malignant:
        own = rows.is_malignant
        found["malignant"] = {"support": int(own.sum()), "called_benign": int((own & benign).sum())}
    return {key: counts for key, counts in found.items() if counts["support"]}


def net_benefit(
    target: Target, groups: npt.ArrayLike, *, threshold: float = THRESHOLD, replicates: int = 2000, seed: int = 0
) -> dict[str, Any] | None:
    """Return the net benefit of acting where the score reaches ``threshold``: hits less weighted false alarms, a row.

    Args:
        target: (n,) who is positive, and (n,) the probability of it.
        groups: (n,) lesion ids, for the interval.
        threshold: t, 0 < t < 1; a false alarm weighs t / (1 - t) of a hit.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``threshold``, ``model``, ``all`` (acting on everybody; on nobody it is 0) and ``ci95`` of ``model``; ``None``
        where there are not both sides.
    """
    if target.positive.all() or not target.positive.any():
        return None
    odds = threshold / (1 - threshold)
    flagged = target.score >= threshold
    each = np.where(flagged, np.where(target.positive, 1.0, -odds), 0.0)
    drawn = [each @ weights / weights.sum(axis=0) for weights in resampled_weights(_codes(groups), replicates, seed)]
    prevalence = float(target.positive.mean())
    return {
        "threshold": threshold,
        "model": float(each.mean()),
        "all": prevalence - (1 - prevalence) * odds,
        "ci95": {"model": interval(np.concatenate(drawn), float(each.mean()))},
    }


def calibration_line(target: Target, groups: npt.ArrayLike) -> dict[str, Any] | None:
    """Return slope and intercept of the outcome's log odds over those that the model gives; 1 and 0 are right.

    Args:
        target: (n,) the outcome, and (n,) its probability.
        groups: (n,) lesion ids, for the intervals.

    Returns:
        ``of`` (the outcome in words), ``slope``, ``intercept`` (of slope 1) and ``ci95`` of both; ``None`` where there
        are not both outcomes, or no finite line fits.
    """
    if target.positive.all() or not target.positive.any():
        return None
    p = np.clip(target.score, _EDGE, 1 - _EDGE)
    logit = np.log(p / (1 - p))
    codes = _codes(groups)
    one = np.ones_like(logit)
    line = _logistic(np.stack([one, logit], axis=1), target.positive, np.zeros_like(logit), codes)
    shift = _logistic(one[:, np.newaxis], target.positive, logit, codes)
    if line is None or shift is None:
        return None
    (_, slope), (_, slope_error) = line
    (intercept,), (intercept_error,) = shift
    return {
        "of": target.name,
        "slope": slope,
        "intercept": intercept,
        "ci95": {
            "slope": [slope - 1.96 * slope_error, slope + 1.96 * slope_error],
            "intercept": [intercept - 1.96 * intercept_error, intercept + 1.96 * intercept_error],
        },
    }


def majority(rows: Scored) -> dict[str, Any]:
    """Return the metrics of always naming the class that is most frequent among these rows, and its ``class``."""
    most = int(np.bincount(rows.true, minlength=len(rows.classes)).argmax())
    always = np.tile(np.eye(len(rows.classes))[most], (len(rows), 1))
    return {"class": rows.classes[most], **_figures(rows, always)}


def metadata_alone(
    learned: tuple[npt.NDArray[Any], IntArray], meta: npt.NDArray[Any], rows: Scored
) -> dict[str, Any] | None:
    """Return the metrics of a multinomial logistic regression that sees no image.

    Args:
        learned: (m, width) the encoded metadata of the rows to learn from, and (m,) their classes.
        meta: (n, width) of the rows to judge.
        rows: those rows.

    Returns:
        The metrics; ``None`` where there are no metadata, or a single class to learn.
    """
    from sklearn.linear_model import LogisticRegression

    known, labels = np.asarray(learned[0], dtype=np.float64), learned[1]
    if known.shape[1] == 0 or len(np.unique(labels)) < 2:
        return None
    model = LogisticRegression(max_iter=1000).fit(known, labels)
    probabilities = np.zeros((len(rows), len(rows.classes)))
    probabilities[:, model.classes_] = model.predict_proba(meta)
    return _figures(rows, probabilities)


def _figures(rows: Scored, probabilities: FloatArray) -> dict[str, float | None]:
    judged = Scored(
        rows.labels, rows.image_id, rows.lesion_id, rows.true, probabilities.argmax(axis=1), probabilities, rows.fold
    )
    found = WeightedMetrics(judged).measure(np.ones((len(rows), 1)))
    return {metric.key: number(float(found[metric.path][0])) for metric in shown("baselines")}


def _own_answer(rows: Scored) -> Target:
    """Return whether the named class is right, scored by its probability: where nobody named malignant classes."""
    return Target(
        "the named class", rows.predicted == rows.true, rows.probabilities[np.arange(len(rows)), rows.predicted]
    )


def _codes(groups: npt.ArrayLike) -> IntArray:
    return check_groups(groups, len(np.asarray(groups)))


def _logistic(
    x: FloatArray, outcome: BoolArray, offset: FloatArray, codes: IntArray
) -> tuple[list[float], list[float]] | None:
    """Fit a logistic regression by Newton's method; return coefficients and standard errors over groups, or None."""
    beta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -30, 30)))
        information = (x * (p * (1 - p))[:, np.newaxis]).T @ x
        try:
            step = np.linalg.solve(information, x.T @ (outcome - p))
        except np.linalg.LinAlgError:
            return None
        beta = beta + step
        if not np.isfinite(beta).all() or np.abs(beta).max() > 100:  # the two sides are separable
            return None
        if np.abs(step).max() < 1e-8:
            break
    else:
        return None
    p = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -30, 30)))
    scores = np.zeros((int(codes.max()) + 1, x.shape[1]))
    np.add.at(scores, codes, x * (outcome - p)[:, np.newaxis])
    bread = np.linalg.inv((x * (p * (1 - p))[:, np.newaxis]).T @ x)
    errors = np.sqrt(np.diag(bread @ (scores.T @ scores) @ bread))
    return beta.tolist(), errors.tolist()
