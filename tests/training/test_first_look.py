"""What is refused by looking at the data alone, and what a joint result makes of folds that lack a figure."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import DataError
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.first_look import choose_split


@pytest.fixture(scope="module")
def records(synthetic: Path) -> Records:
    return read_dataset(synthetic)


def only(records: Records, **lesions: int) -> Records:
    """Return the records without all but the first few lesions of some classes."""
    table = records.table
    kept = pd.Series(True, index=table.index)
    for code, count in lesions.items():
        own = table["label"] == code
        kept &= ~own | table["lesion_id"].isin(table.loc[own, "lesion_id"].unique()[:count])
    return records.subset(kept)


def config(recipe: str, **settings: object) -> TrainConfig:
    return resolve(recipe, options=settings)


def test_data_of_one_class_are_refused(records: Records) -> None:
    nevi = records.subset(records.table["label"] == "nv")
    with pytest.raises(DataError, match=rf"All {len(nevi)} images of .* show 'nv'"):
        choose_split(nevi, config("seed"), None)


@pytest.mark.parametrize(
    ("recipe", "settings", "fold", "lesions", "wanted"),
    [
        ("standard", {}, None, 2, r"'df' has 2 lesion\(s\), too few for 3 parts that share none \(validation, tuning"),
        ("standard", {"folds": 5}, 0, 4, r"'df' has 4 lesion\(s\), too few for 5 parts"),
        ("standard", {"folds": 2}, 0, 3, r"'df' has 3 lesion\(s\), too few for 4 parts"),
        ("best", {}, None, 4, r"'df' has 4 lesion\(s\), too few for 6 parts that share none \(validation, 5 of"),
        ("standard", {"tuning_fraction": 0.0}, None, 1, r"'df' has 1 lesion\(s\), too few for 2 parts"),
    ],
)
def test_a_class_with_fewer_lesions_than_parts_is_refused_with_the_count_that_check_gives(
    records: Records, recipe: str, settings: dict[str, object], fold: int | None, lesions: int, wanted: str
) -> None:
    few = only(records, df=lesions)
    with pytest.raises(DataError, match=wanted):
        choose_split(few, config(recipe, **settings), fold)


def test_rows_known_to_be_missing_are_refused_before_any_image_is_computed(records: Records) -> None:
    gone = pd.DataFrame({"image_id": ["a", "b"], "path": [None, None], "reason": ["image file not found"] * 2})
    with pytest.raises(DataError, match=r"2 of [\d,]+ rows are unusable \(a: image file not found"):
        choose_split(replace(records, skipped=gone), config("seed", max_bad=0.001), None)
    choose_split(replace(records, skipped=gone), config("seed", max_bad=0.5), None)


def test_a_first_look_loads_no_tensorflow() -> None:
    text = "import sys, dermafuse.training.first_look, dermafuse.training.start; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_train_refuses_before_tensorflow_is_loaded(records: Records, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    nevi = records.table[records.table["label"] == "nv"].head(6)
    for path in nevi["path"]:
        (data / "images" / Path(path).name).write_bytes(Path(path).read_bytes())
    nevi.rename(columns={"label": "dx"})[
        ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    ].to_csv(data / "HAM10000_metadata.csv", index=False)
    text = (
        "import sys\nfrom dermafuse.cli import main\n"
        f"code = main(['train', '--data', {str(data)!r}, '--out', {str(tmp_path / 'RUN')!r}])\n"
        "print(code, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["2", "False"]
    assert "show 'nv'" in done.stderr
    assert not (tmp_path / "RUN").exists()


def test_a_joint_result_survives_a_fold_without_a_figure(tmp_path: Path) -> None:
    from dermafuse.training.cross_validation import joint_metrics

    def cell(images: int) -> dict[str, object]:
        return {"validation_images": images, "leaked_images": 0, "share": 0.0}

    scalars = ("accuracy", "balanced_accuracy", "weighted_f1", "macro_f1", "nll", "ece")
    folders = []
    for number, auroc in enumerate((0.7, None, 0.9), start=1):
        per_class = {"benign": cell(4), **({} if auroc is None else {"malignant": cell(1)})}
        leaks = {"shared_lesions": 0, "leaked_images": 0, "validation_images": 5, "share": 0.0, "per_class": per_class}
        part = {
            "data": {"classes": ["benign", "malignant"]},
            "validation": {
                **dict.fromkeys(scalars, 0.5),
                "macro_auroc": auroc,
                "per_class": {"benign": {}, "malignant": {}},
            },
            "leakage": leaks if number > 1 else {**leaks, "per_class": {"benign": cell(4)}},
            "announcements": [],
            "network": {},
            "environment": {},
            "seconds": {"total": 1.0},
        }
        folders.append(tmp_path / f"fold-{number}")
        folders[-1].mkdir()
        (folders[-1] / "metrics.json").write_text(json.dumps(part))
    share = np.linspace(0.1, 0.9, 12)
    pooled = pd.DataFrame(
        {
            "image_id": [f"I{n}" for n in range(12)],
            "lesion_id": [f"L{n}" for n in range(12)],
            "true": ["benign"] * 9 + ["malignant"] * 3,
            "predicted": ["benign"] * 6 + ["malignant"] * 6,
            "p_benign": 1 - share,
            "p_malignant": share,
        }
    )
    joint = joint_metrics(folders, pooled, config("seed"))
    assert joint["folds"]["macro_auroc"]["mean"] == pytest.approx(0.8)
    assert joint["folds"]["macro_auroc"]["values"] == [0.7, None, 0.9]
    assert joint["leakage"]["per_class"]["malignant"]["validation_images"] == 1
    json.dumps(joint, allow_nan=False)
