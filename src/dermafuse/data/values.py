"""Reading single clinical values: what is missing, what is a number; when two words are the same says ``words``.

None, NaN, empty text and ``nan``, ``na``, ``n/a``, ``null``, ``none`` are missing values; ``unknown`` is missing in a
number and a word of its own in a category. One rule for tables, the command line and Python: a number may have a
decimal comma, years behind it, or be the start of an open range (``85+`` is 85); anything else, and an age outside 0
to 120, is refused. Needs NumPy alone: prediction starts with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.words import MISSING, UNKNOWN, says_nothing
from dermafuse.errors import DataError
from dermafuse.printable import plain

__all__ = [
    "AGE_RANGE",
    "MISSING",
    "UNKNOWN",
    "clean",
    "is_missing",
    "is_open_range",
    "to_numbers",
    "to_words",
    "why_no_number",
    "written_number",
]

#: The years an age may have.
AGE_RANGE: Final = (0.0, 120.0)

#: Open lower end, number, years, open lower end.
_WRITTEN: Final = re.compile(
    r"(>=?|≥)?\s*([+-]?\d+(?:[.,]\d+)?)\s*(jahre?n?|j\.?|years?(?: old)?|yrs?\.?|y\.?|y/?o|ans?|años?|anni)?\s*(\+)?",
    re.IGNORECASE,
)
#: One comma before three digits: a decimal comma, or thousands.
_GROUPED: Final = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_MONTH: Final = "(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])"
_NO_NUMBER: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", "(with a comma for thousands or for decimals? write 1234 or 1.234)"),
        (r"[+-]?\d{1,3}(\.\d{3})+,\d+", "(with points for thousands: write 1234.5)"),
        (r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}.*", "(a date: write years)"),
        (rf"\d+\s*[.-]\s*{_MONTH}.*|{_MONTH}[a-z]*[ .-]*\d+", "(a date, as Excel makes of 5-10: write one number)"),
        (r"\d+[.,]?\d*\s*(-|–|—|bis|to|until)\s*\d+.*", "(a range: write one number, such as its middle)"),
        (r"[<≤].*\d.*", "(below a limit: write one number)"),
        (r"\d+[.,]?\d*\s*(mon|mth|wee|woche|wk|tag|day|d\b|m\b|w\b).*", "(not in years: write years, such as 0.5)"),
        (r"[~≈ca. ]*\d+[.,]?\d*\s*[^\d\s]+\.?", "(write the number alone)"),
    )
)


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN or one of pandas' missing markers."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas' own, without importing it
        return True
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def clean(value: object) -> str | None:
    """Return a category as stripped lower-case text, None where it is missing."""
    text = plain(str(value).strip().lower())
    return None if text in MISSING else text


def to_words(values: Iterable[object], name: str) -> list[str | None]:
    """Return a column of categories, each cleaned, None where missing.

    Raises:
        DataError: a value that is neither text, number nor truth value; ``name`` is the column it is in.
    """
    words: list[str | None] = []
    for value in values:
        if is_missing(value):
            words.append(None)
        elif isinstance(value, (str, int, float, np.generic)):
            words.append(clean(value))
        else:
            raise DataError(f"'{name}' is a {type(value).__name__}; give one word, or leave it out.")
    return words


def to_numbers(values: Any, name: str) -> npt.NDArray[np.float64]:
    """Return a column of numbers as float64 (n,), NaN where missing.

    Raises:
        DataError: a value that is no finite number, or an age (a column named "age") outside `AGE_RANGE`.
    """
    if getattr(getattr(values, "dtype", None), "kind", "") in ("f", "i", "u") and isinstance(values.dtype, np.dtype):
        numbers = np.asarray(values, dtype=np.float64)
    else:
        numbers = np.array([_number(value, name) for value in values], dtype=np.float64)
    if numbers.ndim != 1:
        raise DataError(f"'{name}' has shape {numbers.shape}; give one number a record.")
    low, high = AGE_RANGE if name == "age" else (-math.inf, math.inf)
    bad = numbers[np.isinf(numbers) | (numbers < low) | (numbers > high)]
    if bad.size:
        expected = f"a number from {low:g} to {high:g}" if name == "age" else "a finite number"
        raise DataError(f"'{name}' is {bad[0]:g}; give {expected}, or leave it out.")
    return numbers


def written_number(text: str) -> float | None:
    """Return the number that a stripped text is, ``None`` where it is none; infinity comes through.

    Read besides ``80.5``: a decimal comma (``80,5``), years (``80 Jahre``), the lower end of an open range (``85+``).
    """
    try:
        return None if "_" in text else float(text)  # float("1_0") is 10
    except ValueError:
        found = _WRITTEN.fullmatch(text)
    return None if found is None or _GROUPED.fullmatch(found[2]) else float(found[2].replace(",", "."))


def is_open_range(text: str) -> bool:
    """Whether `written_number` takes the lower end of a range for its number: ``85+``, ``>85``."""
    found = _WRITTEN.fullmatch(text)
    return found is not None and bool(found[1] or found[4])


def why_no_number(text: str) -> str:
    """Return why a text that holds digits is no number, as the end of a sentence with a leading blank; else ``""``."""
    return next((f" {reason}" for pattern, reason in _NO_NUMBER if pattern.fullmatch(text)), "")


def _number(value: object, name: str) -> float:
    if is_missing(value):
        return math.nan
    if isinstance(value, str):
        text = value.strip().lower()
        if says_nothing(text):
            return math.nan
        number = written_number(text)
        if number is not None:
            return number
    elif isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.complexfloating)):
        try:
            return float(value)
        except OverflowError:
            pass
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    why = why_no_number(value.strip()) if isinstance(value, str) else ""
    raise DataError(f"'{name}' is {shown}, which is not a number{why}; give a number, or leave it out.")
