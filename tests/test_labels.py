"""Labels as data: which classes are malignant, which must not be missed, and what follows where nobody said so."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermafuse.api.evaluate import evaluate_bundle
from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import ConfigError, DataError
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.metrics import evaluate_predictions, labels_of
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.labels import HAM10000, LabelSet
from dermafuse.report.figures.make import make_figures
from dermafuse.report.model_card import model_card
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.predictor import Predictor
from tiny_bundle import tiny_bundle, tiny_encoder, tiny_image, tiny_network
from tiny_run import tiny_probabilities

BINARY = LabelSet.of(("benign", "malignant"), malignant=["malignant"], critical="malignant")
SILENT = LabelSet.of(("benign", "malignant"))


def labelled_bundle(folder: Path, labels: LabelSet) -> Path:
    network = tiny_network(classes=len(labels), width=tiny_encoder().width)
    return tiny_bundle(folder, labels=labels, models=(network,), prediction_set=None)


def clinic(root: Path, more: str = "", classes: tuple[str, ...] = ("benign", "malignant"), n: int = 60) -> Path:
    """A table of a clinic with its own classes, in turns."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["image,age,label"]
    for number in range(n):
        Image.fromarray(tiny_image(number)).save(root / f"i{number}.png")
        lines.append(f"i{number}.png,{30 + number % 50},{classes[number % len(classes)]}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    (root / "dermafuse.toml").write_text(
        f'table = "table.csv"\nimage = "image"\nlabel = "label"\nnumeric = ["age"]\nclasses = {json.dumps(classes)}\n'
        + more
    )
    return root


