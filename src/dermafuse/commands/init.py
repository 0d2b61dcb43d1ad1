"""``dermafuse init DATA``."""

from __future__ import annotations

import argparse
from typing import Any

from dermafuse.commands.parsing import add_data
from dermafuse.errors import OutputError


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "init",
        parents=[common],
        help="look at your own data and write a dermafuse.toml for them",
        description="Looks at a folder of images (or a table of them) and writes dermafuse.toml beside them: known "
        "formats by their columns, any other by honest guesses that are said in it. Nothing else is touched.",
        examples=(
            ("dermafuse init my-clinic", "a folder of images and their table, or of one folder a class"),
            ("dermafuse init my-clinic/patients.csv", "where a folder holds several tables"),
        ),
    )
    add_data(verb, needed=True, help="folder of images and table, or the table in that folder")
    verb.add_argument("--overwrite", action="store_true", help="replace the dermafuse.toml that is there")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the description and say what it holds."""
    from dermafuse.data.readers.propose import propose
    from dermafuse.data.readers.read import DESCRIPTION, read_known_layout
    from dermafuse.data.scan import scan
    from dermafuse.errors import DataError
    from dermafuse.files import existing_folder, write_atomic
    from dermafuse.printable import plain

    data = arguments.data.expanduser().absolute()
    folder = data.parent if data.is_file() else existing_folder(data, "data folder")
    out = folder / DESCRIPTION
    if out.exists() and not arguments.overwrite:
        raise OutputError(f"{out} exists already; add --overwrite to replace it.")
    found = scan([folder])
    if not data.is_file():
        try:
            records = read_known_layout(found, folder, labelled=False)
        except DataError:
            records = None  # a table of a known layout that is not whole: describe it
        if records is not None:
            print(f"{folder} is read as it is (layout {records.layout}); it needs no {DESCRIPTION}.")
            return 0
    made, records = propose(folder, found, [data] if data.is_file() else found.tables)
    write_atomic(out, made.to_toml())
    lines = [f"Wrote {out}: the data are taken for {made.what}."]
    if records is not None:
        counts = ", ".join(f"{code} {count:,}" for code, count in records.counts().items() if count)
        lines += [f"It gives {len(records):,} images{f' ({counts})' if counts else ''}.", *records.notes]
    lines += [f"Mind: {text}" for text in made.decide]
    for line in lines:
        print(plain(line))
    where = folder if data.is_dir() else out
    print(f"Look it over, then: dermafuse check {where}")
    return 0
