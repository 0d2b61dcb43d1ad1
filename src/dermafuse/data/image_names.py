"""The one finder of images: from what a table calls an image to its file, for training, evaluation and prediction.

A name may come with or without suffix, with another suffix, in other upper or lower case, with backslashes, and with
folders, of which the last ones count: ``D:\\Bilder\\x.JPG`` is ``images/x.jpg`` where no other name and no other file
can be meant. What could be two files is never guessed.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

from dermafuse.data.scan import IMAGE_SUFFIXES, Scan
from dermafuse.errors import DataError, examples

#: Suffixes that tables name while the pictures beside them were converted.
_CONVERTED: Final = frozenset({".heic", ".gif", ".jfif", ".jpe", ".jp2", ".dng", ".raw"})
#: Above so many files a nearest name would take too long to find.
_MAX_NEAREST: Final = 50_000
_SHORTENED: Final = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)


class ImageName(NamedTuple):
    """What a table calls an image, taken apart: folders (no drive, no dots), name without suffix, suffix or ``""``."""

    folders: tuple[str, ...]
    stem: str
    suffix: str


def take_apart(name: str) -> ImageName:
    """Take the name of an image apart; only the suffix of an image counts as one."""
    *folders, last = name.replace("\\", "/").split("/")
    stem, suffix = os.path.splitext(last)  # noqa: PTH122  (many times faster)
    if suffix.lower() not in IMAGE_SUFFIXES or not stem:
        stem, suffix = last, ""
    if stem in (".", ".."):
        stem = ""
    return ImageName(tuple(part for part in folders if part not in ("", ".", "..") and part[-1] != ":"), stem, suffix)


def image_ids(names: Sequence[str]) -> list[str]:
    """Return an id for every image name: without folders and suffix; with folders where names differ only in them."""
    if not any(mark in "\n".join(names) for mark in "./\\"):  # plain ids, as HAM10000 has them
        return list(names)
    parts = [take_apart(name) for name in names]
    tally = Counter(part.stem for part in parts)
    return [part.stem if tally[part.stem] == 1 else "/".join((*part.folders, part.stem)) for part in parts]


class ImageFinder:
    """Finds images among scanned files.

    Args:
        found: the files.
        names: gives all names of the table, once; asked for only where folders have to be passed over, which
            is safe only if no other name of the table ends alike.
    """

    def __init__(self, found: Scan, names: Callable[[], Iterable[str]]) -> None:
        self._found = found
        self._names = names
        self._how: Counter[str] = Counter()
        self._loose = 0
        self._example = ""

    def find(self, name: str) -> tuple[Path, ...]:
        """Return the file of an image name; ``()`` where there is none, several where it could be any of them."""
        path = self._found.images.get(name)
        if path is not None and name not in self._found.clashes:
            return (path,)
        wanted = take_apart(name)
        files = self._files.get(fold(wanted.stem), ())
        if not files:
            stem, suffix = os.path.splitext(wanted.stem)  # noqa: PTH122
            if suffix.lower() in _CONVERTED:
                wanted = ImageName(wanted.folders, stem, suffix)
                files = self._files.get(fold(stem), ())
        needed = self._needed(wanted) if wanted.folders and files else 0
        scores = {file: self._score(wanted, file) for file in files}
        scores = {file: score for file, score in scores.items() if score[0] >= needed}
        if not scores:
            return ()
        best = tuple(max(values) for values in zip(*scores.values(), strict=True))
        chosen = [file for file, score in scores.items() if score == best]
        if len(chosen) != 1:
            return tuple(scores)
        self._count(name, wanted, chosen[0])
        return (chosen[0],)

    def notes(self) -> list[str]:
        """Return one sentence on how names were found that are not those of their files; none where all are."""
        if not self._loose:
            return []
        ways = ", ".join(f"{count:,} {way}" for way, count in self._how.items())
        return [f"{self._loose:,} image name(s) are not quite those of their files: {ways} ({self._example})."]

    def nearest(self, name: str, files: Collection[str] | None = None) -> str:
        """Return a sentence, with a leading blank, on the nearest file name (without suffix); ``""``: none is near.

        Args:
            name: that was not found.
            files: names without suffix to look among; ``None``: all.
        """
        stem = take_apart(name).stem
        if _SHORTENED.fullmatch(stem):
            return f" '{stem}' looks like a number that Excel has shortened; format that column as text."
        known = {fold(file): file for file in (self._found.images if files is None else files)}
        if not known or len(known) > _MAX_NEAREST:
            return ""
        close = difflib.get_close_matches(fold(stem), known, n=1, cutoff=0.6)
        return f" The nearest file name to '{stem}' is '{self._found.images[known[close[0]]].name}'." if close else ""

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """Name of a file, folded -> the different files of it."""
        files: dict[str, list[Path]] = {}
        for stem, path in self._found.images.items():
            files.setdefault(fold(stem), []).extend(self._found.clashes.get(stem, (path,)))
        return files

    @cached_property
    def _namesakes(self) -> dict[str, set[tuple[str, ...]]]:
        """Name of a file, folded -> the folders (folded) with which the table names it, where they differ."""
        named: dict[str, set[tuple[str, ...]]] = {}
        for name in self._names():
            wanted = take_apart(name)
            if (key := fold(wanted.stem)) in self._files:
                named.setdefault(key, set()).add(tuple(map(fold, wanted.folders)))
        return {key: folders for key, folders in named.items() if len(folders) > 1}

    def _needed(self, wanted: ImageName) -> int:
        """Return how many of the last folders must agree, so that no other name of the table can be meant."""
        own = tuple(map(fold, wanted.folders))
        others = self._namesakes.get(fold(wanted.stem), set()) - {own}
        return 1 + max(_common_tail(own, other) for other in others) if others else 0

    def _score(self, wanted: ImageName, file: Path) -> tuple[int, bool, bool]:
        """Return how well a file of the right name fits: folders that agree, same suffix, same case."""
        stem, suffix = os.path.splitext(file.name)  # noqa: PTH122
        if wanted.folders:
            tail = _common_tail(tuple(map(fold, wanted.folders)), tuple(map(fold, file.parts[:-1])))
        else:
            tail = int(file.parent in self._found.tops)
        return tail, wanted.suffix.lower() == suffix.lower(), stem == wanted.stem

    def _count(self, name: str, wanted: ImageName, file: Path) -> None:
        stem, suffix = os.path.splitext(file.name)  # noqa: PTH122
        tail, same_suffix, _ = self._score(wanted, file)
        elsewhere = tail < len(wanted.folders) or name.startswith(("/", "\\", "../", "..\\")) or name[1:2] == ":"
        ways = []
        if wanted.folders and elsewhere:
            ways.append("found by their last parts")
        if wanted.suffix and not same_suffix:
            ways.append("with another suffix")
        if stem != wanted.stem or (wanted.suffix and same_suffix and suffix != wanted.suffix):
            ways.append("in other upper or lower case")
        if ways:
            self._loose += 1
            self._how.update(ways)
            self._example = self._example or f"'{name}' is {file}"


def refuse_rivals(rivals: Mapping[str, Sequence[Path]]) -> None:
    """Raise a ``DataError`` where there are image names that could be several files."""
    if rivals:
        pairs = [f"'{name}': {files[0]} and {files[1]}" for name, files in rivals.items()]
        raise DataError(
            f"{len(rivals):,} image name(s) stand for two different files ({examples(pairs, limit=1)}); "
            "keep one of each in that folder, or name each with its folder and suffix."
        )


def _common_tail(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def fold(text: str) -> str:
    """Return text as it compares: without regard to case, and to how accents are written (macOS takes them apart)."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()
