"""The one reader of tables that people have: any text table, row by row, in bounded memory. Needs no pandas.

Told from the file, never asked: the encoding (UTF-8, UTF-16, else Windows-1252 as Excel saves it), the separator
(comma, semicolon, tab or pipe), the line ends (LF, CRLF or CR), Excel's ``sep=;`` line, and lines above the column
names that hold a title. Left out: blank lines and rows, columns without a name, blanks and invisible characters
around a cell. What stays unclear is refused: a column named twice, a row with too few or too many cells.
Training, evaluation and prediction all read through `open_table`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from dermafuse.errors import DataError
from dermafuse.files import open_regular

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS: Final = (",", ";", "\t", "|")
_NAMES: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}

#: What a file that is no text table is, by how it begins, and how to get one out of it.
_SHEET: Final = "open it there and save that sheet as 'CSV UTF-8'"
_OTHER: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"PK\x03\x04", "an Excel or LibreOffice workbook (or another ZIP)", _SHEET),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", _SHEET),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"PAR1", "a Parquet file", "save it as CSV"),
    (b"SQLite format 3", "a SQLite file", "save the table as CSV"),
    (b"%PDF", "a PDF file", "save the table as CSV"),
    (b"{", "a JSON file", "save it as CSV"),
    (b"<", "an HTML or XML file", "save it as CSV"),
    (b"\x89PNG", "a PNG file", "choose a CSV"),
    (b"\xff\xd8\xff", "a JPEG file", "choose a CSV"),
)
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_MAX_LINE: Final = 1_000_000  # a table that gets this long without a line break is not a table
_SAMPLE_LINES: Final = 100
_SAMPLE_CHARACTERS: Final = 65_536
_CHUNK: Final = 1 << 18

_SEP: Final = re.compile(r'"?sep=([,;|\t])"?[,;|\t]*[\r\n]*', re.IGNORECASE)
_LONE: Final = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as "surrogateescape" hands it on
_WHOLE: Final = re.compile("[^\x00-\x7f\udc80-\udcff]")
_UNREADABLE: Final = re.compile("[\udc80-\udcff\ufffd]")
#: Never part of a name or a word: zero-width space, word joiner, byte-order mark, soft hyphen.
_INVISIBLE: Final = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))
#: Around a cell the joiners are as meaningless; within one they belong to some scripts.
_EDGES: Final = "\u200c\u200d\u200e\u200f"


class TableRow(NamedTuple):
    """One row: the line it ends on (from 1), its cells (as many as there are columns), and what is wrong with it."""

    line: int
    cells: list[str]
    problem: str | None


@dataclass(frozen=True)
class TableFile:
    """A table that was looked at and can be read, as often as wanted.

    Attributes:
        path: the file.
        header: column names, blanks and line breaks within them as one blank; ``""`` for a column without a name
            (not after the last one that has one). No two are the same in upper or lower case.
        delimiter: one of `DELIMITERS`.
        encoding: of the text, a Python codec.
        above: lines above the column names (a title, ``sep=``, blank ones).
        notes: sentences about what had to be told from the file.
    """

    path: Path
    header: tuple[str, ...]
    delimiter: str
    encoding: str
    above: int = 0
    notes: tuple[str, ...] = ()

    @property
    def separated(self) -> str:
        """What separates the cells, in words."""
        return f"{_NAMES[self.delimiter]}-separated"

    def rows(self) -> Iterator[TableRow]:
        """Yield every row that is not blank, cells stripped; a row that cannot be used says why.

        Raises:
            DataError: the file cannot be read any more.
        """
        width = len(self.header)
        try:
            with _text(self.path, self.encoding) as stream:
                lines = _records(stream, self.above, self.delimiter)
                next(lines, None)
                while True:
                    try:
                        cells = next(lines)
                    except StopIteration:
                        return
                    except csv.Error as error:
                        yield TableRow(self.above + lines.line_num, [], f"not a readable CSV ({error})")
                        continue
                    cells, unreadable = _tidy_all(cells)
                    if not any(cells):
                        continue
                    problem = (
                        f"not {self.encoding.upper().removesuffix('-SIG')} text, as other lines are"
                        if unreadable
                        else None
                    )
                    if len(cells) != width:
                        if len(cells) < width or any(cells[width:]):
                            where = f"line {self.above + 1}" if self.above else "the first line"
                            problem = problem or f"{len(cells)} cells where {where} names {width} columns"
                        else:
                            cells = cells[:width]
                    yield TableRow(self.above + lines.line_num, cells, problem)
        except OSError as error:
            raise _cannot_read(self.path, error) from error


def open_table(path: Path) -> TableFile:
    """Look at a table: what its text is, what separates its cells, and what its columns are called.

    Reads the file once through for its encoding, and no more than its first lines into memory.

    Raises:
        DataError: not readable, not a regular file, no text table (an Excel workbook, say), empty, or with a column
            named twice.
    """
    try:
        encoding, notes = _encoding(path, whole=True)
        return _looked_at(path, encoding, notes)
    except OSError as error:
        raise _cannot_read(path, error) from error
    except ValueError as error:  # a NUL byte in the path
        raise DataError(f"Cannot read {path!r}: {error}; check the path.") from error


def read_header(path: Path) -> tuple[str, ...]:
    """Return the column names of a table, ``()`` where it cannot be read as one."""
    try:
        encoding, _ = _encoding(path, whole=False)
        return _looked_at(path, encoding, []).header
    except (OSError, ValueError, DataError):
        return ()


def tidy(cell: str) -> str:
    """Return a cell without blanks and invisible characters around it, and without invisible ones within."""
    if cell.isascii():
        return cell.strip()
    return cell.translate(_INVISIBLE).strip().strip(_EDGES).strip().replace("\xa0", " ")


def _tidy_all(cells: list[str]) -> tuple[list[str], bool]:
    """Return the cells tidied, and whether bytes among them are no text."""
    together = "".join(cells)
    if together.isascii():  # nearly always, and many times faster
        return [cell.strip() for cell in cells], False
    return [tidy(cell) for cell in cells], _UNREADABLE.search(together) is not None


def _looked_at(path: Path, encoding: str, notes: list[str]) -> TableFile:
    with _text(path, encoding) as stream:
        sample = _sample(stream)
    if not any(tidy(line).strip(' \t"' + "".join(DELIMITERS)) for line in sample):
        raise DataError(f"{path} is empty; it needs a line of column names and one row an image.")
    if len(sample[0]) >= _MAX_LINE:
        raise DataError(f"{path} is no text table: its first line has no end; name a CSV.")
    said = _SEP.fullmatch(sample[0])
    above = 1 if said else 0
    delimiter = said[1] if said else _delimiter(sample, path)
    titles = _titles(sample[above:], delimiter)
    above += titles
    with _text(path, encoding) as stream:
        try:
            header, _ = _tidy_all(next(_records(stream, above, delimiter), []))
        except csv.Error as error:
            raise DataError(f"{path} is not a readable CSV ({error}); mend line {above + 1}.") from error
    header = [" ".join(name.split()) for name in header]
    while header and not header[-1]:
        header.pop()
    if not header:
        raise DataError(f"{path} is empty; it needs a line of column names and one row an image.")
    _refuse_twice(header, path)
    shown = [line for line in (_shown(line, delimiter) for line in sample[above - titles : above]) if line]
    if shown:
        notes = [*notes, f"{path.name}: '{shown[0]}' is taken as a title; line {above + 1} names the columns."]
    return TableFile(path, tuple(header), delimiter, encoding, above, tuple(notes))


def _refuse_twice(header: Sequence[str], path: Path) -> None:
    first: dict[str, str] = {}
    for name in filter(None, header):
        earlier = first.setdefault(name.casefold(), name)
        if earlier is not name:
            spelt = "" if earlier == name else f" (once as '{earlier}')"
            raise DataError(f"{path} names the column '{name}' twice{spelt}; rename or remove one of them.")


def _encoding(path: Path, *, whole: bool) -> tuple[str, list[str]]:
    """Return the codec of a file's text, and what to say about it; ``whole``: after reading all of it."""
    with open_regular(path) as stream:
        start = stream.read(8192)
        bare = start.removeprefix(codecs.BOM_UTF8).lstrip()
        for magic, what, remedy in _OTHER:
            if bare.startswith(magic):
                raise DataError(f"{path} is {what}, not a text table; {remedy}, and name that file.")
        for mark, codec in _BOMS:
            if start.startswith(mark) and codec != "utf-8-sig":
                return codec, []
        for first, codec in ((0, "utf-16-be"), (1, "utf-16-le")):  # every other byte of western text is 0 there
            if start[first::2].count(0) > len(start) // 3 and not start[1 - first :: 2].count(0):
                return codec, []
        stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        foreign = accents = undefined = False
        word = ""
        while chunk := stream.read(_CHUNK):
            text = decoder.decode(chunk)
            if not text.isascii():
                foreign |= _LONE.search(text) is not None
                accents |= _WHOLE.search(text.removeprefix("\ufeff")) is not None
                undefined |= re.search(rb"[\x81\x8d\x8f\x90\x9d]", chunk) is not None
                found = re.search(r"\w*[^\x00-\x7f]\w*", chunk.decode("cp1252", "replace")) if not word else None
                word = found[0] if found else word
            if not whole or (foreign and accents):
                break
    if not foreign or accents:  # where only some lines are not UTF-8, those rows are at fault, not the file
        return "utf-8-sig", []
    if undefined:
        raise DataError(
            f"{path} is not UTF-8 text, nor UTF-16 or Windows-1252; save it as 'CSV UTF-8' and name that file."
        )
    return "cp1252", [
        f"{path.name} is not UTF-8 text and is read as Windows-1252, as Excel saves it; it then says '{word}': "
        "where that is misspelt, save it as 'CSV UTF-8'."
    ]


