"""Clinical values as a vector: missing numbers take the mean, numbers are standardised, categories one-hot.

The published recipe, fitted on training rows only. scikit-learn fits (`SimpleImputer`, `StandardScaler`,
`OneHotEncoder`); what it found is kept as plain numbers, so that a machine that predicts needs NumPy alone and
a saved encoder gives the same bits as the one that was fitted.

How one value is read is said in ``data/values.py``, and when two words are the same in ``data/words.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.saved_json import a_finite, a_list, an_object, broken, new_name
from dermafuse.data.values import clean, to_numbers, to_words
from dermafuse.data.words import UNKNOWN, Words, mapped, mapping, says_nothing
from dermafuse.errors import BundleError, ConfigError, DataError, examples

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float32]

#: No clinical measurement is beyond it; squares of larger ones would overflow.
_LARGEST: Final = 1e100

#: A spread below it is rounding; dividing by it would overflow float32.
_LEAST_SCALE: Final = 1e-30

FORMAT: Final = 1


@dataclass(frozen=True)
class Statistics:
    """What encodes one numeric field: a missing value becomes ``fill``, then ``(value - mean) / scale``."""

    fill: float
    mean: float
    scale: float


@dataclass(frozen=True)
class MetadataEncoder:
    """Turns clinical values into a float32 vector; made by `fit` or `from_json`.

    The columns of a field lie side by side, numeric fields first, each in the order given: one column for a
    number, one for each word of the vocabulary for a category and, with ``missing_indicators``, one more that
    is 1 where the value is missing or unknown.

    A category that is missing or stands for no word of training (`Words.find`) counts as "unknown" where the training
    rows have that word, else its columns are all 0. With indicators "unknown" has no column: all 0, and the
    indicator 1.

    Attributes:
        numeric: names of the numeric fields.
        categorical: names of the categorical fields.
        statistics: one for each numeric field.
        vocabularies: the known words (sorted) of each categorical field.
        missing_indicators: whether each field has a column that says it is missing.
        values: field -> word of a table -> word to learn from, as the table's description says (``[values.X]``).
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    statistics: tuple[Statistics, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    missing_indicators: bool = False
    values: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict, hash=False)

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        *,
        numeric: Sequence[str],
        categorical: Sequence[str],
        missing_indicators: bool = False,
        values: Mapping[str, Mapping[str, str | None]] | None = None,
    ) -> MetadataEncoder:
        """Learn means, spreads and vocabularies from the rows of ``table``: give it training rows only.

        A field without a single value, or with the same value everywhere, is encoded as 0. ``values`` are the maps of
        words by which the table was read (``Records.values``): they are kept, for the words of later records.

        Raises:
            DataError: no rows, a column is missing, or a value is not a number where one is expected.
            ConfigError: a field named twice.
        """
        names = [*numeric, *categorical]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"The metadata field '{twice}' is named twice; name it once.")
        lacking = [name for name in names if name not in table.columns]
        if lacking:
            there = examples(table.columns, limit=12)
            raise DataError(f"The table has no column '{lacking[0]}' (it has {there}); rename or add it.")
        if names and not len(table):
            raise DataError("There are no rows to fit the metadata encoder on; check the split.")
        told = {name: values[name] for name in categorical if values and values.get(name)}
        words = {name: mapped(to_words(table[name], name), told.get(name, {})) for name in categorical}
        return cls(
            tuple(numeric),
            tuple(categorical),
            tuple(_fit_numbers(to_numbers(table[name], name), name) for name in numeric),
            tuple(_fit_words(words[name], missing_indicators) for name in categorical),
            missing_indicators,
            told,
        )

    @functools.cached_property
    def fields(self) -> dict[str, slice]:
        """The output columns that each field owns: what to blank where a field is to be absent."""
        found, start = {}, 0
        widths = [1] * len(self.numeric) + [len(words) for words in self.vocabularies]
        for name, width in zip((*self.numeric, *self.categorical), widths, strict=True):
            stop = start + width + self.missing_indicators
            found[name] = slice(start, stop)
            start = stop
        return found

    @functools.cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the output columns: ``"age"``, ``"sex=female"``, ..., ``"sex_missing"``."""
        columns: list[str] = []
        parts = [[name] for name in self.numeric]
        parts += [
            [f"{name}={word}" for word in words]
            for name, words in zip(self.categorical, self.vocabularies, strict=True)
        ]
        for name, part in zip((*self.numeric, *self.categorical), parts, strict=True):
            columns += [*part, f"{name}_missing"] if self.missing_indicators else part
        return tuple(columns)

    @property
    def width(self) -> int:
        """Number of output columns; 0 for a data set without metadata."""
        return len(self.feature_names)

    @functools.cached_property
    def words(self) -> dict[str, Words]:
        """Of each categorical field what finds its word for a written one."""
        return {
            name: Words(known, self.values.get(name, {}))
            for name, known in zip(self.categorical, self.vocabularies, strict=True)
        }

    @functools.cached_property
    def _columns(self) -> tuple[tuple[dict[str, int], int | None], ...]:
        """Of each categorical field: word -> offset of its column, and the offset where all others go."""
        tables = []
        for words in self.vocabularies:
            offset = {word: position for position, word in enumerate(words)}
            other = len(words) if self.missing_indicators else offset.get(UNKNOWN)
            tables.append((offset, other))
        return tuple(tables)

    def transform(self, columns: Mapping[str, Any] | pd.DataFrame) -> Vector:
        """Encode many records at once.

        Args:
            columns: field -> values, a sequence or array of one value a record (or a DataFrame). A field that is
                not there is missing in every record; other columns are ignored, but count the records.

        Returns:
            float32 (records, width).

        Raises:
            DataError: columns of different length, or a value that is no number, or impossible.
        """
        lengths: dict[str, int] = {}
        for name, values in columns.items():
            if isinstance(values, str):
                raise DataError(f"'{name}' is one word where a column is expected; give a list of values.")
            lengths[str(name)] = len(values)
        # A DataFrame may have rows and no columns.
        count = next(iter(lengths.values())) if lengths else (0 if isinstance(columns, Mapping) else len(columns))
        uneven = [name for name, length in lengths.items() if length != count]
        if uneven:
            raise DataError(
                f"The column '{uneven[0]}' has {lengths[uneven[0]]:,} values where '{next(iter(lengths))}' has "
                f"{count:,}; give one value a record."
            )
        encoded = np.zeros((count, self.width), np.float32)
        for name, statistics in zip(self.numeric, self.statistics, strict=True):
            numbers = to_numbers(columns[name], name) if name in columns else np.full(count, np.nan)
            missing = np.isnan(numbers)
            numbers = np.where(missing, statistics.fill, numbers)
            start = self.fields[name].start
            with np.errstate(over="ignore"):
                encoded[:, start] = (numbers - statistics.mean) / statistics.scale
            if not np.isfinite(encoded[:, start]).all():
                raise DataError(f"A value of '{name}' is too large to be true; mend it or leave it empty.")
            if self.missing_indicators:
                encoded[:, start + 1] = missing
        for name, (offset, other) in zip(self.categorical, self._columns, strict=True):
            texts = to_words(columns[name], name) if name in columns else [None] * count
            start = self.fields[name].start
            for row, text in enumerate(texts):
                word = self.words[name].find(text)
                column = other if word is None else offset.get(word, other)
                if column is not None:
                    encoded[row, start + column] = 1.0
        return encoded

    def transform_one(self, values: Mapping[str, object]) -> Vector:
        """Encode one record, field -> value, as float32 (width,); fields not given are missing.

        Raises:
            DataError: a value that is no number where one is expected, or impossible (an age of 500).
        """
        one = {name: [values[name]] for name in self.fields if name in values}
        encoded: Vector = self.transform(one or {"": [None]})[0]
        return encoded

    def missing(self, values: Mapping[str, object]) -> list[str]:
        """Return the fields of one record that tell the model nothing: missing, "unknown" or never seen.

        Raises:
            DataError: as `transform_one`.
        """
        silent = [name for name in self.numeric if np.isnan(to_numbers([values.get(name)], name)[0])]
        for name, words in self.words.items():
            if words.find(to_words([values.get(name)], name)[0]) in (None, UNKNOWN):
                silent.append(name)
        return silent

    def unknown(self, values: Mapping[str, object]) -> dict[str, str]:
        """Return field -> word as written, of the words of one record that stand for none that the model knows.

        Raises:
            DataError: as `transform_one`.
        """
        found = {}
        for name, words in self.words.items():
            text = to_words([values.get(name)], name)[0]
            # `to_words` tells text from missing values; a word that means "unknown" is no loss.
            if words.find(text) is None and not says_nothing(text):
                found[name] = str(values[name]).strip()
        return found

    def absent(self) -> Vector:
        """Return the float32 vector (width,) of a record about which nothing is known."""
        return self.transform_one({})

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as plain JSON values; numbers survive to the last bit."""
        return {
            "format": FORMAT,
            "numeric": [
                {"name": name, "fill": found.fill, "mean": found.mean, "scale": found.scale}
                for name, found in zip(self.numeric, self.statistics, strict=True)
            ],
            # Without values as every version reads it.
            "categorical": [
                {"name": name, "vocabulary": list(words)}
                | ({"values": dict(self.values[name])} if name in self.values else {})
                for name, words in zip(self.categorical, self.vocabularies, strict=True)
            ],
            "missing_indicators": self.missing_indicators,
        }

    @classmethod
    def from_json(cls, saved: Any) -> MetadataEncoder:
        """Return the encoder that `to_json` wrote.

        Raises:
            BundleError: not what `to_json` writes: another format, a key missing, a wrong type, NaN.
        """
        top = an_object(saved, "the metadata encoder", "format", "numeric", "categorical", "missing_indicators")
        if type(top["format"]) is not int or top["format"] != FORMAT:
            raise BundleError(
                f"The metadata encoder has format {top['format']!r} and this version reads {FORMAT}; "
                "use the version of dermafuse that wrote it."
            )
        if not isinstance(top["missing_indicators"], bool):
            raise broken("'missing_indicators' is neither true nor false")
        numeric: dict[str, Statistics] = {}
        categorical: dict[str, tuple[str, ...]] = {}
        told: dict[str, Mapping[str, str | None]] = {}
        for entry in a_list(top["numeric"], "numeric"):
            item = an_object(entry, "a numeric field", "name", "fill", "mean", "scale")
            name = new_name(item, numeric)
            fill, mean, scale = (a_finite(item[key], f"'{key}' of '{name}'") for key in ("fill", "mean", "scale"))
            if scale <= 0:
                raise broken(f"'scale' of '{name}' is {scale}, not above 0")
            if scale < _LEAST_SCALE or max(abs(fill), abs(mean), scale) > _LARGEST or abs(fill - mean) > 1e6 * scale:
                raise broken(f"the numbers of '{name}' ({fill:g}, {mean:g}, {scale:g}) are those of no measurement")
            numeric[name] = Statistics(fill, mean, scale)
        for entry in a_list(top["categorical"], "categorical"):
            item = an_object(entry, "a categorical field", "name", "vocabulary")
            name = new_name(item, {**numeric, **categorical})
            words = a_list(item["vocabulary"], f"vocabulary of '{name}'")
            if not all(isinstance(word, str) and clean(word) == word for word in words):
                raise broken(f"the vocabulary of '{name}' holds something other than words in lower case")
            if len(set(words)) < len(words) or (top["missing_indicators"] and UNKNOWN in words):
                raise broken(f"the vocabulary of '{name}' names a word twice")
            categorical[name] = tuple(words)
            if "values" in item:
                told[name] = _saved_values(item["values"], name)
        return cls(
            tuple(numeric),
            tuple(categorical),
            tuple(numeric.values()),
            tuple(categorical.values()),
            top["missing_indicators"],
            told,
        )


