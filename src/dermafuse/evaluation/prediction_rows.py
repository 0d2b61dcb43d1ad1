"""``predictions.csv`` read back as arrays, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dermafuse.errors import DataError, examples
from dermafuse.evaluation.predictions import Scored, check_predictions
from dermafuse.labels import Classes, as_labels


def read_rows(path: Path, classes: Classes) -> dict[str, Scored]:
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


def rows_of_table(table: pd.DataFrame, classes: Classes, name: str = "predictions") -> dict[str, Scored]:
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
    whole = Scored(
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
