"""Front and trained part joined are the network that Keras trained; the float32 start is kept in float32."""

import numpy as np
import openvino as ov
import pytest

from dermafuse.models.network_spec import HeadSpec
from dermafuse.models.specs import spec
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.partition import cut_shape, deployable, inference_model, plan_network, trainable_model

HEAD = HeadSpec(classes=7, meta_width=5)


def settings(**options: object) -> TrainConfig:
    base = {"backbone": "efficientnet_lite0", "weights": "random", "image_size": 64, "precision": "f32"}
    return resolve("seed", options={**base, **options})


def run(model: ov.Model, precision: str = "f32", **inputs: np.ndarray) -> dict[str, np.ndarray]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    results = compiled(inputs)
    return {name: results[name] for name in ("logits", "feature_map", "embedding")}


@pytest.mark.parametrize(
    "options", [{}, {"unfreeze_from": "block6"}, {"unfreeze_from": "block2"}, {"cache": False}], ids=str
)
def test_the_deployed_network_gives_the_logits_of_the_trained_one(options: dict[str, object]) -> None:
    config = settings(**options)
    plan = plan_network(config)
    trained = trainable_model(plan, HEAD, config)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    meta = generator.normal(size=(3, 5)).astype(np.float32)
    got = run(deployable(trained, plan, config), image_input=images, meta_input=meta)
    assert got["logits"].shape == (3, 7)
    assert got["feature_map"].shape == (3, 2, 2, 1280)
    np.testing.assert_allclose(got["embedding"], got["feature_map"].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    whole = trainable_model(plan_network(settings(cache=False)), HEAD, settings(cache=False))
    for layer in trained.layers:
        if layer.weights:
            whole.get_layer(layer.name).set_weights(layer.get_weights())
    expected = whole({"image_input": images.astype(np.float32), "meta_input": meta}, training=False)
    np.testing.assert_allclose(got["logits"], np.array(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [64, 75, 240])
@pytest.mark.parametrize("stage", ["block1", "block4", "block6", "top"])
def test_the_shape_at_a_cut_is_known_without_building_the_network(size: int, stage: str) -> None:
    from dermafuse.models.backbones import build_backbone, stage_output

    config = settings(image_size=size, unfreeze_from=stage)
    network = build_backbone("efficientnet_lite0", image_size=size, weights="random")
    before = {"block1": "stem", "block4": "block3", "block6": "block5", "top": "block7"}[stage]
    assert cut_shape(plan_network(config)) == tuple(
        stage_output(network, spec("efficientnet_lite0").stage(before)).shape[1:]
    )


def test_a_float32_start_survives_saving_and_is_closer_to_float32(tmp_path: object) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone, stage_output
    from dermafuse.models.openvino import to_openvino, with_float32_start

    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    network = build_backbone("efficientnet_lite0", image_size=64, weights="random")
    pooled = keras.layers.GlobalAveragePooling2D()(network.outputs[0])
    outputs = {"activation": pooled, "until": stage_output(network, spec("efficientnet_lite0").stage("block7"))}
    plain = to_openvino(network, {"activation": pooled})
    marked = with_float32_start(to_openvino(network, outputs), "until")
    assert [name for port in marked.outputs for name in port.get_names()] == ["activation"]
    path = f"{tmp_path}/again.xml"
    ov.save_model(marked, path, compress_to_fp16=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)

    def features(model: ov.Model, precision: str) -> np.ndarray:
        found: np.ndarray = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})(images)[0]
        return found

    exact = features(plain, "f32")
    error = np.abs(features(plain, "bf16") - exact).max()
    for model in (marked, core.read_model(path)):
        assert np.abs(features(model, "bf16") - exact).max() < error / 3


def test_a_tail_in_mixed_precision_computes_the_same_function_and_gives_its_weights_back() -> None:
    import keras

    from dermafuse.models.cut import copy_weights, with_bf16_pointwise

    config = settings(unfreeze_from="block6")
    plan = plan_network(config)
    plain = trainable_model(plan, HEAD, config)
    tail = keras.Model(plain.input["image_input"], plain.get_layer("image_pool").output)
    faster = with_bf16_pointwise(tail)
    policies = {layer.name: layer.dtype_policy.name for layer in faster.layers if "conv" in layer.name}
    assert set(policies.values()) == {"mixed_bfloat16", "float32"}
    assert all(name == "float32" for layer, name in policies.items() if "dwconv" in layer)
    batch = np.random.default_rng(0).normal(size=(2, *cut_shape(plan))).astype(np.float32)
    a, b = np.array(tail(batch)), np.array(faster(batch))
    np.testing.assert_allclose(b, a, atol=0.05 * np.abs(a).max())
    for variable in faster.weights:
        variable.assign(variable + 0.01)
    copy_weights(faster, tail)
    for variable, other in zip(tail.weights, faster.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_judging_and_deploying_use_float32_whatever_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermafuse.runtime.engine.supports_bf16", lambda: True)
    config = settings(unfreeze_from="block7", precision="bf16")
    plan = plan_network(config)
    trained = trainable_model(plan, HEAD, config)
    judged = inference_model(trained, plan, HEAD, config)
    assert {layer.dtype_policy.name for layer in judged.layers} == {"float32"}
    for variable in judged.weights:
        if "seed" not in variable.path:
            np.testing.assert_array_equal(variable, next(v for v in trained.weights if v.path == variable.path))
