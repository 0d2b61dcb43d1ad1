"""``dermafuse demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dermafuse.commands.parsing import add_output
from dermafuse.commands.train import show_run
from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "demo",
        parents=[common],
        help="all of it, on a small generated data set, in a minute",
        description="Draw a small data set, train on it, judge the model and write the report; then explain one of the "
        f"drawn lesions with the released model. Needs the training packages. {DISCLAIMER}",
        examples=(("dermafuse demo --out demo-run", "then open demo-run/report.html"),),
    )
    add_output(verb, "--out", metavar="RUN", default=Path("demo-run"), help="default: demo-run")
    verb.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of the drawn data and of the training (default 0)"
    )
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate, train, evaluate, show."""
    from dermafuse.progress import Terminal
    from dermafuse.training.demo import EXPLAINED, run_demo

    metrics = run_demo(arguments.out, seed=arguments.seed, report=Terminal())
    show_run(metrics, arguments.out)
    print(f"The run is in {arguments.out}, the drawn images in {arguments.out}-data.")
    if (arguments.out / EXPLAINED).exists():
        print(f"What the released model makes of one of these drawn lesions: {arguments.out / EXPLAINED}")
    return 0
