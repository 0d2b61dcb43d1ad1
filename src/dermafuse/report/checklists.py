"""Reporting checklists filled from what a run knows: CLEAR Derm and TRIPOD+AI, whose items are data (``checklists/``).

An answer quotes the run's numbers by pointer (see `report.facts`); where a number is missing the next answer is tried,
the last being what is to be said when nothing is known. What only people can answer is left to them and says so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from dermafuse.report.facts import Facts

#: What the states mean, in the order of completeness.
STATES: Final[dict[str, str]] = {
    "reported": "in this report",
    "partly": "in part",
    "missing": "not available",
    "authors": "for the authors",
}


@dataclass(frozen=True)
class Entry:
    """One filled item: ``number``, ``section`` and ``asks`` of the guideline; ``state`` and ``template``."""

    number: str
    section: str
    asks: str
    state: str
    template: str


@dataclass(frozen=True)
class Checklist:
    """A filled guideline: its name, the paper it comes from, and its items."""

    name: str
    source: str
    entries: Sequence[Entry]

    @property
    def counts(self) -> dict[str, int]:
        """How many items have each state that occurs, in words."""
        states = [entry.state for entry in self.entries]
        return {words: states.count(state) for state, words in STATES.items() if state in states}


def filled_checklists(facts: Facts) -> list[Checklist]:
    """Return every checklist, each item with the first of its answers that the run can give."""
    return [
        Checklist(
            content["name"],
            content["source"],
            [
                Entry(number, section, item["asks"], *_choose(number, item["answers"], facts))
                for section, items in content["sections"].items()
                for number, item in items.items()
            ],
        )
        for content in _read()
    ]


@cache
def _read() -> list[dict[str, Any]]:
    found = files("dermafuse.report").joinpath("checklists").iterdir()
    return [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(found, key=lambda path: path.name)]


def _choose(number: str, answers: Sequence[Mapping[str, str]], facts: Facts) -> tuple[str, str]:
    for answer in answers:
        ((state, text),) = ((state, answer[state]) for state in STATES if state in answer)
        known = all(facts.get(pointer) is not None for pointer in facts.pointers(text))
        if known and ("when" not in answer or _holds(answer["when"], facts)):
            return state, text
    raise ValueError(f"item {number} has no answer for a run that knows nothing")


def _holds(condition: str, facts: Facts) -> bool:
    """Whether a condition holds: ``ham``, ``synthetic``, ``test``, or a pointer to a value that is not empty."""
    if condition == "ham":
        return facts.ham10000
    if condition == "synthetic":
        return bool(facts.get("/data/synthetic"))
    if condition == "test":
        return facts.split == "test"
    return bool(facts.get(condition))
