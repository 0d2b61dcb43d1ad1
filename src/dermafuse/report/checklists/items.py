"""Reporting checklists filled from what a run knows: CLEAR Derm and TRIPOD+AI.

Sources:
    CLEAR Derm: Daneshjou et al., "Checklist for evaluation of image-based artificial intelligence reports in
        dermatology", JAMA Dermatol. 158(1), 2022 (25 items).
    TRIPOD+AI: Collins et al., "TRIPOD+AI statement: updated guidance for reporting clinical prediction models
        that use regression or machine learning methods", BMJ 385:e078378, 2024 (27 items).

The items are given in short, in our words; the papers hold the full text. An answer quotes the run's numbers
by pointer (see `report.facts`); where a number is missing the next answer is tried, the last being what is to be
said when nothing is known. What only people can answer is left to them and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dermafuse.report.checklists.clear_derm import CLEAR_DERM
from dermafuse.report.checklists.tripod import TRIPOD_AI
from dermafuse.report.facts import Facts

#: What the states mean, in the order of completeness.
STATES: Final[dict[str, str]] = {
    "reported": "in this report",
    "partly": "in part",
    "missing": "not available",
    "authors": "for the authors",
}

#: (state, text with pointers) or (state, condition, text): see `_holds`.
Answer = tuple[str, str] | tuple[str, str, str]
Item = tuple[str, str, str, Sequence[Answer]]


@dataclass(frozen=True)
class Entry:
    """One filled item: ``number``, ``section`` and ``asks`` of the guideline; ``state`` and ``template``."""

    number: str
    section: str
    asks: str
    state: str
    template: str


def fill(items: Sequence[Item], facts: Facts) -> list[Entry]:
    """Return every item with the first of its answers that the run can give."""
    return [Entry(number, section, asks, *_choose(number, answers, facts)) for number, section, asks, answers in items]


def filled_checklists(metrics: Mapping[str, Any], split: str) -> dict[str, list[Entry]]:
    """Return both checklists, by name."""
    facts = Facts(metrics, split)
    return {"CLEAR Derm": fill(CLEAR_DERM, facts), "TRIPOD+AI": fill(TRIPOD_AI, facts)}


def _choose(number: str, answers: Sequence[Answer], facts: Facts) -> tuple[str, str]:
    for state, *condition, text in answers:
        known = all(facts.get(pointer) is not None for pointer in facts.pointers(text))
        if known and all(_holds(name, facts) for name in condition):
            return state, text
    raise ValueError(f"item {number} has no answer for a run that knows nothing")


def _holds(condition: str, facts: Facts) -> bool:
    """Whether a condition holds: ``ham``, ``synthetic``, ``test``, or a pointer to a value that is not empty."""
    synthetic = bool(facts.get("/data/synthetic"))
    if condition == "ham":
        return facts.get("/data/layout") in ("kaggle", "dataverse") and not synthetic
    if condition == "synthetic":
        return synthetic
    if condition == "test":
        return facts.split == "test"
    return bool(facts.get(condition))
