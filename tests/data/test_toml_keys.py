"""What a dermafuse.toml can say beyond columns: rows left out, one-hot labels, folders, a second table, a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermafuse.data.readers.given_split import given_folds, given_split
from dermafuse.data.readers.read import read_dataset, read_training_data
from dermafuse.data.records import Records
from dermafuse.data.scan import image_files
from dermafuse.errors import ConfigError, DataError

HEAD = 'table = "t.csv"\nimage = "img"\nclasses = ["mel", "nv"]\n'


def made(root: Path, table: str, toml: str, *, head: str = HEAD) -> Path:
    """Write a table, its description and a file for every name in its first column."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "t.csv").write_text(table)
    for line in table.splitlines()[1:]:
        (root / f"{line.split(',')[0]}.png").write_text(line)
    (root / "dermafuse.toml").write_text(head + toml)
    return root


def ids(records: Records) -> list[str]:
    return list(records.table["image_id"])


def said(records: Records) -> str:
    return " ".join(records.notes)


ROWS = "img,dx,grp,part,fold\n" + "".join(
    f"i{n},{'mel' if n % 2 else 'nv'},g{n // 2},{'train' if n < 12 else 'val' if n < 16 else 'test'},{n % 3}\n"
    for n in range(20)
)


def test_rows_of_a_blank_or_any_other_diagnosis_are_dropped_and_counted(tmp_path: Path) -> None:
    table = "img,dx\na,mel\nb,\nc,scar\nd,NV\ne,wart\nf,scar\n"
    with pytest.raises(DataError):
        read_dataset(made(tmp_path, table, 'label = "dx"\n'))
    records = read_dataset(made(tmp_path, table, 'label = "dx"\nignore = ["", "*"]\n'))
    assert ids(records) == ["a", "d"]
    assert "4 row(s) are dropped, as `ignore` says: scar 2, no diagnosis 1, wart 1." in records.notes
    assert "no row in the table" not in said(records)
    blank_only = made(tmp_path, table, 'label = "dx"\nignore = [""]\n')
    with pytest.raises(DataError, match=r"3 row\(s\) have an unknown diagnosis"):
        read_dataset(blank_only)


def test_diagnoses_and_parts_compare_without_case_underscores_and_ways_to_write_a_number(tmp_path: Path) -> None:
    toml = """label = "dx"
split = "part"
fold = "fold"
ignore = ["not_sure"]
[labels]
1 = "mel"
"Basal cell" = "nv"
[values.split]
1 = "train"
"""
    table = "img,dx,part,fold\na,1.0,1.0,0.0\nb,BASAL_CELL,01,1\nc,Not sure,1,0\nd,01,Train,1.0\n"
    records = read_dataset(made(tmp_path, table, toml))
    assert list(records.table["label"]) == ["mel", "nv", "mel"]
    assert set(records.table["given_split"]) == {"train"}
    assert list(records.table["given_fold"]) == ["0", "1", "1"]


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    two_ways = '[labels]\nNevus = "nv"\nnevus = "mel"\n'
    with pytest.raises(ConfigError, match=r"\[labels\] sends 'nevus' to 'nv' and to 'mel'"):
        read_dataset(made(tmp_path, ROWS, 'label = "dx"\n' + two_ways))
    head = HEAD.replace('"nv"', '"nv", "NV"')
    with pytest.raises(ConfigError, match="the classes 'NV' and 'nv' cannot be told apart"):
        read_dataset(made(tmp_path, ROWS, 'label = "dx"\n', head=head))


def test_a_refusal_names_the_key_that_drops_such_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'drop them by `ignore = \["\*"\]` in dermafuse.toml'):
        read_dataset(made(tmp_path, "img,dx\na,scar\nb,nv\n", 'label = "dx"\n'))
    with pytest.raises(DataError, match=r'drop them by `ignore = \[""\]` in dermafuse.toml'):
        read_dataset(made(tmp_path, "img,dx\na,\nb,nv\n", 'label = "dx"\n'))


