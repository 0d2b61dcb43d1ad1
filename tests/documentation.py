"""Code blocks of README.md and docs/: read from the pages, and run as a reader would, on stand-ins for the data.

In a page, comments in front of a block say what the page itself does not show:

- ``<!-- given: HAM10000 RUN lesion.jpg -->``: what a reader has by then (`Desk.give` makes each);
- ``<!-- not run: REASON -->``: the block cannot run here;
- ``<!-- output varies: REASON -->``: the ``text`` block behind it is an example, not what must come out.

A ``text`` block right behind a block that runs is its output, and compared: words exactly, fractions and percentages
roughly (processors round differently), ``...`` for lines left out. ``DERMAFUSE_WRITE_DOCS=1`` writes what came out into
the page instead.

Trainings run as printed, but small: `small_trainings` resolves the settings that the page names (so a wrong one is an
error), then replaces those of `SMALL`. Nothing else is changed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
#: Languages of blocks: run, checked as a whole, or words only.
RUN, CHECKED, WORDS = {"sh", "python"}, {"toml", "json"}, {"text"}

_COMMENT = re.compile(r"<!-- (given|not run|output varies): (.*?) -->")
_FENCE = re.compile(r"^(\s*)```(.*)$")
_NUMBER = re.compile(r"\d+(?:\.\d+)?%?")
#: How far fractions, and percentages, of an answer may be from those printed: bfloat16 or not moves them so much.
_NEAR, _NEAR_PERCENT = 0.03, 3.0


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, what it says, and what the comments before it say."""

    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]
    output_of: int | None  # index of the block whose output this is


def pages() -> list[Path]:
    """Return README.md and every written page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    between = False  # only blank lines since the last block
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            comment = _COMMENT.search(lines[number])
            if comment:
                notes[comment[1]] = comment[2]
            elif lines[number].strip():
                notes = {key: value for key, value in notes.items() if key == "given"}
                between = False
            number += 1
            continue
        end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
        text = "\n".join(line.removeprefix(opening[1]) for line in lines[number + 1 : end]) + "\n"
        language = opening[2].strip()
        of = len(found) - 1 if between and language in WORDS and found[-1].language in RUN else None
        found.append(Block(page, number + 2, language, text, notes, of))
        notes, between, number = {}, True, end + 1
    return found


# --- trainings that take seconds

#: What replaces the page's settings.
SMALL = {
    "backbone": "efficientnet_lite0",
    "weights": "random",
    "image_size": 64,
    "epochs": 1,
    "unfreeze_from": "none",
    "views": 1,
    "random_views": 0,
    "train_depthwise": True,
    "report": False,
}


def small_trainings(patch: pytest.MonkeyPatch) -> None:
    """Make every training in this process small: the settings of `SMALL`, two folds, two members, 60 drawn lesions."""
    from dermafuse.training import config, demo

    real = config.resolve

    def resolve(recipe: str | None = None, **named: Any) -> Any:
        asked = real(recipe, **named)
        changes = {**SMALL, **({"folds": 2} if asked.folds else {})}
        changes |= {"members": '["efficientnet_lite0"]', "member_folds": 2} if asked.members else {}
        texts = [f"{key}={str(value).lower()}" for key, value in changes.items()]
        return real(recipe, **{**named, "assignments": [*named.get("assignments", ()), *texts]})

    for module in (config, demo):
        patch.setattr(module, "resolve", resolve)
    patch.setattr(demo, "_LESIONS", 60)


# --- the reader's desk


class Desk:
    """A folder in which the blocks of one page run in order."""

    def __init__(self, folder: Path, stock: Callable[[str], Path]) -> None:
        self.folder = folder
        self.stock = stock
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def give(self, names: str, blocks: list[Block]) -> None:
        """Lay out what a page says is given: data sets, a RUN, a clinic's folder, files of the repository."""
        for name in names.split():
            to = self.folder / name
            to.parent.mkdir(parents=True, exist_ok=True)
            if name in ("HAM10000", "ISIC2018"):
                to.symlink_to(self.stock(name))
            elif name.startswith("clinic"):
                write_clinic(self.folder / "clinic", self.stock("HAM10000"), more=name == "clinic/labels")
                if name != "clinic":
                    description = next(block.text for block in blocks if block.language == "toml")
                    (self.folder / "clinic" / "dermafuse.toml").write_text(description)
            elif name == "table.csv":
                write_table(self.folder, self.stock("HAM10000"))
            elif name == "RUN":
                shutil.copytree(self.stock("RUN"), to)
            else:
                shutil.copy(ROOT / ("examples/lesion.jpg" if name == "lesion.jpg" else name), to)

    def run(self, block: Block) -> str:
        """Run one block here; return what a person would have seen on the terminal."""
        with contextlib.chdir(self.folder), on_a_terminal() as seen:
            if block.language == "python":
                exec(compile(block.text, f"{block.page.name}:{block.line}", "exec"), self.names)
            else:
                self._shell(block.text)
        return seen.getvalue()

    def _shell(self, text: str) -> None:
        from dermafuse.cli import main

        lines = [line for line in text.replace("\\\n", " ").splitlines() if line.split("#")[0].strip()]
        if not all(line.startswith("dermafuse ") and not re.search(r"[|;&<>$`]", line) for line in lines):
            print(self._bash(text), end="")
            return
        for line in lines:  # in this process, where TensorFlow is loaded once
            status = main(shlex.split(line, comments=True)[1:])
            assert status == 0, f"{line}\n{getattr(sys.stdout, 'getvalue', str)()}"

    def _bash(self, text: str) -> str:
        tools = self.folder / ".bin"
        tools.mkdir(exist_ok=True)
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import pytest, documentation\n"
            "documentation.small_trainings(pytest.MonkeyPatch())\n"
            "from dermafuse.cli import main; sys.exit(main())"
        )
        (tools / "dermafuse").write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)} "$@"\n')
        (tools / "dermafuse").chmod(0o755)
        path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": path},
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout


