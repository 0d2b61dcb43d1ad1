"""evaluation/intervals.py and resampling.py: closed forms, clusters, pairs, speed."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from scipy import stats

from dermafuse.errors import DataError
from dermafuse.evaluation import resampling
from dermafuse.evaluation.intervals import cluster_bootstrap, paired_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.resampling import interval, resampled_weights
from dermafuse.labels import HAM10000

CLASSES = HAM10000.codes


def ham_like(n: int, seed: int = 0, skill: float = 1.5):
    """Labels with HAM10000's class shares, softmax probabilities, and 1.34 images a lesion."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.033, 0.051, 0.110, 0.011, 0.111, 0.670, 0.014])
    groups = rng.integers(0, int(n / 1.34), n)
    true = rng.choice(7, n, p=shares / shares.sum())
    logits = rng.normal(size=(n, 7))
    logits[np.arange(n), true] += skill
    p = np.exp(logits)
    return true, p / p.sum(axis=1, keepdims=True), groups


def accuracy_data(right: np.ndarray):
    """Two classes, true always 0; right where the flag says so."""
    p = np.where(right[:, None], [0.9, 0.1], [0.2, 0.8])
    return np.zeros(len(right), dtype=int), p


def leaves(block, path=()):
    for key, value in block.items():
        if isinstance(value, dict) and "difference" not in value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def look_up(block, path):
    for step in path:
        block = block[step]
    return block


def test_accuracy_of_independent_rows_has_the_binomial_interval():
    n, hits = 400, 320
    true, p = accuracy_data(np.arange(n) < hits)
    low, high = cluster_bootstrap(true, p, None, ("bcc", "nv"), replicates=4000)["accuracy"]
    # Each replicate's count of hits is exactly Binomial(n, hits / n).
    assert low == pytest.approx(stats.binom.ppf(0.025, n, hits / n) / n, abs=0.004)
    assert high == pytest.approx(stats.binom.ppf(0.975, n, hits / n) / n, abs=0.004)


def test_accuracy_of_lesions_has_the_cluster_variance_in_closed_form():
    rng = np.random.default_rng(5)
    lesions, size = 300, 4
    skill = rng.beta(2, 1, lesions)
    right = rng.random((lesions, size)) < skill[:, None]
    true, p = accuracy_data(right.ravel())
    groups = np.repeat(np.arange(lesions), size)
    replicate_sd = right.mean(axis=1).std() / np.sqrt(lesions)  # the ideal bootstrap's, equal lesion sizes
    low, high = cluster_bootstrap(true, p, groups, ("bcc", "nv"), replicates=2000)["accuracy"]
    assert (high - low) / (2 * 1.96) == pytest.approx(replicate_sd, rel=0.08)
    naive_low, naive_high = cluster_bootstrap(true, p, None, ("bcc", "nv"), replicates=2000)["accuracy"]
    assert high - low > 1.15 * (naive_high - naive_low)


def test_one_row_a_lesion_is_the_ordinary_bootstrap():
    true, p, _ = ham_like(200)
    ids = [f"HAM_{(i * 77) % 200}" for i in range(200)]
    ordinary = cluster_bootstrap(true, p, None, CLASSES, replicates=200)
    assert cluster_bootstrap(true, p, ids, CLASSES, replicates=200) == ordinary


def test_copies_of_an_image_within_its_lesion_add_no_certainty():
    true, p, _ = ham_like(150)
    once = cluster_bootstrap(true, p, None, CLASSES, replicates=300)
    thrice = cluster_bootstrap(
        np.tile(true, 3), np.tile(p, (3, 1)), np.tile(np.arange(150), 3), CLASSES, replicates=300
    )
    for path, pair in leaves(once):
        assert look_up(thrice, path) == (None if pair is None else pytest.approx(pair, abs=1e-9)), path


def test_lesions_are_drawn_with_all_their_rows_and_as_many_as_there_are():
    groups = np.array([0, 0, 1, 2, 2, 2])
    weights = np.concatenate(list(resampled_weights(groups, 500, seed=3)), axis=1)
    assert weights.shape == (6, 500)
    assert np.array_equal(weights[0], weights[1])
    assert np.array_equal(weights[3], weights[5])
    assert np.array_equal(weights[[0, 2, 3]].sum(axis=0), np.full(500, 3))
    assert weights[2].mean() == pytest.approx(1, abs=0.15)


