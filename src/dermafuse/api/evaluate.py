"""``dermafuse evaluate``: a finished model on any labelled data set; no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

import dermafuse
from dermafuse.announcements import Announcement, announced, both_lists
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import DataError, DermafuseError, OutputError, examples
from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.evaluated_sets import flag_block, set_block
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.overlap import find_overlap
from dermafuse.evaluation.prediction_rows import rows_of_table
from dermafuse.evaluation.robustness import measure_robustness
from dermafuse.evaluation.unseen import measure_unseen
from dermafuse.files import check_output_folder
from dermafuse.labels import LabelSet
from dermafuse.progress import Clock, Reporter, Silent
from dermafuse.report.page import Sources, write_report
from dermafuse.runs import begin, find_run
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.bundle.files import find_bundle
from dermafuse.runtime.bundle.folder import Bundle, read_bundle
from dermafuse.runtime.prediction import Prediction, Query, Views
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import is_released
from dermafuse.versions import versions

_PACKAGES: Final = ("openvino", "numpy", "scikit-learn", "pandas", "simplejpeg", "pillow")


def evaluate_bundle(
    run_or_bundle: Path,
    data: Path,
    out: Path,
    *,
    max_bad: float = 0.01,
    overwrite: bool = False,
    precision: Literal["auto", "f32", "bf16"] = "auto",
    views: Views = 1,
    robustness: bool = False,
    seed: int = 0,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Predict a labelled data set and judge the predictions; leave a folder that appears whole or not at all.

    ``OUT/metrics.json`` has the block of training under ``"test"``; ``predictions.csv``, ``skipped.csv`` (where
    rows were left out), ``report.html`` and ``figures/`` stand beside it. Thresholds are chosen on the RUN's own
    tuning (else validation) rows that are not in the test set.

    Args:
        run_or_bundle: a RUN folder or a bundle.
        data: any layout that `read_dataset` knows; metadata may be absent.
        out: the folder to make.
        max_bad: share of rows that may be unusable, 0..1.
        overwrite: replace ``out``, if dermafuse made it.
        precision: arithmetic of the networks.
        views: 8 averages the probabilities of the 8 flips and quarter turns of each image.
        robustness: predict every image again under each of `evaluation.corruptions` and without metadata.
        seed: of the bootstraps.
        report: who is told the progress, and warned of overlap with the training images.

    Returns:
        The content of ``metrics.json``.

    Raises:
        DataError: the data cannot be read, have classes that the model lacks, or too many bad rows.
        BundleError: the model cannot be used.
        OutputError: ``out`` exists, holds the model or the data, or cannot be written to.
    """
    report = report or Silent()
    clock = Clock()
    find_bundle(run_or_bundle)
    check_output_folder(out, overwrite=overwrite)
    _refuse_inputs(out, run_or_bundle, data)
    bundle = read_bundle(run_or_bundle)
    records = read_dataset(data)
    for note in records.notes:
        report.say(note)
    _check_classes(records, bundle)
    clock.lap("read")
    predictor = Predictor(bundle, precision=precision, mode="throughput")
    found = _predict(predictor, records, views, report)
    for text in found.unknown.sentences():
        report.say(text)
    _refuse_too_many_bad(found.skipped, len(records) + len(records.skipped), max_bad)
    clock.lap("predict")

    used = records.subset(found.positions)
    labels = _labels(bundle, records, report)
    rows = rows_of_table(found.table, labels)
    overlap = find_overlap(find_run(run_or_bundle), used, bundle.classes, bundle.evaluation)
    metrics: dict[str, Any] = {
        "dermafuse": dermafuse.__version__,
        "research_use_only": True,
        **both_lists(_announcements(bundle, used, predictor, found)),
        "model": {
            "path": str(run_or_bundle),
            "digest": bundle.digest,
            "released": is_released(bundle),
            "dermafuse": bundle.version,
            "precision": predictor.precision,
            "views": views,
            "members": len(bundle.models),
            "info": dict(bundle.info),
        },
        "labels": labels.to_json(),
        "data": _describe(data, used, found),
        "test": measure(rows["test"], seed=seed),
        "overlap": overlap.to_dict(),
    }
    if bundle.prediction_set is not None:
        metrics["test"]["prediction_sets"] = set_block(rows["test"], found.predictions, bundle.prediction_set.coverage)
    if bundle.ood is not None:
        metrics["test"]["out_of_distribution"] = flag_block(found.predictions, bundle.ood.method)
    if overlap.known and not overlap.unseen.all():
        measure_unseen(metrics, rows["test"].take(overlap.unseen), seed)
    metrics = enriched(
        metrics,
        rows,
        used,
        choosing=overlap.choosing,
        choosing_name=overlap.choosing_name,
        temperature=bundle.temperature if len(bundle.models) == views == 1 else None,
        seed=seed,
    )
    if robustness:
        metrics["test"]["robustness"] = measure_robustness(predictor, used, seed=seed, report=report)
    for text in metrics["announcements"]:
        report.warn(text)
    metrics["environment"] = versions(_PACKAGES)
    clock.lap("evaluate")
    with begin(out, overwrite=overwrite) as run:
        table = found.table.assign(role=overlap.roles()) if overlap.known else found.table
        run.write(predictions=table, skipped=found.skipped)
        metrics |= {"files": run.hashes(), "seconds": clock.seconds}
        sources = Sources(used, {0: predictor})
        write_report(run.path, metrics, rows, sources, title=out.absolute().name, report=report, lap=clock.lap)
        run.finish(metrics)
    return metrics


