"""Keras models to OpenVINO models: traced once, only the wanted outputs, uint8 images in."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import openvino as ov
import tensorflow as tf


def to_openvino(
    model: keras.Model,
    outputs: Mapping[str, keras.KerasTensor],
    *,
    uint8_image: bool = True,
) -> ov.Model:
    """Convert the part of ``model`` between its inputs and ``outputs`` for inference.

    Args:
        model: a functional Keras model; its inputs keep the keys of its input dictionary
            (``image_input``, ``meta_input``), else their names.
        outputs: output name -> tensor of the model's graph, in the order wanted.
        uint8_image: take ``image_input`` as uint8 0..255 (cast inside) instead of float32.

    Returns:
        ``openvino.Model`` with batch size left open, named inputs and outputs, float32 constants.
    """
    inputs = model.input if isinstance(model.input, dict) else {tensor.name: tensor for tensor in model.inputs}
    network = keras.Model(inputs, dict(outputs))
    signature = {
        name: tf.TensorSpec([None, *tensor.shape[1:]], tf.as_dtype(tensor.dtype), name=name)
        for name, tensor in inputs.items()
    }

    def infer(values: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        # An explicit op with a known name behind every result: the converter also lists inner tensors (the
        # custom gradient of swish makes them look like results), and these names tell which are ours.
        results = network(values, training=False)
        return [tf.identity(results[name], name=name) for name in outputs]

    concrete = tf.function(infer, input_signature=[signature], autograph=False).get_concrete_function()
    converted = ov.convert_model(concrete)
    wanted = []
    for name in outputs:
        result = next(
            result
            for result in converted.get_results()
            if any(label.split(":")[0] == name for label in result.input(0).get_source_output().get_names())
        )
        source = result.input(0).get_source_output()
        source.get_tensor().set_names({name})
        wanted.append(result)
    parameters = []
    for name in inputs:
        parameter = next(
            parameter
            for parameter in converted.get_parameters()
            if any(label.split(":")[0] in (name, f"values_{name}") for label in parameter.output(0).get_names())
            or parameter.get_friendly_name() in (name, f"values_{name}")
        )
        parameter.output(0).get_tensor().set_names({name})
        parameter.set_friendly_name(name)
        parameters.append(parameter)
    clean = ov.Model(wanted, parameters, "dermafuse")
    if uint8_image:
        clean = with_uint8_image(clean)
    return clean


def with_uint8_image(model: ov.Model) -> ov.Model:
    """Return ``model`` with ``image_input`` taken as uint8 and cast to float32 as its first step."""
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input("image_input").tensor().set_element_type(ov.Type.u8)
    return steps.build()
