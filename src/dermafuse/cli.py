"""The command line: verbs only. Parse, call, print; heavy imports live in the function that needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dermafuse import __version__
from dermafuse.diagnoses import DISCLAIMER
from dermafuse.errors import DermafuseError

BACKBONES = "efficientnet_b0, efficientnet_b1, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 done, 2 a mistake that the user can mend, 130 interrupted."""
    arguments = parser().parse_args(argv)
    # TensorFlow tells the terminal about CPU instructions; results and errors are what belongs there.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        handler: Callable[[argparse.Namespace], int] = arguments.handler
        return handler(arguments)
    except DermafuseError as error:
        if arguments.debug:
            raise
        print(f"dermafuse: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dermafuse: interrupted; what was finished is kept (train: continue with --resume).", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone: not an error. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top = argparse.ArgumentParser(
        prog="dermafuse",
        description=f"Multi-modal skin-lesion classification from dermoscopic images and metadata. {DISCLAIMER}",
        epilog="dermafuse VERB --help explains each verb.",
    )
    top.add_argument("--version", action="version", version=f"dermafuse {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    _add_check(verbs, common)
    _add_train(verbs, common)
    _add_cache(verbs, common)
    _add_demo(verbs, common)
    return top


def _add_check(verbs: Any, common: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("check", parents=[common], help="what is in a data set, what is wrong, what would leak")
    verb.add_argument("data", metavar="DATA", type=Path, help="folder of a known layout, or a .toml of your own table")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(handler=_check)


def _add_train(verbs: Any, common: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "train",
        parents=[common],
        help="train and evaluate a model, leave a RUN folder",
        description="Train and evaluate a model; leaves config.toml, metrics.json, predictions.csv, history.csv and "
        f"the model in RUN. {DISCLAIMER}",
    )
    verb.add_argument("--data", metavar="DATA", help="folder of a known layout, or a .toml of your own table")
    verb.add_argument("--out", metavar="RUN", type=Path, required=True, help="the folder to make")
    verb.add_argument("--recipe", help="standard (default), seed (the reference recipe)")
    verb.add_argument("--config", metavar="FILE", type=Path, help="a config.toml, such as another run's")
    verb.add_argument("--backbone", metavar="NAME", help=BACKBONES)
    verb.add_argument("--weights", metavar="FILE|imagenet|random", help="of the backbone (default imagenet)")
    verb.add_argument("--split", choices=("lesion", "image"), help="lesion: nothing leaks; image: as published work")
    verb.add_argument("--folds", metavar="K", type=int, help="cross-validate: K runs in RUN/fold-1 ...")
    verb.add_argument("--seed", metavar="N", type=int)
    verb.add_argument("--epochs", metavar="N", type=int)
    verb.add_argument("--unfreeze-from", metavar="STAGE", help="first stage that trains: block1 ... block7, top, all")
    verb.add_argument("--set", metavar="key=value", action="append", default=[], help="any other setting; repeatable")
    verb.add_argument("--resume", action="store_true", help="continue the unfinished run in RUN")
    verb.add_argument("--overwrite", action="store_true", help="replace RUN")
    verb.add_argument("--json", action="store_true", help="print the metrics as JSON instead of tables")
    verb.set_defaults(handler=_train)


def _add_cache(verbs: Any, common: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("cache", parents=[common], help="list, size and prune the stored activations")
    verb.add_argument("--prune", action="store_true", help="delete stores")
    verb.add_argument("--older-than", metavar="DAYS", type=float, default=0.0, help="only those unused for DAYS")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(handler=_cache)


def _add_demo(verbs: Any, common: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("demo", parents=[common], help="all of it, on a small generated data set, in a minute")
    verb.add_argument("--out", metavar="RUN", type=Path, default=Path("demo-run"), help="default: demo-run")
    verb.add_argument("--seed", metavar="N", type=int, default=0)
    verb.set_defaults(handler=_demo)


def _check(arguments: argparse.Namespace) -> int:
    from dermafuse.data.check import check_dataset, describe
    from dermafuse.progress import Terminal

    found = check_dataset(arguments.data, Terminal())
    if arguments.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        _print(*describe(found))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from dermafuse.training.config import resolve

    names = ("data", "backbone", "weights", "split", "folds", "seed", "epochs", "unfreeze_from")
    config = resolve(
        arguments.recipe,
        file=arguments.config,
        options={name: getattr(arguments, name) for name in names},
        assignments=arguments.set,
    )
    _run(config, arguments.out, arguments)
    return 0


def _run(config: Any, out: Path, arguments: argparse.Namespace) -> None:
    from dermafuse.progress import Terminal
    from dermafuse.training.start import train

    metrics = train(config, out, resume=arguments.resume, overwrite=arguments.overwrite, report=Terminal())
    if arguments.json:
        print(json.dumps(metrics, indent=2, allow_nan=False))
        return
    _print_run(metrics, out)


def _print_run(metrics: Any, out: Path) -> None:
    from dermafuse.evaluation.summary import summary

    _print(*summary(metrics["validation"], f"{out}: validation, {metrics['validation']['n']:,} images"))
    for text in metrics["announcements"]:
        print(text)
    leak = metrics["leakage"]
    print(
        f"Leakage: {leak['share']:.1%} of the validation images show a lesion that is also in training "
        f"({leak['leaked_images']:,} images, {leak['shared_lesions']:,} lesions)."
    )
    print(
        f"{metrics['seconds']['total']:.1f} s in all, {metrics['seconds']['train']:.1f} s of it training. {DISCLAIMER}"
    )


def _cache(arguments: argparse.Namespace) -> int:
    from dermafuse.training.activations import describe_stores, list_stores, prune_stores

    found = prune_stores(older_than_days=arguments.older_than) if arguments.prune else list_stores()
    if arguments.json:
        print(json.dumps([{**entry, "folder": str(entry["folder"])} for entry in found], indent=2))
    else:
        print(describe_stores(found, deleted=arguments.prune))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from dermafuse.progress import Terminal
    from dermafuse.training.demo import run_demo

    metrics = run_demo(arguments.out, seed=arguments.seed, report=Terminal())
    _print_run(metrics, arguments.out)
    print(f"The run is in {arguments.out}.")
    return 0


def _print(*parts: Any) -> None:
    """Print rich tables and texts to stdout; not wrapped to 80 columns where stdout is a file or a pipe."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for part in parts:
        console.print(part)


if __name__ == "__main__":
    sys.exit(main())
