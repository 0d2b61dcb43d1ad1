"""How the model's scores become a decision: class priors corrected, and offsets that weigh rare classes more."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from dermafuse.runtime.temperature import apply, fit_temperature

#: Strengths of the offsets that are tried.
_STRENGTHS: Final = np.linspace(0.0, 1.0, 21)

#: Strengths of the shift that are tried; 0 where training saw the classes as they occur.
_SHIFTS: Final = np.linspace(-0.25, 1.25, 31)


def fit_shift(
    logits: NDArray[np.float32], labels: NDArray[np.int64], priors: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return what to add to the logits so that the classes come as often as they occur: ``s log(prior)``.

    Class weights and sampling make rare classes look more frequent than they are, by about a power of their prior
    (Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori probabilities"). Of 31 strengths
    -0.25..1.25 the one with the smallest log loss on held-out rows, each with its best temperature.

    Args:
        logits: float32 (n, k) of held-out rows.
        labels: int64 (n,).
        priors: float64 (k,), share of each class among the training rows.

    Returns:
        float32 (k,), of mean 0.
    """
    direction = _log_priors(priors, len(labels))
    losses = []
    for strength in _SHIFTS:
        moved = logits + strength * direction
        losses.append(log_loss(labels, apply(moved, fit_temperature(moved, labels)), labels=range(len(priors))))
    return np.asarray(_SHIFTS[int(np.argmin(losses))] * direction, dtype=np.float32)


def _log_priors(priors: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Return the logarithms of the priors with mean 0; a class that was never seen counts as seen once."""
    logs = np.log(np.maximum(priors, 1.0 / max(rows, 1)))
    return np.asarray(logs - logs.mean(), dtype=np.float64)


def decide(probabilities: NDArray[np.float64], offsets: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """Return the decision of each row, int64 (n,): the largest ``log p + offset``."""
    scores = probabilities
    if offsets is not None:
        # The floor keeps log finite and lies far below any probability that float32 logits give.
        scores = np.log(np.maximum(probabilities, 1e-300)) + offsets
    chosen: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
    return chosen


def fit_offsets(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], priors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return decision offsets ``-tau log(prior)``, tau in 0..1 the best of 21 for these rows.

    Dividing posteriors by class priors aims at balanced accuracy (Menon et al. 2021, "Long-tail learning via logit
    adjustment", post-hoc form); not dividing, at accuracy. One number is fitted, not one a class: the rarest classes
    have about ten tuning lesions. What is maximised is the mean of balanced accuracy and macro F1, which pull apart.

    Args:
        probabilities: float64 (n, k) of held-out rows.
        labels: int64 (n,).
        priors: float64 (k,), share of each class among the training rows.
    """
    direction = -_log_priors(priors, len(labels))
    scores = []
    for strength in _STRENGTHS:
        chosen = decide(probabilities, strength * direction)
        scores.append(
            balanced_accuracy_score(labels, chosen) / 2
            + f1_score(labels, chosen, average="macro", zero_division=0.0) / 2
        )
    # Neighbours are averaged: with few rows the best single value is often luck.
    padded = np.pad(scores, 2, mode="edge")
    smooth = np.convolve(padded, np.full(5, 0.2), mode="valid")
    return np.asarray(_STRENGTHS[int(smooth.argmax())] * direction, dtype=np.float64)
