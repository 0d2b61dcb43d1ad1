"""A dermafuse.toml to be written: its keys, what is said beside them, and what a person has to decide.

The published tables whose keys are known stand in ``formats.toml``, one entry each.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dermafuse.data.readers.description import TableDescription


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


@dataclass
class Proposal:
    """What `dermafuse init` found.

    Attributes:
        what: what the data are taken for.
        keys: of the TOML file.
        why: key -> what is said beside it.
        left_out: column -> why it is no feature.
        decide: sentences: what a person has to know or decide.
        columns: all columns of the table, so that those that nothing uses are named.
    """

    what: str
    keys: dict[str, Any]
    why: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    decide: list[str] = field(default_factory=list)
    columns: tuple[str, ...] = ()

    def description(self) -> TableDescription:
        """Return the keys as they will be read (without those that this version does not know)."""
        known = TableDescription.model_fields
        return TableDescription.model_validate({key: value for key, value in self.keys.items() if key in known})

    def to_toml(self) -> str:
        """Return the text of the file: keys with remarks, then columns left out, then tables."""
        known = TableDescription.model_fields
        lines = [
            f"# Written by `dermafuse init`, which took the data for {self.what}.",
            "# Look it over; docs/reference/tables.md says what each key means. Next: dermafuse check",
            *(f"# Mind: {_one_line(text)}" for text in self.decide),
            "",
        ]
        tables: list[str] = []
        for key in [*known, *(key for key in self.keys if key not in known)]:
            value = self.keys.get(key)
            value = value[0] if key == "label" and isinstance(value, list) and len(value) == 1 else value
            if value in (None, [], {}, ()) or (key == "images" and value == "."):
                continue
            off = "" if key in known else "# "
            remark = f"  # {self.why[key]}" if key in self.why else ""
            if isinstance(value, Mapping) and key not in ("numeric", "categorical"):
                tables += ["", *_table(key, value, remark, off)]
            else:
                lines.append(f"{off}{key} = {_inline(value)}{remark}")
        return "\n".join([*lines, *self._unused(), *tables]) + "\n"

    def _unused(self) -> list[str]:
        lines = [f"#   {_one_line(name)}: {why}" for name, why in self.left_out.items()]
        told = {word.lower() for value in self.keys.values() for word in _words(value)}
        rest = [name for name in self.columns if name and name.lower() not in told and name not in self.left_out]
        lines += [f"#   not used: {', '.join(map(_one_line, rest))}"] if rest else []
        return ["", "# Columns that are no feature:", *lines] if lines else []


def _table(key: str, value: Mapping[str, Any], remark: str, off: str) -> list[str]:
    if all(isinstance(inner, Mapping) for inner in value.values()) and key == "values":
        return [line for name, inner in value.items() for line in _table(f"values.{_key(name)}", inner, remark, off)]
    return [f"{off}[{key}]{remark}", *(f"{off}{_key(name)} = {_inline(inner)}" for name, inner in value.items())]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        if all(name == column for name, column in value.items()):
            return _inline(list(value))
        return "{ " + ", ".join(f"{_key(name)} = {_inline(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _inline(name)


def _words(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [word for inner in value.values() for word in _words(inner)]
    return [word for inner in value for word in _words(inner)] if isinstance(value, list) else [str(value)]


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