def _saved_values(saved: Any, name: str) -> dict[str, str | None]:
    what = f"'values' of '{name}'"
    if not isinstance(saved, dict) or not all(word is None or isinstance(word, str) for word in saved.values()):
        raise broken(f"{what} is not a map of words")
    try:
        told = mapping({old: word or "" for old, word in saved.items()})
    except ValueError as error:
        raise broken(f"{what} {error}") from error
    if told != saved:
        raise broken(f"{what} holds something other than words as training keeps them")
    return told


def _fit_numbers(values: npt.NDArray[np.float64], name: str) -> Statistics:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    # Beyond this, squares would overflow; no clinical measurement is near it.
    if np.any(np.abs(values) > _LARGEST):
        raise DataError(f"A value of '{name}' is too large to be true; mend it or leave it empty.")
    column = values[:, None]
    imputer = SimpleImputer(strategy="mean", keep_empty_features=True).fit(column)
    scaler = StandardScaler().fit(imputer.transform(column))
    fill = imputer.transform([[np.nan]])[0, 0]
    # A spread below this is rounding, not measurement: dividing by it would overflow float32.
    scale = float(scaler.scale_[0]) if scaler.scale_[0] > _LEAST_SCALE else 1.0
    return Statistics(float(fill), float(scaler.mean_[0]), scale)


def _fit_words(words: list[str | None], missing_indicators: bool) -> tuple[str, ...]:
    from sklearn.preprocessing import OneHotEncoder

    seen = [word for word in words if word is not None and not (missing_indicators and word == UNKNOWN)]
    if not seen:
        return ()
    encoder = OneHotEncoder(handle_unknown="ignore").fit(np.array(seen, dtype=object)[:, None])
    return tuple(str(word) for word in encoder.categories_[0])
