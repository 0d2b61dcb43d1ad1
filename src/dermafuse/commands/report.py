"""``dermafuse report RUN``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dermafuse.commands.parsing import add_data
from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "report",
        parents=[common],
        help="one self-contained page from a run or an evaluation",
        description="Write report.html and figures/ (SVG, PNG, CSV) into a RUN folder, or one that evaluate made. "
        f"{DISCLAIMER}",
        examples=(
            ("dermafuse report RUN", "make the page again, such as after an update of dermafuse"),
            ("dermafuse report RUN --data /new/place/HAM10000", "where the images have moved"),
        ),
    )
    verb.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run or evaluation")
    add_data(verb, help="where the images are now (default: as in the run)")
    verb.add_argument("--masks", metavar="DIR", type=Path, help="lesion masks *_segmentation.png, to judge heatmaps")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the page."""
    from dermafuse.progress import Terminal
    from dermafuse.report.page import make_report

    page = make_report(arguments.run, data=arguments.data, masks=arguments.masks, report=Terminal())
    print(f"The report is in {page}. {DISCLAIMER}")
    return 0
