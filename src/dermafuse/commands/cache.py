"""``dermafuse cache``."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "cache",
        parents=[common],
        help="list, size and prune the stored activations",
        description="List what training keeps of the frozen part of its networks so that it need not be computed "
        "again, or delete it. It lies in the folder that DERMAFUSE_CACHE names, else in the user's cache folder.",
        examples=(
            ("dermafuse cache", "what is stored, how large it is, when it was last used"),
            ("dermafuse cache --prune --older-than 30", "delete what was not used for 30 days"),
        ),
    )
    verb.add_argument("--prune", action="store_true", help="delete stores")
    verb.add_argument("--older-than", metavar="DAYS", type=float, default=0.0, help="only those unused for DAYS")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """List or prune the stores."""
    from dermafuse.training.features.store_listing import describe_stores, list_stores, prune_stores

    found = prune_stores(older_than_days=arguments.older_than) if arguments.prune else list_stores()
    if arguments.json:
        print(json.dumps([{**entry, "folder": str(entry["folder"])} for entry in found], indent=2))
    else:
        print(describe_stores(found, deleted=arguments.prune))
        kept = [entry for entry in list_stores() if entry["in_use"]] if arguments.prune else []
        if kept:
            print(f"kept: {len(kept)} that a process is using now")
    return 0
