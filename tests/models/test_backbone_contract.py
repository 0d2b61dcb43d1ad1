"""What the house asks of a backbone, asked of every entry of the registry: an entry added is a test added.

Facts and one cut are tested for all; the whole contract for the smallest of each family, for the others with
``pytest -m slow``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from skimage import data

import dermafuse
from dermafuse.commands import train as train_verb
from dermafuse.data.images import load_image
from dermafuse.errors import ConfigError, WeightsError
from dermafuse.exporters.export import export
from dermafuse.models import specs
from dermafuse.models.backbone_spec import BackboneSpec, DownloadedWeights
from dermafuse.models.specs import SPECS, describe_stages, spec
from dermafuse.models.weights import refuse_missing
from dermafuse.runtime.bundle.folder import read_bundle, write_bundle
from dermafuse.runtime.explain.explainer import Explainer
from dermafuse.training.config import resolve, to_toml
from dermafuse.training.partition import (
    deployable,
    front_path,
    head_spec,
    plan_network,
    store_key,
    trainable_model,
    whole_model,
)
from tiny_bundle import tiny_content, tiny_encoder

if TYPE_CHECKING:
    import keras

SIZE = 64

#: The smallest of each family.
FIRST = {
    min((each for each in SPECS.values() if each.family == family), key=lambda each: each.parameters).name
    for family in {each.family for each in SPECS.values()}
}
DOWNLOADED = [name for name, backbone in SPECS.items() if isinstance(backbone.weights, DownloadedWeights)]


def quick(*names: str, of: Iterable[str] = SPECS) -> list[object]:
    """Return parameters for ``of``: these in the default suite, the others with ``-m slow``."""
    return [pytest.param(name, marks=[] if name in names else [pytest.mark.slow]) for name in of]


ALL = quick(*FIRST)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)


def shake(model: keras.Model) -> keras.Model:
    """Move what training would have moved, so that no normalisation is the identity and no branch is silent."""
    rng = np.random.default_rng(3)
    for variable in model.weights:
        name = variable.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    return model


@cache
def shaken(name: str) -> keras.Model:
    """Return an untrained backbone as a trained one would be, built once for the tests that only read it."""

    from dermafuse.models.backbones import build_backbone

    return shake(build_backbone(name, image_size=SIZE, weights="random"))


def close(found: np.ndarray, wanted: np.ndarray, share: float = 1e-5) -> None:
    largest = np.abs(wanted).max()
    assert largest > 0.01
    assert np.abs(found - wanted).max() <= share * largest


# --- what the registration says


@pytest.mark.parametrize("backbone", SPECS.values(), ids=list(SPECS))
def test_a_registration_agrees_with_itself(backbone: BackboneSpec) -> None:
    names = backbone.stage_names
    assert len(names) == len(set(names)) >= 3
    assert not {"all", "none", "", "pooled", "image"} & set(names), "these words mean something else in unfreeze_from"
    reductions = [stage.reduction for stage in backbone.stages]
    assert reductions == sorted(reductions)
    assert backbone.features == backbone.stages[-1].channels
    assert backbone.stage_index(backbone.tail) > 0
    assert backbone.stage_index(backbone.float32_until) >= 0
    assert specs.check_image_size(backbone.image_size) >= reductions[-1]
    assert len(backbone.weights.digest) == {"md5": 32, "sha256": 64}[backbone.weights.algorithm]
    assert backbone.weights.licence
    assert f"{names[1]} to {names[-2]} or {names[-1]}" in describe_stages()
    with pytest.raises(ConfigError, match=f"no stage 'block99' in {backbone.name}; choose one of {names[0]}"):
        backbone.stage("block99")
    with pytest.raises(ConfigError, match="Nothing comes before"):
        backbone.before(names[0])


def test_all_that_were_asked_for_are_registered() -> None:
    asked = {f"efficientnet_b{n}" for n in range(5)} | {f"efficientnet_v2_b{n}" for n in range(4)}
    asked |= {f"efficientnet_lite{n}" for n in range(3)} | {"convnext_tiny"}
    assert asked <= set(SPECS)


def test_the_stages_of_efficientnets_keep_the_names_that_configurations_have() -> None:
    for name in ("efficientnet_b0", "efficientnet_b4", "efficientnet_lite2"):
        assert spec(name).stage_names == ("stem", *(f"block{number}" for number in range(1, 8)), "top")


@pytest.mark.parametrize("name", DOWNLOADED)
def test_address_and_hash_of_the_weights_are_those_of_keras_applications(name: str) -> None:
    from keras.src.applications import convnext as keras_convnext
    from keras.src.applications import efficientnet as keras_v1
    from keras.src.applications import efficientnet_v2 as keras_v2

    module, key = {
        "EfficientNet": (keras_v1, name[-2:]),
        "EfficientNetV2": (keras_v2, name[-2:]),
        "ConvNeXt": (keras_convnext, name),
    }[SPECS[name].family]
    source = SPECS[name].weights
    assert isinstance(source, DownloadedWeights)
    assert source.digest == module.WEIGHTS_HASHES[key][1]
    assert source.url == module.BASE_WEIGHTS_PATH + source.file
    assert source.file.endswith("_notop.h5")


@pytest.mark.parametrize("name", DOWNLOADED)
def test_without_a_network_the_ways_out_are_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("dermafuse.models.download.tempfile.gettempdir", lambda: str(tmp_path))
    source = dataclasses.replace(SPECS[name].weights, url="http://127.0.0.1:9/")
    monkeypatch.setitem(specs.SPECS, name, dataclasses.replace(SPECS[name], weights=source))
    with pytest.raises(WeightsError, match=r"--weights FILE.*--backbone efficientnet_lite1") as caught:
        refuse_missing(name)
    assert source.file in str(caught.value)


def test_help_names_every_backbone_and_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    from dermafuse.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert train_verb.SPECS is SPECS
    for backbone in SPECS.values():
        assert backbone.name in text
        assert backbone.stage_names[-2] in text


@pytest.mark.parametrize("name", SPECS)
def test_a_recipe_that_fine_tunes_takes_the_stage_of_the_backbone_it_is_given(name: str) -> None:
    assert resolve("standard", options={"backbone": name}).unfreeze_from == spec(name).tail
    assert resolve("standard", options={"backbone": name, "unfreeze_from": "top"}).unfreeze_from == "top"
    assert resolve("standard", options={"backbone": name}, assignments=["unfreeze_from=none"]).unfreeze_from is None
    assert resolve("seed", options={"backbone": name}).unfreeze_from is None


def test_the_recipes_of_before_resolve_to_block4() -> None:
    assert resolve("standard").unfreeze_from == resolve("best").unfreeze_from == "block4"
    assert resolve("best", assignments=["members=['convnext_tiny']"]).unfreeze_from == "stage3"


def test_members_of_an_ensemble_must_all_have_the_stage(tmp_path: Path) -> None:
    from dermafuse.progress import SILENT
    from dermafuse.training.start import train

    config = resolve(
        "best", options={"data": str(tmp_path)}, assignments=["members=['convnext_tiny', 'efficientnet_b0']"]
    )
    with pytest.raises(ConfigError, match="no stage 'stage3' in efficientnet_b0"):
        train(config, tmp_path / "out", resume=False, overwrite=False, report=SILENT)


# --- the built network is what the registration says


@pytest.mark.parametrize("name", SPECS)
def test_a_network_is_what_its_registration_says(name: str, image: np.ndarray) -> None:
    import keras

    from dermafuse.models.backbones import stage_output

    backbone, model = spec(name), shaken(name)
    assert model.count_params() == backbone.parameters
    assert (model.inputs[0].name, model.inputs[0].dtype) == ("image_input", "float32")
    for stage in backbone.stages:
        assert stage_output(model, stage).shape == (None, *backbone.shape(stage, SIZE)), stage
    assert model.output is stage_output(model, backbone.stages[-1])
    assert not any(isinstance(layer, keras.Model) for layer in model.layers), "un-nested"
    named = ("image_input", "input_", *(stage.name for stage in backbone.stages))
    assert all(layer.name.startswith(named) for layer in model.layers), "none that Keras numbered"
    normalised = keras.Model(model.input, model.get_layer(backbone.normalisation.layer).output)
    mean, deviation = np.array(backbone.normalisation.mean), np.array(backbone.normalisation.deviation)
    np.testing.assert_allclose(np.asarray(normalised(image)), (image / 255 - mean) / deviation, atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_tail_of_front_is_the_whole_network_where_recipes_cut(name: str, image: np.ndarray) -> None:
    cut_and_compare(name, spec(name).tail, np.asarray(shaken(name)(image)), image)


@pytest.mark.parametrize("name", ALL)
def test_tail_of_front_is_the_whole_network_at_every_stage(name: str, image: np.ndarray) -> None:
    whole = np.asarray(shaken(name)(image))
    for stage in spec(name).stage_names[1:]:
        cut_and_compare(name, stage, whole, image)


def cut_and_compare(name: str, stage: str, whole: np.ndarray, image: np.ndarray) -> None:
    from dermafuse.models.cut import split_at

    model = shaken(name)
    front, tail = split_at(model, spec(name), stage)
    close(np.asarray(tail(front(image))), whole)
    assert tail.inputs[0].name == "image_input"
    after = [layer.name for layer in tail.layers[1:]]  # all but its input
    both = [layer.name for layer in front.layers] + after
    assert sorted(both) == sorted(layer.name for layer in model.layers), "every layer in one part, and in one only"
    assert all(model.get_layer(name) is tail.get_layer(name) for name in after)


@pytest.mark.parametrize("size", [75, 208, 240])
@pytest.mark.parametrize("name", ALL)
def test_shapes_are_known_at_sizes_that_strides_do_not_divide(name: str, size: int) -> None:
    from dermafuse.models.backbones import build_backbone, stage_output

    model = build_backbone(name, image_size=size, weights="random")
    for stage in spec(name).stages:
        assert stage_output(model, stage).shape == (None, *spec(name).shape(stage, size)), stage


@pytest.mark.parametrize("name", ALL)
def test_what_is_frozen_is_a_constant_and_the_uncut_network_trains_what_the_tail_trains(
    name: str, image: np.ndarray
) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import freeze_for_tail, split_at, train_from

    backbone = spec(name)
    model = shake(build_backbone(name, image_size=SIZE, weights="random"))
    paths = [[v.path for v in each.weights if "seed" not in v.path] for each in (model, shaken(name))]
    assert paths[0] == paths[1], "weights saved by one process, or one fold, are found by the next"
    _, tail = split_at(model, backbone, backbone.tail)
    freeze_for_tail(tail)
    alone = [variable.path for variable in tail.trainable_variables]
    train_from(model, backbone, backbone.tail)
    assert alone == [variable.path for variable in model.trainable_variables] != []
    kept = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert not any(layer.trainable for layer in kept), "statistics stay those of ImageNet"
    normed = [layer for layer in tail.layers if isinstance(layer, keras.layers.LayerNormalization)]
    assert all(layer.trainable for layer in normed), "LayerNormalization has none, and trains"
    train_from(model, backbone, None)
    np.testing.assert_array_equal(np.asarray(model(image, training=True)), np.asarray(model(image)))
    assert not model.trainable_variables


# Tails of EfficientNets are trained by many other tests.
@pytest.mark.parametrize("name", quick("convnext_tiny"))
def test_a_tail_takes_a_training_step_on_this_machine(name: str, image: np.ndarray) -> None:
    import keras
    import tensorflow as tf

    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.cut import freeze_for_tail, split_at

    backbone = spec(name)
    front, tail = split_at(shake(build_backbone(name, image_size=SIZE, weights="random")), backbone, backbone.tail)
    freeze_for_tail(tail)
    activations = tf.constant(np.asarray(front(image)))
    with tf.GradientTape() as tape:  # without the stochastic depth of training, which leaves whole blocks out
        loss = tf.reduce_sum(tail(activations, training=False) ** 2)
    gradients = [np.asarray(each) for each in tape.gradient(loss, tail.trainable_variables)]
    assert all(np.isfinite(each).all() for each in gradients)
    assert all(each.any() for each in gradients)
    pooled = keras.layers.GlobalAveragePooling2D()(tail.output)
    model = keras.Model(tail.input, keras.layers.Dense(2)(pooled))
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(model.fit(activations, np.array([0, 1]), epochs=1, verbose=0).history["loss"][0])


# --- a run of it: bundle, Grad-CAM, export


# The Lite networks are trained, deployed and exported by many other tests.
@pytest.mark.parametrize("name", quick(*(FIRST - {"efficientnet_lite0"})))
def test_bundle_grad_cam_onnx_and_keras_file_agree_with_the_network(name: str, tmp_path: Path) -> None:
    import keras

    from dermafuse.models.classifier import HeadSpec
    from dermafuse.training.export_keras import rebuild, write_keras
    from dermafuse.training.run_folder import TRAINED_WEIGHTS, save_trained_weights

    backbone, encoder = spec(name), tiny_encoder()
    options = {"backbone": name, "weights": "random", "image_size": SIZE, "precision": "f32"}
    config = resolve("seed", options={**options, "unfreeze_from": backbone.tail})
    plan = plan_network(config)
    trained = shake(trainable_model(plan, HeadSpec(classes=7, meta_width=encoder.width), config))
    content = tiny_content(
        models=(deployable(trained, plan, config),),
        head={"baseline/embedding": np.zeros(backbone.features, np.float32)},
        image_size=SIZE,
        encoder=encoder,
        temperature=1.0,
        prediction_set=None,
        ood=None,
        info={"backbone": name, "weights": plan.weights, "announcements": ["RANDOM WEIGHTS."]},
    )
    run = tmp_path / "run"
    write_bundle(run / "model", content)
    save_trained_weights(run / TRAINED_WEIGHTS, trained)
    (run / "config.toml").write_text(to_toml(config))

    predictor = dermafuse.load(run, precision="f32")
    photograph = np.ascontiguousarray(data.chelsea()[:256, :256])
    answer = predictor.predict(photograph, age=50, sex="male", localization="back")
    found = np.array([answer.probabilities[code] for code in predictor.bundle.classes])
    inputs = {
        "image_input": load_image(photograph, SIZE)[np.newaxis].astype(np.float32),
        "meta_input": predictor.encode({"age": 50, "sex": "male", "localization": "back"})[np.newaxis],
    }
    network = rebuild(run, read_bundle(run))
    logits = np.asarray(network(inputs, training=False))[0]
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert wanted.max() - wanted.min() > 1e-3, "an answer that says something"
    np.testing.assert_allclose(found, wanted, atol=1e-4)

    explained = Explainer(predictor).explain(photograph, age=50, what_if=False)
    assert explained.cam.shape == backbone.shape(backbone.stages[-1], SIZE)[:2]
    assert np.isfinite(explained.cam).all()

    assert export(run, "onnx", tmp_path / "onnx")["verified"]["largest_difference"] < 1e-4

    again = keras.saving.load_model(write_keras(network, tmp_path), compile=False, safe_mode=True)
    np.testing.assert_allclose(np.asarray(again(inputs, training=False))[0], logits, rtol=1e-5, atol=1e-5)
    assert {v.path for v in again.trainable_variables} == {v.path for v in trained.trainable_variables}


# --- published weights


# B1 has its own tests (test_weights.py).
@pytest.mark.parametrize("name", quick("efficientnet_v2_b0", "convnext_tiny", of=DOWNLOADED))
def test_a_published_file_gives_the_answers_of_kerass_own_download(
    name: str, tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
    from keras.src.utils import file_utils

    from dermafuse.models.backbones import build_backbone

    source = SPECS[name].weights
    shape = {"include_top": False, "input_shape": (SIZE, SIZE, 3)}
    classes = {each.lower(): each for each in dir(keras.applications)}
    make = getattr(keras.applications, classes[source.file.split("_notop")[0].replace("-", "").replace("_", "")])
    theirs = make(weights=None, **shape)
    rng = np.random.default_rng(5)
    for variable in theirs.weights:
        kind = variable.path.rsplit("/", 1)[-1]
        if kind == "kernel":
            variable.assign(rng.normal(0, np.sqrt(2 / np.prod(variable.shape[:-1])), variable.shape))
        elif kind in ("mean", "variance"):
            variable.assign(SPECS[name].normalisation.mean if kind == "mean" else SPECS[name].normalisation.deviation)
        elif kind != "count":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    path = tmp_path / source.file
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, theirs)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))
    wanted = np.asarray(make(weights="imagenet", **shape)(image))

    hasher = hashlib.new(source.algorithm)
    hasher.update(path.read_bytes())
    known = dataclasses.replace(source, digest=hasher.hexdigest())
    monkeypatch.setitem(specs.SPECS, name, dataclasses.replace(SPECS[name], weights=known))
    close(np.asarray(build_backbone(name, image_size=SIZE, weights=path)(image)), wanted, 1e-4)


# --- what exists stays as it is


#: Of the code before the registry: keys of the activation stores and names of fronts, paths and shapes of the whole
#: network's variables, what trains from block6, what weights.safetensors holds, and random-seed0 itself.
BEFORE = {
    "efficientnet_b0": "3d4b90513411 fb2e9d33213d ed0861ecb3c4 8a84084a2a4d becbff8b0403",
    "efficientnet_b1": "6b862c859519 bf01c5bd91ba f01a04b82776 dc3d50cedba9 75b71d175733",
    "efficientnet_lite0": "091c3743e460 497e45f6391e 04ab02b4f4d1 2d2482fe0d53 62fdff28d627",
    "efficientnet_lite1": "cdc43e30a589 35695e119afb 4c5ec94349f5 6924fd5824d3 4342cd6d41ae",
    "efficientnet_lite2": "f71f460a96eb cbf616c98855 4c5ec94349f5 6924fd5824d3 d4875eb6634f",
}


@pytest.mark.parametrize("name", BEFORE)
def test_stores_and_fronts_of_before_are_found(name: str) -> None:
    keys: list[object] = []
    for stage in ("none", "block1", "block4", "block6", "top"):
        options = {"backbone": name, "unfreeze_from": stage, "precision": "f32", "image_size": 75}
        plan = plan_network(resolve("seed", options=options))
        key = store_key(plan)
        keys.append([key.digest, front_path(plan).name, list(key.shape)])
        keys.append(store_key(dataclasses.replace(plan, precision="bf16")).digest)
    assert short(keys) == BEFORE[name].split()[0]


@pytest.mark.parametrize("name", quick("efficientnet_b1", "efficientnet_lite1", of=BEFORE))
def test_saved_weights_of_before_fit_and_random_weights_are_the_same(name: str) -> None:
    from dermafuse.models.backbones import build_backbone

    options = {"backbone": name, "unfreeze_from": "block6", "weights": "random", "image_size": 64, "precision": "f32"}
    config = resolve("seed", options=options)
    plan = plan_network(config)
    whole = whole_model(plan, head_spec(config, 7, 5), config)
    tail = trainable_model(plan, head_spec(config, 7, 5), config)
    alone = build_backbone(name, image_size=64, weights="random")
    values = b"".join(np.asarray(variable).tobytes() for variable in alone.weights)
    found = [
        short([[v.path, list(v.shape)] for v in whole.weights if "seed" not in v.path]),
        short([v.path for v in whole.trainable_variables]),
        short([v.path for v in tail.weights if "seed" not in v.path]),
        hashlib.sha256(values).hexdigest()[:12],
    ]
    assert found == BEFORE[name].split()[1:]


def short(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
