"""What early stopping can watch."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from dermafuse.training.loop.monitors import monitor_values


def sample(n: int = 400, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(n, classes)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(classes, p=row) for row in chances])
    return labels, logits.astype(np.float32)


def test_the_loss_is_the_log_loss_of_the_softmax() -> None:
    labels, logits = sample()
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert monitor_values(labels, logits)["loss"] == pytest.approx(log_loss(labels, chances, labels=range(5)), rel=1e-5)
