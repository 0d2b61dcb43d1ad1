"""Cross-validation: one run a fold, pooled out-of-fold predictions, mean and spread over the folds."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dermafuse import __version__
from dermafuse.announcements import announced, both_lists
from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.errors import ConfigError
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.metric_table import shown
from dermafuse.evaluation.metrics import labels_of
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.parallel import Part
from dermafuse.progress import Clock, Reporter
from dermafuse.report.page import Sources, write_report
from dermafuse.runs import METRICS, MODEL, RunFolder, RunWriter, read_metrics
from dermafuse.training.claim import all_parts_are_there, check_output, recorded
from dermafuse.training.config import TrainConfig, plain_settings
from dermafuse.training.ensemble import train_ensemble
from dermafuse.training.experiment import train_run


def cross_validate(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    report: Reporter,
    records: Records | None = None,
    part: Part | None = None,
) -> Mapping[str, Any]:
    """Train ``config.folds`` models, each judged on the fold it did not see; return the joint metrics.

    ``out`` gets ``fold-1`` ... ``fold-K`` (complete RUN folders), ``predictions.csv`` with one out-of-fold
    prediction an image, and ``metrics.json``: ``validation`` (pooled), ``folds`` (mean, standard deviation
    and value of each fold). With ``resume`` finished folds are kept and the unfinished one is continued.
    With ``part`` only those folds are trained, nothing is joined, and nothing returned.

    Raises:
        ConfigError: fewer than two folds.
    """
    if config.folds < 2:
        raise ConfigError(f"--folds {config.folds} cannot cross-validate; use 2 or more (0: a single 80/20 split).")
    clock = Clock()
    unfinished = check_output(out, resume=resume, overwrite=overwrite)
    if out.exists() and not (unfinished and resume):
        shutil.rmtree(out)
    records = read_training_data(Path(config.data)) if records is None else records
    clock.lap("read")
    with recorded(out, config):
        folders = _train_folds(config, out, records, report, part)
    if part is not None:
        return {}
    clock.skip()  # the folds have counted their own time
    tables = [_validation_rows(folder).assign(fold=fold) for fold, folder in enumerate(folders, start=1)]
    table = pd.concat(tables).sort_values("image_id")
    metrics = joint_metrics(folders, table, config)
    rows = rows_of_table(table, labels_of(metrics))
    metrics = enriched(metrics, rows, records, seed=config.seed)
    clock.add(metrics["seconds"])
    clock.lap("evaluate")
    run = RunWriter(out)  # in its place: the folds are there
    run.write(predictions=table)
    metrics |= {"files": run.hashes(), "seconds": clock.seconds}
    if config.report:
        parts = dict(enumerate(folders, start=1))
        bundles = {number: folder / MODEL for number, folder in parts.items()}
        histories = {f"fold {number}": RunFolder.open(folder).histories[""] for number, folder in parts.items()}
        sources = Sources(records, bundles, histories, plain_settings(config))
        write_report(out, metrics, rows, sources, title=out.resolve().name, report=report, lap=clock.lap)
    run.finish(metrics)
    all_parts_are_there(out)
    return metrics


def _train_folds(config: TrainConfig, out: Path, records: Records, report: Reporter, part: Part | None) -> list[Path]:
    """Train the folds (of a part) that are not finished; return the RUN folders of all."""
    folders = [out / f"fold-{number}" for number in range(1, config.folds + 1)]
    for fold, folder in enumerate(folders):
        if part is not None and not part.has(fold):
            continue
        if (folder / METRICS).is_file():
            report.say(f"Fold {fold + 1} of {config.folds} is finished already.")
            continue
        report.say(f"Fold {fold + 1} of {config.folds}")
        train_fold(config, folder, fold, records, report)
    return folders


def train_fold(config: TrainConfig, folder: Path, fold: int, records: Records, report: Reporter) -> None:
    """Train fold ``fold`` (from 0), or go on with it, and leave its RUN in ``folder``."""
    train_one = train_ensemble if config.members else train_run
    train_one(config, folder, resume=True, overwrite=False, report=report, fold=fold, records=records)


def joint_metrics(folders: Sequence[Path], pooled: pd.DataFrame, config: TrainConfig) -> dict[str, Any]:
    """Return the metrics of finished fold runs: pooled block with intervals, mean and spread, the parts."""
    parts = [read_metrics(folder) for folder in folders]
    classes = labels_of(parts[0])
    rows = rows_of_table(pooled.assign(split="validation"), classes)["validation"]
    block = measure(rows, seed=config.seed)
    values = {each.key: [each.within(part["validation"]) for part in parts] for each in shown("folds")}
    return {
        "dermafuse": __version__,
        "research_use_only": True,
        **both_lists(announced(parts[0])),
        "recipe": config.recipe,
        "data": parts[0]["data"],
        "labels": classes.to_json(),
        "validation": block,
        "folds": {name: _over_folds(each) for name, each in values.items()},
        "leakage": joint_leakage([part["leakage"] for part in parts]),
        "network": parts[0]["network"],
        "environment": parts[0]["environment"],
        "computed_by": [part.get("computed_by") for part in parts],
        "seconds": {key: round(sum(part["seconds"].get(key, 0.0) for part in parts), 3) for key in parts[0]["seconds"]},
    }


def _over_folds(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean and spread over the folds that know the figure: a fold without a class has no AUROC of it."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "standard_deviation": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }


def joint_leakage(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the leakage of the folds: every image is in one validation part."""
    sums = ("shared_lesions", "leaked_images", "validation_images")
    total: dict[str, Any] = {**parts[0], **{name: sum(part[name] for part in parts) for name in sums}}
    total["share"] = total["leaked_images"] / max(total["validation_images"], 1)
    total["per_class"] = {
        code: {
            key: sum(part["per_class"][code][key] for part in parts if code in part["per_class"])
            for key in ("leaked_images", "validation_images")
        }
        for code in sorted({code for part in parts for code in part["per_class"]})
    }
    for cell in total["per_class"].values():
        cell["share"] = cell["leaked_images"] / max(cell["validation_images"], 1)
    return total


def _validation_rows(folder: Path) -> pd.DataFrame:
    table = RunFolder.open(folder).predictions
    return table[table["split"] == "validation"]
