"""The command line: the verbs of ``commands/``, parsed and called; errors in one line."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence

from dermafuse import __version__
from dermafuse.commands import (
    cache,
    check,
    compare,
    completion,
    demo,
    evaluate,
    explain,
    export,
    extract,
    fetch,
    init,
    models,
    predict,
    release,
    report,
    serve,
    train,
)
from dermafuse.commands.parsing import VerbParser
from dermafuse.endings import Terminated, drop_stdout, outside_fault, signals_as_interrupts
from dermafuse.errors import DermafuseError
from dermafuse.labels import DISCLAIMER
from dermafuse.printable import plain, usable_streams

VERBS = (
    fetch,
    init,
    check,
    extract,
    train,
    evaluate,
    compare,
    report,
    predict,
    explain,
    serve,
    export,
    release,
    models,
    cache,
    completion,
    demo,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status.

    0: done. 1: the verb says what failed. 2: a mistake that the user can mend, or a fault of disk or memory.
    130, 143, 129: ended by Ctrl-C, SIGTERM or SIGHUP.
    """
    with usable_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:  # to a newcomer the way in, to a script that lost its verb still a mistake
        parser().print_help(sys.stderr)
        return 2
    try:
        arguments = parser().parse_args(given)
    except SystemExit:  # --help, --version
        _flush_or_drop()
        raise
    try:
        with signals_as_interrupts():
            handler: Callable[[argparse.Namespace], int] = arguments.handler
            status = handler(arguments)
            sys.stdout.flush()  # a full disk is an error now, and not one after the end
            return status
    except DermafuseError as error:
        if arguments.debug:
            raise
        return _refused(" ".join(str(error).split()))
    except KeyboardInterrupt as error:
        ended = "terminated" if isinstance(error, Terminated) else "interrupted"
        _say(f"{ended}; what was finished is kept (train: continue with --resume; fetch: with the same command).")
        return error.status if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        drop_stdout()  # the reader (head, less) has gone: not an error
        return 0
    except Exception as error:
        said = outside_fault(error)
        if said is None or arguments.debug:
            raise
        return _refused(said)


def _refused(sentence: str) -> int:
    _say(sentence)
    _flush_or_drop()
    return 2


def _flush_or_drop() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        drop_stdout()


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # where stderr takes nothing, the status has to do
        print(f"dermafuse: {plain(sentence)}", file=sys.stderr, flush=True)


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
    top.set_defaults(parser=top)  # for completion, which describes it
    return top


if __name__ == "__main__":
    sys.exit(main())
