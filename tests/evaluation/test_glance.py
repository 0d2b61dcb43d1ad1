"""What people ask first: missed ones, net benefit, the calibration line, and what costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from dermafuse import versions
from dermafuse.evaluation.glance import calibration_line, first_alarm, majority, metadata_alone, missed, net_benefit
from dermafuse.evaluation.predictions import Scored, Target
from dermafuse.labels import LabelSet

LABELS = LabelSet.of(("mole", "wart", "cancer", "burn"), malignant={"cancer", "burn"}, critical="cancer")


def rows_of(true: list[int], called: list[int], labels: LabelSet = LABELS) -> Scored:
    n, k = len(true), len(labels)
    names = np.array([f"i{number}" for number in range(n)], dtype=object)
    probabilities = np.full((n, k), 0.1 / (k - 1))
    probabilities[np.arange(n), called] = 0.9
    return Scored(labels, names, names, np.array(true), np.array(called), probabilities, np.zeros(n, np.int64))


def test_missed_ones_are_counted_by_the_decision() -> None:
    rows = rows_of([2, 2, 2, 2, 3, 3, 0, 1], [2, 3, 0, 1, 0, 2, 2, 1])
    assert missed(rows) == {
        "critical": {"name": "cancer", "support": 4, "missed": 3, "called_benign": 2},
        "malignant": {"support": 6, "called_benign": 3},
    }
    assert missed(rows_of([0, 1], [1, 1])) == {}  # no such image
    assert missed(rows_of([0, 1], [1, 1], LabelSet.of(("a", "b")))) == {}  # no such class


def test_net_benefit_weighs_false_alarms_by_the_odds_of_the_threshold() -> None:
    positive = np.array([True] * 3 + [False] * 7)
    score = np.array([0.9, 0.3, 0.1, 0.9, 0.25, 0.1, 0.1, 0.1, 0.1, 0.1])
    found = net_benefit(Target("x", positive, score), np.arange(10), threshold=0.2, replicates=50)
    assert found is not None
    assert found["model"] == pytest.approx((2 - 2 * 0.25) / 10)
    assert found["all"] == pytest.approx((3 - 7 * 0.25) / 10)
    assert found["ci95"]["model"][0] <= found["model"] <= found["ci95"]["model"][1]
    assert net_benefit(Target("x", positive[:3], score[:3]), np.arange(3)) is None


def test_the_calibration_line_is_that_of_a_logistic_regression_and_wider_where_lesions_repeat() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 600)
    logit = np.log(p / (1 - p))
    outcome = rng.random(600) < 1 / (1 + np.exp(-(0.5 * logit - 0.4)))
    found = calibration_line(Target("x", outcome, p), np.arange(600))
    assert found is not None
    fitted = LogisticRegression(C=1e9, max_iter=1000).fit(logit[:, np.newaxis], outcome)
    assert found["slope"] == pytest.approx(float(fitted.coef_[0, 0]), abs=1e-3)
    # The intercept of slope 1 makes the mean probability the share of the outcome.
    assert (1 / (1 + np.exp(-(logit + found["intercept"])))).mean() == pytest.approx(outcome.mean(), abs=1e-6)
    assert found["ci95"]["slope"][0] < 0.5 < found["ci95"]["slope"][1] < 1
    twice = np.tile(np.arange(600), 2)
    doubled = calibration_line(Target("x", np.tile(outcome, 2), np.tile(p, 2)), twice)
    assert doubled is not None
    assert doubled["ci95"]["slope"] == pytest.approx(found["ci95"]["slope"], abs=1e-6)
    assert calibration_line(Target("x", p > 0.5, p), np.arange(600)) is None  # separable: no finite line


def test_baselines_are_judged_as_the_model_is() -> None:
    rng = np.random.default_rng(1)
    true = rng.choice(4, 400, p=[0.6, 0.2, 0.1, 0.1])
    rows = rows_of(true.tolist(), true.tolist())
    always = majority(rows)
    assert always["class"] == "mole"
    assert always["accuracy"] == pytest.approx((true == 0).mean())
    assert always["balanced_accuracy"] == pytest.approx(0.25)
    assert always["macro_auroc"] == pytest.approx(0.5)
    meta = np.eye(4)[true][:, :3] + rng.normal(0, 0.1, (400, 3))
    learned = metadata_alone((meta, true), meta, rows)
    assert learned is not None
    assert learned["accuracy"] > 0.95
    part = metadata_alone((meta[true < 2], true[true < 2]), meta, rows)  # two classes were never seen
    assert part is not None
    assert part["accuracy"] < 0.85
    assert metadata_alone((meta[:, :0], true), meta[:, :0], rows) is None


def test_the_alarm_named_first_is_that_of_the_malignant_classes() -> None:
    points = [{"target": t, "threshold": h} for t, h in (("cancer", 0.1), ("malignant", None), ("malignant", 0.3))]
    assert first_alarm({"operating_points": points}) == (2, points[2])
    assert first_alarm({"operating_points": points[:2]}) == (0, points[0])
    assert first_alarm({}) is None


def test_a_run_says_its_processor_revision_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/dermafuse", "train", "--out", "a b"])
    found = versions.versions(["numpy", "no-such-package"])
    assert found["command"] == "dermafuse train --out 'a b'"
    assert "core" in found["cpu"]
    assert "no-such-package" not in found
    monkeypatch.setattr("sys.argv", ["/usr/bin/pytest", "--token", "x"])
    assert "command" not in versions.versions([])  # another program's command line is not ours to keep
