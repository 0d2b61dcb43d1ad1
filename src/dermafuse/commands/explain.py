"""``dermafuse explain RUN IMAGE --out OVERLAY.png``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dermafuse.commands.asking import add_metadata_options, announce, given_metadata, model_and_images
from dermafuse.commands.parsing import add_output
from dermafuse.errors import ConfigError
from dermafuse.labels import DISCLAIMER, HAM10000


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "explain",
        parents=[common],
        help="where the model looked and what spoke for its answer",
        description=f"Grad-CAM heatmap, exact Shapley attribution and what-if curves of one prediction. {DISCLAIMER}",
        examples=(
            (
                "dermafuse explain lesion.jpg --age 55 --sex male --localization back --out why.png",
                "the released model's answer as a picture",
            ),
            (
                f"dermafuse explain RUN lesion.jpg --target {HAM10000.critical} --json",
                "a model of yours, the numbers for one class",
            ),
        ),
    )
    verb.add_argument("paths", metavar="RUN IMAGE", nargs="+", type=Path, help="a RUN or bundle folder, then the image")
    add_metadata_options(verb)
    verb.add_argument("--target", metavar="CLASS", help="the class to explain (default: the predicted one)")
    add_output(verb, "--out", metavar="OVERLAY.png", help="the picture to write")
    verb.add_argument("--json", action="store_true", help="print the numbers as JSON")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain one prediction."""
    from dermafuse.runtime.batch.unknown_words import UnknownWords
    from dermafuse.runtime.explain.overlay import save_overlay
    from dermafuse.runtime.released import load, model_facts, which_model

    model, images = model_and_images(arguments.paths)
    if len(images) != 1:
        raise ConfigError("Name one image to explain: dermafuse explain RUN IMAGE --out OVERLAY.png.")
    if arguments.out is None and not arguments.json:
        raise ConfigError("Add --out OVERLAY.png for the picture, or --json for the numbers.")
    metadata = given_metadata(arguments)
    predictor = load(model)
    announce(predictor.bundle.info.get("announcements", ()))
    predictor.check_fields(metadata)
    found = predictor.explain(images[0], target=arguments.target, **metadata)
    unknown = UnknownWords(predictor.bundle.encoder)
    unknown.add(found.prediction)
    for text in unknown.sentences():
        print(text, file=sys.stderr)
    if arguments.out is not None:
        save_overlay(images[0], found, arguments.out)
    if arguments.json:
        print(json.dumps({**found.to_dict(), "model": model_facts(predictor.bundle)}, indent=2))
        return 0
    chance = found.prediction.probabilities[found.target]
    print(f"{images[0]}: {found.prediction.label} ({found.prediction.name}), p({found.target}) = {chance:.3f}")
    for player, share in found.attributions[found.target].items():
        print(f"  {player:<14} {share:+.3f}")
    print(f"The picture is in {arguments.out}.")
    print(which_model(model_facts(predictor.bundle)))
    return 0
