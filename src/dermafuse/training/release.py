"""The model to give away: the recipe of a cross-validation trained once more on every lesion.

Nothing is held out, so nothing can be fitted or judged on this model's own answers. What needs held-out rows comes from
the folds, whose models differ from this one in a fifth of the training rows: temperature, prior shift and decision
offsets are their means, prediction sets are fitted on the pooled out-of-fold predictions, and the card's figures are
those of the cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermafuse.announcements import Announcement, announced, both_lists
from dermafuse.data.images import size_of
from dermafuse.data.readers.read import read_training_data
from dermafuse.data.splits import Split
from dermafuse.errors import DataError
from dermafuse.evaluation.fit_uncertainty import fit_flag, too_few_for_sets
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.files import folder_atomic
from dermafuse.progress import Reporter
from dermafuse.report.model_card import front_matter, licence_text
from dermafuse.runs import PREDICTIONS
from dermafuse.runtime.bundle.folder import write_bundle
from dermafuse.runtime.decision.conformal import fit_prediction_sets
from dermafuse.runtime.decision.temperature import apply
from dermafuse.training.calibrate import Calibration, Uncertainty
from dermafuse.training.finished_folds import FinishedFolds
from dermafuse.training.loop.fit import predict_logits
from dermafuse.training.partition import deployable, judged_precision
from dermafuse.training.publish_check import ROWS, check_published
from dermafuse.training.run_folder import bundle_content
from dermafuse.training.train_once import Division, train_once

#: Said first in the card.
_SAID = (
    "Trained on all lesions of its data set, so it must not be judged on them: the figures of this card are those of "
    "{folds} models of the same recipe, each judged on the lesions that it had not seen (cross-validation)."
)


def release(finished: FinishedFolds, out: Path, *, overwrite: bool, report: Reporter) -> None:
    """Train the recipe of a finished cross-validation on all its data, and write the bundle.

    Args:
        finished: what ``train --folds K`` left.
        out: the bundle folder to make; weights are kept as float16.
        overwrite: replace ``out``.
        report: who is told the progress.

    Raises:
        DataError: the data are not those of the cross-validation.
    """
    config, metrics, folds = finished.config, finished.metrics, finished.training
    records = read_training_data(Path(config.data))
    rows = read_rows(finished.folder / PREDICTIONS, records.labels)["validation"]
    if set(rows.image_id) != set(records.table["image_id"]):
        raise DataError(f"{config.data} is no longer the data set that {finished.folder} saw; train the folds again.")
    everything, nothing = np.arange(len(records)), np.arange(0)
    temperature = float(np.exp(np.mean([np.log(fold["temperature"]) for fold in folds])))
    calibration = Calibration(temperature, _mean(folds, "prior_shift"), _mean(folds, "decision_offsets"))
    trained = train_once(config, records, Division(Split(everything, nothing)), report, calibration=calibration)
    data = trained.data
    sets = fit_prediction_sets(rows.probabilities, rows.true, alpha=1.0 - config.coverage, groups=rows.lesion_id)
    if not any(sets.minimum_probability):
        report.warn(f"No prediction sets: {too_few_for_sets(1.0 - config.coverage, records.group)}.")
    network = deployable(trained.model, trained.plan, config, report)
    flag = fit_flag(network, data.train.records, None, data.train.records, seed=config.seed, report=report)
    said = {
        **metrics,
        **both_lists([*announced(metrics), Announcement("trained_on_all_lesions", _SAID.format(folds=len(folds)))]),
        "data": {
            **metrics["data"],
            "train": len(data.train.rows),
            "validation": len(rows),
            "released_after": len(folds),
            "image_pixels": common_size([Path(path) for path in data.train.records.table["path"]]),
        },
        "training": {"temperature": temperature},
    }
    uncertainty = Uncertainty(sets if any(sets.minimum_probability) else None, flag)
    # The pooled rows of the folds are images that this model learned from: there is no other role.
    content = replace(
        bundle_content(config, trained, network, uncertainty, said, {"train": data.train.records}),
        front_matter=front_matter(said, name=out.resolve().name),
        licence=licence_text(said),
    )
    with folder_atomic(out, overwrite=overwrite) as folder:
        write_bundle(folder, content, half_weights=True)
        # Every row was learned from; what Keras says of the first of them is what the bundle must say.
        asked = data.train.rows.subset(np.arange(min(ROWS, len(data.train.rows))))
        judged = apply(predict_logits(trained.model, asked), temperature)
        first = data.train.records.subset(np.arange(len(asked)))
        check_published(folder, first, judged, judged_precision(trained.plan))


def common_size(paths: Sequence[Path]) -> str:
    """Return width x height of the image files: "200x150", or "200x150 to 600x450" where they differ."""
    sizes = []
    for path in paths:
        sizes.append(size_of(path))
    least, most = (tuple(extreme(each) for each in zip(*sizes, strict=True)) for extreme in (min, max))
    texts = [f"{width}x{height}" for width, height in (least, most)]
    return texts[0] if least == most else " to ".join(texts)


def _mean(folds: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64] | None:
    """Return the mean over the folds of a vector, ``None`` where a fold has none."""
    values = [fold[name] for fold in folds]
    return None if any(value is None for value in values) else np.mean(values, axis=0, dtype=np.float64)
