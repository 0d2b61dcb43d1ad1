"""``dermafuse train --data DATA --out RUN``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermafuse.commands import show
from dermafuse.commands.parsing import add_data, add_output
from dermafuse.commands.spreading import add_cluster_options, add_shard_option, cluster_of
from dermafuse.commands.train_settings import describe_recipes, describe_settings
from dermafuse.errors import ConfigError
from dermafuse.labels import DISCLAIMER
from dermafuse.models.specs import SPECS, describe_stages
from dermafuse.parallel import parse_part
from dermafuse.progress import Reporter
from dermafuse.training.recipes import DEFAULT_RECIPE, RECIPES


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "train",
        parents=[common],
        help="train and evaluate a model, leave a RUN folder",
        description="Train and evaluate a model; leaves config.toml, metrics.json, predictions.csv, history.csv and "
        f"the model in RUN. {DISCLAIMER}",
        closing=lambda: "\n".join([describe_recipes(), describe_settings()]),
        examples=(
            ("dermafuse train --data HAM10000 --out RUN", "the standard recipe"),
            ("dermafuse train --data HAM10000 --recipe seed --out RUN", "the reference recipe"),
            (
                "dermafuse train --data clinic/dermafuse.toml --out RUN --set epochs=5 --set image_size=160",
                "a table of your own, and two settings changed",
            ),
            ("dermafuse train --data HAM10000 --folds 5 --out FOLDS", "a cross-validation"),
            ("dermafuse train --config RUN/config.toml --out AGAIN", "repeat a run"),
        ),
    )
    add_data(verb, type=str, help="folder of a known layout, or a .toml of your own table")
    add_output(verb, "--out", metavar="RUN", required=True, help="the folder to make")
    verb.add_argument("--recipe", metavar="NAME", help=f"{', '.join(RECIPES)} (default {DEFAULT_RECIPE}); see below")
    verb.add_argument("--config", metavar="FILE", type=Path, help="a config.toml, such as another run's")
    verb.add_argument("--backbone", metavar="NAME", help=", ".join(SPECS))
    verb.add_argument("--weights", metavar="FILE|imagenet|random", help="of the backbone (default imagenet)")
    verb.add_argument("--split", choices=("lesion", "image"), help="lesion: nothing leaks; image: as published work")
    verb.add_argument("--folds", metavar="K", type=int, help="cross-validate: K runs in RUN/fold-1 ...")
    verb.add_argument("--seed", metavar="N", type=int, help="of the split, the weights and every draw")
    verb.add_argument("--epochs", metavar="N", type=int, help="passes over the training rows, at most")
    verb.add_argument("--unfreeze-from", metavar="STAGE", help=f"first stage that trains: {describe_stages()}; or all")
    verb.add_argument(
        "--set", metavar="key=value", action="append", default=[], help="any other setting, listed below; repeatable"
    )
    verb.add_argument("--audit-leakage", action="store_true", help="measure what leakage adds (4 further trainings)")
    verb.add_argument("--audit-metadata", action="store_true", help="measure what metadata adds (3 further trainings)")
    verb.add_argument(
        "--track", metavar="tensorboard|mlflow|DIR", help="also hand the finished run to a tracker on this machine"
    )
    verb.add_argument("--resume", action="store_true", help="continue the unfinished run in RUN, or start it")
    verb.add_argument("--overwrite", action="store_true", help="replace RUN")
    add_shard_option(verb, "train folds I, I+N, ... of --folds; the same command without --shard joins")
    add_cluster_options(verb, "folds, or members of an ensemble,")
    verb.add_argument("--json", action="store_true", help="print the metrics as JSON instead of tables")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Train and evaluate one model, or one a fold."""
    from dermafuse.api.train import train_as_asked
    from dermafuse.progress import Terminal
    from dermafuse.training.config import resolve

    names = ("data", "backbone", "weights", "split", "folds", "seed", "epochs", "unfreeze_from")
    options = {name: getattr(arguments, name) for name in names}
    if options["data"]:  # RUN/config.toml must find the data from any folder
        options["data"] = str(Path(options["data"]).resolve())
    named = {"recipe": arguments.recipe, "file": arguments.config, "options": options, "assignments": arguments.set}
    report = Terminal()
    if arguments.shard and arguments.cluster is None and arguments.jobs is None:
        return _train_part(arguments, named, report)
    # Where one operation runs on one thread, a worker needs one CPU; else it needs all of a machine.
    config = resolve(**named)
    if not arguments.resume and not (arguments.cluster is None and arguments.jobs is None):
        from dermafuse.training.start import refuse_indivisible

        refuse_indivisible(config, None, overwrite=arguments.overwrite)  # before Ray starts, which takes seconds
    whole_machines = config.unfreeze_from is not None
    with cluster_of(arguments, report, whole_machines=whole_machines) as cluster:
        done = train_as_asked(
            arguments.out,
            named,
            audits=[name for name in ("leakage", "metadata") if getattr(arguments, f"audit_{name}")],
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            track=arguments.track,
            report=report,
            runner=cluster.trainings if cluster else None,
        )
    if arguments.json:
        print(json.dumps(done.metrics, indent=2, allow_nan=False))
    else:
        show_run(done.metrics, arguments.out)
    return 0


