"""Small tables for notebooks: what ``_repr_html_`` of a result returns. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dermafuse.printable import escape


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", notes: Iterable[str] = ()) -> str:
    """Return HTML: a title, a table, and a line a note. Numbers have three digits; ``None`` is a dash."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_shown(cell))}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<p><b>{escape(title)}</b></p>" if title else ""
    said = "".join(f"<p>{escape(text)}</p>" for text in notes)
    return f"<div>{caption}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}</div>"


def _shown(cell: object) -> str:
    if cell is None or cell != cell:  # NaN differs from itself
        return "–"
    return f"{cell:.3f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)
