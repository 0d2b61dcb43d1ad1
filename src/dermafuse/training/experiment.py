"""A training run from data to RUN folder: read, split, extract, fit, judge, write."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dermafuse import __version__
from dermafuse.announcements import Announcement, both_lists
from dermafuse.checks.run import check_data
from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.evaluation import enough
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.glance import metadata_alone
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.models.weights import is_random
from dermafuse.parallel import origin
from dermafuse.progress import Clock, Reporter, Silent
from dermafuse.report.page import Sources, write_report
from dermafuse.runs import begin
from dermafuse.runtime.bundle.folder import write_bundle
from dermafuse.training import run_folder
from dermafuse.training.audit import AUDITS
from dermafuse.training.calibrate import fit_uncertainty, predictions_table, scaled_by_temperature
from dermafuse.training.claim import CHECKPOINTS, check_output, recorded
from dermafuse.training.config import TrainConfig, plain_settings, to_toml
from dermafuse.training.first_look import choose_split
from dermafuse.training.partition import deployable, judged_precision, plan_network
from dermafuse.training.prepare import Prepared
from dermafuse.training.publish_check import check_published
from dermafuse.training.recipes import against_imbalance
from dermafuse.training.tensorflow_setup import environment
from dermafuse.training.train_once import Division, Trained, train_once


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
    clock = Clock()
    checkpoints = claim_output(out, resume=resume, overwrite=overwrite)
    plan_network(config)  # refuses what cannot be built before any image is read
    records = read_training_data(Path(config.data)) if records is None else records
    for note in records.notes:
        report.say(note)
    said = list(announcements(config, records))
    for each in said:
        report.warn(each.text)
    clock.lap("read")
    division = member or Division(choose_split(records, config, fold))
    with recorded(checkpoints, config, audits):
        trained = train_once(config, records, division, report, checkpoints=checkpoints, lap=clock.lap)
    if member is not None:
        trained = replace(trained, outcome=scaled_by_temperature(trained.model, trained.outcome))
    network = deployable(trained.model, trained.plan, config, report)
    uncertainty = fit_uncertainty(network, trained.data, trained.outcome, config, report)
    if trained.outcome.not_fitted:
        report.warn(enough.left_out(trained.outcome.not_fitted))
    clock.lap("evaluate")
    audited = {name: AUDITS[name](records, config, report) for name in audits}
    clock.lap("audit")
    table = predictions_table(trained.data, trained.outcome)
    rows = rows_of_table(table, records.labels)
    checked = check_data(
        records, split=division.split, report=report, against_imbalance=against_imbalance(config.model_dump())
    )
    metrics = {
        **_metrics(config, records, trained, said),
        **({"audits": audited} if audited else {}),
        **checked.to_dict(),
    }
    sides = trained.data.train.rows, trained.data.validation.rows
    alone = metadata_alone((sides[0].meta, sides[0].labels), sides[1].meta, rows["validation"])
    if alone is not None:
        metrics["validation"] = {**metrics["validation"], "baselines": {"metadata": alone}}
    metrics = enriched(metrics, rows, records, seed=config.seed)
    clock.lap("evaluate")
    with begin(out, overwrite=True) as run:
        history = pd.DataFrame(trained.result.history)
        run.write(config=to_toml(config), history=history, predictions=table, skipped=trained.data.skipped)
        run_folder.save_trained_weights(run.path / run_folder.TRAINED_WEIGHTS, trained.model)
        learned = None if member is not None else run_folder.roles(trained.data)
        write_bundle(run.model, run_folder.bundle_content(config, trained, network, uncertainty, metrics, learned))
        clock.lap("write")
        judged = trained.data.validation.records, trained.outcome.probabilities["validation"]
        published = check_published(run.model, *judged, judged_precision(trained.plan))
        metrics |= {"published": published.block, "files": run.hashes(), "seconds": clock.seconds}
        clock.lap("verify")
        if config.report:
            sources = Sources(records, {0: published.predictor}, {"": history}, plain_settings(config))
            write_report(run.path, metrics, rows, sources, title=out.resolve().name, report=report, lap=clock.lap)
        run.finish(metrics)
    return TrainedRun(out, metrics, trained.parameters)


def _metrics(config: TrainConfig, records: Records, trained: Trained, said: Sequence[Announcement]) -> dict[str, Any]:
    """Return what ``metrics.json`` says of one trained network, before anything is derived from its predictions."""
    plan, data, result, outcome = trained.plan, trained.data, trained.result, trained.outcome
    return {
        "dermafuse": __version__,
        "research_use_only": True,
        **both_lists(said),
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
            "activations_from": data.sources,
            "parameters": dict(trained.parameters),
        },
        "environment": environment(),
        "computed_by": origin(),
    }


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


def announcements(config: TrainConfig, records: Records) -> Iterator[Announcement]:
    """Yield what must be said wherever the numbers of this run appear."""
    if records.synthetic:
        yield Announcement.fixed("synthetic_data")
    if is_random(config.weights):
        yield Announcement.fixed("random_weights")
    if not records.has_metadata:
        yield Announcement.fixed("no_metadata")
    empty = [code for code, count in records.counts().items() if not count]
    if empty:
        yield Announcement(
            "empty_classes",
            f"NO IMAGES of {', '.join(empty)} in the data: the model has an answer for each of these classes that "
            "nothing was learned about.",
        )
    if not records.has_lesions:
        yield Announcement.fixed("lesions_unknown")
    if config.early_stopping_rows == "validation":
        yield Announcement.fixed("early_stopping_on_validation")


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
