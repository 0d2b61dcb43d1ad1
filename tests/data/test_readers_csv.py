"""The reader of any CSV through a TOML file that names its columns."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from dermafuse.data.readers.description import TableDescription
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import ConfigError, DataError
from dermafuse.labels import HAM10000

PAD_CSV = """patient_id,lesion_id,age,gender,region,diagnostic,itch,diameter_1,img_id,biopsed
PAT_1,11,55,FEMALE,ARM,NEV,True,6.5,PAT_1_11_1.png,False
PAT_1,11,55,FEMALE,ARM,nev,True,,PAT_1_11_2.png,False
PAT_2,12,,,NECK,ACK,UNK,3,PAT_2_12_3.png,True
PAT_3,13,80,MALE,FACE,SCC,False,12.0,PAT_3_13_4.png,True
PAT_4,,70,MALE,FACE,UNK,False,12.0,PAT_4_14_5.png,True
"""
PAD_TOML = """
table = "metadata.csv"
images = ["images"]
image = "img_id"
label = "diagnostic"
lesion = "lesion_id"
numeric = { age = "age", diameter = "diameter_1" }
categorical = { sex = "gender", localization = "region", itch = "itch" }
ignore = ["unk"]
[labels]
NEV = "nv"
ACK = "akiec"
SCC = "akiec"
[values.localization]
ARM = "upper extremity"
"""


def clinic(root: Path, toml: str = PAD_TOML, table: str = PAD_CSV) -> Path:
    for n, name in enumerate(re.findall(r"PAT_\w+(?=\.png)", PAD_CSV)):
        path = root / "images" / f"imgs_part_{n % 3 + 1}" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "metadata.csv").write_text(table)
    (root / "dermafuse.toml").write_text(toml)
    return root


def test_a_clinics_table_is_read_with_its_own_columns_mapped(tmp_path: Path) -> None:
    records = read_dataset(clinic(tmp_path))
    table = records.table
    assert (records.layout, records.classes, records.root) == ("csv", HAM10000.codes, tmp_path / "dermafuse.toml")
    assert (records.numeric, records.categorical) == (("age", "diameter"), ("sex", "localization", "itch"))
    assert list(table["image_id"]) == ["PAT_1_11_1", "PAT_1_11_2", "PAT_2_12_3", "PAT_3_13_4"]
    assert list(table["lesion_id"]) == ["11", "11", "12", "13"]
    assert list(table["label"]) == ["nv", "nv", "akiec", "akiec"]
    assert list(table["sex"]) == ["female", "female", None, "male"]
    assert list(table["localization"]) == ["upper extremity", "upper extremity", "neck", "face"]
    assert list(table["itch"]) == ["true", "true", "unk", "false"]
    np.testing.assert_array_equal(table["age"], [55, 55, np.nan, 80])
    np.testing.assert_array_equal(table["diameter"], [6.5, np.nan, 3, 12])
    assert all(Path(path).is_file() and Path(path).is_absolute() for path in table["path"])
    assert records.notes[0] == "Table: metadata.csv, 5 rows, comma-separated."
    assert records.notes[1].startswith("1 row(s) are dropped")
    assert "ACK -> akiec (1), NEV -> nv (1), SCC -> akiec (1), nev -> nv (1)" in records.notes[2]
    assert len(records.notes) == 3


def test_the_toml_file_may_be_named_itself_and_bear_any_name(tmp_path: Path) -> None:
    (clinic(tmp_path) / "dermafuse.toml").rename(tmp_path / "pad.toml")
    assert len(read_dataset(tmp_path / "pad.toml")) == 4


def test_own_classes_and_lists_of_columns_are_taken(tmp_path: Path) -> None:
    toml = """
    table = "metadata.csv"
    image = "img_id"
    label = "biopsed"
    numeric = ["age"]
    categorical = ["itch"]
    classes = ["wait", "cut"]
    labels = { True = "cut", False = "wait" }
    """
    records = read_dataset(clinic(tmp_path, toml))
    assert records.classes == ("cut", "wait")
    assert records.counts() == {"cut": 3, "wait": 2}
    assert (records.numeric, records.categorical) == (("age",), ("itch",))
    assert records.table["sex"].isna().all()
    assert not records.has_lesions
    assert list(records.table["lesion_id"]) == list(records.table["image_id"])


def test_a_stand_in_lesion_never_ties_an_image_to_a_strangers_lesion(tmp_path: Path) -> None:
    table = "img,les,dx\nA.png,B,nv\nB.png,,nv\n"
    (tmp_path / "t.csv").write_text(table)
    for name in ("A.png", "B.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "dermafuse.toml").write_text('table="t.csv"\nimage="img"\nlabel="dx"\nlesion="les"')
    assert read_dataset(tmp_path).table["lesion_id"].nunique() == 2


def test_an_extension_chooses_between_files_of_one_name(tmp_path: Path) -> None:
    clinic(tmp_path)
    (tmp_path / "images" / "PAT_1_11_1.jpg").write_text("thumbnail")
    with pytest.raises(DataError, match="keep one"):
        read_dataset(tmp_path)
    (tmp_path / "dermafuse.toml").write_text('extension = "PNG"\n' + PAD_TOML)
    assert read_dataset(tmp_path).table["path"][0].endswith("PAT_1_11_1.png")


def test_a_lesion_with_two_diagnoses_is_noted(tmp_path: Path) -> None:
    records = read_dataset(clinic(tmp_path, table=PAD_CSV.replace(",nev,", ",ACK,")))
    assert records.notes[-1] == "1 lesion(s) carry more than one diagnosis (11); check them."


def test_without_labels_the_column_may_be_partly_empty_but_one_that_is_named_must_be_there(tmp_path: Path) -> None:
    clinic(tmp_path, table=PAD_CSV.replace(",nev,", ",,"))
    assert list(read_dataset(tmp_path, labelled=False).table["label"]) == ["nv", None, "akiec", "akiec"]
    clinic(tmp_path, table=PAD_CSV.replace("diagnostic", "other"))
    with pytest.raises(DataError, match="no column 'diagnostic'"):
        read_dataset(tmp_path, labelled=False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('image = "img_id"', 'imagee = "img_id"', "unknown key 'imagee'. Did you mean 'image'?"),
        ('image = "img_id"', "", "the key 'image' is missing"),
        ('label = "diagnostic"', "", "the key 'label' is missing"),
        ('image = "img_id"', "image = 3", "image: Input should be a valid string"),
        ('table = "metadata.csv"', "table = ", "is not TOML"),
        ('"nv"', '"nvv"', "sends 'NEV' to 'nvv', which is not one of the classes"),
        ("[values.localization]", "[values.localisation]", "Did you mean 'localization'?"),
        ('itch = "itch"', 'itch = "diagnostic"', "'diagnostic' cannot be a feature"),
        ('itch = "itch"', 'dx_type = "itch"', "cannot be a feature"),
        ('itch = "itch"', 'itch = "DX_TYPE"', "cannot be a feature"),
        ('itch = "itch"', 'age = "itch"', "'age' is in years"),
        ('diameter = "', 'sex = "', "'sex' cannot be numeric"),
        ("ignore", 'extension = "exe"\nignore', "'exe' is not one of .bmp"),
        ("ignore", 'classes = ["a"]\nignore', "classes: at least two different names"),
    ],
)
def test_a_toml_that_is_not_right_is_refused_by_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PAD_TOML
    clinic(tmp_path, PAD_TOML.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_dataset(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gender", "gendre", "no column 'gender' (it has patient_id"),
        ("ACK", "XYZ", "1 row(s) have an unknown diagnosis ('XYZ' of PAT_2_12_3)"),
        ("PAT_1_11_2.png", "PAT_1_11_1.jpg", "1 image id(s) stand in more than one row (PAT_1_11_1)"),
        ("PAT_1_11_2.png", "images/\t.png", "hold control characters"),
        ("6.5", "wide", "1 value(s) of 'diameter_1' are not numbers ('wide' of PAT_1_11_1)"),
        (",80,", ",180,", "outside 0 to 120 (180 of PAT_3_13_4)"),
    ],
)
def test_a_table_that_is_not_right_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    clinic(tmp_path, table=PAD_CSV.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert said in str(caught.value)


def test_a_table_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    clinic(tmp_path, PAD_TOML.replace("metadata.csv", "meta.csv"))
    with pytest.raises(DataError, match=r"meta\.csv, named in dermafuse\.toml, does not exist"):
        read_dataset(tmp_path)
    clinic(tmp_path, PAD_TOML.replace('["images"]', '["pictures"]'))
    with pytest.raises(DataError, match=r"image folder .*pictures does not exist"):
        read_dataset(tmp_path)


def test_the_documentation_names_every_key_and_its_examples_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "tables.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 2
    for block in blocks:
        TableDescription.model_validate(tomllib.loads(block))
    documented = set(re.findall(r"^\| `\[?(\w+)", text, re.MULTILINE))
    assert TableDescription.model_fields.keys() <= documented
