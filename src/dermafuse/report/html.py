"""Small pieces of HTML that the sections of the report are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dermafuse.printable import escape
from dermafuse.report.figures.make import Figure


@dataclass(frozen=True)
class Cell:
    """A table cell: its HTML, what it is sorted by (``None``: its text), and whether it is a number."""

    html: str
    order: float | str | None = None
    number: bool = False


def section(name: str, title: str, *parts: str, intro: str = "") -> str:
    """Return a section with a heading; empty where all parts are."""
    body = "".join(parts)
    if not body:
        return ""
    lead = f'<p class="intro">{intro}</p>' if intro else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{lead}{body}</section>'


def card(*parts: str, title: str = "", wide: bool = False) -> str:
    """Return a framed block; empty where all parts are."""
    body = "".join(parts)
    if not body:
        return ""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card{" wide" if wide else ""}">{head}{body}</div>'


def grid(*cards: str) -> str:
    """Return cards side by side, as many as fit."""
    body = "".join(cards)
    return f'<div class="grid">{body}</div>' if body else ""


def figure(found: Figure | None, caption: str = "", *, title: bool = True) -> str:
    """Return a figure as a card; empty where there is none."""
    if found is None:
        return ""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    drawing = found.canvas.svg(standalone=False)
    return card(f'<figure id="figure-{found.name}">{drawing}{words}</figure>', title=found.title if title else "")


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, name: str = "", sortable: bool = True) -> str:
    """Return a table in a box that scrolls sideways; texts are escaped, `Cell` HTML is not.

    A column is aligned as a number where its first cell is one.
    """
    listed = [[cell if isinstance(cell, Cell) else Cell(escape(cell)) for cell in row] for row in rows]
    if not listed:
        return ""
    first = listed[0]
    head = "".join(
        f'<th scope="col"{" class=n" if position < len(first) and first[position].number else ""}>'
        + (f'<button type="button">{escape(text)}</button>' if sortable and text else escape(text))
        + "</th>"
        for position, text in enumerate(heads)
    )
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in listed)
    identity = f' id="{name}"' if name else ""
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll"><table{identity}{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def note(text: str) -> str:
    """Return a remark; ``text`` is HTML."""
    return f'<p class="note">{text}</p>' if text else ""


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """Return a block that opens on a click (and in print)."""
    state = " open" if opened else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{body}</details>" if body else ""


def badge(severity: str) -> str:
    """Return the mark of a severity."""
    return f'<span class="badge {escape(severity)}">{escape(severity)}</span>'


def _cell(cell: Cell) -> str:
    kind = " class=n" if cell.number else ""
    order = "" if cell.order is None else f' data-order="{escape(str(cell.order))}"'
    return f"<td{kind}{order}>{cell.html}</td>"
