"""Keras models of a `NetworkSpec`: whole, or what lies behind a cut."""

from __future__ import annotations

import keras

from dermafuse.models.backbones import build_backbone
from dermafuse.models.classifier import build_head, full_classifier, pooled_classifier
from dermafuse.models.cut import freeze_for_tail, split_at, train_from
from dermafuse.models.mixed import with_bf16_pointwise
from dermafuse.models.network_spec import NetworkSpec
from dermafuse.models.specs import spec


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
