"""How the model's scores become a decision: class priors corrected, and offsets that weigh rare classes more."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.decision.temperature import apply, fit_temperature

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


def fit_offsets(probabilities: NDArray[np.float64], priors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return decision offsets ``-tau log(prior)``, tau in 0..1 the best of 21 for these rows.

    Dividing posteriors by class priors aims at balanced accuracy (Menon et al. 2021, "Long-tail learning via logit
    adjustment", post-hoc form); not dividing, at accuracy. What is maximised is the mean of accuracy, balanced
    accuracy and macro F1, which pull apart. All are expectations under the calibrated probabilities, not
    counts of labels: the rarest classes have about ten tuning images, and a single one of them would move the counts
    by a tenth (measured: the same figures on other rows, with less scatter). One number is fitted, not one a class:
    seven fared worse.

    Args:
        probabilities: float64 (n, k), calibrated, of held-out rows.
        priors: float64 (k,), share of each class among the training rows.
    """
    direction = -_log_priors(priors, len(probabilities))
    scores = [
        expected_score(probabilities, choose_labels(probabilities, strength * direction)) for strength in _STRENGTHS
    ]
    return np.asarray(_STRENGTHS[int(np.argmax(scores))] * direction, dtype=np.float64)


def expected_score(probabilities: NDArray[np.float64], decided: NDArray[np.int64]) -> float:
    """Return the mean of accuracy, balanced accuracy and macro F1 that calibrated probabilities let expect.

    Args:
        probabilities: float64 (n, k).
        decided: int64 (n,), whose expected figures are wanted.
    """
    chosen = np.eye(probabilities.shape[1])[decided]
    right = (chosen * probabilities).sum(axis=0)  # expected true positives of each class
    present = probabilities.sum(axis=0)
    recall = right / np.maximum(present, 1e-12)
    f1 = 2.0 * right / np.maximum(present + chosen.sum(axis=0), 1e-12)
    return float(right.sum() / len(decided) + recall.mean() + f1.mean()) / 3.0
