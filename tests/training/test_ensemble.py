"""Recipe `best`: several networks in one bundle, trained on generated data."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dermafuse
from dermafuse.cli import main
from dermafuse.data.readers import read as reading
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import DataError
from dermafuse.evaluation.predictions import Scored
from dermafuse.labels import LabelSet
from dermafuse.progress import Silent
from dermafuse.runtime.bundle.evaluation import trained_on
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.training.config import resolve
from report_reading import wrong_numbers

FAST = [
    "--recipe",
    "best",
    "--weights",
    "random",
    "--epochs",
    "2",
    "--unfreeze-from",
    "none",
    "--set",
    'members=["efficientnet_lite0", "efficientnet_lite1"]',
    "--set",
    "member_folds=2",
    "--set",
    "image_size=64",
    "--set",
    "views=1",
    "--set",
    "random_views=1",
    "--set",
    "precision=f32",
    "--set",
    "report=false",
]
CODES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


@pytest.fixture(scope="module")
def run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensemble") / "run"
    with pytest.MonkeyPatch.context() as patch:
        read: list[Path] = []
        scanned = reading.scan
        patch.setattr(reading, "scan", lambda root: read.append(root) or scanned(root))
        assert main(["train", "--data", str(synthetic), "--out", str(out), *FAST, "--set", "report=true"]) == 0
        assert len(read) == 1
    return out


def test_all_members_are_in_one_bundle_and_nothing_else_is_left(run: Path) -> None:
    bundle = read_bundle(run)
    assert len(bundle.models) == 4
    assert bundle.ood is not None
    assert bundle.prediction_set is not None
    assert bundle.info["backbone"] == "efficientnet_lite0 + efficientnet_lite1"
    assert not (run / "checkpoints").exists()
    assert len(json.loads((run / "metrics.json").read_text())["members"]) == 4


def test_the_bundle_says_how_it_was_judged_and_that_what_one_member_held_out_the_others_learned(run: Path) -> None:
    evaluation = read_bundle(run).evaluation
    metrics = json.loads((run / "metrics.json").read_text())
    assert evaluation is not None
    assert evaluation["validation"] == metrics["validation"]
    assert len(evaluation["members"]) == 4
    table = pd.read_csv(run / "predictions.csv")
    parts = {name: spent for name, spent in metrics["seconds"].items() if name != "total"}
    assert parts.keys() >= {"read", "extract", "train", "evaluate", "write", "verify", "report"}
    assert metrics["seconds"]["total"] == pytest.approx(sum(parts.values()), abs=0.01)
    assert metrics["seconds"]["total"] > sum(member["seconds"] for member in metrics["members"])
    assert wrong_numbers((run / "report.html").read_text(), run)[0] == []
    counts = {role: len(part.lesions) for role, part in trained_on(evaluation).items()}
    assert counts == {
        role: table.loc[table["split"] == split, "lesion_id"].nunique()
        for role, split in (("train", "tuning"), ("validation", "validation"))
    }


def test_every_training_image_is_predicted_by_networks_that_did_not_learn_from_it(run: Path, synthetic: Path) -> None:
    table = pd.read_csv(run / "predictions.csv")
    assert set(table["image_id"]) == set(read_dataset(synthetic).table["image_id"])
    assert table["image_id"].is_unique
    sides = [set(table.loc[table["split"] == name, "lesion_id"]) for name in ("tuning", "validation")]
    assert not sides[0] & sides[1]


def test_the_bundle_gives_the_probabilities_and_decisions_of_the_run(run: Path, synthetic: Path) -> None:
    table = pd.read_csv(run / "predictions.csv").query("split == 'validation'").head(12)
    records = read_dataset(synthetic).table.set_index("image_id").loc[table["image_id"]]
    model = dermafuse.load(run, precision="f32")
    for (_, row), (_, record) in zip(table.iterrows(), records.iterrows(), strict=True):
        given = {name: record[name] for name in ("age", "sex", "localization") if record[name] == record[name]}
        answer = model.predict(record["path"], **given)
        expected = row[[f"p_{code}" for code in CODES]].to_numpy(float)
        np.testing.assert_allclose(list(answer.probabilities.values()), expected, atol=5e-3)
        top = np.sort(expected)[-2:]
        assert answer.label == row["predicted"] or top[1] - top[0] < 0.05


class Interrupted(Silent):
    """Hears what is said, and interrupts before the second member if asked to."""

    def __init__(self, interrupt: bool) -> None:
        self.heard: list[str] = []
        self.interrupt = interrupt

    def say(self, text: str) -> None:
        self.heard.append(text)
        if self.interrupt and text.startswith("Member 2"):
            raise KeyboardInterrupt


def test_finished_members_are_kept_when_an_interrupted_run_goes_on(synthetic: Path, tmp_path: Path) -> None:
    from dermafuse.training.ensemble import train_ensemble

    assignments = [value for flag, value in itertools.pairwise(FAST) if flag == "--set"]
    config = resolve(
        "best",
        options={"data": str(synthetic), "weights": "random", "epochs": 1, "unfreeze_from": "none"},
        assignments=[*assignments, 'members=["efficientnet_lite0"]'],
    )
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(config, out, report=Interrupted(True))
    assert not (out / "metrics.json").exists()
    second = Interrupted(False)
    train_ensemble(config, out, resume=True, report=second)
    assert not any(text.startswith("Member 1") for text in second.heard)
    assert len(read_bundle(out).models) == 2


def rows(ids: list[str], probabilities: list[list[float]]) -> Scored:
    count = len(ids)
    names = np.array(ids, object)
    return Scored(
        LabelSet.of(("mel", "nv")),
        names,
        names,
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.array(probabilities),
        np.zeros(count, np.int64),
    )


def test_probabilities_are_averaged_by_image_whatever_the_order() -> None:
    from dermafuse.training.ensemble import averaged

    parts = [rows(["b", "a"], [[0.2, 0.8], [1, 0]]), rows(["a", "b"], [[0, 1], [0.4, 0.6]])]
    mean = averaged(parts, LabelSet.of(("mel", "nv")))
    assert mean.image_id.tolist() == ["a", "b"]
    np.testing.assert_allclose(mean.probabilities, [[0.5, 0.5], [0.3, 0.7]])


def test_an_image_that_some_member_skipped_is_refused() -> None:
    from dermafuse.training.ensemble import averaged

    with pytest.raises(DataError, match="a 2 times and b 1 times"):
        averaged([rows(["a", "b"], [[1, 0], [1, 0]]), rows(["a"], [[0, 1]])], LabelSet.of(("mel", "nv")))


@pytest.mark.parametrize("setting", ["tuning_fraction=0", "split=image"])
def test_settings_that_leave_nothing_to_hold_out_are_refused(
    setting: str, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(synthetic), "--out", str(tmp_path / "o"), *FAST, "--set", setting]) == 2
    assert "ensemble" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_rows_that_no_member_could_read_are_listed(synthetic: Path, tmp_path: Path) -> None:
    data = shutil.copytree(synthetic, tmp_path / "data")
    broken = sorted(data.rglob("*.jpg"))[0]
    broken.write_bytes(b"")
    out = tmp_path / "run"
    more = ["--set", 'members=["efficientnet_lite0"]', "--set", "max_bad=0.05", "--epochs", "1"]
    assert main(["train", "--data", str(data), "--out", str(out), *FAST, *more]) == 0
    assert pd.read_csv(out / "skipped.csv")["image_id"].tolist() == [broken.stem]
