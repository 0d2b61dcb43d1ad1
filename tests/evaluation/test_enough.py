"""How many tuning lesions each fitted thing needs, and findings that speak up where a fitted thing did harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.enough import lack, least_for_level
from dermafuse.evaluation.fit_uncertainty import Measured, fit_sets
from dermafuse.evaluation.model_findings import model_findings
from dermafuse.evaluation.operating_points import operating_points


def codes(block: dict[str, Any], **metrics: Any) -> dict[str, dict[str, Any]]:
    rows = {code: {"support": 50, "recall": 0.9} for code in ("benign", "malignant")}
    whole = {"validation": {"n": 100, "per_class": rows, "confusion_matrix": [[45, 5], [5, 45]], **block}, **metrics}
    return {found["code"]: found for found in model_findings(whole, "validation")}


def calibration(before: tuple[float, float], after: tuple[float, float]) -> dict[str, Any]:
    ece = {"ece": 0.0, "ece_if_calibrated": 0.1, "overconfidence": 0.0}
    pair = [dict(zip(("nll", "brier"), values, strict=True), **ece) for values in (before, after)]
    return {"calibration": {"temperature": 0.356, "before": pair[0], "after": pair[1]}}


def test_a_temperature_that_made_log_loss_or_brier_score_worse_is_a_finding() -> None:
    both = codes(calibration((0.50, 0.30), (0.82, 0.36)))["DM014"]
    assert "0.356" in both["explanation"]
    assert "log loss 0.500 to 0.820 and Brier score 0.300 to 0.360" in both["explanation"]
    assert "Brier score 0.300 to 0.310" in codes(calibration((0.50, 0.30), (0.40, 0.31)))["DM014"]["explanation"]
    assert "DM014" not in codes(calibration((0.50, 0.30), (0.45, 0.29)))
    assert "DM014" not in codes({"calibration": {"temperature": 1.0, "before": None, "after": None}})


def test_prediction_sets_that_hold_every_class_are_a_finding() -> None:
    assert "2.00 of the 2 classes" in codes({"prediction_sets": {"mean_size": 2.0}})["DM015"]["explanation"]
    assert "DM015" not in codes({"prediction_sets": {"mean_size": 1.4}})
    assert "DM015" not in codes({})


def test_what_was_not_fitted_is_a_finding() -> None:
    told = codes({}, training={"not_fitted": {"temperature": "12 tuning lesion(s) are too few, it takes 100"}})
    assert "temperature (12 tuning lesion(s) are too few, it takes 100)" in told["DM016"]["explanation"]
    assert "DM016" not in codes({}, training={"not_fitted": {}})


def test_sets_that_would_hold_every_class_are_not_fitted(synthetic: Any) -> None:
    records = read_dataset(synthetic)
    labels = records.table["label"].to_numpy()
    few = np.concatenate([np.flatnonzero(labels == code)[:6] for code in ("mel", "nv")])
    side = records.subset(few)
    true = np.array([records.classes.index(code) for code in side.table["label"]])
    p = np.random.default_rng(0).dirichlet(np.ones(7), size=len(side))
    assert fit_sets(Measured(side, p, true), Measured(side, p, true)) == (None, None)


@pytest.mark.parametrize(("level", "least"), [(0.90, 10), (0.95, 20), (0.99, 100), (1.0, 1)])
def test_a_level_needs_so_many_lesions_that_one_may_lie_below_it(level: float, least: int) -> None:
    assert least_for_level(level) == least


def points(positives: int, groups: list[str] | None) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    true = np.array([1] * positives + [0] * 200)
    score = rng.random(len(true))
    p = np.column_stack([1 - score, score])
    other = rng.random(300)
    reported = (np.arange(300) % 2, np.column_stack([1 - other, other]))
    return operating_points(
        true, p, *reported, None, ("benign", "malignant"), chosen_groups=groups, malignant=["malignant"], replicates=40
    )


def test_thresholds_need_lesions_enough_of_the_side_that_chooses_them() -> None:
    assert [point["threshold"] is None for point in points(9, None)] == [True, True, False]
    assert [point["threshold"] is None for point in points(12, None)] == [False, True, False]
    assert [point["threshold"] is None for point in points(20, None)] == [False, False, False]
    one_lesion = ["L0"] * 20 + [f"B{n}" for n in range(200)]
    told = points(20, one_lesion)
    assert [point["threshold"] is None for point in told] == [True, True, False]
    assert told[0]["chosen_on"]["lesions"] == 1


def test_a_lack_is_said_with_both_numbers() -> None:
    assert lack(100, 100) is None
    assert lack(12, 100, "patient") == "12 tuning patient(s) are too few, it takes 100"
