"""An exported file is enough: ONNX Runtime or OpenVINO, NumPy, and what the file says of itself; nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pytest

from dermafuse.errors import OutputError
from dermafuse.exporters.export import export
from dermafuse.exporters.onnx_graph import to_onnx
from dermafuse.labels import LabelSet
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.predictor import Predictor
from stranger import metadata_vector
from tiny_bundle import tiny_bundle, tiny_encoder, tiny_image, tiny_network

ROOT = Path(__file__).parents[2]
LABELS = LabelSet.of(("bad", "fine", "worse"), names={"bad": "Übel"}, malignant=["bad", "worse"], critical="worse")
RECORDS: list[dict[str, Any]] = [
    {"age": 55, "sex": "male", "localization": "back"},
    {"age": 20.5, "sex": "F", "localization": "head/neck"},
    {"sex": "never heard of", "localization": "FACE"},
    {"age": 80},
    {},
]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "indicators"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = tiny_encoder(indicators=request.param)
    card = "# A model\n\n## Licence and citation\n\nWeights: Apache-2.0.\nImages: CC BY-NC 4.0.\n"
    models = tuple(tiny_network(seed, classes=3, width=encoder.width) for seed in (1, 2))
    head = {f"model-{number}/baseline/embedding": np.zeros(12, np.float32) for number in (1, 2)}
    return tiny_bundle(
        tmp_path_factory.mktemp("b") / "model",
        labels=LABELS,
        encoder=encoder,
        models=models,
        head=head,
        ood=None,
        prediction_set=None,
        card=card,
        offsets=(0.0, -0.5, 0.25),
    )


def asked(bundle: Path, image: np.ndarray) -> list[Any]:
    """What the predictor says of the records: the image has the size of the network, so it is taken as it is."""
    predictor = Predictor(read_bundle(bundle), precision="f32")
    return [predictor.predict(image, **record) for record in RECORDS]


def test_a_stranger_with_the_onnx_file_alone_gets_the_predictors_answers(bundle: Path, tmp_path: Path) -> None:
    export(bundle, "onnx", tmp_path / "out")
    import onnxruntime

    session = onnxruntime.InferenceSession((tmp_path / "out/model.onnx").read_bytes())
    told = session.get_modelmeta().custom_metadata_map
    inputs, classes = json.loads(told["inputs"]), json.loads(told["classes"])
    size = inputs["image_input"]["shape"][1]
    image = tiny_image(3, size, size)
    meta = np.stack([metadata_vector(inputs["meta_input"], record) for record in RECORDS])
    (found,) = session.run(None, {"image_input": np.stack([image] * len(RECORDS)), "meta_input": meta})

    malignant, offsets = json.loads(told["malignant"]), json.loads(told["offsets"])
    for row, wanted in zip(found, asked(bundle, image), strict=True):
        chances = dict(zip(classes, row.tolist(), strict=True))
        assert chances == pytest.approx(wanted.probabilities, abs=1e-5)
        assert sum(chances[code] for code in malignant) == pytest.approx(wanted.malignant_probability, abs=1e-5)
        assert classes[int(np.argmax(np.log(row) + offsets))] == wanted.label
    np.testing.assert_array_equal(meta[-1], np.array(inputs["meta_input"]["absent"], np.float32))


def test_the_files_say_what_they_are_for_and_under_which_licence(bundle: Path, tmp_path: Path) -> None:
    import onnx

    described = {format: export(bundle, format, tmp_path / format) for format in ("onnx", "openvino")}  # type: ignore[arg-type]
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "onnx/model.onnx").metadata_props}
    network = ov.Core().read_model(tmp_path / "openvino/model.xml")
    keys = described["openvino"].keys() - {"verified"}
    info = {key: str(network.get_rt_info(["dermafuse", key]).value) for key in keys}
    for format, told in (("onnx", props), ("openvino", info)):
        whole = json.loads((tmp_path / format / "export.json").read_text())
        assert whole == described[format]
        for key in whole.keys() - {"verified"}:
            assert (told[key] if isinstance(whole[key], str) else json.loads(told[key])) == whole[key]
        assert told["disclaimer"].startswith("Research use only")
        assert told["research_use_only"] == "true"
        assert told["licence"] == "Weights: Apache-2.0. Images: CC BY-NC 4.0."
        assert json.loads(told["names"])["bad"] == "Übel"
        assert (json.loads(told["malignant"]), told["critical"]) == (["bad", "worse"], "worse")
        assert float(told["temperature"]) == 1.3
        image = json.loads(told["inputs"])["image_input"]
        assert (image["range"], image["channels"], image["shape"]) == ([0, 255], "RGB", ["batch", 32, 32, 3])


def test_the_released_model_becomes_onnx(tmp_path: Path) -> None:
    done = export(ROOT / "pretrained/ham10000-lite1", "onnx", tmp_path / "out")
    assert done["verified"]["largest_difference"] < 1e-4
    assert "CC BY-NC" in done["licence"]
    assert done["critical"] == "mel"


def network_of_every_operator() -> ov.Model:
    """Each operator that is translated, those of int8 networks and computed kernels too."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    image = op.parameter(ov.PartialShape([-1, 8, 8, 3]), np.uint8, name="image_input")
    image.output(0).set_names({"image_input"})
    half = op.constant(weights(1, 3, 1, 1).astype(np.float16))
    value = op.transpose(op.convert(image, "f32"), np.array([0, 3, 1, 2]))
    value = op.subtract(op.multiply(value, np.float32(0.01)), op.convert(half, "f32"))
    value = op.fake_quantize(value, np.float32(-1), np.float32(1.5), np.float32(-1), np.float32(1.5), 256)
    value = op.convolution(value, weights(6, 3, 3, 3), [2, 2], [0, 0], [1, 1], [1, 1], "same_upper")
    value = op.clamp(op.swish(value), -0.5, 6.0)
    small = op.constant(rng.integers(-9, 9, (3, 2, 2, 3, 3)).astype(np.int8))
    kernel = op.multiply(op.convert(small, "f32"), np.float32(0.02))
    value = op.group_convolution(value, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    value = op.add(value, op.swish(value, np.float32(1.5)))
    pooled = op.reduce_mean(value, np.array([2, 3]), keep_dims=False)
    rows = op.reshape(value, np.array([0, 6, -1]), True)  # (batch, 6, 16)
    cross = op.matmul(rows, rows, False, True)
    cross = op.softmax(op.einsum([cross, rows], "bij,bjk->bik"), -1)
    turned = op.matmul(cross, weights(6, 6), True, False)
    flat = op.reshape(op.divide(op.tanh(turned), np.float32(3)), np.array([-1, 96]), False)
    flat = op.relu(op.matmul(flat, weights(5, 96), False, True))
    logits = op.sigmoid(op.concat([pooled, flat], 1))
    logits.output(0).get_tensor().set_names({"logits"})
    return ov.Model([op.result(logits)], [image], "all")


def test_every_operator_gives_in_onnx_what_it_gives_in_openvino() -> None:
    import onnxruntime

    model = network_of_every_operator()
    images = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(to_onnx(model, {}).SerializeToString())
    (found,) = session.run(["logits"], {"image_input": images})
    np.testing.assert_allclose(found, compiled({"image_input": images})["logits"], atol=1e-5)
    assert found.std() > 0.01


def test_an_operator_that_is_not_known_is_refused_by_name() -> None:
    image = op.parameter(ov.PartialShape([-1, 8]), np.float32, name="x")
    image.output(0).set_names({"x"})
    strange = op.cum_sum(image, np.array(1))
    strange.output(0).get_tensor().set_names({"y"})
    with pytest.raises(OutputError, match=r"operator 'CumSum'.*--format openvino"):
        to_onnx(ov.Model([op.result(strange)], [image], "strange"), {})
