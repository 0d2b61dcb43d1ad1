"""The decision rule: fitted on tuning rows, one strength for all classes."""

import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score

from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.training.decision_rule import expected_score, fit_offsets, fit_shift


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
    probabilities, _, priors = imbalanced(0)
    offsets = fit_offsets(probabilities, priors)
    others, truth, _ = imbalanced(1)
    plain = balanced_accuracy_score(truth, choose_labels(others, None))
    assert balanced_accuracy_score(truth, choose_labels(others, offsets)) > plain + 0.1


def test_rows_that_are_balanced_and_certain_need_no_offsets() -> None:
    labels = np.arange(90) % 3
    probabilities = np.full((90, 3), 0.005)
    probabilities[np.arange(90), labels] = 0.99
    assert (choose_labels(probabilities, fit_offsets(probabilities, np.full(3, 1 / 3))) == labels).all()


def test_one_record_is_decided_as_row_0_of_a_table() -> None:
    probabilities, _, priors = imbalanced(2, rows=200)
    probabilities[0] = [1.0, 0.0, 0.0]
    for offsets in (fit_offsets(probabilities, priors), None):
        table = choose_labels(probabilities, offsets)
        assert [choose_labels(row[None], offsets)[0] for row in probabilities] == table.tolist()
    assert (choose_labels(probabilities, [0.0, 0.0, 5.0]) != choose_labels(probabilities, None)).any()


def test_the_shift_undoes_what_weighting_by_the_class_did() -> None:
    probabilities, labels, priors = imbalanced(3, rows=6000)
    weighted = (np.log(probabilities) - 0.5 * np.log(priors)).astype(np.float32)
    shift = fit_shift(weighted, labels, priors)
    expected = 0.5 * (np.log(priors) - np.log(priors).mean())
    np.testing.assert_allclose(shift, expected, atol=0.11 * np.abs(expected).max())


def test_a_model_that_saw_the_classes_as_they_occur_is_hardly_shifted() -> None:
    probabilities, labels, priors = imbalanced(4, rows=6000)
    assert np.abs(fit_shift(np.log(probabilities).astype(np.float32), labels, priors)).max() < 0.3


def test_a_class_without_rows_keeps_the_shift_finite() -> None:
    probabilities, labels, _ = imbalanced(5, rows=100)
    assert np.isfinite(fit_shift(np.log(probabilities).astype(np.float32), labels, np.array([0.9, 0.1, 0.0]))).all()


def test_the_expected_score_of_exact_posteriors_is_the_score_of_the_labels() -> None:
    probabilities, labels, _ = imbalanced(6, rows=40_000)
    decided = choose_labels(probabilities, np.array([0.0, 0.6, 1.2]))
    counted = (
        (labels == decided).mean()
        + balanced_accuracy_score(labels, decided)
        + f1_score(labels, decided, average="macro")
    ) / 3
    assert abs(expected_score(probabilities, decided) - counted) < 0.01