def test_the_seed_decides_and_the_chunk_size_does_not(monkeypatch):
    true, p, groups = ham_like(300)
    first = cluster_bootstrap(true, p, groups, CLASSES, replicates=100, seed=1)
    monkeypatch.setattr(resampling, "CHUNK_ELEMENTS", 300 * 7)
    again = cluster_bootstrap(true, p, groups, CLASSES, replicates=100, seed=1)
    for path, pair in leaves(first):
        assert look_up(again, path) == (None if pair is None else pytest.approx(pair, abs=1e-12)), path
    assert cluster_bootstrap(true, p, groups, CLASSES, replicates=100, seed=2)["accuracy"] != first["accuracy"]


def test_every_scalar_of_the_metrics_block_has_its_interval_and_lies_in_it():
    true, p, groups = ham_like(1500)
    block = evaluate_predictions(true, p, CLASSES)
    ci = cluster_bootstrap(true, p, groups, CLASSES, replicates=400)
    json.dumps(ci, allow_nan=False)
    scalars = {path for path, value in leaves(block) if not isinstance(value, list)}
    counts = {path for path in scalars if path[-1] in ("n", "support")}
    assert {path for path, _ in leaves(ci)} == scalars - counts
    for path, (low, high) in leaves(ci):
        assert low <= look_up(block, path) <= high, path


def test_coverage_of_the_cluster_interval_is_near_95_percent():
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(150):
        right = rng.random(150) < 0.7
        true, p = accuracy_data(np.repeat(right, 2))  # two identical images a lesion
        low, high = cluster_bootstrap(true, p, np.repeat(np.arange(150), 2), ("bcc", "nv"), replicates=200, seed=trial)[
            "accuracy"
        ]
        covered += low <= 0.7 <= high
    assert covered >= 134  # 142 expected, standard deviation 3


def test_a_decision_rule_enters_the_intervals():
    true, p, groups = ham_like(400)
    predicted = np.full(400, CLASSES.index("mel"))
    ci = cluster_bootstrap(true, p, groups, CLASSES, replicates=100, predicted=predicted)
    assert ci["per_class"]["mel"]["recall"][1] == 1.0
    assert ci["per_class"]["nv"]["precision"] is None


def test_a_perfect_proportion_gets_the_exact_interval_over_lesions_not_a_point():
    true, p = accuracy_data(np.ones(40, dtype=bool))
    groups = np.repeat(np.arange(20), 2)
    low, high = cluster_bootstrap(true, p, groups, ("bcc", "nv"), replicates=100)["accuracy"]
    exact = stats.binomtest(20, 20).proportion_ci(method="exact")
    assert (low, high) == (pytest.approx(exact.low), exact.high)
    missed = accuracy_data(np.zeros(40, dtype=bool))[1]
    low, high = cluster_bootstrap(true, missed, groups, ("bcc", "nv"), replicates=100)["accuracy"]
    exact = stats.binomtest(0, 20).proportion_ci(method="exact")
    assert (low, high) == (exact.low, pytest.approx(exact.high))


def test_a_class_seen_in_a_single_lesion_gets_no_invented_interval():
    true, p, groups = ham_like(300)
    df = CLASSES.index("df")
    true[true == df] = CLASSES.index("nv")
    true[:2], groups[:2] = df, 10_000
    p[0], p[1] = np.eye(7)[df], np.eye(7)[0]  # one right, one wrong: recall 0.5
    ci = cluster_bootstrap(true, p, groups, CLASSES, replicates=200)
    assert ci["per_class"]["df"]["recall"] is None
    assert ci["per_class"]["df"]["auroc"] is None
    assert ci["balanced_accuracy"] is not None


def test_ece_intervals_hold_the_estimate_of_a_calibrated_model():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(7), 800)
    true = (rng.random(800)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 6)
    ece = evaluate_predictions(true, p, CLASSES)["ece"]
    low, high = cluster_bootstrap(true, p, None, CLASSES, replicates=400)["ece"]
    assert low < ece < high


def test_undefined_replicates_are_left_out_only_while_few():
    values = np.linspace(0, 1, 1000)
    values[:40] = np.nan
    assert interval(values, 0.5) is not None
    values[:60] = np.nan
    assert interval(values, 0.5) is None
    assert interval(np.linspace(0, 1, 1000), float("nan")) is None
    assert interval(np.linspace(0, 1, 1001), 0.5) == pytest.approx([0.025, 0.975])


