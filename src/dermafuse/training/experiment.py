"""A training run from data to RUN folder: read, split, extract, fit, judge, write."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dermafuse import __version__
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.readers import read_dataset
from dermafuse.data.records import Records
from dermafuse.data.splits import Split
from dermafuse.errors import OutputError
from dermafuse.evaluation.checks.data_checks import check_data
from dermafuse.evaluation.enrich import enriched
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.evaluation.report.make import make_report
from dermafuse.files import check_output_folder, folder_atomic, write_atomic
from dermafuse.models.classifier import parameter_counts
from dermafuse.models.weights import is_random
from dermafuse.progress import Reporter, Silent
from dermafuse.training.audit import AUDITS
from dermafuse.training.config import TrainConfig, to_toml
from dermafuse.training.environment import environment
from dermafuse.training.fit import FitResult, fit
from dermafuse.training.judging import fit_uncertainty, judge, predictions_table, scaled_by_temperature
from dermafuse.training.networks import Plan, deployable, head_spec, inference_model, plan_network, trainable_model
from dermafuse.training.prepare import Prepared, choose_split, prepare
from dermafuse.training.progress import step_counter
from dermafuse.training.run_folder import write_run

#: Folder of partial work inside RUN.
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainedRun:
    """What a run leaves in memory, beside its folder.

    Attributes:
        out: the RUN folder.
        metrics: content of ``metrics.json``.
        parameters: total and trainable numbers of the network.
    """

    out: Path
    metrics: Mapping[str, Any]
    parameters: Mapping[str, int]


@dataclass(frozen=True)
class Member:
    """The rows of one member of an ensemble.

    Attributes:
        split: all training rows of the ensemble, and the rows that are reported.
        tuning: of the training rows those that this member does not learn from.
        encoder: of the metadata, the same for all members.
    """

    split: Split
    tuning: NDArray[np.int64]
    encoder: MetadataEncoder


class _Clock:
    """Seconds of each part of the run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = self._start = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = round(self.seconds.get(part, 0.0) + now - self._last, 3)
        self.seconds["total"] = round(now - self._start, 3)
        self._last = now


def train_run(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Reporter | None = None,
    fold: int | None = None,
    audits: Sequence[str] = (),
    member: Member | None = None,
) -> TrainedRun:
    """Train and judge one model, and leave a complete RUN folder.

    Until the run is complete, ``out`` holds ``checkpoints/`` alone; the rest appears at once, by renaming.

    Args:
        config: what to do.
        out: the RUN folder.
        resume: continue the unfinished run in ``out``, if there is one.
        overwrite: replace a run that is there.
        report: who is told the progress.
        fold: number (from 0) of the fold of ``config.folds`` to hold out; ``None``: one 80/20 split.
        member: rows that this run has as a part of an ensemble, instead of a split of its own.
        audits: of ``training.audit.AUDITS``: further trainings of the same recipe that measure one effect each.

    Raises:
        DermafuseError: unusable data, settings or output folder.
    """
    report = report or Silent()
    clock = _Clock()
    checkpoints = claim_output(out, resume=resume, overwrite=overwrite)
    plan = plan_network(config)
    records = read_dataset(Path(config.data))
    for note in records.notes:
        report.say(note)
    warnings = announcements(config, records)
    for warning in warnings:
        report.warn(warning)
    clock.lap("read")
    keras.utils.set_random_seed(config.seed)
    if member is None:
        split = choose_split(records, config, fold)
        data = prepare(records, config, plan, report, split)
    else:
        split = member.split
        data = prepare(records, config, plan, report, split, tuning=member.tuning, encoder=member.encoder)
    clock.lap("extract")
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_atomic(checkpoints / "config.toml", to_toml(config))
    head = head_spec(config, len(records.classes), data.encoder.width)
    model = trainable_model(plan, head, config)
    parameters = whole_parameters(model, plan)
    report.say(
        f"{plan.backbone.name}: {parameters['total']:,} parameters, {parameters['trainable']:,} of them trained; "
        f"{len(data.train.rows):,} images to learn from, {len(data.validation.rows):,} to validate."
    )
    clock.lap("build")
    result = _fit(model, data, plan, config, len(records.classes), checkpoints, report)
    model = inference_model(model, plan, head, config)
    clock.lap("train")
    outcome = judge(model, data, config, records.classes)
    if member is not None:
        outcome = scaled_by_temperature(model, outcome)
    network = deployable(model, plan, config)
    uncertainty = fit_uncertainty(network, data, outcome, config, report)
    clock.lap("evaluate")
    audited = {name: AUDITS[name](config, report) for name in audits}
    clock.lap("audit")
    table = predictions_table(data, outcome)
    metrics: dict[str, Any] = {
        "dermafuse": __version__,
        "research_use_only": True,
        "announcements": warnings,
        "recipe": config.recipe,
        "data": _describe_data(records, data),
        "validation": outcome.block,
        "leakage": data.leakage,
        "training": {
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "stopped_early": result.stopped_early,
            "resumed_from_epoch": result.resumed_from,
            "early_stopping_rows": config.early_stopping_rows,
            "monitor": config.monitor,
            "temperature": outcome.temperature,
            "prior_shift": None if outcome.prior_shift is None else outcome.prior_shift.tolist(),
            "decision_offsets": None if outcome.offsets is None else outcome.offsets.tolist(),
        },
        "network": {
            "backbone": plan.backbone.name,
            "weights": plan.weights,
            "image_size": plan.image_size,
            "cut": plan.cut,
            "precision": plan.precision,
            "images_computed": data.computed,
            "parameters": dict(parameters),
        },
        "environment": environment(),
        "seconds": clock.seconds,
        **({"audits": audited} if audited else {}),
        **check_data(records, split=split, report=report).to_dict(),
    }
    metrics = enriched(metrics, rows_of_table(table, records.classes), records, seed=config.seed)
    clock.lap("evaluate")
    with folder_atomic(out, overwrite=True) as folder:
        write_run(
            folder, config=config, plan=plan, model=model, network=network, head=head, data=data, outcome=outcome,
            uncertainty=uncertainty, result=result, table=table, metrics=metrics, clock=clock.lap,
        )  # fmt: skip
        if config.report:
            make_report(folder, data=Path(config.data), title=out.resolve().name, report=report)
            clock.lap("report")
    return TrainedRun(out, metrics, parameters)


