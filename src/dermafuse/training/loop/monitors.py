"""The figures that early stopping can watch, computed from logits after every epoch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

from dermafuse.evaluation.metric_table import METRICS

#: Of what may be watched, ``last`` (the number of the epoch) and those metrics of which more is better.
BETTER_IF_LARGER: Final = frozenset({"last", *(metric.key for metric in METRICS if metric.larger_is_better)})


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
