"""What early stopping can watch."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from dermafuse.training.monitors import monitor_values


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


def test_the_calibrated_loss_forgives_overconfidence_and_nothing_else() -> None:
    labels, logits = sample()
    right, loud = monitor_values(labels, logits), monitor_values(labels, 3 * logits)
    assert loud["loss"] > 1.2 * right["loss"]
    assert loud["calibrated_loss"] == pytest.approx(right["calibrated_loss"], rel=1e-3)
    assert right["calibrated_loss"] <= right["loss"] + 1e-9
    noise = logits + np.random.default_rng(0).normal(size=logits.shape).astype(np.float32) * 2
    assert monitor_values(labels, noise)["calibrated_loss"] > right["calibrated_loss"] + 0.05


def test_logits_that_are_no_numbers_are_never_the_best() -> None:
    labels, logits = sample()
    logits[0, 0] = np.nan
    assert monitor_values(labels, logits)["calibrated_loss"] == np.inf
