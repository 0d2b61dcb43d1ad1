"""``dermafuse fetch NAME --to DATA``."""

from __future__ import annotations

import argparse
from typing import Any

from dermafuse.commands.parsing import add_data, add_output


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "fetch",
        parents=[common],
        help="download a published data set, checked and resumable",
        description="Download a published data set from its own source, check sizes, checksums and counts, and unpack "
        "it. What was interrupted goes on where it ended when the same command is given again.",
        closing=_data_sets,
        examples=(
            ("dermafuse fetch ham10000 --to HAM10000", "shows the licence; nothing is fetched yet"),
            (
                "dermafuse fetch ham10000 --to HAM10000 --accept-licence",
                "about 3 GB, half as much again while it unpacks",
            ),
            ("dermafuse fetch ham10000 --to HAM10000 --source kaggle --accept-licence", "with your own Kaggle token"),
        ),
    )
    verb.add_argument("name", metavar="NAME", help="of the data set; listed below")
    add_data(verb, dest="to", help="folder to put it in, made where missing")
    add_output(verb, "--to", "--data", metavar="DATA", help="the same, as an option")
    verb.needed["to"] = "no folder named; add --to DATA"
    verb.add_argument("--source", metavar="SOURCE", help="where from: dataverse, isic, kaggle, mendeley (see below)")
    verb.add_argument("--accept-licence", action="store_true", help="you have read the licence and accept it")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch, and say what is there now."""
    from dermafuse.network.catalogue import find
    from dermafuse.network.fetch import fetch
    from dermafuse.printable import plain
    from dermafuse.progress import Terminal

    data_set = find(arguments.name)
    counts = fetch(
        data_set,
        arguments.to,
        Terminal(),
        source=arguments.source,
        accepted=arguments.accept_licence,
    )
    said = ", ".join(f"{number:,} {what}" for what, number in counts.items())
    print(plain(f"{arguments.name} is in {arguments.to}: {said}."))
    then = f" Next: dermafuse {data_set.next} {arguments.to}" if data_set.next else ""
    print(plain(f"Its licence is in LICENCE-{arguments.name}.txt.{then}"))
    return 0


def _data_sets() -> str:
    from dermafuse.network.catalogue import read_catalogue

    lines = ["data sets:"]
    for name, data_set in read_catalogue().items():
        sources = ", ".join(source.name for source in data_set.sources)
        lines += [f"  {name} (--source {sources})", f"      {data_set.title}. {data_set.licence}"]
    return "\n".join([*lines, ""])
