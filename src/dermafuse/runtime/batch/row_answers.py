"""Rows of a table to answers: predicted on threads, in order; and a block of answers as bytes that can be kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dermafuse.errors import DermafuseError, OutputError
from dermafuse.runtime.batch.ordered import ordered_map
from dermafuse.runtime.batch.table_output import Lines
from dermafuse.runtime.batch.table_rows import Row
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.prediction import Prediction, Query, Views
from dermafuse.runtime.predictor import Predictor


def predict_rows(
    predictor: Predictor, rows: Iterable[Row], views: Views
) -> Generator[tuple[Row, Prediction | str], None, None]:
    """Yield each row with its prediction, or with the reason why there is none."""

    def work(row: Row) -> tuple[Row, Prediction | str]:
        if row.error is not None or row.path is None:
            return row, row.error or "the row names no image"
        try:
            return row, predictor.predict_query(Query(row.path, row.metadata), views)
        except DermafuseError as error:
            return row, str(error)

    return ordered_map(rows, work, workers=predictor.workers)


def cells_of(name: str, outcome: Prediction | str, classes: Sequence[str]) -> dict[str, Any]:
    """Return the values of one output row; a failed row has its name and error only."""
    cells: dict[str, Any] = {"image": name}
    if isinstance(outcome, str):
        cells["error"] = outcome
        return cells
    cells["predicted"] = outcome.label
    cells |= {f"p_{code}": float(f"{outcome.probabilities[code]:.8g}") for code in classes}
    bad = outcome.malignant_probability
    cells["malignant"] = None if bad is None else float(f"{bad:.8g}")
    cells["prediction_set"] = None if outcome.prediction_set is None else "|".join(outcome.prediction_set)
    cells["out_of_distribution"] = outcome.out_of_distribution
    cells["ood_score"] = None if outcome.ood_score is None else float(f"{outcome.ood_score:.8g}")
    cells["missing"] = "|".join(outcome.missing)
    return cells


class GrowingBlock:
    """Collects the answers of a block of rows.

    Args:
        lines: how rows are written.
        predictor: whose answers they are.
    """

    def __init__(self, lines: Lines, predictor: Predictor) -> None:
        self._lines = lines
        self._classes = predictor.classes
        self._rows: list[bytes] = []
        self._skipped: list[tuple[int, str, str]] = []
        self._unknown = UnknownWords(predictor.bundle.encoder)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row, outcome: Prediction | str) -> None:
        """Add the next row."""
        if isinstance(outcome, Prediction):
            self._unknown.add(outcome)
        cells = cells_of(row.name, outcome, self._classes)
        self._rows.append(self._lines.row(cells))
        if isinstance(outcome, str):
            self._skipped.append((row.number, str(cells["image"]), outcome))

    def content(self) -> bytes:
        """Return the block as bytes: a line of JSON on what is to be said of it, then its rows as they are written."""
        head = {
            "rows": len(self._rows),
            "skipped": self._skipped,
            "predictions": self._unknown.predictions,
            "unknown": {name: dict(words) for name, words in self._unknown.counts.items()},
            "from_file": dict(self._unknown.from_file),
        }
        return json.dumps(head).encode() + b"\n" + b"".join(self._rows)


@dataclass(frozen=True)
class FinishedBlock:
    """What `GrowingBlock.content` holds, read back.

    Attributes:
        rows: output lines.
        count: how many.
        skipped: row number, image and reason of those that failed.
    """

    rows: bytes
    count: int
    skipped: Sequence[tuple[int, str, str]]
    predictions: int
    unknown: dict[str, dict[str, int]]
    from_file: dict[str, int]

    @classmethod
    def read(cls, content: bytes) -> FinishedBlock:
        """Read the bytes of a block.

        Raises:
            OutputError: they are not what this version writes.
        """
        head, _, rows = content.partition(b"\n")
        try:
            facts = json.loads(head)
            skipped = [(int(number), str(image), str(reason)) for number, image, reason in facts["skipped"]]
            from_file = dict(facts.get("from_file", {}))
            return cls(rows, int(facts["rows"]), skipped, int(facts["predictions"]), facts["unknown"], from_file)
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError("A shard was written by another version of dermafuse; use --overwrite.") from error

    def add_unknown(self, words: UnknownWords) -> None:
        """Add the words that the model does not know to a count of them."""
        words.predictions += self.predictions
        for name, found in self.unknown.items():
            words.counts.setdefault(name, Counter()).update(found)
        words.from_file.update(self.from_file)
