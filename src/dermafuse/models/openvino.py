"""Keras models to OpenVINO models: traced once, only the wanted outputs, uint8 images in."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Final

import keras
import numpy as np
import openvino as ov
import tensorflow as tf

from dermafuse.temporaries import scratch_folder

#: Attribute of an IR layer that keeps it in float32 whatever precision the rest is compiled for.
_PRECISE: Final = {"name": "precise", "version": "0"}


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


def with_float32_start(model: ov.Model, until: str, *, keep: bool = False) -> ov.Model:
    """Return ``model`` with everything that output ``until`` depends on kept in float32.

    bfloat16 has 8 significant bits; rounding in the first stages is what reaches the features, while the later
    stages hold most of the arithmetic. Measured on Lite1: with stem to block3 in float32, features agree with
    float32 to a cosine above 0.999 (all bfloat16: 0.987 at worst) for about a third more time.

    The mark is a layer attribute of the IR, so it stays with the model in files and bundles.

    Args:
        model: a network with an output named ``until``.
        until: name of the output at the end of the float32 part.
        keep: keep that output (it is wanted for itself); else it is removed.
    """
    end = next(result for result in model.get_results() if until in result.get_output_tensor(0).get_names())
    names: set[str] = set()
    waiting = [end.input(0).get_source_output().get_node()]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in names:
            names.add(node.get_friendly_name())
            waiting += [node.input(i).get_source_output().get_node() for i in range(len(node.inputs()))]
    results = model.get_results()
    rest = [result for result in results if keep or until not in result.get_output_tensor(0).get_names()]
    kept = ov.Model(rest, model.get_parameters(), model.get_friendly_name())
    # Python cannot set this attribute on a node, the IR can: out to XML, marked there, and back.
    with scratch_folder() as folder:
        path = folder / "model.xml"
        ov.save_model(kept, path, compress_to_fp16=False)
        tree = ET.parse(path)  # noqa: S314 - written by ourselves a line above
        for layer in tree.iterfind("layers/layer"):
            if layer.get("name") in names and layer.get("type") not in ("Const", "Parameter", "Result"):
                info = layer.find("rt_info")
                if info is None:
                    info = ET.Element("rt_info")
                    layer.insert(1 if layer.find("data") is not None else 0, info)
                ET.SubElement(info, "attribute", _PRECISE)
        xml = ET.tostring(tree.getroot())
        weights = ov.Tensor(np.fromfile(path.with_suffix(".bin"), np.uint8))
        return ov.Core().read_model(xml, weights)
