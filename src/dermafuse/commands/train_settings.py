"""The end of ``dermafuse train --help``: recipes and settings, from the tables that training itself reads."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_WIDTH: Final = 110
_BESIDE: Final = 31  # where the meaning of a setting begins


def describe_recipes() -> str:
    """Return every recipe with its meaning and, but for the default one, what it sets differently."""
    from dermafuse.training.config import resolve
    from dermafuse.training.recipes import DEFAULT_RECIPE, MEANINGS, RECIPES

    usual = resolve(DEFAULT_RECIPE).model_dump()
    lines = ["recipes (--recipe):"]
    for name in sorted(RECIPES, key=lambda name: name != DEFAULT_RECIPE):
        mark = " (default)" if name == DEFAULT_RECIPE else ""
        lines += _beside(f"{name}{mark}", MEANINGS[name])
        own = resolve(name).model_dump()
        changed = [f"{key}={_plain(value)}" for key, value in own.items() if key != "recipe" and value != usual[key]]
        if changed:
            lines += textwrap.wrap(
                f"other than in {DEFAULT_RECIPE}: {', '.join(changed)}",
                _WIDTH,
                initial_indent=" " * _BESIDE,
                subsequent_indent=" " * _BESIDE,
                break_on_hyphens=False,
            )
    return "\n".join([*lines, ""])


def describe_settings() -> str:
    """Return every setting with its value in the default recipe, its meaning, and what it may be."""
    from dermafuse.training.config import TrainConfig, resolve
    from dermafuse.training.loop.experimental import EXPERIMENTAL
    from dermafuse.training.recipes import DEFAULT_RECIPE

    usual = resolve(DEFAULT_RECIPE).model_dump()
    lines = [f"settings (--set key=value, or in the file of --config), with their values in recipe {DEFAULT_RECIPE}:"]
    for key, field in TrainConfig.model_fields.items():
        mark = " (experimental)" if key in EXPERIMENTAL else ""
        lines += _beside(f"{key}={_plain(usual[key])}", f"{field.description}{_allowed(field)}{mark}")
    return "\n".join([*lines, ""])


def _beside(head: str, meaning: str) -> list[str]:
    """Return ``meaning`` wrapped to the right of ``head``, or below it where that is too long."""
    room = _BESIDE - 4
    lines = textwrap.wrap(meaning, _WIDTH - _BESIDE, break_on_hyphens=False)
    if len(head) > room:
        return [f"  {head}", *(" " * _BESIDE + line for line in lines)]
    first, *rest = lines
    return [f"  {head:<{_BESIDE - 2}}{first}", *(" " * _BESIDE + line for line in rest)]


def _plain(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(repr(item) for item in value)}]"
    return "''" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(field: FieldInfo) -> str:
    """Return what a setting may be, where it is one of a few words or a number in a range: ``" [0 to 1]"``."""
    limits = {
        name: getattr(mark, name)
        for mark in [*field.metadata, *_marks(field.annotation)]
        for name in ("ge", "gt", "le", "lt")
        if hasattr(mark, name)
    }
    ends = [
        f"{words}{limits[name]:g}"
        for name, words in (("ge", ""), ("gt", "above "), ("le", ""), ("lt", "below "))
        if name in limits and limits[name] < 1e6  # beyond is the size of a number in memory, not a limit of meaning
    ]
    bounds = (
        [" to ".join(ends) if len(ends) > 1 else f"{ends[0]} or more" if "ge" in limits else ends[0]] if ends else []
    )
    allowed = [*bounds, *(str(word) for word in _literals(field.annotation))]
    return f" [{' | '.join(allowed)}]" if allowed else ""


def _literals(annotation: Any) -> list[Any]:
    """Return the words of every ``Literal`` in a type."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _literals(part)]


def _marks(annotation: Any) -> list[Any]:
    """Return the limits that are written inside a type (``Annotated[int, Field(ge=0)]``)."""
    if get_origin(annotation) is Annotated:
        return [mark for part in get_args(annotation)[1:] for mark in getattr(part, "metadata", [])]
    return [mark for part in get_args(annotation) for mark in _marks(part)]
