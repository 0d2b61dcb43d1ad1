"""Exported models give the bundle's answers in ONNX Runtime, OpenVINO and Keras, or are not written at all."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import safetensors.numpy

from dermafuse.commands import export as verb
from dermafuse.commands.parsing import VerbParser
from dermafuse.data.images import load_image
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import BundleError, ConfigError, DermafuseError, OutputError
from dermafuse.exporters.export import export
from dermafuse.exporters.verify import Sample, verify
from dermafuse.runtime.bundle.folder import read_bundle, write_bundle
from dermafuse.runtime.predictor import Predictor
from dermafuse.training.config import resolve, to_toml
from tiny_bundle import tiny_bundle, tiny_content, tiny_encoder

TEMPERATURE = 1.7
FIRST = "concat, frozen backbone"
KINDS = {
    FIRST: ("concat", "none"),
    "concat, from block6": ("concat", "block6"),
    "image_only, frozen backbone": ("image_only", "none"),
    "metadata_only, frozen backbone": ("metadata_only", "none"),
}


class Heard:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture(scope="module")
def make_run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """RUN folders by kind, as training leaves them, with weights moved at random in the place of training."""
    from dermafuse.models.classifier import HeadSpec
    from dermafuse.training.partition import deployable, plan_network, trainable_model
    from dermafuse.training.run_folder import TRAINED_WEIGHTS, save_trained_weights

    made: dict[str, Path] = {}
    encoder = tiny_encoder()

    def make(kind: str) -> Path:
        if kind in made:
            return made[kind]
        fusion, cut = KINDS[kind]
        choices = {"data": str(synthetic), "backbone": "efficientnet_lite0", "weights": "random", "unfreeze_from": cut}
        config = resolve("seed", options=choices, assignments=["image_size=64", f"fusion={fusion}", "precision=f32"])
        plan = plan_network(config)
        head = HeadSpec(classes=7, meta_width=encoder.width, fusion=fusion)
        model = trainable_model(plan, head, config)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            if "seed" not in weight.path:
                weight.assign(np.array(weight) * rng.uniform(0.8, 1.2, weight.shape) + rng.uniform(0, 0.02))
        folder = tmp_path_factory.mktemp("runs") / "run"
        content = tiny_content(
            models=(deployable(model, plan, config),),
            head={"baseline/embedding": np.zeros(plan.backbone.features, np.float32)},
            image_size=64,
            encoder=encoder,
            temperature=TEMPERATURE,
            prediction_set=None,
            ood=None,
            info={"backbone": plan.backbone.name, "weights": plan.weights, "announcements": ["RANDOM WEIGHTS."]},
        )
        write_bundle(folder / "model", content)
        save_trained_weights(folder / TRAINED_WEIGHTS, model)
        (folder / "config.toml").write_text(to_toml(config))
        made[kind] = folder
        return folder

    return make


@pytest.fixture(scope="module")
def run(make_run: Callable[[str], Path]) -> Path:
    return make_run(FIRST)


def refused(kind: type[DermafuseError], *words: str, **arguments: object) -> None:
    with pytest.raises(kind) as caught:
        export(**arguments)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value), str(caught.value)
    to = arguments["to"]
    assert isinstance(to, Path)
    assert not to.exists() or not (to / "export.json").exists()
    assert not [path for path in to.parent.iterdir() if path.name.startswith(f".{to.name}.")]


def wanted_and_inputs(run: Path, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The predictor's probabilities of five images, and the arrays that an exported model takes for them."""
    bundle = read_bundle(run)
    table = read_dataset(data).table.iloc[:5]
    predictor = Predictor(bundle, precision="f32")
    wanted = []
    for record in table.to_dict("records"):
        fields = {name: record[name] for name in predictor.fields}
        found = predictor.predict(record["path"], **fields)
        wanted.append([found.probabilities[code] for code in bundle.classes])
    images = np.stack([load_image(path, bundle.image_size) for path in table["path"]])
    return np.array(wanted), images, bundle.encoder.transform(table)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != FIRST])
