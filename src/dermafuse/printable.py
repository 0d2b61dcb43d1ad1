"""Text from files, fit to be shown: what would steer a terminal, a table or a page is written out instead.

A class name, a cell or the name of an image may hold anything. ESC moves the cursor and repaints what was said
before, a line break makes two rows of one, bidirectional marks turn words round, and many of them make an SVG no XML.
`plain` is the one rule for all of them; whoever shows such text calls it.
"""

from __future__ import annotations

import contextlib
import csv
import html
import io
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final

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


def escape(text: str, quote: bool = True) -> str:
    """Return text for HTML and SVG, as `html.escape` does, of characters that XML allows. Line breaks stay."""
    return html.escape("\n".join(map(plain, text.split("\n"))), quote)


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


@contextlib.contextmanager
def usable_streams() -> Iterator[None]:
    """Let stdout and stderr take any text while the block runs.

    What their encoding lacks is written out, closed ones take nothing, and what is printed is shown as `for_terminal`
    does: whoever prints a name from a file need not think of it. Rich, whose colours are ours, gets the `raw` ones.
    """
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (`>&-`)
            stream = _Nowhere()
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream if isinstance(stream, _Shown) else _Shown(stream))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def raw(stream: Any) -> Any:
    """Return the stream behind one of `usable_streams`: for text that was made fit before."""
    return stream.stream if isinstance(stream, _Shown) else stream


class _Shown:
    """A text stream whose text shows."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(for_terminal(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


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
