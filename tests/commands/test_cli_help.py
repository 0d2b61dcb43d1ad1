"""What a newcomer meets first: ``dermafuse`` alone, its version, the help of each verb."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dermafuse import __version__
from dermafuse.cli import main
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.recipes import MEANINGS, RECIPES

VERBS = ("cache", "check", "demo", "evaluate", "explain", "export", "predict", "release", "report", "train")


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_dermafuse_alone_shows_the_verbs_and_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    for verb in VERBS:
        assert re.search(rf"^    {verb} ", said.err, re.MULTILINE), verb
    assert "required" not in said.err


def test_python_m_dermafuse_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "dermafuse", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dermafuse {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_ends_with_examples_that_its_parser_takes(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from dermafuse.cli import parser

    closing = help_of(verb, capsys=capsys).split("\nexamples:\n")[1]
    commands = [line.split() for line in closing.splitlines() if line.startswith("  dermafuse ")]
    assert commands
    for command in commands:
        assert parser().parse_args(command[1:]).handler
    assert any(command[1] == verb for command in commands)


def test_the_help_of_train_names_every_recipe_and_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of("train", capsys=capsys).split())
    assert MEANINGS.keys() == RECIPES.keys()
    for name, meaning in MEANINGS.items():
        assert f"{name} {meaning}" in text.replace("(default) ", "")


def test_the_help_of_train_lists_every_setting_with_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of("train", capsys=capsys).split())
    listed = text[text.index("settings (--set") : text.index(" examples:")]
    defaults = resolve().model_dump()
    for key, field in TrainConfig.model_fields.items():
        assert field.description, f"{key} has no description"
        found = re.search(rf" {key}=(\S+) {re.escape(field.description)}", listed)
        assert found, key
        assert resolve(assignments=[f"{key}={found[1]}"]).model_dump()[key] == defaults[key], key
