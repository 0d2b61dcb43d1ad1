"""Tables as Excel and clinics save them: read alike by training and prediction, or refused by naming the cause."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermafuse.cli import main
from dermafuse.data.image_names import ImageFinder, image_ids
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.data.scan import scan
from dermafuse.data.table_files import open_table, read_header
from dermafuse.data.tables import read_table
from dermafuse.data.values import to_numbers, why_no_number, written_number
from dermafuse.errors import DataError, nearest
from dermafuse.files import read_regular
from dermafuse.runtime.batch.table_rows import TableReader

TOML = """
table = "clinic.csv"
image = "Bild"
images = "Bilder"
label = "Befund"
lesion = "Fall"
numeric = { age = "Alter" }
categorical = { sex = "Geschlecht" }
classes = ["mel", "nv"]
"""
HEADER = ["Fall", "Bild", "Befund", "Alter", "Geschlecht"]
ROWS = [
    ["1", "A1", "mel", "80.5", "männlich"],
    ["1", "A2", "mel", "80.5", "männlich"],
    ["2", "A3", "nv", "", "weiblich"],
    ["3", "A4", "nv", "41", "weiblich"],
]


def text(sep: str = ";", end: str = "\r\n", rows: list[list[str]] = ROWS, header: list[str] = HEADER) -> str:
    return "".join(sep.join(row) + end for row in [header, *rows])


def clinic(root: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    (root / "Bilder" / "2023").mkdir(parents=True, exist_ok=True)
    for name in ("A1.jpg", "A2.jpg", "2023/A3.jpg", "2023/A4.jpg"):
        (root / "Bilder" / name).write_text(name)
    (root / "clinic.csv").write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    (root / "dermafuse.toml").write_text(TOML)
    return root


def predicted(root: Path, **how: str) -> list[tuple[str, str, str]]:
    """What prediction reads of the same table: the image's path, age and sex."""
    reader = TableReader(
        root / "clinic.csv",
        fields=("age", "sex"),
        image_column="Bild",
        image_root=root / "Bilder",
        columns={"age": "Alter", "sex": "Geschlecht"},
        **how,
    )
    rows = list(reader)
    assert not [row.error for row in rows if row.error]
    return [(str(row.path), row.metadata["age"], row.metadata["sex"]) for row in rows]


def same_for_both(root: Path) -> Records:
    """Read for training and for prediction, and make sure that both are told the same."""
    records = read_dataset(root)
    for row, (path, age, sex) in zip(records.table.itertuples(), predicted(root), strict=True):
        assert row.path == path
        assert row.sex == sex.lower()
        np.testing.assert_equal(to_numbers([age], "age")[0], row.age)
    return records


