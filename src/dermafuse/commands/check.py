"""``dermafuse check DATA``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dermafuse.commands import show
from dermafuse.commands.parsing import add_data


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "check",
        parents=[common],
        help="what is in a data set, what is wrong, what would leak",
        description="Open every image of a data set and say what is in it, what is wrong with it, and what would leak "
        "from training into validation. Nothing is changed.",
        examples=(
            ("dermafuse check HAM10000", "a folder with images and their table"),
            ("dermafuse check clinic/dermafuse.toml", "a table of your own, described in a file"),
            ("dermafuse check HAM10000 --split image", "what a split by image would leak"),
        ),
    )
    add_data(verb, needed=True, help="folder of a known layout, or a .toml of your own table")
    verb.add_argument("--split", choices=("lesion", "image"), help="judge this split, made as training would make it")
    verb.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    verb.add_argument(
        "--model",
        metavar="RUN",
        type=Path,
        help="a trained model: its embeddings help to find near-duplicates (slower)",
    )
    verb.add_argument(
        "--croissant", metavar="FOLDER", type=Path, help="also describe the data: croissant.json, records.csv"
    )
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Check a data set."""
    from dermafuse.api.data import check
    from dermafuse.checks.check import describe
    from dermafuse.progress import Terminal

    report = Terminal()
    found = check(arguments.data, split=arguments.split, seed=arguments.seed, model=arguments.model, progress=report)
    if arguments.croissant is not None:
        from dermafuse.data.readers.croissant import write_croissant

        report.say(
            f"Wrote {write_croissant(found.records, arguments.croissant)}; its paths are relative to the data folder."
        )
    if arguments.json:
        print(json.dumps(found.content, indent=2, allow_nan=False))
    else:
        show(*describe(found.content))
    return 0
