"""The files of a RUN folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import openvino as ov
import pandas as pd
import safetensors.numpy
from numpy.typing import NDArray

from dermafuse.files import sha256
from dermafuse.models.classifier import HeadSpec, image_pool, is_head
from dermafuse.report.model_card import model_card
from dermafuse.runs import CONFIG, HISTORY, METRICS, PREDICTIONS, SKIPPED
from dermafuse.runtime.bundle.evaluation import evaluation_json
from dermafuse.runtime.bundle.folder import BundleContent, write_bundle
from dermafuse.runtime.predictor import Predictor
from dermafuse.training.calibrate import Outcome, Uncertainty
from dermafuse.training.config import TrainConfig, to_toml
from dermafuse.training.loop.fit import FitResult
from dermafuse.training.loop.pipeline import Rows, ordered_batches
from dermafuse.training.partition import Plan, judged_precision
from dermafuse.training.prepare import Prepared
from dermafuse.training.publish_check import check_published

#: The weights that Keras trained, beside the bundle.
TRAINED_WEIGHTS: Final = "weights.safetensors"

#: Training rows whose mean embedding stands for "no image" in attributions.
_BASELINE_ROWS: Final = 512


def write_run(
    folder: Path,
    *,
    config: TrainConfig,
    plan: Plan,
    model: keras.Model,
    network: ov.Model,
    head: HeadSpec,
    data: Prepared,
    outcome: Outcome,
    uncertainty: Uncertainty,
    result: FitResult,
    table: pd.DataFrame,
    metrics: dict[str, Any],
    clock: Callable[[str], None],
) -> Predictor:
    """Write every file of a finished run into ``folder`` (a temporary one, renamed by the caller).

    Adds to ``metrics`` how the bundle was ``published`` and the hashes of the ``files``; returns the bundle, compiled.

    Raises:
        BundleError: the bundle does not answer as the model that was judged.
    """
    (folder / CONFIG).write_text(to_toml(config), encoding="utf-8")
    pd.DataFrame(result.history).to_csv(folder / HISTORY, index=False)
    table.to_csv(folder / PREDICTIONS, index=False, float_format="%.7g")
    if len(data.skipped):
        data.skipped.to_csv(folder / SKIPPED, index=False, errors="backslashreplace")
    save_trained_weights(folder / TRAINED_WEIGHTS, model)
    roles = {"train": data.train, "tuning": data.tuning, "validation": data.validation}
    evaluation = evaluation_json(metrics, {role: side.records for role, side in roles.items() if side is not None})
    write_bundle(
        folder / "model",
        bundle_content(config, plan, model, network, head, data, outcome, uncertainty, metrics, evaluation),
    )
    clock("write")
    published = check_published(
        folder, data.validation.records, outcome.probabilities["validation"], judged_precision(plan)
    )
    clock("verify")
    # Last: a folder with metrics.json is a finished run. JSON knows no NaN, and none may hide here.
    metrics |= {"published": published.block, "files": _hashes(folder)}
    (folder / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return published.predictor


def save_trained_weights(path: Path, model: keras.Model) -> None:
    """Write the weights of the Keras part of the run by variable path, float32: what export to Keras needs.

    The frozen front is not among them: it is rebuilt from its published weights.
    """
    tensors = {variable.path: np.array(variable) for variable in model.weights if "seed" not in variable.path}
    # As bytes: the library's own file would be readable by nobody but its owner.
    path.write_bytes(safetensors.numpy.save(tensors))


def bundle_content(
    config: TrainConfig,
    plan: Plan,
    model: keras.Model,
    network: ov.Model,
    head: HeadSpec,
    data: Prepared,
    outcome: Outcome,
    uncertainty: Uncertainty,
    metrics: Mapping[str, Any],
    evaluation: bytes | None,
) -> BundleContent:
    """Return all that prediction needs, for ``runtime.bundle.folder.write_bundle``."""
    flag = uncertainty.flag
    return BundleContent(
        models=(network if flag is None else flag.network,),
        head={
            **head_tensors(model),
            "baseline/embedding": mean_embedding(model, data.train.rows),
            **({} if flag is None else flag.arrays),
        },
        image_size=plan.image_size,
        encoder=data.encoder,
        labels=data.train.records.labels,
        temperature=outcome.temperature,
        offsets=None if outcome.offsets is None else tuple(outcome.offsets.tolist()),
        prediction_set=uncertainty.sets,
        ood=None if flag is None else flag.rule,
        info={
            "recipe": config.recipe,
            "backbone": plan.backbone.name,
            "weights": plan.weights,
            "precision": plan.precision,
            "fusion": head.fusion,
            "frozen": plan.trainable_from is None,
            "announcements": list(metrics["announcements"]),
        },
        card=model_card(metrics, config.model_dump()),
        evaluation_json=evaluation,
    )


def head_tensors(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Return kernels and biases of all that stands behind the pooled features, by path (``layer/kernel``)."""
    return {
        variable.path: np.array(variable, dtype=np.float32)
        for layer in model.layers
        if is_head(layer.name)
        for variable in layer.weights
        if "seed" not in variable.name
    }


def mean_embedding(model: keras.Model, rows: Rows) -> NDArray[np.float32]:
    """Return the mean pooled feature vector (c,) of an even sample of at most 512 training rows."""
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _BASELINE_ROWS)).astype(np.int64)
    pool = image_pool(model)
    if pool is None:  # pooled features come in as they are
        sample: NDArray[np.float32] = rows.images.gather(chosen).astype(np.float32)  # type: ignore[union-attr]
        mean: NDArray[np.float32] = sample.mean(axis=0)
        return mean
    network = keras.Model(model.input["image_input"], pool.output)
    images = ordered_batches(rows.subset(chosen), batch_size=64)
    batches = [network(inputs["image_input"], training=False).numpy() for inputs, _ in images]
    return np.concatenate(batches).mean(axis=0).astype(np.float32)  # type: ignore[no-any-return]


def _hashes(folder: Path) -> dict[str, str]:
    names = (CONFIG, HISTORY, PREDICTIONS, SKIPPED)
    return {name: sha256(folder / name) for name in names if (folder / name).exists()}
