"""``dermafuse extract --data DATA``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dermafuse.commands.parsing import add_data
from dermafuse.commands.spreading import add_cluster_options, add_shard_option, cluster_of
from dermafuse.models.specs import describe_stages
from dermafuse.parallel import parse_part
from dermafuse.training.recipes import DEFAULT_RECIPE, RECIPES


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "extract",
        parents=[common],
        help="compute what a training will read, in parts or on other machines",
        description="Run the frozen part of the networks of a training over its images and keep the results in the "
        "activation store (DERMAFUSE_CACHE); the train command with the same settings finds them there. Name the "
        "settings that train will get: another backbone, image size or views are other results.",
        examples=(
            ("dermafuse extract --data HAM10000 --recipe standard", "all of it"),
            ("dermafuse extract --data HAM10000 --folds 5 --shard 2/8", "the second of eight parts, for five folds"),
        ),
    )
    add_data(verb, type=str, help="folder of a known layout, or a .toml of your own table")
    verb.add_argument("--recipe", metavar="NAME", help=f"{', '.join(RECIPES)} (default {DEFAULT_RECIPE})")
    verb.add_argument("--config", metavar="FILE", type=Path, help="a config.toml, such as another run's")
    verb.add_argument("--backbone", metavar="NAME", help="as in train")
    verb.add_argument("--weights", metavar="FILE|imagenet|random", help="of the backbone (default imagenet)")
    verb.add_argument("--split", choices=("lesion", "image"), help="as in train")
    verb.add_argument("--folds", metavar="K", type=int, help="for a cross-validation")
    verb.add_argument("--seed", metavar="N", type=int, help="as in train")
    verb.add_argument("--epochs", metavar="N", type=int, help="as in train: with fresh views it decides how many")
    verb.add_argument("--unfreeze-from", metavar="STAGE", help=f"first stage that trains: {describe_stages()}")
    verb.add_argument("--set", metavar="key=value", action="append", default=[], help="any other setting of train")
    add_shard_option(verb, "compute that part of the images only")
    add_cluster_options(verb, "the images")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Fill the activation store."""
    from dermafuse.progress import Terminal
    from dermafuse.training.config import resolve
    from dermafuse.training.start import extract

    names = ("data", "backbone", "weights", "split", "folds", "seed", "epochs", "unfreeze_from")
    options = {name: getattr(arguments, name) for name in names}
    if options["data"]:
        options["data"] = str(Path(options["data"]).resolve())
    part = parse_part(arguments.shard) if arguments.shard else None
    config = resolve(arguments.recipe, file=arguments.config, options=options, assignments=arguments.set)
    report = Terminal()
    with cluster_of(arguments, report) as cluster:
        done = extract(config, report=report, part=part, runner=cluster.shards if cluster else None)
    which = f"Part {part}: " if part else ""
    stores = ", ".join(str(folder) for folder in done.stores)
    print(f"{which}{done.images:,} images are in {stores}; {done.computed:,} of them were computed now.")
    return 0
