"""Readers: the layouts of HAM10000 and ISIC as people have them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermafuse.data.readers.read import read_dataset, scan_images
from dermafuse.data.records import COLUMNS
from dermafuse.data.tables import read_table
from dermafuse.errors import DataError
from dermafuse.labels import HAM10000

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
ROWS = [
    "HAM_1,ISIC_1,mel,histo,80.0,male,back",
    "HAM_1,ISIC_2,mel,histo,80.0,male,back",
    "HAM_2,ISIC_3,nv,follow_up,,female,unknown",
    "HAM_3,ISIC_4,vasc,consensus,0.0,unknown,acral",
]


def put(path: Path, content: str | bytes = "") -> Path:
    """Write a file with its folders. Readers never open an image, so any bytes will do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_images(folder: Path, *names: str) -> None:
    for name in names:
        put(folder / name, name)


def kaggle(root: Path, rows: list[str] = ROWS, header: str = HEADER) -> Path:
    put(root / "HAM10000_metadata.csv", "\n".join([header, *rows]) + "\n")
    put_images(root / "HAM10000_images_part_1", "ISIC_1.jpg", "ISIC_2.jpg")
    put_images(root / "HAM10000_images_part_2", "ISIC_3.jpg", "ISIC_4.jpg")
    return root


def test_the_kaggle_folder_becomes_one_typed_row_an_image(tmp_path: Path) -> None:
    records = read_dataset(kaggle(tmp_path))
    table = records.table
    assert (records.layout, records.classes, records.has_lesions) == ("kaggle", HAM10000.codes, True)
    assert (records.numeric, records.categorical) == (("age",), ("sex", "localization"))
    assert list(table.columns) == list(COLUMNS)
    assert list(table["image_id"]) == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]
    assert list(table["lesion_id"]) == ["HAM_1", "HAM_1", "HAM_2", "HAM_3"]
    assert table["age"].dtype == np.float64
    np.testing.assert_array_equal(table["age"], [80.0, 80.0, np.nan, 0.0])
    assert list(table["sex"]) == ["male", "male", "female", "unknown"]
    assert table["localization"][2] == "unknown"
    assert table["dx_type"][0] == "histo"
    assert table["source"].isna().all()
    assert table["path"][2] == str(tmp_path / "HAM10000_images_part_2" / "ISIC_3.jpg")
    assert records.notes == ("Table: HAM10000_metadata.csv, 4 rows, comma-separated.",)
    assert len(records.skipped) == 0
    assert not records.synthetic


@pytest.mark.parametrize(
    ("table", "folder"),
    [
        ("ham10000_metadata.csv", "ham10000_images_part_1"),
        ("HAM10000_METADATA.CSV", "images"),
        ("HAM10000_metadata.csv", "."),
        ("nested/HAM10000_metadata.csv", "nested/HAM10000_images_part_1/HAM10000_images_part_1"),
    ],
)
def test_kaggle_names_may_be_in_either_case_and_images_anywhere_below(tmp_path: Path, table: str, folder: str) -> None:
    put(tmp_path / table, "\n".join([HEADER, *ROWS]))
    put_images(tmp_path / folder, "ISIC_1.jpg", "ISIC_2.JPG", "ISIC_3.jpeg", "ISIC_4.png")
    records = read_dataset(tmp_path)
    assert (len(records), records.layout) == (4, "kaggle")


