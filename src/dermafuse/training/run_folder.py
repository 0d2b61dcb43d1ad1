"""What of a training goes into its RUN folder: the trained weights, and the content of the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import openvino as ov
import safetensors.numpy
from numpy.typing import NDArray

from dermafuse.data.records import Records
from dermafuse.models.classifier import image_pool, is_head
from dermafuse.report.model_card import model_card
from dermafuse.runtime.bundle.evaluation import evaluation_json
from dermafuse.runtime.bundle.folder import Bundle, BundleContent
from dermafuse.runtime.bundle.schema import PredictionSets
from dermafuse.training.calibrate import Uncertainty
from dermafuse.training.config import TrainConfig
from dermafuse.training.loop.pipeline import Rows, ordered_batches
from dermafuse.training.prepare import Prepared
from dermafuse.training.train_once import Trained

#: The weights that Keras trained, beside the bundle.
TRAINED_WEIGHTS: Final = "weights.safetensors"

#: Training rows whose mean embedding stands for "no image" in attributions.
_BASELINE_ROWS: Final = 512


def save_trained_weights(path: Path, model: keras.Model) -> None:
    """Write the weights of the Keras part of the run by variable path, float32: what export to Keras needs.

    The frozen front is not among them: it is rebuilt from its published weights.
    """
    tensors = {variable.path: np.array(variable) for variable in model.weights if "seed" not in variable.path}
    # As bytes: the library's own file would be readable by nobody but its owner.
    path.write_bytes(safetensors.numpy.save(tensors))


def bundle_content(
    config: TrainConfig,
    trained: Trained,
    network: ov.Model,
    uncertainty: Uncertainty,
    metrics: Mapping[str, Any],
    learned: Mapping[str, Records] | None,
) -> BundleContent:
    """Return all that prediction needs, for ``runtime.bundle.folder.write_bundle``.

    Args:
        config: of the training.
        trained: what it left.
        network: from image to logits (`partition.deployable`).
        uncertainty: prediction sets and flag.
        metrics: content of ``metrics.json``, for the card and ``evaluation.json``.
        learned: the images behind it (`roles`); ``None``: a part of an ensemble, which says it once for all.
    """
    plan, outcome, flag = trained.plan, trained.outcome, uncertainty.flag
    return BundleContent(
        models=(network if flag is None else flag.network,),
        head={
            **head_tensors(trained.model),
            "baseline/embedding": mean_embedding(trained.model, trained.data.train.rows),
            **({} if flag is None else flag.arrays),
        },
        image_size=plan.image_size,
        encoder=trained.data.encoder,
        labels=trained.data.train.records.labels,
        temperature=outcome.temperature,
        offsets=None if outcome.offsets is None else tuple(outcome.offsets.tolist()),
        prediction_set=uncertainty.sets,
        ood=None if flag is None else flag.rule,
        info={
            "recipe": config.recipe,
            "backbone": plan.backbone.name,
            "weights": plan.weights,
            "precision": plan.precision,
            "fusion": trained.head.fusion,
            "frozen": plan.trainable_from is None,
            **{name: list(metrics[name]) for name in ("announcements", "announcement_codes")},
        },
        card=model_card(metrics, config.model_dump()),
        evaluation_json=None if learned is None else evaluation_json(metrics, learned),
    )


def combined(
    bundles: Sequence[Bundle], offsets: NDArray[np.float64] | None, sets: PredictionSets | None, card: str
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
    )


def roles(data: Prepared) -> dict[str, Records]:
    """Return what each image of a training was to the model: ``train``, ``tuning``, ``validation`` -> its records."""
    sides = {"train": data.train, "tuning": data.tuning, "validation": data.validation}
    return {role: side.records for role, side in sides.items() if side is not None}


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
