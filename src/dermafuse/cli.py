"""The command line: the verbs of ``commands/``, parsed and called; errors in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from dermafuse import __version__
from dermafuse.commands import cache, check, compare, demo, evaluate, explain, export, predict, release, report, train
from dermafuse.commands.parsing import VerbParser
from dermafuse.diagnoses import DISCLAIMER
from dermafuse.errors import DermafuseError

VERBS = (check, train, evaluate, compare, report, predict, explain, export, release, cache, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 done, 2 a mistake that the user can mend, 130 interrupted."""
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:  # to a newcomer the way in, to a script that lost its verb still a mistake
        parser().print_help(sys.stderr)
        return 2
    arguments = parser().parse_args(given)
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
    top = VerbParser(
        prog="dermafuse",
        description=f"Multi-modal skin-lesion classification from dermoscopic images and metadata. {DISCLAIMER}",
        epilog="dermafuse VERB --help explains each verb.",
        examples=(
            ("dermafuse demo", "all of it, on a small generated data set"),
            ("dermafuse check DATA", "what is in your own data, and what is wrong with it"),
            ("dermafuse predict IMAGE --age 55 --sex female", "ask the released model"),
        ),
    )
    top.add_argument("--version", action="version", version=f"dermafuse {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for verb in VERBS:
        verb.add(verbs, common)
    return top


if __name__ == "__main__":
    sys.exit(main())
