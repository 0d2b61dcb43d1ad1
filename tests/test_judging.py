"""The decision rule: fitted on tuning rows, one strength for all classes."""

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from dermafuse.runtime.decision import choose_label
from dermafuse.training.judging import decide, fit_offsets


def imbalanced(seed: int, rows: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact posteriors of three overlapping Gaussian classes, 90, 8 and 2 % of the rows."""
    generator = np.random.default_rng(seed)
    priors = np.array([0.9, 0.08, 0.02])
    labels = generator.choice(3, size=rows, p=priors)
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    points = centres[labels] + generator.normal(size=(rows, 2))
    likelihood = np.exp(-((points[:, None] - centres) ** 2).sum(axis=2) / 2) * priors
    return likelihood / likelihood.sum(axis=1, keepdims=True), labels, priors


def test_offsets_fitted_on_some_rows_raise_balanced_accuracy_on_others() -> None:
    probabilities, labels, priors = imbalanced(0)
    offsets = fit_offsets(probabilities, labels, priors)
    others, truth, _ = imbalanced(1)
    plain = balanced_accuracy_score(truth, decide(others, None))
    assert balanced_accuracy_score(truth, decide(others, offsets)) > plain + 0.1


def test_rows_that_are_balanced_and_certain_need_no_offsets() -> None:
    labels = np.arange(90) % 3
    probabilities = np.full((90, 3), 0.005)
    probabilities[np.arange(90), labels] = 0.99
    assert (decide(probabilities, fit_offsets(probabilities, labels, np.full(3, 1 / 3))) == labels).all()


def test_training_decides_as_the_bundle_does() -> None:
    probabilities, labels, priors = imbalanced(2, rows=200)
    offsets = fit_offsets(probabilities, labels, priors)
    assert decide(probabilities, offsets).tolist() == [choose_label(row, offsets.tolist()) for row in probabilities]
    assert decide(probabilities, None).tolist() == [choose_label(row, None) for row in probabilities]
