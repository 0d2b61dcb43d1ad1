"""Faster training steps on a CPU with bfloat16 arithmetic: the 1x1 convolutions of a tail in mixed precision.

Measured on 2 cores (``benchmarks/tail_speed.py``): 1x1 convolutions gain 1.7 to 2.4 times, depthwise ones lose
(TensorFlow has no bfloat16 kernel worth its name for them), so a whole network in ``mixed_bfloat16`` is slower
than in float32 and this mixture is faster than either.
"""

from __future__ import annotations

import keras


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
