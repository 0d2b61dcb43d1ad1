"""What lies beside fetched data: the licence, where each file came from, who made each image; and the counts."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dermafuse.errors import DataError
from dermafuse.files import existing_folder, write_atomic
from dermafuse.network.catalogue import DataSet, RemoteFile, Source

_IMAGES: Final = frozenset({".jpg", ".jpeg", ".png"})


def count(data_set: DataSet, source: Source, folder: Path) -> dict[str, int]:
    """Return the counts of what is in ``folder``: ``images``, ``rows``, ``lesions`` as far as they are known.

    Raises:
        DataError: they are not those of the data set, or a part of it is missing.
    """
    known = source.counts
    folders = [existing_folder(folder / file.into) for file in source.files if file.into]
    counts = {"images": sum(path.suffix.lower() in _IMAGES for place in folders for path in place.rglob("*"))}
    if "table" in known:
        rows = _rows(folder / known["table"])
        counts["rows"] = len(rows)
        if "lesion" in known:
            counts["lesions"] = len({_cell(row, known["lesion"], folder / known["table"]) for row in rows})
    wrong = [f"{found:,} {name} instead of {known[name]:,}" for name, found in counts.items() if found != known[name]]
    if wrong:
        raise DataError(
            f"{folder} holds {' and '.join(wrong)}: this is not {data_set.name} as it is published; move it away and "
            "fetch it again, or take another --source."
        )
    return counts


def write_papers(data_set: DataSet, source: Source, files: list[RemoteFile], folder: Path) -> list[str]:
    """Write ``LICENCE-NAME.txt`` and, where the source names the maker of each image, ``ATTRIBUTION-NAME.txt``.

    Returns:
        What could not be written, in words.
    """
    lines = [
        data_set.title,
        f"Licence: {data_set.licence} ({data_set.licence_at}); accepted when it was fetched.",
        f"Cite: {data_set.cite}",
        *([f"Mind: {data_set.mind}"] if data_set.mind else []),
        f"Fetched from {source.name} {source.listing}".rstrip() + f", {datetime.now(UTC):%Y-%m-%d}:",
        *(_line(file) for file in files),
    ]
    write_atomic(folder / f"LICENCE-{data_set.name}.txt", "\n".join(lines) + "\n")
    if not source.attribution:
        return []
    keys = source.attribution
    rows = _rows(folder / keys["table"])
    columns = [keys[key] for key in ("image", "by", "licence")]
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        return [f"{keys['table']} has no column {', '.join(missing)}: who made each image is not written down."]
    named = ["\t".join(_cell(row, name, folder / keys["table"]) for name in columns) for row in rows]
    write_atomic(folder / f"ATTRIBUTION-{data_set.name}.txt", "\n".join(["image\tby\tlicence", *named]) + "\n")
    return []


def _line(file: RemoteFile) -> str:
    size = f", {file.size:,} bytes" if file.size else ""
    known = file.digest or "no checksum from the source"
    return f"  {file.name}{size}, {known} {file.address}".rstrip()


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        stream.seek(0)
        return list(csv.DictReader(stream, delimiter="\t" if "\t" in first else ","))


def _cell(row: dict[str, str], column: str, table: Path) -> str:
    value = row.get(column)
    if value is None:
        raise DataError(f"{table} has no column {column}: it is not the table that is published; fetch it again.")
    return " ".join(value.split())
