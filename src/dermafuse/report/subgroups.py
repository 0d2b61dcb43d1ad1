"""The section of the report about subgroups: forest plots, one metric at a time, and the table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.subgroups import MINIMUM_CLASS, MINIMUM_ROWS, ordered_cells
from dermafuse.printable import escape
from dermafuse.report.facts import Facts, step
from dermafuse.report.figures.make import Figure
from dermafuse.report.figures.tables import COLUMN_NAMES
from dermafuse.report.html import Cell, card, details, note, section, table


def subgroups(facts: Facts, figures: Mapping[str, Figure]) -> str:
    """Return the forest plots (one metric at a time) and the table of all subgroup metrics."""
    known = facts.get("@/subgroups")
    if not known:
        why = facts.show("@/notes/subgroups") if facts.get("@/notes/subgroups") else "Not computed."
        return section("subgroups", "Subgroups", card(note(why), wide=True))
    named = {key: metric.name for key, metric in subgroup_metrics(facts.labels).items()}
    drawn = [name for name in named if f"subgroups_{name}" in figures]
    tabs = "".join(
        f'<input type="radio" name="forest" id="tab-{name}"{" checked" if number == 0 else ""}>'
        f'<label for="tab-{name}">{escape(named[name])}</label>'
        for number, name in enumerate(drawn)
    )
    plots = "".join(
        f'<figure class="pane" id="pane-{name}">{figures[f"subgroups_{name}"].canvas.svg(standalone=False)}</figure>'
        for name in drawn
    )
    rows: list[Sequence[Cell | str]] = []
    for column, cells in known.items():
        for value, cell in ordered_cells(cells):
            base = f"@/subgroups/{step(column)}/{step(value)}"
            rows.append(
                [
                    COLUMN_NAMES.get(column, column), value,
                    Cell(facts.show(f"{base}/n", ",d"), cell["n"], True),
                    *(_subgroup_cell(facts, f"{base}/metrics/{name}", cell["withheld"]) for name in named),
                    _subgroup_cell(facts, f"{base}/metrics/ece", cell["withheld"]),
                ]
            )  # fmt: skip
    heads = ("group", "value", "images", *named.values(), "ECE")
    words = (
        "Dots with 95 % intervals by bootstrap over lesions; red: worse than all other images, the interval of the gap "
        "excluding zero. A gap describes, it does not explain: groups differ in their mix of diagnoses, and with this "
        "many comparisons some differ by chance. Cells under 30 images are withheld."
    )
    if not drawn:
        words = (
            f"No group has enough images for a number: {MINIMUM_ROWS} of them, and {MINIMUM_CLASS} of what a number is "
            "about. Their sizes are below."
        )
    return section(
        "subgroups", "Subgroups",
        card(f'<div class="tabs">{tabs}{plots}</div>' if drawn else "", note(words), wide=True),
        details(
            "Table of all subgroup metrics (below each value its gap to the rest)",
            card(table(heads, rows), wide=True),
        ),
    )  # fmt: skip


def _subgroup_cell(facts: Facts, pointer: str, withheld: bool) -> Cell:
    if withheld:
        return Cell('<span class="none">withheld</span>', -9.0, True)
    value = facts.get(f"{pointer}/value")
    gap = ""
    if facts.get(f"{pointer}/gap") is not None:
        span = facts.span(f"{pointer}/gap_ci95", "+.2f")
        gap = f'<span class="sub">{facts.show(f"{pointer}/gap", "+.3f")} {span}</span>'
    own = f"{facts.show(f'{pointer}/value', '.3f')} {facts.span(f'{pointer}/ci95', '.2f')}{gap}"
    return Cell(own, -9.0 if value is None else value, True)