def _train_part(arguments: argparse.Namespace, named: Mapping[str, Any], report: Reporter) -> int:
    from dermafuse.training.config import resolve
    from dermafuse.training.start import train

    part = parse_part(arguments.shard)
    if arguments.audit_leakage or arguments.audit_metadata:
        raise ConfigError("An audit belongs to a single run; leave out --shard.")
    config = resolve(**named)
    train(config, arguments.out, resume=arguments.resume, overwrite=arguments.overwrite, report=report, part=part)
    mine = [str(fold + 1) for fold in range(config.folds) if part.has(fold)]
    print(
        f"Part {part}: folds {', '.join(mine) or 'none'} of {config.folds} are in {arguments.out}; when all parts are "
        "done, the same command without --shard joins them."
    )
    return 0


def show_run(metrics: Mapping[str, Any], out: Path) -> None:
    """Print the closing tables of a run."""
    from dermafuse.report.summary import summary
    from dermafuse.runs import PAGE

    show(*summary(metrics["validation"], f"{out}: validation, {metrics['validation']['n']:,} images"))
    for text in metrics["announcements"]:
        print(text)
    leak = metrics["leakage"]
    group = metrics["data"].get("group", "lesion")
    print(
        f"Leakage: {leak['share']:.1%} of the validation images show a {group} that is also in training "
        f"({leak['leaked_images']:,} images, {leak['shared_lesions']:,} {group}s)."
        if leak["lesions_known"]
        else "Leakage: unknown, the data do not name their lesions."
    )
    for line in audit_lines(metrics.get("audits") or {}):
        print(line)
    if (out / PAGE).exists():
        print(f"The report is in {out / PAGE}.")
    seconds = metrics["seconds"]
    print(f"{seconds['total']:.1f} s in all, {seconds['train']:.1f} s of it training. {DISCLAIMER}")


def audit_lines(audits: Mapping[str, Any]) -> list[str]:
    """Return a sentence a measured effect, for a few figures."""
    from dermafuse.evaluation.metric_table import shown

    effects = []
    if "leakage" in audits:
        effects = [
            ("Leakage, image-level minus lesion-level split", audits["leakage"]["splits"]["difference"]),
            ("Leakage, same images, their lesions in training or not", audits["leakage"]["same_images"]["difference"]),
        ]
    if "metadata" in audits:
        found = audits["metadata"]
        effects += [
            ("Metadata, fused minus image only", found["fused_minus_image_only"]),
            ("Metadata, all missing at prediction minus given", found["missing_minus_fused"]),
        ]
    metrics = shown("audit line")
    return [
        f"{title}: "
        + ", ".join(
            f"{each.name} {found[each.key]['difference']:+.3f} "
            f"({found[each.key]['low']:+.3f} to {found[each.key]['high']:+.3f})"
            for each in metrics
        )
        + "."
        for title, found in effects
    ]
