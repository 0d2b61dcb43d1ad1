import io
import json
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import dermafuse
from dermafuse.data.images import dihedral_views, load_image
from dermafuse.errors import ConfigError, DataError, ImageError
from dermafuse.labels import HAM10000
from dermafuse.runtime.bundle.folder import OutOfDistribution, PredictionSets
from dermafuse.runtime.decision import temperature
from dermafuse.runtime.decision.out_of_distribution import ood_scores
from dermafuse.runtime.decision.rule import choose_labels, ranked_sets
from dermafuse.runtime.engine import Engine
from dermafuse.runtime.prediction import Query
from dermafuse.runtime.predictor import Predictor
from tiny_bundle import CHANNELS, tiny_bundle, tiny_content, tiny_image, tiny_network


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return dermafuse.load(tiny_bundle(tmp_path_factory.mktemp("b") / "m"), precision="f32")


def vector(prediction):
    return np.array(list(prediction.probabilities.values()))


def reference(models, image, meta, t=1.3):
    """Mean over the members of softmax(logits / T), straight from the unchanged networks."""
    parts = []
    for model in models:
        outputs = Engine(model, precision="f32").infer(image[None], meta[None])
        parts.append(temperature.apply(outputs[0][0], t))
    return np.mean(parts, axis=0)


def test_probabilities_are_the_networks_own_calibrated(predictor, tmp_path):
    content = tiny_content()
    meta = content.encoder.transform_one({"age": 50, "sex": "male", "localization": "back"})
    expected = reference(content.models, load_image(tiny_image(), 32), meta)
    found = predictor.predict(tiny_image(), age=50, sex="male", localization="back")
    np.testing.assert_allclose(vector(found), expected, atol=1e-5)
    assert list(found.probabilities) == list(HAM10000.codes)
    assert math.isclose(sum(found.probabilities.values()), 1.0, abs_tol=1e-9)
    best = max(found.probabilities, key=found.probabilities.__getitem__)
    assert (found.label, found.name) == (best, HAM10000.names[best])
    malignant = sum(found.probabilities[code] for code in HAM10000.malignant)
    assert math.isclose(found.malignant_probability, malignant, abs_tol=1e-9)


def test_an_ensemble_is_the_mean_of_its_members_probabilities(tmp_path):
    content = tiny_content(members=3)
    found = dermafuse.load(tiny_bundle(tmp_path / "m", members=3), precision="f32").predict(tiny_image(), age=30)
    meta = content.encoder.transform_one({"age": 30})
    expected = reference(content.models, load_image(tiny_image(), 32), meta)
    np.testing.assert_allclose(vector(found), expected, atol=1e-5)


def test_members_of_different_input_size_each_get_their_own(tmp_path):
    width = tiny_content().encoder.width
    models = (tiny_network(0, width=width), tiny_network(1, width=width, size=64))
    found = dermafuse.load(tiny_bundle(tmp_path / "m", models=models, head={}), precision="f32").predict(tiny_image())
    meta = tiny_content().encoder.absent()
    parts = [reference([m], load_image(tiny_image(), s), meta) for m, s in zip(models, (32, 64), strict=True)]
    np.testing.assert_allclose(vector(found), np.mean(parts, axis=0), atol=1e-5)


def test_eight_views_average_over_flips_and_turns(predictor):
    content = tiny_content()
    views = dihedral_views(load_image(tiny_image(), 32))
    expected = np.mean([reference(content.models, v, content.encoder.absent()) for v in views], axis=0)
    np.testing.assert_allclose(vector(predictor.predict(tiny_image(), views=8)), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="views"):
        predictor.predict(tiny_image(), views=3)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_batch_equals_single_images_exactly_in_any_order(predictor, mode):
    model = Predictor(predictor.bundle, precision="f32", mode=mode)
    images = [tiny_image(seed) for seed in range(30)]
    ages = list(range(20, 80, 2))
    singles = [model.predict(image, age=age, sex="male") for image, age in zip(images, ages, strict=True)]
    assert model.predict(images, age=ages, sex="male") == singles
    order = np.random.default_rng(0).permutation(30)
    shuffled = model.predict([images[i] for i in order], age=[ages[i] for i in order], sex="male")
    assert shuffled == [singles[i] for i in order]


