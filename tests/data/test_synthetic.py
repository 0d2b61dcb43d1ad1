"""The generated data set: HAM10000's shape, no doubt about what it is, hard enough to be of use."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import SYNTHETIC_MARKER
from dermafuse.data.synthetic import dataset as synthetic
from dermafuse.data.synthetic.dataset import HEADER, MARKER, MASKS, SIDES, lesion_counts, write_synthetic
from dermafuse.data.synthetic.lesions import LOOKS
from dermafuse.errors import ConfigError, OutputError
from dermafuse.labels import HAM10000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("made") / "data", lesions=120, seed=3)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "HAM10000_metadata.csv")


def test_it_is_read_as_ham10000_and_known_to_be_synthetic(folder: Path) -> None:
    records = read_dataset(folder)
    assert records.layout == "kaggle"
    assert records.synthetic
    assert MARKER == SYNTHETIC_MARKER
    assert len(records.skipped) == 0
    assert len(records) == len(rows(folder)) == sum(len(list((folder / side).iterdir())) for side in SIDES)
    assert tuple(rows(folder).columns) == HEADER
    assert abs(len(list((folder / SIDES[0]).iterdir())) - len(list((folder / SIDES[1]).iterdir()))) <= 1


def test_everything_in_it_says_that_it_is_generated(folder: Path) -> None:
    table = rows(folder)
    assert table["image_id"].str.match(r"^SYN_\d{7}$").all()
    assert table["lesion_id"].str.match(r"^SYN_L\d{6}$").all()
    assert "SYNTHETIC" in (folder / MARKER).read_text()
    for path in (folder / SIDES[0]).iterdir():
        assert b"SYNTHETIC" in Image.open(path).info["comment"]


def test_classes_lesions_and_metadata_are_like_ham10000(folder: Path) -> None:
    table = rows(folder)
    lesions = table.drop_duplicates("lesion_id")
    counts = lesions["dx"].value_counts()
    assert counts.to_dict() == {dx: n for dx, n in lesion_counts(120).items() if n}
    assert counts.min() >= 8
    assert counts.idxmax() == "nv"
    assert len(table) > len(lesions)
    assert len(table.drop(columns="image_id").drop_duplicates()) == len(lesions)  # one set of facts a lesion
    assert table["age"].isna().any()
    assert set(table["age"].dropna() % 5) == {0.0}
    assert (table["localization"] == "unknown").any()
    assert set(table["sex"]) >= {"male", "female"}
    age = lesions.groupby("dx")["age"].mean()
    assert age["akiec"] > age["nv"] + 8


@pytest.mark.parametrize("lesions", [14, 15, 55, 56, 57, 400, 7470])
def test_lesions_add_up_and_no_class_is_left_out(lesions: int) -> None:
    counts = lesion_counts(lesions)
    assert sum(counts.values()) == lesions
    assert tuple(counts) == HAM10000.codes == tuple(LOOKS)
    assert min(counts.values()) >= min(8, lesions // 7)
    if lesions == 7470:
        assert 0.68 < counts["nv"] / lesions < 0.74


def test_images_and_masks_have_their_sizes_and_fit_each_other(folder: Path) -> None:
    table = rows(folder)
    darker = 0
    for image_id in table["image_id"]:
        path = next(folder / side / f"{image_id}.jpg" for side in SIDES if (folder / side / f"{image_id}.jpg").exists())
        image = Image.open(path)
        mask = Image.open(folder / MASKS / f"{image_id}_segmentation.png")
        assert (image.size, image.mode, mask.size, mask.mode) == ((200, 150), "RGB", (600, 450), "L")
        inside = np.asarray(mask.resize(image.size)) > 127
        assert set(np.unique(mask)) == {0, 255}
        assert 0.01 < inside.mean() < 0.95
        green = np.asarray(image)[..., 1].astype(float)
        assert 15 < green.mean() < 240
        darker += green[inside].mean() < np.median(green[~inside])
    assert darker > 0.9 * len(table)


def test_pictures_of_one_lesion_differ_and_resemble_each_other(folder: Path) -> None:
    table = rows(folder)
    colour = {}
    for side in SIDES:
        for path in (folder / side).iterdir():
            mask = np.asarray(Image.open(folder / MASKS / f"{path.stem}_segmentation.png").resize((200, 150))) > 127
            pixels = np.asarray(Image.open(path)).astype(float)
            colour[path.stem] = pixels[mask].mean(0) / pixels[~mask].mean()
    assert len({path.read_bytes() for side in SIDES for path in (folder / side).iterdir()}) == len(table)
    within, across = [], []
    for _, group in table.groupby("lesion_id"):
        ids = list(group["image_id"])
        within += [np.abs(colour[a] - colour[b]).mean() for a, b in pairwise(ids)]
    ids = list(table["image_id"])
    across = [np.abs(colour[a] - colour[b]).mean() for a, b in zip(ids, reversed(ids), strict=True) if a != b]
    assert np.mean(within) < 0.6 * np.mean(across)


def test_the_classes_can_be_told_apart_but_not_easily(folder: Path) -> None:
    """Nearest class mean of lesion colour and spread, each lesion left out of its own means."""
    table = rows(folder)
    features = []
    for image_id in table["image_id"]:
        path = next(folder / side / f"{image_id}.jpg" for side in SIDES if (folder / side / f"{image_id}.jpg").exists())
        mask = np.asarray(Image.open(folder / MASKS / f"{image_id}_segmentation.png").resize((200, 150))) > 127
        pixels = np.asarray(Image.open(path)).astype(float)
        features.append([*(pixels[mask].mean(0) / pixels[~mask].mean(0)), *pixels[mask].std(0) / 100, mask.mean()])
    points = np.array(features)
    points = (points - points.mean(0)) / points.std(0)
    label, lesion = table["dx"].to_numpy(str), table["lesion_id"].to_numpy(str)
    right = {dx: [] for dx in HAM10000.codes}
    for point, own, group in zip(points, label, lesion, strict=True):
        means = [points[(label == dx) & (lesion != group)].mean(0) for dx in HAM10000.codes]
        right[own].append(HAM10000.codes[int(np.argmin([np.linalg.norm(point - mean) for mean in means]))] == own)
    balanced = np.mean([np.mean(hits) for hits in right.values()])
    assert 2 / 7 < balanced < 0.85


def test_the_same_seed_gives_the_same_files_and_another_others(tmp_path: Path) -> None:
    made = [
        digest(write_synthetic(tmp_path / str(i), lesions=14, seed=seed, size=(64, 48)))
        for i, seed in enumerate([0, 0, 1])
    ]
    assert made[0] == made[1]
    pictures = [{h for name, h in one.items() if name.endswith(".jpg")} for one in made]
    assert not pictures[0] & pictures[2]


def test_a_folder_that_exists_is_left_alone_and_an_error_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        write_synthetic(tmp_path / "mine", lesions=14)
    assert (tmp_path / "mine" / "photo.jpg").read_text() == "precious"

    def fail(*_: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(synthetic, "draw", fail)
    with pytest.raises(RuntimeError):
        write_synthetic(tmp_path / "new", lesions=14)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"lesions": 13}, "too few"), ({"seed": -1}, "seed"), ({"size": (20, 150)}, "image size is 20x150")],
)
def test_impossible_requests_are_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        write_synthetic(tmp_path / "data", **({"lesions": 14} | options))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(32, 32), (90, 160), (600, 450)])
def test_other_sizes_are_drawn_too(tmp_path: Path, size: tuple[int, int]) -> None:
    made = write_synthetic(tmp_path / "data", lesions=14, size=size)
    assert {Image.open(path).size for path in (made / SIDES[0]).iterdir()} == {size}
