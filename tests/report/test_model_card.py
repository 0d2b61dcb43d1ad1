"""The model card: the numbers of the run, and no claim that they do not support."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.derived_metrics import class_codes, enriched
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.labels import DISCLAIMER
from dermafuse.report.model_card import model_card
from dermafuse.runs import read_metrics
from tiny_run import tiny_run


@pytest.fixture(scope="module")
def run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs") / "run", synthetic, model=False)


@pytest.fixture(scope="module")
def metrics(run: Path, synthetic: Path) -> dict[str, Any]:
    plain = read_metrics(run)
    return enriched(plain, read_rows(run / "predictions.csv", class_codes(plain)), read_dataset(synthetic))


def rows_of(card: str, heading: str) -> list[list[str]]:
    part = card[card.index(heading) :]
    lines = []
    for line in part.splitlines()[1:]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
        elif lines:
            break
    return lines[2:]


def test_headline_and_class_numbers_are_those_of_the_run(run: Path, metrics: dict[str, Any]) -> None:
    config = tomllib.loads((run / "config.toml").read_text())
    card = model_card(metrics, config)
    block = metrics["validation"]
    head = {row[0]: row[1:] for row in rows_of(card, "## Performance")}
    assert head["accuracy"][0] == f"{block['accuracy']:.3f}"
    low, high = block["ci95"]["accuracy"]
    assert head["accuracy"][1] == f"{low:.3f} to {high:.3f}"
    assert head["malignant AUROC"][0] == f"{block['malignant']['auroc']:.3f}"
    for row in rows_of(card, "### By class"):
        own = block["per_class"][row[0]]
        assert row[1] == f"{own['support']:,}"
        shown = [re.match(r"[0-9.]+|–", cell)[0] for cell in row[2:]]  # type: ignore[index]
        values = [own[key] for key in ("recall", "specificity", "precision", "f1", "auroc")]
        assert shown == ["–" if value is None else f"{value:.3f}" for value in values]
    assert "split `lesion`" in card


def test_the_disclaimer_and_the_announcements_come_first(run: Path, metrics: dict[str, Any]) -> None:
    card = model_card(metrics, {})
    assert card.index(DISCLAIMER) < card.index("SYNTHETIC DATA") < card.index("## Model")
    assert "not a medical device" in card.lower()


def test_generated_data_are_never_called_ham10000(metrics: dict[str, Any]) -> None:
    assert "HAM10000" not in model_card(metrics, {})
    real = {**metrics, "data": {**metrics["data"], "synthetic": False}}
    card = model_card(real, {})
    assert "CC BY-NC 4.0" in card
    assert "Apache-2.0" in card
    assert "skin tone" in card


def test_leakage_is_said_with_its_counts(synthetic: Path, tmp_path: Path) -> None:
    metrics = read_metrics(tiny_run(tmp_path / "run", synthetic, by="image", model=False))
    leak = metrics["leakage"]
    card = model_card(metrics, {"split": "image"})
    assert f"**Leakage: {leak['leaked_images']:,} of {leak['validation_images']:,}" in card
    assert "too good" in card


def test_no_leakage_and_unknown_lesions_are_told_apart(metrics: dict[str, Any]) -> None:
    assert "no reported image shows a lesion" in model_card(metrics, {})
    unknown = {**metrics, "leakage": {**metrics["leakage"], "lesions_known": False}}
    card = model_card(unknown, {})
    assert "leakage is not known" in card
    assert "no reported image shows a lesion" not in card


def test_small_subgroups_are_withheld_and_missing_ones_are_said(metrics: dict[str, Any]) -> None:
    card = model_card(metrics, {})
    for column, cells in metrics["validation"]["subgroups"].items():
        for value, cell in cells.items():
            listed = [row for row in rows_of(card, "### Subgroups") if row[1] == value and row[2] == f"{cell['n']:,}"]
            assert listed, (column, value)
            assert (listed[0][3:] == ["withheld"] * 3) == cell["withheld"]
    plain = {**metrics, "validation": {**metrics["validation"], "subgroups": None}}
    assert "Not measured for this card" in model_card(plain, {})


def test_metrics_fresh_from_training_make_a_card_without_the_added_parts(run: Path) -> None:
    plain = read_metrics(run)
    for key in ("calibration", "subgroups", "operating_points", "notes", "lesions"):
        plain["validation"].pop(key, None)
    card = model_card(plain, {})
    assert "temperature 1.400" in card
    assert "None" not in card
    assert not re.search(r"\bnan\b", card)


def test_every_table_row_has_as_many_cells_as_its_head(metrics: dict[str, Any]) -> None:
    width = 0
    for line in model_card(metrics, {}).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = line.count("|")
        assert width in (0, cells), line
        width = cells


def test_whom_the_model_fails_and_its_image_size_stand_on_top(metrics: dict[str, Any]) -> None:
    def cell(value: float, gap: float, sure: tuple[float, float]) -> dict[str, Any]:
        entry = {"value": value, "ci95": [value - 0.1, value + 0.1], "gap": gap, "gap_ci95": list(sure)}
        return {"n": 80, "lesions": 70, "withheld": False, "metrics": {"melanoma_sensitivity": entry}}

    age = {
        "50-69": cell(0.70, 0.2, (0.1, 0.3)),
        "<30": cell(0.17, -0.4, (-0.6, 0.1)),  # low, though not surely lower
        "30-49": cell(0.60, -0.2, (-0.3, -0.1)),  # surely lower than elsewhere
    }
    said = dict(metrics, network={**metrics["network"], "image_size": 208})
    said["data"] = {**metrics["data"], "image_pixels": "400x300"}
    said["validation"] = {**metrics["validation"], "subgroups": {"age": age, "dx_type": {"histo": age["<30"]}}}
    card = model_card(said, {})
    top = card[card.index("## Before use") : card.index("## Model")]
    assert "208 x 208 pixels, made from files of 400x300 pixels" in top
    assert "for age <30 0.170 [0.07, 0.27], age 30-49 0.600 [0.50, 0.70].\n" in top
    assert "Low melanoma sensitivity (all images: " in top
    assert "50-69" not in top
    assert "histo" not in top
    assert "Low" not in model_card({**said, "validation": {**said["validation"], "subgroups": None}}, {})
