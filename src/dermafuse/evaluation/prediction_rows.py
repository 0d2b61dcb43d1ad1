"""``predictions.csv`` read back as arrays, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.errors import DataError, examples
from dermafuse.evaluation.predictions import BoolArray, FloatArray, IntArray, Predictions, check_predictions
from dermafuse.labels import Classes, LabelSet, as_labels

Names = npt.NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Rows:
    """The predictions of one split.

    Attributes:
        labels: of the k classes, in the order of the columns of ``probabilities``.
        image_id: (n,) text.
        lesion_id: (n,) text; the image's own id where no lesion was named.
        true: (n,) int64, 0..k-1.
        predicted: (n,) int64: the decision (not always the largest probability).
        probabilities: (n, k) float64, rows summing to 1.
        fold: (n,) int64, 1..K in a cross-validation; 0 otherwise.
    """

    labels: LabelSet
    image_id: Names
    lesion_id: Names
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
    def scored(self) -> Predictions:
        """The rows as metrics take them."""
        return Predictions(self.true, self.probabilities, self.predicted, self.labels)

    def take(self, rows: BoolArray | IntArray) -> Rows:
        """Return some of the rows, by mask or index."""
        return Rows(
            self.labels,
            self.image_id[rows],
            self.lesion_id[rows],
            self.true[rows],
            self.predicted[rows],
            self.probabilities[rows],
            self.fold[rows],
        )

    @property
    def lesions(self) -> int:
        """How many lesions the rows show."""
        return len(set(self.lesion_id))


def read_rows(path: Path, classes: Classes) -> dict[str, Rows]:
    """Read ``predictions.csv``; return its rows by split (``validation``, ``tuning``, ``test``), in file order.

    Raises:
        DataError: the file is missing, lacks a column, or holds what is no prediction of these classes.
    """
    return rows_of_table(read_predictions(path), classes, str(path))


def read_predictions(path: Path) -> pd.DataFrame:
    """Read ``predictions.csv`` as the table that it is.

    Raises:
        DataError: the file is missing or no table.
    """
    try:
        return pd.read_csv(path, dtype={"image_id": str, "lesion_id": str}, keep_default_na=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; it is written by training, so name a finished RUN.") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); restore it or repeat the run.") from error


def rows_of_table(table: pd.DataFrame, classes: Classes, name: str = "predictions") -> dict[str, Rows]:
    """Return the rows of a predictions table by split; see `read_rows`."""
    labels = as_labels(classes)
    wanted = ["image_id", "lesion_id", "split", "true", "predicted", *(f"p_{code}" for code in labels.codes)]
    absent = [column for column in wanted if column not in table.columns]
    if absent:
        raise DataError(f"{name} lacks the column(s) {examples(absent)}; restore it or repeat the run.")
    number = {code: position for position, code in enumerate(labels.codes)}
    for column in ("true", "predicted"):
        unknown = sorted(set(table[column].astype(str)) - set(number))
        if unknown:
            raise DataError(f"{name} names the class(es) {examples(unknown)}, which the model does not have.")
    try:
        probabilities = table[[f"p_{code}" for code in labels.codes]].to_numpy(np.float64)
    except ValueError as error:
        raise DataError(f"{name} holds probabilities that are not numbers ({error}); repeat the run.") from error
    true = table["true"].map(number).to_numpy().astype(np.int64)
    predicted = table["predicted"].map(number).to_numpy().astype(np.int64)
    if len(table):
        check_predictions(true, probabilities, labels, predicted=predicted)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)  # seven digits in the file
    images = table["image_id"].to_numpy(object)
    lesions = table["lesion_id"].to_numpy(object)
    fold = table["fold"].to_numpy(np.int64) if "fold" in table.columns else np.zeros(len(table), np.int64)
    whole = Rows(
        labels,
        images,
        np.where(lesions == "", images, lesions),
        true,
        predicted,
        probabilities,
        fold,
    )
    splits = table["split"].to_numpy(object)
    return {str(split): whole.take(splits == split) for split in pd.unique(table["split"])}
