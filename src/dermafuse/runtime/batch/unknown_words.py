"""Saying which words of a data set a model does not know: once a field, with counts and with what it knows."""

from __future__ import annotations

from collections import Counter
from typing import Final

from dermafuse.data.metadata import MetadataEncoder
from dermafuse.errors import examples
from dermafuse.printable import plain
from dermafuse.runtime.prediction import Prediction

#: So many different words of a field are told apart; a column of free text has more.
_MAX_WORDS: Final = 1000
_SHOWN: Final = 5
_SHOWN_KNOWN: Final = 30
#: What further words count under.
_FURTHER: Final = "further words"


class UnknownWords:
    """Counts the words in predictions that stand for none of a model's.

    Attributes:
        counts: field -> word as given -> how many predictions had it.
        predictions: how many were looked at.
    """

    def __init__(self, encoder: MetadataEncoder) -> None:
        self._known = dict(zip(encoder.categorical, encoder.vocabularies, strict=True))
        self.counts: dict[str, Counter[str]] = {}
        self.predictions = 0

    def add(self, prediction: Prediction) -> None:
        """Look at one more prediction."""
        self.predictions += 1
        for name, word in prediction.unknown.items():
            found = self.counts.setdefault(name, Counter())
            found[word if word in found or len(found) < _MAX_WORDS else _FURTHER] += 1

    def sentences(self) -> list[str]:
        """Return one sentence a field; none where every word was known."""
        return [self._sentence(name, found) for name, found in self.counts.items()]

    def _sentence(self, name: str, found: Counter[str]) -> str:
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        words = [f"'{plain(word)[:60]}'" + (f" {count:,}" if found.total() > 1 else "") for word, count in ordered]
        known = self._known[name]
        knows = f"the words {examples(known, limit=_SHOWN_KNOWN)}" if known else "no word of it"
        return (
            f"Of '{name}' the model does not know {examples(words, limit=_SHOWN)} "
            f"(in {found.total():,} of {self.predictions:,}): taken as unknown. It knows {knows}."
        )
