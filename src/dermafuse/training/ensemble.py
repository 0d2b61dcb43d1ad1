"""Recipe ``best``: grouped folds of the training rows times backbones, averaged, in one bundle.

Every training lesion is held out by one fold, so each backbone predicts it once without having learned from it. These
out-of-fold predictions, averaged over the backbones, do what the tuning rows of a single model do, with ten times as
many rows: they choose the decision offsets and the prediction sets. Members are RUNs of their own under
``RUN/checkpoints/members`` until the whole is finished, so a killed run continues where it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermafuse import __version__
from dermafuse.checks.run import check_data
from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.data.splits import Split, leakage, make_folds
from dermafuse.errors import DataError
from dermafuse.evaluation import enough
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.fit_uncertainty import Measured, fit_sets, too_few_for_sets
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.metric_table import chosen_of
from dermafuse.evaluation.prediction_rows import read_rows, rows_of_table
from dermafuse.evaluation.predictions import Scored
from dermafuse.files import folder_atomic, write_json
from dermafuse.labels import LabelSet
from dermafuse.progress import Reporter, Silent
from dermafuse.report.model_card import model_card
from dermafuse.report.page import make_report
from dermafuse.runs import CONFIG, HISTORY, METRICS, PREDICTIONS, SKIPPED, read_metrics
from dermafuse.runtime.bundle.evaluation import evaluation_json
from dermafuse.runtime.bundle.folder import Bundle, BundleContent, read_bundle, write_bundle
from dermafuse.training.claim import recorded
from dermafuse.training.config import TrainConfig, to_toml
from dermafuse.training.decision_rule import decide, fit_offsets
from dermafuse.training.environment import environment
from dermafuse.training.experiment import TrainedRun, claim_output, train_run
from dermafuse.training.first_look import choose_split
from dermafuse.training.prepare import fit_encoder
from dermafuse.training.publish_check import check_published
from dermafuse.training.recipes import against_imbalance
from dermafuse.training.train_once import Division


@dataclass(frozen=True)
class _Trained:
    """A finished member: its backbone, its metrics and bundle, and its predictions by split."""

    backbone: str
    metrics: Mapping[str, Any]
    bundle: Bundle
    rows: Mapping[str, Scored]
    history: pd.DataFrame


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
    started = time.perf_counter()
    checkpoints = claim_output(out, resume=resume, overwrite=overwrite)
    records = read_training_data(Path(config.data)) if records is None else records
    split = choose_split(records, config, fold)
    with recorded(checkpoints, config):
        trained = _train_members(records, split, config, checkpoints / "members", report)
    classes = records.labels
    held_out = averaged([member.rows["tuning"] for member in trained], classes)
    validation = averaged([member.rows["validation"] for member in trained], classes)
    train = records.subset(split.train)
    counts = train.table["label"].value_counts().reindex(list(classes.codes), fill_value=0).to_numpy(float)
    missing: dict[str, str] = {}
    offsets = None
    if config.decision == "prior":
        why = enough.lack(enough.lesions(held_out.lesion_id), enough.DECISION, records.group)
        if why is None:
            offsets = fit_offsets(held_out.probabilities, counts / counts.sum())
        else:
            missing["decision rule"] = why
    held_out, validation = (_decided(rows, offsets) for rows in (held_out, validation))
    block = measure(validation, seed=config.seed)
    tuned, judged = (_measured(rows, records) for rows in (held_out, validation))
    sets, coverage = fit_sets(tuned, judged, alpha=1.0 - config.coverage) if config.uncertainty else (None, None)
    if coverage is not None:
        block["prediction_sets"] = coverage
    elif config.uncertainty:
        missing["prediction sets"] = too_few_for_sets(1.0 - config.coverage, records.group)
    if missing:
        report.warn(enough.left_out(missing))
    table = pd.concat([_table(held_out, "tuning"), _table(validation, "validation")], ignore_index=True)
    first = trained[0].metrics
    metrics: dict[str, Any] = {
        **{name: first[name] for name in ("announcements", "recipe", "data")},
        "dermafuse": __version__,
        "research_use_only": True,
        "labels": classes.to_json(),
        "validation": block,
        "leakage": leakage(records, split).to_dict(),
        "training": {
            **{name: first["training"][name] for name in ("early_stopping_rows", "monitor")},
            "temperature": 1.0,
            "prior_shift": None,
            "decision_offsets": None if offsets is None else offsets.tolist(),
            "not_fitted": missing,
        },
        "network": {**first["network"], "backbone": " + ".join(config.members)},
        "members": [_described(member) for member in trained],
        "environment": environment(),
        "seconds": {
            part: round(sum(member.metrics["seconds"][part] for member in trained), 3) for part in ("extract", "train")
        },
        **check_data(
            records, split=split, report=report, against_imbalance=against_imbalance(config.model_dump())
        ).to_dict(),
    }
    metrics["data"] = {**first["data"], "train": len(split.train), "tuning": len(held_out)}
    metrics = enriched(metrics, rows_of_table(table, classes), records, seed=config.seed)
    metrics["seconds"]["total"] = round(time.perf_counter() - started, 3)
    with folder_atomic(out, overwrite=True) as folder:
        (folder / CONFIG).write_text(to_toml(config), encoding="utf-8")
        history = [member.history.assign(member=number) for number, member in enumerate(trained, start=1)]
        pd.concat(history).to_csv(folder / HISTORY, index=False)
        table.to_csv(folder / PREDICTIONS, index=False, float_format="%.7g")
        # What one member holds out, the others learned from.
        evaluation = evaluation_json(metrics, {"train": train, "validation": records.subset(split.validation)})
        content = combined(
            [member.bundle for member in trained], offsets, sets, model_card(metrics, config.model_dump()), evaluation
        )
        skipped = checkpoints / "members" / f"{config.members[0]}-1" / SKIPPED
        if skipped.exists():  # every member reads every row, so one list is that of all
            shutil.copy(skipped, folder / SKIPPED)
        write_bundle(folder / "model", content, half_weights=True)
        place = pd.Index(records.table["image_id"]).get_indexer(pd.Index(validation.image_id))
        metrics["published"] = check_published(
            folder, records.subset(place), validation.probabilities, first["network"]["precision"]
        ).block
        write_json(folder / METRICS, metrics)
        if config.report:
            make_report(folder, data=Path(config.data), title=out.resolve().name, report=report)
    return TrainedRun(out, metrics, first["network"]["parameters"])


def _train_members(
    records: Records, split: Split, config: TrainConfig, folder: Path, report: Reporter
) -> list[_Trained]:
    train = records.subset(split.train)
    encoder = fit_encoder(train, config)
    inner = make_folds(train, by="lesion", k=config.member_folds, seed=config.seed + 1)
    trained: list[_Trained] = []
    for backbone in config.members:
        for number, part in enumerate(inner, start=1):
            where = folder / f"{backbone}-{number}"
            if not (where / METRICS).exists():
                report.say(
                    f"Member {len(trained) + 1} of {len(config.members) * len(inner)}: {backbone}, part {number}"
                )
                update = {"backbone": backbone, "members": (), "report": False, "seed": config.seed + number}
                own = config.model_copy(update=update)
                rows = Division(split, split.train[part.validation], encoder)
                train_run(own, where, resume=True, report=report, member=rows, records=records)
                # Dozens of networks in one process: what Keras keeps of the last one is of no use to the next.
                keras.backend.clear_session()
            trained.append(_read(where, backbone, records.labels))
    return trained


def _read(folder: Path, backbone: str, classes: LabelSet) -> _Trained:
    return _Trained(
        backbone,
        read_metrics(folder),
        read_bundle(folder),
        read_rows(folder / PREDICTIONS, classes),
        pd.read_csv(folder / HISTORY),
    )


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


def combined(
    bundles: Sequence[Bundle], offsets: NDArray[np.float64] | None, sets: Any, card: str, evaluation: bytes
) -> BundleContent:
    """Return the members' bundles as one.

    The flag of strange images compares the mean of the members' scores with the mean of their thresholds; it is left
    out where a member has none.
    """
    first = bundles[0]
    rules = [bundle.ood for bundle in bundles]
    rule = None
    if all(each is not None and each.method == rules[0].method for each in rules if rules[0] is not None) and rules[0]:
        known = [each for each in rules if each]
        both = set.intersection(*(set(each.thresholds) for each in known))
        rule = rules[0].model_copy(
            update={
                "threshold": float(np.mean([each.threshold for each in known])),
                "thresholds": {one: float(np.mean([each.thresholds[one] for each in known])) for one in sorted(both)},
            }
        )
    many = len(bundles) > 1
    return BundleContent(
        models=tuple(bundle.models[0] for bundle in bundles),
        head={
            (f"model-{number}/{name}" if many else name): array
            for number, bundle in enumerate(bundles, start=1)
            for name, array in bundle.head.items()
        },
        image_size=first.image_size,
        encoder=first.encoder,
        labels=first.labels,
        temperature=1.0,
        offsets=None if offsets is None else tuple(offsets.tolist()),
        prediction_set=sets,
        ood=rule,
        info={**first.info, "backbone": " + ".join(dict.fromkeys(str(bundle.info["backbone"]) for bundle in bundles))},
        card=card,
        evaluation_json=evaluation,
    )


def _decided(rows: Scored, offsets: NDArray[np.float64] | None) -> Scored:
    return replace(rows, predicted=decide(rows.probabilities, offsets))


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
        **chosen_of(block, "change"),
    }
