import csv
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

import dermafuse
from dermafuse.errors import ConfigError, DataError, DermafuseError, OutputError
from dermafuse.labels import HAM10000
from dermafuse.runtime.batch.predict_table import predict_table
from dermafuse.runtime.batch.table_rows import TableReader, count_rows
from tiny_bundle import tiny_bundle, tiny_image


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("b") / "m")


@pytest.fixture(scope="module")
def predictor(model):
    return dermafuse.load(model, precision="f32", mode="throughput")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(tiny_image(number)).save(folder / f"i{number}.png")
    return folder


def write(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


ROWS = [[f"i{n}", 20 + n, "male", "back"] for n in range(6)]
HEADER = ["image_id", "age", "sex", "localization"]


def test_every_row_comes_out_in_order_with_the_answer_of_predict(predictor, images, tmp_path):
    table = write(tmp_path / "t.csv", HEADER, ROWS * 20)
    done = []
    summary = predict_table(predictor, table, tmp_path / "o.csv", image_root=images, progress=done.append)
    rows = read(tmp_path / "o.csv")
    assert [row["image"] for row in rows] == [row[0] for row in ROWS * 20]
    for row, (name, age, sex, place) in zip(rows, ROWS * 20, strict=True):
        found = predictor.predict(images / f"{name}.png", age=age, sex=sex, localization=place)
        assert row["predicted"] == found.label
        assert row["missing"] == row["error"] == ""
        assert row["prediction_set"] == "|".join(found.prediction_set)
        assert row["out_of_distribution"] == str(found.out_of_distribution).lower()
        for code in HAM10000.codes:
            assert float(row[f"p_{code}"]) == pytest.approx(found.probabilities[code], abs=1e-7)
        assert float(row["malignant"]) == pytest.approx(found.malignant_probability, abs=1e-7)
    assert (summary.rows, summary.predicted, summary.failed, summary.skipped) == (120, 120, 0, None)
    assert sum(done) == 120
    assert {p.name for p in tmp_path.iterdir()} == {"t.csv", "o.csv", "images"}  # no leftovers


def test_bad_rows_are_listed_with_reasons_and_do_not_stop_the_run(predictor, images, tmp_path):
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    table = tmp_path / "t.csv"
    table.write_bytes(
        b"image_id,age,sex,localization\n"
        b"i0,20,male,back\n"
        b"gone,20,male,back\n"
        b"broken,20,male,back\n"
        b"i1,abc,male,back\n"
        b"i2,500,male,back\n"
        b"i3,20\n"
        b",20,male,back\n"
        b"\n"
        b"i\xff4,20,male,back\n"
        b"../../etc/passwd,20,male,back\n"
        b"i5,,,\n"
    )
    summary = predict_table(predictor, table, tmp_path / "o.csv", image_root=images)
    rows = read(tmp_path / "o.csv")
    errors = [row["error"] for row in rows]
    assert [bool(error) for error in errors] == [False, *[True] * 8, False]
    words = ["", "gone.jpg", "broken.jpg", "'abc'", "500", "2 cells", "names no image", "iÿ4.jpg", "passwd", ""]
    for error, word in zip(errors, words, strict=True):
        assert word in error
    assert rows[-1]["missing"] == "age|sex|localization"
    assert rows[1]["predicted"] == rows[1]["p_mel"] == ""
    listed = read(tmp_path / "o.csv.skipped.csv")
    assert summary.skipped == tmp_path / "o.csv.skipped.csv"
    assert [(int(row["row"]), row["reason"]) for row in listed] == [
        (number, error) for number, error in enumerate(errors, start=1) if error
    ]
    assert (summary.rows, summary.predicted, summary.failed) == (10, 2, 8)


def test_json_lines_hold_the_same_as_typed_values(predictor, images, tmp_path):
    table = write(tmp_path / "t.csv", HEADER, [*ROWS, ["gone", "", "", ""]])
    predict_table(predictor, table, tmp_path / "o.csv", image_root=images)
    predict_table(predictor, table, tmp_path / "o.jsonl", image_root=images)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    for line, row in zip(lines, read(tmp_path / "o.csv"), strict=True):
        assert list(line) == list(row)
        assert line["image"] == row["image"]
        if not line["error"]:
            assert line["p_mel"] == float(row["p_mel"])
            assert line["prediction_set"] == row["prediction_set"].split("|")
            assert line["out_of_distribution"] in (True, False)
    assert lines[-1]["predicted"] is None


def test_parquet_holds_the_same_or_says_what_to_install(predictor, images, tmp_path):
    table = write(tmp_path / "t.csv", HEADER, [*ROWS, ["gone", "", "", ""]])
    try:
        import pyarrow.parquet
    except ImportError:
        with pytest.raises(ConfigError, match="pip install pyarrow"):
            predict_table(predictor, table, tmp_path / "o.parquet", image_root=images)
        assert not list(tmp_path.glob("o.parquet*"))
        return
    predict_table(predictor, table, tmp_path / "o.parquet", image_root=images)
    predict_table(predictor, table, tmp_path / "o.jsonl", image_root=images)
    found = pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pylist()
    for row, line in zip(found, (tmp_path / "o.jsonl").read_text().splitlines(), strict=True):
        expected = json.loads(line)
        assert row["p_mel"] == expected["p_mel"]
        assert row["predicted"] == expected["predicted"]
        assert row["out_of_distribution"] is expected["out_of_distribution"]


@pytest.mark.parametrize(("sep", "name"), [(",", "t.csv"), (";", "t.csv"), ("\t", "t.csv"), ("\t", "t.tsv")])
def test_separators_byte_order_mark_and_case_of_columns_do_not_matter(predictor, images, tmp_path, sep, name):
    table = tmp_path / name
    text = f"AGE{sep}Image_ID{sep}Sex\n33{sep}i0{sep}male\n"
    table.write_text(text, encoding="utf-8-sig")
    summary = predict_table(predictor, table, tmp_path / "o.csv", image_root=images)
    assert summary.absent == ("localization",)
    assert read(tmp_path / "o.csv")[0]["missing"] == "localization"


def test_columns_are_named_where_they_have_other_names(predictor, images, tmp_path):
    table = write(tmp_path / "t.csv", ["pic", "age_approx", "site"], [["i0.png", "70", "face"]])
    with pytest.raises(DataError, match="no column of images"):
        predict_table(predictor, table, tmp_path / "o.csv")
    predict_table(
        predictor,
        table,
        tmp_path / "o.csv",
        image_root=images,
        image_column="pic",
        columns={"age": "age_approx", "localization": "site"},
    )
    found = predictor.predict(images / "i0.png", age=70, localization="face")
    assert float(read(tmp_path / "o.csv")[0]["p_mel"]) == pytest.approx(found.probabilities["mel"], abs=1e-7)
    with pytest.raises(DataError, match="Did you mean 'age_approx'"):
        predict_table(predictor, table, tmp_path / "p.csv", image_column="pic", columns={"age": "age_aprox"})
    with pytest.raises(DataError, match="no metadata field 'agee'"):
        predict_table(predictor, table, tmp_path / "p.csv", image_column="pic", columns={"agee": "age_approx"})


def test_images_are_found_by_path_by_extension_and_below_the_folder(predictor, images, tmp_path):
    (images / "part_2").mkdir()
    (images / "i5.png").rename(images / "part_2" / "i5.png")
    (images / "i4.png").rename(images / "i4.dcm.png")
    rows = [["images/i0.png"], [str(images / "i1.png")]]
    predict_table(predictor, write(tmp_path / "a.csv", ["path"], rows), tmp_path / "a.out.csv")
    rows = [["i2"], ["i5"], ["i4.dcm"], ["part_2/i5"]]
    predict_table(predictor, write(tmp_path / "b.csv", ["image"], rows), tmp_path / "b.out.csv", image_root=images)
    for path in ("a.out.csv", "b.out.csv"):
        assert all(row["error"] == "" for row in read(tmp_path / path))
    Image.fromarray(tiny_image(9)).save(images / "i2.jpg")
    table = write(tmp_path / "c.csv", ["image"], [["i2"]])
    for extension in ("png", ".jpg"):
        reader = TableReader(table, fields=(), image_root=images, extension=extension)
        assert next(iter(reader)).path == images / f"i2.{extension.lstrip('.')}"


def test_an_id_that_stands_for_two_images_spoils_its_own_row_only(predictor, images, tmp_path):
    for part in ("a", "b"):
        (images / part).mkdir()
        Image.fromarray(tiny_image(ord(part))).save(images / part / "same.png")
    Image.fromarray(tiny_image(1)).save(images / "a" / "other.png")
    table = write(tmp_path / "t.csv", ["image"], [["same"], ["other"]])
    predict_table(predictor, table, tmp_path / "o.csv", image_root=images)
    rows = read(tmp_path / "o.csv")
    assert "two different files" in rows[0]["error"]
    assert rows[1]["error"] == ""


def test_an_existing_output_is_kept_unless_told_otherwise(predictor, images, tmp_path):
    table = write(tmp_path / "t.csv", HEADER, ROWS)
    out = tmp_path / "o.csv"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        predict_table(predictor, table, out, image_root=images)
    assert out.read_text() == "mine"
    predict_table(predictor, table, out, image_root=images, overwrite=True)
    assert len(read(out)) == 6


@pytest.mark.parametrize("name", ["o.txt", "o", "o.csv.gz"])
def test_an_unknown_output_format_is_refused_before_any_work(predictor, images, tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        predict_table(predictor, write(tmp_path / "t.csv", HEADER, ROWS), tmp_path / name)


def test_unusable_tables_are_refused_by_name(predictor, tmp_path):
    with pytest.raises(DataError, match=r"none\.csv"):
        predict_table(predictor, tmp_path / "none.csv", tmp_path / "o.csv")
    for content in (b"", b"\n", b"\x89PNG\r\n\x1a\n\xff\xff"):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"t\.csv"):
            predict_table(predictor, tmp_path / "t.csv", tmp_path / "o.csv")
    assert not list(tmp_path.glob("o.csv*"))


class Stop(Exception):
    pass


def stop_after(count):
    def progress(done):
        nonlocal count
        count -= done
        if count <= 0:
            raise Stop

    return progress


@pytest.mark.parametrize("out_name", ["o.csv", "o.jsonl"])
@pytest.mark.parametrize("damage", ["none", "torn row", "only header"])
def test_an_interrupted_run_resumes_to_the_same_output(predictor, images, tmp_path, out_name, damage):
    table = write(tmp_path / "t.csv", HEADER, ([*ROWS, ["gone", 1, "", ""], ["two\nlines", 1, "", ""]]) * 10)
    whole, out = tmp_path / f"whole.{out_name}", tmp_path / out_name
    predict_table(predictor, table, whole, image_root=images)
    with pytest.raises(Stop):
        predict_table(predictor, table, out, image_root=images, progress=stop_after(33))
    assert not out.exists()
    partial = tmp_path / f"{out_name}.partial"
    with pytest.raises(OutputError, match="--resume"):
        predict_table(predictor, table, out, image_root=images)
    if damage == "torn row":
        partial.write_bytes(partial.read_bytes()[:-9])
    elif damage == "only header":
        partial.write_bytes(partial.read_bytes()[:5])
    done = []
    summary = predict_table(predictor, table, out, image_root=images, resume=True, progress=done.append)
    assert summary.resumed == {"none": 33, "torn row": 32, "only header": 0}[damage]
    assert sum(done) == summary.rows == 80
    assert out.read_bytes() == whole.read_bytes()
    skipped = f"{out_name}.skipped.csv"
    assert (tmp_path / skipped).read_bytes() == (tmp_path / f"whole.{skipped}").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_resume_refuses_another_table_model_or_option(predictor, images, tmp_path, tmp_path_factory):
    table = write(tmp_path / "t.csv", HEADER, ROWS * 5)
    out = tmp_path / "o.csv"
    with pytest.raises(Stop):
        predict_table(predictor, table, out, image_root=images, progress=stop_after(10))
    other = dermafuse.load(tiny_bundle(tmp_path_factory.mktemp("b") / "m", temperature=2.0), precision="f32")
    with pytest.raises(OutputError, match="another model"):
        predict_table(other, table, out, image_root=images, resume=True)
    with pytest.raises(OutputError, match="another views"):
        predict_table(predictor, table, out, image_root=images, resume=True, views=8)
    write(table, HEADER, ROWS[::-1] * 5)
    with pytest.raises(OutputError, match="has changed"):
        predict_table(predictor, table, out, image_root=images, resume=True)
    write(table, HEADER, ROWS)
    with pytest.raises(OutputError, match="fewer rows"):
        predict_table(predictor, table, out, image_root=images, resume=True)
    predict_table(predictor, table, out, image_root=images, overwrite=True)
    assert len(read(out)) == 6


def test_a_killed_process_resumes(model, images, tmp_path):
    table = write(tmp_path / "t.csv", HEADER, ROWS * 700)
    code = (
        "import dermafuse, sys; from dermafuse.runtime.batch.predict_table import predict_table\n"
        f"p = dermafuse.load({str(model)!r}, precision='f32', mode='throughput')\n"
        f"predict_table(p, {str(table)!r}, {str(tmp_path / 'o.csv')!r}, image_root={str(images)!r}, resume=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    partial = tmp_path / "o.csv.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 60_000):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "o.csv").exists()
    summary = predict_table(
        dermafuse.load(model, precision="f32", mode="throughput"),
        table,
        tmp_path / "o.csv",
        image_root=images,
        resume=True,
    )
    assert 0 < summary.resumed < summary.rows == 4200
    rows = read(tmp_path / "o.csv")
    assert [row["image"] for row in rows] == [row[0] for row in ROWS * 700]
    assert len({row["p_mel"] for row in rows}) == 6


