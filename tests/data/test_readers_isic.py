"""Readers of ISIC 2018 Task 3 and ISIC 2019."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dermafuse.data.readers.layout_ham import LOCALIZATIONS
from dermafuse.data.readers.layout_isic import SITES
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import DataError

HEAD_2018 = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
HEAD_2019 = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def truth(path: Path, head: str, marks: dict[str, str]) -> Path:
    names = head.split(",")[1:]
    rows = [",".join([image, *("1.0" if mark == name else "0.0" for name in names)]) for image, mark in marks.items()]
    return put(path, "\n".join([head, *rows]))


def isic2018(root: Path, part: str, marks: dict[str, str]) -> Path:
    stem = f"ISIC2018_Task3_{part}"
    truth(root / f"{stem}_GroundTruth" / f"{stem}_GroundTruth.csv", HEAD_2018, marks)
    for image in marks:
        put(root / f"{stem}_Input" / f"{image}.jpg", image)
    return root


def isic2019(root: Path, marks: dict[str, str], metadata: str) -> Path:
    truth(root / "ISIC_2019_Training_GroundTruth.csv", HEAD_2019, marks)
    put(root / "ISIC_2019_Training_Metadata.csv", metadata)
    for image in marks:
        put(root / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input" / f"{image}.jpg", image)
    return root


def test_isic_2018_gives_labels_from_one_hot_and_says_that_nothing_else_is_known(tmp_path: Path) -> None:
    names = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    isic2018(tmp_path, "Training", {f"ISIC_{n}": name for n, name in enumerate(names)})
    records = read_dataset(tmp_path)
    assert records.layout == "isic2018"
    assert list(records.table["label"]) == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    assert (records.numeric, records.categorical, records.has_metadata) == ((), (), False)
    assert records.table[["age", "sex", "localization"]].isna().all(axis=None)
    assert not records.has_lesions
    assert list(records.table["lesion_id"]) == list(records.table["image_id"])
    assert any("each image counts as its own lesion" in note for note in records.notes)


def test_isic_2018_parts_are_read_together_with_their_lesions_and_part_as_source(tmp_path: Path) -> None:
    isic2018(tmp_path, "Training", {"ISIC_1": "MEL", "ISIC_2": "MEL"})
    isic2018(tmp_path, "Test", {"ISIC_3": "NV"})
    put(
        tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type\nISIC_1,HAM_1,histopathology\nISIC_2,HAM_1,histopathology",
    )
    records = read_dataset(tmp_path)
    rows = {row.image_id: row for row in records.table.itertuples()}
    assert [rows[f"ISIC_{n}"].lesion_id for n in (1, 2, 3)] == ["HAM_1", "HAM_1", "ISIC_3"]
    assert [rows[f"ISIC_{n}"].source for n in (1, 2, 3)] == ["training", "training", "test"]
    assert rows["ISIC_1"].dx_type == "histopathology"
    assert records.has_lesions
    assert "1 image(s) have no lesion id and count as their own lesion." in records.notes


def test_isic_2018_images_without_truth_are_left_out_or_kept_without_label(tmp_path: Path) -> None:
    isic2018(tmp_path, "Training", {"ISIC_1": "MEL"})
    put(tmp_path / "ISIC2018_Task3_Validation_Input" / "ISIC_9.jpg")
    assert list(read_dataset(tmp_path).table["image_id"]) == ["ISIC_1"]
    table = read_dataset(tmp_path, labelled=False).table
    assert list(table["image_id"]) == ["ISIC_1", "ISIC_9"]
    assert list(table["label"]) == ["mel", None]
    assert list(table["source"]) == ["training", "validation"]


def test_isic_2018_input_alone_is_refused_with_labels_and_read_without(tmp_path: Path) -> None:
    put(tmp_path / "ISIC2018_Task3_Test_Input" / "ISIC_9.jpg")
    with pytest.raises(DataError, match="unpack the GroundTruth archive"):
        read_dataset(tmp_path)
    assert list(read_dataset(tmp_path, labelled=False).table["label"]) == [None]


@pytest.mark.parametrize("cells", ["0,0,0,0,0,0,0", "1,1,0,0,0,0,0", "0.5,0.5,0,0,0,0,0", ",,,,,,"])
def test_a_row_that_does_not_mark_one_diagnosis_is_refused(tmp_path: Path, cells: str) -> None:
    isic2018(tmp_path, "Training", {"ISIC_1": "MEL"})
    path = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    put(path, f"{HEAD_2018}\nISIC_1,{cells}")
    with pytest.raises(DataError, match=r"1 row\(s\) do not mark exactly one diagnosis with 1 \(ISIC_1\)"):
        read_dataset(tmp_path)


def test_a_missing_class_column_is_named(tmp_path: Path) -> None:
    isic2018(tmp_path, "Training", {"ISIC_1": "MEL"})
    path = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    truth(path, HEAD_2018.replace(",DF", ""), {"ISIC_1": "MEL"})
    with pytest.raises(DataError, match="no column 'DF'"):
        read_dataset(tmp_path)


def test_an_image_in_two_ground_truths_is_refused(tmp_path: Path) -> None:
    isic2018(tmp_path, "Training", {"ISIC_1": "MEL"})
    isic2018(tmp_path, "Test", {"ISIC_1": "NV"})
    with pytest.raises(DataError, match=r"1 image id\(s\) also stand in another ground truth \(ISIC_1\)"):
        read_dataset(tmp_path)


METADATA = """image,age_approx,anatom_site_general,lesion_id,sex
ISIC_1,55.0,anterior torso,BCN_1,female
ISIC_2,,head/neck,BCN_1,male
ISIC_3,85.0,,,
ISIC_4,30.0,tail,MSK_1,male
"""


def test_isic_2019_maps_scc_to_akiec_drops_unk_and_maps_sites_with_counts(tmp_path: Path) -> None:
    marks = {"ISIC_1": "SCC", "ISIC_2": "AK", "ISIC_3": "NV", "ISIC_4": "BKL", "ISIC_5": "UNK"}
    records = read_dataset(isic2019(tmp_path, marks, METADATA))
    table = records.table
    assert records.layout == "isic2019"
    assert list(table["image_id"]) == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]
    assert list(table["label"]) == ["akiec", "akiec", "nv", "bkl"]
    assert list(table["lesion_id"]) == ["BCN_1", "BCN_1", "ISIC_3", "MSK_1"]
    np.testing.assert_array_equal(table["age"], [55.0, np.nan, 85.0, 30.0])
    assert list(table["sex"]) == ["female", "male", None, "male"]
    assert list(table["localization"]) == ["trunk", "face", None, None]
    assert records.has_metadata
    assert len(records.skipped) == 0
    said = "\n".join(records.notes)
    assert "1 image(s) of squamous cell carcinoma (SCC) count as akiec." in said
    assert "1 image(s) of unknown class (UNK) have no counterpart and are dropped." in said
    assert "anterior torso -> trunk (1), head/neck -> face (1)" in said
    assert "without a counterpart count as missing: 'tail' (1)" in said
    assert "no row in the table" not in said


def test_isic_2019_keeps_unk_without_a_label_where_labels_are_not_asked_for(tmp_path: Path) -> None:
    table = read_dataset(isic2019(tmp_path, {"ISIC_1": "MEL", "ISIC_5": "UNK"}, METADATA), labelled=False).table
    known = dict(zip(table["image_id"], table["label"], strict=True))
    assert known == {"ISIC_1": "mel", "ISIC_5": None}


def test_isic_2019_without_its_metadata_is_read_as_images_alone(tmp_path: Path) -> None:
    isic2019(tmp_path, {"ISIC_1": "MEL"}, METADATA)
    (tmp_path / "ISIC_2019_Training_Metadata.csv").unlink()
    records = read_dataset(tmp_path)
    assert not records.has_metadata
    assert any("without metadata" in note for note in records.notes)


def test_an_isic_2019_image_without_a_metadata_row_is_noted(tmp_path: Path) -> None:
    records = read_dataset(isic2019(tmp_path, {"ISIC_1": "MEL", "ISIC_7": "NV"}, METADATA))
    assert any(note.startswith("1 image(s) have no row in the metadata") for note in records.notes)


def test_an_isic_2019_age_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'abc' of ISIC_1"):
        read_dataset(isic2019(tmp_path, {"ISIC_1": "MEL"}, METADATA.replace("55.0", "abc")))


def test_both_years_in_one_folder_are_refused(tmp_path: Path) -> None:
    isic2018(tmp_path, "Training", {"ISIC_1": "MEL"})
    isic2019(tmp_path, {"ISIC_2": "MEL"}, METADATA)
    with pytest.raises(DataError, match="holds both ISIC 2018 and ISIC 2019"):
        read_dataset(tmp_path)


def test_every_site_maps_into_the_vocabulary_of_ham10000() -> None:
    assert set(SITES.values()) <= LOCALIZATIONS
