"""One module a verb: its arguments, its call, what it prints. Heavy imports live inside ``run``."""

from __future__ import annotations

import sys
from typing import Any


def show(*parts: Any) -> None:
    """Print rich tables and texts to stdout; not wrapped to 80 columns where stdout is a file or a pipe."""
    from dermafuse.progress import console

    terminal = console(sys.stdout, width=None if sys.stdout.isatty() else 160)
    for part in parts:
        terminal.print(part)