def test_one_hot_columns_are_one_label_and_their_others_can_be_ignored(tmp_path: Path) -> None:
    table = "img,MEL,NV,UNK,Scar\na,1.0,0,0,0\nb,0,1,0,0\nc,0,0,1,0\nd,0,0,0,True\ne,0,0,0,\n"
    toml = 'label = ["MEL", "NV", "UNK", "Scar"]\nignore = ["UNK", ""]\n[labels]\nscar = "nv"\n'
    records = read_dataset(made(tmp_path, table, toml))
    assert list(records.table["label"]) == ["mel", "nv", "nv"]
    assert "UNK 1" in said(records)
    assert "no diagnosis 1" in said(records)
    with pytest.raises(DataError, match=r"do not mark exactly one diagnosis with 1 \(a\)"):
        read_dataset(made(tmp_path, table.replace("a,1.0,0", "a,1,1"), toml))
    with pytest.raises(DataError, match=r"do not mark exactly one diagnosis with 1 \(a\)"):
        read_dataset(made(tmp_path, table.replace("a,1.0,0", "a,0.5,0"), toml))


def test_a_given_split_is_used_and_its_test_part_is_never_trained_on(tmp_path: Path) -> None:
    data = made(tmp_path, ROWS, 'label = "dx"\nlesion = "grp"\nsplit = "part"\n')
    whole, training = read_dataset(data), read_training_data(data)
    split = given_split(training)
    assert split is not None
    assert [ids(training)[row] for row in split.train] == [f"i{n}" for n in range(12)]
    assert [ids(training)[row] for row in split.validation] == ["i12", "i13", "i14", "i15"]
    assert len(whole) == 20
    assert "The split is given by 'part': train 12, validation 4, test 4." in said(whole)
    assert "4 of the test part" in said(training)
    assert "are in more than one part" not in said(whole)


def test_groups_that_cross_a_given_split_are_counted(tmp_path: Path) -> None:
    table = ROWS.replace("i12,nv,g6", "i12,nv,g0").replace("i16,nv,g8", "i16,nv,g0")
    records = read_dataset(made(tmp_path, table, 'label = "dx"\nlesion = "grp"\nsplit = "part"\n'))
    assert "1 lesion(s) or patient(s) with 4 images are in more than one part of 'part' (g0)" in said(records)


def test_without_a_validation_part_one_is_drawn_from_the_train_part_alone(tmp_path: Path) -> None:
    data = made(tmp_path, ROWS.replace(",val,", ",Training,"), 'label = "dx"\nsplit = "part"\n')
    training = read_training_data(data)
    assert given_split(training) is None
    assert len(training) == 16
    assert "Validation is drawn from its train part" in said(training)


def test_own_words_of_a_split_are_mapped_and_unknown_ones_refused(tmp_path: Path) -> None:
    table = ROWS.replace(",val,", ",B,").replace(",test,", ",old,")
    with pytest.raises(DataError, match=r"8 row\(s\) of 'part' name no part of a split \('B', 'old'\)"):
        read_dataset(made(tmp_path, table, 'label = "dx"\nsplit = "part"\n'))
    toml = 'label = "dx"\nsplit = "part"\n[values.split]\nb = "validation"\nold = ""\n'
    training = read_training_data(made(tmp_path, table, toml))
    assert len(training) == 16
    assert given_split(training) is not None
    assert "no part 4 (never trained on)" in said(training)
    with pytest.raises(ConfigError, match=r"'validate', which is not one of train, validation, test"):
        read_dataset(made(tmp_path, table, toml.replace('"validation"', '"validate"')))


def test_test_rows_without_a_diagnosis_do_not_stop_training(tmp_path: Path) -> None:
    table = ROWS.replace("i16,nv", "i16,").replace("i17,mel", "i17,")
    records = read_training_data(made(tmp_path, table, 'label = "dx"\nsplit = "part"\n'))
    assert len(records) == 16
    assert "2 row(s) of the test part have no diagnosis" in said(records)
    with pytest.raises(DataError, match=r"1 row\(s\) have no diagnosis"):
        read_dataset(made(tmp_path, ROWS.replace("i3,mel", "i3,"), 'label = "dx"\nsplit = "part"\n'))


