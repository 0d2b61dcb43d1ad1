"""The errors a user can meet: every message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DermafuseError(Exception):
    """Base of all errors that a user can mend; the CLI prints it on one line and exits 2."""


class DataError(DermafuseError):
    """The data set (folder, table, column, value) is not usable as it is."""


class ImageError(DataError):
    """One image file cannot be used: not an allowed format, truncated, too large, empty."""


class ConfigError(DermafuseError):
    """A setting is unknown or its value is not usable."""


class WeightsError(DermafuseError):
    """Pretrained weights are missing or are not the published ones."""


class OutputError(DermafuseError):
    """The place to write to is not usable: exists already, read-only, or the disk is full."""


class NetworkError(DermafuseError):
    """Something could not be fetched: no connection, a server that refuses, or bytes that are not the published."""


class BundleError(DermafuseError):
    """A model bundle is incomplete, altered, newer than this version, or not a bundle."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` (with a leading space) for the closest known name, else ``""``.

    Case does not matter. Of names that are as close, the one with the same letters in another order (``lable``:
    ``label``, not ``table``), then the one that begins alike, is meant.
    """
    names = {other.lower(): other for other in reversed(list(known))}
    word = name.lower()

    def distance(other: str) -> tuple[int, bool, bool]:
        return _edits(word, other), sorted(word) != sorted(other), word[:1] != other[:1]

    close = difflib.get_close_matches(word, names, n=5, cutoff=0.6)
    close = close or [other for other in names if len(word) > 3 and word in other]
    return f" Did you mean '{names[min(close, key=distance)]}'?" if close else ""


def _edits(one: str, other: str) -> int:
    """Return how many letters to insert, remove, replace or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]


def examples(items: Iterable[object], total: int | None = None, limit: int = 3) -> str:
    """Return the first few items as text, with how many more there are: ``"a, b, c and 7 more"``."""
    listed = list(items)
    count = len(listed) if total is None else total
    shown = ", ".join(str(item) for item in listed[:limit])
    more = count - min(limit, len(listed))
    return f"{shown} and {more:,} more" if more > 0 else shown
