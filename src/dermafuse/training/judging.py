"""The judgement of a trained model: temperature and decision rule from the tuning rows, metrics of the validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import openvino as ov
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

from dermafuse.evaluation.fit_uncertainty import FittedFlag, Measured, fit_flag, fit_sets
from dermafuse.evaluation.intervals import cluster_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.progress import Reporter
from dermafuse.runtime.bundle_schema import PredictionSets
from dermafuse.runtime.temperature import apply, fit_temperature
from dermafuse.training.config import TrainConfig
from dermafuse.training.fit import predict_logits
from dermafuse.training.prepare import Prepared, Side

#: Strengths of the prior correction that are tried; below 0 where class weights in the loss overdid it already.
_STRENGTHS: Final = np.linspace(-0.5, 1.0, 31)


@dataclass(frozen=True)
class Outcome:
    """What was found about a trained model.

    Attributes:
        block: the metrics block of the validation rows, with ``ci95``.
        probabilities: side name -> float64 (n, k), calibrated.
        predicted: side name -> int64 (n,), the decision.
        temperature: fitted on the tuning rows; 1 where there are none.
        offsets: float64 (k,), added to log probabilities before the decision; ``None``: the largest decides.
        tuning_logits: float32 (n, k) of the tuning rows, before the temperature; ``None``: no such rows.
    """

    block: dict[str, Any]
    probabilities: dict[str, NDArray[np.float64]]
    predicted: dict[str, NDArray[np.int64]]
    temperature: float
    offsets: NDArray[np.float64] | None
    tuning_logits: NDArray[np.float32] | None


def judge(model: keras.Model, data: Prepared, config: TrainConfig, classes: tuple[str, ...]) -> Outcome:
    """Predict the held-out rows, fit temperature and decision rule on the tuning rows, measure the validation rows."""
    temperature, offsets, tuning = 1.0, None, None
    probabilities: dict[str, NDArray[np.float64]] = {}
    if data.tuning is not None:
        tuning = predict_logits(model, data.tuning.rows)
        labels = data.tuning.rows.labels
        temperature = fit_temperature(tuning, labels)
        probabilities["tuning"] = apply(tuning, temperature)
        if config.decision == "prior":
            counts = np.bincount(data.train.rows.labels, minlength=len(classes))
            offsets = fit_offsets(probabilities["tuning"], labels, counts / counts.sum())
    probabilities["validation"] = apply(predict_logits(model, data.validation.rows), temperature)
    predicted = {name: decide(each, offsets) for name, each in probabilities.items()}
    block = measured(data.validation, probabilities["validation"], predicted["validation"], classes, config)
    return Outcome(block, probabilities, predicted, temperature, offsets, tuning)


@dataclass(frozen=True)
class Uncertainty:
    """What the bundle says beside the probabilities; ``None``: it could not be fitted, or was not asked for."""

    sets: PredictionSets | None = None
    flag: FittedFlag | None = None


def fit_uncertainty(
    network: ov.Model, data: Prepared, outcome: Outcome, config: TrainConfig, report: Reporter
) -> Uncertainty:
    """Fit prediction sets and the out-of-distribution flag on rows that are not reported; measure them on the others.

    What was measured joins ``outcome.block`` as ``prediction_sets`` and ``out_of_distribution``.
    """
    if not config.uncertainty:
        return Uncertainty()

    def measured_side(side: Side, name: str) -> Measured:
        return Measured(side.records, outcome.probabilities[name], side.rows.labels)

    tuning = None if data.tuning is None else measured_side(data.tuning, "tuning")
    sets, coverage = fit_sets(tuning, measured_side(data.validation, "validation"), alpha=1.0 - config.coverage)
    flag = fit_flag(
        network,
        data.train.records,
        None if data.tuning is None else data.tuning.records,
        data.validation.records,
        seed=config.seed,
        report=report,
    )
    if coverage is not None:
        outcome.block["prediction_sets"] = coverage
    if flag is not None:
        outcome.block["out_of_distribution"] = flag.block
    return Uncertainty(sets, flag)


def decide(probabilities: NDArray[np.float64], offsets: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """Return the decision of each row, int64 (n,): the largest ``log p + offset``."""
    scores = probabilities
    if offsets is not None:
        # The floor keeps log finite and lies far below any probability that float32 logits give.
        scores = np.log(np.maximum(probabilities, 1e-300)) + offsets
    chosen: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
    return chosen


def fit_offsets(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], priors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return decision offsets ``-tau log(prior)``, tau in -0.5..1 the best of 31 for these rows.

    Dividing posteriors by class priors aims at balanced accuracy (Menon et al. 2021, "Long-tail learning via logit
    adjustment", post-hoc form); not dividing, at accuracy. One number is fitted, not one a class: the rarest classes
    have about ten tuning lesions. What is maximised is the mean of balanced accuracy and macro F1, which pull apart.

    Args:
        probabilities: float64 (n, k) of held-out rows.
        labels: int64 (n,).
        priors: float64 (k,), share of each class among the training rows.
    """
    direction = -np.log(np.maximum(priors, 1.0 / (len(labels) + 1e9)))
    scores = []
    for strength in _STRENGTHS:
        chosen = decide(probabilities, strength * direction)
        scores.append(
            balanced_accuracy_score(labels, chosen) / 2
            + f1_score(labels, chosen, average="macro", zero_division=0.0) / 2
        )
    # Neighbours are averaged: with few rows the best single value is often luck.
    padded = np.pad(scores, 2, mode="edge")
    smooth = np.convolve(padded, np.full(5, 0.2), mode="valid")
    offsets = _STRENGTHS[int(smooth.argmax())] * direction
    return np.asarray(offsets - offsets.mean(), dtype=np.float64)


def measured(
    side: Side,
    probabilities: NDArray[np.float64],
    predicted: NDArray[np.int64],
    classes: tuple[str, ...],
    config: TrainConfig,
) -> dict[str, Any]:
    """Return the metrics block of one side, with 95 % intervals by bootstrap over lesions."""
    block = evaluate_predictions(side.rows.labels, probabilities, classes, predicted=predicted)
    groups = side.records.table["lesion_id"].to_numpy()
    block["ci95"] = cluster_bootstrap(
        side.rows.labels, probabilities, groups, classes, seed=config.seed, predicted=predicted
    )
    return block


def predictions_table(data: Prepared, outcome: Outcome) -> pd.DataFrame:
    """Return image_id, lesion_id, split, true, predicted and one ``p_`` column a class: tuning, then validation."""
    tables = []
    for name, side in (("tuning", data.tuning), ("validation", data.validation)):
        if side is None:
            continue
        classes = np.array(side.records.classes)
        table = side.records.table[["image_id", "lesion_id"]].copy()
        table["split"] = name
        table["true"] = side.records.table["label"].to_numpy()
        table["predicted"] = classes[outcome.predicted[name]]
        for position, code in enumerate(classes):
            table[f"p_{code}"] = outcome.probabilities[name][:, position]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
