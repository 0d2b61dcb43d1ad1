"""The figures that early stopping can watch, computed from logits after every epoch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

#: Of the figures below, and ``last`` (the number of the epoch), those of which more is better.
BETTER_IF_LARGER: Final = frozenset({"accuracy", "macro_f1", "balanced_accuracy", "last"})


def monitor_values(labels: NDArray[np.int64], logits: NDArray[np.floating]) -> dict[str, float]:
    """Return loss (mean negative log-likelihood, nats), accuracy, macro F1 and balanced accuracy.

    Args:
        labels: int64 (n,).
        logits: (n, classes), before softmax.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    predicted = logits.argmax(axis=1)
    return {
        "loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
    }
