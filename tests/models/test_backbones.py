"""Backbones: the published networks, with stages where the specification says, and the port proven on photographs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dermafuse.errors import ConfigError
from dermafuse.models.specs import SPECS, check_image_size, spec

LITE = [name for name in SPECS if SPECS[name].family == "EfficientNet-Lite"]
CATS = range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian
ESPRESSO, CUP = 967, 968

# Trainable parameters with the classifier, as published with the reference implementation.
PUBLISHED_TOTAL = {"efficientnet_lite0": 4_652_008, "efficientnet_lite1": 5_416_680, "efficientnet_lite2": 6_092_072}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all of these tests, none of the user's."""
    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path_factory.getbasetemp() / "backbones-cache"))


def test_b1_has_the_6575239_parameters_of_keras_own() -> None:
    import keras

    own = keras.applications.EfficientNetB1(weights=None, include_top=False)
    assert own.count_params() == spec("efficientnet_b1").parameters == 6_575_239


@pytest.mark.parametrize("name", LITE)
def test_a_lite_network_names_cats_and_coffee_as_imagenet_does(name: str) -> None:
    from dermafuse.models.backbones import build_lite_classifier

    model = build_lite_classifier(name)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable == PUBLISHED_TOTAL[name]
    size = spec(name).image_size
    photographs = np.stack([square(data.chelsea(), size), square(data.coffee(), size)])
    logits = np.asarray(model(photographs))
    assert logits[0].argmax() in CATS
    assert logits[1].argmax() in (ESPRESSO, CUP)


@pytest.mark.parametrize("name", LITE)
def test_the_classifier_stands_on_the_backbone_that_training_uses(name: str) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone, build_lite_classifier, stage_output

    classifier = build_lite_classifier(name, image_size=64)
    backbone = build_backbone(name, image_size=64)
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    features = keras.Model(classifier.input, stage_output(classifier, spec(name).stage("top")))
    np.testing.assert_array_equal(np.asarray(features(image)), np.asarray(backbone(image)))


def test_lite_pixels_are_scaled_to_minus_one_to_one() -> None:
    import keras

    from dermafuse.models.backbones import build_backbone

    model = build_backbone("efficientnet_lite0", image_size=32, weights="random")
    scaled = keras.Model(model.input, model.get_layer("input_rescaling").output)
    image = np.zeros((1, 32, 32, 3), np.float32)
    image[0, 0] = 255
    found = np.asarray(scaled(image))
    assert (found.min(), found.max()) == (-1, 1)


def square(photograph: np.ndarray, size: int) -> np.ndarray:
    """Return the middle of a uint8 photograph as float32 (size, size, 3)."""
    height, width = photograph.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC), np.float32)


@pytest.mark.parametrize("size", [0, 31, 1025, -240, 240.0, "240", True, None])
def test_an_unusable_image_size_is_refused_with_the_range(size: object) -> None:
    with pytest.raises(ConfigError, match="from 32 to 1024"):
        check_image_size(size)


def test_a_build_of_unusable_size_is_refused() -> None:
    from dermafuse.models.backbones import build_backbone

    with pytest.raises(ConfigError, match="5000"):
        build_backbone("efficientnet_lite0", image_size=5000, weights="random")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    from dermafuse.models.backbones import build_backbone, build_lite_classifier

    with pytest.raises(ConfigError, match="Did you mean 'efficientnet_b1'"):
        build_backbone("efficientnetb1")
    with pytest.raises(ConfigError, match="Did you mean 'block6'"):
        spec("efficientnet_b1").stage("blok6")
    with pytest.raises(ConfigError, match="Only the Lite"):
        build_lite_classifier("efficientnet_b0")


def test_a_model_without_the_stage_is_refused() -> None:
    import keras

    from dermafuse.models.backbones import stage_output

    image = keras.Input((8, 8, 3))
    with pytest.raises(ConfigError, match="does not contain the backbone stage 'block6'"):
        stage_output(keras.Model(image, keras.layers.ReLU()(image)), spec("efficientnet_b0").stage("block6"))


def test_a_backbone_survives_kerass_own_file_format(tmp_path: Path) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone

    model = build_backbone("efficientnet_b0", image_size=32, weights="random")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    image = np.full((1, 32, 32, 3), 100, np.float32)
    np.testing.assert_allclose(again.predict(image, verbose=0), model.predict(image, verbose=0), rtol=1e-5, atol=1e-6)


def test_specifications_load_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys; from dermafuse.models.specs import SPECS, spec; [s.stages for s in SPECS.values()];"
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
