"""What the activation stores of the cache hold, and how they are thrown away."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dermafuse.training.activations import ROW_ID, stores_folder


def list_stores(root: Path | None = None) -> list[Mapping[str, Any]]:
    """Describe every store: folder, key, rows, bytes, seconds since last use; most recently used first."""
    folder = root or stores_folder()
    found = []
    for described in folder.glob("*/key.json") if folder.is_dir() else []:
        store = described.parent
        rows = sum(index.stat().st_size // ROW_ID.itemsize for index in store.glob("*.index"))
        size = sum(file.stat().st_size for file in store.iterdir())
        found.append(
            {
                "folder": store,
                "key": json.loads(described.read_text()),
                "rows": rows,
                "bytes": size,
                "idle_seconds": max(0.0, time.time() - store.stat().st_mtime),
            }
        )
    return sorted(found, key=lambda entry: entry["idle_seconds"])


def prune_stores(*, older_than_days: float = 0.0, root: Path | None = None) -> list[Mapping[str, Any]]:
    """Delete the stores unused for ``older_than_days``; return what was deleted.

    The folder is renamed first, so a reader never meets a store that is half gone.
    """
    deleted = []
    for entry in list_stores(root):
        if entry["idle_seconds"] >= older_than_days * 86_400:
            doomed = entry["folder"].with_name(f".deleted-{uuid.uuid4().hex[:8]}")
            entry["folder"].rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            deleted.append(entry)
    return deleted


def describe_stores(found: Sequence[Mapping[str, Any]], *, deleted: bool) -> str:
    """Return one line a store and a total, for the terminal."""
    lines = [
        f"{entry['bytes'] / 1e6:10,.1f} MB {entry['rows']:10,} rows  "
        f"unused for {entry['idle_seconds'] / 86_400:.1f} days  "
        f"{entry['key']['backbone']} {entry['key']['cut']} {entry['key']['image_size']} px "
        f"{entry['key']['precision']} {entry['key']['weights']}"
        for entry in found
    ]
    total = sum(entry["bytes"] for entry in found) / 1e6
    lines.append(f"{'deleted' if deleted else stores_folder()}: {len(found)} stores, {total:,.1f} MB")
    return "\n".join(lines)