@dataclass(frozen=True, eq=False)
class _Found:
    """The predictions of a data set: ``table`` as ``predictions.csv``, ``positions`` of its rows in the records."""

    table: pd.DataFrame
    positions: list[int]
    predictions: list[Prediction]
    skipped: pd.DataFrame
    unknown: UnknownWords


def _predict(predictor: Predictor, records: Records, views: Views, report: Reporter) -> _Found:
    fields = [name for name in predictor.fields if name in records.table.columns]
    positions: list[int] = []
    predictions: list[Prediction] = []
    bad: list[dict[str, str]] = []
    unknown = UnknownWords(predictor.bundle.encoder)
    table = records.table
    queries = (Query(path, known) for path, known in zip(table["path"], records.known(fields), strict=True))
    with report.bar("Predicting", len(records), "images") as advance:
        for position, outcome in enumerate(predictor.stream(queries, views=views)):
            if isinstance(outcome, DermafuseError):
                row = table.iloc[position]
                bad.append({"image_id": row["image_id"], "path": row["path"], "reason": str(outcome)})
            else:
                positions.append(position)
                predictions.append(outcome)
                unknown.add(outcome)
            advance(1)
    skipped = pd.concat([records.skipped, pd.DataFrame(bad, columns=["image_id", "path", "reason"])], ignore_index=True)
    if not predictions:
        raise DataError(f"{records.root} holds no image that can be predicted ({_reasons(skipped)}).")
    used = table.iloc[positions]
    result = used[["image_id", "lesion_id"]].reset_index(drop=True).assign(split="test")
    result["true"] = used["label"].to_numpy(object)
    result["predicted"] = [prediction.label for prediction in predictions]
    for code in predictor.classes:
        # Rounded as the file is, so that whoever reads the file finds the numbers of metrics.json.
        result[f"p_{code}"] = [float(f"{prediction.probabilities[code]:.7g}") for prediction in predictions]
    if predictor.bundle.prediction_set is not None:
        result["prediction_set"] = ["|".join(prediction.prediction_set or ()) for prediction in predictions]
    if predictor.bundle.ood is not None:
        result["out_of_distribution"] = [prediction.out_of_distribution for prediction in predictions]
        result["ood_score"] = [prediction.ood_score for prediction in predictions]
    return _Found(result, positions, predictions, skipped, unknown)