def test_onnx_takes_raw_images_and_gives_the_calibrated_probabilities(
    kind: str, make_run: Callable[[str], Path], synthetic: Path, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime

    run = make_run(kind)
    done = export(run, "onnx", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "export.json"}
    path = tmp_path / "out/model.onnx"
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [18]
    assert done["opset"] == 18

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted, images, meta = wanted_and_inputs(run, synthetic)
    inputs = {"image_input": images, "meta_input": meta}
    assert {entry.name: entry.type for entry in session.get_inputs()} == {
        "image_input": "tensor(uint8)",
        **({} if "image_only" in kind else {"meta_input": "tensor(float)"}),
    }
    assert all(entry.shape[0] == "batch" for entry in (*session.get_inputs(), *session.get_outputs()))
    (found,) = session.run(["probabilities"], {entry.name: inputs[entry.name] for entry in session.get_inputs()})
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert done["verified"]["images"] == 64
    assert done["verified"]["largest_difference"] < 1e-4


def test_openvino_ir_gives_the_calibrated_probabilities(run: Path, synthetic: Path, tmp_path: Path) -> None:
    heard = Heard()
    done = export(run, "openvino", tmp_path / "out", report=heard)  # type: ignore[arg-type]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.xml", "model.bin", "export.json"}
    wanted, images, meta = wanted_and_inputs(run, synthetic)
    network = ov.Core().compile_model(tmp_path / "out/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network({"image_input": images, "meta_input": meta})["probabilities"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert f"{done['verified']['largest_difference']:.2g}" in heard.said[-1]
    assert json.loads((tmp_path / "out/export.json").read_text()) == done


def test_keras_gives_the_logits_of_the_trained_network(run: Path, synthetic: Path, tmp_path: Path) -> None:
    import keras

    done = export(run, "keras", tmp_path / "out")
    model = keras.saving.load_model(tmp_path / "out/model.keras", compile=False)
    wanted, images, meta = wanted_and_inputs(run, synthetic)
    logits = np.array(model({"image_input": images.astype(np.float32), "meta_input": meta}, training=False))
    powers = np.exp(logits / done["temperature"])
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), wanted, atol=1e-4)
    assert done["temperature"] == TEMPERATURE
    assert "logits" in done["outputs"]


def test_export_json_says_how_to_use_the_model(run: Path, tmp_path: Path) -> None:
    done = export(run, "openvino", tmp_path / "out")
    assert done["research_use_only"] is True
    assert done["announcements"] == ["RANDOM WEIGHTS."]
    assert done["inputs"]["image_input"]["shape"] == ["batch", 64, 64, 3]
    assert done["inputs"]["meta_input"]["columns"] == list(tiny_encoder().feature_names)
    assert done["classes"] == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert done["model"] == read_bundle(run).digest