def some_rows(labels: LabelSet, n: int = 200) -> pd.DataFrame:
    true = np.arange(n) % len(labels)
    probabilities = tiny_probabilities(true, len(labels))
    codes = np.array(labels.codes)
    names = [f"i{number}" for number in range(n)]
    table = pd.DataFrame({"image_id": names, "lesion_id": names, "split": ["tuning", "validation"] * (n // 2)})
    table["split"] = np.where(np.arange(n) < n // 2, "tuning", "validation")
    table["true"], table["predicted"] = codes[true], codes[probabilities.argmax(axis=1)]
    return table.assign(**{f"p_{code}": probabilities[:, c] for c, code in enumerate(labels.codes)})


def enriched_metrics(labels: LabelSet) -> tuple[dict, dict]:
    rows = rows_of_table(some_rows(labels), labels)
    own = rows["validation"]
    block = evaluate_predictions(own.true, own.probabilities, own.labels, predicted=own.predicted)
    metrics = {"dermafuse": "1", "labels": labels.to_json(), "validation": block, "data": {"layout": "csv"}}
    return enriched(metrics, rows, None), rows


def test_a_part_of_ham10000s_codes_knows_its_malignant_and_critical_ones() -> None:
    five = LabelSet.of(("bcc", "bkl", "mel", "nv", "vasc"))
    assert (five.malignant, five.critical) == ({"bcc", "mel"}, "mel")
    assert LabelSet.of(HAM10000.codes) == HAM10000
    # A class of one's own: nobody said what it is, so nothing is taken for known, benign least of all.
    nine = LabelSet.of((*HAM10000.codes, "scc", "wart"))
    assert (nine.malignant, nine.critical) == (frozenset(), None)
    assert nine.names["mel"] == "melanoma"


@pytest.mark.parametrize(
    "wrong",
    [
        {"malignant": ["malign"]},
        {"critical": "mel"},
        {"names": {"bening": "x"}},
    ],
)
def test_a_role_of_a_class_that_is_not_there_is_refused_by_name(wrong: dict) -> None:
    with pytest.raises(DataError, match=r"malign|mel|bening"):
        LabelSet.of(("benign", "malignant"), **wrong)


def test_the_toml_says_which_classes_are_malignant_and_what_they_are_called(tmp_path: Path) -> None:
    said = 'malignant = ["malignant"]\ncritical = "malignant"\n[names]\nbenign = "benign lesion"\n'
    labels = read_dataset(clinic(tmp_path / "a", said)).labels
    assert (labels.malignant, labels.critical) == ({"malignant"}, "malignant")
    assert labels.names == {"benign": "benign lesion", "malignant": "malignant"}
    silent = read_dataset(clinic(tmp_path / "b"))
    assert silent.labels.malignant == frozenset()
    assert any("Nobody said which of the classes benign, malignant" in note for note in silent.notes)
    with pytest.raises(ConfigError, match=r"dermafuse.toml.*'malginant'.*Did you mean 'malignant'"):
        read_dataset(clinic(tmp_path / "c", 'malignant = ["malginant"]\n'))


def test_the_probability_of_malignant_is_that_of_the_class_that_was_named(tmp_path: Path) -> None:
    found = Predictor(read_bundle(labelled_bundle(tmp_path / "m", BINARY))).predict(tiny_image())
    assert found.malignant_probability == found.probabilities["malignant"]


def test_nobody_said_which_classes_are_malignant_so_the_cell_is_empty(tmp_path: Path, capsys) -> None:
    model = labelled_bundle(tmp_path / "m", SILENT)
    image = tmp_path / "i.png"
    Image.fromarray(tiny_image()).save(image)
    assert Predictor(read_bundle(model)).predict(image).to_dict()["malignant_probability"] is None
    assert main(["predict", str(model), str(image), "--out", str(tmp_path / "one.csv")]) == 0
    (tmp_path / "t.csv").write_text("image\ni.png\n")
    assert main(["predict", str(model), "--csv", str(tmp_path / "t.csv"), "--out", str(tmp_path / "many.csv")]) == 0
    for name in ("one.csv", "many.csv"):
        with (tmp_path / name).open() as stream:
            row = next(csv.DictReader(stream))
        assert row["malignant"] == ""
        assert float(row["p_malignant"]) > 0
    capsys.readouterr()
    assert main(["predict", str(model), str(image), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["malignant_probability"] is None


def test_a_bundle_keeps_names_malignant_and_critical_classes_and_an_old_one_loads(tmp_path: Path) -> None:
    for number, labels in enumerate((BINARY, SILENT, HAM10000, dataclasses.replace(HAM10000, critical=None))):
        assert read_bundle(labelled_bundle(tmp_path / str(number), labels)).labels == labels
    # HAM10000's file is as earlier versions wrote and read it: without a critical class.
    assert "critical" not in json.loads((tmp_path / "2" / "labels.json").read_text())


def test_metrics_of_malignant_and_critical_classes_are_those_of_the_label_set() -> None:
    labels = LabelSet.of(("a", "b", "c"), malignant=["b", "c"], critical="b", names={"b": "black {one}"})
    metrics, rows = enriched_metrics(labels)
    block = metrics["validation"]
    assert block["malignant"]["support"] == int((rows["validation"].true > 0).sum())
    assert {point["target"] for point in block["operating_points"]} == {"b", "malignant"}
    assert {"malignant_roc", "malignant_scores", "reliability_critical"} <= make_figures(metrics, rows, {}).keys()
    assert "Counted as malignant: `b`, `c`; not to be missed: `b`." in model_card(metrics, {})
    assert "`b` black {one}" in model_card(metrics, {})


def test_without_malignant_classes_there_are_no_metrics_of_them() -> None:
    metrics, rows = enriched_metrics(SILENT)
    block = metrics["validation"]
    assert block["malignant"] is None
    assert block["operating_points"] is None
    assert "No class is marked as malignant" in block["notes"]["operating_points"]
    names = make_figures(metrics, rows, {}).keys()
    assert not [name for name in names if "malignant" in name or "melanoma" in name or "critical" in name]
    assert "None of them is marked as malignant" in model_card(metrics, {})


def test_one_malignant_class_that_is_the_critical_one_is_asked_about_once() -> None:
    metrics, _ = enriched_metrics(BINARY)
    assert [point["target"] for point in metrics["validation"]["operating_points"]] == ["malignant"] * 3


def test_more_classes_than_ham10000s_do_not_count_the_new_ones_as_benign() -> None:
    labels = LabelSet.of((*HAM10000.codes, "scc"))
    metrics, _ = enriched_metrics(labels)
    assert metrics["validation"]["malignant"] is None


def test_evaluate_follows_the_models_labels_and_the_tables_where_the_model_has_none(tmp_path: Path) -> None:
    data = clinic(tmp_path / "data", 'malignant = ["malignant"]\ncritical = "malignant"\n')
    for name, labels in (("said", BINARY), ("silent", SILENT)):
        metrics = evaluate_bundle(labelled_bundle(tmp_path / name, labels), data, tmp_path / f"{name}-out")
        assert labels_of(metrics) == BINARY
        assert metrics["test"]["malignant"]["support"] == 30
        cells = metrics["test"]["subgroups"]["age"].values()
        assert any((cell.get("metrics") or {}).get("critical_sensitivity") for cell in cells)
        page = (tmp_path / f"{name}-out" / "report.html").read_text()
        assert "malignant sensitivity" in page
        assert "melanoma" not in page
    silent = clinic(tmp_path / "quiet")
    metrics = evaluate_bundle(tmp_path / "silent", silent, tmp_path / "none")
    assert metrics["test"]["malignant"] is None
    assert "critical_sensitivity" not in json.dumps(metrics)
