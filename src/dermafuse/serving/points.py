"""Operating points: how the model was judged, what it learned from, and what a threshold means for one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dermafuse.evaluation.operating_points import ppv_at_prevalence
from dermafuse.runtime.bundle.evaluation import trained_on
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.prediction import Prediction
from dermafuse.serving.limits import Problem

#: What of a block of judged rows is too long, or of no use to whoever asks the model.
_LEFT_OUT: Final = frozenset(
    {"subgroups", "operating_points", "net_benefit", "calibration_line", "missed", "baselines"}
)


def judged(bundle: Bundle) -> dict[str, Any]:
    """Return how a model was judged, as far as its bundle says it, in plain JSON values.

    Returns:
        ``metrics`` (the block of the judged rows, with ``ci95``, and ``split``), ``operating_points`` (as in
        metrics.json, each with its ``name``) and ``trained_on`` (numbers of images and lesions by role, ``data``,
        ``recipe``); ``None`` and ``[]`` where the bundle does not say it.
    """
    told = bundle.evaluation
    if told is None:
        return {"metrics": bundle.info.get("metrics"), "operating_points": [], "trained_on": None}
    split = "test" if isinstance(told.get("test"), Mapping) else "validation"
    block = told[split]
    counts = {
        role: {"images": len(hashes.files), "lesions": len(hashes.lesions)} for role, hashes in trained_on(told).items()
    }
    return {
        "metrics": {"split": split} | {name: value for name, value in block.items() if name not in _LEFT_OUT},
        "operating_points": [{"name": _name(point), **point} for point in block.get("operating_points") or ()],
        "trained_on": {"recipe": told.get("recipe"), "data": told.get("data"), "roles": counts},
    }


def _name(point: Mapping[str, Any]) -> str:
    return f"{point['target']}-{point['rule']}-{point['level']:.2f}"


def decide(points: list[dict[str, Any]], name: str, prevalence: float | None, said: Prediction) -> dict[str, Any]:
    """Return what one operating point says of one prediction.

    Args:
        points: of `judged`.
        name: of the point.
        prevalence: share of lesions that are positive where the model is used, 0..1; ``None``: as where it was judged.
        said: of the image.

    Returns:
        The point's name, target, threshold, sensitivity and specificity with ``ci95``, ``score``, ``flagged``,
        ``prevalence``, and ``ppv``: of flagged lesions the share that are truly positive there.

    Raises:
        Problem: 422, there is no such point.
    """
    usable = {point["name"]: point for point in points if point["threshold"] is not None}
    if name not in usable:
        there = f"there are {', '.join(usable)}" if usable else "the model's bundle holds none"
        raise Problem(422, f"There is no such operating point; {there}.")
    point = usable[name]
    score = said.probabilities.get(point["target"], said.malignant_probability)
    share = point["positives"] / point["n"] if prevalence is None else prevalence
    kept = ("name", "target", "rule", "level", "threshold", "sensitivity", "specificity", "n", "positives")
    return {
        **{key: point[key] for key in kept},
        "ci95": {key: point["ci95"].get(key) for key in ("sensitivity", "specificity")},
        "score": score,
        "flagged": score is not None and score >= point["threshold"],
        "prevalence": share,
        "ppv": ppv_at_prevalence(point["sensitivity"], point["specificity"], share),
    }


def stability(views: list[Prediction]) -> dict[str, Any]:
    """Return how much an answer depends on which way up the image was taken: the spread over its flips and turns."""
    first = views[0]
    spread = {
        code: [min(view.probabilities[code] for view in views), max(view.probabilities[code] for view in views)]
        for code in first.probabilities
    }
    chances = [view.malignant_probability for view in views if view.malignant_probability is not None]
    return {
        "views": len(views),
        "same_label": sum(view.label == first.label for view in views),
        "labels": {code: sum(view.label == code for view in views) for code in {view.label for view in views}},
        "probabilities": spread,
        "malignant_probability": [min(chances), max(chances)] if chances else None,
    }
