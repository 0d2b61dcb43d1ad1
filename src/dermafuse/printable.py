"""Text from files, fit to be shown: what would steer a terminal, a table or a page is written out instead.

A class name, a cell or the name of an image may hold anything. ESC moves the cursor and repaints what was said
before, a line break makes two rows of one, bidirectional marks turn words round, and many of them make an SVG no XML.
`plain` is the one rule for all of them; whoever shows such text calls it.
"""

from __future__ import annotations

import csv
import io
import sys
import unicodedata
from collections.abc import Iterable
from typing import Final

#: What a spreadsheet takes for the start of a formula, as `plain` writes it.
_FORMULA: Final = ("=", "+", "-", "@", "\\t", "\\r", "\\n")


def plain(text: object) -> str:
    """Return text in which every character shows: control characters, line breaks and bidi marks as ``\\x1b``.

    Written out are Unicode's control, format, surrogate, private and unassigned characters (categories C) and its line
    and paragraph separators, among them all that XML forbids. Applying it again changes nothing.
    """
    words = str(text)
    if words.isascii() and words.isprintable():
        return words
    return "".join(character if character.isprintable() else _shown(character) for character in words)


def for_terminal(text: str) -> str:
    """Return text as `plain` does, but with the line breaks of a message of several lines."""
    return "\n".join(plain(line.expandtabs()) for line in text.split("\n"))


def for_spreadsheet(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: marked with ``'`` where it begins like one.

    Source: OWASP, "CSV injection". Numbers are left alone.
    """
    if not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def csv_line(cells: Iterable[object], *, spreadsheet: bool = False) -> str:
    """Return one line of CSV, whatever the cells hold; ``spreadsheet``: safe to open in one."""
    line = io.StringIO()
    shown = (plain(cell) for cell in cells)
    csv.writer(line, lineterminator="\n").writerow(map(for_spreadsheet, shown) if spreadsheet else shown)
    return line.getvalue()


def usable_streams() -> None:
    """Make stdout and stderr take any text: what their encoding lacks is written out, and closed ones take nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (`>&-`)
            setattr(sys, name, _Nowhere())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Nowhere:
    """A stream that nobody reads."""

    encoding = "utf-8"
    closed = False

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _shown(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # a no-break space and its like
        return character
    return character.encode("unicode_escape").decode()
