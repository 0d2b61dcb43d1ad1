"""Recipe ``best``: grouped folds of the training rows times backbones, averaged, in one bundle.

Every training lesion is held out by one fold, so each backbone predicts it once without having learned from it. These
out-of-fold predictions, averaged over the backbones, do what the tuning rows of a single model do, with ten times as
many rows: they choose the decision offsets and the prediction sets. Members are RUNs of their own under
``RUN/checkpoints/members`` until the whole is finished, so a killed run continues where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermafuse import __version__
from dermafuse.announcements import announced, both_lists
from dermafuse.checks.run import check_data
from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.data.splits import Split, leakage
from dermafuse.errors import DataError
from dermafuse.evaluation import enough
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.fit_uncertainty import Measured, fit_sets, too_few_for_sets
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.metric_table import chosen_of
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.evaluation.predictions import Scored
from dermafuse.labels import LabelSet
from dermafuse.progress import Clock, Reporter, Silent
from dermafuse.report.model_card import model_card
from dermafuse.report.page import Sources, write_report
from dermafuse.runs import METRICS, RunFolder, begin
from dermafuse.runtime.bundle.evaluation import evaluation_json
from dermafuse.runtime.bundle.folder import Bundle, read_bundle, write_bundle
from dermafuse.runtime.bundle.schema import PredictionSets
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.training.claim import recorded
from dermafuse.training.config import TrainConfig, plain_settings, to_toml
from dermafuse.training.decision_rule import fit_offsets
from dermafuse.training.experiment import TrainedRun, claim_output, train_run
from dermafuse.training.first_look import choose_split
from dermafuse.training.parts import Member, members_of
from dermafuse.training.prepare import fit_encoder
from dermafuse.training.publish_check import check_published
from dermafuse.training.recipes import against_imbalance
from dermafuse.training.run_folder import combined
from dermafuse.training.tensorflow_setup import environment
from dermafuse.training.train_once import Division


@dataclass(frozen=True)
class _Trained:
    """A finished member: its backbone, its metrics and bundle, its predictions by split, and what its RUN lists."""

    backbone: str
    metrics: Mapping[str, Any]
    bundle: Bundle
    rows: Mapping[str, Scored]
    history: pd.DataFrame
    skipped: pd.DataFrame | None


def train_ensemble(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Reporter | None = None,
    fold: int | None = None,
    records: Records | None = None,
) -> TrainedRun:
    """Train ``config.members`` times ``config.member_folds`` networks, and leave one RUN folder with one bundle.

    Args:
        config: ``members`` names the backbones, ``member_folds`` how often the training lesions are divided.
        out: the RUN folder.
        resume: continue the unfinished run in ``out``, if there is one.
        overwrite: replace a run that is there.
        report: who is told the progress.
        fold: number (from 0) of the fold of ``config.folds`` to hold out; ``None``: one 80/20 split.
        records: what ``config.data`` holds, where it was read already.

    Raises:
        DermafuseError: unusable data, settings or output folder.
    """
    report = report or Silent()
    clock = Clock()
    checkpoints = claim_output(out, resume=resume, overwrite=overwrite)
    records = read_training_data(Path(config.data)) if records is None else records
    split = choose_split(records, config, fold)
    clock.lap("read")
    with recorded(checkpoints, config):
        trained = _train_members(records, split, config, checkpoints / "members", report)
    clock.skip()  # the members have counted their own time, those of an earlier session too
    for member in trained:
        clock.add(member.metrics["seconds"])
    judged = _judge(trained, records, split, config)
    if judged.missing:
        report.warn(enough.left_out(judged.missing))
    table = pd.concat([_table(judged.held_out, "tuning"), _table(judged.validation, "validation")], ignore_index=True)
    checked = check_data(records, split=split, report=report, against_imbalance=against_imbalance(config.model_dump()))
    rows = rows_of_table(table, records.labels)
    metrics = {**_metrics(config, records, split, trained, judged), **checked.to_dict()}
    metrics = enriched(metrics, rows, records, seed=config.seed)
    clock.lap("evaluate")
    with begin(out, overwrite=True) as run:
        history = pd.concat([member.history.assign(member=number) for number, member in enumerate(trained, start=1)])
        run.write(config=to_toml(config), history=history, predictions=table, skipped=trained[0].skipped)
        # What one member holds out, the others learned from.
        sides = {"train": records.subset(split.train), "validation": records.subset(split.validation)}
        card = model_card(metrics, config.model_dump())
        content = combined([member.bundle for member in trained], judged.offsets, judged.sets, card)
        content = replace(content, evaluation_json=evaluation_json(metrics, sides))
        write_bundle(run.model, content, half_weights=True)
        clock.lap("write")
        place = pd.Index(records.table["image_id"]).get_indexer(pd.Index(judged.validation.image_id))
        published = check_published(
            run.model,
            records.subset(place),
            judged.validation.probabilities,
            trained[0].metrics["network"]["precision"],
        )
        metrics |= {"published": published.block, "files": run.hashes(), "seconds": clock.seconds}
        clock.lap("verify")
        if config.report:
            sources = Sources(records, {0: published.predictor}, {"": history}, plain_settings(config))
            write_report(run.path, metrics, rows, sources, title=out.resolve().name, report=report, lap=clock.lap)
        run.finish(metrics)
    return TrainedRun(out, metrics, trained[0].metrics["network"]["parameters"])


@dataclass(frozen=True, eq=False)
class _Judged:
    """The averaged answers of all members, what was fitted on the held-out ones, and what could not be, with why."""

    held_out: Scored
    validation: Scored
    block: dict[str, Any]
    offsets: NDArray[np.float64] | None
    sets: PredictionSets | None
    missing: dict[str, str]


def _judge(trained: Sequence[_Trained], records: Records, split: Split, config: TrainConfig) -> _Judged:
    """Average, fit decision rule and prediction sets on the out-of-fold answers, and measure the validation rows."""
    held_out, validation = (
        averaged([member.rows[name] for member in trained], records.labels) for name in ("tuning", "validation")
    )
    labels = records.table["label"].iloc[split.train]
    counts = labels.value_counts().reindex(list(records.classes), fill_value=0).to_numpy(float)
    missing: dict[str, str] = {}
    offsets = None
    if config.decision == "prior":
        why = enough.lack(enough.lesions(held_out.lesion_id), enough.DECISION, records.group)
        if why is None:
            offsets = fit_offsets(held_out.probabilities, counts / counts.sum())
        else:
            missing["decision rule"] = why
    held_out, validation = (
        replace(rows, predicted=choose_labels(rows.probabilities, offsets)) for rows in (held_out, validation)
    )
    block = measure(validation, seed=config.seed)
    tuned, reported = (_measured(rows, records) for rows in (held_out, validation))
    sets, coverage = fit_sets(tuned, reported, alpha=1.0 - config.coverage) if config.uncertainty else (None, None)
    if coverage is not None:
        block["prediction_sets"] = coverage
    elif config.uncertainty:
        missing["prediction sets"] = too_few_for_sets(1.0 - config.coverage, records.group)
    return _Judged(held_out, validation, block, offsets, sets, missing)


def _metrics(
    config: TrainConfig, records: Records, split: Split, trained: Sequence[_Trained], judged: _Judged
) -> dict[str, Any]:
    """Return what ``metrics.json`` says of the whole, before anything is derived from its predictions."""
    first = trained[0].metrics
    return {
        **both_lists(announced(first)),
        "recipe": first["recipe"],
        "data": {**first["data"], "train": len(split.train), "tuning": len(judged.held_out)},
        "dermafuse": __version__,
        "research_use_only": True,
        "labels": records.labels.to_json(),
        "validation": judged.block,
        "leakage": leakage(records, split).to_dict(),
        "training": {
            **{name: first["training"][name] for name in ("early_stopping_rows", "monitor")},
            "temperature": 1.0,
            "prior_shift": None,
            "decision_offsets": None if judged.offsets is None else judged.offsets.tolist(),
            "not_fitted": judged.missing,
        },
        "network": {**first["network"], "backbone": " + ".join(config.members)},
        "members": [_described(member) for member in trained],
        "environment": environment(),
    }


def _train_members(
    records: Records, split: Split, config: TrainConfig, folder: Path, report: Reporter
) -> list[_Trained]:
    members = list(members_of(config, records, split))
    trained: list[_Trained] = []
    for each in members:
        where = folder / each.name
        if not (where / METRICS).exists():
            report.say(f"Member {len(trained) + 1} of {len(members)}: {each.backbone}, part {each.part}")
            train_member(each, where, records, split, config, report)
            # Dozens of networks in one process: what Keras keeps of the last one is of no use to the next.
            keras.backend.clear_session()
        trained.append(_read(where, each.backbone))
    return trained


def train_member(
    member: Member, folder: Path, records: Records, split: Split, config: TrainConfig, report: Reporter
) -> None:
    """Train one member of the ensemble ``config``, or go on with it, and leave its RUN in ``folder``."""
    rows = Division(split, member.tuning, fit_encoder(records.subset(split.train), config))
    train_run(member.config, folder, resume=True, report=report, member=rows, records=records)


def _read(folder: Path, backbone: str) -> _Trained:
    run = RunFolder.open(folder)
    return _Trained(backbone, run.metrics, read_bundle(folder), run.rows, run.history, run.skipped)


def averaged(parts: Sequence[Scored], classes: LabelSet) -> Scored:
    """Return every image once, sorted by id, with the mean of the probabilities that the members gave it.

    Members may have predicted different images, but each image as often as any other.

    Raises:
        DataError: an image was predicted more often than another.
    """
    ids = np.concatenate([rows.image_id for rows in parts])
    probabilities = np.concatenate([rows.probabilities for rows in parts])
    unique, first, place, times = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    if len(set(times.tolist())) > 1:
        raise DataError(
            f"The members of the ensemble predicted {unique[times.argmax()]} {times.max()} times and "
            f"{unique[times.argmin()]} {times.min()} times; start again with --overwrite."
        )
    mean = np.zeros((len(unique), len(classes)))
    np.add.at(mean, place, probabilities)
    mean /= times[:, None]
    whole = {name: np.concatenate([getattr(rows, name) for rows in parts])[first] for name in ("lesion_id", "true")}
    return Scored(
        classes, unique, whole["lesion_id"], whole["true"], mean.argmax(axis=1), mean, np.zeros(len(unique), np.int64)
    )


def _measured(rows: Scored, records: Records) -> Measured:
    place = pd.Index(records.table["image_id"]).get_indexer(pd.Index(rows.image_id))
    return Measured(records.subset(place), rows.probabilities, rows.true)


def _table(rows: Scored, split: str) -> pd.DataFrame:
    classes = np.array(rows.classes)
    table = pd.DataFrame({"image_id": rows.image_id, "lesion_id": rows.lesion_id, "split": split})
    table["true"], table["predicted"] = classes[rows.true], classes[rows.predicted]
    for position, code in enumerate(rows.classes):
        table[f"p_{code}"] = rows.probabilities[:, position]
    return table


def _described(member: _Trained) -> dict[str, Any]:
    block = member.metrics["validation"]
    return {
        "backbone": member.backbone,
        "best_epoch": member.metrics["training"]["best_epoch"],
        "seconds": member.metrics["seconds"]["total"],
        "computed_by": member.metrics.get("computed_by"),
        **chosen_of(block, "change"),
    }
