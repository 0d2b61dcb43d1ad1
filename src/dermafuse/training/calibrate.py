"""The judgement of a trained model: temperature and decision rule from the tuning rows, metrics of the validation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import openvino as ov
import pandas as pd
from numpy.typing import NDArray

from dermafuse.evaluation import enough
from dermafuse.evaluation.fit_uncertainty import FittedFlag, Measured, fit_flag, fit_sets, too_few_for_sets
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.predictions import check_predictions
from dermafuse.labels import LabelSet
from dermafuse.progress import Reporter
from dermafuse.runtime.bundle.schema import PredictionSets
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.decision.temperature import apply, fit_temperature
from dermafuse.training.config import TrainConfig
from dermafuse.training.decision_rule import fit_offsets, fit_shift
from dermafuse.training.loop.fit import predict_logits
from dermafuse.training.prepare import Prepared, Side


@dataclass(frozen=True)
class Calibration:
    """What turns the logits of a trained model into answers, found elsewhere: by the folds of a cross-validation.

    Attributes:
        temperature: divides the logits.
        prior_shift: float64 (k,), added to the bias of the logits; ``None``: nothing is.
        offsets: float64 (k,), added to log probabilities before the decision; ``None``: the largest decides.
    """

    temperature: float = 1.0
    prior_shift: NDArray[np.float64] | None = None
    offsets: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Outcome:
    """What was found about a trained model.

    Attributes:
        block: the metrics block of the validation rows, with ``ci95``.
        probabilities: side name -> float64 (n, k), calibrated.
        predicted: side name -> int64 (n,), the decision.
        temperature: fitted on the tuning rows; 1 where there are none.
        prior_shift: float64 (k,), added to the bias of the logits; ``None``: nothing was.
        offsets: float64 (k,), added to log probabilities before the decision; ``None``: the largest decides.
        not_fitted: what too few tuning lesions left out -> why.
    """

    block: dict[str, Any]
    probabilities: dict[str, NDArray[np.float64]]
    predicted: dict[str, NDArray[np.int64]]
    temperature: float
    prior_shift: NDArray[np.float64] | None
    offsets: NDArray[np.float64] | None
    not_fitted: dict[str, str] = field(default_factory=dict)


def judge(
    model: keras.Model,
    data: Prepared,
    config: TrainConfig,
    classes: LabelSet,
    calibration: Calibration | None = None,
) -> Outcome:
    """Predict the held-out rows, fit temperature and decision rule on the tuning rows, measure the validation rows.

    With ``decision="prior"`` the bias of ``model`` changes: its answers then have the classes as often as they occur.
    Where ``calibration`` is given nothing is fitted, nor what has too few tuning lesions (``evaluation.enough``); where
    there are no validation rows nothing is measured.
    """
    temperature, shift, offsets = 1.0, None, None
    missing: dict[str, str] = {}
    probabilities: dict[str, NDArray[np.float64]] = {}
    if calibration is not None:
        temperature, shift, offsets = calibration.temperature, calibration.prior_shift, calibration.offsets
        if shift is not None:
            model.get_layer("logits").bias.assign_add(shift)
    elif data.tuning is not None:
        tuning = predict_logits(model, data.tuning.rows)
        labels = data.tuning.rows.labels
        counts = np.bincount(data.train.rows.labels, minlength=len(classes))
        priors = counts / counts.sum()
        missing = _too_few(data.tuning, config)
        if config.decision == "prior" and "decision rule" not in missing:
            shift = fit_shift(tuning, labels, priors).astype(np.float64)
            model.get_layer("logits").bias.assign_add(shift)
            tuning = (tuning + shift).astype(np.float32)
        if "temperature" not in missing:
            temperature = fit_temperature(tuning, labels)
        probabilities["tuning"] = apply(tuning, temperature)
        if config.decision == "prior" and "decision rule" not in missing:
            offsets = fit_offsets(probabilities["tuning"], priors)
    if len(data.validation.rows):
        probabilities["validation"] = apply(predict_logits(model, data.validation.rows), temperature)
    predicted = {name: choose_labels(each, offsets) for name, each in probabilities.items()}
    block = {}
    if "validation" in probabilities:
        block = measured(data.validation, probabilities["validation"], predicted["validation"], classes, config)
    return Outcome(block, probabilities, predicted, temperature, shift, offsets, missing)


def _too_few(tuning: Side, config: TrainConfig) -> dict[str, str]:
    """Return what cannot be fitted on these tuning rows -> why."""
    count = enough.lesions(tuning.records.table["lesion_id"])
    needs = {"temperature": enough.TEMPERATURE}
    if config.decision == "prior":
        needs["decision rule"] = enough.DECISION
    whys = {thing: enough.lack(count, least, tuning.records.group) for thing, least in needs.items()}
    return {thing: why for thing, why in whys.items() if why is not None}


def scaled_by_temperature(model: keras.Model, outcome: Outcome) -> Outcome:
    """Divide the logits of ``model`` by the temperature, which is 1 afterwards: members of an ensemble share one."""
    layer = model.get_layer("logits")
    for variable in (layer.kernel, layer.bias):
        variable.assign(variable / outcome.temperature)
    return dataclasses.replace(outcome, temperature=1.0)


@dataclass(frozen=True)
class Uncertainty:
    """What the bundle says beside the probabilities; ``None``: it could not be fitted, or was not asked for."""

    sets: PredictionSets | None = None
    flag: FittedFlag | None = None


def fit_uncertainty(
    network: ov.Model, data: Prepared, outcome: Outcome, config: TrainConfig, report: Reporter
) -> Uncertainty:
    """Fit prediction sets and the out-of-distribution flag on rows that are not reported; measure them on the others.

    What was measured joins ``outcome.block`` as ``prediction_sets`` and ``out_of_distribution``; what has too few
    tuning lesions is not fitted and joins ``outcome.not_fitted``.
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
    elif data.tuning is not None:
        outcome.not_fitted["prediction sets"] = too_few_for_sets(1.0 - config.coverage, data.tuning.records.group)
    if flag is not None:
        outcome.block["out_of_distribution"] = flag.block
    else:
        group = data.train.records.group
        outcome.not_fitted["flag of strange images"] = f"fewer than {enough.FLAG} {group}s can set its threshold"
    return Uncertainty(sets, flag)


def measured(
    side: Side,
    probabilities: NDArray[np.float64],
    predicted: NDArray[np.int64],
    classes: LabelSet,
    config: TrainConfig,
) -> dict[str, Any]:
    """Return the metrics block of one side, with 95 % intervals by bootstrap over lesions."""
    groups = side.records.table["lesion_id"].to_numpy()
    rows = check_predictions(side.rows.labels, probabilities, classes, predicted=predicted, groups=groups)
    return measure(rows, seed=config.seed)


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
