import itertools
import json
import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import dermafuse
from dermafuse.data.images import load_image
from dermafuse.errors import BundleError, ConfigError, DataError
from dermafuse.labels import DISCLAIMER, HAM10000, LabelSet
from dermafuse.runtime.bundle.folder import OutOfDistribution, write_bundle
from dermafuse.runtime.decision import temperature
from dermafuse.runtime.explain.attribution import grad_cam, shapley
from dermafuse.runtime.explain.differentiable import RULES
from dermafuse.runtime.explain.explainer import AGES, Explainer, stretch
from dermafuse.runtime.explain.headgraph import HeadGraph
from dermafuse.runtime.explain.overlay import blend, draw_overlay, save_overlay, upright
from tiny_bundle import CHANNELS, tiny_bundle, tiny_content, tiny_encoder, tiny_image

SIZE, WIDTH = 32, 9


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return dermafuse.load(tiny_bundle(tmp_path_factory.mktemp("b") / "m"), precision="f32")


@pytest.fixture(scope="module")
def explainer(predictor):
    return Explainer(predictor)


# --- the head and its gradient against TensorFlow


def attention(keras, features, meta):
    """Metadata asks, positions answer."""
    tokens = keras.layers.Reshape((16, CHANNELS))(features)
    query = keras.layers.Reshape((1, 8))(keras.layers.Dense(8, activation="gelu")(meta))
    found = keras.layers.MultiHeadAttention(2, 4)(query, tokens)
    return keras.layers.Concatenate()([keras.layers.Flatten()(found), keras.layers.GlobalAveragePooling2D()(features)])


def pieces(keras, features, meta):
    """Slices, splits by index, clamps, other activations."""
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    joined = keras.ops.concatenate([pooled[:, 2:9], meta[:, :4] ** 2], axis=-1)
    joined = keras.layers.BatchNormalization()(joined)
    joined = keras.layers.Dense(10, activation="swish")(joined)
    joined = keras.ops.softmax(joined) * keras.ops.softplus(joined) + keras.ops.relu6(joined) - keras.ops.exp(-joined)
    return joined / (1.5 + keras.ops.sqrt(keras.ops.sum(joined**2, axis=-1, keepdims=True) + 1e-3))


OWN_FUSIONS = ("concat", "film", "gated", "metablock", "cross_attention", "image_only", "metadata_only")
OTHER_FUSIONS = (attention, pieces)


def keras_network(fusion, width=WIDTH):
    """Return a small untrained classifier: Keras model to (logits, feature map), and its OpenVINO form."""
    import keras

    from dermafuse.models.classifier import HeadSpec, build_head
    from dermafuse.models.openvino import to_openvino

    keras.utils.set_random_seed(3)
    image = keras.Input((SIZE, SIZE, 3), name="image_input", dtype="float32")
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    features = keras.layers.Conv2D(CHANNELS, 8, strides=8, activation="swish", kernel_initializer="he_normal")(scaled)
    if isinstance(fusion, str):
        model = build_head(image, features, HeadSpec(classes=7, meta_width=width, fusion=fusion), seed=1)
    else:
        meta = keras.Input((width,), name="meta_input")
        hidden = keras.layers.Dense(16, activation="relu")(fusion(keras, features, meta))
        model = keras.Model({"image_input": image, "meta_input": meta}, keras.layers.Dense(7)(hidden))
    embedding = keras.layers.GlobalAveragePooling2D()(features)
    inputs = {tensor.name: tensor for tensor in model.inputs}
    outputs = {"logits": model.outputs[0], "feature_map": features, "embedding": embedding}
    whole = keras.Model(inputs, outputs)
    return whole, to_openvino(whole, outputs)


def tape_grad_cam(whole, image, meta, target):
    """Grad-CAM as TensorFlow users write it: logits (7,), feature map, its gradient, and the map (h, w)."""
    import tensorflow as tf

    given = {"image_input": tf.constant(image[None], tf.float32), "meta_input": tf.constant(meta[None], tf.float32)}
    given = {tensor.name: given[tensor.name] for tensor in whole.inputs}
    with tf.GradientTape() as tape:
        tape.watch(given["image_input"])
        outputs = whole(given)
        score = outputs["logits"][0, target]
    gradient = tape.gradient(score, outputs["feature_map"])
    features = outputs["feature_map"][0].numpy()
    gradient = np.zeros_like(features) if gradient is None else gradient[0].numpy()
    cam = np.maximum((features * gradient.mean(axis=(0, 1))).sum(axis=-1), 0)
    return outputs["logits"][0].numpy(), features, gradient, cam


