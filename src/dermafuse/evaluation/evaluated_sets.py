"""How prediction sets and out-of-distribution flags did on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dermafuse.evaluation.calibration import wilson_interval
from dermafuse.evaluation.predictions import BoolArray, Scored, check_groups
from dermafuse.evaluation.resampling import count_groups, interval, resampled_weights
from dermafuse.runtime.prediction import Prediction


def set_block(rows: Scored, predictions: Sequence[Prediction], target: float, *, seed: int = 0) -> dict[str, Any]:
    """Return how often the prediction sets held the true class.

    Args:
        rows: n labelled rows.
        predictions: of the same rows, with prediction sets.
        target: the coverage that the sets were made for, 0..1.
        seed: of the bootstrap over lesions.

    Returns:
        ``target``, ``coverage``, ``mean_size``, ``single_share`` and ``empty_share``, ``ci95`` of the
        coverage by bootstrap over lesions, and ``per_class`` {code: {n, coverage, mean_size, ci95}} (Wilson over
        images, as lesions of one class are mostly single images); ``None`` where a class has no rows.
    """
    sets = [prediction.prediction_set or () for prediction in predictions]
    held: BoolArray = np.array([rows.classes[true] in own for true, own in zip(rows.true, sets, strict=True)])
    sizes = np.array([len(own) for own in sets])
    codes = check_groups(rows.lesion_id, len(rows))
    chunks = [held.astype(np.float64) @ w / w.sum(axis=0) for w in resampled_weights(codes, 2000, seed)]
    everything = np.ones(len(rows), dtype=np.bool_)
    per_class = {}
    for position, code in enumerate(rows.classes):
        own = held[rows.true == position]
        per_class[code] = {
            "n": len(own),
            "coverage": float(own.mean()) if len(own) else None,
            "mean_size": float(sizes[rows.true == position].mean()) if len(own) else None,
            "ci95": wilson_interval(float(own.sum()), len(own)) if len(own) else None,
        }
    return {
        "target": target,
        "coverage": float(held.mean()),
        "ci95": interval(np.concatenate(chunks), float(held.mean()), trials=count_groups(codes, everything)),
        "mean_size": float(sizes.mean()),
        "single_share": float((sizes == 1).mean()),
        "empty_share": float((sizes == 0).mean()),
        "per_class": per_class,
    }


def flag_block(predictions: Sequence[Prediction], method: str) -> dict[str, Any]:
    """Return how many images were flagged as unlike the training images: ``method``, ``flagged``, ``share``."""
    flags = [bool(prediction.out_of_distribution) for prediction in predictions]
    return {"method": method, "flagged": sum(flags), "share": sum(flags) / len(flags)}
