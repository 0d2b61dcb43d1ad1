"""`dermafuse release`: the model of a cross-validation's recipe, trained on everything."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import dermafuse
from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.overlap import find_overlap
from dermafuse.runtime.bundle.folder import read_bundle

FAST = [
    "--backbone",
    "efficientnet_lite0",
    "--weights",
    "random",
    "--epochs",
    "2",
    "--unfreeze-from",
    "none",
    "--set",
    "image_size=64",
    "--set",
    "views=2",
    "--set",
    "random_views=1",
    "--set",
    "report=false",
]


@pytest.fixture(scope="module")
def folds(synthetic: Path, tmp_path_factory: pytest.TempPathFactory, little_is_enough: None) -> Path:
    out = tmp_path_factory.mktemp("released") / "folds"
    assert main(["train", "--data", str(synthetic), "--folds", "2", "--out", str(out), *FAST]) == 0
    return out


@pytest.fixture(scope="module")
def bundle(folds: Path) -> Path:
    out = folds.parent / "bundle"
    assert main(["release", str(folds), "--to", str(out)]) == 0
    return out


def test_the_bundle_is_calibrated_by_the_folds(folds: Path, bundle: Path) -> None:
    parts = [json.loads((folds / f"fold-{n}" / "metrics.json").read_text())["training"] for n in (1, 2)]
    read = read_bundle(bundle)
    assert read.temperature == pytest.approx(np.sqrt(parts[0]["temperature"] * parts[1]["temperature"]), rel=1e-6)
    np.testing.assert_allclose(read.offsets, np.mean([part["decision_offsets"] for part in parts], axis=0), atol=1e-6)
    assert read.prediction_set is not None
    assert read.ood is not None


def test_the_card_says_that_all_lesions_trained_it_and_gives_the_figures_of_the_folds(
    folds: Path, bundle: Path, synthetic: Path
) -> None:
    card = (bundle / "README.md").read_text()
    assert "Trained on all lesions" in card
    assert "SYNTHETIC DATA" in card
    assert card.startswith('---\nlicense: "other"\n')
    assert "does not know" in (bundle / "LICENSE").read_text()
    assert read_bundle(bundle).card.startswith("# ")
    assert re.search(r"The image files have \d+x\d+ pixels", card)
    assert f"{len(read_dataset(synthetic)):,} images to learn from. Reported below" in card
    assert "plus offset" in card
    pooled = json.loads((folds / "metrics.json").read_text())["validation"]["balanced_accuracy"]
    assert f"{pooled:.3f}" in card


def test_the_bundle_alone_says_how_the_folds_were_judged_and_that_it_learned_from_every_image(
    folds: Path, bundle: Path, synthetic: Path
) -> None:
    evaluation = read_bundle(bundle).evaluation
    metrics = json.loads((folds / "metrics.json").read_text())
    assert evaluation is not None
    assert evaluation["validation"] == metrics["validation"]
    assert evaluation["validation"]["ci95"]
    assert evaluation["folds"] == metrics["folds"]
    records = read_dataset(synthetic)
    overlap = find_overlap(None, records, records.classes, evaluation)
    assert overlap.known
    assert overlap.trained.all()


def test_the_bundle_predicts(bundle: Path, synthetic: Path) -> None:
    path = read_dataset(synthetic).table["path"].iloc[0]
    answer = dermafuse.load(bundle).predict(path, age=50)
    assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-5)


def test_no_cross_validation_is_refused(tmp_path: Path, folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "no finished cross-validation" in capsys.readouterr().err
    assert main(["release", str(folds / "fold-1"), "--to", str(tmp_path / "out")]) == 2
    assert "no cross-validation" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