@pytest.mark.parametrize("fusion", [*OWN_FUSIONS, *OTHER_FUSIONS], ids=lambda f: getattr(f, "__name__", f))
def test_grad_cam_equals_the_gradient_tape_for_every_fusion_and_class(fusion, tmp_path):
    whole, network = keras_network(fusion)
    ov.save_model(network, tmp_path / "m.xml", compress_to_fp16=False)
    head = HeadGraph(ov.Core().read_model(tmp_path / "m.xml"))
    rng = np.random.default_rng(0)
    image, meta = rng.integers(0, 256, (SIZE, SIZE, 3)), rng.normal(size=WIDTH)
    for target in range(7):
        logits, features, expected, cam = tape_grad_cam(whole, image, meta, target)
        found_logits, gradient = head.gradient(features, None if fusion == "image_only" else meta, target)
        np.testing.assert_allclose(found_logits, logits, atol=1e-4)
        # The image has no say in a model of the metadata alone.
        assert bool(np.abs(expected).max() > 0) == (fusion != "metadata_only")
        np.testing.assert_allclose(gradient, expected, atol=1e-3 * np.abs(expected).max())
        np.testing.assert_allclose(grad_cam(features, gradient), cam, atol=1e-3 * max(cam.max(), 1e-6))


@pytest.mark.parametrize("half", [False, True])
def test_grad_cam_from_the_bundle_alone_equals_the_gradient_tape(tmp_path, half):
    encoder = tiny_encoder()
    whole, network = keras_network("concat", encoder.width)
    write_bundle(tmp_path / "m", tiny_content(models=(network,)), half_weights=half)
    explainer = Explainer(dermafuse.load(tmp_path / "m"))
    image, meta = load_image(tiny_image(), SIZE), encoder.transform_one({"age": 50, "sex": "male"})
    for target, code in enumerate(HAM10000.codes):
        found = explainer.explain(tiny_image(), target=code, age=50, sex="male")
        logits, _, _, cam = tape_grad_cam(whole, image, meta, target)
        tolerance = 1e-2 if half else 1e-3
        np.testing.assert_allclose(found.cam, cam, atol=tolerance * max(cam.max(), 1e-6))
        expected = temperature.apply(logits, 1.3)
        np.testing.assert_allclose(list(found.prediction.probabilities.values()), expected, atol=tolerance)


def test_the_head_computes_the_networks_own_logits_with_half_weights_too(tmp_path):
    for half in (False, True):
        write_bundle(tmp_path / str(half), tiny_content(), half_weights=half)
        model = dermafuse.load(tmp_path / str(half), precision="f32")
        found = model.explain(tiny_image(), age=50).prediction
        for code, p in model.predict(tiny_image(), age=50).probabilities.items():
            assert found.probabilities[code] == pytest.approx(p, abs=1e-5)


def unknown_head():
    image = op.parameter(ov.PartialShape([-1, SIZE, SIZE, 3]), np.uint8)
    image.output(0).set_names({"image_input"})
    values = op.convert(image, "f32")
    maps = op.avg_pool(op.transpose(values, np.array([0, 3, 1, 2])), [8, 8], [0, 0], [0, 0], [8, 8], False)
    return image, values, maps


def close(image, logits, maps):
    pooled = op.reduce_mean(maps, np.array([2, 3]), keep_dims=False)
    nodes = {"logits": logits(pooled), "feature_map": op.transpose(maps, np.array([0, 2, 3, 1])), "embedding": pooled}
    for name, node in nodes.items():
        node.output(0).get_tensor().set_names({name})
    return ov.Model([op.result(node) for node in nodes.values()], [image], "x")


def test_a_head_that_cannot_be_differentiated_is_refused_with_its_reason():
    image, _, maps = unknown_head()
    with pytest.raises(BundleError, match="'Floor'"):
        HeadGraph(close(image, lambda pooled: op.floor(pooled), maps))
    image, values, maps = unknown_head()
    with pytest.raises(BundleError, match="another way"):
        HeadGraph(close(image, lambda p: op.add(p, op.reduce_mean(values, np.array([1, 2]), keep_dims=False)), maps))


