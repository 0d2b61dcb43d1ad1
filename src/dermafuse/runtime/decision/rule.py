"""What is decided of calibrated probabilities, once for fitting, evaluation and serving: one image is row 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dermafuse.runtime.bundle.schema import PredictionSets
from dermafuse.runtime.decision.conformal import apply_prediction_sets

#: Keeps logarithms finite; far below any probability that float32 logits give.
_FLOOR = 1e-300


def choose_labels(probabilities: npt.ArrayLike, offsets: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """Return the position of each row's class, (n,): the largest ``log p + offset`` (the largest p without offsets).

    Args:
        probabilities: (n, k), 0..1.
        offsets: (k,) decision offsets in log probability, or ``None``.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    if offsets is not None:
        scores = np.log(np.maximum(scores, _FLOOR)) + np.asarray(offsets, dtype=np.float64)
    chosen: npt.NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64)
    return chosen


def ranked_sets(probabilities: npt.ArrayLike, rule: PredictionSets) -> list[tuple[int, ...]]:
    """Return the positions of the classes in each row's set (`apply_prediction_sets`), the most probable first."""
    p = np.asarray(probabilities, dtype=np.float64)
    order: Sequence[Sequence[int]] = np.argsort(-p, axis=1, kind="stable").tolist()
    inside = apply_prediction_sets(p, rule)
    return [tuple(c for c in ranks if row[c]) for ranks, row in zip(order, inside, strict=True)]
