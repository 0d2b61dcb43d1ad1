"""What the activation stores of the cache hold, and how they are thrown away."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dermafuse.printable import plain
from dermafuse.temporaries import remove, sweep, temporary_name
from dermafuse.training.features.segments import ROW_ID
from dermafuse.training.features.store import STORE_FORMAT, stores_folder
from dermafuse.training.features.store_lock import exclusive

#: Bytes of a row's entry in the index of a store of format 1, which had no checksums.
OLD_ROW_BYTES: Final = 25


def list_stores(root: Path | None = None) -> list[Mapping[str, Any]]:
    """Describe every store; most recently used first.

    Returns:
        ``folder``, ``key`` (``None`` where ``key.json`` is damaged), ``rows``, ``bytes``, ``idle_seconds`` since the
        last use, ``in_use`` by a process.
    """
    folder = root or stores_folder()
    found = []
    for described in folder.glob("*/key.json") if folder.is_dir() else []:
        store = described.parent
        with contextlib.suppress(FileNotFoundError):  # pruned by another process meanwhile
            key = _read_key(described)
            entry = OLD_ROW_BYTES if key is not None and key.get("format") == 1 else ROW_ID.itemsize
            with exclusive(store) as free:
                found.append(
                    {
                        "folder": store,
                        "key": key,
                        "rows": sum(index.stat().st_size // entry for index in store.glob("*.index")),
                        "bytes": sum(file.stat().st_size for file in store.iterdir()),
                        "idle_seconds": max(0.0, time.time() - store.stat().st_mtime),
                        "in_use": not free,
                    }
                )
    return sorted(found, key=lambda entry: entry["idle_seconds"])


def prune_stores(*, older_than_days: float = 0.0, root: Path | None = None) -> list[Mapping[str, Any]]:
    """Delete the stores unused for ``older_than_days`` and by no process now; return what was deleted.

    The folder is renamed first, so a reader never meets a store that is half gone.
    """
    sweep(root or stores_folder())
    deleted = []
    for entry in list_stores(root):
        if entry["idle_seconds"] < older_than_days * 86_400:
            continue
        with exclusive(entry["folder"]) as free:
            if free:
                doomed = temporary_name(entry["folder"])  # swept by the next one where we are killed here
                entry["folder"].rename(doomed)
                remove(doomed)
                deleted.append(entry)
    return deleted


def _read_key(described: Path) -> dict[str, Any] | None:
    try:
        key = json.loads(described.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return None
    return key if isinstance(key, dict) else None


def describe_stores(found: Sequence[Mapping[str, Any]], *, deleted: bool) -> str:
    """Return one line a store and a total, for the terminal."""
    lines = [
        f"{entry['bytes'] / 1e6:10,.1f} MB {entry['rows']:10,} rows  "
        f"{'in use, ' if entry['in_use'] else ''}unused for {entry['idle_seconds'] / 86_400:.1f} days  "
        f"{_name(entry)}"
        for entry in found
    ]
    total = sum(entry["bytes"] for entry in found) / 1e6
    lines.append(f"{'deleted' if deleted else stores_folder()}: {len(found)} stores, {total:,.1f} MB")
    return "\n".join(lines)


def _name(entry: Mapping[str, Any]) -> str:
    key = entry["key"]
    if key is None:
        return plain(f"{entry['folder'].name} (its key.json is damaged)")
    words = [key.get(name, "?") for name in ("backbone", "cut", "image_size", "precision", "weights")]
    words[2] = f"{words[2]} px"
    outdated = "" if key.get("format") == STORE_FORMAT else "  (of another version: never read)"
    return plain(" ".join(map(str, words))) + outdated
