"""The parser of a verb: argparse's, with examples at the end of its help and the nearest name of a misspelt one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dermafuse.errors import nearest


class VerbParser(argparse.ArgumentParser):
    """A parser whose help ends with examples, and which names the option or verb that a misspelt one may be.

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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown options first: what else is missing or left over may follow from one."""
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # the options of a verb are known to its own parser
            for word in words[: words.index("--") if "--" in words else None]:
                self._refuse_unknown(word)
        return super().parse_known_args(words, namespace)

    def _refuse_unknown(self, word: str) -> None:
        name = word.partition("=")[0]
        known = self._option_string_actions
        # argparse takes the beginning of an option for it where no other begins so.
        if not name.startswith("--") or any(option.startswith(name) for option in known):
            return
        self.error(f"unknown option '{name}'.{nearest(name, [*known]) or f' {self.prog} --help lists them.'}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices or not isinstance(value, str):
            super()._check_value(action, value)
            return
        names = [str(choice) for choice in action.choices]
        hint = nearest(value, names) or f" There are {', '.join(names)}."
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"unknown verb '{value}'.{hint}")
        raise argparse.ArgumentError(action, f"invalid choice: '{value}'.{hint}")