@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_an_ensemble_becomes_one_network_and_is_refused_by_keras(format: str, synthetic: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", members=3)
    done = export(bundle, format, tmp_path / "out", data=synthetic)  # type: ignore[arg-type]
    assert done["verified"]["largest_difference"] < 1e-5
    refused(ConfigError, "ensemble", "openvino", run=bundle, format="keras", to=tmp_path / "keras", data=synthetic)


def test_without_its_data_set_the_check_runs_on_generated_images_and_says_so(tmp_path: Path) -> None:
    heard = Heard()
    bundle = tiny_bundle(tmp_path / "bundle")
    done = export(bundle, "openvino", tmp_path / "out", report=heard)  # type: ignore[arg-type]
    assert "GENERATED" in heard.warned[0]
    assert done["verified"]["source"] == "64 generated images"


def test_a_model_that_answers_otherwise_is_not_written(run: Path, tmp_path: Path) -> None:
    tensors = safetensors.numpy.load_file(run / "weights.safetensors")
    tensors["logits/kernel"] = tensors["logits/kernel"] * 1.5
    changed = copied(run, tmp_path, tensors)
    refused(OutputError, "differ", "64", run=changed, format="keras", to=tmp_path / "out")


def test_a_difference_beyond_the_tolerance_or_no_number_is_an_error() -> None:
    reference = np.full((3, 2), 0.5)
    sample = Sample(np.zeros((3, 4, 4, 3), np.uint8), np.zeros((3, 0), np.float32), reference, "3 images")
    found = verify(sample, lambda images, meta: reference + 0.0005, what="It")
    assert found["largest_difference"] == pytest.approx(0.0005)
    for wrong in (reference + 0.002, reference[:2], np.full((3, 2), np.nan)):
        with pytest.raises(OutputError):
            verify(sample, lambda images, meta, wrong=wrong: wrong, what="It")
    with pytest.raises(OutputError):
        verify(sample, lambda images, meta: np.full((3, 2), np.nan), tolerance=None, what="It")


def test_a_run_without_its_trained_weights_is_refused(run: Path, tmp_path: Path) -> None:
    lacking = copied(run, tmp_path, None)
    refused(ConfigError, "weights.safetensors", "openvino", run=lacking, format="keras", to=tmp_path / "out")


def test_trained_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    import keras

    from dermafuse.training.export_keras import assign_trained

    entry = keras.Input((4,))
    model = keras.Model(entry, keras.layers.Dense(3, name="logits")(entry))
    whole = {"logits/kernel": np.ones((4, 3), np.float32), "logits/bias": np.full(3, 2.0, np.float32)}
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(whole, path)
    assign_trained(model, path)
    np.testing.assert_array_equal(model.get_layer("logits").bias, [2, 2, 2])
    for name, tensors in {
        "logits/kernel": {**whole, "logits/kernel": np.ones((5, 3), np.float32)},
        "elsewhere": {**whole, "elsewhere": np.ones(1, np.float32)},
        "logits/bias": {"logits/kernel": whole["logits/kernel"]},
    }.items():
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(BundleError, match=name):
            assign_trained(model, path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(BundleError, match="copy the run again"):
        assign_trained(model, path)


def test_what_cannot_be_exported_is_refused_before_any_work(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(ConfigError, "onx", "onnx", run=run, format="onx", to=out)
    refused(ConfigError, "without --int8", run=run, format="onnx", to=out, int8=True)
    refused(ConfigError, "--int8", run=run, format="bundle", to=out)
    out.mkdir()
    (out / "mine.txt").write_text("x")
    refused(OutputError, "exists", run=run, format="openvino", to=out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_the_verb_prints_the_largest_difference(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = VerbParser()
    verb.add(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))
    bundle = tiny_bundle(tmp_path / "bundle")
    words = ["export", str(bundle), "--format", "openvino", "--data", str(synthetic)]
    arguments = parser.parse_args([*words, "--to", str(tmp_path / "out")])
    assert arguments.handler(arguments) == 0
    assert "largest difference" in capsys.readouterr().out
    arguments = parser.parse_args([*words, "--to", str(tmp_path / "json"), "--json"])
    assert arguments.handler(arguments) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "openvino"


def copied(run: Path, parent: Path, tensors: dict[str, np.ndarray] | None) -> Path:
    """The run with other trained weights, or none."""
    folder = parent / "copy"
    folder.mkdir(parents=True)
    (folder / "model").symlink_to(run / "model")
    (folder / "config.toml").write_text((run / "config.toml").read_text())
    if tensors is not None:
        safetensors.numpy.save_file(tensors, folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize(("first", "depthwise"), [("block7", False), ("block7", True), ("none", True)])
def test_the_keras_file_trains_exactly_the_weights_that_the_run_trained(
    first: str, depthwise: bool, tmp_path: Path
) -> None:
    import keras

    from dermafuse.models.classifier import HeadSpec
    from dermafuse.training.export_keras import rebuild, write_keras
    from dermafuse.training.partition import plan_network, trainable_model
    from dermafuse.training.run_folder import TRAINED_WEIGHTS, save_trained_weights

    choices = {"backbone": "efficientnet_lite0", "weights": "random", "unfreeze_from": first}
    given = ["image_size=32", "precision=f32", f"train_depthwise={str(depthwise).lower()}"]
    config = resolve("seed", options=choices, assignments=given)
    plan = plan_network(config)
    encoder = tiny_encoder()
    trained = trainable_model(plan, HeadSpec(classes=7, meta_width=encoder.width), config)
    info = {"backbone": plan.backbone.name, "weights": plan.weights, "announcements": []}
    write_bundle(tmp_path / "run/model", tiny_content(encoder=encoder, prediction_set=None, ood=None, info=info))
    save_trained_weights(tmp_path / "run" / TRAINED_WEIGHTS, trained)
    (tmp_path / "run/config.toml").write_text(to_toml(config))

    written = write_keras(rebuild(tmp_path / "run", read_bundle(tmp_path / "run")), tmp_path)
    exported = keras.saving.load_model(written, compile=False)
    assert {v.path for v in exported.trainable_variables} == {v.path for v in trained.trainable_variables}


def test_onnx_names_of_values_never_meet_those_of_constants() -> None:
    import onnxruntime
    import openvino.opset13 as op

    from dermafuse.exporters.onnx_graph import to_onnx

    value = op.parameter(ov.PartialShape([-1, 2]), np.float32)
    value.output(0).set_names({"x"})
    constant = op.constant(np.array([3.0, 4.0], np.float32))
    constant.set_friendly_name("Add_0")  # as OpenVINO calls what it folded
    end = op.power(op.erf(op.squared_difference(op.add(value, constant), constant)), np.float32(2.0))
    end.output(0).set_names({"y"})
    network = ov.Model([op.result(end)], [value], "small")
    made = to_onnx(network, {})
    given = np.array([[0.5, 0.25]], np.float32)
    (found,) = onnxruntime.InferenceSession(made.SerializeToString()).run(["y"], {"x": given})
    np.testing.assert_allclose(found, ov.Core().compile_model(network, "CPU")(given)[0], atol=1e-6)
