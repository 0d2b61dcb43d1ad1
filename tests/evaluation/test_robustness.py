import json
from pathlib import Path

import numpy as np
import pytest

import dermafuse
from dermafuse.cli import main
from dermafuse.data.images import read_pixels
from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.corruptions import CORRUPTIONS
from dermafuse.evaluation.metric_table import shown
from dermafuse.evaluation.robustness import measure_robustness
from dermafuse.progress import Silent
from tiny_bundle import tiny_bundle


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_the_image_and_leaves_the_original_alone(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    before = image.copy()
    changed = CORRUPTIONS[name](image)
    np.testing.assert_array_equal(image, before)
    assert changed.dtype == np.uint8
    assert changed.shape != image.shape or (changed != image).any()


def test_shifts_cut_a_tenth_off_opposite_corners() -> None:
    image = np.arange(100 * 200, dtype=np.int64).reshape(100, 200, 1).repeat(3, axis=2).astype(np.uint8)
    np.testing.assert_array_equal(CORRUPTIONS["shift_left_up"](image), image[10:, 20:])
    np.testing.assert_array_equal(CORRUPTIONS["shift_right_down"](image), image[:90, :180])


@pytest.mark.parametrize("width", [200, 800])
def test_a_size_is_a_size_whatever_the_original_has(width: int) -> None:
    for original in ((450, 600), (60, 80)):
        changed = CORRUPTIONS[f"width_{width}"](np.zeros((*original, 3), np.uint8))
        assert changed.shape == (width * 3 // 4, width, 3)


def test_pixels_are_read_as_they_are(synthetic: Path) -> None:
    records = read_dataset(synthetic)
    pixels = read_pixels(records.table["path"].iloc[0])
    assert pixels.ndim == 3
    assert pixels.shape[0] != pixels.shape[1]


def test_every_condition_is_measured_on_the_same_rows_and_compared_with_clean(tmp_path: Path, synthetic: Path) -> None:
    records = read_dataset(synthetic)
    records = records.subset(np.arange(len(records)) < 60)
    predictor = dermafuse.load(tiny_bundle(tmp_path / "bundle"), mode="throughput")
    block = measure_robustness(predictor, records, replicates=100, report=Silent())
    assert block["images"] == 60
    assert set(block["change"]) == {"eight_views", "metadata_missing", *CORRUPTIONS}
    for figure in (metric.key for metric in shown("change")):
        changes = [block[name][figure] - block["clean"][figure] for name in CORRUPTIONS]
        assert block["mean_change"][figure] == pytest.approx(np.mean(changes))
        for name, change in block["change"].items():
            assert change[figure]["difference"] == pytest.approx(block[name][figure] - block["clean"][figure])
            assert change[figure]["low"] <= change[figure]["high"]


def test_evaluate_measures_robustness_where_asked_and_says_it_in_page_and_terminal(
    tmp_path: Path, synthetic: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dermafuse.evaluation.robustness.CORRUPTIONS", {"mirrored": lambda pixels: pixels[:, ::-1]})
    model, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "OUT"
    assert main(["evaluate", str(model), "--data", str(synthetic), "--out", str(out), "--robustness"]) == 0
    block = json.loads((out / "metrics.json").read_text())["test"]["robustness"]
    assert set(block["change"]) == {"eight_views", "metadata_missing", "mirrored"}
    assert "mirrored" in capsys.readouterr().out
    assert "<td>mirrored</td>" in (out / "report.html").read_text()


def test_what_is_undefined_on_images_of_one_class_has_no_change(tmp_path: Path, synthetic: Path) -> None:
    records = read_dataset(synthetic)
    records = records.subset((records.table["label"] == "nv").to_numpy() & (np.arange(len(records)) < 40))
    predictor = dermafuse.load(tiny_bundle(tmp_path / "bundle"), mode="throughput")
    block = measure_robustness(predictor, records, replicates=40, report=Silent())
    assert block["mean_change"]["macro_auroc"] is None
    assert block["mean_change"]["accuracy"] is not None