def finite_difference(rule, inputs, attributes, position, weights, step=1e-6):
    base = np.zeros(inputs[position].shape)
    for index in np.ndindex(*base.shape):
        values = []
        for sign in (1, -1):
            moved = [np.array(value) for value in inputs]
            moved[position][index] += sign * step
            values.append((rule(moved, attributes)[0] * weights).sum())
        base[index] = (values[0] - values[1]) / (2 * step)
    return base


R = np.random.default_rng(5)
A, B, P = R.normal(size=(2, 3)), R.normal(size=(1, 3)), R.uniform(0.5, 2.0, (2, 3))
CASES = {
    "Convert": ([A], {}),
    "Relu": ([A], {}),
    "Sigmoid": ([A], {}),
    "Tanh": ([A], {}),
    "Exp": ([A], {}),
    "Log": ([P], {}),
    "Sqrt": ([P], {}),
    "Negative": ([A], {}),
    "SoftPlus": ([A], {}),
    "Erf": ([A], {}),
    "Swish": ([A], {}),
    "Gelu": ([A], {"approximation_mode": "ERF"}),
    "Clamp": ([A], {"min": -0.5, "max": 0.5}),
    "Add": ([A, B], {}),
    "Subtract": ([A, B], {}),
    "Multiply": ([A, B], {}),
    "Divide": ([A, P], {}),
    "Maximum": ([A, B], {}),
    "Minimum": ([A, B], {}),
    "SquaredDifference": ([A, B], {}),
    "Power": ([P, np.array(-0.5)], {}),
    "MatMul": ([A, R.normal(size=(3, 4))], {}),
    "Einsum": ([A, R.normal(size=(2, 4, 3))], {"equation": "ab,acb->ca"}),
    "Softmax": ([A], {"axis": 1}),
    "ReduceMean": ([A, np.array([0])], {"keep_dims": False}),
    "ReduceSum": ([A, np.array([-1])], {"keep_dims": True}),
    "Concat": ([A, B], {"axis": 0}),
    "Reshape": ([A, np.array([0, -1])], {"special_zero": True}),
    "Squeeze": ([B, np.array(0)], {}),
    "Unsqueeze": ([A, np.array([0, 3])], {}),
    "Transpose": ([A, np.array([1, 0])], {}),
    "Slice": ([A, np.array([2]), np.array([0]), np.array([-1]), np.array([1])], {}),
    "StridedSlice": (
        [A, np.array([0, 1]), np.array([0, 3]), np.array([1, 1])],
        {"begin_mask": [1, 0], "end_mask": [1, 0], "shrink_axis_mask": []},
    ),
    "Gather": ([A, np.array([2, 0, 2]), np.array(1)], {}),
    "Broadcast": ([B, np.array([4, 3])], {}),
}


def test_every_rule_is_tested():
    assert CASES.keys() | {"FakeQuantize"} == RULES.keys()  # a staircase has a test of its own


