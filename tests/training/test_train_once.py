"""One training for all: audits and releases train, calibrate and decide as the run itself does."""

import json
import shutil
from pathlib import Path

import pytest
import tomli_w

from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.progress import Silent
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.training.config import resolve

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
    "image_size=32",
    "--set",
    "views=1",
    "--set",
    "random_views=0",
    "--set",
    "report=false",
    "--set",
    "uncertainty=false",
]


def test_on_few_tuning_lesions_nothing_is_fitted_and_that_is_said(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    fast = [text for text in FAST if text != "uncertainty=false"]
    assert main(["train", "--data", str(synthetic), "--out", str(out), *fast, "uncertainty=true"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    bundle = read_bundle(out)
    assert bundle.temperature == metrics["training"]["temperature"] == 1.0
    assert (bundle.offsets, bundle.prediction_set, bundle.ood) == (None, None, None)
    assert metrics["training"]["prior_shift"] is None
    missing = metrics["training"]["not_fitted"]
    assert set(missing) == {"temperature", "decision rule", "prediction sets", "flag of strange images"}
    assert "tuning lesion(s) are too few, it takes 100" in missing["temperature"]
    assert "Not fitted: temperature (" in capsys.readouterr().err
    told = next(found for found in metrics["model_findings"] if found["code"] == "DM016")
    assert "operating points" in told["data"]["left_out"]
    assert f"No temperature was fitted: {missing['temperature']}." in (out / "model" / "README.md").read_text()
    shutil.move(out / "model", tmp_path / "alone")
    assert main(["evaluate", str(tmp_path / "alone"), "--data", str(synthetic), "--out", str(tmp_path / "again")]) == 0
    overlap = json.loads((tmp_path / "again" / "metrics.json").read_text())["overlap"]
    assert [overlap[f"{role}_images"] for role in ("trained", "chose", "unseen")] == [
        metrics["data"][role] for role in ("train", "tuning", "validation")
    ]


def test_the_unchanged_model_of_an_audit_is_the_run_itself_with_its_calibration_and_decisions(
    synthetic: Path, tmp_path: Path, little_is_enough: None
) -> None:
    out = tmp_path / "run"
    assert main(["train", "--data", str(synthetic), "--out", str(out), *FAST, "--audit-metadata"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["training"]["decision_offsets"] is not None
    fused = metrics["audits"]["metadata"]["fused"]
    assert fused == {name: pytest.approx(metrics["validation"][name]) for name in fused}


class Caught(Exception):
    """Ends a training as soon as it is known how it would have been done."""


@pytest.mark.parametrize("kind", ["run", "audit", "release"])
def test_images_are_augmented_wherever_the_whole_network_trains(
    kind: str, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermafuse.data.splits import make_split
    from dermafuse.training import audit, start
    from dermafuse.training.loop import fit

    seen = {}

    def caught(*arguments: object, **options: object) -> None:
        seen.update(options)
        raise Caught

    monkeypatch.setattr(fit, "training_batches", caught)
    given = ["image_size=32", "views=1", "random_views=0", "unfreeze_from=all", "backbone=efficientnet_lite0"]
    config = resolve(options={"data": str(synthetic), "weights": "random", "folds": 2}, assignments=given)

    def begin() -> None:
        if kind == "run":
            one = config.model_copy(update={"folds": 0})
            start.train(one, tmp_path / "run", resume=False, overwrite=False, report=Silent())
        elif kind == "audit":
            records = read_dataset(synthetic)
            audit._train(records, config, make_split(records, by="lesion", seed=0), Silent())
        else:
            folder = made_folds(tmp_path / "folds", synthetic, config.model_dump(exclude_none=True))
            start.release_bundle(folder, tmp_path / "out", overwrite=False, report=Silent())

    with pytest.raises(Caught):
        begin()
    assert seen["augment"] is True


def made_folds(folder: Path, data: Path, settings: dict[str, object]) -> Path:
    """What `release` reads of a finished cross-validation."""
    table = read_dataset(data).table
    for part in (folder / "fold-1", folder / "fold-2"):
        part.mkdir(parents=True)
        training = {"temperature": 1.0, "prior_shift": None, "decision_offsets": None}
        (part / "metrics.json").write_text(json.dumps({"training": training}))
    classes = sorted(table["label"].unique())
    rows = table[["image_id", "lesion_id"]].assign(split="validation", true=table["label"], predicted="nv", fold=1)
    for code in classes:
        rows[f"p_{code}"] = 1.0 / len(classes)
    rows.to_csv(folder / "predictions.csv", index=False)
    (folder / "config.toml").write_text(tomli_w.dumps(settings))
    (folder / "metrics.json").write_text(json.dumps({"folds": {}, "announcements": [], "data": {}}))
    return folder


def test_a_cross_validation_of_an_ensemble_is_not_released_as_one_network(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermafuse.training import start

    monkeypatch.setattr(start, "load_tensorflow", lambda threads=0: pytest.fail("refused too late"))
    config = resolve("best", options={"data": str(synthetic), "folds": 2})
    folds = made_folds(tmp_path / "folds", synthetic, config.model_dump(exclude_none=True))
    assert main(["release", str(folds), "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "ensemble" in said
    assert str(folds / "fold-1" / "model") in said
    assert not (tmp_path / "out").exists()
