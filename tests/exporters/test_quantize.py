"""int8 models pass the gate, are brought through it by accuracy control, or are refused with the figures."""

from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pytest

from dermafuse.data.images import load_image
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import ConfigError, OutputError
from dermafuse.exporters import quantize as module
from dermafuse.exporters.export import export
from dermafuse.exporters.quantize import quantize, to_int8
from dermafuse.exporters.quantize_gate import Decider, LabelledImages, Scores, drop, figures, scores_of, split_rows
from dermafuse.labels import HAM10000
from dermafuse.progress import Silent
from dermafuse.runtime.bundle.folder import Bundle, read_bundle
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.predictor import Predictor
from tiny_bundle import CHANNELS, SIZE, tiny_bundle, tiny_encoder, tiny_network
from tiny_run import tiny_run

CLASSES = HAM10000


@pytest.fixture(autouse=True)
def every_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network has no stem to spare."""
    monkeypatch.setattr(module, "FLOAT_CONVOLUTIONS", 0)
    monkeypatch.setattr(module, "CALIBRATION_IMAGES", 40)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "model"))


def rows_right_for(bundle: Bundle, data: Path) -> LabelledImages:
    """Rows whose label is what the model says, so that in f32 it is never wrong."""
    table = read_dataset(data).table.iloc[:120]
    meta = bundle.encoder.transform(table)
    predictor = Predictor(bundle, precision="f32")
    labels = []
    for record in table.to_dict("records"):
        found = predictor.predict(record["path"], **{name: record[name] for name in bundle.encoder.fields})
        labels.append(choose_labels([list(found.probabilities.values())], bundle.offsets)[0])
    return LabelledImages([Path(path) for path in table["path"]], meta, np.array(labels, np.int64))


def with_outlier_channel() -> ov.Model:
    """A network whose first feature channel is 3,000 times the others: eight bits for all leave none to them."""
    rng = np.random.default_rng(0)
    image = op.parameter(ov.PartialShape([-1, SIZE, SIZE, 3]), np.uint8, name="image_input")
    image.output(0).set_names({"image_input"})
    meta = op.parameter(ov.PartialShape([-1, tiny_encoder().width]), np.float32, name="meta_input")
    meta.output(0).set_names({"meta_input"})
    scaled = op.subtract(op.divide(op.convert(image, "f32"), np.float32(127.5)), np.float32(1.0))
    planes = op.transpose(scaled, np.array([0, 3, 1, 2]))
    first = rng.normal(0, 0.2, (CHANNELS, 3, 8, 8)).astype(np.float32)
    second = rng.normal(0, 1.0, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    first[0] *= 3000
    second[:, 0] /= 30000
    maps = op.relu(op.convolution(planes, first, [8, 8], [0, 0], [0, 0], [1, 1]))
    maps = op.swish(op.convolution(maps, second, [1, 1], [0, 0], [0, 0], [1, 1]))
    pooled = op.reduce_mean(maps, np.array([2, 3]), keep_dims=False)
    head = rng.normal(0, 1.0, (CHANNELS, 7)).astype(np.float32)
    weak = rng.normal(0, 0.01, (tiny_encoder().width, 7)).astype(np.float32)
    logits = op.add(op.matmul(pooled, head, False, False), op.matmul(meta, weak, False, False))
    results = []
    outputs = {"logits": logits, "feature_map": op.transpose(maps, np.array([0, 2, 3, 1])), "embedding": pooled}
    for name, node in outputs.items():
        results.append(op.result(node))
        node.output(0).get_tensor().set_names({name})
    return ov.Model(results, [image, meta], "outlier")


def quantizers(model: ov.Model) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def test_scores_are_mean_recall_and_melanoma_recall() -> None:
    true, decided = np.array([4, 4, 4, 5, 5, 0]), np.array([4, 4, 5, 5, 5, 1])
    found = scores_of(true, decided, CLASSES)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.critical_sensitivity == pytest.approx(2 / 3)
    assert scores_of(np.array([5]), np.array([5]), CLASSES).critical_sensitivity is None


def test_the_measure_that_lost_more_counts() -> None:
    before = Scores(0.9, 0.80, 0.60)
    assert drop(before, Scores(0.9, 0.79, 0.70)) == pytest.approx(0.01)
    assert drop(before, Scores(0.9, 0.85, 0.50)) == pytest.approx(0.10)
    assert drop(before, Scores(0.1, 0.81, 0.61)) < 0
    assert drop(Scores(0.9, 0.8, None), Scores(0.9, 0.7, None)) == pytest.approx(0.10)
    assert "80.0 % -> 85.0 %" in figures(before, Scores(0.9, 0.85, 0.50), CLASSES)


def test_the_judge_decides_as_the_predictor_does(bundle: Bundle, synthetic: Path) -> None:
    rows = rows_right_for(bundle, synthetic)
    assert Decider(bundle, bundle.models).scores(rows).accuracy == 1.0
    assert Decider(bundle, [tiny_network(9, width=bundle.encoder.width)]).scores(rows).accuracy < 0.9


def test_quantizing_puts_the_convolutions_in_int8_and_keeps_inputs_and_outputs(bundle: Bundle, synthetic: Path) -> None:
    rows = rows_right_for(bundle, synthetic)
    (model,) = to_int8(bundle, rows)
    assert quantizers(bundle.models[0]) == 0
    assert quantizers(model) >= 2
    original = bundle.models[0]
    pairs = [*zip(model.inputs, original.inputs, strict=True), *zip(model.outputs, original.outputs, strict=True)]
    for port, old in pairs:
        assert port.get_names() == old.get_names()
        assert port.get_element_type() == old.get_element_type()
    image = {"image_input": load_image(rows.paths[0], SIZE)[None], "meta_input": rows.meta[:1]}
    plain, int8 = (ov.Core().compile_model(one, "CPU")(image)["logits"] for one in (bundle.models[0], model))
    np.testing.assert_allclose(int8, plain, atol=0.2)


def test_accuracy_control_brings_a_model_through_the_gate_that_plain_int8_breaks(
    tmp_path: Path, synthetic: Path
) -> None:
    bundle = read_bundle(tiny_bundle(tmp_path / "model", models=(with_outlier_channel(),)))
    rows = rows_right_for(bundle, synthetic)
    before = Decider(bundle, bundle.models).scores(rows)
    assert drop(before, Decider(bundle, to_int8(bundle, rows)).scores(rows)) > 0.01
    done = quantize(bundle, rows, rows, Silent())
    assert done.report["accuracy_control"] is True
    assert drop(done.before, done.after) <= 0.01
    assert done.after == Decider(bundle, done.models).scores(rows)


def test_a_model_that_loses_more_than_a_point_is_refused_with_the_figures(
    bundle: Bundle, synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_right_for(bundle, synthetic)
    bad = tiny_network(9, width=bundle.encoder.width)
    monkeypatch.setattr(module, "to_int8", lambda *_: (bad,))
    monkeypatch.setattr(module, "_with_control", lambda *_: bad)
    after = Decider(bundle, [bad]).scores(rows)
    with pytest.raises(OutputError) as caught:
        quantize(bundle, rows, rows, Silent())
    assert f"balanced accuracy 100.0 % -> {100 * after.balanced_accuracy:.1f} %" in str(caught.value)
    assert "more than 1 point" in str(caught.value)


def test_training_and_validation_rows_are_those_of_the_run(tmp_path: Path, synthetic: Path) -> None:
    import pandas as pd

    run = tiny_run(tmp_path / "run", synthetic)
    table = read_dataset(synthetic).table
    calibration, validation = split_rows(run, read_bundle(run), table)
    predictions = pd.read_csv(run / "predictions.csv")
    names = {row.image_id: row.split for row in predictions.itertuples()}
    assert {names[path.stem] for path in validation.paths} == {"validation"}
    assert len(validation) == (predictions["split"] == "validation").sum()
    assert not {path.stem for path in calibration.paths} & names.keys()
    assert len(calibration) + len(predictions) == len(table)


def test_another_data_set_is_refused(tmp_path: Path, synthetic: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    table = read_dataset(synthetic).table
    with pytest.raises(ConfigError, match="--data"):
        split_rows(run, read_bundle(run), table.iloc[:50])
    (run / "predictions.csv").unlink()
    with pytest.raises(ConfigError, match=r"predictions\.csv"):
        split_rows(run, read_bundle(run), table)


def test_an_int8_bundle_predicts_and_says_what_it_is(
    tmp_path: Path, synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    monkeypatch.setattr(module, "MAX_DROP", 1.0)  # untrained: its accuracy is chance
    done = export(run, "bundle", tmp_path / "out", int8=True)
    bundle = read_bundle(tmp_path / "out")
    assert quantizers(bundle.models[0]) >= 2
    assert bundle.info["precision"] == "int8"
    assert bundle.info["int8"] == done["int8"]
    assert "int8" in bundle.card
    assert bundle.temperature == read_bundle(run).temperature
    path = read_dataset(synthetic).table["path"].iloc[0]
    assert Predictor(bundle).predict(path, age=50).label in CLASSES.codes


def test_a_refused_int8_export_leaves_nothing(tmp_path: Path, synthetic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    monkeypatch.setattr(module, "MAX_DROP", -2.0)
    monkeypatch.setattr(module, "_with_control", lambda bundle, *_: bundle.models[0])
    with pytest.raises(OutputError, match="No int8 model was written"):
        export(run, "openvino", tmp_path / "out", int8=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
