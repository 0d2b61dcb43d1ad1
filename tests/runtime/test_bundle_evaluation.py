"""``evaluation.json``: how a bundle was judged, and what it learned from, without its RUN."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.errors import BundleError
from dermafuse.evaluation.overlap import find_overlap
from dermafuse.files import sha256, write_json
from dermafuse.runtime.bundle.evaluation import evaluation_json
from dermafuse.runtime.bundle.folder import read_bundle
from tiny_bundle import tiny_bundle

METRICS = {
    "validation": {"n": 40, "accuracy": 0.5},
    "training": {"early_stopping_rows": "tuning"},
    "data": {"synthetic": False},
    "environment": {"python": "3.11"},
    "findings": [{"explanation": "patient 12 has two rows"}],
}


@pytest.fixture(scope="module")
def records(synthetic: Path):
    records = read_dataset(synthetic)
    # As if it were real: generated data of other seeds have the same ids.
    return replace(records, synthetic=False)


@pytest.fixture(scope="module")
def roles(records):
    lesions = np.unique(records.table["lesion_id"])
    parts = np.split(lesions, [60, 80])
    where = [records.table["lesion_id"].isin(part).to_numpy(bool) for part in parts]
    return dict(zip(("train", "tuning", "validation"), (records.subset(each) for each in where), strict=True))


@pytest.fixture(scope="module")
def bundle(roles, tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("b") / "model", evaluation_json=evaluation_json(METRICS, roles))


def test_the_figures_come_back_and_nothing_that_names_a_patient_or_a_machine(bundle: Path, records) -> None:
    read = read_bundle(bundle).evaluation
    assert read is not None
    assert read["validation"] == METRICS["validation"]
    assert not {"environment", "findings"} & read.keys()
    text = (bundle / "evaluation.json").read_text()
    assert not any(str(each) in text for name in ("image_id", "lesion_id") for each in records.table[name])


def test_a_bundle_without_it_loads_and_says_none(tmp_path: Path) -> None:
    assert read_bundle(tiny_bundle(tmp_path / "m")).evaluation is None


def test_the_manifest_covers_it(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "m")
    (copy / "evaluation.json").write_text((copy / "evaluation.json").read_text().replace("0.5", "0.9"))
    with pytest.raises(BundleError, match=r"evaluation\.json was changed"):
        read_bundle(copy)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"validation": 3}',
        '{"validation": {"n": 1}, "trained_on": {"train": {"files": "A", "lesions": ""}}}',
    ],
)
def test_what_it_cannot_be_is_refused_when_it_is_asked_for(bundle: Path, tmp_path: Path, content: str) -> None:
    copy = shutil.copytree(bundle, tmp_path / "m")
    (copy / "evaluation.json").write_text(content)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["evaluation.json"] = {"sha256": sha256(copy / "evaluation.json"), "bytes": len(content)}
    write_json(copy / "manifest.json", manifest)
    read = read_bundle(copy)  # predicting needs none of it
    with pytest.raises(BundleError, match=r"evaluation\.json"):
        _ = read.evaluation


def test_a_bundle_alone_tells_what_it_learned_from_what_chose_it_and_what_it_never_met(bundle, records, roles) -> None:
    found = find_overlap(None, records, records.classes, read_bundle(bundle).evaluation)
    assert found.known
    sides = [
        each
        for each, role in (("learned from", "train"), ("chose", "tuning"), ("unseen", "validation"))
        for _ in range(len(roles[role]))
    ]
    assert sorted(found.roles()) == sorted(sides)
    learned = records.table["image_id"].isin(roles["train"].table["image_id"]).to_numpy(bool)
    assert (found.trained == learned).all()
    assert (found.trained_lesions == learned).all()
    assert found.validation.sum() == len(roles["validation"])


def test_a_renamed_copy_is_recognised_by_its_content_and_another_size_by_its_lesion(bundle, roles) -> None:
    evaluation = read_bundle(bundle).evaluation
    train = roles["train"]
    renamed = train.table.assign(image_id=[f"x{n}" for n in range(len(train))], lesion_id="y")
    found = find_overlap(None, replace(train, table=renamed), train.classes, evaluation)
    assert found.trained.all()
    resized = train.table.assign(path=roles["validation"].table["path"].iloc[0])
    found = find_overlap(None, replace(train, table=resized), train.classes, evaluation)
    assert not found.trained.any()
    assert found.trained_lesions.all()


def test_generated_images_of_another_seed_are_not_those_of_the_bundle(bundle, tmp_path: Path) -> None:
    evaluation = {**(read_bundle(bundle).evaluation or {}), "data": {"synthetic": True}}
    records = read_dataset(write_synthetic(tmp_path / "other", lesions=14, seed=11))  # same ids, other images
    found = find_overlap(None, records, records.classes, evaluation)
    assert found.known
    assert found.unseen.all()


def test_ten_thousand_images_take_150_kilobytes(records, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [n.to_bytes(6, "big") for n in range(10_015)]
    monkeypatch.setattr("dermafuse.runtime.bundle.evaluation.image_hashes", lambda part: (many, many[:7_470]))
    assert len(evaluation_json({"validation": {"n": 1}}, {"train": records})) < 150_000