def claim_output(out: Path, *, resume: bool, overwrite: bool) -> Path:
    """Check that the run may be written to ``out``, before any work; return the folder for its checkpoints.

    Raises:
        OutputError: a finished run is there and may not be replaced, or an unfinished one and neither
            ``resume`` nor ``overwrite`` says what to do with it, or nothing can be written there.
    """
    checkpoints = out / CHECKPOINTS
    unfinished = checkpoints.is_dir() and not (out / "metrics.json").exists()
    if unfinished and not resume and not overwrite:
        raise OutputError(f"{out} holds an unfinished run; add --resume to continue it, or --overwrite to start again.")
    if not unfinished:
        check_output_folder(out, overwrite=overwrite)
    elif not resume:
        shutil.rmtree(checkpoints)
    return checkpoints


def announcements(config: TrainConfig, records: Records) -> list[str]:
    """Return what must be said wherever the numbers of this run appear."""
    said = []
    if records.synthetic:
        said.append("SYNTHETIC DATA: these numbers say nothing about real skin lesions.")
    if is_random(config.weights):
        said.append("RANDOM WEIGHTS: the backbone was not pretrained; for tests only.")
    if not records.has_metadata:
        said.append("NO METADATA in this data set: the model sees the image alone.")
    if not records.has_lesions:
        said.append("LESIONS UNKNOWN: images of one lesion may be on both sides of the split.")
    if config.early_stopping_rows == "validation":
        said.append("Early stopping looked at the validation rows (as the reference does): slightly optimistic.")
    return said


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
    classes: int,
    checkpoints: Path,
    report: Reporter,
) -> FitResult:
    augment = plan.cut == "image" and plan.trainable_from is not None
    if augment:
        report.say("The whole network is in the training graph: images are augmented, nothing is cached.")
    watched = data.tuning or data.validation
    with report.bar("Training", config.epochs * -(-len(data.train.rows) // config.batch_size), "steps") as advance:
        return fit(
            model, data.train.rows, watched.rows, config,
            classes=classes, dropout=data.dropout, augment=augment, checkpoints=checkpoints,
            run=run_identity(config, data), on_step=step_counter(advance),
        )  # fmt: skip


def whole_parameters(model: keras.Model, plan: Plan) -> dict[str, int]:
    """Return total and trainable parameter counts, the frozen part in front of the cut included."""
    counts = parameter_counts(model)
    frozen = 0
    if plan.cached:
        inside = sum(
            int(np.prod(weight.shape)) for layer in model.layers for weight in layer.weights
            if layer.name.startswith(("block", "stem", "top"))
        )  # fmt: skip
        frozen = plan.backbone.parameters - inside
    return {"total": counts["total"] + frozen, "trainable": counts["trainable"]}


def _describe_data(records: Records, data: Prepared) -> dict[str, Any]:
    return {
        "layout": records.layout,
        "images": len(records),
        "classes": list(records.classes),
        "synthetic": records.synthetic,
        "train": len(data.train.rows),
        "tuning": 0 if data.tuning is None else len(data.tuning.rows),
        "validation": len(data.validation.rows),
        "skipped": len(data.skipped),
        "metadata_columns": list(data.encoder.feature_names),
    }
