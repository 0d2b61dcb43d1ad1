"""Long work in shards: small pieces that any process may compute, that come out the same whoever does, kept whole.

A shard is named by its content (what goes into it), so a piece is recognised wherever it was computed, and a changed
input can never meet an old answer. It is written whole or not at all, with an entry of a manifest beside it (hash,
rows, who computed it when), and is believed only where the hash agrees.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from dermafuse.errors import ConfigError, OutputError
from dermafuse.files import check_writable, read_regular, write_atomic, write_json

Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result", covariant=True)

#: Says of a folder of shards what they are shards of.
_ASKED: Final = "asked.json"
_CONTENT, _ENTRY = ".shard", ".json"


@dataclass(frozen=True)
class Part:
    """Part ``index`` (from 1) of ``of`` equal parts of a list of shards: every ``of``-th of them."""

    index: int
    of: int

    def has(self, number: int) -> bool:
        """Whether shard ``number`` (from 0) belongs to this part."""
        return number % self.of == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def parse_part(text: str) -> Part:
    """Return the part that ``I/N`` names.

    Raises:
        ConfigError: it names none.

    Example:
        >>> parse_part("2/8").has(9)
        True
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    part = Part(int(found[1]), int(found[2])) if found else None
    if part is None or not 1 <= part.index <= part.of:
        raise ConfigError(f"--shard takes I/N with I from 1 to N, such as 1/8 or 8/8, not '{text}'.")
    return part


def origin() -> dict[str, Any]:
    """Return who computes here, for a manifest: host, process, and the time in UTC."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "finished": now}


class Job(Protocol[Item, Result]):
    """Work on shards, as plain values that can be sent to another process or machine (picklable)."""

    def start(self, threads: int) -> Callable[[Item], Result]:
        """Load what the work needs (0 threads: all CPUs), and return the function that does a shard."""


#: Runs a job over (key, shard) pairs somewhere, and yields (key, result) in any order.
Runner: TypeAlias = Callable[[Any, Iterable[tuple[Any, Any]]], Iterator[tuple[Any, Any]]]


class ShardFolder:
    """Shards of one task in a folder that any number of processes and machines may write to at the same time.

    Args:
        folder: made where it is missing.
        asked: what the task is; JSON values.
        again: begin anew where the folder holds shards of another task.

    Attributes:
        damaged: names of shards that were there and are not what was written; they count as missing.

    Raises:
        OutputError: the folder cannot be written to, or holds shards of another task.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any], *, again: bool = False) -> None:
        self.folder = folder
        self.asked = dict(asked)
        self.damaged: set[str] = set()
        check_writable(folder)
        described = folder / _ASKED
        try:
            before = json.loads(read_regular(described)) if described.exists() else None
        except (OSError, ValueError):
            before = {}
        if before is not None and before != self.asked:
            changed = [key for key in self.asked if not isinstance(before, dict) or before.get(key) != self.asked[key]]
            if not again:
                raise OutputError(
                    f"{folder} was begun with another {(changed or ['version'])[0]}; repeat that command, or add "
                    "--overwrite to begin again."
                )
            for old in (*folder.glob(f"*{_ENTRY}"), *folder.glob(f"*{_CONTENT}")):
                old.unlink(missing_ok=True)
            before = None
        if before is None:
            write_json(described, self.asked)

    def publish(self, name: str, content: bytes, **facts: Any) -> None:
        """Write a shard whole, then its entry; the second of two who do that changes nothing.

        ``facts``: what it counts, and its `origin` where another process computed it.
        """
        write_atomic(self.folder / f"{name}{_CONTENT}", content)
        entry = {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_json(self.folder / f"{name}{_ENTRY}", {**entry, **origin(), **facts})

    def read(self, name: str) -> bytes | None:
        """Return the content of a shard; ``None`` where it is not there, or not what was written."""
        try:
            content = read_regular(self.folder / f"{name}{_CONTENT}")
            entry = self.entry(name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.damaged.add(name)
            return None
        if entry.get("sha256") != hashlib.sha256(content).hexdigest():
            self.damaged.add(name)
            return None
        return content

    def entry(self, name: str) -> dict[str, Any]:
        """Return the entry of a shard: ``name``, ``bytes``, ``sha256``, its counts, ``host``, ``pid``, ``finished``.

        Raises:
            OSError, ValueError: there is none, or it is damaged.
        """
        entry = json.loads(read_regular(self.folder / f"{name}{_ENTRY}"))
        if not isinstance(entry, dict):
            raise ValueError(name)
        return entry

    def close(self, manifest: Path, names: Iterable[str]) -> None:
        """Leave the entries of the shards that were joined in one file, and remove the folder."""
        write_json(manifest, {"asked": self.asked, "shards": [self.entry(name) for name in names]})
        shutil.rmtree(self.folder, ignore_errors=True)
