"""The rows that are evaluated: true classes, probabilities and decisions, checked once for every metric."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError, examples
from dermafuse.labels import Classes, LabelSet, as_labels

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Names = npt.NDArray[np.object_]

#: How far a row of probabilities may be from 1: room for float32 softmax and rounded CSV files, no more.
SUM_TOLERANCE = 1e-3


#: The question "malignant or not", wherever targets are named.
MALIGNANT: Final = "malignant"


@dataclass(frozen=True, eq=False)
class Target:
    """One two-sided question: its name in words, (n,) bool on which side a row is, (n,) its score, 0..1."""

    name: str
    positive: BoolArray
    score: FloatArray


@dataclass(frozen=True, eq=False)
class Scored:
    """n images, what they are and what a model says of them: the one object that everything that judges takes.

    `check_predictions` makes one of loose arrays, `prediction_rows.read_rows` of a ``predictions.csv``; both guarantee
    what is said here.

    Attributes:
        labels: of the k classes, in the order of the columns of ``probabilities``.
        image_id: (n,) text.
        lesion_id: (n,) ids of any type; the image's own where no lesion was named.
        true: (n,) int64, 0..k-1.
        predicted: (n,) int64: the decision (`runtime.decision.rule.choose_labels`; not always the largest probability)
            and the one name of it, here, in tables and in files.
        probabilities: (n, k) float64, 0..1, rows summing to 1.
        fold: (n,) int64, 1..K in a cross-validation; 0 otherwise.
    """

    labels: LabelSet
    image_id: Names
    lesion_id: npt.NDArray[Any]
    true: IntArray
    predicted: IntArray
    probabilities: FloatArray
    fold: IntArray

    def __len__(self) -> int:
        return len(self.true)

    @property
    def classes(self) -> tuple[str, ...]:
        """The k codes."""
        return self.labels.codes

    @property
    def lesions(self) -> int:
        """How many lesions the rows show."""
        return len(set(self.lesion_id))

    @property
    def malignant(self) -> BoolArray:
        """(k,) which classes count as malignant."""
        return np.array([code in self.labels.malignant for code in self.classes], dtype=np.bool_)

    @property
    def has_malignant(self) -> bool:
        """Whether malignant-versus-benign is a question here: at least one class on each side."""
        return bool(self.malignant.any() and not self.malignant.all())

    @property
    def is_malignant(self) -> BoolArray:
        """(n,) whether the true class is malignant."""
        return self.malignant[self.true]

    @property
    def malignant_score(self) -> FloatArray:
        """(n,) the summed probability of the malignant classes, 0..1."""
        total: FloatArray = self.probabilities[:, self.malignant].sum(axis=1)
        return total

    def take(self, rows: BoolArray | IntArray) -> Scored:
        """Return some of the rows, by mask or index."""
        return Scored(
            self.labels,
            self.image_id[rows],
            self.lesion_id[rows],
            self.true[rows],
            self.predicted[rows],
            self.probabilities[rows],
            self.fold[rows],
        )

    def targets(self) -> dict[str, Target]:
        """Return the two-sided questions that the label set asks: the critical class, malignant or not.

        Keys are the critical class's code (``critical`` where that code is itself ``malignant``) and ``malignant``.
        Where the critical class is the one malignant class, the two are one question.
        """
        found: dict[str, Target] = {}
        critical = self.labels.critical
        if critical is not None and not (self.has_malignant and self.labels.malignant == {critical}):
            c = self.classes.index(critical)
            key = critical if critical != MALIGNANT else "critical"
            found[key] = Target(self.labels.critical_name, self.true == c, self.probabilities[:, c])
        if self.has_malignant:
            found[MALIGNANT] = Target(MALIGNANT, self.is_malignant, self.malignant_score)
        return found


def check_predictions(
    true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Classes,
    *,
    malignant: Collection[str] | None = None,
    predicted: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> Scored:
    """Check and type the arrays that every evaluation starts from.

    Args:
        true: (n,) true class of each row, an index into ``classes``.
        probabilities: (n, k), rows summing to 1 (within 1e-3), columns in the order of ``classes``.
        classes: the label set, or the k codes.
        malignant: codes counted as malignant, those not in ``classes`` ignored; ``None``: as the label set says.
        predicted: (n,) decisions as indices, where the rule is not "largest probability" (which takes the
            first of equals).
        groups: (n,) lesion ids; ``None``: each row by itself.

    Raises:
        DataError: empty input, shapes that disagree, a class outside 0..k-1, or rows that are not
            probabilities.
    """
    labelled = as_labels(classes)
    if malignant is not None:
        labelled = replace(labelled, malignant=frozenset(malignant) & set(labelled.codes))
    names, k = labelled.codes, len(labelled)
    scores = np.asarray(probabilities, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != k or len(scores) == 0:
        raise DataError(f"probabilities have shape {scores.shape}; expected (rows, {k}) with at least one row.")
    bad = ~np.isfinite(scores).all(axis=1)
    # NaN compares false, so the first mask is needed as well.
    bad |= (scores < 0).any(axis=1) | (np.abs(scores.sum(axis=1) - 1) > SUM_TOLERANCE)
    if bad.any():
        rows = np.flatnonzero(bad)
        raise DataError(
            f"probabilities of {len(rows):,} rows are not finite, not negative and summing to 1 "
            f"(rows {examples(rows)}); pass softmax outputs, not logits."
        )
    labels = _check_labels("true", true, len(scores), names)
    decisions = (
        scores.argmax(axis=1) if predicted is None else _check_labels("predicted", predicted, len(scores), names)
    )
    images = np.arange(len(scores)).astype(str).astype(object)
    lesions = images if groups is None else np.asarray(groups)
    nowhere = np.zeros(len(scores), np.int64)
    if lesions.shape != labels.shape:
        check_groups(lesions, len(scores))
    return Scored(labelled, images, lesions, labels, decisions.astype(np.int64), scores, nowhere)


def check_groups(groups: npt.ArrayLike | None, n: int) -> IntArray:
    """Return (n,) group numbers 0..G-1 for any array of lesion ids; ``None`` makes each row its own group.

    Raises:
        DataError: wrong length, or a missing id (it would silently make one huge lesion of all such rows).
    """
    if groups is None:
        return np.arange(n, dtype=np.int64)
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise DataError(f"groups have shape {ids.shape}; expected one lesion id for each of the {n:,} rows.")
    absent = missing(ids)
    if absent.any():
        rows = np.flatnonzero(absent)
        raise DataError(
            f"groups miss a lesion id in {len(rows):,} rows (rows {examples(rows)}); "
            "give such rows an id of their own, e.g. the image id."
        )
    _, first, codes = np.unique(ids.astype(str), return_index=True, return_inverse=True)
    # Numbered in order of appearance: renaming the lesions does not change the resamples.
    order: IntArray = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[codes]


def missing(values: npt.NDArray[Any]) -> BoolArray:
    """Return (n,) where a value of any type stands for none: empty text, None, NaN or pandas' NA."""
    return np.isin(values.astype(str), ("", "None", "nan", "<NA>", "NaT"))


def _check_labels(what: str, labels: npt.ArrayLike, n: int, classes: tuple[str, ...]) -> IntArray:
    array = np.asarray(labels)
    if array.shape != (n,):
        raise DataError(f"{what} has shape {array.shape}; expected one class index for each of the {n:,} rows.")
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{what} is {array.dtype}, not integer; pass indices into classes {classes}.")
    outside = (array < 0) | (array >= len(classes))
    if outside.any():
        raise DataError(
            f"{what} holds {examples(np.unique(array[outside]))}, outside 0..{len(classes) - 1}; "
            f"pass indices into classes {classes}."
        )
    return array.astype(np.int64)


def in_top_two(rows: Scored) -> FloatArray:
    """Return (n,) 1 or 0: whether the true class is among the two most probable (of equals, the first count)."""
    of_true = rows.probabilities[np.arange(len(rows)), rows.true][:, None]
    earlier = np.arange(len(rows.classes)) < rows.true[:, None]
    ahead = (rows.probabilities > of_true) | ((rows.probabilities == of_true) & earlier)
    inside: FloatArray = (ahead.sum(axis=1) < 2).astype(np.float64)
    return inside