@pytest.mark.parametrize("kind", CASES)
def test_every_rule_has_the_derivative_of_its_own_value(kind):
    inputs, attributes = CASES[kind]
    value, backward = RULES[kind](inputs, attributes)
    weights = R.normal(size=value.shape)
    gradients = backward(weights)
    assert len(gradients) == len(inputs)
    for position, found in enumerate(gradients):
        if found is not None:
            expected = finite_difference(RULES[kind], inputs, attributes, position, weights)
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_rule_computes_what_openvino_computes():
    builders = {
        "Gelu": lambda x: op.gelu(x, "tanh"),
        "Swish": lambda x: op.swish(x, np.float32(1.7)),
        "SoftPlus": op.softplus,
        "Clamp": lambda x: op.clamp(x, -0.3, 0.8),
        "Softmax": lambda x: op.softmax(x, 1),
        "FakeQuantize": lambda x: op.fake_quantize(
            x, np.float32(-1), np.float32(1.2), np.float32(-2), np.float32(2), 16
        ),
        "MatMul": lambda x: op.matmul(x, np.ones((5, 3), np.float32), False, True),
        "StridedSlice": lambda x: op.strided_slice(
            x, np.array([0, 0]), np.array([0, 2]), np.array([1, 1]), [1, 1], [1, 0]
        ),
        "Transpose": lambda x: op.transpose(x, np.array([1, 0])),
        "Gather": lambda x: op.gather(x, np.array([2, 1]), np.array(1)),
    }
    values = R.normal(size=(4, 3)).astype(np.float32)
    for kind, build in builders.items():
        parameter = op.parameter([4, 3], np.float32)
        node = build(parameter)
        assert node.get_type_name() == kind
        compiled = ov.Core().compile_model(
            ov.Model([op.result(node)], [parameter], "x"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        expected = compiled([values])[0]
        constants = [node.input_value(i).get_node() for i in range(1, node.get_input_size())]
        inputs = [values.astype(np.float64), *[np.asarray(constant.get_data()) for constant in constants]]
        found, _ = RULES[kind](inputs, node.get_attributes())
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=kind)


def test_a_quantised_head_passes_the_gradient_within_its_range_only():
    x = np.array([-3.0, 0.1, 3.0])
    bounds = [np.array(v) for v in (-1.0, 1.0, -2.0, 2.0)]
    value, backward = RULES["FakeQuantize"]([x, *bounds], {"levels": 256})
    np.testing.assert_allclose(value, [-2.0, 0.2, 2.0], atol=0.01)
    np.testing.assert_allclose(backward(np.ones(3))[0], [0.0, 2.0, 0.0])


# --- attribution


@settings(deadline=None)
@given(
    st.integers(0, 5).flatmap(lambda n: st.tuples(st.just(n), hnp.arrays(float, (2**n, 2), elements=st.floats(-5, 5))))
)
def test_shapley_values_satisfy_their_axioms(game):
    players, worth = game

    def value(present):
        return worth[sum(flag << player for player, flag in enumerate(present))]

    found = shapley(players, value)
    np.testing.assert_allclose(found.sum(axis=0), worth[-1] - worth[0], atol=1e-9)
    # The definition: the mean gain over all orders of arrival.
    expected = np.zeros((players, 2))
    for order in itertools.permutations(range(players)):
        members = 0
        for player in order:
            expected[player] += worth[members | 1 << player] - worth[members]
            members |= 1 << player
    np.testing.assert_allclose(found, expected / math.factorial(players), atol=1e-9)


def test_attribution_among_too_many_players_is_refused():
    with pytest.raises(ConfigError, match="12"):
        shapley(13, lambda present: np.zeros(1))


@pytest.mark.parametrize("members", [1, 2])
def test_attributions_add_up_to_the_prediction_minus_its_baseline(tmp_path, members):
    model = dermafuse.load(tiny_bundle(tmp_path / "m", members=members))
    found = model.explain(tiny_image(), age=60, sex="female", localization="face")
    assert set(found.attributions) == set(model.classes)
    for code, shares in found.attributions.items():
        assert list(shares) == ["image", "age", "sex", "localization"]
        total = found.baseline[code] + sum(shares.values())
        assert total == pytest.approx(found.prediction.probabilities[code], abs=1e-12)
    assert all(abs(share) > 1e-6 for share in found.attributions["mel"].values())
    assert sum(found.baseline.values()) == pytest.approx(1.0)


def test_a_field_that_is_not_known_contributes_nothing(explainer):
    found = explainer.explain(tiny_image(), age=60, sex="unknown", localization=None)
    for shares in found.attributions.values():
        assert shares["sex"] == shares["localization"] == 0.0
    assert found.prediction.missing == ("sex", "localization")


def test_the_absent_image_is_the_mean_training_embedding(predictor, explainer):
    content = tiny_content()
    head = HeadGraph(content.models[0])
    blank = np.broadcast_to(content.head["baseline/embedding"], head.map_shape)
    expected = temperature.apply(head(blank, content.encoder.absent()), 1.3)
    found = explainer.explain(tiny_image(), age=60)
    np.testing.assert_allclose(list(found.baseline.values()), expected, atol=1e-12)


def test_without_a_baseline_the_image_is_left_out_and_that_is_said(tmp_path):
    found = dermafuse.load(tiny_bundle(tmp_path / "m", head={})).explain(tiny_image(), age=60)
    assert "baseline/embedding" in found.notes[0]
    shares = found.attributions["mel"]
    assert list(shares) == ["age", "sex", "localization"]
    assert found.baseline["mel"] + sum(shares.values()) == pytest.approx(
        found.prediction.probabilities["mel"], abs=1e-12
    )


def test_an_image_only_model_is_explained_too(tmp_path):
    found = dermafuse.load(tiny_bundle(tmp_path / "m", metadata=False)).explain(tiny_image())
    assert list(found.attributions["mel"]) == ["image"]
    assert found.what_if == ()
    assert found.heatmap.shape == (4, 4)


# --- what-if, targets, output


def test_what_if_curves_are_predictions_with_one_value_changed(predictor, explainer):
    found = explainer.explain(tiny_image(), age=50, sex="male", localization="back")
    curves = {curve.field: curve for curve in found.what_if}
    assert list(curves) == ["age", "sex", "localization"]
    assert curves["age"].values == AGES
    assert curves["sex"].values == ("female", "male")
    assert curves["localization"].values == ("abdomen", "back", "face", "trunk")
    at = curves["localization"].values.index("face")
    expected = predictor.predict(tiny_image(), age=50, sex="male", localization="face")
    for code in HAM10000.codes:
        assert curves["localization"].probabilities[code][at] == pytest.approx(expected.probabilities[code], abs=1e-5)
    here = curves["age"].values.index(50.0)
    assert curves["age"].probabilities["mel"][here] == pytest.approx(found.prediction.probabilities["mel"])


def test_the_target_defaults_to_the_label_and_unknown_ones_are_refused(explainer):
    found = explainer.explain(tiny_image(), age=50)
    assert found.target == found.prediction.label
    assert explainer.explain(tiny_image(), target="vasc").target == "vasc"
    with pytest.raises(ConfigError, match="Did you mean 'vasc'"):
        explainer.explain(tiny_image(), target="vsc")
    with pytest.raises(ConfigError, match="agee"):
        explainer.explain(tiny_image(), agee=5)
    with pytest.raises(DataError, match="age"):
        explainer.explain(tiny_image(), age="old")


def test_an_explanation_is_plain_json(explainer):
    found = explainer.explain(tiny_image(), age=50)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["disclaimer"] == DISCLAIMER
    assert np.shape(again["cam"]) == (4, 4)
    assert np.max(again["heatmap"]) == 1.0
    assert again["attributions"]["mel"].keys() == {"image", "age", "sex", "localization"}


def test_stretching_keeps_constants_and_agrees_with_pillow():
    assert (stretch(np.full((3, 4), 2.5), (7, 9)) == 2.5).all()
    small = R.normal(size=(4, 6))
    expected = Image.fromarray(small.astype(np.float32)).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(stretch(small, (20, 30)), np.asarray(expected), atol=1e-5)


# --- the picture


def test_colour_appears_only_where_the_heatmap_is_hot():
    pixels = tiny_image(height=40, width=40)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1.0
    mixed = blend(pixels, heat).astype(int)
    assert np.ptp(mixed[20:, 20:], axis=-1).max() <= 1  # grey
    assert np.ptp(mixed[:5, :5], axis=-1).min() > 50


def test_the_picture_shows_the_image_upright_in_its_own_proportions(tmp_path):
    wide = Image.fromarray(tiny_image(height=30, width=60))
    assert upright(wide, 100).shape == (50, 100, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "t.png", exif=exif)
    for source in (tmp_path / "t.png", (tmp_path / "t.png").read_bytes(), str(tmp_path / "t.png")):
        assert upright(source, 100).shape == (100, 50, 3)
    assert upright(tiny_image(height=2, width=300), 100).shape == (25, 100, 3)


@pytest.mark.parametrize("shape", [(45, 60), (200, 50), (50, 200)])
def test_the_picture_is_written_whatever_the_shape(explainer, tmp_path, shape):
    image = tiny_image(height=shape[0], width=shape[1])
    found = explainer.explain(image, age=50, sex="male")
    save_overlay(image, found, tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 800
        assert picture.size == draw_overlay(image, found).size


def test_the_picture_copes_with_long_names_flags_notes_and_a_cold_heatmap(tmp_path):
    names = dict.fromkeys(HAM10000.codes, "a diagnosis with a name that is much too long for any title " * 3)
    rule = OutOfDistribution(method="energy", threshold=-1e9)
    model = dermafuse.load(
        tiny_bundle(
            tmp_path / "m",
            head={},
            labels=LabelSet.of(HAM10000.codes, names={c: n[:190] for c, n in names.items()}),
            ood=rule,
        )
    )
    found = model.explain(tiny_image())
    assert found.prediction.out_of_distribution
    object.__setattr__(found, "cam", np.zeros((4, 4)))
    assert not found.heatmap.any()
    save_overlay(tiny_image(), found, tmp_path / "o.png")
    assert (tmp_path / "o.png").stat().st_size > 5000
