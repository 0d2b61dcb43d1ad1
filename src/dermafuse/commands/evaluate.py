"""``dermafuse evaluate RUN --data DATA --out DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermafuse.commands import show
from dermafuse.commands.parsing import add_data, add_output
from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "evaluate",
        parents=[common],
        help="judge a model on any labelled data set",
        description="Predict every image of a labelled data set in a known layout (metadata may be absent) and judge "
        f"the predictions; leaves metrics.json, predictions.csv and report.html in DIR. {DISCLAIMER}",
        examples=(
            ("dermafuse evaluate RUN --data ISIC2018 --out RUN-on-ISIC2018", "judge a run of yours on another set"),
            (
                "dermafuse evaluate BUNDLE --data clinic/dermafuse.toml --out clinic-result",
                "judge a bundle on a table of your own",
            ),
        ),
    )
    verb.add_argument("run", metavar="RUN", type=Path, help="a RUN or bundle folder")
    add_data(verb, needed=True, help="folder of a known layout, or a .toml")
    add_output(verb, "--out", metavar="DIR", required=True, help="the folder to make")
    verb.add_argument("--overwrite", action="store_true", help="replace DIR")
    verb.add_argument("--max-bad", metavar="SHARE", type=float, default=0.01, help="unusable rows allowed (0.01)")
    verb.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto", help="arithmetic (default auto)")
    verb.add_argument("--views", type=int, choices=(1, 8), default=1, help="8: average over flips and quarter turns")
    verb.add_argument(
        "--robustness",
        action="store_true",
        help="predict every image again as other cameras, light and sizes would have it (14 times the work)",
    )
    verb.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap intervals")
    verb.add_argument("--json", action="store_true", help="print the metrics as JSON instead of tables")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge one model."""
    from dermafuse.api.run import evaluate

    done = evaluate(
        arguments.run,
        arguments.data,
        out=arguments.out,
        max_bad=arguments.max_bad,
        overwrite=arguments.overwrite,
        precision=arguments.precision,
        views=arguments.views,
        robustness=arguments.robustness,
        seed=arguments.seed,
    )
    if arguments.json:
        print(json.dumps(done.metrics, indent=2, allow_nan=False))
    else:
        show_evaluation(done.metrics, arguments.out)
    return 0


def show_evaluation(metrics: Mapping[str, Any], out: Path) -> None:
    """Print the closing tables of an evaluation."""
    from dermafuse.report.summary import changes, summary
    from dermafuse.runs import PAGE
    from dermafuse.runtime.released import which_model

    test, unseen = metrics["test"], metrics.get("test_unseen")
    if unseen is not None:
        show(*summary(unseen, f"{out}: the {unseen['n']:,} images that are unseen"))
    rest = "" if unseen is None else ", met ones included"
    show(*summary(test, f"{out}: test, {'all ' if rest else ''}{test['n']:,} images{rest}"))
    if "robustness" in test:
        show(changes(test["robustness"]))
    for text in metrics["announcements"]:
        print(text)
    if not metrics["overlap"]["known"]:
        print(f"OVERLAP UNKNOWN: {metrics['overlap']['basis']} Some of these images may have been learned from.")
    print(which_model(metrics["model"]))
    print(f"The report is in {out / PAGE}. {DISCLAIMER}")
