"""Every code block of README.md and docs/ runs; what it prints is what the page says (tests/documentation.py: how)."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dermafuse.data.synthetic.dataset import write_synthetic
from documentation import CHECKED, ROOT, RUN, WORDS, Block, Desk, assert_shown, blocks_of, pages, small_trainings

BLOCKS = {page: blocks_of(page) for page in pages()}
#: What trains, or is given what a training left.
TRAINS = re.compile(r"dermafuse (train|demo)|df\.train|given: .*\bRUN\b")


#: How the parser says that something required was left out.
MISSING = r"arguments are required|no \w+ named"


def runs(block: Block) -> bool:
    return block.language in RUN and "not run" not in block.notes


def alive() -> list[Any]:
    """Return the pages with blocks that run. Those that train are slow; .ci/run runs them (make docs)."""
    found = [page for page, blocks in BLOCKS.items() if any(map(runs, blocks))]
    slow = {page for page in found if TRAINS.search(page.read_text(encoding="utf-8"))}
    return [pytest.param(page, marks=pytest.mark.slow if page in slow else (), id=name_of(page)) for page in found]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        small_trainings(patch)
        yield


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What pages are given, made once each: generated data sets, a RUN trained on one."""
    folder = tmp_path_factory.mktemp("stock")

    def get(name: str) -> Path:
        path = folder / name
        if not path.exists() and name == "RUN":
            from dermafuse.api.train import train

            train(str(get("HAM10000")), out=path, recipe="seed", split="lesion", progress=False)
        elif not path.exists():
            write_synthetic(path, lesions=70, seed=len(name), size=(64, 48))
        return path

    return get


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", alive())
def test_the_blocks_of_a_page_run_in_order_and_print_what_it_says(
    page: Path, stock: Callable[[str], Path], tmp_path: Path
) -> None:
    desk = Desk(tmp_path, stock)
    blocks = BLOCKS[page]
    seen: dict[int, str] = {}
    for number, block in enumerate(blocks):
        desk.give(block.notes.get("given", ""), blocks)
        if block.output_of in seen and "output varies" not in block.notes:
            assert_shown(block, seen[block.output_of])
        elif runs(block):
            seen[number] = desk.run(block)


def test_the_first_answer_of_the_readme_is_what_it_prints(stock: Callable[[str], Path], tmp_path: Path) -> None:
    blocks = BLOCKS[ROOT / "README.md"]
    number = next(n for n, block in enumerate(blocks) if runs(block))
    assert blocks[number].text.startswith("dermafuse predict examples/lesion.jpg")
    desk = Desk(tmp_path, stock)
    desk.give("examples/lesion.jpg", blocks)
    assert_shown(blocks[number + 1], desk.run(blocks[number]))


def test_every_block_names_a_language_and_one_that_does_not_run_says_why() -> None:
    everything = [block for found in BLOCKS.values() for block in found]
    for block in everything:
        assert block.language in RUN | CHECKED | WORDS, f"{name_of(block.page)}:{block.line}: which language?"
        if "not run" in block.notes:
            assert block.language in RUN
            assert len(block.notes["not run"]) > 15, f"{name_of(block.page)}:{block.line}: say why it is not run"
    for_running = [block for block in everything if block.language in RUN]
    idle = [block for block in for_running if "not run" in block.notes]
    said = "\n".join(f"{name_of(block.page)}:{block.line}: {block.notes['not run']}" for block in idle)
    print(f"{len(idle)} of {len(for_running)} blocks are not run:\n{said}")
    assert len(idle) <= 0.4 * len(for_running), said


def test_commands_of_blocks_that_do_not_run_are_understood() -> None:
    from dermafuse.cli import parser

    idle = [block for found in BLOCKS.values() for block in found if block.language == "sh" and not runs(block)]
    lines = [line for block in idle for line in block.text.replace("\\\n", " ").splitlines()]
    commands = [line for line in lines if line.startswith("dermafuse ")]
    assert len(commands) > 5
    for command in commands:
        assert parser().parse_args(shlex.split(command, comments=True)[1:]).handler, command


@pytest.mark.parametrize("page", [page for page in BLOCKS if "`dermafuse " in page.read_text()], ids=name_of)
def test_commands_within_sentences_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dermafuse.cli import parser

    prose = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`(dermafuse [a-z][^`]*)`", prose):
        words = shlex.split(command.replace("\\|", "|"))[1:]
        if any(re.search(r"^\[|\.\.\.$|^VERB$", word) for word in words):  # a pattern, not a command
            continue
        if len(words) == 1:  # the name of a verb
            words.append("--help")
        try:
            parser().parse_args(words)
        except SystemExit as ended:
            # A sentence may leave out what is required, and nothing else.
            assert ended.code == 0 or re.search(MISSING, capsys.readouterr().err), command


@pytest.mark.parametrize(
    "block",
    [b for found in BLOCKS.values() for b in found if b.language in CHECKED],
    ids=lambda block: f"{name_of(block.page)}:{block.line}",
)
def test_files_that_pages_show_can_be_read(block: Block) -> None:
    from dermafuse.data.readers.description import TableDescription

    if block.language == "json":
        json.loads(block.text)
    else:
        TableDescription.model_validate(tomllib.loads(block.text))


def test_lines_are_compared_by_words_exactly_and_by_fractions_roughly() -> None:
    from documentation import alike

    assert alike("mel  melanoma  9.3%  ###", "mel  melanoma  10.1%  ###")
    assert not alike("mel  melanoma  9.3%", "mel  melanoma  19.3%")
    assert not alike("12 images", "13 images")
    assert not alike("melanoma 0.5", "nevus 0.5")
