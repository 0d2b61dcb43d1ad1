"""Reading the saved state of a metadata encoder: every doubt is a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dermafuse.errors import BundleError


def broken(problem: str) -> BundleError:
    """Return the error that says what is wrong with the saved state."""
    return BundleError(f"The saved metadata encoder is damaged: {problem}; export the model again.")


def an_object(value: Any, what: str, *keys: str) -> dict[str, Any]:
    """Return a JSON object that has ``keys``, checked."""
    if not isinstance(value, dict):
        raise broken(f"{what} is a {type(value).__name__}, not an object")
    lacking = [key for key in keys if key not in value]
    if lacking:
        raise broken(f"{what} lacks '{lacking[0]}'")
    return value


def a_list(value: Any, what: str) -> list[Any]:
    """Return a JSON list, checked."""
    if not isinstance(value, list):
        raise broken(f"'{what}' is a {type(value).__name__}, not a list")
    return value


def new_name(item: dict[str, Any], taken: Mapping[str, object]) -> str:
    """Return the name of a field that is none of ``taken``, checked."""
    name = item["name"]
    if not isinstance(name, str) or not name or name in taken:
        raise broken(f"{name!r} is not the name of one more field")
    return name


def a_finite(value: Any, what: str) -> float:
    """Return a finite JSON number, checked."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise broken(f"{what} is {str(value)[:40]!r}, not a finite number")
    return number
