"""Measuring instead of asserting: what leakage adds to a recipe's figures, and what metadata adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from dermafuse.data.readers import read_dataset
from dermafuse.data.records import Records
from dermafuse.data.splits import Split, leakage, make_split
from dermafuse.errors import DataError
from dermafuse.evaluation.intervals import paired_bootstrap, unpaired_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.progress import Reporter
from dermafuse.runtime.temperature import apply
from dermafuse.training.config import TrainConfig
from dermafuse.training.fit import fit, predict_logits
from dermafuse.training.networks import head_spec, inference_model, plan_network, trainable_model
from dermafuse.training.pipeline import Rows
from dermafuse.training.prepare import Prepared, prepare
from dermafuse.training.progress import step_counter

#: The figures that an audit reports.
_FIGURES: Final = ("accuracy", "weighted_f1", "macro_f1", "balanced_accuracy", "macro_auroc")


@dataclass(frozen=True)
class _Trained:
    """One model of an audit, judged on its validation rows."""

    model: keras.Model
    data: Prepared
    probabilities: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.data.validation.rows.labels

    @property
    def lesions(self) -> NDArray[Any]:
        return self.data.validation.records.table["lesion_id"].to_numpy()

    def figures(self) -> dict[str, float]:
        block = evaluate_predictions(self.labels, self.probabilities, self.data.train.records.classes)
        return {name: block[name] for name in _FIGURES}


def audit_leakage(config: TrainConfig, report: Reporter) -> dict[str, Any]:
    """Train the recipe with and without leakage and return the difference.

    Two measurements, because each answers a different question:

    * ``splits``: an image-level and a lesion-level split of equal size, each with its own validation rows, as
      people compare published numbers. Its interval holds the chance of which rows each split drew.
    * ``same_images``: the validation rows of the image-level split for both; one training set has every image
      that shares a lesion with them, the other has none, both have the same number of images. What differs is
      leakage alone, so its paired interval is narrow.

    Returns:
        JSON-able: for both, the figures ``leaky`` and ``clean`` and ``difference`` (leaky minus clean) with
        interval and p value; counts of images.

    Raises:
        DataError: the data do not name their lesions.
    """
    records = read_dataset(Path(config.data))
    if not records.has_lesions:
        raise DataError(f"{config.data} does not name its lesions, so leakage cannot be measured.")
    fraction = config.validation_fraction
    by_image = make_split(records, by="image", seed=config.seed, fraction=fraction)
    by_lesion = make_split(records, by="lesion", seed=config.seed, fraction=fraction)
    classes = records.classes

    report.say("Leakage audit: image-level split against lesion-level split")
    leaky, clean = (_train(records, config, split, report) for split in (by_image, by_lesion))
    splits = unpaired_bootstrap(
        leaky.labels, leaky.probabilities, leaky.lesions,
        clean.labels, clean.probabilities, clean.lesions, classes, seed=config.seed,
    )  # fmt: skip

    report.say("Leakage audit: the same validation images, with and without their lesions in training")
    with_siblings, without = equal_training_sets(records, by_image, config.seed)
    seen, unseen = (_train(records, config, split, report) for split in (with_siblings, without))
    same = paired_bootstrap(
        seen.labels, seen.probabilities, unseen.probabilities, seen.lesions, classes, seed=config.seed
    )
    return {
        "splits": {
            "leaky": leaky.figures(),
            "clean": clean.figures(),
            "difference": {name: splits[name] for name in _FIGURES},
            "training_images": [len(leaky.data.train.rows), len(clean.data.train.rows)],
            "validation_images": [len(leaky.labels), len(clean.labels)],
        },
        "same_images": {
            "leaky": seen.figures(),
            "clean": unseen.figures(),
            "difference": {name: same[name] for name in _FIGURES},
            "training_images": [len(seen.data.train.rows), len(unseen.data.train.rows)],
            "validation_images": [len(seen.labels), len(unseen.labels)],
            "leaked_share": leakage(records, with_siblings).share,
        },
    }


def equal_training_sets(records: Records, split: Split, seed: int) -> tuple[Split, Split]:
    """Return two splits with the same validation rows and equally many training rows: with and without siblings.

    A sibling is a training image whose lesion also has an image in validation. The first split has them all and
    as many fewer of the others, dropped at random; the second has all of the others and no sibling.
    """
    lesions = records.table["lesion_id"].to_numpy()
    shared = np.isin(lesions[split.train], np.unique(lesions[split.validation]))
    siblings, others = split.train[shared], split.train[~shared]
    if len(siblings) >= len(others):
        raise DataError("Too many images share a lesion with the validation images to compare equal training sets.")
    generator = np.random.default_rng([seed, 77])
    kept = np.sort(generator.permutation(others)[: len(others) - len(siblings)])
    leaky = np.sort(np.concatenate([kept, siblings]))
    return Split(leaky, split.validation), Split(others, split.validation)


def audit_metadata(config: TrainConfig, report: Reporter) -> dict[str, Any]:
    """Train image-only, metadata-only and fused models on one split; return what metadata adds.

    Returns:
        JSON-able: figures of each model; of the fused model with all metadata missing at prediction; and paired
        differences ``fused_minus_image_only``, ``fused_minus_metadata_only``, ``missing_minus_fused``.

    Raises:
        DataError: the data set has no metadata.
    """
    records = read_dataset(Path(config.data))
    if not records.has_metadata:
        raise DataError(f"{config.data} has no metadata, so there is nothing to compare.")
    split = make_split(records, by=config.split, seed=config.seed, fraction=config.validation_fraction)
    models = {}
    for name, fusion in (("fused", config.fusion), ("image_only", "image_only"), ("metadata_only", "metadata_only")):
        report.say(f"Metadata audit: {name}")
        models[name] = _train(records, config.model_copy(update={"fusion": fusion}), split, report)
    fused = models["fused"]
    rows = fused.data.validation.rows
    blank = Rows(rows.images, np.tile(fused.data.encoder.absent(), (len(rows), 1)), rows.labels, rows.image_size)
    missing = _Trained(fused.model, fused.data, apply(predict_logits(fused.model, blank), 1.0))

    def difference(a: _Trained, b: _Trained) -> Mapping[str, Any]:
        found = paired_bootstrap(
            a.labels, a.probabilities, b.probabilities, a.lesions, records.classes, seed=config.seed
        )
        return {name: found[name] for name in _FIGURES}

    return {
        **{name: model.figures() for name, model in models.items()},
        "fused_metadata_missing": missing.figures(),
        "fused_minus_image_only": difference(fused, models["image_only"]),
        "fused_minus_metadata_only": difference(fused, models["metadata_only"]),
        "missing_minus_fused": difference(missing, fused),
    }


def _train(records: Records, config: TrainConfig, split: Split, report: Reporter) -> _Trained:
    plan = plan_network(config)
    keras.utils.set_random_seed(config.seed)
    data = prepare(records, config, plan, report, split)
    head = head_spec(config, len(records.classes), data.encoder.width)
    model = trainable_model(plan, head, config)
    steps = config.epochs * -(-len(data.train.rows) // config.batch_size)
    with report.bar("Training", steps, "steps") as advance:
        watched = data.tuning or data.validation
        fit(
            model, data.train.rows, watched.rows, config,
            classes=len(records.classes), dropout=data.dropout, on_step=step_counter(advance),
        )  # fmt: skip
    model = inference_model(model, plan, head, config)
    return _Trained(model, data, apply(predict_logits(model, data.validation.rows), 1.0))


#: Name -> the audit.
AUDITS: Final[Mapping[str, Callable[[TrainConfig, Reporter], dict[str, Any]]]] = {
    "leakage": audit_leakage,
    "metadata": audit_metadata,
}