def test_path_bytes_pillow_and_numpy_give_the_same_answer(predictor, tmp_path):
    image = tiny_image()
    path = tmp_path / "lesion.png"
    Image.fromarray(image).save(path)
    answers = [predictor.predict(source) for source in (image, path, str(path), path.read_bytes(), Image.open(path))]
    assert all(answer == answers[0] for answer in answers)


def test_what_is_missing_is_said_and_an_unseen_word_counts_as_missing(predictor):
    assert predictor.predict(tiny_image()).missing == ("age", "sex", "localization")
    assert predictor.predict(tiny_image(), age=50, sex="male", localization="moon").missing == ("localization",)
    assert predictor.predict(tiny_image(), age="50", sex="FEMALE ", localization="back").missing == ()


def test_metadata_changes_the_answer(predictor):
    assert predictor.predict(tiny_image(), age=20) != predictor.predict(tiny_image(), age=80)


def test_impossible_values_and_unknown_fields_are_refused(predictor, tmp_path):
    for age in ("abc", -1, 500, True, [1]):
        with pytest.raises(DataError, match="age"):
            predictor.predict(tiny_image(), age=age)
    with pytest.raises(ConfigError, match="Did you mean 'localization'"):
        predictor.predict(tiny_image(), localisation="back")
    with pytest.raises(DataError, match="2 values for 3 images"):
        predictor.predict([tiny_image()] * 3, age=[1, 2])
    imageonly = dermafuse.load(tiny_bundle(tmp_path / "m", metadata=False))
    assert imageonly.predict(tiny_image()).missing == ()
    with pytest.raises(ConfigError, match="image alone"):
        imageonly.predict(tiny_image(), age=5)


def test_a_bad_image_in_a_list_is_named_and_a_stream_goes_on_after_it(predictor, tmp_path):
    with pytest.raises(ImageError, match="Image 2"):
        predictor.predict([tiny_image(), b"not an image", tiny_image()])
    good, gone, bad = Query(tiny_image()), Query(tmp_path / "none.jpg"), Query(tiny_image(), {"age": "x"})
    outcomes = list(predictor.stream([good, gone, bad, good]))
    assert isinstance(outcomes[1], ImageError)
    assert "none.jpg" in str(outcomes[1])
    assert isinstance(outcomes[2], DataError)
    assert outcomes[0] == outcomes[3] == predictor.predict(tiny_image())
    assert predictor.predict([]) == []


def test_a_stream_takes_only_a_few_items_ahead(predictor):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Query(tiny_image())

    stream = predictor.stream(endless())
    for _ in range(5):
        next(stream)
    assert taken <= 5 + 8 * predictor.workers
    stream.close()


def test_one_predictor_serves_many_threads(predictor):
    expected = [predictor.predict(tiny_image(seed)) for seed in range(8)]
    wrong = []

    def work(seed):
        for _ in range(20):
            if predictor.predict(tiny_image(seed)) != expected[seed]:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_decision_rule_moves_the_label_but_not_the_probabilities(tmp_path, predictor):
    plain = predictor.predict(tiny_image())
    other = next(code for code in HAM10000.codes if code != plain.label)
    offsets = tuple(50.0 if code == other else 0.0 for code in HAM10000.codes)
    found = dermafuse.load(tiny_bundle(tmp_path / "m", offsets=offsets), precision="f32").predict(tiny_image())
    assert found.label == other
    np.testing.assert_allclose(vector(found), vector(plain), atol=1e-9)


def test_prediction_sets_hold_the_classes_at_or_above_their_minimum_most_probable_first():
    rule = PredictionSets(coverage=0.9, minimum_probability=[0.5, 0.2, 0.05, 0.4])
    assert ranked_sets([[0.3, 0.2, 0.4, 0.1], [0.45, 0.1, 0.04, 0.39]], rule) == [(2, 1), ()]


def test_without_rules_there_is_no_set_and_no_flag(tmp_path):
    found = dermafuse.load(tiny_bundle(tmp_path / "m", prediction_set=None, ood=None)).predict(tiny_image())
    assert (found.prediction_set, found.out_of_distribution, found.ood_score) == (None, None, None)


