"""Prediction sets and strangeness: against crepes, by simulation, and through a whole small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.splits import make_split
from dermafuse.errors import ConfigError, DataError
from dermafuse.evaluation.coverage import coverage_report, expected_range
from dermafuse.evaluation.fit_uncertainty import Measured, auroc, fit_flag, fit_sets
from dermafuse.evaluation.ood_probes import strange_pictures
from dermafuse.runtime.bundle.schema import OutOfDistribution, PredictionSets
from dermafuse.runtime.decision.conformal import (
    apply_prediction_sets,
    calibration_counts,
    fit_prediction_sets,
)
from dermafuse.runtime.decision.ood_features import OOD_FEATURES, FeatureReader, with_ood_features
from dermafuse.runtime.decision.out_of_distribution import (
    METHODS,
    fit_bank,
    fit_gaussian,
    fit_ood,
    fit_threshold,
    ood_scores,
)
from dermafuse.runtime.decision.rule import ranked_sets
from tiny_bundle import tiny_network


def rows(n: int, seed: int = 0, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities and the labels drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.6), size=n)
    return p, np.array([rng.choice(k, p=row) for row in p])


def test_the_sets_are_those_of_crepes() -> None:
    crepes = pytest.importorskip("crepes")
    p, true = rows(400)
    new, _ = rows(300, seed=1)
    rule = fit_prediction_sets(p, true, alpha=0.1)
    ours = apply_prediction_sets(new, rule)
    for code in range(4):  # class-conditional: one calibration a class, each asked about its own class
        theirs = crepes.ConformalClassifier()
        theirs.fit(1 - p[true == code, code])
        p_values = theirs.predict_p(np.repeat(1 - new[:, [code]], 4, axis=1), smoothing=False)[:, 0]
        # crepes puts p values equal to alpha into its sets; the usual definition, and ours, is above alpha.
        assert np.array_equal(ours[:, code], p_values > 0.1 + 1e-9)


def test_the_minimum_is_the_order_statistic_with_the_finite_sample_correction() -> None:
    p = np.column_stack([np.linspace(0.01, 0.99, 99), 1 - np.linspace(0.01, 0.99, 99)])
    rule = fit_prediction_sets(p, np.zeros(99, int), alpha=0.1)
    assert rule.minimum_probability[0] == pytest.approx(np.sort(p[:, 0])[9])  # floor(100 * 0.1) = 10th smallest
    assert rule.coverage == 0.9


def test_a_class_with_too_few_lesions_is_in_every_set() -> None:
    p = np.full((12, 2), 0.5)
    true = np.array([0] * 9 + [1] * 3)
    assert fit_prediction_sets(p, true).minimum_probability == [0.5, 0.0]
    # Nine images of two lesions are two lesions.
    assert fit_prediction_sets(p, true, groups=["a"] * 5 + ["b"] * 7).minimum_probability == [0.0, 0.0]
    assert calibration_counts(true, 2, ["a"] * 5 + ["b"] * 7) == [2, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.1, 0.25]))
def test_the_minimum_lets_in_no_fewer_than_promised_of_its_own_rows(seed: int, alpha: float) -> None:
    p, true = rows(150, seed)
    rule = fit_prediction_sets(p, true, alpha=alpha)
    hit = apply_prediction_sets(p, rule)[np.arange(150), true]
    assert all(hit[true == code].mean() >= 1 - alpha for code in range(4))


def test_coverage_of_new_rows_is_as_promised_in_each_class_on_average_over_fits() -> None:
    covered = np.zeros((200, 4))
    for seed in range(200):
        rule = fit_prediction_sets(*rows(160, seed), alpha=0.2)
        p, true = rows(400, 10_000 + seed)
        hit = apply_prediction_sets(p, rule)[np.arange(400), true]
        covered[seed] = [hit[true == code].mean() for code in range(4)]
    # At 0.8 or above, and at most 1 / (rows of the class + 1) above.
    assert np.all(covered.mean(axis=0) > 0.79)
    assert np.all(covered.mean(axis=0) < 0.84)


def test_coverage_of_images_is_as_promised_where_lesions_with_more_images_are_harder() -> None:
    def lesions(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 4, 150)
        ids = np.repeat(np.arange(150), sizes)
        easy = np.repeat(rng.beta(5, 1 + sizes), sizes) + rng.uniform(-0.02, 0.02, len(ids))
        return np.clip(easy, 0.001, 0.999), ids

    shares = []
    for seed in range(150):
        p, ids = lesions(seed)
        rule = fit_prediction_sets(np.column_stack([p, 1 - p]), np.zeros(len(p), int), groups=ids)
        new, _ = lesions(5_000 + seed)
        shares.append((new >= rule.minimum_probability[0]).mean())
    assert 0.895 < np.mean(shares) < 0.915


def test_single_rows_get_the_sets_that_the_table_gets() -> None:
    p, true = rows(200)
    rule = fit_prediction_sets(p, true)
    sets, ranked = apply_prediction_sets(p, rule), ranked_sets(p, rule)
    assert not sets.all(axis=1).all()
    for row in range(50):
        assert ranked_sets(p[row : row + 1], rule) == [ranked[row]]
        assert set(ranked[row]) == set(np.flatnonzero(sets[row]))
        assert list(p[row][list(ranked[row])]) == sorted(p[row][list(ranked[row])], reverse=True)


@pytest.mark.parametrize(
    ("p", "true"),
    [([[0.5, 0.5]], [2]), ([[1.5, -0.5]], [0]), ([[0.5, np.nan]], [0]), ([[0.5, 0.5]], [0, 1]), ([[0.5, 0.5]], [0.0])],
)
def test_rows_that_do_not_fit_are_refused(p: list[list[float]], true: list[int]) -> None:
    with pytest.raises(DataError):
        fit_prediction_sets(p, true)


def test_a_share_outside_of_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError):
        fit_prediction_sets([[0.5, 0.5]], [0], alpha=1.0)
    with pytest.raises(ConfigError):
        fit_threshold([1.0], kept=1.0)


def test_the_coverage_report_counts_by_hand() -> None:
    p = np.array([[0.8, 0.2], [0.3, 0.7], [0.55, 0.45], [0.1, 0.9]])
    rule = PredictionSets(coverage=0.9, minimum_probability=[0.5, 0.6])
    report = coverage_report(p, [0, 0, 1, 1], ("a", "b"), rule, (40, 40))
    assert report["coverage"] == 0.5
    assert report["mean_size"] == 1.0
    assert report["single_share"] == 1.0
    assert report["per_class"]["a"]["covered"] == 1
    assert report["per_class"]["b"]["n"] == 2
    assert report["per_class"]["a"]["within_sampling_error"] is not None


def test_the_expected_range_holds_95_percent_of_simulated_coverages() -> None:
    low, high = expected_range(59, 120, 0.1)
    rng = np.random.default_rng(0)
    fitted, new = rng.uniform(size=(4000, 59)), rng.uniform(size=(4000, 120))
    minimum = np.sort(fitted, axis=1)[:, 5]  # the 6th smallest: floor(60 * 0.1)
    seen = (new >= minimum[:, None]).mean(axis=1)
    assert 0.94 < ((seen >= low) & (seen <= high)).mean() < 0.98
    assert expected_range(8, 20, 0.1) == [1.0, 1.0]


def cloud(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1.0, (n, 12)) * np.linspace(0.3, 3.0, 12)


@pytest.mark.parametrize("method", METHODS)
def test_one_image_is_as_strange_alone_as_in_a_table(method: str) -> None:
    logits = np.random.default_rng(0).normal(size=(40, 5))
    fitted = fit_ood(cloud(300, 0), cloud(120, 1), np.tile(logits, (3, 1)), method=method)  # type: ignore[arg-type]
    table = ood_scores(fitted.rule, fitted.arrays, logits, cloud(40, 2))
    one = [slice(row, row + 1) for row in range(40)]
    alone = [ood_scores(fitted.rule, fitted.arrays, logits[row], cloud(40, 2)[row])[0] for row in one]
    assert np.allclose(table, alone, rtol=1e-12)


@pytest.mark.parametrize("method", ["mahalanobis", "knn"])
def test_strangers_score_higher_and_ordinary_images_are_flagged_as_rarely_as_promised(method: str) -> None:
    fitted = fit_ood(cloud(500, 0, 3.0), cloud(400, 1, 3.0), method=method)  # type: ignore[arg-type]
    ordinary = ood_scores(fitted.rule, fitted.arrays, None, cloud(3000, 2, 3.0))
    strange = ood_scores(fitted.rule, fitted.arrays, None, cloud(200, 3, -3.0))
    assert auroc(ordinary, strange) > 0.98
    assert 0.001 < (ordinary > fitted.rule.threshold).mean() < 0.03


def test_mahalanobis_without_shrinkage_is_the_distance_by_definition() -> None:
    train, new = cloud(400, 0), cloud(20, 1)
    arrays = fit_gaussian(train, shrinkage=0.0)
    apart = new - train.mean(axis=0)
    exact = np.einsum("ij,jk,ik->i", apart, np.linalg.inv(np.cov(train.T, bias=True)), apart)
    assert np.allclose(
        ood_scores(OutOfDistribution(method="mahalanobis", threshold=0.0), arrays, None, new), exact, rtol=0.01
    )


def test_knn_is_the_distance_to_the_nearest_row_where_the_bank_is_all_rows() -> None:
    train, new = cloud(60, 0), cloud(10, 1)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (train, new)]
    exact = np.linalg.norm(unit[1][:, None] - unit[0][None], axis=2).min(axis=1)
    rule = OutOfDistribution(method="knn", threshold=0.0)
    assert np.allclose(ood_scores(rule, {"ood/bank": fit_bank(train)}, None, new), exact, atol=2e-3)


def test_energy_is_minus_the_log_of_the_summed_exponentials() -> None:
    rule = OutOfDistribution(method="energy", threshold=0.0)
    assert ood_scores(rule, {}, [[0.0, 0.0, 0.0], [900.0, 0.0, 0.0]], None) == pytest.approx([-np.log(3.0), -900.0])


def test_the_threshold_is_the_order_statistic_that_keeps_the_promise() -> None:
    assert fit_threshold(np.arange(1, 100), kept=0.9) == 90.0
    assert fit_threshold(np.arange(1, 10), kept=0.99) == 9.0


def test_what_cannot_be_scored_is_refused() -> None:
    rule = OutOfDistribution(method="mahalanobis", threshold=0.0)
    with pytest.raises(DataError, match="ood/whitening"):
        ood_scores(rule, {}, None, cloud(3, 0))
    with pytest.raises(DataError, match="needs logits"):
        ood_scores(OutOfDistribution(method="energy", threshold=0.0), {}, None, cloud(3, 0))
    with pytest.raises(DataError, match="no spread"):
        fit_gaussian(np.ones((5, 3)))
    with pytest.raises(ConfigError, match="mahalanobis"):
        fit_ood(cloud(9, 0), cloud(9, 1), method="mahalanobi")  # type: ignore[arg-type]


def test_auroc_agrees_with_scikit_learn_ties_included() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 9, 80).astype(float), rng.integers(3, 12, 50).astype(float)
    assert auroc(inside, outside) == pytest.approx(roc_auc_score([0] * 80 + [1] * 50, np.r_[inside, outside]))


def test_the_added_output_is_mean_and_spread_of_the_layer_and_the_others_stay() -> None:
    model = with_ood_features(tiny_network(width=5))
    assert with_ood_features(model).outputs[-1].get_names() == {OOD_FEATURES}
    assert len(model.outputs) == 4
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    outputs = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        [image, np.zeros((1, 5), np.float32)]
    )
    # The tiny network has no layer of twice the size, so the feature map itself is looked at.
    maps = outputs["feature_map"][0].reshape(-1, 12)
    assert np.allclose(outputs[OOD_FEATURES][0], np.r_[maps.mean(axis=0), maps.std(axis=0)], atol=2e-3)
    found = FeatureReader(model).read([image[0], image[0]])
    assert found.shape == (2, 24)
    assert np.allclose(found[0], outputs[OOD_FEATURES][0], atol=0.02)


def test_the_strange_pictures_are_the_same_for_a_seed_and_differ_among_themselves() -> None:
    first, again = strange_pictures(seed=1, count=6), strange_pictures(seed=1, count=6)
    for kind, pictures in first.items():
        assert {picture.shape for picture in pictures} == {(150, 200, 3)}
        assert len({picture.tobytes() for picture in pictures}) == 6
        assert all(np.array_equal(a, b) for a, b in zip(pictures, again[kind], strict=True))


def test_a_flag_is_fitted_on_a_network_and_measured_on_other_rows(synthetic: Path, little_is_enough: None) -> None:
    records = read_dataset(synthetic)
    split = make_split(records, by="lesion", seed=0)
    train, validation = records.subset(split.train), records.subset(split.validation)
    fitted = fit_flag(tiny_network(), train, None, validation)
    assert fitted is not None
    assert fitted.rule.method == "mahalanobis"
    assert fitted.arrays["ood/whitening"].shape[0] == 24
    block = fitted.block
    assert block["images"] == len(validation)
    assert 0 <= block["share"] <= 1
    assert {"auroc_photographs", "auroc_noise", "auroc_flat_colours", "flagged_noise"} <= set(block)
    assert block["auroc_noise"] > 0.9
    assert fit_flag(tiny_network(), train.subset(np.arange(4)), train.subset(np.arange(4)), validation) is None


def test_sets_are_fitted_on_tuning_rows_and_measured_on_validation_rows(synthetic: Path) -> None:
    records = read_dataset(synthetic)
    split = make_split(records, by="lesion", seed=0, fraction=0.4)
    number = {code: position for position, code in enumerate(records.classes)}
    sides = []
    for seed, part in enumerate((split.train, split.validation)):
        side = records.subset(part)
        p = np.random.default_rng(seed).dirichlet(np.ones(7), size=len(side))
        sides.append(Measured(side, p, side.table["label"].map(number).to_numpy(np.int64)))
    rule, block = fit_sets(*sides)
    assert rule is not None
    assert block is not None
    assert block["target"] == 0.9
    assert sum(row["n"] for row in block["per_class"].values()) == len(split.validation)
    swapped, _ = fit_sets(sides[1], sides[0])
    assert swapped != rule
    assert fit_sets(None, sides[1]) == (None, None)
