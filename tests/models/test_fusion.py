"""Each fusion is its formula, and is found by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from dermafuse.errors import ConfigError
from dermafuse.models.fusion import FUSIONS, fuse
from dermafuse.training.config import TrainConfig

if TYPE_CHECKING:
    import keras

CHANNELS, WIDTH = 6, 4


def built(name: str) -> tuple[keras.Model, np.ndarray, np.ndarray, np.ndarray]:
    """Return a model from (feature map, metadata) to the fused vector, with random weights, and its inputs."""

    import keras

    keras.utils.set_random_seed(1)
    feature_map = keras.Input((3, 3, CHANNELS))
    meta = keras.Input((WIDTH,))
    pooled = keras.layers.GlobalAveragePooling2D()(feature_map)
    model = keras.Model([feature_map, meta], fuse(name, pooled, meta, feature_map))
    generator = np.random.default_rng(2)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(generator.uniform(0.2, 1.0, variable.shape))
    images = generator.normal(size=(5, 3, 3, CHANNELS)).astype("float32")
    metas = generator.normal(size=(5, WIDTH)).astype("float32")
    return model, images, metas, images.mean(axis=(1, 2))


def dense(model: keras.Model, name: str, value: np.ndarray) -> np.ndarray:
    kernel, bias = model.get_layer(name).get_weights()
    return value @ kernel + bias


def sigmoid(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))


def test_film_scales_and_shifts_the_channels() -> None:
    model, images, metas, pooled = built("film")
    expected = pooled * (1 + dense(model, "fusion_scale", metas)) + dense(model, "fusion_shift", metas)
    np.testing.assert_allclose(model([images, metas]), expected, rtol=1e-4, atol=1e-5)


def test_film_starts_as_the_image_alone() -> None:
    import keras

    keras.utils.set_random_seed(1)
    image, meta = keras.Input((CHANNELS,)), keras.Input((WIDTH,))
    model = keras.Model([image, meta], fuse("film", image, meta))
    given = np.random.default_rng(0).normal(size=(3, CHANNELS)).astype("float32")
    np.testing.assert_array_equal(model([given, np.ones((3, WIDTH), "float32")]), given)


def test_the_gate_opens_channels_and_the_metadata_follow() -> None:
    model, images, metas, pooled = built("gated")
    gated = pooled * sigmoid(dense(model, "fusion_gate", metas))
    np.testing.assert_allclose(model([images, metas]), np.concatenate([gated, metas], axis=1), rtol=1e-4, atol=1e-5)


def test_metablock_is_the_formula_of_its_paper() -> None:
    model, images, metas, pooled = built("metablock")

    def normalised(name: str) -> np.ndarray:
        gamma, beta, mean, variance = model.get_layer(f"{name}_norm").get_weights()
        return (dense(model, name, metas) - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    expected = sigmoid(np.tanh(pooled * normalised("fusion_f")) + normalised("fusion_g"))
    np.testing.assert_allclose(model([images, metas]), expected, rtol=1e-4, atol=1e-5)


def test_what_cross_attention_finds_depends_on_the_metadata_and_on_where_things_are() -> None:
    model, images, metas, pooled = built("cross_attention")
    fused = np.array(model([images, metas]))
    assert fused.shape == (5, 2 * CHANNELS + WIDTH)
    np.testing.assert_allclose(fused[:, :CHANNELS], pooled, rtol=1e-4, atol=1e-5)
    found = fused[:, CHANNELS:-WIDTH]
    assert not np.allclose(found, np.array(model([images, -metas]))[:, CHANNELS:-WIDTH], atol=1e-4)
    turned = images[:, ::-1].copy()  # the same values elsewhere: attention without positions finds the same
    np.testing.assert_allclose(found, np.array(model([turned, metas]))[:, CHANNELS:-WIDTH], rtol=1e-4, atol=1e-4)
    spread = np.repeat(np.repeat(pooled[:, None, None], 3, axis=1), 3, axis=2)  # the same mean, nothing to find
    assert not np.allclose(found, np.array(model([spread, metas]))[:, CHANNELS:-WIDTH], atol=1e-4)


def test_cross_attention_without_a_feature_map_says_what_to_do() -> None:
    from dermafuse.models.classifier import HeadSpec, pooled_classifier

    with pytest.raises(ConfigError, match="unfreeze-from"):
        pooled_classifier(CHANNELS, HeadSpec(classes=7, meta_width=WIDTH, fusion="cross_attention"), seed=0)


@pytest.mark.parametrize("name", sorted(set(FUSIONS) - {"cross_attention"}))
def test_every_other_fusion_works_on_pooled_features(name: str) -> None:
    from dermafuse.models.classifier import HeadSpec, pooled_classifier

    model = pooled_classifier(CHANNELS, HeadSpec(classes=7, meta_width=WIDTH, fusion=name), seed=0)
    inputs = {"image_input": np.ones((2, CHANNELS), "float32"), "meta_input": np.ones((2, WIDTH), "float32")}
    assert model(inputs).shape == (2, 7)


def test_every_fusion_is_a_setting_and_every_setting_a_fusion() -> None:
    offered = get_args(TrainConfig.model_fields["fusion"].annotation)
    assert offered == tuple(FUSIONS)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_makes_one_vector_a_record_and_all_of_it_trains(name: str) -> None:
    model, images, metas, _ = built(name)
    found = np.asarray(model([images, metas]))
    assert found.ndim == 2
    assert len(found) == len(images)
    assert np.isfinite(found).all()
    kernels = [variable for variable in model.trainable_variables if variable.path.endswith("kernel")]
    assert all(layer.name.startswith("fusion_") for layer in model.layers if layer.weights), "the head's, by name"
    assert bool(kernels) == (name not in ("concat", "image_only", "metadata_only"))
    alone = np.concatenate([np.asarray(model([images[i : i + 1], metas[i : i + 1]])) for i in range(len(images))])
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5, err_msg="a record's answer is its own")


def test_an_unknown_fusion_is_refused_with_the_nearest_name() -> None:
    import keras

    with pytest.raises(ConfigError, match="metablock"):
        fuse("metablok", keras.Input((3,)), keras.Input((3,)))


def test_without_metadata_the_image_is_the_answer_except_where_the_metadata_are_all() -> None:
    import keras

    image = keras.Input((3,))
    assert fuse("film", image, None) is image
    with pytest.raises(ConfigError, match="image_only"):
        fuse("metadata_only", image, None)
