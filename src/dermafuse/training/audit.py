"""Measuring instead of asserting: what leakage adds to a recipe's figures, and what metadata adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dermafuse.data.records import Records
from dermafuse.data.splits import Split, leakage
from dermafuse.errors import DataError
from dermafuse.evaluation.intervals import paired, unpaired
from dermafuse.evaluation.metric_table import chosen_of
from dermafuse.evaluation.metrics import block_of
from dermafuse.evaluation.predictions import Scored, check_predictions
from dermafuse.progress import Reporter
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.decision.temperature import apply
from dermafuse.training.config import TrainConfig
from dermafuse.training.first_look import choose_split, draw_split
from dermafuse.training.loop.fit import predict_logits
from dermafuse.training.loop.pipeline import Rows
from dermafuse.training.train_once import Division, Trained, train_once


@dataclass(frozen=True)
class _Audited:
    """One model of an audit, with its answers about the validation rows."""

    trained: Trained
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]

    @property
    def scored(self) -> Scored:
        """What the model says of the validation rows."""
        side = self.trained.data.validation
        return check_predictions(
            side.rows.labels,
            self.probabilities,
            self.trained.data.train.records.labels,
            predicted=self.predicted,
            groups=side.records.table["lesion_id"].to_numpy(),
        )

    @property
    def training_images(self) -> int:
        return len(self.trained.data.train.rows)

    def figures(self) -> dict[str, float]:
        return chosen_of(block_of(self.scored), "summary")


def audit_leakage(records: Records, config: TrainConfig, report: Reporter) -> dict[str, Any]:
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
    if not records.has_lesions:
        raise DataError(f"{config.data} does not name its lesions, so leakage cannot be measured.")
    by_image, by_lesion = (draw_split(records, config.model_copy(update={"split": by})) for by in ("image", "lesion"))

    report.say("Leakage audit: image-level split against lesion-level split")
    leaky, clean = (_train(records, config, split, report) for split in (by_image, by_lesion))
    splits = unpaired(leaky.scored, clean.scored, seed=config.seed)

    report.say("Leakage audit: the same validation images, with and without their lesions in training")
    with_siblings, without = equal_training_sets(records, by_image, config.seed)
    seen, unseen = (_train(records, config, split, report) for split in (with_siblings, without))
    same = _paired(seen, unseen, config.seed)
    return {
        "splits": {
            "leaky": leaky.figures(),
            "clean": clean.figures(),
            "difference": chosen_of(splits, "summary"),
            "training_images": [leaky.training_images, clean.training_images],
            "validation_images": [len(leaky.predicted), len(clean.predicted)],
        },
        "same_images": {
            "leaky": seen.figures(),
            "clean": unseen.figures(),
            "difference": same,
            "training_images": [seen.training_images, unseen.training_images],
            "validation_images": [len(seen.predicted), len(unseen.predicted)],
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


def audit_metadata(records: Records, config: TrainConfig, report: Reporter) -> dict[str, Any]:
    """Train image-only, metadata-only and fused models on one split; return what metadata adds.

    Returns:
        JSON-able: figures of each model; of the fused model with all metadata missing at prediction; and paired
        differences ``fused_minus_image_only``, ``fused_minus_metadata_only``, ``missing_minus_fused``.

    Raises:
        DataError: the data set has no metadata.
    """
    if not records.has_metadata:
        raise DataError(f"{config.data} has no metadata, so there is nothing to compare.")
    split = choose_split(records, config, None)
    models = {}
    for name, fusion in (("fused", config.fusion), ("image_only", "image_only"), ("metadata_only", "metadata_only")):
        report.say(f"Metadata audit: {name}")
        models[name] = _train(records, config.model_copy(update={"fusion": fusion}), split, report)
    fused = models["fused"]
    missing = _without_metadata(fused.trained)
    return {
        **{name: model.figures() for name, model in models.items()},
        "fused_metadata_missing": missing.figures(),
        "fused_minus_image_only": _paired(fused, models["image_only"], config.seed),
        "fused_minus_metadata_only": _paired(fused, models["metadata_only"], config.seed),
        "missing_minus_fused": _paired(missing, fused, config.seed),
    }


def _without_metadata(trained: Trained) -> _Audited:
    """Return the answers of a trained model about its validation rows, all of their metadata missing."""
    data, outcome = trained.data, trained.outcome
    rows = data.validation.rows
    blank = Rows(rows.images, np.tile(data.encoder.absent(), (len(rows), 1)), rows.labels, rows.image_size)
    probabilities = apply(predict_logits(trained.model, blank), outcome.temperature)
    return _Audited(trained, probabilities, choose_labels(probabilities, outcome.offsets))


def _paired(a: _Audited, b: _Audited, seed: int) -> dict[str, Any]:
    """Return the differences a minus b on the same rows, each with interval and p value."""
    return chosen_of(paired(a.scored, b.scored, seed=seed), "summary")


def _train(records: Records, config: TrainConfig, split: Split, report: Reporter) -> _Audited:
    trained = train_once(config, records, Division(split), report)
    outcome = trained.outcome
    return _Audited(trained, outcome.probabilities["validation"], outcome.predicted["validation"])


#: Name -> the audit.
AUDITS: Final[Mapping[str, Callable[[Records, TrainConfig, Reporter], dict[str, Any]]]] = {
    "leakage": audit_leakage,
    "metadata": audit_metadata,
}
