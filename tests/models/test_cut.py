"""The cut: front and tail together are the whole network, and what is frozen is a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from dermafuse.errors import ConfigError
from dermafuse.models.specs import spec

if TYPE_CHECKING:
    import keras

SIZE = 64
LITE0 = "efficientnet_lite0"


def shaken(name: str) -> keras.Model:
    """Return an untrained backbone whose BatchNormalization is not the identity, as trained ones are not."""

    import keras

    from dermafuse.models.backbones import build_backbone

    model = build_backbone(name, image_size=SIZE, weights="random")
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return model


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)


def test_the_activations_at_the_cut_have_the_specified_shape_at_native_size() -> None:
    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import split_at

    front, tail = split_at(build_backbone("efficientnet_lite1", weights="random"), spec("efficientnet_lite1"), "block6")
    assert front.output_shape == tail.input_shape == (None, 15, 15, 112)
    assert tail.output_shape == (None, 8, 8, 1280)
    assert tail.layers[1].name.startswith("block6a")


def test_a_further_graph_can_be_built_on_a_tail_without_nesting(image: np.ndarray) -> None:
    import keras

    from dermafuse.models.cut import split_at

    front, tail = split_at(shaken(LITE0), spec(LITE0), "block7")
    pooled = keras.layers.GlobalAveragePooling2D()(tail.output)
    classifier = keras.Model(tail.input, keras.layers.Dense(7)(pooled))
    assert not any(isinstance(layer, keras.Model) for layer in classifier.layers)
    assert classifier(front(image)).shape == (2, 7)


def test_a_tail_can_be_cut_again(image: np.ndarray) -> None:
    from dermafuse.models.cut import split_at

    model = shaken(LITE0)
    front, tail = split_at(model, spec(LITE0), "block4")
    middle, end = split_at(tail, spec(LITE0), "block7")
    np.testing.assert_allclose(np.asarray(end(middle(front(image)))), np.asarray(model(image)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("stage", "message"), [("stem", "Nothing comes before"), ("block9", "Did you mean 'block")])
def test_a_cut_that_cannot_be_made_is_refused(stage: str, message: str) -> None:
    from dermafuse.models.cut import split_at

    with pytest.raises(ConfigError, match=message):
        split_at(shaken(LITE0), spec(LITE0), stage)


def statistics(model: keras.Model) -> list[np.ndarray]:
    import keras

    return [
        np.array(variable)
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.weights
    ]


def fit(model: keras.Model, inputs: np.ndarray) -> None:
    import keras

    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    whole = keras.Model(model.input, keras.layers.Dense(2)(pooled))
    whole.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    whole.fit(inputs, np.array([0, 1]), epochs=2, verbose=0)


def test_batch_normalisation_does_not_move_while_a_tail_trains(image: np.ndarray) -> None:
    from dermafuse.models.cut import freeze_for_tail, split_at

    model = shaken(LITE0)
    front, tail = split_at(model, spec(LITE0), "block7")
    model.trainable = True  # whatever the flags were before
    freeze_for_tail(tail)
    before = statistics(tail)
    kernel = np.array(tail.get_layer("top_conv").kernel)
    untouched = [np.array(weight) for weight in front.weights]
    fit(tail, np.asarray(front(image)))
    for old, new in zip(before, statistics(tail), strict=True):
        np.testing.assert_array_equal(new, old)
    assert np.abs(np.array(tail.get_layer("top_conv").kernel) - kernel).max() > 0
    assert model.get_layer("top_conv") is tail.get_layer("top_conv")
    for old, new in zip(untouched, front.weights, strict=True):
        np.testing.assert_array_equal(np.array(new), old)


def test_without_the_freeze_batch_normalisation_would_move(image: np.ndarray) -> None:
    from dermafuse.models.cut import split_at

    front, tail = split_at(shaken(LITE0), spec(LITE0), "block7")
    before = statistics(tail)
    fit(tail, np.asarray(front(image)))
    assert any(np.abs(new - old).max() > 0 for old, new in zip(before, statistics(tail), strict=True))


@pytest.mark.parametrize("name", ["efficientnet_b0", LITE0])
def test_a_frozen_backbone_answers_the_same_in_training_and_in_inference(name: str, image: np.ndarray) -> None:
    from dermafuse.models.cut import freeze

    model = shaken(name)
    assert np.abs(np.asarray(model(image, training=True)) - np.asarray(model(image))).max() > 1e-3
    freeze(model)
    np.testing.assert_array_equal(np.asarray(model(image, training=True)), np.asarray(model(image)))
    assert not model.trainable_weights


@pytest.mark.parametrize(
    ("name", "stage"), [("efficientnet_b1", "block6"), ("efficientnet_lite1", "block1"), (LITE0, "top")]
)
def test_training_uncut_from_a_stage_trains_what_the_tail_trains(name: str, stage: str) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import freeze_for_tail, split_at, train_from

    uncut = build_backbone(name, image_size=SIZE, weights="random")
    train_from(uncut, spec(name), stage)
    _, tail = split_at(build_backbone(name, image_size=SIZE, weights="random"), spec(name), stage)
    freeze_for_tail(tail)
    assert tail.trainable_variables
    assert [v.path for v in uncut.trainable_variables] == [v.path for v in tail.trainable_variables]
    rates = {layer.name: layer.rate for layer in uncut.layers if isinstance(layer, keras.layers.Dropout)}
    tail_names = {layer.name for layer in tail.layers}
    assert all((rate > 0) == (dropout in tail_names) for dropout, rate in rates.items())


def test_training_from_the_stem_trains_all_and_from_none_nothing() -> None:
    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import train_from

    model = build_backbone("efficientnet_b0", image_size=SIZE, weights="random")
    train_from(model, spec("efficientnet_b0"), "stem")
    kernels = [v for v in model.weights if v.path.endswith(("kernel", "bias"))]
    assert [v.path for v in model.trainable_variables] == [v.path for v in kernels]
    train_from(model, spec("efficientnet_b0"), None)
    assert not model.trainable_variables
    with pytest.raises(ConfigError, match="There is no stage"):
        train_from(model, spec("efficientnet_b0"), "head")


def test_the_trainable_part_grows_with_earlier_stages() -> None:
    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import train_from

    assert spec(LITE0).shape(spec(LITE0).stage("block5"), 224) == (14, 14, 112)
    model = build_backbone(LITE0, image_size=SIZE, weights="random")
    counts = []
    for stage in reversed(spec(LITE0).stage_names):
        train_from(model, spec(LITE0), stage)
        counts.append(sum(int(np.prod(v.shape)) for v in model.trainable_variables))
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("whole", [True, False])
def test_depthwise_kernels_can_stay_as_they_are(whole: bool) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import freeze_for_tail, split_at, train_from

    model = build_backbone(LITE0, image_size=SIZE, weights="random")
    _, tail = split_at(model, spec(LITE0), "block6")
    if whole:
        train_from(model, spec(LITE0), "block6", depthwise=False)
    else:
        freeze_for_tail(tail, depthwise=False)
    depthwise = [layer for layer in tail.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    pointwise = [layer for layer in tail.layers if type(layer) is keras.layers.Conv2D]
    assert depthwise
    assert pointwise
    assert not any(layer.trainable for layer in depthwise)
    assert all(layer.trainable for layer in pointwise)
