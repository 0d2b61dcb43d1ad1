"""Saying of metadata, once a field: which words a model does not know, and what was taken from DICOM files."""

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
    """Counts the words in predictions that stand for none of a model's, and values that came from DICOM files.

    Attributes:
        counts: field -> word as given -> how many predictions had it.
        predictions: how many were looked at.
        from_file: field -> how many predictions have its value from their DICOM file.
    """

    def __init__(self, encoder: MetadataEncoder) -> None:
        self._known = dict(zip(encoder.categorical, encoder.vocabularies, strict=True))
        self.counts: dict[str, Counter[str]] = {}
        self.predictions = 0
        self.from_file: Counter[str] = Counter()

    def add(self, prediction: Prediction) -> None:
        """Look at one more prediction."""
        self.predictions += 1
        for name, word in prediction.unknown.items():
            found = self.counts.setdefault(name, Counter())
            found[word if word in found or len(found) < _MAX_WORDS else _FURTHER] += 1
        self.from_file.update(prediction.from_file.keys())

    def sentences(self) -> list[str]:
        """Return one sentence a field that has unknown words, and one on what came from DICOM files."""
        said = [self._sentence(name, found) for name, found in self.counts.items()]
        return [*said, self.of_files()] if self.from_file else said

    def of_files(self) -> str:
        """Return the sentence on what came from DICOM files."""
        listed = ", ".join(f"{name} (in {count:,} of {self.predictions:,})" for name, count in self.from_file.items())
        return f"Not given, and so taken from the DICOM file: {listed}."

    def _sentence(self, name: str, found: Counter[str]) -> str:
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        words = [f"'{plain(word)[:60]}'" + (f" {count:,}" if found.total() > 1 else "") for word, count in ordered]
        known = self._known[name]
        knows = f"the words {examples(known, limit=_SHOWN_KNOWN)}" if known else "no word of it"
        return (
            f"Of '{name}' the model does not know {examples(words, limit=_SHOWN)} "
            f"(in {found.total():,} of {self.predictions:,}): taken as unknown. It knows {knows}."
        )
