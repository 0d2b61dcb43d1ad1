"""The versions that decide the numbers of a run."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return ``python``, ``system`` and the version of each of ``packages`` that is installed."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
