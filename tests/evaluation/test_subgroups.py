"""evaluation/subgroups.py: cells, gaps, withholding."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from dermafuse.errors import DataError
from dermafuse.evaluation.calibration import expected_calibration_error
from dermafuse.evaluation.subgroups import MINIMUM_CLASS, age_bands, in_order, subgroup_report
from dermafuse.labels import HAM10000

CLASSES = HAM10000.codes
MEL = CLASSES.index("mel")


def rows(n: int, seed: int = 0, skill: np.ndarray | float = 2.0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 7, n)
    logits = rng.normal(size=(n, 7))
    logits[np.arange(n), true] += skill
    p = np.exp(logits)
    return true, p / p.sum(axis=1, keepdims=True)


def test_a_cell_holds_the_metrics_of_its_rows_and_their_gap_to_the_rest():
    sex = np.random.default_rng(1).choice(["male", "female"], 900)
    true, p = rows(900)
    cell = subgroup_report(true, p, None, CLASSES, {"sex": sex}, replicates=100)["sex"]["male"]
    inside, predicted = sex == "male", p.argmax(axis=1)
    malignant = np.isin(true, [CLASSES.index(code) for code in HAM10000.malignant])
    score = p[:, [code in HAM10000.malignant for code in CLASSES]].sum(axis=1)
    called = np.isin(predicted, [CLASSES.index(code) for code in HAM10000.malignant])

    def measured(part):
        return {
            "accuracy": (predicted == true)[part].mean(),
            "balanced_accuracy": recall_score(true[part], predicted[part], average="macro"),
            "melanoma_sensitivity": (predicted == MEL)[part & (true == MEL)].mean(),
            "malignant_sensitivity": called[part & malignant].mean(),
            "malignant_specificity": (~called)[part & ~malignant].mean(),
            "malignant_auroc": roc_auc_score(malignant[part], score[part]),
            "overconfidence": (p.max(axis=1) - (predicted == true))[part].mean(),
        }

    here, there = measured(inside), measured(~inside)
    assert cell["metrics"].keys() == {*here, "ece"}
    for name, value in here.items():
        entry = cell["metrics"][name]
        assert entry["value"] == pytest.approx(value), name
        assert entry["gap"] == pytest.approx(value - there[name]), name
        assert entry["ci95"][0] <= value <= entry["ci95"][1], name
        assert entry["gap_ci95"][0] <= entry["gap"] <= entry["gap_ci95"][1], name
    assert (cell["n"], cell["withheld"]) == (inside.sum(), False)
    assert cell["classes"] == list(CLASSES)
    ece = cell["metrics"]["ece"]
    expected = expected_calibration_error(p.max(axis=1)[inside], (predicted == true)[inside], bins=ece["bins"])
    assert ece["value"] == pytest.approx(expected)


def test_a_real_gap_is_found_and_a_random_split_shows_none():
    group = np.random.default_rng(2).integers(0, 2, 1000)
    true, p = rows(1000, skill=np.where(group == 1, 3.0, 0.5))
    weak = subgroup_report(true, p, None, CLASSES, {"site": group}, replicates=200)["site"]["0"]["metrics"]
    assert weak["accuracy"]["gap_ci95"][1] < 0
    assert weak["malignant_auroc"]["gap_ci95"][1] < 0
    true, p = rows(1000)
    fair = subgroup_report(true, p, None, CLASSES, {"site": group}, replicates=200)["site"]["0"]["metrics"]
    assert fair["accuracy"]["gap_ci95"][0] < 0 < fair["accuracy"]["gap_ci95"][1]


def test_the_gap_interval_follows_the_closed_form_of_two_independent_cells():
    side = np.arange(1200) % 2
    right = np.random.default_rng(3).random(1200) < np.where(side == 1, 0.8, 0.6)
    p = np.where(right[:, None], [0.9, 0.1], [0.2, 0.8])
    report = subgroup_report(np.zeros(1200, dtype=int), p, None, ("bcc", "nv"), {"side": side}, replicates=2000)
    gap = report["side"]["1"]["metrics"]["accuracy"]
    a, b = right[side == 1].mean(), right[side == 0].mean()
    width = 2 * 1.96 * np.sqrt(a * (1 - a) / 600 + b * (1 - b) / 600)
    assert gap["gap"] == pytest.approx(a - b)
    assert gap["gap_ci95"][1] - gap["gap_ci95"][0] == pytest.approx(width, rel=0.07)


def test_lesions_on_both_sides_are_resampled_together():
    rng = np.random.default_rng(6)
    first = rng.random(500) < 0.7
    second = np.where(rng.random(500) < 0.1, ~first, first)  # the second image is mostly judged like the first
    right = np.concatenate([first, second])
    p = np.where(right[:, None], [0.9, 0.1], [0.2, 0.8])
    lesion, visit = np.tile(np.arange(500), 2), np.repeat(["first", "second"], 500)
    true = np.zeros(1000, dtype=int)
    report = subgroup_report(true, p, lesion, ("bcc", "nv"), {"visit": visit}, replicates=2000)
    gap = report["visit"]["first"]["metrics"]["accuracy"]
    width = 2 * 1.96 * (first.astype(float) - second).std() / np.sqrt(500)  # of paired differences
    assert gap["gap_ci95"][1] - gap["gap_ci95"][0] == pytest.approx(width, rel=0.07)


def test_intervals_resample_lesions():
    true, p = rows(300)
    site = np.random.default_rng(4).choice(["back", "face"], 300)
    once = subgroup_report(true, p, None, CLASSES, {"site": site}, replicates=100)
    thrice = subgroup_report(
        np.tile(true, 3),
        np.tile(p, (3, 1)),
        np.tile(np.arange(300), 3),
        CLASSES,
        {"site": np.tile(site, 3)},
        replicates=100,
    )
    for name in ("back", "face"):
        assert thrice["site"][name]["lesions"] == once["site"][name]["n"]
        for quantity in ("ci95", "gap_ci95"):
            expected = once["site"][name]["metrics"]["accuracy"][quantity]
            assert thrice["site"][name]["metrics"]["accuracy"][quantity] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"50-69": 43, "30-49": 36, "70+": 23, "unknown": 9, "<30": 7}, ["<30", "30-49", "50-69", "70+", "unknown"]),
        ({"2": 9, "10": 8, "1": 3}, ["1", "2", "10"]),
        ({"back": 9, "unknown": 8, "face": 3}, ["back", "face", "unknown"]),
        ({"3 cm": 1, "back": 2}, ["back", "3 cm"]),
        ({"unknown": 4}, ["unknown"]),
    ],
)
def test_bands_come_in_their_order_words_by_size_and_unknown_last(sizes: dict[str, int], expected: list[str]):
    assert in_order(sizes) == expected


def test_ages_come_in_order_whatever_their_sizes():
    true, p = rows(300)
    age = np.repeat([75.0, 40.0, 20.0, 60.0, np.nan], [120, 60, 40, 50, 30])
    report = subgroup_report(true, p, None, CLASSES, {"age": age_bands(age)}, replicates=50)["age"]
    assert list(report) == ["<30", "30-49", "50-69", "70+", "unknown"]


def test_small_cells_are_withheld_and_cells_come_in_falling_size():
    true, p = rows(300)
    site = np.array(["back"] * 200 + ["face"] * 71 + ["ear"] * 29)
    report = subgroup_report(true, p, None, CLASSES, {"site": site}, replicates=50)["site"]
    assert list(report) == ["back", "face", "ear"]
    assert report["ear"] == {"n": 29, "lesions": 29, "withheld": True}
    assert not subgroup_report(true, p, None, CLASSES, {"site": site}, replicates=50, minimum_rows=29)["site"]["ear"][
        "withheld"
    ]


def test_metrics_without_enough_of_their_class_are_withheld():
    true, p = rows(400)
    inside = np.arange(400) < 100
    nv = CLASSES.index("nv")
    true[inside & (true == MEL)] = nv
    true[:9] = MEL
    assert (true[inside] == MEL).sum() == MINIMUM_CLASS - 1
    cell = subgroup_report(true, p, None, CLASSES, {"part": inside}, replicates=50)["part"]["True"]
    assert cell["metrics"]["melanoma_sensitivity"] is None
    assert cell["metrics"]["accuracy"] is not None
    assert "mel" not in cell["classes"]
    compared = [c for c in range(7) if CLASSES[c] in cell["classes"]]
    recalls = recall_score(true[inside], p[inside].argmax(axis=1), average=None, labels=compared)
    assert cell["metrics"]["balanced_accuracy"]["value"] == pytest.approx(recalls.mean())
    # The rest has melanomas enough, but nothing to be compared with.
    rest = subgroup_report(true, p, None, CLASSES, {"part": inside}, replicates=50)["part"]["False"]
    assert rest["metrics"]["melanoma_sensitivity"]["value"] is not None
    assert rest["metrics"]["melanoma_sensitivity"]["gap"] is None
    assert rest["classes"] == cell["classes"]


def test_a_column_of_one_value_has_metrics_and_no_gap():
    true, p = rows(200)
    cell = subgroup_report(true, p, None, CLASSES, {"source": ["x"] * 200}, replicates=50)["source"]["x"]
    assert cell["metrics"]["accuracy"]["ci95"] is not None
    assert cell["metrics"]["accuracy"]["gap"] is None


def test_everything_is_clean_json_even_for_one_class_and_perfect_predictions():
    p = np.eye(7)[np.full(80, 5)]
    columns = {"sex": ["m", "f"] * 40, "age": age_bands(np.full(80, np.nan))}
    json.dumps(subgroup_report(np.full(80, 5), p, None, CLASSES, columns, replicates=40), allow_nan=False)
    true, p = rows(150)
    columns = {"sex": ["m"] * 75 + ["f"] * 75, "age": ["a"] * 150}
    json.dumps(subgroup_report(true, p, None, CLASSES, columns, replicates=40), allow_nan=False)


def test_missing_values_form_a_cell_of_their_own():
    true, p = rows(90)
    values = pd.Series(["a", None, float("nan")] * 30)
    assert set(subgroup_report(true, p, None, CLASSES, {"c": values}, replicates=40)["c"]) == {"a", "unknown"}
    strings = pd.Series(["a", pd.NA, ""] * 30, dtype="string")
    assert set(subgroup_report(true, p, None, CLASSES, {"c": strings}, replicates=40)["c"]) == {"a", "unknown"}


def test_age_bands_start_at_their_edges():
    bands = age_bands([0, 29.9, 30, 49, 50, 69, 70, 85, np.nan])
    assert bands.tolist() == ["<30", "<30", "30-49", "30-49", "50-69", "50-69", "70+", "70+", "unknown"]
    assert age_bands([20, 60], edges=(40,)).tolist() == ["<40", "40+"]
    with pytest.raises(DataError, match="rising"):
        age_bands([1.0], edges=(50, 30))


def test_a_column_of_another_length_is_refused_by_name():
    true, p = rows(50)
    with pytest.raises(DataError, match=r"'sex'.*each of 50 rows"):
        subgroup_report(true, p, None, CLASSES, {"sex": ["m"] * 49})