def test_identical_models_differ_by_nothing():
    true, p, groups = ham_like(300)
    for path, entry in leaves(paired_bootstrap(true, p, p, groups, CLASSES, replicates=100)):
        assert entry == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}, path


def test_paired_differences_are_antisymmetric_and_match_the_metrics():
    true, a, groups = ham_like(500, seed=1, skill=2.0)
    b = 0.7 * a + 0.3 * ham_like(500, seed=1, skill=0.0)[1]
    forth = paired_bootstrap(true, a, b, groups, CLASSES, replicates=200)
    back = paired_bootstrap(true, b, a, groups, CLASSES, replicates=200)
    json.dumps(forth, allow_nan=False)
    blocks = evaluate_predictions(true, a, CLASSES), evaluate_predictions(true, b, CLASSES)
    for path, entry in leaves(forth):
        assert entry["difference"] == pytest.approx(look_up(blocks[0], path) - look_up(blocks[1], path)), path
        if entry["low"] is not None:
            mirrored = look_up(back, path)
            assert (entry["low"], entry["high"]) == pytest.approx((-mirrored["high"], -mirrored["low"])), path
            assert entry["p"] == pytest.approx(mirrored["p"])


def test_pairing_is_sharper_than_two_separate_intervals():
    true, a, groups = ham_like(800, seed=2)
    b = 0.95 * a + 0.05 / 7
    b[:30] = np.roll(b[:30], 1, axis=1)
    paired = paired_bootstrap(true, a, b, groups, CLASSES, replicates=300)["accuracy"]
    single = cluster_bootstrap(true, a, groups, CLASSES, replicates=300)["accuracy"]
    assert paired["high"] - paired["low"] < 0.5 * (single[1] - single[0])


def test_a_better_model_is_found_better_and_chance_is_not():
    true, strong, groups = ham_like(600, seed=3, skill=3.0)
    weak = ham_like(600, seed=3, skill=1.0)[1]
    assert paired_bootstrap(true, strong, weak, groups, CLASSES, replicates=400)["accuracy"]["p"] < 0.01
    right = np.arange(400) % 2 == 0
    true, a = accuracy_data(right)
    entry = paired_bootstrap(true, a, accuracy_data(~right)[1], None, ("bcc", "nv"), replicates=400)["accuracy"]
    assert entry["low"] < 0 < entry["high"]
    assert entry["p"] > 0.5


def test_paired_differences_follow_the_closed_form():
    rng = np.random.default_rng(4)
    a, b = rng.random(500) < 0.8, rng.random(500) < 0.7
    true, pa = accuracy_data(a)
    entry = paired_bootstrap(true, pa, accuracy_data(b)[1], None, ("bcc", "nv"), replicates=4000)["accuracy"]
    difference = a.astype(float) - b
    assert entry["difference"] == pytest.approx(difference.mean())
    width = 2 * 1.96 * difference.std() / np.sqrt(500)
    assert entry["high"] - entry["low"] == pytest.approx(width, rel=0.06)


@pytest.mark.parametrize("gap", [None, "", float("nan")])
def test_a_missing_lesion_id_is_refused_instead_of_making_one_huge_lesion(gap):
    true, p, _ = ham_like(5)
    with pytest.raises(DataError, match="lesion id in 1 rows"):
        cluster_bootstrap(true, p, np.array(["a", "b", gap, "c", "d"], dtype=object), CLASSES)


def test_unusable_arguments_are_refused():
    true, p, groups = ham_like(20)
    with pytest.raises(DataError, match="at least 40"):
        cluster_bootstrap(true, p, groups, CLASSES, replicates=10)
    with pytest.raises(DataError, match="one lesion id for each of the 20"):
        cluster_bootstrap(true, p, groups[:5], CLASSES)
    with pytest.raises(DataError, match="each of the 19 rows"):
        paired_bootstrap(true, p, p[:19], groups, CLASSES)


def test_two_thousand_replicates_of_all_metrics_on_two_thousand_rows_take_under_ten_seconds():
    true, p, groups = ham_like(2000)
    begin = time.process_time()  # processor time of all threads: no easier with more cores
    ci = cluster_bootstrap(true, p, groups, CLASSES)
    assert time.process_time() - begin < 10
    assert ci["per_class"]["mel"]["auroc"] is not None
