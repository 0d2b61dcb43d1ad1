"""What lies in a data folder: images by name and tables, from one walk through the directories."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dermafuse.errors import DataError
from dermafuse.files import existing_folder

IMAGE_SUFFIXES: Final[frozenset[str]] = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"},
)
TABLE_SUFFIXES: Final[frozenset[str]] = frozenset({".csv", ".tab", ".tsv"})
#: Tables that have to be saved as CSV first.
_OTHER_SUFFIXES: Final[frozenset[str]] = frozenset({".xlsx", ".xls", ".xlsm", ".ods", ".parquet", ".sav", ".rds"})

#: Tables that are published without a suffix (Harvard Dataverse).
_BARE_TABLES: Final[frozenset[str]] = frozenset({"ham10000_metadata"})

#: Two files of one name count as copies where size and this many last bytes agree; comparing whole files
#: would read a Kaggle download (which holds every image twice) in full.
_TAIL_BYTES: Final = 16_384


@dataclass(frozen=True)
class Scan:
    """The files of a walk.

    Attributes:
        images: image id (file name without suffix) -> absolute path.
        clashes: image id -> the files of that name that are different pictures, the first one first.
        copies: how many files repeat an image that was found before.
        tables: CSV and tab-separated files, those nearest to the top first, then by name.
        folders: every folder walked through.
        tops: the folders that were named.
        others: workbooks and the like, which are no tables yet.
    """

    images: dict[str, Path] = field(default_factory=dict)
    clashes: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    copies: int = 0
    tables: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    tops: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()


def scan(folders: Sequence[Path], *, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> Scan:
    """Walk ``folders`` once, in order of name, and return what they hold.

    Left out: hidden files and folders, ``__MACOSX``, lesion masks (``*segmentation*`` folders,
    ``*_segmentation`` and ``*_superpixels`` files). Links are followed; no folder is entered twice.

    Raises:
        DataError: a folder does not exist or cannot be read.
    """
    images: dict[str, Path] = {}
    clashes: dict[str, tuple[Path, ...]] = {}
    tables: list[tuple[int, str, Path]] = []
    others: list[Path] = []
    tops = [existing_folder(Path(folder).absolute(), "image folder") for folder in folders]
    walked: list[Path] = []
    seen: set[str] = set()
    copies = 0
    for top in tops:
        for depth, path in _walk(top, seen, walked):
            stem, suffix = os.path.splitext(path.name)  # noqa: PTH122  (half the time of a 10,000-image walk)
            if suffix.lower() in suffixes:
                if _is_mask(stem):
                    continue
                first = images.setdefault(stem, path)
                if first is not path:
                    same_name = clashes.get(stem, (first,))
                    if any(is_copy(other, path) for other in same_name):
                        copies += 1
                    else:
                        clashes[stem] = (*same_name, path)
            elif suffix.lower() in TABLE_SUFFIXES or path.name.lower() in _BARE_TABLES:
                tables.append((depth, path.name.lower(), path))
            elif suffix.lower() in _OTHER_SUFFIXES:
                others.append(path)
    return Scan(
        images, clashes, copies, tuple(path for *_, path in sorted(tables)), tuple(walked), tuple(tops), tuple(others)
    )


def image_files(folder: Path, *, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return every image file below a folder, folder by folder, in order of name; left out is what `scan` leaves out.

    Raises:
        DataError: a folder does not exist or cannot be read.
    """
    top = existing_folder(Path(folder).absolute(), "image folder")
    return [path for _, path in _walk(top, set(), []) if path.suffix.lower() in suffixes and not _is_mask(path.stem)]


def scan_images(folders: Sequence[Path]) -> dict[str, Path]:
    """Return image id (file name without suffix) -> absolute path, for all images below ``folders``.

    Recursive; suffixes in `IMAGE_SUFFIXES`, upper or lower case. Of identical copies the first counts.

    Raises:
        DataError: a folder cannot be read, or two different images have the same name.
    """
    found = scan(folders)
    if found.clashes:
        first, second, *_ = next(iter(found.clashes.values()))
        raise DataError(
            f"{len(found.clashes):,} image name(s) stand for two different files ({first} and {second}); "
            "keep one of each."
        )
    return found.images


def _walk(top: Path, seen: set[str], walked: list[Path]) -> Iterator[tuple[int, Path]]:
    """Yield (depth below ``top``, path) of every visible file, folder by folder, in order of name."""
    pending = [(0, top)]
    while pending:
        depth, folder = pending.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        walked.append(folder)
        below, files = [], []
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            for entry in listed:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                kind = _kind(entry)
                if kind == "file":
                    files.append((depth, folder / entry.name))
                elif kind == "folder" and "segmentation" not in entry.name.lower():
                    below.append((depth + 1, folder / entry.name))
        except OSError as error:
            raise DataError(f"Cannot read the folder {folder}: {error.strerror}; check its rights.") from error
        yield from files
        pending.extend(reversed(below))


def _is_mask(stem: str) -> bool:
    return stem.lower().endswith(("_segmentation", "_superpixels"))


def _kind(entry: os.DirEntry[str]) -> str:
    """Return ``"file"``, ``"folder"`` or ``""``: a link that leads nowhere is as good as no file."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:
        return ""


def is_copy(first: Path, second: Path) -> bool:
    """Whether two files of one name hold the same picture (same suffix, same size, same last bytes)."""
    if first.suffix.lower() != second.suffix.lower():
        return False
    try:
        size = first.stat().st_size
        if size != second.stat().st_size:
            return False
        tails = []
        for path in (first, second):
            with path.open("rb") as stream:
                stream.seek(max(0, size - _TAIL_BYTES))
                tails.append(stream.read())
    except OSError as error:
        raise DataError(f"Cannot read {error.filename}: {error.strerror}; check its rights.") from error
    return tails[0] == tails[1]
