import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import dermafuse
from dermafuse.cli import main
from dermafuse.errors import ConfigError, OutputError
from dermafuse.parallel import Part, ShardFolder, parse_part
from dermafuse.runtime.batch.predict_table import predict_table
from tiny_bundle import tiny_bundle, tiny_image

HEADER = ["image_id", "age", "sex", "localization"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("b") / "m")


@pytest.fixture(scope="module")
def predictor(model):
    return dermafuse.load(model, precision="f32", mode="throughput")


@pytest.fixture
def table(tmp_path):
    """100 rows: words that the model does not know, and in the first block and later ones rows that cannot be used."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(tiny_image(number)).save(folder / f"i{number}.png")
    rows = [[f"i{n % 6}", 20 + n % 60, "male" if n % 7 else "unheard", "back"] for n in range(100)]
    for n in (3, 4, 21, 22, 50, 97):
        rows[n][0] = f"i{n}x.png"
    rows[60][1] = "abc"
    rows[61][0] = "=1+2"
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return path


def predict(predictor, table, out, **options):
    return predict_table(predictor, table, out, image_root=table.parent / "images", **options)


def same(one, other):
    assert one.read_bytes() == other.read_bytes()
    assert (
        one.with_name(one.name + ".skipped.csv").read_bytes()
        == other.with_name(other.name + ".skipped.csv").read_bytes()
    )


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_parts_joined_are_byte_by_byte_the_output_of_one_run(predictor, table, tmp_path, ending):
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"o{ending}"
    once = predict(predictor, table, whole, spreadsheet_safe=True)
    for index in (3, 1, 2):
        done = predict(predictor, table, out, spreadsheet_safe=True, shard=Part(index, 3))
        assert not out.exists()
        assert done.shards[1] == 7  # of 16 rows
    joined = predict(predictor, table, out, spreadsheet_safe=True)
    same(whole, out)
    assert (joined.rows, joined.failed, joined.resumed) == (100, once.failed, 100)
    assert joined.unknown == once.unknown
    assert joined.unknown_notes == once.unknown_notes
    assert not out.with_name(out.name + ".shards").exists()


def test_the_join_computes_only_what_is_missing_and_says_who_computed_what(predictor, table, tmp_path):
    predict(predictor, table, tmp_path / "whole.csv")
    predict(predictor, table, tmp_path / "o.csv", shard=Part(2, 3))
    joined = predict(predictor, table, tmp_path / "o.csv")
    assert joined.resumed == 32
    same(tmp_path / "whole.csv", tmp_path / "o.csv")
    listed = json.loads((tmp_path / "o.csv.shards.json").read_text())["shards"]
    assert [entry["rows"] for entry in listed] == [16] * 6 + [4]
    assert all(entry["pid"] == os.getpid() and entry["host"] and entry["finished"] for entry in listed)


def test_a_flipped_byte_in_a_shard_is_found_computed_again_and_said(predictor, table, tmp_path):
    predict(predictor, table, tmp_path / "whole.csv")
    predict(predictor, table, tmp_path / "o.csv", shard=Part(1, 1))
    content = sorted((tmp_path / "o.csv.shards").glob("*.shard"))[2]
    bad = bytearray(content.read_bytes())
    bad[-20] ^= 1
    content.write_bytes(bad)
    entry = sorted((tmp_path / "o.csv.shards").glob("00*.json"))[4]
    entry.write_text("{")
    joined = predict(predictor, table, tmp_path / "o.csv")
    assert joined.resumed == 100 - 32
    assert any("2 shard(s) were damaged" in note for note in joined.notes)
    same(tmp_path / "whole.csv", tmp_path / "o.csv")


def test_rows_that_changed_are_computed_anew_and_other_options_are_refused(predictor, table, tmp_path):
    out = tmp_path / "o.csv"
    predict(predictor, table, out, shard=Part(1, 2))
    with pytest.raises(OutputError, match="another views"):
        predict(predictor, table, out, shard=Part(2, 2), views=8)
    table.write_text(table.read_text().replace("i0,20,", "i0,30,", 1))
    assert predict(predictor, table, out).resumed == 52 - 16
    predict(predictor, table, tmp_path / "whole.csv")
    same(tmp_path / "whole.csv", out)
    with pytest.raises(OutputError, match="exists already"):
        predict(predictor, table, out, shard=Part(1, 2))


def test_a_killed_part_and_a_killed_join_go_on_with_the_same_command(model, predictor, table, tmp_path):
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([rows[0], *rows[1:] * 40]))
    out = tmp_path / "o.csv"
    predict(predictor, table, tmp_path / "whole.csv")
    command = [sys.executable, "-m", "dermafuse", "predict", str(model), "--csv", str(table), "--precision", "f32"]
    command += ["--image-root", str(table.parent / "images"), "--out", str(out)]
    shards = tmp_path / "o.csv.shards"
    for extra in (["--shard", "1/1"], []):
        before = len(list(shards.glob("*.shard")))
        child = subprocess.Popen([*command, *extra], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(shards.glob("*.shard"))) < before + 30:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    (tmp_path / "o.csv.partial").write_bytes(b"half a ro")  # of a join that was killed
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same(tmp_path / "whole.csv", out)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "o.csv"))) == [
        "o.csv",
        "o.csv.shards.json",
        "o.csv.skipped.csv",
    ]


def test_the_command_takes_parts_and_says_what_to_do_next(model, table, tmp_path, capsys):
    command = ["predict", str(model), "--csv", str(table), "--image-root", str(table.parent / "images"), "--out"]
    command += [str(tmp_path / "o.csv")]
    assert main([*command, "--shard", "2/2"]) == 0
    said = capsys.readouterr().out
    assert "Part 2/2: 3 of 7 shards (48 rows" in said
    assert "without --shard joins" in said
    assert main([*command, "--shard", "0/2"]) == 2
    assert "--shard takes I/N" in capsys.readouterr().err
    assert main(["predict", str(model), str(tmp_path / "images"), "--shard", "1/2"]) == 2
    assert "--csv" in capsys.readouterr().err
    assert main(command) == 0


def test_only_parts_that_exist_can_be_named():
    assert parse_part(" 3/3 ") == Part(3, 3)
    for text in ("", "3", "0/3", "4/3", "-1/3", "a/b", "1/0", "1/2/3", "1.0/2"):
        with pytest.raises(ConfigError, match="from 1 to N"):
            parse_part(text)
    assert sorted(n for index in (1, 2, 3) for n in range(10) if Part(index, 3).has(n)) == list(range(10))


def test_a_shard_is_there_only_when_its_entry_agrees_with_it(tmp_path):
    folder = ShardFolder(tmp_path / "s", {"task": 1})
    assert folder.read("a") is None
    (tmp_path / "s" / "a.shard").write_bytes(b"half")  # a process that died before it wrote the entry
    assert folder.read("a") is None
    assert not folder.damaged
    folder.publish("a", b"whole", rows=3)
    assert folder.read("a") == b"whole"
    assert folder.entry("a")["sha256"] == hashlib.sha256(b"whole").hexdigest()
    assert ShardFolder(tmp_path / "s", {"task": 1}).read("a") == b"whole"
    with pytest.raises(OutputError, match="another task"):
        ShardFolder(tmp_path / "s", {"task": 2})
    assert ShardFolder(tmp_path / "s", {"task": 2}, again=True).read("a") is None
