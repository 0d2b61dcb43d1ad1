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

from dermafuse.models.backbone_spec import BackboneSpec
from dermafuse.models.backbones import stage_output


def split_at(model: keras.Model, backbone: BackboneSpec, stage: str) -> tuple[keras.Model, keras.Model]:
    """Cut a backbone before ``stage``, the first stage of the tail: ``tail(front(x)) == model(x)``.

    Both parts hold the layers of ``model`` itself, not copies: training the tail trains the model.
    The tail's input is named ``image_input`` too, so that whatever feeds and closes a whole network does the
    same for a tail; its layers are not nested, so a further graph may be built on ``tail.output``.

    Args:
        model: from ``build_backbone``, or a tail of it.
        backbone: what it was built from.
        stage: any but the first.

    Returns:
        front: pixels (batch, size, size, 3) -> activations (batch, h, w, c), the output of the stage before.
        tail: activations (batch, h, w, c) -> last feature map (batch, h', w', features).

    Raises:
        ConfigError: unknown stage, or the first, before which there is nothing.
    """
    boundary = stage_output(model, backbone.before(stage))
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

    LayerNormalization has no statistics of a batch and trains like any other layer.

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


def train_from(model: keras.Model, backbone: BackboneSpec, stage: str | None, *, depthwise: bool = True) -> None:
    """Freeze a backbone before ``stage`` and make the rest trainable; ``None`` freezes all, the first stage nothing.

    The uncut counterpart of ``split_at`` with ``freeze_for_tail``: the same weights train. ``model`` is a
    backbone from ``build_backbone``, without a head; ``depthwise`` as in ``freeze_for_tail``.

    Raises:
        ConfigError: unknown stage.
    """
    if stage is None:
        freeze(model)
        return
    front: list[keras.layers.Layer] = []
    if backbone.stage_index(stage):
        front = keras.Model(model.inputs, stage_output(model, backbone.before(stage))).layers
    freeze(front)
    freeze_for_tail((layer for layer in model.layers if layer not in front), depthwise=depthwise)


def _flat(layers: keras.Model | Iterable[keras.layers.Layer]) -> Iterable[keras.layers.Layer]:
    return layers.layers if isinstance(layers, keras.Model) else layers


def with_bf16_pointwise(tail: keras.Model) -> keras.Model:
    """Return ``tail`` with its 1x1 convolutions computing in bfloat16; their weights stay float32.

    The new convolutions hold copies of the weights, all other layers are those of ``tail`` itself.

    Args:
        tail: from ``split_at``: activations float32 (batch, h, w, c) to the last feature map.
    """
    entrance = keras.Input(tail.inputs[0].shape[1:], name=tail.inputs[0].name, dtype="float32")

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is not keras.layers.Conv2D or layer.kernel_size != (1, 1):
            return layer
        return keras.layers.Conv2D.from_config({**layer.get_config(), "dtype": "mixed_bfloat16"})

    faster = keras.models.clone_model(tail, input_tensors=entrance, clone_function=replace)
    for layer in faster.layers:
        original = tail.get_layer(layer.name)
        if layer is not original and layer.weights:
            layer.set_weights(original.get_weights())
    return faster


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give ``target`` the weights of ``source``, layer by layer of the same name.

    Raises:
        ValueError: a layer of ``target`` with weights has no counterpart of the same shapes.
    """
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
