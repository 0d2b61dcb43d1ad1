"""``dermafuse completion SHELL``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_INTO = {
    "bash": "~/.local/share/bash-completion/completions/dermafuse",
    "zsh": "a folder of $fpath, as _dermafuse",
    "tcsh": "~/.dermafuse.tcsh, and source that in ~/.tcshrc",
}


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "completion",
        parents=[common],
        help="print what a shell needs to complete verbs and options",
        description="Print a script for a shell, which then completes verbs, options, their values and file names. "
        f"Write it to {'; '.join(f'{shell}: {where}' for shell, where in _INTO.items())}.",
        examples=(
            ('eval "$(dermafuse completion bash)"', "for this shell only"),
            ("dermafuse completion bash", "to look at it, or to write it to the file named above"),
        ),
    )
    verb.add_argument("shell", choices=tuple(_INTO), help="yours: echo $0 says which")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    top = arguments.parser
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _complete_files(verb)
    print(shtab.complete(top, shell=arguments.shell))
    return 0


def _complete_files(verb: argparse.ArgumentParser) -> None:
    """Let every option and place that takes a path, or data, complete file names."""
    import shtab

    for action in verb._actions:
        if action.type is Path or action.dest == "data":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
