"""Text from files steers neither terminal nor table nor page, whatever it holds."""

from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermafuse.cli import main
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.labels import LabelSet
from dermafuse.printable import csv_line, escape, for_spreadsheet, plain
from dermafuse.progress import Terminal
from dermafuse.report.page import make_report
from tiny_bundle import tiny_bundle, tiny_content, tiny_image, tiny_network
from tiny_run import tiny_run

ANY = st.text(st.characters(), max_size=30)
HOSTILE = "\x1b[2J\x07\u202eab\nc\x00\ufffe\u2028[/red]"


@given(ANY)
def test_plain_text_shows_every_character_and_stays_as_it_is(text: str) -> None:
    shown = plain(text)
    assert all(character.isprintable() or character.isspace() for character in shown)
    assert not set(shown) & set("\x1b\n\r\t\u2028\u2029\u202e\u2066")
    assert plain(shown) == shown
    shown.encode()


@given(ANY)
def test_escaped_text_is_valid_xml_as_element_and_attribute(text: str) -> None:
    element = ET.fromstring(f'<a b="{escape(text)}">{escape(text, quote=False)}</a>')
    assert element.text in (None, element.get("b", "").replace(" ", " ")) or "\n" in text


@given(st.lists(ANY, min_size=1, max_size=4), st.booleans())
def test_a_line_of_csv_is_one_line_with_the_cells_that_were_meant(cells: list[str], spreadsheet: bool) -> None:
    line = csv_line(cells, spreadsheet=spreadsheet)
    assert line.count("\n") == 1
    (back,) = csv.reader([line])
    expected = [plain(cell) for cell in cells]
    assert back == ([for_spreadsheet(cell) for cell in expected] if spreadsheet else expected)
    assert not spreadsheet or not any(cell[:1] in {"=", "@"} for cell in back)


@pytest.mark.parametrize(
    ("cell", "safe"),
    [("=1+1", "'=1+1"), ("-1.5", "-1.5"), ("+4e3", "+4e3"), ("-x", "'-x"), ("\t=1", "'\\t=1"), ("a", "a")],
)
def test_what_a_spreadsheet_takes_for_a_formula_is_marked_and_numbers_are_not(cell: str, safe: str) -> None:
    assert for_spreadsheet(plain(cell)) == safe


def hostile_data(folder: Path) -> Path:
    rows = []
    for number in range(40):
        Image.fromarray(tiny_image(number)).save(folder / f"i{number}.png")
        rows.append(
            [f"i{number}.png", f"lesion{number // 2}{HOSTILE}", f"{'ab'[number // 2 % 2]}{HOSTILE}", f"x{HOSTILE}"]
        )
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["image", "lesion", "dx", "site"], *rows])
    settings = 'table = "table.csv"\nimage = "image"\nlesion = "lesion"\nlabel = "dx"\ncategorical = ["site"]\n'
    classes = json.dumps([f"a{HOSTILE}", f"b{HOSTILE}"])  # its escapes are those of TOML
    (folder / "dermafuse.toml").write_text(f"{settings}classes = {classes}\n")
    return folder / "dermafuse.toml"


def raw_in(text: str) -> set[str]:
    return set(text) & set("\x1b\x07\u202e\x00\ufffe\u2028")


def test_hostile_labels_ids_and_words_reach_no_terminal_table_page_or_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = hostile_data(tmp_path)
    assert main(["check", str(data)]) in (0, 1)
    printed = capsys.readouterr()
    assert not raw_in(printed.out + printed.err)
    assert "a\\x1b[2J" in printed.out
    run = tiny_run(tmp_path / "RUN", data, model=False)
    make_report(run, data=data)
    capsys.readouterr()
    assert "\\x1b[2J" in (run / "predictions.csv").read_text()
    figures = list(run.glob("figures/*.svg"))
    assert len(figures) > 3
    for path in [*figures, run / "report.html", run / "predictions.csv", *run.glob("figures/*.csv")]:
        assert not raw_in(path.read_text(encoding="utf-8")), path
    for path in figures:
        ET.parse(path)


def test_a_hostile_bundle_and_image_name_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = tuple(f"{letter}{HOSTILE}" for letter in "abcdefg")
    labels = LabelSet(codes, {code: code for code in codes}, frozenset(codes[:1]))
    empty = MetadataEncoder((), (), (), ())
    content = {"labels": labels, "info": {"announcements": [HOSTILE]}, "encoder": empty, "models": (tiny_network(),)}
    model = tiny_bundle(tmp_path / "m", **{**content, "head": tiny_content().head})
    image = tmp_path / f"=i{HOSTILE.replace(chr(0), '').replace('/', '')}.png"
    Image.fromarray(tiny_image()).save(os.fspath(image))
    for options in ((), ("--json",), ("--spreadsheet-safe",)):
        main(["predict", str(model), str(image), str(tmp_path / f"gone{HOSTILE.replace(chr(0), '')}.png"), *options])
        printed = capsys.readouterr()
        assert not raw_in(printed.out + printed.err)
    main(["explain", str(model), str(image), "--out", str(tmp_path / "o.png")])
    printed = capsys.readouterr()
    assert not raw_in(printed.out + printed.err)


def test_progress_lines_show_what_they_name(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().say(f"[bold]{HOSTILE}")
    Terminal().warn(HOSTILE)
    with Terminal().bar(HOSTILE, 1, "images") as advance:
        advance(1)
    assert not raw_in(capsys.readouterr().err)