def test_memory_does_not_grow_with_the_table(predictor, images, tmp_path):
    peaks = []
    for rows in (200, 1200):
        table = write(tmp_path / f"{rows}.csv", HEADER, [ROWS[n % 6] for n in range(rows)])
        tracemalloc.start()
        predict_table(predictor, table, tmp_path / f"{rows}.out.csv", image_root=images)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000


def test_a_full_disk_is_told_and_what_is_done_is_kept(predictor, images, tmp_path, monkeypatch):
    table = write(tmp_path / "t.csv", HEADER, ROWS * 5)
    from dermafuse.runtime.batch.table_output import OutputTable

    def full(self):
        raise self._cannot_write(OSError(28, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(OutputTable, "publish", lambda self, *args, **kwargs: full(self))
        with pytest.raises(OutputError, match="No space left"):
            predict_table(predictor, table, tmp_path / "o.csv", image_root=images)
    assert predict_table(predictor, table, tmp_path / "o.csv", image_root=images, resume=True).resumed == 30


def test_an_unclosed_quote_spoils_bounded_memory_not_the_run(predictor, images, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text('image_id,age\ni0,30\n"i1,40\n' + "i2,50\n" * 23_000)
    summary = predict_table(predictor, table, tmp_path / "o.csv", image_root=images)
    rows = read(tmp_path / "o.csv")
    assert rows[0]["error"] == ""
    assert summary.failed >= 1
    assert max(len(row["image"]) for row in rows) < 1000


def test_rows_are_counted_for_the_progress_bar(tmp_path):
    for content, expected in (("a\n1\n2\n", 2), ("a\n1\n2", 2), ("a\n", 0), ("", 0)):
        (tmp_path / "t.csv").write_text(content)
        assert count_rows(tmp_path / "t.csv") == expected


def test_any_bytes_as_a_table_end_in_an_output_or_a_clear_refusal(predictor, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        table = tmp_path / f"{number}.csv"
        body = rng.choice(list(b'image,"\n\r;\t\x00\xff1'), 300).astype(np.uint8).tobytes()
        table.write_bytes(b"image,age\n" + body if number % 2 else body)
        try:
            predict_table(predictor, table, tmp_path / f"{number}.out.csv")
        except DermafuseError as error:
            str(error).encode()


@pytest.mark.parametrize("safe", [False, True])
def test_cells_like_formulas_are_marked_for_spreadsheets_where_that_is_asked(predictor, tmp_path, safe):
    table = tmp_path / "table.csv"
    names = ["=1+2.jpg", "-2.5", "@x.jpg", "+cmd|' /C calc'!A0", "plain.jpg", "a\x1b[2Jb.jpg"]
    table.write_text("image\n" + "".join(f'"{name}"\n' for name in names))
    out = tmp_path / "out.csv"
    predict_table(predictor, table, out, spreadsheet_safe=safe)
    with out.open(newline="") as stream:
        written = [row["image"] for row in csv.DictReader(stream)]
    mark = "'" if safe else ""
    assert written == [
        f"{mark}=1+2.jpg",
        "-2.5",
        f"{mark}@x.jpg",
        f"{mark}+cmd|' /C calc'!A0",
        "plain.jpg",
        "a\\x1b[2Jb.jpg",
    ]
    assert out.read_bytes().isascii()
    assert b"\x1b" not in out.read_bytes()


FULL_DISK = """
import resource, sys
from dermafuse.cli import main
if "--resume" not in sys.argv:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_full_disk_is_one_sentence_and_resume_ends_the_work(model, images, tmp_path, ending):
    table = write(tmp_path / "t.csv", HEADER, ROWS * 20)
    command = [sys.executable, "-c", FULL_DISK, "predict", str(model), "--csv", str(table), "--image-root", str(images)]
    command += ["--out", str(tmp_path / f"o{ending}")]
    full = subprocess.run(command, capture_output=True, text=True)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert "Exception ignored" not in full.stderr
    assert "--resume" in full.stderr.splitlines()[-1]
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / f"o{ending}").read_text().splitlines()) == 120 + (ending == ".csv")
