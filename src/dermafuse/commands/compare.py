"""``dermafuse compare A B``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermafuse.commands import show
from dermafuse.commands.parsing import add_output
from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "compare",
        parents=[common],
        help="paired differences of two or more runs, with intervals and tests",
        description="Compare runs that were judged on the same images with the first of them: bootstrap over lesions "
        "of every metric, McNemar's and DeLong's tests, Holm's correction, and the images that changed sides. "
        f"{DISCLAIMER}",
        examples=(
            ("dermafuse compare runs/standard runs/strong", "what the second does better or worse, as tables"),
            ("dermafuse compare runs/standard runs/strong --out comparison", "and as a page"),
        ),
    )
    verb.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="RUN folders, folders of folds, evaluations, or predictions.csv files; the first is the base",
    )
    add_output(verb, "--out", metavar="DIR", help="the folder to make: comparison.html, compare.json, changed-N.csv")
    verb.add_argument("--data", metavar="DATA", type=Path, help="where the images are (default: as in the first run)")
    verb.add_argument("--overwrite", action="store_true", help="replace DIR")
    verb.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap (default 0)")
    verb.add_argument("--json", action="store_true", help="print every difference as JSON instead of tables")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare."""
    from dermafuse.api.compare import compare
    from dermafuse.files import check_output_folder

    if arguments.out is not None:
        check_output_folder(arguments.out, overwrite=arguments.overwrite)
    found = compare(*arguments.runs, seed=arguments.seed)
    page = None
    if arguments.out is not None:
        page = found.write(arguments.out, data=arguments.data, overwrite=arguments.overwrite)
    if arguments.json:
        print(json.dumps(found.content, indent=2, allow_nan=False))
        return 0
    show(*tables(found.content))
    if page is not None:
        print(f"The page is in {page}.")
    print(DISCLAIMER)
    return 0


def tables(found: Mapping[str, Any]) -> list[Any]:
    """Return rich tables: the headline metrics and the tests of each compared model."""
    from rich.table import Table

    from dermafuse.report.comparison import METRIC_HEADS, TEST_HEADS, metric_rows, test_rows

    made = []
    for entry in found["compared"]:
        title = f"{entry['name']} minus {found['base']}: {found['images']:,} images, {found['lesions']:,} lesions"
        rows = metric_rows(found, entry, "compare")
        changed = entry["changed"]
        tests = Table(
            *TEST_HEADS,
            caption=f"{changed['gained']:,} images are now right, {changed['lost']:,} no longer, {changed['other']:,} "
            "were and are wrong in another way.",
            caption_justify="left",
        )
        for row in test_rows(entry):
            tests.add_row(*row)
        metrics = Table(*METRIC_HEADS, title=title, title_justify="left")
        for row in rows:
            metrics.add_row(*row)
        made += [metrics, tests]
    return made
