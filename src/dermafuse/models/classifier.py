"""The classifier: image branch + metadata branch + late fusion, as one un-nested functional Keras model.

Whole, or what lies behind a cut, from a `NetworkSpec`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import keras

from dermafuse.models.backbones import build_backbone
from dermafuse.models.cut import freeze_for_tail, split_at, train_from, with_bf16_pointwise
from dermafuse.models.fusion import fuse
from dermafuse.models.network_spec import HeadSpec as HeadSpec
from dermafuse.models.network_spec import NetworkSpec
from dermafuse.models.specs import spec

#: The layer that pools the last feature map, where the image comes in unpooled.
_POOL: Final = "image_pool"

#: How the names of the head's layers with weights begin.
_HEAD: Final = ("meta_", "fusion_", "logits")


def build_head(
    image_input: keras.KerasTensor,
    features: keras.KerasTensor,
    head: HeadSpec,
    *,
    seed: int,
    name: str = "dermafuse",
) -> keras.Model:
    """Close a network that ends in ``features`` with the metadata branch, the fusion and the logits.

    Args:
        image_input: the ``keras.Input`` named ``image_input`` from which ``features`` is computed.
        features: last feature map (batch, h, w, c), or pooled features (batch, c).
        head: sizes and rates.
        seed: of the dropout masks.
        name: of the model.

    Returns:
        Model from ``{"image_input": ..., "meta_input": float32 (batch, meta_width)}`` to float32 logits
        (batch, classes). Softmax is applied by the loss while training (numerically safer than softmax
        followed by a logarithm, and the same function) and by whoever wants probabilities afterwards.
        Without metadata, or with ``fusion="image_only"``, the model has no ``meta_input``.
    """
    layers = keras.layers
    inputs: dict[str, Any] = {"image_input": image_input}
    pooled, feature_map = features, None
    if len(features.shape) == 4:  # kept in the graph even where the fusion ignores the image: explanations read it
        feature_map = features
        pooled = layers.GlobalAveragePooling2D(name=_POOL)(features)  # (batch, c)
    image_vector = layers.Dropout(head.image_dropout, seed=seed, name="image_dropout")(pooled)

    meta_vector = None
    if head.meta_width > 0 and head.fusion != "image_only":
        meta_input = keras.Input((head.meta_width,), name="meta_input", dtype="float32")
        inputs["meta_input"] = meta_vector = meta_input
        for index, units in enumerate(head.meta_units, start=1):
            meta_vector = layers.Dense(units, activation="relu", name=f"meta_dense_{index}")(meta_vector)

    fused = fuse(head.fusion, image_vector, meta_vector, feature_map)
    fused = layers.Dropout(head.fusion_dropout, seed=seed + 1, name="fusion_dropout")(fused)
    fused = layers.Dense(head.fusion_units, activation="relu", name="fusion_dense")(fused)
    logits = layers.Dense(head.classes, name="logits", dtype="float32")(fused)  # (batch, classes)
    return keras.Model(inputs, logits, name=name)


def pooled_classifier(feature_width: int, head: HeadSpec, *, seed: int) -> keras.Model:
    """Return the trainable part of the frozen-backbone classifier: pooled features (batch, c) to logits."""
    keras.utils.set_random_seed(seed)
    image_input = keras.Input((feature_width,), name="image_input", dtype="float32")
    return build_head(image_input, image_input, head, seed=seed, name="dermafuse_head")


def full_classifier(backbone: keras.Model, head: HeadSpec, *, seed: int) -> keras.Model:
    """Return the whole network: image float32 (batch, s, s, 3) in 0..255 (uint8 is cast) to logits.

    Args:
        backbone: as ``build_backbone`` made it; its layers become layers of this model (un-nested).
        head: sizes and rates.
        seed: of the initial head and the dropout masks.
    """
    # The same draws as `pooled_classifier`, so that cached and uncached runs begin at the same weights.
    keras.utils.set_random_seed(seed)
    return build_head(backbone.inputs[0], backbone.outputs[0], head, seed=seed)


def is_head(name: str) -> bool:
    """Whether a layer, or a variable by its path, belongs to the head: all else with weights is the backbone's."""
    return name.startswith(_HEAD)


def image_pool(model: keras.Model) -> keras.layers.Layer | None:
    """Return the layer from the last feature map to the embedding; ``None`` where pooled features come in."""
    return next((layer for layer in model.layers if layer.name == _POOL), None)


def parameter_counts(model: keras.Model) -> dict[Literal["total", "trainable"], int]:
    """Return how many numbers the model holds and how many of them training moves."""
    return {
        "total": int(model.count_params()),
        "trainable": int(sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)),
    }


def bare_backbone(network: NetworkSpec) -> keras.Model:
    """Return the backbone with its published (or random) weights: pixels 0..255 to the last feature map."""
    return build_backbone(network.backbone, image_size=network.image_size, weights=network.weights, seed=network.seed)


def whole_network(network: NetworkSpec) -> keras.Model:
    """Return the network from pixels to logits in float32, exactly those layers trainable that training moves."""
    backbone = bare_backbone(network)
    train_from(backbone, spec(network.backbone), network.trainable_from, depthwise=network.train_depthwise)
    return full_classifier(backbone, network.head, seed=network.seed)


def head_network(network: NetworkSpec) -> keras.Model:
    """Return what stands behind a frozen backbone: pooled features (batch, c) to logits."""
    return pooled_classifier(spec(network.backbone).features, network.head, seed=network.seed)


def tail_network(network: NetworkSpec, *, mixed: bool) -> keras.Model:
    """Return the stages that train and the head: activations before ``trainable_from`` to logits.

    Args:
        network: whose ``trainable_from`` is a stage, not the first.
        mixed: 1x1 convolutions compute in bfloat16.
    """
    if network.trainable_from is None:
        raise ValueError("a network whose backbone is frozen has no tail")
    _, tail = split_at(bare_backbone(network), spec(network.backbone), network.trainable_from)
    if mixed:
        tail = with_bf16_pointwise(tail)
    freeze_for_tail(tail, depthwise=network.train_depthwise)
    keras.utils.set_random_seed(network.seed)
    return build_head(tail.inputs[0], tail.outputs[0], network.head, seed=network.seed, name="dermafuse_tail")
