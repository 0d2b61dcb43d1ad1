"""Who is told the progress of a call from Python: the terminal, the caller's own reporter, and ``logging``."""

from __future__ import annotations

import contextlib
import logging

from dermafuse.progress import SILENT, Advance, Reporter, Terminal

_LOG = logging.getLogger(__name__)


class Logged:
    """Passes everything on, and logs it: lines as INFO, warnings as WARNING."""

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner

    def say(self, text: str) -> None:
        """Show and log a line."""
        _LOG.info("%s", text)
        self._inner.say(text)

    def warn(self, text: str) -> None:
        """Show and log a line that must not be overlooked."""
        # Without handlers, logging itself prints warnings: what is shown already would stand there twice.
        if self._inner is SILENT or _LOG.hasHandlers():
            _LOG.warning("%s", text)
        self._inner.warn(text)

    def bar(self, description: str, total: int, unit: str) -> contextlib.AbstractContextManager[Advance]:
        """Show a bar; it is not logged."""
        return self._inner.bar(description, total, unit)


def reporter(progress: bool | Reporter) -> Reporter:
    """Return who is told the progress.

    Args:
        progress: ``True``: stderr; ``False``: ``logging`` alone; or an object with ``say``, ``warn`` and ``bar``.
    """
    if isinstance(progress, bool):
        return Logged(Terminal() if progress else SILENT)
    return Logged(progress)
