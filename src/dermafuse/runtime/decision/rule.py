"""From a network's logits and embedding to what is said of an image: label, prediction set, out-of-distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dermafuse.runtime.bundle.schema import OutOfDistribution, PredictionSets

Floats = npt.NDArray[np.float64]


def choose_label(probabilities: Floats, offsets: Sequence[float] | None) -> int:
    """Return the position of the chosen class: the largest ``log p + offset`` (the largest p without offsets).

    Args:
        probabilities: (k,), 0..1.
        offsets: (k,) decision offsets in log probability, or ``None``.
    """
    if offsets is None:
        return int(np.argmax(probabilities))
    with np.errstate(divide="ignore"):
        return int(np.argmax(np.log(probabilities) + np.asarray(offsets)))


def prediction_set(probabilities: Floats, rule: PredictionSets) -> tuple[int, ...]:
    """Return the positions of the classes that reach their own minimum probability, the most probable first.

    The set may be empty: then no class looks like its own training examples.
    """
    inside = np.flatnonzero(probabilities >= np.asarray(rule.minimum_probability))
    return tuple(int(position) for position in inside[np.argsort(-probabilities[inside], kind="stable")])


def strangeness(
    rule: OutOfDistribution,
    logits: npt.NDArray[Any],
    embedding: npt.NDArray[Any],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> float:
    """Return how unlike the training images an image is; larger is stranger. Sources: see `OutOfDistribution`.

    Args:
        rule: method and its settings.
        logits: (k,).
        embedding: (c,).
        arrays: ``ood/means`` (m, c) and ``ood/whitening`` (c, r) for ``mahalanobis``; ``ood/bank`` (n, c),
            rows of length 1, for ``knn``.
    """
    if rule.method == "energy":
        scores = np.asarray(logits, dtype=np.float64)
        top = scores.max()
        return float(-(top + np.log(np.exp(scores - top).sum())))
    vector = np.asarray(embedding, dtype=np.float32)
    if rule.method == "mahalanobis":
        apart = (vector - arrays["ood/means"]) @ arrays["ood/whitening"]
        return float(np.square(apart, dtype=np.float64).sum(axis=1).min())
    bank = arrays["ood/bank"]
    vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    squared = np.square(bank - vector, dtype=np.float64).sum(axis=1)
    nearest = min(rule.neighbours, len(bank)) - 1
    return float(np.sqrt(np.partition(squared, nearest)[nearest]))