@pytest.mark.parametrize(
    ("name", "tab"), [("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t"), ("HAM10000_metadata.csv", ",")]
)
def test_the_dataverse_table_is_read_with_or_without_suffix_and_gives_the_source(
    tmp_path: Path, name: str, tab: str
) -> None:
    lines = [HEADER + ",dataset", *(row + ",rosendahl" for row in ROWS)]
    put(tmp_path / name, "\r\n".join('"' + line.replace(",", f'"{tab}"') + '"' for line in lines))
    put_images(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg", "ISIC_4.jpg")
    records = read_dataset(tmp_path)
    assert records.layout == "dataverse"
    assert list(records.table["source"]) == ["rosendahl"] * 4
    assert np.isnan(records.table["age"][2])


def test_the_test_set_of_dataverse_is_known_by_its_columns(tmp_path: Path) -> None:
    put(tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv", "\n".join([HEADER + ",dataset", ROWS[0] + ",msk"]))
    put_images(tmp_path / "ISIC2018_Task3_Test_Images", "ISIC_1.jpg")
    assert read_dataset(tmp_path).layout == "dataverse"


def test_tables_that_could_both_be_meant_are_refused_with_their_names_and_a_way_out(tmp_path: Path) -> None:
    put(kaggle(tmp_path) / "HAM10000_metadata.tab", HEADER)
    said = refused(tmp_path)
    assert "2 tables that could be meant (HAM10000_metadata.csv, HAM10000_metadata.tab)" in said
    assert 'dermafuse.toml that says which: table = "HAM10000_metadata.csv"' in said


def test_a_training_and_a_test_table_side_by_side_are_never_chosen_between(tmp_path: Path) -> None:
    (kaggle(tmp_path) / "HAM10000_metadata.csv").rename(tmp_path / "train.csv")
    put(tmp_path / "test.csv", "\n".join([HEADER, ROWS[3]]))
    assert "2 tables that could be meant (test.csv, train.csv)" in refused(tmp_path)
    put(tmp_path / "test.csv", (tmp_path / "train.csv").read_bytes())  # a copy is no second opinion
    assert len(read_dataset(tmp_path)) == 4


def test_a_one_hot_training_set_beside_a_test_table_with_columns_is_not_passed_over(tmp_path: Path) -> None:
    kaggle(tmp_path).joinpath("HAM10000_metadata.csv").rename(tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv")
    put(
        tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv", "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_9,1,0,0,0,0,0,0"
    )
    assert "ISIC2018_Task3_Training_GroundTruth.csv" in refused(tmp_path)


def test_the_table_that_is_read_is_named_and_those_beside_it_too(tmp_path: Path) -> None:
    put(kaggle(tmp_path) / "ISIC2018_Task3_Test_GroundTruth.csv", "\n".join([HEADER, ROWS[0]]))
    put(tmp_path / "hmnist_8_8_L.csv", "pixel0000,label\n120,2\n")
    notes = read_dataset(tmp_path).notes
    assert notes == (
        "Table: HAM10000_metadata.csv, 4 rows, comma-separated.",
        "Also there and not read: ISIC2018_Task3_Test_GroundTruth.csv.",
    )


def test_a_marker_file_makes_the_records_synthetic(tmp_path: Path) -> None:
    put(kaggle(tmp_path) / "SYNTHETIC.txt")
    assert read_dataset(tmp_path).synthetic


def test_masks_and_hidden_files_are_not_images_and_strangers_are_counted(tmp_path: Path) -> None:
    kaggle(tmp_path)
    put_images(tmp_path / "HAM10000_segmentations_lesion_tschandl", "ISIC_1_segmentation.png", "ISIC_1.png")
    put_images(tmp_path / "more", "ISIC_2_segmentation.png", "._ISIC_3.jpg", "ISIC_9.jpg")
    put_images(tmp_path / "__MACOSX", "ISIC_8.jpg")
    records = read_dataset(tmp_path)
    assert records.notes[1:] == ("1 image(s) have no row in the table and are left out (ISIC_9).",)


def test_a_row_without_its_image_is_skipped_listed_and_noted(tmp_path: Path) -> None:
    (kaggle(tmp_path) / "HAM10000_images_part_1" / "ISIC_2.jpg").unlink()
    records = read_dataset(tmp_path)
    assert list(records.table["image_id"]) == ["ISIC_1", "ISIC_3", "ISIC_4"]
    assert records.skipped.to_dict("records") == [
        {"image_id": "ISIC_2", "path": None, "reason": "image file not found"}
    ]
    assert records.notes[1:] == ("1 of 4 rows have no image file and are skipped (ISIC_2).",)


def test_the_kaggle_download_with_every_folder_twice_is_read_once(tmp_path: Path) -> None:
    kaggle(tmp_path)
    put_images(tmp_path / "ham10000_images_part_1_copy", "ISIC_1.jpg", "ISIC_2.jpg")
    records = read_dataset(tmp_path)
    assert len(records) == 4
    assert records.table["path"][0] == str(tmp_path / "HAM10000_images_part_1" / "ISIC_1.jpg")
    assert records.notes[1:] == ("2 image file(s) are copies of others of the same name; the first counts.",)


@pytest.mark.parametrize("name", ["other/ISIC_1.jpg", "other/ISIC_1.png", "HAM10000_images_part_1/ISIC_1.bmp"])
def test_two_different_images_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    put(kaggle(tmp_path) / name, "ISIC_X.jpg")  # as long as the other, with other bytes
    with pytest.raises(DataError, match=r"ISIC_1\.\w+ and .*keep one") as caught:
        read_dataset(tmp_path)
    assert "1 image name(s)" in str(caught.value)
    with pytest.raises(DataError):
        scan_images([tmp_path])


def test_a_clash_of_images_that_no_row_names_does_not_matter(tmp_path: Path) -> None:
    kaggle(tmp_path)
    put(tmp_path / "a" / "logo.png", "1")
    put(tmp_path / "b" / "logo.png", "2")
    assert len(read_dataset(tmp_path)) == 4


def test_a_scan_of_folders_within_each_other_and_of_links_finds_each_image_once(tmp_path: Path) -> None:
    put_images(tmp_path / "a" / "b", "x.JPG", "y.y.png", "z.txt")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    found = scan_images([tmp_path / "a", tmp_path / "a" / "b"])
    assert found == {"x": tmp_path / "a" / "b" / "x.JPG", "y.y": tmp_path / "a" / "b" / "y.y.png"}


# --- what is refused -------------------------------------------------------------------------------


def refused(root: Path, **how: bool) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(root, **how)
    return str(caught.value)


def test_a_path_that_is_not_there_an_empty_folder_and_a_plain_file_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nothing")
    assert f"{tmp_path} is empty; expected is HAM10000_metadata" in refused(tmp_path)
    assert ".toml file that describes the table" in refused(put(tmp_path / "some.csv", HEADER))


def test_images_without_a_table_and_strange_tables_are_named(tmp_path: Path) -> None:
    put_images(tmp_path, "a.jpg", "b.jpg")
    assert "holds 2 images but no table" in refused(tmp_path)
    put(tmp_path / "list.csv", "file,finding\n")
    assert "found list.csv" in refused(tmp_path)


def test_a_table_without_any_image_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "HAM10000_metadata.csv", "\n".join([HEADER, *ROWS]))
    assert "holds no image for HAM10000_metadata.csv (first row: ISIC_1)" in refused(tmp_path)
    put_images(tmp_path, "photo.jpg")
    assert "1 images, none of which is named in HAM10000_metadata.csv" in refused(tmp_path)


def test_a_table_without_rows_or_without_anything_is_refused(tmp_path: Path) -> None:
    assert "has no rows" in refused(kaggle(tmp_path, rows=[]))
    put(tmp_path / "HAM10000_metadata.csv", "")
    assert "is empty" in refused(tmp_path)


def test_a_missing_column_is_named_with_what_is_there_and_the_nearest(tmp_path: Path) -> None:
    said = refused(kaggle(tmp_path, header=HEADER.replace("localization", "localisation")))
    assert "no column 'localization' (it has lesion_id, image_id, dx" in said
    assert "Did you mean 'localisation'?" in said


def test_duplicate_image_ids_are_refused_with_their_first_examples(tmp_path: Path) -> None:
    said = refused(kaggle(tmp_path, rows=[*ROWS, ROWS[1], ROWS[1], ROWS[3]]))
    assert "2 image id(s) stand in more than one row (ISIC_2, ISIC_4)" in said


def test_an_unknown_diagnosis_is_refused_with_examples_count_and_the_nearest(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1].replace(",mel,", ",melanom,"), ROWS[2].replace(",nv,", ",zzz,")]
    said = refused(kaggle(tmp_path, rows=rows))
    assert "2 row(s) have an unknown diagnosis ('melanom' of ISIC_2, 'zzz' of ISIC_3)" in said
    assert "Did you mean 'mel'?" in said


def test_a_missing_diagnosis_is_refused_only_where_labels_are_asked_for(tmp_path: Path) -> None:
    kaggle(tmp_path, rows=[ROWS[0], ROWS[1].replace(",mel,", ",,")])
    assert "1 row(s) have no diagnosis (ISIC_2)" in refused(tmp_path)
    assert list(read_dataset(tmp_path, labelled=False).table["label"]) == ["mel", None]


@pytest.mark.parametrize("age", ["abc", "5_0", "inf", '"5,555"'])
def test_an_age_that_is_not_a_number_is_refused(tmp_path: Path, age: str) -> None:
    said = refused(kaggle(tmp_path, rows=[ROWS[0], ROWS[1].replace("80.0", age)]))
    assert "1 value(s) of 'age' are not numbers" in said
    assert "of ISIC_2" in said


@pytest.mark.parametrize("age", ["-1", "120.5", "1e9"])
def test_an_age_outside_0_to_120_is_refused(tmp_path: Path, age: str) -> None:
    rows = [row.replace("80.0", age) for row in ROWS]
    said = refused(kaggle(tmp_path, rows=rows))
    assert f"2 value(s) of 'age' lie outside 0 to 120 ({age} of ISIC_1, {age} of ISIC_2)" in said


@pytest.mark.parametrize("age", ["0", "120", "NA", "nan", "unknown", " "])
def test_ages_at_the_limits_and_the_words_for_missing_are_accepted(tmp_path: Path, age: str) -> None:
    records = read_dataset(kaggle(tmp_path, rows=[ROWS[0].replace("80.0", age)]))
    assert np.isnan(records.table["age"][0]) == (not age.strip().isdigit())


@pytest.mark.parametrize("name", ["..", "ISIC_1\x00", "a/..", "ISIC\t1"])
def test_an_image_id_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    said = refused(kaggle(tmp_path, rows=[ROWS[0].replace("ISIC_1", name)]))
    assert "1 image id(s) hold control characters" in said or "1 row(s) name no image" in said


def test_an_empty_image_id_is_refused(tmp_path: Path) -> None:
    assert "1 row(s) name no image" in refused(kaggle(tmp_path, rows=[ROWS[0].replace("ISIC_1", "")]))


def test_a_row_with_too_many_cells_is_refused_by_its_line(tmp_path: Path) -> None:
    said = refused(kaggle(tmp_path, rows=[ROWS[0], ROWS[1] + ",more"]))
    assert "line 3: 8 cells where the first line names 7 columns" in said


def test_a_table_of_no_known_encoding_or_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    for again in ("dx", "DX"):
        kaggle(tmp_path, header=f"{HEADER},{again}", rows=[ROWS[0] + ",x"])
        assert f"names the column '{again}' twice" in refused(tmp_path)
    put(tmp_path / "HAM10000_metadata.csv", HEADER.encode() + b"\n\xff\x81")
    assert "not UTF-8 text, nor UTF-16 or Windows-1252" in refused(tmp_path)
    mixed = "\n".join([HEADER, ROWS[0].replace("back", "Rücken"), ROWS[1]]).encode()
    put(tmp_path / "HAM10000_metadata.csv", mixed.replace(b"HAM_1,ISIC_2", b"HAM_\xe4,ISIC_2"))
    assert "line 3: not UTF-8 text, as other lines are" in refused(tmp_path)


def test_a_byte_order_mark_blank_lines_and_semicolons_do_not_matter(tmp_path: Path) -> None:
    kaggle(tmp_path)
    text = "\ufeff" + "\n\n".join([HEADER, *ROWS]).replace(",", ";") + "\n\n"
    put(tmp_path / "HAM10000_metadata.csv", text)
    assert len(read_dataset(tmp_path)) == 4


cells = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs"]), max_size=8)


@given(rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6))
def test_a_table_comes_back_cell_by_cell_whatever_is_in_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [("a", "b", "c"), *rows]]
    path = put(tmp_path_factory.mktemp("t") / "t.csv", "\n".join(quoted))
    assert list(read_table(path).itertuples(index=False, name=None)) == [
        tuple(cell.strip() for cell in row) for row in rows if any(cell.strip() for cell in row)
    ]


@pytest.mark.ham10000
def test_the_real_data_are_read_whole(ham10000: Path) -> None:
    records = read_dataset(ham10000)
    assert len(records) == 10_015
    assert records.table["lesion_id"].nunique() == 7_470
    assert records.counts() == {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
    assert records.table["age"].isna().sum() == 57
    assert len(records.skipped) == 0
    assert records.notes == ("Table: HAM10000_metadata.csv, 10,015 rows, comma-separated.",)
