"""Cutting a backbone in two, and freezing so that what is frozen is a constant.

Two things in a network differ between training and inference: BatchNormalization (batch or moving
statistics) and Dropout (here: stochastic depth). Keras ties the first to the layer's ``trainable`` flag: with
``trainable=False`` it computes with its moving statistics and never moves them, whatever ``training`` is.
(A ``training=False`` noted in the graph does not help: a functional model overrides it when it is called
with ``training=True``.) The second heeds ``training`` only, so freezing also sets the rate to zero.

Setting ``model.trainable = True`` reaches into every layer and undoes this: choose what trains with the
functions of this module, last, just before ``compile``.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras

from dermafuse.errors import ConfigError
from dermafuse.models.backbones import stage_output
from dermafuse.models.specs import STAGE_NAMES, stage_index


def split_at(model: keras.Model, stage: str) -> tuple[keras.Model, keras.Model]:
    """Cut a backbone before ``stage``, the first stage of the tail: ``tail(front(x)) == model(x)``.

    Both parts hold the layers of ``model`` itself, not copies: training the tail trains the model.
    The tail's input is named ``image_input`` too, so that whatever feeds and closes a whole network does the
    same for a tail; its layers are not nested, so a further graph may be built on ``tail.output``.

    Args:
        model: from ``build_backbone``.
        stage: ``block1`` ... ``block7`` or ``top``.

    Returns:
        front: pixels (batch, size, size, 3) -> activations (batch, h, w, c), the output of the stage before.
        tail: activations (batch, h, w, c) -> last feature map (batch, h', w', 1280).

    Raises:
        ConfigError: unknown stage, or ``stem``, before which there is nothing.
    """
    index = stage_index(stage)
    if index == 0:
        raise ConfigError(
            "Nothing comes before the stage 'stem', so there is nothing to cut off; train the whole backbone instead."
        )
    boundary = stage_output(model, STAGE_NAMES[index - 1])
    front = keras.Model(model.inputs[0], boundary, name=f"{model.name}_before_{stage}")
    between = keras.Model(boundary, model.outputs[0])  # its input has a made-up name
    activation = keras.Input(boundary.shape[1:], name="image_input", dtype=boundary.dtype)
    tail = keras.models.clone_model(between, input_tensors=activation, clone_function=lambda layer: layer)
    tail.name = f"{model.name}_from_{stage}"
    return front, tail


def freeze(layers: keras.Model | Iterable[keras.layers.Layer]) -> None:
    """Make layers a constant function: nothing trains, no statistics move, no dropout, in any mode.

    The dropout rates are gone for good: to train these layers later, build the backbone anew.
    """
    for layer in _flat(layers):
        layer.trainable = False
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0


def freeze_for_tail(layers: keras.Model | Iterable[keras.layers.Layer], *, depthwise: bool = True) -> None:
    """Make layers trainable except BatchNormalization, which stays in inference mode, scale and shift included.

    Stochastic depth stays active in training. Small data sets have too few images a batch, and too few of the
    rare classes, for batch statistics to be worth more than those of ImageNet.

    Args:
        layers: of the tail.
        depthwise: train the depthwise kernels too. They hold 5 % of a tail's weights, and their gradient, for which
            TensorFlow on a CPU has no fast kernel, takes 28 % of a training step.
    """
    kept: tuple[type[keras.layers.Layer], ...] = (keras.layers.BatchNormalization, keras.layers.Normalization)
    if not depthwise:
        kept = (*kept, keras.layers.DepthwiseConv2D)
    for layer in _flat(layers):
        layer.trainable = not isinstance(layer, kept)


def train_from(model: keras.Model, stage: str | None, *, depthwise: bool = True) -> None:
    """Freeze a backbone before ``stage`` and make the rest trainable; ``None`` freezes all, ``stem`` nothing.

    The uncut counterpart of ``split_at`` with ``freeze_for_tail``: the same weights train. ``model`` is a
    backbone from ``build_backbone``, without a head; ``depthwise`` as in ``freeze_for_tail``.

    Raises:
        ConfigError: unknown stage.
    """
    first = len(STAGE_NAMES) if stage is None else stage_index(stage)
    freeze(layer for layer in model.layers if _stage_of(layer) < first)
    freeze_for_tail((layer for layer in model.layers if _stage_of(layer) >= first), depthwise=depthwise)


def _stage_of(layer: keras.layers.Layer) -> int:
    """Return the index of the stage that a backbone's layer belongs to; input and normalisation go with the stem."""
    for index, stage in enumerate(STAGE_NAMES):
        if layer.name.startswith(stage):
            return index
    return 0


def _flat(layers: keras.Model | Iterable[keras.layers.Layer]) -> Iterable[keras.layers.Layer]:
    return layers.layers if isinstance(layers, keras.Model) else layers
