"""The model to give away: the recipe of a cross-validation trained once more on every lesion.

Nothing is held out, so nothing can be fitted or judged on this model's own answers. What needs held-out rows comes from
the folds, whose models differ from this one in a fifth of the training rows: temperature, prior shift and decision
offsets are their means, prediction sets are fitted on the pooled out-of-fold predictions, and the card's figures are
those of the cross-validation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermafuse.data.readers import read_dataset
from dermafuse.data.splits import Split
from dermafuse.errors import ConfigError, DataError
from dermafuse.evaluation.fit_uncertainty import fit_flag
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.files import folder_atomic
from dermafuse.progress import Reporter
from dermafuse.runtime.bundle import write_bundle
from dermafuse.runtime.conformal import fit_prediction_sets
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.fit import fit
from dermafuse.training.judging import Outcome, Uncertainty
from dermafuse.training.networks import deployable, head_spec, inference_model, plan_network, trainable_model
from dermafuse.training.prepare import prepare
from dermafuse.training.progress import step_counter
from dermafuse.training.run_folder import bundle_content

#: Said first in the card.
_SAID = (
    "Trained on all lesions of its data set, so it must not be judged on them: the figures of this card are those of "
    "{folds} models of the same recipe, each judged on the lesions that it had not seen (cross-validation)."
)


def release(cross_validation: Path, out: Path, *, overwrite: bool, report: Reporter) -> None:
    """Train the recipe of a finished cross-validation on all its data, and write the bundle.

    Args:
        cross_validation: folder of ``train --folds K``.
        out: the bundle folder to make; weights are kept as float16.
        overwrite: replace ``out``.
        report: who is told the progress.

    Raises:
        ConfigError: the folder is no finished cross-validation of a recipe with tuning rows.
        DataError: the data are not those of the cross-validation.
    """
    config, metrics, folds = _read(cross_validation)
    records = read_dataset(Path(config.data))
    rows = read_rows(cross_validation / "predictions.csv", records.classes)["validation"]
    if set(rows.image_id) != set(records.table["image_id"]):
        raise DataError(f"{config.data} is no longer the data set that {cross_validation} saw; train the folds again.")
    plan = plan_network(config)
    keras.utils.set_random_seed(config.seed)
    everything, nothing = np.arange(len(records)), np.arange(0)
    data = prepare(records, config, plan, report, Split(everything, nothing))
    head = head_spec(config, len(records.classes), data.encoder.width)
    model = trainable_model(plan, head, config)
    steps = -(-len(data.train.rows) // config.batch_size)
    with report.bar("Training on all lesions", config.epochs * steps, "steps") as advance:
        fit(
            model, data.train.rows, None, config,
            classes=len(records.classes), dropout=data.dropout, on_step=step_counter(advance),
        )  # fmt: skip
    model = inference_model(model, plan, head, config)
    shift = _mean(folds, "prior_shift")
    if shift is not None:
        model.get_layer("logits").bias.assign_add(shift)
    sets = fit_prediction_sets(rows.probabilities, rows.true, alpha=1.0 - config.coverage, groups=rows.lesion_id)
    network = deployable(model, plan, config)
    flag = fit_flag(network, data.train.records, None, data.train.records, seed=config.seed, report=report)
    temperature = float(np.exp(np.mean([np.log(fold["temperature"]) for fold in folds])))
    outcome = Outcome({}, {}, {}, temperature, shift, _mean(folds, "decision_offsets"), None)
    said = {
        **metrics,
        "announcements": [*metrics["announcements"], _SAID.format(folds=len(folds))],
        "data": {
            **metrics["data"],
            "train": len(data.train.rows), "validation": len(rows), "released_after": len(folds),
            "image_pixels": common_size([Path(path) for path in data.train.records.table["path"]]),
        },
        "training": {"temperature": temperature},
    }  # fmt: skip
    content = bundle_content(config, plan, model, network, head, data, outcome, Uncertainty(sets, flag), said)
    with folder_atomic(out, overwrite=overwrite) as folder:
        write_bundle(folder, content, half_weights=True)


def _read(folder: Path) -> tuple[TrainConfig, dict[str, Any], list[dict[str, Any]]]:
    """Return the settings for the whole, the joint metrics, and the ``training`` part of each fold's."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no finished cross-validation; make one with train --folds 5.") from error
    config = resolve(file=folder / "config.toml")
    if "folds" not in metrics or config.tuning_fraction == 0:
        raise ConfigError(
            f"{folder} is no cross-validation, or one of a recipe without tuning rows, so nothing can calibrate the "
            "released model; make one with train --folds 5."
        )
    numbers = range(1, config.folds + 1)
    folds = [json.loads((folder / f"fold-{n}" / "metrics.json").read_text(encoding="utf-8")) for n in numbers]
    whole = config.model_copy(update={"folds": 0, "tuning_fraction": 0.0, "monitor": "last"})
    return whole, metrics, [fold["training"] for fold in folds]


def common_size(paths: Sequence[Path]) -> str:
    """Return width x height of the image files: "200x150", or "200x150 to 600x450" where they differ."""
    sizes = []
    for path in paths:
        with Image.open(path) as image:  # reads the header only
            sizes.append(image.size)
    least, most = (tuple(extreme(each) for each in zip(*sizes, strict=True)) for extreme in (min, max))
    texts = [f"{width}x{height}" for width, height in (least, most)]
    return texts[0] if least == most else " to ".join(texts)


def _mean(folds: list[dict[str, Any]], name: str) -> NDArray[np.float64] | None:
    """Return the mean over the folds of a vector, ``None`` where a fold has none."""
    values = [fold[name] for fold in folds]
    return None if any(value is None for value in values) else np.mean(values, axis=0, dtype=np.float64)
