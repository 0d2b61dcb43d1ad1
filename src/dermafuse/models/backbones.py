"""Building a backbone: an un-nested Keras functional model from pixels to the last feature map."""

from __future__ import annotations

from pathlib import Path

import keras

from dermafuse.errors import ConfigError
from dermafuse.models.backbone_spec import PackagedWeights, Stage
from dermafuse.models.families.efficientnet_lite import FAMILY, lite_graph
from dermafuse.models.specs import check_image_size, spec
from dermafuse.models.weights import IMAGENET, assign, load_weights, packaged_tensors, weights_id


def build_backbone(
    name: str, *, image_size: int | None = None, weights: str | Path = IMAGENET, seed: int = 0
) -> keras.Model:
    """Build a backbone with its weights.

    Input ``image_input``: float32 (batch, size, size, 3), pixels in 0..255 (normalisation is inside).
    Output: float32 (batch, h, w, features), that of the last stage.
    Trainable flags are left as Keras sets them; see ``dermafuse.models.cut`` for freezing.

    Args:
        name: one of ``specs.SPECS``.
        image_size: input side in pixels; default the size the ImageNet weights were trained at.
        weights: ``"imagenet"``, ``"random"``, or the path of the published weights file.
        seed: of ``"random"``; without effect otherwise.

    Raises:
        ConfigError: unknown backbone or unusable size.
        WeightsError: the weights are not to be had, or are not the published ones.
    """
    backbone = spec(name)
    size = check_image_size(backbone.image_size if image_size is None else image_size)
    if keras.config.image_data_format() != "channels_last":
        raise ConfigError("Keras is set to 'channels_first'; set image_data_format to 'channels_last' in keras.json.")
    weights_id(name, weights)  # a wrong file is refused before the work of building
    model = backbone.build(backbone, size)
    load_weights(model, backbone, weights, seed=seed)
    return model


def build_lite_classifier(name: str, *, image_size: int | None = None) -> keras.Model:
    """Build a Lite network with its ImageNet classifier: pixels in 0..255 -> logits (batch, 1000).

    It exists to prove that the conversion of the weights is right.

    Raises:
        ConfigError: unknown backbone, or not a Lite one.
        WeightsError: the weights are not to be had.
    """
    backbone = spec(name)
    source = backbone.weights
    if backbone.family != FAMILY or not isinstance(source, PackagedWeights):
        raise ConfigError(f"Only the Lite backbones come with a classifier, {name} does not.")
    model = lite_graph(backbone, check_image_size(image_size or backbone.image_size), classifier=True)
    assign(model, packaged_tensors(backbone, source))
    return model


def stage_output(model: keras.Model, stage: Stage) -> keras.KerasTensor:
    """Return the output tensor of a stage, in the graph of ``model``: a backbone, a part of one, or a classifier.

    Raises:
        ConfigError: the model is not built on a backbone with this stage.
    """
    end = next((layer for layer in model.layers if layer.name == stage.layer), None)
    if end is None:
        raise ConfigError(f"The model '{model.name}' does not contain the backbone stage '{stage.name}'.")
    # A layer that serves in several graphs (a network and its tail) has one node in each; `end.output` is
    # always the first one's.
    nodes = (node for same_depth in model._nodes_by_depth.values() for node in same_depth)
    return next(node.outputs[0] for node in nodes if node.operation is end)
