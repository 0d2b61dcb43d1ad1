"""``dermafuse init``: every known format, folders that are classes, and honest guesses about other tables."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dermafuse.cli import main
from dermafuse.data.readers.description import TableDescription
from dermafuse.data.readers.proposal import Format, known_formats
from dermafuse.data.readers.read import read_dataset, read_training_data
from dermafuse.errors import ConfigError, DataError

FORMATS = {entry.name: entry for entry in known_formats()}
ROWS = 24


def written(folder: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]], name: str) -> None:
    with (folder / name).open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, header, restval="")
        table.writeheader()
        table.writerows(rows)


def small_set(entry: Format, folder: Path, *, whole: bool) -> None:
    """Write a table with the header of a format (all columns that it knows, or the necessary ones) and its images."""
    keys = entry.keys
    columns = dict.fromkeys(entry.header)
    if whole:
        more = [keys.get("lesion", []), [keys.get("split")], [keys.get("source")], list(entry.left_out)]
        features = [keys.get(key, {}) for key in ("numeric", "categorical")]
        more += [list(each.values()) if isinstance(each, dict) else each for each in features]
        columns |= dict.fromkeys(name for names in more for name in names if name)
    words = {code: word for word, code in keys.get("labels", {}).items()}
    classes = keys["classes"][:2]
    rows, truth = [], []
    (folder / "pictures").mkdir(parents=True)
    for n in range(ROWS):
        row = {name: f"{name} {n % 3}" for name in columns}
        label = classes[n // 2 % 2]
        word = words.get(label, label.upper())
        row |= {name: str(20 + n) for name in _names(keys.get("numeric", {}))}
        row |= dict.fromkeys(keys.get("lesion", []), f"group {n // 2}")
        row |= {keys["image"]: f"p{n}.jpg", **keys.get("keep", {})}
        if len(keys["label"]) == 1:
            row[keys["label"][0]] = word
        else:
            truth.append({"lesion_id": f"group {n // 2}"} | {name: str(float(name == word)) for name in keys["label"]})
            row["lesion_id"] = truth[-1]["lesion_id"]
        if keys.get("split") in row:
            row[keys["split"]] = "test" if n >= ROWS - 4 else "train"
            row[keys["label"][0]] = "" if n >= ROWS - 4 else word
        (folder / "pictures" / f"p{n}.jpg").write_text(f"{n}")
        rows.append({name: value for name, value in row.items() if name in columns or name == keys["label"][0]})
    written(folder, list(dict.fromkeys([*columns, *(keys["label"] if len(keys["label"]) == 1 else [])])), rows, "a.csv")
    if entry.other:
        unique = {row["lesion_id"]: row for row in truth}
        written(folder, ["lesion_id", *keys["label"]], list(unique.values()), "b.csv")


def _names(value: Any) -> list[str]:
    return list(value.values()) if isinstance(value, dict) else list(value)


@pytest.mark.parametrize("whole", [True, False], ids=["all columns", "necessary columns"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_known_format_is_recognised_and_its_description_reads(
    tmp_path: Path, name: str, whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = FORMATS[name]
    small_set(entry, tmp_path, whole=whole)
    assert main(["init", str(tmp_path)]) == 0
    assert f"the data are taken for {name}." in capsys.readouterr().out
    text = (tmp_path / "dermafuse.toml").read_text()
    told = TableDescription.model_validate(tomllib.loads(text))
    assert told.images == ["pictures"]
    records = read_training_data(tmp_path)
    assert records.classes == tuple(sorted(entry.keys["classes"][:2]))
    assert min(records.counts().values()) >= 8
    features = {*told.numeric.values(), *told.categorical.values()}
    assert not features & entry.left_out.keys()
    if whole:
        assert features == {*_names(entry.keys.get("numeric", {})), *_names(entry.keys.get("categorical", {}))}
        assert all(f"#   {column}: " in text for column in entry.left_out)
    assert all(remark in text for remark in entry.decide)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_told_apart_and_say_only_what_a_description_may(name: str) -> None:
    entry = FORMATS[name]
    lower = {column.lower() for column in entry.header}
    assert not [other.name for other in FORMATS.values() if other is not entry and other.fits(lower)]
    assert entry.keys["image"] in entry.header
    known = {*TableDescription.model_fields, "malignant", "critical"}
    assert entry.keys.keys() <= known
    assert set(entry.keys["malignant"]) < set(entry.keys["classes"])
    assert entry.keys["critical"] in entry.keys["malignant"]
    assert entry.keys["classes"] == sorted(entry.keys["classes"])
    assert set(entry.keys.get("labels", {}).values()) <= set(entry.keys["classes"])


def unknown(folder: Path, header: str, rows: Sequence[str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        (folder / f"{row.split(',')[0]}.png").write_text(row)
    assert main(["init", str(folder)]) == 0
    return (folder / "dermafuse.toml").read_text()


def test_an_unknown_table_gets_guesses_and_its_leaks_are_left_out(tmp_path: Path) -> None:
    header = "Foto,Finding,PatientID,Age,Gender,Site,size_mm,itch,biopsied,management,ward,row,comment"
    rows = [
        f"x{n},{('', 'Wart', 'scar')[n % 3]},p{n // 2},{30 + n},{'MF'[n % 2]},{('back', 'face', 'arm')[n // 2 % 3]},"
        f"{n * 1.5},{n % 2},1,cut {n % 2},{'AB'[n // 4 % 2]},{n},text {n}"
        for n in range(30)
    ]
    text = unknown(tmp_path, header, rows)
    told = TableDescription.model_validate(tomllib.loads(text))
    assert (told.table, told.image, told.label, told.lesion) == ("list.csv", "Foto", ["Finding"], "PatientID")
    assert told.numeric == {"age": "Age", "size_mm": "size_mm"}
    assert told.categorical == {"sex": "Gender", "localization": "Site", "itch": "itch", "ward": "ward"}
    assert told.classes == ["Wart", "scar"]
    assert told.ignore == [""]
    assert "#   management: may be decided with the diagnosis" in text
    assert "every line below is a guess" in text
    assert "Which classes are malignant is not known" in text
    assert read_dataset(tmp_path).counts() == {"Wart": 10, "scar": 10}


def test_a_column_that_answers_for_the_diagnosis_is_no_feature(tmp_path: Path) -> None:
    rows = [f"y{n},{'ab'[n % 2]},w{n % 2},{n % 3}" for n in range(24)]
    text = unknown(tmp_path, "img,diagnosis,ward,colour", rows)
    assert "#   ward: each of its values goes with one diagnosis" in text


def test_a_table_without_diagnoses_can_be_checked_and_says_what_is_missing(tmp_path: Path) -> None:
    text = unknown(tmp_path, "img,ward,colour", [f"y{n},{'ab'[n % 2]},{n % 3}" for n in range(12)])
    assert "No column of diagnoses was found" in text
    assert len(read_dataset(tmp_path, labelled=False)) == 12
    with pytest.raises(ConfigError, match="the key 'label' is missing"):
        read_dataset(tmp_path)


def test_one_hot_columns_and_codes_of_ham10000_are_seen(tmp_path: Path) -> None:
    text = unknown(tmp_path, "image,MEL,NV,UNK", [f"z{n},{n % 2}.0,{1 - n % 2}.0,0.0" for n in range(12)])
    told = TableDescription.model_validate(tomllib.loads(text))
    assert (told.label, told.classes, told.ignore) == (["MEL", "NV", "UNK"], ["mel", "nv"], ["UNK"])
    assert read_dataset(tmp_path).counts() == {"mel": 6, "nv": 6}


def test_split_and_fold_columns_are_seen(tmp_path: Path) -> None:
    rows = [f"s{n},{'ab'[n % 2]},{('Train', 'val', 'TEST')[n % 3]},{n % 4}" for n in range(24)]
    told = TableDescription.model_validate(tomllib.loads(unknown(tmp_path, "img,label,usage,fold", rows)))
    assert (told.split, told.fold, told.categorical) == ("usage", "fold", {})


@pytest.mark.parametrize(
    ("places", "folders"),
    [
        (("melanoma/1", "nevus/1"), ["label"]),
        (("Train/melanoma/1", "Train/nevus/2", "Test/nevus/3", "val_set/nevus/4"), ["split", "label"]),
        (("pack/melanoma/train/1", "pack/nevus/train/2", "pack/nevus/test/3"), ["label", "split"]),
    ],
)
def test_a_folder_for_each_class_needs_no_table(tmp_path: Path, places: tuple[str, ...], folders: list[str]) -> None:
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.jpg").write_text(place)
    with pytest.raises(DataError, match="dermafuse init"):
        read_dataset(tmp_path)
    assert main(["init", str(tmp_path)]) == 0
    told = TableDescription.model_validate(tomllib.loads((tmp_path / "dermafuse.toml").read_text()))
    assert told.folders == folders
    records = read_dataset(tmp_path)
    assert len(records) == len(places)
    assert records.classes == ("melanoma", "nevus")


def test_folders_that_only_hold_parts_of_the_images_are_no_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_text(name)
    assert main(["init", str(tmp_path)]) == 2
    assert "no table and no folder for each class" in capsys.readouterr().err
    assert not (tmp_path / "dermafuse.toml").exists()


def test_a_description_that_is_there_is_replaced_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown(tmp_path, "img,label", [f"t{n},{'ab'[n % 2]}" for n in range(12)])
    (tmp_path / "dermafuse.toml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "dermafuse.toml").read_text() == "mine"
    assert main(["init", str(tmp_path), "--overwrite"]) == 0
    assert len(read_dataset(tmp_path)) == 12


def test_several_tables_that_could_be_meant_are_named_and_one_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown(tmp_path, "img,label", [f"t{n},{'ab'[n % 2]}" for n in range(12)])
    (tmp_path / "other.csv").write_text((tmp_path / "list.csv").read_text().replace("label", "diagnosis"))
    assert main(["init", str(tmp_path), "--overwrite"]) == 2
    said = capsys.readouterr().err
    assert "list.csv, other.csv" in said
    assert main(["init", str(tmp_path / "other.csv"), "--overwrite"]) == 0
    assert 'table = "other.csv"' in (tmp_path / "dermafuse.toml").read_text()


def test_a_known_layout_needs_no_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nL1,i1,nv,histo,40,male,back\n"
    )
    (tmp_path / "i1.jpg").write_text("x")
    assert main(["init", str(tmp_path)]) == 0
    assert "is read as it is (layout kaggle)" in capsys.readouterr().out
    assert not (tmp_path / "dermafuse.toml").exists()


def test_odd_names_survive_the_way_into_the_file(tmp_path: Path) -> None:
    rows = [f"q{n},{word},{n // 2 % 3}" for n, word in enumerate(["a \\ b", "c d"] * 6)]
    text = unknown(tmp_path, 'img,label,"Größe, ""mm"" = #"', rows)
    told = TableDescription.model_validate(tomllib.loads(text))
    assert told.classes == ["a \\ b", "c d"]
    assert list(told.categorical) == ['Größe, "mm" = #']


def test_a_list_of_images_without_diagnoses_is_not_taken_for_the_table(tmp_path: Path) -> None:
    unknown(tmp_path, "img,label", [f"t{n},{'ab'[n % 2]}" for n in range(12)])
    (tmp_path / "a_submission.csv").write_text("img,ward\n" + "".join(f"t{n},{n % 3}\n" for n in range(12)))
    assert main(["init", str(tmp_path), "--overwrite"]) == 0
    text = (tmp_path / "dermafuse.toml").read_text()
    assert 'table = "list.csv"' in text
    assert "Not read: a_submission.csv" in text


def test_a_named_file_that_is_no_table_is_refused_for_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 picture")
    assert main(["init", str(tmp_path / "a.jpg")]) == 2
    assert "is a JPEG file, not a text table" in capsys.readouterr().err


def test_a_column_name_cannot_break_out_of_a_comment(tmp_path: Path) -> None:
    rows = [f"t{n},{'ab'[n % 2]},{n % 3},x" for n in range(12)]
    text = unknown(tmp_path, 'img,label,"biopsy\nlesion = ""evil""","\x1b[31mward"', rows)
    assert TableDescription.model_validate(tomllib.loads(text)).lesion is None
    assert "\x1b" not in text
