"""What can be fetched and from where: ``addresses.toml``, checked when it is read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dermafuse.errors import ConfigError, nearest

ADDRESSES: Final = Path(__file__).with_name("addresses.toml")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a source; what each field means is said in ``addresses.toml``.

    Attributes:
        size: in bytes; 0 where it is not known yet.
        digest: ``"md5:..."`` or ``"sha256:..."`` in hexadecimal; empty where the source gives none.
    """

    name: str
    address: str = ""
    id: int = 0
    original: bool = False
    into: str = ""
    most: int = 0
    size: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Source:
    """One place that a data set can be had from."""

    name: str
    kind: str
    files: tuple[RemoteFile, ...]
    counts: Mapping[str, Any]
    listing: str = ""
    downloads: str = ""
    attribution: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """One data set."""

    name: str
    title: str
    licence: str
    licence_at: str
    cite: str
    sources: tuple[Source, ...]
    mind: str = ""
    next: str = "check"

    def source(self, name: str | None) -> Source:
        """Return the named source, the first where none is named.

        Raises:
            ConfigError: it cannot be had from there.
        """
        for source in self.sources:
            if name in (None, source.name):
                return source
        known = ", ".join(source.name for source in self.sources)
        raise ConfigError(f"{self.name} cannot be had from '{name}'; take --source {known}.")


def read_catalogue(path: Path = ADDRESSES) -> dict[str, DataSet]:
    """Return the data sets of a file of addresses by name."""
    entries = tomllib.loads(path.read_text("utf-8"))["data"]
    return {name: _data_set(name, dict(entry)) for name, entry in entries.items()}


def find(name: str) -> DataSet:
    """Return a data set by name.

    Raises:
        ConfigError: there is none of that name.
    """
    known = read_catalogue()
    if name not in known:
        hint = nearest(name, known) or f" There are {', '.join(known)}."
        raise ConfigError(f"unknown data set '{name}'.{hint}")
    return known[name]


def _data_set(name: str, entry: dict[str, Any]) -> DataSet:
    sources = tuple(
        Source(**{**source, "files": tuple(RemoteFile(**file) for file in source["files"])})
        for source in entry.pop("source")
    )
    return DataSet(name=name, sources=sources, **entry)
