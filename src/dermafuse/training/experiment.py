"""A training run from data to RUN folder: read, split, extract, fit, judge, write."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dermafuse import __version__
from dermafuse.checks.run import check_data
from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.evaluation import enough
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.files import folder_atomic
from dermafuse.models.weights import is_random
from dermafuse.progress import Reporter, Silent
from dermafuse.report.page import Sources, write_report
from dermafuse.training.audit import AUDITS
from dermafuse.training.calibrate import fit_uncertainty, predictions_table, scaled_by_temperature
from dermafuse.training.claim import CHECKPOINTS, check_output, recorded
from dermafuse.training.config import TrainConfig, plain_settings
from dermafuse.training.environment import environment
from dermafuse.training.first_look import choose_split
from dermafuse.training.partition import deployable, plan_network
from dermafuse.training.prepare import Prepared
from dermafuse.training.recipes import against_imbalance
from dermafuse.training.run_folder import write_run
from dermafuse.training.train_once import Division, train_once


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
    member: Division | None = None,
    records: Records | None = None,
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
        records: what ``config.data`` holds, where it was read already.
        audits: of ``training.audit.AUDITS``: further trainings of the same recipe that measure one effect each.

    Raises:
        DermafuseError: unusable data, settings or output folder.
    """
    report = report or Silent()
    clock = _Clock()
    checkpoints = claim_output(out, resume=resume, overwrite=overwrite)
    plan_network(config)  # refuses what cannot be built before any image is read
    records = read_training_data(Path(config.data)) if records is None else records
    for note in records.notes:
        report.say(note)
    warnings = announcements(config, records)
    for warning in warnings:
        report.warn(warning)
    clock.lap("read")
    division = member or Division(choose_split(records, config, fold))
    with recorded(checkpoints, config, audits):
        trained = train_once(config, records, division, report, checkpoints=checkpoints, lap=clock.lap)
    plan, model, data, result, outcome = trained.plan, trained.model, trained.data, trained.result, trained.outcome
    if member is not None:
        outcome = scaled_by_temperature(model, outcome)
    network = deployable(model, plan, config, report)
    uncertainty = fit_uncertainty(network, data, outcome, config, report)
    if outcome.not_fitted:
        report.warn(enough.left_out(outcome.not_fitted))
    clock.lap("evaluate")
    audited = {name: AUDITS[name](config, report) for name in audits}
    clock.lap("audit")
    table = predictions_table(data, outcome)
    metrics: dict[str, Any] = {
        "dermafuse": __version__,
        "research_use_only": True,
        "announcements": warnings,
        "recipe": config.recipe,
        "labels": records.labels.to_json(),
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
            "not_fitted": outcome.not_fitted,
        },
        "network": {
            "backbone": plan.backbone.name,
            "weights": plan.weights,
            "image_size": plan.image_size,
            "cut": plan.cut,
            "frozen": plan.trainable_from is None,
            "precision": plan.precision,
            "images_computed": data.computed,
            "parameters": dict(trained.parameters),
        },
        "environment": environment(),
        "seconds": clock.seconds,
        **({"audits": audited} if audited else {}),
        **check_data(
            records, split=division.split, report=report, against_imbalance=against_imbalance(config.model_dump())
        ).to_dict(),
    }
    rows = rows_of_table(table, records.labels)
    metrics = enriched(metrics, rows, records, seed=config.seed)
    clock.lap("evaluate")
    with folder_atomic(out, overwrite=True) as folder:
        predictor = write_run(
            folder,
            config=config,
            plan=plan,
            model=model,
            network=network,
            head=trained.head,
            data=data,
            outcome=outcome,
            uncertainty=uncertainty,
            result=result,
            table=table,
            metrics=metrics,
            clock=clock.lap,
        )
        if config.report:
            sources = Sources(records, {0: predictor}, {"": pd.DataFrame(result.history)}, plain_settings(config))
            write_report(folder, metrics, rows, sources, title=out.resolve().name, report=report)
            clock.lap("report")
    return TrainedRun(out, metrics, trained.parameters)


def claim_output(out: Path, *, resume: bool, overwrite: bool) -> Path:
    """Check that the run may be written to ``out``, before any work; return the folder for its checkpoints.

    Raises:
        OutputError: a finished run is there and may not be replaced, or an unfinished one and neither
            ``resume`` nor ``overwrite`` says what to do with it, or nothing can be written there.
    """
    unfinished = check_output(out, resume=resume, overwrite=overwrite)
    checkpoints = out / CHECKPOINTS
    if unfinished and not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)  # an unfinished cross-validation has none
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
    empty = [code for code, count in records.counts().items() if not count]
    if empty:
        said.append(
            f"NO IMAGES of {', '.join(empty)} in the data: the model has an answer for each of these classes that "
            "nothing was learned about."
        )
    if not records.has_lesions:
        said.append("LESIONS UNKNOWN: images of one lesion may be on both sides of the split.")
    if config.early_stopping_rows == "validation":
        said.append("Early stopping looked at the validation rows (as the reference does): slightly optimistic.")
    return said


def _describe_data(records: Records, data: Prepared) -> dict[str, Any]:
    return {
        "layout": records.layout,
        "images": len(records),
        "classes": list(records.classes),
        "group": records.group,
        "synthetic": records.synthetic,
        "train": len(data.train.rows),
        "tuning": 0 if data.tuning is None else len(data.tuning.rows),
        "validation": len(data.validation.rows),
        "skipped": len(data.skipped),
        "metadata_columns": list(data.encoder.feature_names),
    }
