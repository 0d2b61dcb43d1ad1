"""The parser of a verb: argparse's, with examples at the end of its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any


class VerbParser(argparse.ArgumentParser):
    """A parser whose help ends with examples.

    Args:
        examples: what to type, each with a few words on what it does.
        closing: makes a text that stands before the examples; called only when help is asked for, as it may need
            what is slow to import.
        **settings: as ``argparse.ArgumentParser`` takes them.
    """

    def __init__(
        self, *, examples: Sequence[tuple[str, str]] = (), closing: Callable[[], str] | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.examples = tuple(examples)
        self.closing = closing

    def format_help(self) -> str:
        """Return the help: argparse's, the closing text, the examples."""
        parts = [super().format_help()]
        if self.closing is not None:
            parts.append(self.closing())
        if self.examples:
            lines = [line for command, meaning in self.examples for line in (f"  {command}", f"      {meaning}")]
            parts.append("\n".join(["examples:", *lines, ""]))
        return "\n".join(parts)