def _text(path: Path, encoding: str) -> io.TextIOWrapper:
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return io.TextIOWrapper(io.BufferedReader(open_regular(path)), encoding, errors, newline="")


def _sample(stream: io.TextIOWrapper) -> list[str]:
    """Return the first lines, as they are: at least one, then not much more than `_SAMPLE_CHARACTERS`."""
    lines: list[str] = []
    length = 0
    while len(lines) < _SAMPLE_LINES and length < _SAMPLE_CHARACTERS and (line := stream.readline(_MAX_LINE)):
        lines.append(line)
        length += len(line)
    return lines


def _records(stream: io.TextIOWrapper, above: int, delimiter: str) -> Reader:
    for _ in range(above):
        stream.readline()
    return csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)


def _delimiter(sample: list[str], path: Path) -> str:
    """Return the separator that splits the most rows into equally many cells, and those into the most cells."""
    best, best_score = ",", (0, 0)
    order = ("\t", *DELIMITERS) if path.suffix.lower() in {".tab", ".tsv"} else DELIMITERS
    for delimiter in order:
        try:
            widths = [len(row) for row in csv.reader(sample, delimiter=delimiter) if any(map(str.strip, row))]
        except csv.Error:
            continue
        tally = Counter(width for width in widths if width > 1)
        if tally:
            width, rows = max(tally.items(), key=lambda item: (item[1], item[0]))
            if (rows, width) > best_score:
                best, best_score = delimiter, (rows, width)
    return best


def _titles(sample: list[str], delimiter: str) -> int:
    """Return how many lines stand above the column names: blank ones, and those that hold a title.

    A title fills one cell where the rows below fill more, or fewer cells than they do and is set off by a blank line.
    """
    filled = []
    for line in sample:
        try:
            filled.append(sum(bool(tidy(cell)) for cell in next(csv.reader([line], delimiter=delimiter), [])))
        except csv.Error:
            filled.append(2)
    above = 0
    while above + 1 < len(filled):
        below = [count for count in filled[above + 1 :] if count]
        typical = max(Counter(below).items(), key=lambda item: (item[1], item[0]))[0] if below else 0
        alone = filled[above] == 1 and typical > 1
        apart = filled[above + 1] == 0 and 0 < filled[above] < min(typical, next(iter(below), 0))
        if filled[above] and not alone and not apart:
            break
        above += 1
    return above


def _shown(line: str, delimiter: str) -> str:
    text = " ".join(tidy(line.replace(delimiter, " ").replace('"', " ")).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _cannot_read(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"Cannot read {path}: it does not exist; check the path.")
    return DataError(f"Cannot read {path}: {error.strerror}; check the file and its rights.")
