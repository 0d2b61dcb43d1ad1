"""evaluation/metrics.py and weighted.py: agreement with scikit-learn, absent classes, clean JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dermafuse.errors import DataError
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.predictions import check_predictions
from dermafuse.evaluation.weighted import WeightedMetrics, proportion_bases
from dermafuse.labels import HAM10000

CLASSES = HAM10000.codes


def make(seed: int, n: int, k: int, levels: int | None, *, all_present: bool = False):
    """Random labels and probabilities; ``levels`` makes ties (few distinct values), None makes none."""
    rng = np.random.default_rng(seed)
    raw = rng.random((n, k)) + 0.01 if levels is None else rng.integers(1, levels + 1, (n, k)).astype(float)
    true = rng.integers(0, k, n)
    if all_present:
        true[:k] = np.arange(k)
    return true, raw / raw.sum(axis=1, keepdims=True)


cases = st.builds(
    make,
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(8, 120),
    k=st.integers(3, 7),
    levels=st.sampled_from([None, 2, 5]),
    all_present=st.just(True),
)


def names(k: int) -> tuple[str, ...]:
    return CLASSES[:k]


@given(cases)
@settings(max_examples=60, deadline=None)
def test_decision_metrics_agree_with_scikit_learn(case):
    true, p = case
    k = p.shape[1]
    predicted = p.argmax(axis=1)
    block = evaluate_predictions(true, p, names(k))
    assert block["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    assert block["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, predicted))
    assert block["weighted_f1"] == pytest.approx(sk.f1_score(true, predicted, average="weighted"))
    assert block["macro_f1"] == pytest.approx(sk.f1_score(true, predicted, average="macro"))
    assert block["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(true, predicted))
    assert block["mcc"] == pytest.approx(sk.matthews_corrcoef(true, predicted))
    assert block["confusion_matrix"] == sk.confusion_matrix(true, predicted, labels=range(k)).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        true, predicted, labels=range(k), zero_division=np.nan
    )
    for c, code in enumerate(names(k)):
        one = block["per_class"][code]
        assert one["precision"] == (None if np.isnan(precision[c]) else pytest.approx(precision[c]))
        assert one["recall"] == pytest.approx(recall[c])
        assert one["f1"] == pytest.approx(f1[c])
        assert one["support"] == support[c]
        assert one["specificity"] == pytest.approx(sk.recall_score(true != c, predicted != c))
        npv = sk.precision_score(true != c, predicted != c, zero_division=np.nan)
        assert one["npv"] == (None if np.isnan(npv) else pytest.approx(npv))


@given(cases)
@settings(max_examples=60, deadline=None)
def test_score_metrics_agree_with_scikit_learn_ties_included(case):
    true, p = case
    k = p.shape[1]
    block = evaluate_predictions(true, p, names(k))
    assert block["macro_auroc"] == pytest.approx(sk.roc_auc_score(true, p, multi_class="ovr", average="macro"))
    assert block["nll"] == pytest.approx(sk.log_loss(true, p, labels=range(k)))
    assert block["brier"] == pytest.approx(((p - np.eye(k)[true]) ** 2).sum(axis=1).mean())
    # scikit-learn takes the last of equals, we (as argmax) the first: mirror the columns.
    mirrored = sk.top_k_accuracy_score(k - 1 - true, p[:, ::-1], k=2, labels=range(k))
    assert block["top2_accuracy"] == pytest.approx(mirrored)
    precisions = []
    for c, code in enumerate(names(k)):
        precisions.append(sk.average_precision_score(true == c, p[:, c]))
        assert block["per_class"][code]["auroc"] == pytest.approx(sk.roc_auc_score(true == c, p[:, c]))
        assert block["per_class"][code]["average_precision"] == pytest.approx(precisions[-1])
    assert block["macro_average_precision"] == pytest.approx(np.mean(precisions))


def test_brier_agrees_with_scikit_learn_in_its_unscaled_form():
    true, p = make(0, 200, 7, None, all_present=True)
    expected = sk.brier_score_loss(true, p, labels=range(7), scale_by_half=False)
    assert evaluate_predictions(true, p, CLASSES)["brier"] == pytest.approx(expected)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_malignant_block_agrees_with_scikit_learn(case):
    true, p = case
    k = p.shape[1]
    bad = np.array([code in HAM10000.malignant for code in names(k)])
    rows = check_predictions(true, p, names(k))
    truth, score = rows.is_malignant, rows.malignant_score
    assert np.array_equal(truth, bad[true])
    assert np.allclose(score, p[:, bad].sum(axis=1))
    block = evaluate_predictions(true, p, names(k))["malignant"]
    assert block["support"] == truth.sum()
    assert block["auroc"] == pytest.approx(sk.roc_auc_score(truth, score))
    assert block["average_precision"] == pytest.approx(sk.average_precision_score(truth, score))
    fpr, tpr, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    for level in (0.90, 0.95):
        expected = tpr[fpr <= 1 - level + 1e-12].max()
        assert block[f"sensitivity_at_specificity_{level:.2f}"] == pytest.approx(expected)
    called = bad[p.argmax(axis=1)]
    assert block["sensitivity"] == pytest.approx(sk.recall_score(truth, called))
    assert block["specificity"] == pytest.approx(sk.recall_score(~truth, ~called))
    for name, value in (
        ("ppv", sk.precision_score(truth, called, zero_division=np.nan)),
        ("npv", sk.precision_score(~truth, ~called, zero_division=np.nan)),
    ):
        assert block[name] == (None if np.isnan(value) else pytest.approx(value))


@given(cases, st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_weighted_metrics_agree_with_scikit_learn_sample_weights(case, seed, whole):
    true, p = case
    k = p.shape[1]
    rng = np.random.default_rng(seed)
    w = rng.integers(0, 4, (len(true), 3)).astype(float) if whole else rng.random((len(true), 3))
    w[:k] += 1  # every class stays in
    found = WeightedMetrics(check_predictions(true, p, names(k))).measure(w)
    predicted = p.argmax(axis=1)
    rows = check_predictions(true, p, names(k))
    for r in range(3):
        weight = {"sample_weight": w[:, r]}
        expected = {
            ("accuracy",): sk.accuracy_score(true, predicted, **weight),
            ("balanced_accuracy",): sk.balanced_accuracy_score(true, predicted, **weight),
            ("weighted_f1",): sk.f1_score(true, predicted, average="weighted", **weight),
            ("macro_f1",): sk.f1_score(true, predicted, average="macro", **weight),
            ("cohen_kappa",): sk.cohen_kappa_score(true, predicted, **weight),
            ("mcc",): sk.matthews_corrcoef(true, predicted, **weight),
            ("nll",): sk.log_loss(true, p, labels=range(k), **weight),
            ("malignant", "auroc"): sk.roc_auc_score(rows.is_malignant, rows.malignant_score, **weight),
            ("malignant", "average_precision"): sk.average_precision_score(
                rows.is_malignant, rows.malignant_score, **weight
            ),
        }
        fpr, tpr, _ = sk.roc_curve(rows.is_malignant, rows.malignant_score, drop_intermediate=False, **weight)
        expected["malignant", "sensitivity_at_specificity_0.90"] = tpr[fpr <= 0.1 + 1e-9].max()
        for c, code in enumerate(names(k)):
            expected["per_class", code, "auroc"] = sk.roc_auc_score(true == c, p[:, c], **weight)
            expected["per_class", code, "average_precision"] = sk.average_precision_score(true == c, p[:, c], **weight)
        for path, value in expected.items():
            assert found[path][r] == pytest.approx(value, abs=1e-9), path


@given(cases, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_whole_weight_equals_repeating_the_row(case, seed):
    true, p = case
    k = p.shape[1]
    counts = np.random.default_rng(seed).integers(0, 4, len(true))
    counts[0] += 1
    weighted = WeightedMetrics(check_predictions(true, p, names(k))).measure(counts[:, None].astype(float))
    repeated = evaluate_predictions(np.repeat(true, counts), np.repeat(p, counts, axis=0), names(k))
    for path, values in weighted.items():
        if path[-1] in ("ece", "classwise_ece"):  # bins stay those of the original rows, by design
            continue
        leaf = repeated
        for step in path:
            leaf = leaf[step]
        assert (None if np.isnan(values[0]) else values[0]) == (None if leaf is None else pytest.approx(leaf)), path


def test_a_decision_rule_changes_the_decisions_and_not_the_scores():
    true, p = make(1, 300, 7, None, all_present=True)
    predicted = (p + np.array([0.3, 0, 0, 0, 0.3, 0, 0])).argmax(axis=1)
    plain, ruled = evaluate_predictions(true, p, CLASSES), evaluate_predictions(true, p, CLASSES, predicted=predicted)
    assert ruled["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    assert ruled["per_class"]["mel"]["recall"] > plain["per_class"]["mel"]["recall"]
    assert ruled["confusion_matrix"] != plain["confusion_matrix"]
    for name in ("macro_auroc", "nll", "brier", "ece", "top2_accuracy", "overconfidence"):
        assert ruled[name] == plain[name]


def test_a_class_absent_from_the_truth_is_null_and_left_out_of_the_macro_means():
    true, p = make(2, 200, 7, None)
    df = CLASSES.index("df")
    true[true == df] = CLASSES.index("nv")
    predicted = p.argmax(axis=1)
    assert (predicted == df).any()
    block = evaluate_predictions(true, p, CLASSES)
    absent = block["per_class"]["df"]
    assert absent["support"] == 0
    assert [absent[name] for name in ("recall", "f1", "auroc", "average_precision")] == [None] * 4
    assert absent["precision"] == 0.0  # it was called, wrongly each time
    present = [c for c in range(7) if c != df]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert block["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, predicted))
    assert block["macro_f1"] == pytest.approx(sk.f1_score(true, predicted, labels=present, average="macro"))
    aurocs = [sk.roc_auc_score(true == c, p[:, c]) for c in present]
    assert block["macro_auroc"] == pytest.approx(np.mean(aurocs))
    json.dumps(block, allow_nan=False)


def test_every_proportion_is_one_of_the_rows_it_is_said_to_be_of():
    true, p = make(5, 300, 7, None, all_present=True)
    rows = check_predictions(true, p, CLASSES)
    found = WeightedMetrics(rows).measure(np.ones((300, 1)))
    bases = proportion_bases(rows)
    assert len(bases) == 2 + 4 * 7 + 4
    for path, base in bases.items():
        if path == ("top2_accuracy",):
            continue
        positive, called = rows.true, rows.predicted
        if path[0] == "malignant":
            positive, called = rows.malignant[rows.true], rows.malignant[rows.predicted]
        elif path[0] == "per_class":
            positive, called = (labels == CLASSES.index(path[1]) for labels in (rows.true, rows.predicted))
        assert found[path][0] == pytest.approx((positive == called)[base].mean()), path


def test_a_class_never_predicted_has_no_precision():
    p = np.array([[0.9, 0.1], [0.8, 0.2]])
    block = evaluate_predictions([0, 1], p, ("bcc", "nv"))
    assert block["per_class"]["nv"]["precision"] is None
    assert block["per_class"]["nv"]["recall"] == 0.0
    assert block["per_class"]["nv"]["f1"] == 0.0


@pytest.mark.parametrize("label", range(7))
def test_rows_of_a_single_class_still_give_clean_json(label):
    p = np.full((1, 7), 1 / 7)
    block = evaluate_predictions([label], p, CLASSES)
    json.dumps(block, allow_nan=False)
    assert block["n"] == 1
    assert block["macro_auroc"] is None
    assert block["malignant"]["auroc"] is None
    assert block["accuracy"] == float(label == 0)


def test_zero_probability_of_the_truth_is_a_finite_loss():
    block = evaluate_predictions([0, 1], np.array([[0.0, 1.0], [0.0, 1.0]]), ("bcc", "nv"))
    assert block["nll"] == pytest.approx(sk.log_loss([0, 1], np.array([[0.0, 1.0], [0.0, 1.0]])))
    json.dumps(block, allow_nan=False)


def test_classes_without_a_malignant_one_have_no_malignant_block():
    true, p = make(3, 20, 3, None)
    assert evaluate_predictions(true, p, ("x", "y", "z"))["malignant"] is None
    assert evaluate_predictions(true, p, ("x", "y", "z"), malignant={"x"})["malignant"]["auroc"] is not None


def test_float32_softmax_is_accepted_as_it_comes():
    true, p = make(4, 50, 7, None)
    assert evaluate_predictions(true, p.astype(np.float32), CLASSES)["n"] == 50


GOOD = np.array([[0.6, 0.4], [0.3, 0.7]])


@pytest.mark.parametrize(
    ("true", "probabilities", "classes", "says"),
    [
        ([0, 1], GOOD * 2, ("a", "b"), "summing to 1"),
        ([0, 1], [[1.5, -0.5], [0.3, 0.7]], ("a", "b"), "not negative"),
        ([0, 1], [[np.nan, 0.5], [0.3, 0.7]], ("a", "b"), "finite"),
        ([0, 2], GOOD, ("a", "b"), "outside 0..1"),
        ([-1, 1], GOOD, ("a", "b"), "outside 0..1"),
        ([0.0, 1.0], GOOD, ("a", "b"), "not integer"),
        ([0], GOOD, ("a", "b"), "each of the 2 rows"),
        ([0, 1], GOOD, ("a", "b", "c"), r"expected \(rows, 3\)"),
        ([], np.empty((0, 2)), ("a", "b"), "at least one row"),
        ([0, 1], GOOD, ("a", "a"), "different names"),
    ],
)
def test_unusable_arrays_are_refused_with_what_is_wrong(true, probabilities, classes, says):
    with pytest.raises(DataError, match=says):
        evaluate_predictions(true, probabilities, classes)


def test_the_evaluation_core_loads_no_heavy_library():
    code = (
        "import sys\n"
        "from dermafuse.evaluation import calibration, intervals, metrics, operating_points, subgroups\n"
        "from dermafuse.runtime.decision import temperature\n"
        "temperature.apply([[1.0, 2.0]], 1.5)\n"
        "print([m for m in ('scipy', 'sklearn', 'pandas', 'tensorflow', 'keras', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
