"""Heatmaps judged by masks: figures that can be worked out by hand, and a whole small model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import DataError, ImageError
from dermafuse.evaluation.explanation_quality import (
    centre_gaussian,
    energy_inside,
    explanation_quality,
    find_masks,
    load_mask,
    points_inside,
)
from dermafuse.evaluation.judge_heatmaps import judge_heatmaps
from dermafuse.runtime.bundle.folder import read_bundle, write_bundle
from dermafuse.runtime.predictor import Predictor
from tiny_bundle import tiny_content


def square(left: int, right: int, top: int, bottom: int, shape: tuple[int, int] = (150, 200)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def write_mask(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


def test_the_energy_of_an_even_heatmap_is_the_area_of_the_mask() -> None:
    mask = square(50, 150, 30, 120)
    assert energy_inside(np.ones((8, 8)), mask) == pytest.approx(mask.mean())
    assert energy_inside(mask.astype(float), mask) == 1.0
    assert energy_inside((~mask).astype(float), mask) == 0.0
    assert np.isnan(energy_inside(np.zeros((8, 8)), mask))


def test_the_hottest_point_counts_inside_and_within_the_tolerance() -> None:
    mask = square(50, 150, 30, 120)
    heat = np.zeros((150, 200))
    heat[60, 155] = 1.0  # 6 columns beyond the edge: 0.03 of 200
    assert points_inside(heat, mask, 0.03) == 1.0
    assert points_inside(heat, mask, 0.02) == 0.0
    heat[60, 100] = 1.0  # as hot
    assert points_inside(heat, mask, 0.02) == 0.5


def test_the_centre_baseline_is_a_gaussian_of_its_width_in_both_directions() -> None:
    heat = centre_gaussian((101, 201))
    assert np.unravel_index(heat.argmax(), heat.shape) == (50, 100)
    assert heat[50, 100 + 40] == pytest.approx(np.exp(-0.5 * (40 / 201 / 0.2) ** 2))
    assert heat[50 + 20, 100] == pytest.approx(np.exp(-0.5 * (20 / 101 / 0.2) ** 2))


def test_a_mask_keeps_the_proportions_of_its_image(tmp_path: Path) -> None:
    mask = load_mask(write_mask(tmp_path / "m.png", square(150, 450, 90, 360, (450, 600))))
    assert mask.shape == (150, 200)
    assert np.array_equal(mask, square(50, 150, 30, 120))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="cannot be read"):
        load_mask(tmp_path / "broken.png")


def test_perfect_heatmaps_beat_both_baselines_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    masks = [square(5 * i, 60 + 5 * i, 10, 60) for i in range(8)]
    paths = [write_mask(tmp_path / f"{i}.png", mask) for i, mask in enumerate([*masks, np.zeros_like(masks[0])])]
    heatmaps = [*(mask.astype(float) for mask in masks), np.ones((150, 200))]
    heatmaps[7] = np.zeros((150, 200))
    found = explanation_quality(heatmaps, paths, None, labels=["mel"] * 4 + ["nv"] * 5, replicates=200)
    assert (found["n"], found["empty_heatmaps"], found["empty_masks"]) == (7, 1, 1)
    assert found["energy"]["model"]["value"] == 1.0
    assert found["energy"]["random"]["value"] == pytest.approx(masks[0].mean())
    assert found["lesion_area"] == pytest.approx(masks[0].mean())
    assert found["energy"]["centre"]["value"] < 0.5
    assert found["energy"]["model_minus_centre"]["ci95"][0] > 0
    assert found["pointing"]["model"]["value"] == 1.0
    assert {code: row["n"] for code, row in found["per_class"].items()} == {"mel": 4, "nv": 3}


def test_nothing_to_judge_is_an_error(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "0.png", np.zeros((30, 40), dtype=bool))
    with pytest.raises(DataError, match="nothing to judge"):
        explanation_quality([np.ones((4, 4))], [path], None)
    with pytest.raises(DataError, match="at or above 0"):
        energy_inside(-np.ones((4, 4)), square(0, 9, 0, 9))


def test_a_model_is_judged_on_the_images_that_have_a_mask(synthetic: Path, tmp_path: Path) -> None:
    records = read_dataset(synthetic)
    for name in records.table["image_id"][:12]:
        write_mask(tmp_path / "masks" / "part" / f"{name}_segmentation.png", square(60, 140, 40, 110))
    write_bundle(tmp_path / "bundle", tiny_content())
    predictor = Predictor(read_bundle(tmp_path / "bundle"))
    assert len(find_masks(tmp_path / "masks")) == 12
    found = judge_heatmaps(predictor, records, tmp_path / "masks", images=8)
    assert found["n"] + found["empty_heatmaps"] == 8
    assert 0 < found["energy"]["model"]["value"] < 1
    with pytest.raises(DataError, match="holds no mask"):
        judge_heatmaps(predictor, records, tmp_path / "bundle")