def _announcements(bundle: Bundle, records: Records, predictor: Predictor, found: _Found) -> Iterator[Announcement]:
    """Yield what must be said wherever these numbers appear."""
    for said in announced(bundle.info):
        if said.code in ("synthetic_data", "random_weights"):
            yield said.of_model()
    if records.synthetic:
        yield Announcement.fixed("synthetic_data")
    absent = [name for name in predictor.fields if name not in records.table or not records.table[name].notna().any()]
    if predictor.fields and len(absent) == len(predictor.fields):
        text = "NO METADATA in this data set: the model, made to use metadata, sees the image alone."
        yield Announcement("no_metadata", text)
    elif absent:
        text = f"NO VALUES of {', '.join(absent)} in this data set: the model takes them as unknown."
        yield Announcement("no_values", text)
    for name, words in found.unknown.counts.items():
        text = f"Values of {name} that the model never saw in {words.total():,} rows: taken as unknown."
        yield Announcement("unknown_words", text)
    if not records.has_lesions:
        text = "LESIONS UNKNOWN: every image counts as independent, so the intervals may be too narrow."
        yield Announcement("lesions_unknown", text)


def _describe(path: Path, records: Records, found: _Found) -> dict[str, Any]:
    features = (*records.numeric, *records.categorical)
    return {
        "path": str(path),
        "layout": records.layout,
        "images": len(records) + len(found.skipped),
        "classes": list(records.classes),
        "synthetic": records.synthetic,
        "has_metadata": records.has_metadata,
        "has_lesions": records.has_lesions,
        "missing": {name: int(records.is_missing(name).sum()) for name in features},
        "test": len(records),
        "skipped": len(found.skipped),
    }


def _check_classes(records: Records, bundle: Bundle) -> None:
    unknown = sorted(set(records.table["label"]) - set(bundle.classes))
    if unknown:
        raise DataError(
            f"{records.root} has the diagnoses {examples(unknown)}, which the model does not tell apart "
            f"({', '.join(bundle.classes)}); map or ignore them in a dermafuse.toml."
        )


def _labels(bundle: Bundle, records: Records, report: Reporter) -> LabelSet:
    """Return the model's label set; the data set says which classes are malignant only where the model does not."""
    labels = bundle.labels.completed(records.labels)
    shared = set(labels.codes) & set(records.classes)
    if records.labels.malignant and (labels.malignant ^ records.labels.malignant) & shared:
        report.warn(
            f"{records.root} counts {', '.join(sorted(records.labels.malignant))} as malignant, the model "
            f"{', '.join(sorted(labels.malignant)) or 'none of its classes'}; the model decides here."
        )
    return labels


def _refuse_inputs(out: Path, run_or_bundle: Path, data: Path) -> None:
    """Refuse an output folder that would take the model or the data with it, or add to the data."""
    target = out.resolve()
    for what, path in (("model", run_or_bundle), ("data", data)):
        if path.resolve().is_relative_to(target):
            raise OutputError(f"{out} holds the {what} {path}; choose another --out.")
    if not data.exists():
        return  # whoever reads the data says so
    folder = data.resolve() if data.is_dir() else data.resolve().parent
    if target.is_relative_to(folder):  # its pictures would be taken for data the next time
        raise OutputError(f"{out} lies in the data folder {data}; choose another --out.")


def _refuse_too_many_bad(skipped: pd.DataFrame, total: int, limit: float) -> None:
    if len(skipped) > limit * total:
        raise DataError(
            f"{len(skipped):,} of {total:,} rows are unusable ({_reasons(skipped)}), more than --max-bad {limit:g} "
            f"allows; mend them, or pass --max-bad {len(skipped) / total + 0.005:.2f}."
        )


def _reasons(skipped: pd.DataFrame) -> str:
    pairs: Sequence[str] = [f"{row.image_id}: {row.reason}" for row in skipped.head(3).itertuples()]
    return examples(pairs, len(skipped)) if pairs else "it is empty"