def test_a_fold_column_gives_the_folds_and_the_first_of_them_validates(tmp_path: Path) -> None:
    data = made(tmp_path, ROWS, 'label = "dx"\nfold = "fold"\nsplit = "part"\n')
    training = read_training_data(data)
    folds = given_folds(training, 3)
    assert folds is not None
    assert [len(fold.validation) for fold in folds] == [6, 5, 5]
    assert sorted(np.concatenate([fold.validation for fold in folds])) == list(range(16))
    with pytest.raises(ConfigError, match=r"gives 3 fold\(s\) \(0, 1, 2\), not 5; use --folds 3"):
        given_folds(training, 5)
    alone = read_training_data(made(tmp_path / "b", ROWS.replace(",2\n", ",test\n"), 'label = "dx"\nfold = "fold"\n'))
    split = given_split(alone)
    assert split is not None
    assert set(alone.table["given_fold"].iloc[split.validation]) == {"0"}
    assert len(alone) == 14
    assert "test 6 (never trained on)" in said(alone)


def test_folders_are_classes_and_parts(tmp_path: Path) -> None:
    for place in ("Train/nevus/1", "Train/melanoma/1", "Train/melanoma/2", "Test/nevus/9", "Test/stray"):
        path = tmp_path / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(place)
    toml = 'folders = ["split", "label"]\nlabel = "label"\nsplit = "split"\nclasses = ["melanoma", "nevus"]\n'
    (tmp_path / "dermafuse.toml").write_text(toml)
    records = read_dataset(tmp_path)
    assert dict(zip(records.table["image_id"], records.table["label"], strict=True)) == {
        "9": "nevus",
        "Train/melanoma/1": "melanoma",
        "2": "melanoma",
        "Train/nevus/1": "nevus",
    }
    assert all(Path(path).read_text() in path for path in records.table["path"])
    assert "1 image(s) lie outside of split / label folders" in said(records)
    assert len(read_training_data(tmp_path)) == 3


def test_every_image_of_a_folder_is_listed(tmp_path: Path) -> None:
    for name in ("b/1.jpg", "a/1.JPG", "a/note.txt", ".hidden/2.jpg", "a/1_segmentation.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)] == ["a/1.JPG", "b/1.jpg"]


JOINED = "img,case,kind\na,1,close-up\nb,1,dermoscopic\nc,2,Dermoscopic\nd,3,dermoscopic\n"
JOIN_TOML = """label = ["MEL", "NV"]
lesion = "case"
ignore = [""]
[keep]
kind = "dermoscopic"
[join]
table = "gt.csv"
on = { case = "lesion_id" }
"""


def test_labels_come_from_a_second_table_and_rows_are_chosen_by_a_column(tmp_path: Path) -> None:
    data = made(tmp_path, JOINED, JOIN_TOML)
    (data / "gt.csv").write_text("lesion_id,MEL,NV\n1,1.0,0.0\n2,0.0,1.0\n9,1,0\n")
    records = read_dataset(data)
    assert dict(zip(records.table["image_id"], records.table["label"], strict=True)) == {"b": "mel", "c": "nv"}
    assert list(records.table["lesion_id"]) == ["1", "2"]
    assert "1 row(s) have no counterpart in gt.csv (case: 3)" in said(records)
    assert "1 row(s) of gt.csv belong to no image" in said(records)
    assert "1 row(s) are dropped, as [keep] says (kind: close-up 1)" in said(records)
    assert "have no row in the table" not in said(records)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("lesion_id,MEL,NV\n1,1,0\n1,0,1\n", r"'lesion_id' has 1 value\(s\) in several rows \(1\)"),
        ("lesion_id,MEL,NV\n7,1,0\n", "No 'case' of .* stands under 'lesion_id'"),
        ("lesion_id,MEL,NV,kind\n1,1,0,other\n", "'kind' stands in t.csv and in gt.csv with other values"),
        ("case,MEL,NV\n1,1,0\n", "has no column 'lesion_id'"),
    ],
)
def test_a_second_table_that_does_not_fit_is_refused(tmp_path: Path, truth: str, message: str) -> None:
    data = made(tmp_path, JOINED, JOIN_TOML)
    (data / "gt.csv").write_text(truth)
    with pytest.raises(DataError, match=message):
        read_dataset(data)


