"""A CSV of images, row by row, in bounded memory: every row comes out, with its query or with what is wrong."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dermafuse.data.scan import IMAGE_SUFFIXES, Scan, refuse_clashes, scan
from dermafuse.errors import DataError, examples, nearest
from dermafuse.printable import plain

#: Columns looked for where the image column is not named, in this order.
IMAGE_COLUMNS: Final = ("image", "image_id", "isic_id", "img_id", "path", "image_path", "filename", "file")

#: A table that gets this long without a line break is not a table.
_MAX_HEADER: Final = 1_000_000
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".JPG", ".tif", ".tiff", ".bmp", ".webp")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        number: counted from 1, without the header.
        name: what the row calls its image.
        path: where that image is; ``None`` where the row cannot be used.
        metadata: field -> text of the cell.
        error: why the row cannot be used, or ``None``.
    """

    number: int
    name: str
    path: Path | None
    metadata: Mapping[str, str]
    error: str | None = None


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that are read: the image's, and those of the metadata fields that are there."""

    width: int
    image: int
    fields: Mapping[str, int]
    absent: tuple[str, ...]


class TableReader:
    """Reads a comma-, semicolon- or tab-separated table in UTF-8.

    Args:
        table: the file.
        fields: metadata fields of the model; read from the columns of the same name (upper or lower case)
            where ``columns`` does not say otherwise.
        image_column: that names the image; ``None``: the first of `IMAGE_COLUMNS` that is there.
        columns: metadata field -> column.
        image_root: folder that relative image names start from; ``None``: the table's own.
        extension: suffix of images named without one; ``None``: every known suffix is tried.

    Raises:
        DataError: the table or a named column does not exist, or the first line names no columns.
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
        self._root = (image_root or table.parent).absolute()
        self._suffixes = _SUFFIXES if extension is None else ("." + extension.lstrip("."),)
        self._index: Scan | None = None
        if image_root is not None and not image_root.is_dir():
            raise DataError(f"The image folder {image_root} does not exist; check the path.")
        header, self._delimiter = self._read_header()
        self.columns = self._find_columns(header, fields, image_column, columns or {})

    def __iter__(self) -> Iterator[Row]:
        """Yield every row but blank ones. Rows that cannot be used say why."""
        # Bytes that are not UTF-8 come through as lone surrogates and spoil their own row only.
        with self.table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            lines = csv.reader(stream, delimiter=self._delimiter)
            next(lines, None)
            number = 0
            while True:
                problem = None
                try:
                    cells = next(lines)
                except StopIteration:
                    return
                except csv.Error as error:
                    cells, problem = [], f"line {lines.line_num} is not readable CSV ({error})"
                if problem is None and not any(cell.strip() for cell in cells):
                    continue
                number += 1
                yield self._row(number, cells, problem)

    def _row(self, number: int, cells: list[str], problem: str | None) -> Row:
        name = cells[self.columns.image].strip() if len(cells) > self.columns.image else ""
        clean = plain(name.encode("utf-8", "replace").decode())  # lone surrogates cannot be written again
        if problem is None and len(cells) != self.columns.width:
            problem = f"the row has {len(cells)} cells where the header names {self.columns.width}"
        if problem is None and any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
            problem = "the row is not UTF-8 text"
        if problem is None and not name:
            problem = "the row names no image"
        if problem is not None:
            return Row(number, clean, None, {}, problem)
        metadata = {field: cells[position].strip() for field, position in self.columns.fields.items()}
        try:
            return Row(number, clean, self._find_image(name), metadata)
        except DataError as error:
            return Row(number, clean, None, metadata, str(error))

    def _find_image(self, name: str) -> Path:
        """Return the image's path; where nothing is found, the path at which it was expected.

        Raises:
            DataError: the name stands for two different files, or the folder cannot be searched.
        """
        path = self._root / name
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  (many times faster, a million times)
        if suffix in IMAGE_SUFFIXES or _is_file(path):
            return path
        for ending in self._suffixes:
            if _is_file(found := Path(f"{path}{ending}")):
                return found
        if os.sep in name or "/" in name:
            return path
        if self._index is None:  # an id without a path: look below the folder, once
            self._index = scan([self._root])
        if name in self._index.clashes:
            refuse_clashes({name: self._index.clashes[name]})
        return self._index.images.get(name, Path(f"{path}{self._suffixes[0]}"))

    def _read_header(self) -> tuple[list[str], str]:
        try:
            with self.table.open("rb") as stream:
                line = stream.readline(_MAX_HEADER).decode("utf-8-sig")
                tabs = self.table.suffix.lower() in {".tab", ".tsv"}
                delimiter = "\t" if tabs else max(",;\t", key=line.count)
                header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
        except OSError as error:
            raise DataError(f"Cannot read {self.table}: {error.strerror}; check the file and its rights.") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.table} is not a CSV in UTF-8 ({error}); mend its first line.") from error
        if not any(header):
            raise DataError(f"{self.table} is empty; it needs a line of column names and one row an image.")
        return header, delimiter

    def _find_columns(
        self, header: list[str], fields: Sequence[str], image_column: str | None, named: Mapping[str, str]
    ) -> Columns:
        positions = {name.lower(): index for index, name in reversed(list(enumerate(header)))}
        for field in named:
            if field not in fields:
                there = f"it uses {', '.join(fields)}" if fields else "it uses the image alone"
                raise DataError(f"This model has no metadata field '{field}' ({there}).{nearest(field, fields)}")
        for column in [*named.values(), *([image_column] if image_column else [])]:
            if column.lower() not in positions:
                raise DataError(
                    f"{self.table} has no column '{column}' (it has {examples(header, limit=12)}); "
                    f"name another.{nearest(column.lower(), positions)}"
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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL in it: no such file
        return False
