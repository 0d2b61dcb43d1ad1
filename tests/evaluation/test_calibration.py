"""evaluation/calibration.py and runtime/decision/temperature.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from dermafuse.errors import DataError
from dermafuse.evaluation.calibration import (
    calibration_report,
    ece_if_calibrated,
    equal_mass_bins,
    expected_calibration_error,
    reliability_table,
    wilson_interval,
)
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.labels import HAM10000
from dermafuse.runtime.decision import temperature

CLASSES = HAM10000.codes


def draw(n: int, true_temperature: float, seed: int = 0):
    """Logits whose honest probabilities are softmax(logits / true_temperature), and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n, 7))
    honest = special.softmax(logits / true_temperature, axis=1)
    true = (rng.random(n)[:, None] > honest.cumsum(axis=1)).sum(axis=1).clip(0, 6)
    return logits, true


def test_bins_hold_equal_numbers_and_rise_with_confidence():
    confidence = np.random.default_rng(0).random(1003)
    bins = equal_mass_bins(confidence, 15)
    sizes = np.bincount(bins, minlength=15)
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(bins[np.argsort(confidence)]) >= 0).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 20))
def test_equal_confidences_share_a_bin_whatever_their_order(values, bins):
    confidence = np.array(values) / 5
    numbers = equal_mass_bins(confidence, bins)
    assert ((numbers >= 0) & (numbers < bins)).all()
    for value in set(confidence):
        assert len(set(numbers[confidence == value])) == 1
    backwards = equal_mass_bins(confidence[::-1], bins)[::-1]
    assert np.array_equal(numbers, backwards)


def test_the_reliability_table_agrees_with_scikit_learns_quantile_bins():
    rng = np.random.default_rng(1)
    said = rng.random(1500)
    came = rng.random(1500) < said**2
    table = reliability_table(said, came, bins=10)
    frequency, mean = calibration_curve(came, said, n_bins=10, strategy="quantile")
    assert [row["frequency"] for row in table] == pytest.approx(list(frequency))
    assert [row["confidence"] for row in table] == pytest.approx(list(mean))
    assert sum(row["n"] for row in table) == 1500
    assert all(row["low"] <= row["confidence"] <= row["high"] for row in table)
    gaps = sum(row["n"] * abs(row["frequency"] - row["confidence"]) for row in table) / 1500
    assert expected_calibration_error(said, came, bins=10) == pytest.approx(gaps)


def test_ece_by_hand():
    # Two bins of two: |0.5 - 0.3| and |1 - 0.85|.
    assert expected_calibration_error([0.2, 0.4, 0.8, 0.9], [0, 1, 1, 1], bins=2) == pytest.approx(0.175)
    assert expected_calibration_error([1.0, 1.0, 0.0], [1, 1, 0]) == 0.0
    assert expected_calibration_error([1.0, 1.0], [0, 0]) == 1.0


def test_the_noise_floor_is_the_mean_ece_of_calibrated_models():
    rng = np.random.default_rng(2)
    said = rng.beta(4, 2, 600)
    simulated = [expected_calibration_error(said, rng.random(600) < said) for _ in range(300)]
    assert ece_if_calibrated(said) == pytest.approx(np.mean(simulated), rel=0.05)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (400, 1000)])
def test_wilson_intervals_agree_with_scipy(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits, n) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_the_report_agrees_with_the_metrics_block_and_is_clean_json():
    logits, true = draw(700, 2.0)
    p = special.softmax(logits, axis=1)
    report = calibration_report(true, p, CLASSES)
    json.dumps(report, allow_nan=False)
    block = evaluate_predictions(true, p, CLASSES)
    for name in ("n", "nll", "brier", "ece", "classwise_ece", "overconfidence"):
        assert report[name] == pytest.approx(block[name]), name
    for code in CLASSES:
        assert report["per_class"][code]["ece"] == pytest.approx(block["per_class"][code]["ece"])
    assert report["overconfidence"] > 0.05  # the logits were drawn twice too sharp
    json.dumps(calibration_report([6], np.full((1, 7), 1 / 7), CLASSES), allow_nan=False)


