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


class BundleError(DermafuseError):
    """A model bundle is incomplete, altered, newer than this version, or not a bundle."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` (with a leading space) for the closest known name, else ``""``."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def examples(items: Iterable[object], total: int | None = None, limit: int = 3) -> str:
    """Return the first few items as text, with how many more there are: ``"a, b, c and 7 more"``."""
    listed = list(items)
    count = len(listed) if total is None else total
    shown = ", ".join(str(item) for item in listed[:limit])
    more = count - min(limit, len(listed))
    return f"{shown} and {more:,} more" if more > 0 else shown
