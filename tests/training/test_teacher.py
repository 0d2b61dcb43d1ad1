"""Soft labels: whose answers they are, that nothing reported leaks through them, and that training uses them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import ConfigError, DataError
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.first_look import choose_split
from dermafuse.training.loop.sampling import class_draws
from dermafuse.training.teacher import soft_targets

FAST = [
    "--weights",
    "random",
    "--epochs",
    "2",
    "--unfreeze-from",
    "none",
    "--backbone",
    "efficientnet_lite0",
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
    "--set",
    "uncertainty=false",
]


def teach(run: Path, share: float = 0.5, power: float = 0.0) -> TrainConfig:
    return resolve("standard", options={"teacher": str(run), "teacher_share": share, "sampling_power": power})


@pytest.fixture(scope="module")
def sides(synthetic: Path) -> tuple[Records, Records]:
    records = read_dataset(synthetic)
    split = choose_split(records, resolve("standard", options={"data": str(synthetic)}), None)
    return records.subset(split.train), records.subset(split.validation)


def positions(records: Records) -> np.ndarray:
    return np.array([records.classes.index(label) for label in records.table["label"]], dtype=np.int64)


@pytest.fixture(scope="module")
def teacher(sides: tuple[Records, Records], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the two files that are read: of random answers, rows of both splits shuffled."""
    folder = tmp_path_factory.mktemp("teacher")
    tables = []
    for name, side in zip(("tuning", "validation"), sides, strict=True):
        table = side.table[["image_id", "lesion_id"]].assign(split=name, true=side.table["label"])
        table["predicted"] = "nv"
        answers = np.random.default_rng(len(side)).dirichlet(np.ones(len(side.classes)), len(side))
        for position, code in enumerate(side.classes):
            table[f"p_{code}"] = answers[:, position]
        tables.append(table)
    pd.concat(tables).sample(frac=1, random_state=0).to_csv(folder / "predictions.csv", index=False)
    (folder / "metrics.json").write_text(json.dumps({"members": [{}]}))
    return folder


def test_each_row_is_the_label_and_the_teachers_answer_about_that_image(
    teacher: Path, sides: tuple[Records, Records]
) -> None:
    train, judged = sides
    labels = positions(train)
    table = pd.read_csv(teacher / "predictions.csv").set_index("image_id").loc[train.table["image_id"]]
    answers = table[[f"p_{code}" for code in train.classes]].to_numpy()
    for share in (0.0, 0.3, 1.0):
        found = soft_targets(train, labels, judged, teach(teacher, share))
        np.testing.assert_allclose(found, (1 - share) * np.eye(7)[labels] + share * answers, atol=1e-6)


def test_the_answers_have_the_class_frequencies_in_which_rows_are_drawn(
    teacher: Path, sides: tuple[Records, Records]
) -> None:
    train, judged = sides
    labels = positions(train)
    plain = soft_targets(train, labels, judged, teach(teacher, 1.0))
    drawn = soft_targets(train, labels, judged, teach(teacher, 1.0, power=1.0))
    assert plain is not None
    assert drawn is not None
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0, atol=1e-6)
    counts = np.bincount(labels, minlength=7)
    common, rare = counts.argmax(), counts.argmin()
    expected = np.log(class_draws(counts, 1.0) / counts)
    change = np.log(drawn[:, rare] / drawn[:, common]) - np.log(plain[:, rare] / plain[:, common])
    np.testing.assert_allclose(change, expected[rare] - expected[common], atol=1e-3)


def test_a_teacher_that_learned_from_reported_lesions_is_refused(teacher: Path, sides: tuple[Records, Records]) -> None:
    train, judged = sides
    with pytest.raises(DataError, match=r"learned from \d+ lesions that are to be reported"):
        soft_targets(judged, positions(judged), train, teach(teacher))


def test_a_teacher_without_an_answer_for_a_row_is_refused(teacher: Path, sides: tuple[Records, Records]) -> None:
    train, judged = sides
    stranger = replace(train, table=train.table.assign(image_id="new_" + train.table["image_id"]))
    with pytest.raises(DataError, match=f"no out-of-fold prediction of {len(train):,} training images"):
        soft_targets(stranger, positions(stranger), judged, teach(teacher))


def test_a_cross_validation_is_refused(teacher: Path, sides: tuple[Records, Records], tmp_path: Path) -> None:
    train, judged = sides
    table = pd.read_csv(teacher / "predictions.csv").assign(split="validation", fold=1)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    (tmp_path / "metrics.json").write_text(json.dumps({"folds": {}}))
    with pytest.raises(ConfigError, match="is no ensemble"):
        soft_targets(train, positions(train), judged, teach(tmp_path))


@pytest.mark.parametrize(
    ("written", "options", "words"),
    [
        (None, [], "is no finished run"),
        ({"validation": {}}, [], "is no ensemble"),
        ({"members": []}, ["--folds", "2"], "leave out --folds"),
    ],
)
def test_what_cannot_teach_is_refused_before_any_work(
    written: dict[str, object] | None,
    options: list[str],
    words: str,
    synthetic: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if written is not None:
        (tmp_path / "metrics.json").write_text(json.dumps(written))
    setting = f'teacher="{tmp_path}"'
    out = tmp_path / "out"
    assert main(["train", "--data", str(synthetic), "--out", str(out), "--set", setting, *options]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert "Frozen part" not in printed
    assert not out.exists()


def test_no_run_is_no_teacher(sides: tuple[Records, Records], tmp_path: Path) -> None:
    train, judged = sides
    assert soft_targets(train, positions(train), judged, resolve("standard")) is None
    with pytest.raises(ConfigError, match="is no finished run"):
        soft_targets(train, positions(train), judged, teach(tmp_path / "nothing"))


def test_a_network_learns_what_its_teacher_says(
    teacher: Path, sides: tuple[Records, Records], synthetic: Path, tmp_path: Path
) -> None:
    # A teacher that calls everything a nevus, alone heard: so does its student, whatever the labels say.
    table = pd.read_csv(teacher / "predictions.csv")
    for code in sides[0].classes:
        table[f"p_{code}"] = float(code == "nv")
    run = tmp_path / "nevus"
    run.mkdir()
    table.to_csv(run / "predictions.csv", index=False)
    (run / "metrics.json").write_text(json.dumps({"members": [{}]}))
    out, settings = tmp_path / "out", ["teacher_share=1.0", "learning_rate=0.01", "monitor=last", "batch_size=8"]
    arguments = [text for setting in (f'teacher="{run}"', *settings) for text in ("--set", setting)]
    command = ["train", "--data", str(synthetic), "--out", str(out), *FAST, "--set", "decision=argmax", *arguments]
    assert main(command) == 0
    assert (pd.read_csv(out / "predictions.csv")["predicted"] == "nv").all()
