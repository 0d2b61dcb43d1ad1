"""The published tables that `dermafuse init` knows: ``formats.toml``, one entry each."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Format:
    """One entry of ``formats.toml``; what each field means is said there."""

    name: str
    header: tuple[str, ...]
    keys: Mapping[str, Any]
    other: tuple[str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    decide: tuple[str, ...] = ()

    def fits(self, header: Iterable[str]) -> bool:
        """Whether a table with these columns is of this format."""
        return {name.lower() for name in self.header} <= {name.lower() for name in header}

    def joins(self, header: Iterable[str]) -> bool:
        """Whether a table with these columns is the second table of this format."""
        return bool(self.other) and {name.lower() for name in self.other} <= {name.lower() for name in header}


@functools.cache
def known_formats() -> tuple[Format, ...]:
    """Return all known formats, those first that are told by the most columns."""
    entries = tomllib.loads(Path(__file__).with_name("formats.toml").read_text("utf-8"))["format"]
    made = [_format(entry) for entry in entries]
    return tuple(sorted(made, key=lambda entry: -len(entry.header)))


def _format(entry: Mapping[str, Any]) -> Format:
    return Format(
        name=entry["name"],
        header=tuple(entry["header"]),
        keys=entry["keys"],
        other=tuple(entry.get("other", ())),
        why=entry.get("why", {}),
        left_out=entry.get("left_out", {}),
        decide=tuple(entry.get("decide", ())),
    )
