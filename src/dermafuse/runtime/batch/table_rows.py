"""A CSV of images, row by row, in bounded memory: every row comes out, with its query or with what is wrong."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from dermafuse.data.image_names import ImageFinder, refuse_rivals
from dermafuse.data.scan import IMAGE_SUFFIXES, is_copy, scan
from dermafuse.data.table_files import TableRow, open_table
from dermafuse.errors import DataError, examples, nearest
from dermafuse.files import open_regular
from dermafuse.printable import plain

#: Columns looked for where the image column is not named, in this order.
IMAGE_COLUMNS: Final = ("image", "image_id", "isic_id", "img_id", "path", "image_path", "filename", "file")

#: So many rows without an image get a hint at the nearest file name, in the first block of rows and in each later one:
#: finding one takes time. By block, so that a row says the same whoever reads it, and however many came before.
_MAX_HINTS: Final = (5, 1)

#: A table is divided into about so many blocks, of no fewer and no more rows than this.
_BLOCKS: Final = 256
_FEWEST, _MOST = 16, 4096
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".JPG", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".DCM")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        number: counted from 1, without the header.
        name: what the row calls its image.
        path: where that image is; ``None`` where the row cannot be used.
        metadata: field -> text of the cell, or value of the data set.
        error: why the row cannot be used, or ``None``.
    """

    number: int
    name: str
    path: Path | None
    metadata: Mapping[str, object]
    error: str | None = None


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that are read: the image's, and those of the metadata fields that are there."""

    width: int
    image: int
    fields: Mapping[str, int]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Some rows of a table, as they stand there: block ``number`` (from 0), whose first row is number ``first``."""

    number: int
    first: int
    rows: tuple[TableRow, ...]

    def __len__(self) -> int:
        return len(self.rows)


class TableReader:
    """Reads a table of images as training does (`dermafuse.data.table_files`, `dermafuse.data.image_names`).

    Args:
        table: the file.
        fields: metadata fields of the model; read from the columns of the same name (upper or lower case)
            where ``columns`` does not say otherwise.
        image_column: that names the image; ``None``: the first of `IMAGE_COLUMNS` that is there.
        columns: metadata field -> column.
        image_root: folder that relative image names start from; ``None``: the table's own.
        extension: suffix of images named without one; ``None``: every known suffix is tried.

    Attributes:
        columns: where they are.
        root: folder that relative image names start from.
        block_rows: rows of a block; the same wherever this table is read.

    Raises:
        DataError: the table or a named column does not exist, or it cannot be read as a table.
    """

    def __init__(
        self,
        table: Path,
        *,
        fields: Sequence[str],
        image_column: str | None = None,
        columns: Mapping[str, str] | None = None,
        image_root: Path | None = None,
        extension: str | None = None,
    ) -> None:
        self.table = table
        self.root = (image_root or table.parent).absolute()
        self._suffixes = _SUFFIXES if extension is None else ("." + extension.lstrip("."),)
        self._extension = "" if extension is None else self._suffixes[0]
        self._hints = _MAX_HINTS[0]
        self.block_rows = min(max(-(-count_rows(table) // _BLOCKS), _FEWEST), _MOST)
        if image_root is not None and not image_root.is_dir():
            raise DataError(f"The image folder {image_root} does not exist; check the path.")
        self._file = open_table(table)
        self.columns = self._find_columns(list(self._file.header), fields, image_column, columns or {})

    def __iter__(self) -> Iterator[Row]:
        """Yield every row but blank ones. Rows that cannot be used say why."""
        for block in self.blocks():
            yield from self.rows_of(block)

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in blocks as they stand in the table: no image is looked for yet."""
        rows = self._file.rows()
        for number in itertools.count():
            some = tuple(itertools.islice(rows, self.block_rows))
            if not some:
                return
            yield Block(number, number * self.block_rows + 1, some)

    def rows_of(self, block: Block) -> Iterator[Row]:
        """Yield the rows of a block with their images. Rows that cannot be used say why."""
        self._hints = _MAX_HINTS[min(block.number, 1)]
        for number, row in enumerate(block.rows, start=block.first):
            yield self._row(number, row)

    def notes(self) -> tuple[str, ...]:
        """Return sentences on what was told from the table, and how images were found so far."""
        return (*self._file.notes, *(self._finder.notes() if "_finder" in self.__dict__ else ()))

    def _row(self, number: int, row: TableRow) -> Row:
        cells, problem = row.cells, row.problem
        name = cells[self.columns.image] if len(cells) > self.columns.image else ""
        clean = plain(name.encode("utf-8", "replace").decode())  # lone surrogates cannot be written again
        if problem is not None:
            return Row(number, clean, None, {}, f"line {row.line} of the table: {problem}")
        if not name:
            return Row(number, clean, None, {}, "the row names no image")
        metadata = {field: cells[position] for field, position in self.columns.fields.items()}
        try:
            return Row(number, clean, self._find_image(name), metadata)
        except DataError as error:
            return Row(number, clean, None, metadata, str(error))

    def _find_image(self, name: str) -> Path:
        """Return the image's path.

        Raises:
            DataError: there is none, the name stands for several files, or the folder cannot be searched.
        """
        path = os.path.join(self.root, name)  # noqa: PTH118  (a Path costs more than a look at the disk)
        if _is_file(path):
            return Path(path)
        with_suffix = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
        if not with_suffix:
            there = [Path(path + ending) for ending in self._suffixes if _is_file(path + ending)]
            there = [file for n, file in enumerate(there) if not any(is_copy(file, other) for other in there[:n])]
            if len(there) > 1:
                refuse_rivals({name: there})
            if there:
                return there[0]
        files = self._finder.find(name if with_suffix else name + self._extension)
        if len(files) > 1:
            refuse_rivals({name: files})
        if files:
            return files[0]
        if _exists(path):
            return Path(path)  # a folder, a pipe: whoever opens it says so
        self._hints -= 1
        near = self._finder.nearest(name) if self._hints >= 0 else ""
        raise DataError(f"{path}{'' if with_suffix else self._suffixes[0]} does not exist; check the path.{near}")

    @cached_property
    def _finder(self) -> ImageFinder:
        """Looks below the folder, which is walked through once, where names alone do not lead to files."""
        image = self.columns.image
        names = (row.cells[image] for row in self._file.rows() if row.problem is None)
        return ImageFinder(scan([self.root]), lambda: names)

    def _find_columns(
        self, header: list[str], fields: Sequence[str], image_column: str | None, named: Mapping[str, str]
    ) -> Columns:
        positions = {name.lower(): index for index, name in enumerate(header) if name}
        for field in named:
            if field not in fields:
                there = f"it uses {', '.join(fields)}" if fields else "it uses the image alone"
                raise DataError(f"This model has no metadata field '{field}' ({there}).{nearest(field, fields)}")
        for column in [*named.values(), *([image_column] if image_column else [])]:
            if column.lower() not in positions:
                raise DataError(
                    f"{self.table} has no column '{column}' (it has {examples(header, limit=12)}); "
                    f"name another.{nearest(column, header)}"
                )
        choices = [image_column.lower()] if image_column else list(IMAGE_COLUMNS)
        image = next((positions[name] for name in choices if name in positions), None)
        if image is None:
            raise DataError(
                f"{self.table} has no column of images (it has {examples(header, limit=12)}); "
                "name it with --image-column."
            )
        wanted = {field: named.get(field, field).lower() for field in fields}
        found = {field: positions[column] for field, column in wanted.items() if column in positions}
        absent = tuple(field for field in fields if field not in found)
        return Columns(len(header), image, found, absent)


def count_rows(table: Path | str) -> int:
    """Return about how many rows a table has (its lines but the first), for a progress bar; 0 where unreadable."""
    lines = 0
    last = b"\n"
    try:
        with open_regular(table) as stream:
            while chunk := stream.read(1 << 20):
                lines += chunk.count(b"\n") or chunk.count(b"\r")
                last = chunk[-1:]
    except (OSError, ValueError):
        return 0  # whoever reads it says why
    return max(0, lines - 1 + (last not in b"\r\n"))


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)  # noqa: PTH113
    except (OSError, ValueError):  # a name too long, or with a NUL in it: no such file
        return False


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)  # noqa: PTH110
    except (OSError, ValueError):
        return False