def test_a_value_that_no_row_has_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path, JOINED, JOIN_TOML.replace('"dermoscopic"', '"xray"'))
    (data / "gt.csv").write_text("lesion_id,MEL,NV\n1,1,0\n")
    with pytest.raises(DataError, match=r"no row has 'kind' xray \(there is Dermoscopic, close-up, dermoscopic\)"):
        read_dataset(data)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('folders = ["label"]\n', "'table' and 'folders' exclude each other"),
        ('label = ["a", "A"]\n', "label: each name must be there once"),
        ('split = "part"\nnumeric = ["part"]\n', "'part' cannot be a feature"),
        ('[join]\ntable = "x.csv"\non = { a = "b", c = "d" }\n', "join.on: one column is needed"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_dataset(made(tmp_path, ROWS, toml))


def test_training_chooses_the_given_rows(tmp_path: Path) -> None:
    from dermafuse.checks.check import check_records
    from dermafuse.progress import Silent

    data = made(tmp_path, ROWS.replace("i12,nv,g6", "i12,nv,g0"), 'label = "dx"\nlesion = "grp"\nsplit = "part"\n')
    for n in range(20):
        Image.new("RGB", (40, 30), (n, 100, 50)).save(data / f"i{n}.png")
    found = check_records(read_dataset(data, labelled=False), Silent())
    assert found["split"]["by"] == "the data's own column"
    assert found["leakage"]["leaked_images"] == 1


def test_a_patient_beside_the_lesion_keeps_all_images_of_a_patient_together(tmp_path: Path) -> None:
    rows = "a,mel,L1,P1\nb,nv,L2,P1\nc,nv,L3,P2\nd,nv,L3,\ne,mel,L4,\nf,nv,L4,\ng,nv,,\nh,nv,P2,\n"
    table = f"img,dx,spot,person\n{rows}"
    records = read_dataset(made(tmp_path, table, 'label = "dx"\nlesion = "spot"\npatient = "person"\n'))
    groups = dict(zip(ids(records), records.table["lesion_id"], strict=True))
    assert records.group == "patient"
    assert groups["a"] == groups["b"] == "P1"
    assert groups["c"] == groups["d"] == "P2"  # the lesion is known to be hers
    assert groups["e"] == groups["f"]
    assert len({groups[name] for name in "aceg"}) == 4
    assert groups["h"] != groups["c"]  # a lesion that is called as a patient is none
    alone = read_dataset(made(tmp_path, table, 'label = "dx"\npatient = "person"\n'))
    assert alone.table["lesion_id"].tolist()[:3] == ["P1", "P1", "P2"]


def test_a_lesion_of_two_patients_and_a_patient_as_a_feature_are_refused(tmp_path: Path) -> None:
    toml = 'label = "dx"\nlesion = "spot"\npatient = "person"\n'
    with pytest.raises(DataError, match=r"1 lesion\(s\) of 'spot' belong to two patients of 'person' \(L1\)"):
        read_dataset(made(tmp_path, "img,dx,spot,person\na,mel,L1,P1\nb,nv,L1,P2\n", toml))
    with pytest.raises(ConfigError, match="cannot be a feature"):
        read_dataset(made(tmp_path, "img,dx,spot,person\na,mel,L1,P1\n", toml + 'categorical = ["person"]\n'))
