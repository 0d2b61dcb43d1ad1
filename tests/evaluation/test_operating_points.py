"""evaluation/operating_points.py: thresholds chosen on one set of rows and judged on another."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score

from dermafuse.errors import DataError
from dermafuse.evaluation.operating_points import (
    apply_threshold,
    operating_points,
    ppv_at_prevalence,
    threshold_at_sensitivity,
    threshold_at_specificity,
)
from dermafuse.labels import HAM10000

CLASSES = HAM10000.codes


def binary(seed: int, n: int, levels: int):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[:2] = True, False
    return positive, np.round((rng.random(n) + 0.5 * positive) * levels) / levels


pairs = st.builds(binary, st.integers(0, 2**32 - 1), st.integers(5, 150), st.sampled_from([3, 10, 10**6]))


def rates(positive, score, threshold):
    flag = score >= threshold
    return flag[positive].mean(), (~flag[~positive]).mean()


@given(pairs, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
@settings(max_examples=80, deadline=None)
def test_the_sensitivity_threshold_is_the_highest_that_reaches_its_level(pair, level):
    positive, score = pair
    threshold = threshold_at_sensitivity(positive, score, level)
    assert rates(positive, score, threshold)[0] >= level - 1e-12
    assert rates(positive, score, np.nextafter(threshold, np.inf))[0] < level


@given(pairs, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
@settings(max_examples=80, deadline=None)
def test_the_specificity_threshold_is_the_lowest_score_that_reaches_its_level(pair, level):
    positive, score = pair
    threshold = threshold_at_specificity(positive, score, level)
    assert rates(positive, score, threshold)[1] >= level - 1e-12
    lower = score[score < threshold]
    if len(lower):
        assert rates(positive, score, lower.max())[1] < level


def test_rounding_does_not_ask_for_one_positive_more():
    score = np.arange(200) / 200
    positive = np.arange(200) >= 100
    assert 0.55 * 100 > 55  # 55.00000000000001
    assert threshold_at_sensitivity(positive, score, 0.55) == 145 / 200
    assert threshold_at_sensitivity(positive, score, 0.9) == 110 / 200


@given(pairs, st.floats(0, 1.5))
@settings(max_examples=60, deadline=None)
def test_a_judged_threshold_agrees_with_scikit_learn(pair, threshold):
    positive, score = pair
    found = apply_threshold(positive, score, threshold, replicates=40)
    flag = score >= threshold
    expected = {
        "flagged": flag.mean(),
        "sensitivity": recall_score(positive, flag),
        "specificity": recall_score(~positive, ~flag),
        "ppv": precision_score(positive, flag, zero_division=np.nan),
        "npv": precision_score(~positive, ~flag, zero_division=np.nan),
    }
    for name, value in expected.items():
        assert found[name] == (None if np.isnan(value) else pytest.approx(value)), name
    caught = (flag & positive).sum()
    assert found["number_needed_to_biopsy"] == (pytest.approx(flag.sum() / caught) if caught else None)
    assert (found["n"], found["positives"]) == (len(score), positive.sum())
    json.dumps(found, allow_nan=False)


def test_intervals_of_a_judged_threshold_resample_lesions():
    positive, score = binary(0, 400, 10**6)
    once = apply_threshold(positive, score, 0.8, replicates=300)["ci95"]
    copied = np.tile(positive, 3), np.tile(score, 3), 0.8, np.tile(np.arange(400), 3)
    thrice = apply_threshold(*copied, replicates=300)["ci95"]
    for name, pair in once.items():
        assert thrice[name] == pytest.approx(pair), name
        assert pair[0] < pair[1]


def rows(n: int, seed: int):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 7, n)
    logits = rng.normal(size=(n, 7))
    logits[np.arange(n), true] += 2
    p = np.exp(logits)
    return true, p / p.sum(axis=1, keepdims=True)


def test_points_are_chosen_on_the_first_rows_and_judged_on_the_second():
    chosen, reported = rows(800, 0), rows(600, 1)
    points = operating_points(*chosen, *reported, None, CLASSES, replicates=100)
    json.dumps(points, allow_nan=False)
    assert [(p["target"], p["rule"], p["level"]) for p in points] == [
        (target, rule, level)
        for target in ("mel", "malignant")
        for rule, level in (("sensitivity", 0.90), ("sensitivity", 0.95), ("specificity", 0.90))
    ]
    mel = CLASSES.index("mel")
    for point in points[:3]:
        threshold = point["threshold"]
        on_chosen = rates(chosen[0] == mel, chosen[1][:, mel], threshold)
        on_reported = rates(reported[0] == mel, reported[1][:, mel], threshold)
        assert on_chosen == pytest.approx((point["chosen_on"]["sensitivity"], point["chosen_on"]["specificity"]))
        assert on_reported == pytest.approx((point["sensitivity"], point["specificity"]))
        assert point["chosen_on"][point["rule"]] >= point["level"]
        assert (point["chosen_on"]["n"], point["n"]) == (800, 600)
    # The rows that are reported have no say: other labels there leave the thresholds as they are.
    other = operating_points(*chosen, reported[0][::-1], reported[1], None, CLASSES, replicates=100)
    assert [p["threshold"] for p in other] == [p["threshold"] for p in points]


def test_choosing_on_the_reported_rows_is_refused():
    true, p = rows(50, 0)
    with pytest.raises(DataError, match="rows that are reported"):
        operating_points(true, p, true, p, None, CLASSES)


def test_rows_without_melanoma_leave_its_thresholds_open():
    true, p = rows(60, 0)
    no_melanoma = np.where(true == CLASSES.index("mel"), CLASSES.index("nv"), true)
    points = operating_points(no_melanoma, p, *rows(60, 1), None, CLASSES, replicates=40)
    assert points[0]["threshold"] is None
    assert points[0]["sensitivity"] is None
    assert points[0].keys() == points[3].keys()
    assert points[0]["ci95"].keys() == points[3]["ci95"].keys()
    assert points[3]["threshold"] is not None
    json.dumps(points, allow_nan=False)


def test_ppv_falls_with_prevalence_by_bayes_rule():
    assert ppv_at_prevalence(0.9, 0.8, 0.5) == pytest.approx(0.45 / 0.55)
    assert ppv_at_prevalence(0.9, 0.8, 0.01) == pytest.approx(0.009 / (0.009 + 0.198))
    assert ppv_at_prevalence(0.0, 1.0, 0.5) is None
    with pytest.raises(DataError, match="prevalence"):
        ppv_at_prevalence(0.9, 0.8, 1.5)


def test_unusable_input_is_refused():
    positive, score = binary(0, 20, 10)
    with pytest.raises(DataError, match="No positive row"):
        threshold_at_sensitivity(np.zeros(20, dtype=bool), score, 0.9)
    with pytest.raises(DataError, match="No negative row"):
        threshold_at_specificity(np.ones(20, dtype=bool), score, 0.9)
    with pytest.raises(DataError, match="above 0 and at most 1"):
        threshold_at_sensitivity(positive, score, 90)
    with pytest.raises(DataError, match="of bool"):
        threshold_at_sensitivity(positive.astype(int), score, 0.9)
    with pytest.raises(DataError, match="NaN"):
        apply_threshold(positive, np.full(20, np.nan), 0.5)
