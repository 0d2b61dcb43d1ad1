"""The parser of a verb: argparse's, with examples at the end of its help and the nearest name of a misspelt one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dermafuse.errors import nearest


class _OneValue(argparse.Action):
    """Takes what has several spellings (``--out``, ``--to``, a place); two of them that differ are refused."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if values is None:  # a place that was left empty
            return
        spelling = option_string or str(self.metavar)
        said = vars(namespace).setdefault("spellings", {})
        other, before = said.setdefault(self.dest, (spelling, values))
        if other != spelling and before != values:
            parser.error(f"{other} says '{before}' and {spelling} says '{values}'; give one of them.")
        said[self.dest] = (spelling, values)
        setattr(namespace, self.dest, values)


def add_output(verb: argparse.ArgumentParser, *names: str, **settings: Any) -> None:
    """Add the output of a verb, which every verb takes as ``--out`` and as ``--to``.

    Args:
        verb: of the verb.
        names: ``--out`` or ``--to``, the spelling that stands first in its help; more spellings.
        settings: as ``add_argument`` takes them; ``dest`` is the first name.
    """
    spellings = dict.fromkeys((*names, "--out", "--to"))
    verb.add_argument(*spellings, dest=names[0].lstrip("-"), type=Path, action=_OneValue, **settings)


def add_data(
    verb: VerbParser, *, help: str, type: Callable[[str], Any] = Path, dest: str = "data", needed: bool = False
) -> None:
    """Add the data set of a verb, which every verb takes at its place (``DATA``) and as ``--data DATA``."""
    verb.add_argument(dest, metavar="DATA", nargs="?", type=type, action=_OneValue, help=help)
    if dest == "data":
        verb.add_argument("--data", metavar="DATA", type=type, action=_OneValue, help="the same, as an option")
    if needed:
        verb.needed[dest] = "no data named; add DATA or --data DATA"


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
        self.needed: dict[str, str] = {}
        self._mixed = False

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
        """Refuse unknown options first: what else is missing or left over may follow from one.

        Options may stand anywhere between a verb's words (``predict RUN --json IMAGE``), as elsewhere.
        """
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is not None or self._mixed:  # the options of a verb are known to its own parser
            return super().parse_known_args(words, namespace)
        for word in words[: words.index("--") if "--" in words else None]:
            self._refuse_unknown(word)
        if "--" in words:
            found, rest = super().parse_known_args(words, namespace)
        else:
            self._mixed = True  # the standard library's way to do it calls this method twice
            try:
                found, rest = self.parse_known_intermixed_args(words, namespace)
            finally:
                self._mixed = False
        for dest, sentence in self.needed.items():
            if getattr(found, dest, None) is None:
                self.error(sentence)
        return found, rest

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
