"""``dermafuse release FOLDS --to DIR``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from dermafuse.commands.parsing import add_output
from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "release",
        parents=[common],
        help="a bundle to give away: the recipe of a cross-validation, trained on all lesions",
        description="Train the recipe of a finished cross-validation (train --folds K) once more on every lesion of "
        "its data, calibrate it with the folds' held-out predictions, and write a bundle with float16 weights whose "
        f"card states the cross-validated figures. {DISCLAIMER}",
        examples=(
            ("dermafuse train --data HAM10000 --folds 5 --out FOLDS", "first a cross-validation"),
            ("dermafuse release FOLDS --to BUNDLE", "then the bundle"),
            ("hf upload OWNER/NAME BUNDLE", "if you want it on the Hugging Face hub; others name it hf://OWNER/NAME"),
        ),
    )
    verb.add_argument("folds", metavar="FOLDS", type=Path, help="the folder of a finished train --folds K")
    add_output(verb, "--to", metavar="DIR", required=True, help="the bundle folder to make")
    verb.add_argument("--overwrite", action="store_true", help="replace DIR")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Train and write the bundle."""
    from dermafuse.progress import Terminal
    from dermafuse.training.start import release_bundle

    release_bundle(arguments.folds, arguments.to, overwrite=arguments.overwrite, report=Terminal())
    size = sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(arguments.to) for name in names)
    print(f"The bundle is in {arguments.to}, {size / 1e6:.1f} MB. {DISCLAIMER}")
    return 0
