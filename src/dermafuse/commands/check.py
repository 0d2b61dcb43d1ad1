"""``dermafuse check DATA``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dermafuse.commands import show


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser("check", parents=[common], help="what is in a data set, what is wrong, what would leak")
    verb.add_argument("data", metavar="DATA", type=Path, help="folder of a known layout, or a .toml of your own table")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Check a data set."""
    from dermafuse.data.check import check_dataset, describe
    from dermafuse.progress import Terminal

    found = check_dataset(arguments.data, Terminal())
    if arguments.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        show(*describe(found))
    return 0
