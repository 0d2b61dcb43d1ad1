"""One training: prepare -> fit -> judge, the same for a run, a member of an ensemble, an audit and a release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.records import Records
from dermafuse.data.splits import Split
from dermafuse.models.classifier import HeadSpec, is_head, parameter_counts
from dermafuse.progress import Reporter
from dermafuse.training.calibrate import Calibration, Outcome, judge
from dermafuse.training.config import TrainConfig
from dermafuse.training.loop.fit import FitResult, fit
from dermafuse.training.partition import Plan, head_spec, inference_model, plan_network, trainable_model
from dermafuse.training.prepare import Prepared, prepare


@dataclass(frozen=True)
class Division:
    """Which rows do what.

    Attributes:
        split: the rows to learn from, tuning rows among them, and the rows that are reported.
        tuning: of the training rows those to hold out; ``None``: drawn as ``config.tuning_fraction`` says.
        encoder: of the metadata; ``None``: fitted on the rows that are learned from.
    """

    split: Split
    tuning: NDArray[np.int64] | None = None
    encoder: MetadataEncoder | None = None


@dataclass(frozen=True)
class Trained:
    """One trained and judged network.

    Attributes:
        plan: where the network was cut.
        head: what stands behind the backbone.
        data: its rows.
        model: what Keras trained, in float32, with the weights of the best epoch.
        parameters: total and trainable numbers, the frozen front included.
        result: the course of training.
        outcome: calibration, decisions and metrics.
    """

    plan: Plan
    head: HeadSpec
    data: Prepared
    model: keras.Model
    parameters: Mapping[str, int]
    result: FitResult
    outcome: Outcome


def train_once(
    config: TrainConfig,
    records: Records,
    division: Division,
    report: Reporter,
    *,
    calibration: Calibration | None = None,
    checkpoints: Path | None = None,
    lap: Callable[[str], None] = lambda part: None,
) -> Trained:
    """Train one network as ``config`` says, and judge it.

    Args:
        config: what to do.
        records: the data set.
        division: its rows; without validation rows nothing is measured.
        report: who is told the progress.
        calibration: temperature, shift and offsets found elsewhere; ``None``: fitted on the tuning rows.
        checkpoints: folder of the unfinished run, continued where it holds a checkpoint; ``None``: none is kept.
        lap: told the name of each part that is done.

    Raises:
        DermafuseError: unusable data or settings, or a checkpoint of another run.
    """
    plan = plan_network(config)
    keras.utils.set_random_seed(config.seed)
    data = prepare(records, config, plan, report, division.split, tuning=division.tuning, encoder=division.encoder)
    lap("extract")
    head = head_spec(config, len(records.classes), data.encoder.width)
    model = trainable_model(plan, head, config)
    parameters = whole_parameters(model, plan)
    report.say(
        f"{plan.backbone.name}: {parameters['total']:,} parameters, {parameters['trainable']:,} of them trained; "
        f"{len(data.train.rows):,} images to learn from, {len(data.validation.rows):,} to validate."
    )
    lap("build")
    result = _fit(model, data, plan, config, checkpoints, report)
    model = inference_model(model, plan, head, config)
    lap("train")
    outcome = judge(model, data, config, records.labels, calibration)
    lap("evaluate")
    return Trained(plan, head, data, model, parameters, result, outcome)


def run_identity(config: TrainConfig, data: Prepared) -> str:
    """Return a hash of everything that decides the course of training; where data and cache lie does not."""
    settings = config.model_dump(exclude={"data"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for side in (data.train, data.tuning, data.validation):
        if side is not None:
            digest.update("\n".join(side.records.table["image_id"]).encode())
            digest.update(side.rows.labels.tobytes())
            digest.update(side.rows.meta.tobytes())
            digest.update(b"" if side.rows.targets is None else side.rows.targets.tobytes())
    return digest.hexdigest()[:24]


def _fit(
    model: keras.Model,
    data: Prepared,
    plan: Plan,
    config: TrainConfig,
    checkpoints: Path | None,
    report: Reporter,
) -> FitResult:
    augment = plan.cut == "image" and plan.trainable_from is not None
    if augment:
        report.say("The whole network is in the training graph: images are augmented, nothing is cached.")
    watched = (data.tuning or data.validation).rows
    with report.bar("Training", config.epochs * -(-len(data.train.rows) // config.batch_size), "steps") as advance:
        return fit(
            model,
            data.train.rows,
            watched if len(watched) else None,
            config,
            classes=len(data.train.records.classes),
            dropout=data.dropout,
            augment=augment,
            checkpoints=checkpoints,
            run=run_identity(config, data),
            on_step=step_counter(advance),
        )


def whole_parameters(model: keras.Model, plan: Plan) -> dict[str, int]:
    """Return total and trainable parameter counts, the frozen part in front of the cut included."""
    counts = parameter_counts(model)
    frozen = 0
    if plan.cached:
        own = [layer for layer in model.layers if not is_head(layer.name)]
        inside = sum(int(np.prod(weight.shape)) for layer in own for weight in layer.weights)
        frozen = plan.backbone.parameters - inside
    return {"total": counts["total"] + frozen, "trainable": counts["trainable"]}


def step_counter(advance: Callable[[int], None]) -> Callable[[int, int, int], None]:
    """Return an ``on_step`` for ``fit`` that tells ``advance`` how many more steps are done over all epochs."""
    done = 0

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal done
        now = epoch * steps + step
        advance(now - done)
        done = now

    return on_step