HABITS = {
    "semicolons and a mark": (text(), "utf-8-sig"),
    "commas": (text(","), "utf-8"),
    "pipes": (text("|"), "utf-8"),
    "sep line": ("sep=;\r\n" + text(), "utf-8"),
    "sep line of Excel in quotes": ('"sep=;"\r\n' + text(), "utf-8"),
    "Windows-1252": (text(), "cp1252"),
    "UTF-16 as Excel's Unicode text": (text("\t"), "utf-16"),
    "UTF-16 without a mark": (text("\t"), "utf-16-le"),
    "old Macintosh line ends": (text(end="\r"), "utf-8"),
    "one empty column at the end": (text().replace("\r\n", ";\r\n"), "utf-8"),
    "several empty columns in the rows only": (text().replace("lich\r\n", "lich;;;\r\n"), "utf-8"),
    "empty rows": (text().replace("\r\n2;", "\r\n;;;;\r\n\r\n2;") + ";;;;\r\n", "utf-8"),
    "a title and an empty line": ("Hautklinik, Export vom 01.02.2024\r\n\r\n" + text(), "utf-8"),
    "a title with commas in a comma table": ("Clinic, export, 2024\r\n\r\n" + text(","), "utf-8"),
    "a title in a sheet of that width": ("Hautklinik;;;;\r\n;;;;\r\n" + text(), "utf-8"),
    "a remark": ("# exported\n" + text(), "utf-8"),
    "decimal comma": (text().replace("80.5", "80,5"), "utf-8"),
    "decimal comma in quotes": (text(",").replace("80.5", '"80,5"'), "utf-8"),
    "years behind the number": (text().replace("80.5", "80.5 Jahre").replace("41", "41 J."), "utf-8"),
    "invisible characters around names": (text().replace("A1", "\xa0A1 \u200b").replace("Bild", "\ufeffBild"), "utf-8"),
    "quoted separators": (text(",").replace("weiblich", '"weiblich"').replace(",A1,", ', "A1",'), "utf-8"),
    "a line break in a column's name": (text().replace("Geschlecht", '"\nGeschlecht"'), "utf-8"),
    "a column without a name": (
        "".join(f"{n}," + line for n, line in enumerate(text(",").splitlines(True))).replace("0,Fall", ",Fall"),
        "utf-8",
    ),
    "lower case": (text().replace("A1", "a1.JPG").replace("A3", "a3"), "utf-8"),
    "Windows paths": (text().replace("A1", r"D:\Fotos\Bilder\A1.JPG").replace("A3", r"2023\A3.jpg"), "utf-8"),
    "paths of another computer": (text().replace("A1", "./old/root/A1.jpg").replace("A4", "/mnt/x/2023/A4"), "utf-8"),
    "another suffix": (text().replace("A1", "A1.png").replace("A3", "A3.dcm"), "utf-8"),
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_of_spreadsheets_changes_nothing_for_training_or_prediction(tmp_path: Path, habit: str) -> None:
    records = same_for_both(clinic(tmp_path, *HABITS[habit]))
    assert list(records.table["label"]) == ["mel", "mel", "nv", "nv"]
    np.testing.assert_array_equal(records.table["age"], [80.5, 80.5, np.nan, 41])
    assert list(records.table["sex"]) == ["männlich", "männlich", "weiblich", "weiblich"]
    assert [Path(path).name for path in records.table["path"]] == ["A1.jpg", "A2.jpg", "A3.jpg", "A4.jpg"]
    assert records.notes[0].startswith("Table: clinic.csv, 4 rows, ")


def test_what_was_told_from_a_table_is_said(tmp_path: Path) -> None:
    notes = read_dataset(clinic(tmp_path, "Klinik Süd;;\n" + text().replace("80.5", "85+"), "cp1252")).notes
    assert "is read as Windows-1252, as Excel saves it; it then says 'Süd'" in notes[1]
    assert "'Klinik Süd' is taken as a title; line 2 names the columns" in notes[2]
    assert notes[3] == "2 value(s) of 'Alter' are open ranges, of which the lower end counts (85+)."


def test_how_image_names_were_found_is_one_line_with_counts(tmp_path: Path) -> None:
    content = text().replace("A1", "D:\\x\\A1.JPG").replace("A2", "a2").replace("A3", "A3.png")
    records = read_dataset(clinic(tmp_path, content))
    assert records.notes[1] == (
        "3 image name(s) are not quite those of their files: 1 found by their last parts, 2 in other upper or lower "
        f"case, 1 with another suffix ('D:\\x\\A1.JPG' is {tmp_path / 'Bilder' / 'A1.jpg'})."
    )
    assert list(records.table["image_id"]) == ["A1", "a2", "A3", "A4"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 not really", "an Excel or LibreOffice workbook (or another ZIP), not a text table; open"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
        (b"  <html><table>", "an HTML or XML file"),
        (b'{"Bild": "A1"}', "a JSON file"),
        (text().replace("Geschlecht", "bild"), "names the column 'bild' twice (once as 'Bild')"),
        (text() + "4;A1\r\n", "line 6: 2 cells where the first line names 5 columns"),
        ("Titel\n" + text() + "4;A1\r\n", "line 7: 2 cells where line 2 names 5 columns"),
        (text().replace("41;weiblich", "41;weiblich;links"), "line 5: 6 cells where"),
        (text().encode() + b"4;\xff\x81;nv;;\r\n", "line 6: not UTF-8 text, as other lines are"),
        (text("\t").encode("cp1252") + b"\x81", "not UTF-8 text, nor UTF-16 or Windows-1252"),
        (b"\r\n;;;\r\n", "is empty; it needs a line of column names"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_its_cause_everywhere(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    clinic(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert said in str(caught.value)
    try:  # prediction goes on after a bad row, with the same words
        rows = list(TableReader(tmp_path / "clinic.csv", fields=(), image_column="Bild"))
        assert said in f"{tmp_path}/clinic.csv, {rows[-1].error}".replace(" of the table", "")
    except DataError as error:
        assert said in str(error)


@pytest.mark.parametrize(
    ("age", "why"),
    [
        ("50-60", "a range: write one number"),
        ("50 – 60", "a range"),
        ("05. Okt", "a date, as Excel makes of 5-10"),
        ("01.02.1950", "a date: write years"),
        ("6 Monate", "not in years"),
        ("<18", "below a limit"),
        ("1,234", "with a comma for thousands or for decimals"),
    ],
)
def test_a_number_that_is_none_is_refused_with_what_it_is(tmp_path: Path, age: str, why: str) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(clinic(tmp_path, text().replace("80.5", age)))
    assert f"2 value(s) of 'Alter' are not numbers ('{age}' of A1 ({why}" in str(caught.value)
    with pytest.raises(DataError) as caught:
        to_numbers([age], "age")
    assert why in str(caught.value)


@given(st.floats(-1e6, 1e6).map(lambda value: f"{value:.2f}"))
def test_a_decimal_comma_is_a_decimal_point(number: str) -> None:
    assert written_number(number.replace(".", ",")) == written_number(number) == float(number)
    assert why_no_number(number) == ""


# --- image names -----------------------------------------------------------------------------------


def finder(root: Path, files: list[str], names: list[str]) -> ImageFinder:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    return ImageFinder(scan([root]), lambda: names)


@pytest.mark.parametrize(
    ("files", "name", "found"),
    [
        (["a/1.jpg", "b/1.jpg"], "b/1.jpg", ["b/1.jpg"]),
        (["a/1.jpg", "b/1.jpg"], "x/y/B/1", ["b/1.jpg"]),
        (["a/1.jpg", "b/1.jpg"], "1.jpg", ["a/1.jpg", "b/1.jpg"]),
        (["1.jpg", "thumbs/1.jpg"], "1.jpg", ["1.jpg"]),
        (["a/1.jpg", "a/1.png"], "1.PNG", ["a/1.png"]),
        (["a/1.jpg", "a/1.png"], "1", ["a/1.jpg", "a/1.png"]),
        (["a/X.jpg", "a/x.jpg"], "x", ["a/x.jpg"]),
        (["a/Xy.jpg", "b/xY.jpg"], "xy", ["a/Xy.jpg", "b/xY.jpg"]),
        (["a/1.png", "b/1.jpg"], "a/1.jpg", ["a/1.png", "b/1.jpg"]),
        (["a/L\u00e4sion.jpg"], "La\u0308sion.JPG", ["a/L\u00e4sion.jpg"]),
        (["a/1.jpg"], "2.jpg", []),
    ],
)
def test_a_name_is_one_file_several_or_none(tmp_path: Path, files: list[str], name: str, found: list[str]) -> None:
    matches = finder(tmp_path, files, [name]).find(name)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in matches) == sorted(found)


def test_folders_are_passed_over_only_where_no_other_name_of_the_table_ends_alike(tmp_path: Path) -> None:
    names = ["old/a/1.jpg", "old/b/1.jpg", "old/a/2.jpg"]
    search = finder(tmp_path, ["a/1.jpg", "z/2.jpg"], names)
    assert search.find(names[0]) == (tmp_path / "a" / "1.jpg",)
    assert search.find(names[1]) == ()  # its file is missing, and a/1.jpg is another picture
    assert search.find(names[2]) == (tmp_path / "z" / "2.jpg",)


def test_two_rows_for_one_file_are_refused_and_equal_names_in_two_folders_are_two_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 row\(s\) name an image file that another row names too \('A1' and 'a1'"):
        read_dataset(clinic(tmp_path, text().replace("A2", "a1")))
    assert image_ids(["a/1.jpg", "b/1.jpg", "a/2.jpg", "3"]) == ["a/1", "b/1", "2", "3"]


def test_a_missing_image_comes_with_the_nearest_file_that_no_row_names(tmp_path: Path) -> None:
    clinic(tmp_path, text().replace("A2", "Bild-A2"))
    (tmp_path / "Bilder" / "A2.jpg").rename(tmp_path / "Bilder" / "Bild_A2.jpg")
    notes = read_dataset(tmp_path).notes
    assert any(note.endswith("(Bild-A2). The nearest file name to 'Bild-A2' is 'Bild_A2.jpg'.") for note in notes)
    rows = list(TableReader(tmp_path / "clinic.csv", fields=(), image_column="Bild", image_root=tmp_path / "Bilder"))
    assert "The nearest file name to 'Bild-A2' is 'Bild_A2.jpg'" in str(rows[1].error)
    clinic(tmp_path, text().replace("A2", "1.23457E+11"))
    assert any("has shortened; format that column as text" in note for note in read_dataset(tmp_path).notes)


def test_prediction_does_not_choose_between_files_of_one_name(tmp_path: Path) -> None:
    clinic(tmp_path, text())
    (tmp_path / "Bilder" / "A1.png").write_text("another picture")
    rows = list(TableReader(tmp_path / "clinic.csv", fields=(), image_column="Bild", image_root=tmp_path / "Bilder"))
    assert "'A1': " in str(rows[0].error)
    assert "two different files" in str(rows[0].error)
    assert [row.error for row in rows[1:]] == [None] * 3
    with pytest.raises(DataError, match="two different files"):
        read_dataset(tmp_path)


# --- what blocks, and slips ------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_a_pipe_is_refused_at_once_wherever_a_file_is_named(tmp_path: Path) -> None:
    clinic(tmp_path, text())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (open_table, read_table, read_regular):
        with pytest.raises((DataError, OSError), match="not a regular file but a pipe"):
            read(pipe)  # type: ignore[operator]
    assert read_header(pipe) == ()
    (tmp_path / "dermafuse.toml").unlink()
    os.mkfifo(tmp_path / "dermafuse.toml")
    with pytest.raises(DataError):
        read_dataset(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_predict_refuses_a_pipe_as_image_or_table_and_a_table_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert main(["predict", str(tmp_path / "pipe.jpg")]) != 0
    assert "regular file" in capsys.readouterr().err
    for table, said in (("pipe.jpg", "not a regular file but a pipe"), ("nothere.csv", "nothere.csv does not exist")):
        assert main(["predict", "--csv", str(tmp_path / table), "--out", str(tmp_path / "o.csv")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


def test_check_refuses_a_label_column_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clinic(tmp_path, text())
    (tmp_path / "dermafuse.toml").write_text(TOML.replace('"Befund"', '"Befnud"'))
    assert main(["check", str(tmp_path)]) == 2
    assert "has no column 'Befnud'" in (said := capsys.readouterr().err)
    assert "Did you mean 'Befund'?" in said


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("lable", ["table", "label", "labels"], "label"),
        ("reslt", ["rest", "result"], "result"),
        ("iamge", ["table", "image", "images"], "image"),
        ("Alter", ["Fall", "Alter; Jahre"], "Alter; Jahre"),
        ("age", ["image_id", "sex"], None),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == ("" if meant is None else f" Did you mean '{meant}'?")