class Screen(io.StringIO):
    """What a person sees: programs take it for a terminal."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def on_a_terminal() -> Iterator[Screen]:
    """Collect output and errors as on a plain terminal of 120 columns."""
    seen = Screen()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1", "MPLBACKEND": "Agg"}.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(seen), contextlib.redirect_stderr(seen):
            yield seen


def write_clinic(folder: Path, drawn: Path, *, more: bool) -> None:
    """Write a clinic's table and photos: patients.csv with photo, finding, patient, age, itch."""
    (folder / "photos").mkdir(parents=True)
    words = {"nv": "naevus", "mel": "mm", "bcc": "bcc", **({"bkl": "keratosis", "df": "unclear"} if more else {})}
    with (drawn / "HAM10000_metadata.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dx"] in words]
    lines = ["photo,finding,patient,age,itch"]
    for number, row in enumerate(rows, 1):
        picture = next(drawn.glob(f"HAM10000_images_part_*/{row['image_id']}.jpg"))
        shutil.copy(picture, folder / "photos" / f"a{number:03}.jpg")
        itch = ("yes", "no")[number % 2]
        lines.append(f"a{number:03}.jpg,{words[row['dx']]},{row['lesion_id'][-4:]},{row['age']},{itch}")
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")


def write_table(folder: Path, drawn: Path) -> None:
    """Write table.csv with twelve rows, and their images in images/."""
    (folder / "images").mkdir()
    with (drawn / "HAM10000_metadata.csv").open() as file:
        rows = list(csv.DictReader(file))[:12]
    lines = ["image,age,sex,localization"]
    for row in rows:
        picture = next(drawn.glob(f"HAM10000_images_part_*/{row['image_id']}.jpg"))
        shutil.copy(picture, folder / "images")
        lines.append(f"{picture.name},{row['age']},{row['sex']},{row['localization']}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


# --- comparing with the output that is printed


def assert_shown(expected: Block, seen: str) -> None:
    """Compare a printed output with what came out, or write that into the page (``DERMAFUSE_WRITE_DOCS``)."""
    if os.environ.get("DERMAFUSE_WRITE_DOCS"):
        content = expected.page.read_text(encoding="utf-8")
        assert "..." not in expected.text.split(), f"{expected.page}: write the lines that are shown by hand"
        expected.page.write_text(content.replace(f"```text\n{expected.text}", f"```text\n{seen}"), encoding="utf-8")
        return
    left = [line.rstrip() for line in seen.splitlines()]
    for part in re.split(r"^\.\.\.\n", expected.text, flags=re.MULTILINE):
        wanted = [line.rstrip() for line in part.splitlines()]
        starts = range(len(left) - len(wanted) + 1)
        at = next((n for n in starts if all(map(alike, wanted, left[n : n + len(wanted)]))), None)
        where = f"{expected.page}:{expected.line}"
        assert at is not None, f"{where} prints\n{part}\nbut what came out is\n{seen}"
        left = left[at + len(wanted) :]


def alike(wanted: str, seen: str) -> bool:
    """Whether two lines say the same: the same words, about the same fractions and percentages."""
    numbers = zip(_NUMBER.findall(wanted), _NUMBER.findall(seen), strict=False)
    texts = [re.sub("#+", "#", re.sub(r"[\d.]+%|\d+\.\d+", "0", re.sub(r"\s+", " ", text))) for text in (wanted, seen)]
    if texts[0].rstrip(" #") != texts[1].rstrip(" #"):
        return False
    return all(
        abs(float(a.rstrip("%")) - float(b.rstrip("%"))) <= (_NEAR_PERCENT if "%" in a else _NEAR if "." in a else 0)
        for a, b in numbers
    )