def test_out_of_distribution_scores_agree_with_their_formulas():
    rng = np.random.default_rng(0)
    logits, z = rng.normal(size=5), rng.normal(size=4)
    energy = OutOfDistribution(method="energy", threshold=0.0)
    assert math.isclose(
        ood_scores(energy, {}, logits[None], z[None])[0], -math.log(np.exp(logits).sum()), rel_tol=1e-12
    )

    means, covariance = rng.normal(size=(3, 4)), np.diag([1.0, 4.0, 0.25, 2.0])
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    expected = min((z - m) @ np.linalg.inv(covariance) @ (z - m) for m in means)
    arrays = {"ood/means": means, "ood/whitening": whitening}
    found = ood_scores(OutOfDistribution(method="mahalanobis", threshold=0.0), arrays, logits[None], z[None])[0]
    assert math.isclose(found, expected, rel_tol=1e-5)

    bank = rng.normal(size=(20, 4))
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    expected = np.sort(np.linalg.norm(bank - z / np.linalg.norm(z), axis=1))[4]
    rule = OutOfDistribution(method="knn", threshold=0.0, neighbours=5)
    assert math.isclose(ood_scores(rule, {"ood/bank": bank}, logits[None], z[None])[0], expected, rel_tol=1e-5)


def test_the_flag_is_raised_above_the_threshold_only(tmp_path):
    for method, largest in (("mahalanobis", 1e9), ("knn", 2.0)):
        head = {
            "ood/means": np.zeros((1, CHANNELS), np.float32),
            "ood/whitening": np.eye(CHANNELS, dtype=np.float32),
            "ood/bank": np.eye(CHANNELS, dtype=np.float32),
        }
        for threshold, expected in ((0.0, True), (largest, False)):
            rule = OutOfDistribution(method=method, threshold=threshold)
            folder = tiny_bundle(tmp_path / f"{method}{threshold}", head=head, ood=rule)
            found = dermafuse.load(folder).predict(tiny_image())
            assert found.out_of_distribution is expected
            assert found.ood_score > 0


@settings(deadline=None)  # a busy machine is not a failure
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda p: sum(p) > 0))
def test_without_offsets_the_label_is_the_most_probable_class(weights):
    p = np.array(weights) / sum(weights)
    assert p[choose_labels([p], None)[0]] == p.max()
    assert p[choose_labels([p], [0.0] * len(p))[0]] == pytest.approx(p.max())


def test_a_prediction_is_plain_json(predictor):
    found = predictor.predict(tiny_image(), age=50)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["probabilities"] == found.probabilities
    assert set(again) == {
        "probabilities",
        "label",
        "name",
        "malignant_probability",
        "prediction_set",
        "out_of_distribution",
        "ood_score",
        "missing",
        "quality",
    }


def test_bf16_is_close_to_f32_where_the_cpu_has_it(predictor):
    default = Predictor(predictor.bundle)
    difference = np.abs(vector(default.predict(tiny_image())) - vector(predictor.predict(tiny_image())))
    assert difference.max() < (0.05 if default.precision == "bf16" else 1e-5)


def test_an_exif_turned_photograph_is_seen_upright(predictor):
    image = Image.fromarray(tiny_image(height=64, width=48))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    assert predictor.predict(turned.getvalue()).label == predictor.predict(image).label
    np.testing.assert_allclose(
        vector(predictor.predict(turned.getvalue())), vector(predictor.predict(image)), atol=0.02
    )


def test_probabilities_come_as_an_array_too_and_classes_ranked(tmp_path):
    model = dermafuse.load(tiny_bundle(tmp_path / "m"))
    images = [tiny_image(seed) for seed in range(3)]
    table = model.predict_proba(images, age=[50, None, 60])
    answers = model.predict(images, age=[50, None, 60])
    assert table.shape == (3, 7)
    for row, answer in zip(table, answers, strict=True):
        assert dict(zip(model.classes, row.tolist(), strict=True)) == answer.probabilities
        chances = [chance for _, chance in answer.ranked]
        assert dict(answer.ranked) == answer.probabilities
        assert chances == sorted(chances, reverse=True)
    assert model.predict_proba(images[0], age=50).tolist() == table[:1].tolist()
    assert model.predict_proba([]).shape == (0, 7)
