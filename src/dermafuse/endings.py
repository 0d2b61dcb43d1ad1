"""How a command ends where something outside of it ends it: a signal, a full disk, too little memory."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from dermafuse.printable import plain


class Terminated(KeyboardInterrupt):
    """The system asks the process to end (SIGTERM, or SIGHUP of a closed terminal): the same as Ctrl-C.

    Attributes:
        status: exit status, 128 plus the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated` while the block runs; a second one ends the process at once.

    A handler that somebody else has set (nohup, a program that calls us) stays.
    """
    before: dict[int, Any] = {}

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # not in the main thread: signals are not ours
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outside_fault(error: BaseException) -> str | None:
    """Return one sentence about an error that the system made, or ``None`` where it is a mistake of the program."""
    said = plain(str(error))
    lowered = said.lower()
    memory = ("bad_alloc", "cannot allocate memory", "failed to map segment", "can't start new thread", "out of memory")
    if isinstance(error, MemoryError) or any(words in lowered for words in memory):
        return "There is not enough memory (a limit such as ulimit -v counts); raise it, or end other programs."
    if isinstance(error, OSError):
        name = "" if error.filename is None else f" ({plain(error.filename)})"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room on that disk" if full else "check the file or folder and its rights"
        return f"{error.strerror or said or type(error).__name__}{name}; {advice}, then run the command again."
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"'{plain(error.object)[:200]}' is not UTF-8 text; rename that file or folder."
    return None


def drop_stdout() -> None:
    """Throw away what stdout holds back: Python would complain of it at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
