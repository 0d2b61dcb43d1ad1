"""What tests read of a report: the warnings while it is made, and whether its tagged numbers are those of the files."""

import json
from html.parser import HTMLParser
from pathlib import Path

from dermafuse.evaluation.derived_metrics import class_codes
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.progress import Silent
from dermafuse.report.facts import Facts, format_value


class Listener(Silent):
    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


class Tags(HTMLParser):
    """Collects (attributes, text) of every element that says where its text comes from."""

    NAMES = ("data-metric", "data-row", "data-share")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str]] | None] = []
        self.found: list[tuple[dict[str, str], str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if any(name in given for name in self.NAMES):
            self.open.append((tag, given))
            self.found.append((given, ""))

    def handle_data(self, text: str) -> None:
        if self.open:
            given, before = self.found[-1]
            self.found[-1] = (given, before + text)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] is not None and self.open[-1][0] == tag:
            self.open.pop()


def wrong_numbers(html: str, run: Path) -> tuple[list[str], int]:
    """Compare every tagged number of a page with the run's files; return what differs, and how many were read."""
    metrics = json.loads((run / "metrics.json").read_text())
    split = "test" if "test" in metrics else "validation"
    rows = read_rows(run / "predictions.csv", class_codes(metrics))[split]
    facts = Facts(metrics, split)
    tags = Tags()
    tags.feed(html)
    wrong = []
    for given, text in tags.found:
        if "data-metric" in given:
            value = facts.get(given["data-metric"])
            expected = None if value is None else format_value(value, given["data-format"])
        elif "data-row" in given:
            row, column = map(int, given["data-row"].split())
            expected = f"{rows.probabilities[row, column]:.1%}"
        else:
            row, column = map(int, given["data-share"].split())
            counts = metrics[split]["confusion_matrix"][row]
            expected = f"{counts[column] / sum(counts):.0%}"
        if text != expected:
            wrong.append(f"{given}: page {text!r}, file {expected!r}")
    return wrong, len(tags.found)
