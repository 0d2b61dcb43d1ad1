"""``dermafuse export RUN --format onnx|openvino|keras --to DIR``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dermafuse.commands.parsing import add_data, add_output
from dermafuse.exporters.formats import FORMATS
from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "export",
        parents=[common],
        help="write a model for other programs: ONNX, OpenVINO, Keras; int8",
        description="Write a trained model in another format, verified against the model itself on 64 images, with "
        f"export.json that says how to use it. {DISCLAIMER}",
        examples=(
            ("dermafuse export RUN --format onnx --to exported", "for ONNX Runtime"),
            ("dermafuse export RUN --format openvino --int8 --to small", "8-bit integers, for OpenVINO"),
        ),
    )
    verb.add_argument("run", metavar="RUN", type=Path, help="a RUN folder; for onnx and openvino, any bundle")
    verb.add_argument("--format", metavar="|".join(FORMATS), required=True, help="bundle: with --int8")
    add_output(verb, "--to", metavar="DIR", required=True, help="the folder to make")
    verb.add_argument(
        "--int8",
        action="store_true",
        help="8-bit integers (openvino, bundle); refused where accuracy drops by more than a point",
    )
    add_data(verb, help="images to verify on (default: the data of the run)")
    verb.add_argument("--json", action="store_true", help="print export.json instead of a summary")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Export one model."""
    from dermafuse.api.export import export

    done = export(
        arguments.run,
        arguments.format,
        arguments.to,
        int8=arguments.int8,
        data=arguments.data,
    )
    if arguments.json:
        print(json.dumps(done, indent=2, allow_nan=False))
        return 0
    verified = done["verified"]
    opset = f" (opset {done['opset']})" if "opset" in done else ""
    print(f"{arguments.to}: {done['format']}{opset}{', int8' if arguments.int8 else ''}")
    print(
        f"Verified on {verified['source']}: largest difference of a probability {verified['largest_difference']:.2g}, "
        f"same class {verified['same_class']:.1%}."
    )
    for text in done["announcements"]:
        print(text)
    return 0
