"""Building a backbone: an un-nested Keras functional model from pixels to the last feature map."""

from __future__ import annotations

from pathlib import Path

import keras

from dermafuse.errors import ConfigError
from dermafuse.models.efficientnet_lite import lite_graph
from dermafuse.models.keras_weights import IMAGENET_MEAN, IMAGENET_STDDEV, normalisation, set_normalisation
from dermafuse.models.specs import SPECS, STAGE_NAMES, BackboneSpec, StageSpec, check_image_size, spec, stage_index
from dermafuse.models.weights import IMAGENET, assign, lite_tensors, load_weights, weights_id

__all__ = [
    "SPECS",
    "BackboneSpec",
    "StageSpec",
    "build_backbone",
    "build_lite_classifier",
    "spec",
    "stage_output",
]


def build_backbone(
    name: str, *, image_size: int | None = None, weights: str | Path = IMAGENET, seed: int = 0
) -> keras.Model:
    """Build a backbone with its weights.

    Input ``image_input``: float32 (batch, size, size, 3), pixels in 0..255 (normalisation is inside).
    Output of layer ``top_activation``: float32 (batch, h, w, 1280), h = w = ceil(size / 32).
    Trainable flags are left as Keras sets them; see ``dermafuse.models.cut`` for freezing.

    Args:
        name: ``efficientnet_b0``, ``_b1``, ``_lite0``, ``_lite1`` or ``_lite2``.
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
    model = lite_graph(backbone, size) if backbone.lite else _keras_graph(backbone, size)
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
    if not backbone.lite:
        raise ConfigError(f"Only the Lite backbones come with a classifier, {name} does not.")
    model = lite_graph(backbone, check_image_size(image_size or backbone.image_size), classifier=True)
    assign(model, lite_tensors(backbone))
    return model


def stage_output(model: keras.Model, stage: str) -> keras.KerasTensor:
    """Return the output tensor of a stage, in the graph of ``model``: a backbone, a part of one, or a classifier.

    Raises:
        ConfigError: there is no such stage, or the model is not built on a backbone.
    """
    number = stage_index(stage)
    if 0 < number < len(STAGE_NAMES) - 1:
        inside = [layer for layer in model.layers if layer.name.startswith(stage)]
    else:
        inside = [layer for layer in model.layers if layer.name == f"{stage}_activation"]
    if not inside:
        raise ConfigError(f"The model '{model.name}' does not contain the backbone stage '{stage}'.")
    end = inside[-1]  # layers are in topological order
    # A layer that serves in several graphs (a network and its tail) has one node in each; `end.output` is
    # always the first one's.
    nodes = (node for same_depth in model._nodes_by_depth.values() for node in same_depth)
    return next(node.outputs[0] for node in nodes if node.operation is end)


def _keras_graph(backbone: BackboneSpec, size: int) -> keras.Model:
    """Build EfficientNetB0/B1 of Keras Applications without weights, its input correctly normalised."""
    build = {
        "efficientnet_b0": keras.applications.EfficientNetB0,
        "efficientnet_b1": keras.applications.EfficientNetB1,
    }[backbone.name]
    image = keras.Input((size, size, 3), name="image_input")
    built = build(include_top=False, weights=None, input_tensor=image)
    # Built again over the same layers: Keras' own wants its input in a list, and warns otherwise.
    model = keras.Model(image, built.output, name=backbone.name)
    # Keras numbers nameless layers through the session; ours explain themselves and stay the same.
    next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)).name = "input_rescaling"
    layer = normalisation(model)
    layer.name = "input_normalization"
    set_normalisation(layer, IMAGENET_MEAN, IMAGENET_STDDEV**2)
    return model