@pytest.mark.parametrize("known", [0.6, 1.0, 2.5])
def test_a_known_temperature_is_recovered(known):
    logits, true = draw(20_000, known)
    assert temperature.fit_temperature(logits, true) == pytest.approx(known, rel=0.04)


def test_the_fitted_temperature_minimises_the_log_loss():
    logits, true = draw(500, 1.7, seed=3)
    best = temperature.fit_temperature(logits, true)
    at_best = log_loss(true, temperature.apply(logits, best), labels=range(7))
    for factor in (0.5, 0.97, 1.03, 2.0):
        assert at_best < log_loss(true, temperature.apply(logits, best * factor), labels=range(7))


def test_scaling_lowers_nll_and_ece_on_fresh_rows_and_keeps_the_ranking():
    fitted = temperature.fit_temperature(*draw(2000, 2.0, seed=4))
    logits, true = draw(2000, 2.0, seed=5)
    before = evaluate_predictions(true, temperature.apply(logits, 1.0), CLASSES)
    after = evaluate_predictions(true, temperature.apply(logits, fitted), CLASSES)
    assert after["nll"] < before["nll"]
    assert after["ece"] < before["ece"] / 2
    assert after["accuracy"] == before["accuracy"]
    assert after["confusion_matrix"] == before["confusion_matrix"]


def test_log_probabilities_serve_as_logits():
    logits, true = draw(400, 1.5)
    from_logits = temperature.fit_temperature(logits, true)
    assert temperature.fit_temperature(special.log_softmax(logits, axis=1), true) == pytest.approx(from_logits)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_apply_is_the_softmax_of_the_scaled_logits(seed, t):
    logits = np.random.default_rng(seed).normal(scale=20, size=(5, 7))
    assert np.allclose(temperature.apply(logits, t), special.softmax(logits / t, axis=1), atol=1e-15)
    assert np.allclose(temperature.apply(logits[0], t), special.softmax(logits[0] / t), atol=1e-15)


def test_enormous_logits_overflow_nowhere():
    with np.errstate(all="raise", under="ignore"):
        p = temperature.apply(np.array([[1e300, -1e300, 0.0], [1e4, 1e4, -1e4]], dtype=np.float64), 0.5)
        assert np.array_equal(p, [[1, 0, 0], [0.5, 0.5, 0]])
        temperature.fit_temperature(np.array([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]]), np.array([0, 1, 1]))


def test_float32_logits_give_float64_probabilities_that_sum_to_one():
    p = temperature.apply(np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32), 1.3)
    assert p.dtype == np.float64
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-12


def test_rows_without_a_best_temperature_stop_at_the_documented_limit():
    logits = np.eye(7) * 5
    assert temperature.fit_temperature(logits, np.arange(7)) == temperature.LIMITS[0]


def test_unusable_input_is_refused():
    logits, true = draw(10, 1.0)
    with pytest.raises(DataError, match="positive number"):
        temperature.apply(logits, 0.0)
    with pytest.raises(DataError, match="NaN or infinity"):
        temperature.apply(np.full((2, 7), np.nan), 1.0)
    with pytest.raises(DataError, match="do not fit"):
        temperature.fit_temperature(logits, true[:3])
    with pytest.raises(DataError, match=r"expected 0\.\.6"):
        temperature.fit_temperature(logits, np.full(10, 7))
    with pytest.raises(DataError, match="at least one row"):
        temperature.fit_temperature(np.empty((0, 7)), np.empty(0, dtype=int))
    with pytest.raises(DataError, match="at least 2 classes"):
        temperature.apply([[1.0]], 1.0)
    with pytest.raises(DataError, match="equally long"):
        expected_calibration_error([0.1, 0.2], [1])
    with pytest.raises(DataError, match="at least 1"):
        equal_mass_bins([0.1], 0)
