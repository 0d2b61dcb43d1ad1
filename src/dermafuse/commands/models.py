"""``dermafuse models``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dermafuse.labels import DISCLAIMER


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "models",
        parents=[common],
        help="the models that come with dermafuse, by name",
        description="List the models that come with dermafuse. Every verb that takes a RUN takes such a name, the path "
        "of a RUN or bundle folder of yours, or hf://OWNER/NAME for a bundle on the Hugging Face hub (extra hub). "
        f"Where predict, explain and serve are told no model, the first of the list answers. {DISCLAIMER}",
        examples=(
            ("dermafuse models", "names, and what each is"),
            ("dermafuse predict ham10000-lite1 lesion.jpg", "ask one by its name"),
            ("dermafuse predict hf://OWNER/NAME lesion.jpg", "ask one that somebody published"),
        ),
    )
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """List them."""
    from dermafuse.printable import plain
    from dermafuse.runtime.bundle.files import read_manifest
    from dermafuse.runtime.released import released_models

    found: list[dict[str, Any]] = []
    for name, folder in released_models().items():
        manifest, digest = read_manifest(folder)
        size = sum(entry.bytes for entry in manifest.files.values())
        found.append({"name": name, "path": str(folder), "digest": digest, "bytes": size, "info": dict(manifest.info)})
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for number, model in enumerate(found):
        info = {key: plain(str(value)) for key, value in model["info"].items()}
        made = f"recipe {info.get('recipe', '?')}, backbone {info.get('backbone', '?')}"
        print(f"{model['name']}{'  (answers where no model is named)' if number == 0 else ''}")
        print(f"  {made}, {model['bytes'] / 1e6:.1f} MB, digest {model['digest'][:12]}")
        print(f"  card with all figures: {Path(model['path']) / 'README.md'}")
    if not found:
        print("This dermafuse comes without a released model.")
    print("Your own models are named by the folder that dermafuse train made (RUN), published ones by hf://OWNER/NAME.")
    print(DISCLAIMER)
    return 0
