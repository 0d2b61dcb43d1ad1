"""Age, sex and body site of DICOM files, for the rows of a table that give none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dermafuse.data.dicom import FIELDS, facts
from dermafuse.data.words import BODY_SITES, Words

_SUFFIXES: Final = frozenset({".dcm", ".dicom"})
#: The field that is a number; the others are words.
_NUMBER: Final = "age"


class FileFacts:
    """Fills the empty cells of ``age``, ``sex`` and ``localization`` from the DICOM files of a table.

    Args:
        columns: the columns of the records, filled in place.
        paths: the image of each row, ``None`` where there is none.
        numeric: names of the numeric features.
        categorical: names of the categorical features.
        values: how the words of a table are mapped (``Records.values``).

    Attributes:
        numeric: names of the numeric features, with ``age`` where only files say it.
        categorical: likewise with ``sex`` and ``localization``.
    """

    def __init__(
        self,
        columns: dict[str, pd.Series],
        paths: Sequence[Path | None],
        *,
        numeric: tuple[str, ...],
        categorical: tuple[str, ...],
        values: Mapping[str, Mapping[str, str | None]],
    ) -> None:
        self.numeric, self.categorical = numeric, categorical
        self._taken: Counter[str] = Counter()
        self._passed = 0
        rows = [row for row, path in enumerate(paths) if path is not None and path.suffix.lower() in _SUFFIXES]
        if not rows:
            return
        fields = [field for field in FIELDS if field not in (categorical if field == _NUMBER else numeric)]
        cells = {field: columns[field].tolist() for field in fields}
        words = {field: _words(cells[field], values.get(field, {})) for field in fields if field != _NUMBER}
        for row in rows:
            wanted = [field for field in fields if _is_empty(cells[field][row])]
            said = facts(paths[row]) if wanted else {}
            for field in wanted:
                value = self._value(field, said.get(field), words)
                if value is not None:
                    cells[field][row] = value
                    self._taken[field] += 1
        for field in [field for field in FIELDS if field in self._taken]:
            dtype = np.float64 if field == _NUMBER else object
            columns[field] = pd.Series(cells[field], dtype=dtype)
            if field == _NUMBER:
                self.numeric = (*self.numeric, *([field] if field not in self.numeric else []))
            elif field not in self.categorical:
                self.categorical = (*self.categorical, field)

    def notes(self) -> Iterator[str]:
        """Yield what was taken, and what could not be."""
        if self._taken:
            listed = ", ".join(f"{field} of {count:,}" for field, count in sorted(self._taken.items()))
            yield f"Not given, and so taken from DICOM files: {listed} image(s)."
        if self._passed:
            yield (
                f"The body site that DICOM files name is none that is known in {self._passed:,} of them, and is left "
                "out; give it in a column of the table."
            )

    def _value(self, field: str, said: object, words: Mapping[str, Words]) -> object:
        if field == _NUMBER or said is None:
            return said
        found = words[field].find(str(said))
        if found is None and field == "localization":
            found = BODY_SITES.find(str(said))
            self._passed += found is None
            return found
        return found or said


def _words(cells: Sequence[object], told: Mapping[str, str | None]) -> Words:
    return Words(sorted({cell for cell in cells if isinstance(cell, str)}), told)


def _is_empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and np.isnan(cell))
