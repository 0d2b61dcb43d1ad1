"""A bundle's network for programs of others: OpenVINO IR that gives calibrated probabilities, and its description.

Whatever the format, an exported model takes what the bundle's network takes: ``image_input``, an upright RGB
image stretched to the square, uint8 (batch, s, s, 3), and ``meta_input``, the encoded metadata, float32
(batch, w). ``export.json`` beside it says how both are made, what comes out and how well it was verified.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import openvino as ov
import openvino.opset13 as op

import dermafuse
from dermafuse.errors import BundleError
from dermafuse.files import write_atomic, write_json
from dermafuse.labels import DISCLAIMER
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.network import IMAGE_INPUT, LOGITS, META_INPUT

#: Name of the output of exported networks.
PROBABILITIES: Final = "probabilities"

#: The file that describes an exported model.
DESCRIPTION: Final = "export.json"


def probability_network(bundle: Bundle) -> ov.Model:
    """Return the bundle's networks as one that ends in ``softmax(logits / T)``, averaged over the members.

    Inputs ``image_input`` uint8 (batch, s, s, 3) and, where a member uses it, ``meta_input`` float32 (batch, w);
    output ``probabilities`` float32 (batch, k), in the order of the bundle's classes.

    Raises:
        BundleError: the members take images of different sizes.
    """
    sources = []
    inputs: dict[str, ov.op.Parameter] = {}
    for number, member in enumerate(bundle.models):
        model = member.clone()
        for parameter in model.get_parameters():
            names = parameter.output(0).get_names()
            name = IMAGE_INPUT if IMAGE_INPUT in names else META_INPUT
            shared = inputs.setdefault(name, parameter)
            if shared is parameter:
                parameter.set_friendly_name(name)
                continue
            if shared.get_partial_shape() != parameter.get_partial_shape():
                raise BundleError(
                    f"{bundle.path}: its networks take images of different sizes, so they cannot become one network; "
                    "export the RUN of each."
                )
            for target in parameter.output(0).get_target_inputs():
                target.replace_source_output(shared.output(0))
        if number:  # names are unique in a model
            for node in model.get_ordered_ops():
                node.set_friendly_name(f"model-{number + 1}/{node.get_friendly_name()}")
        logits = next(result for result in model.get_results() if LOGITS in result.get_output_tensor(0).get_names())
        source = logits.input(0).get_source_output()
        scaled = op.divide(source, op.constant(bundle.temperature, ov.Type.f32))
        sources.append(op.softmax(scaled, 1))
    total = sources[0]
    for one in sources[1:]:
        total = op.add(total, one)
    mean = total if len(sources) == 1 else op.divide(total, op.constant(float(len(sources)), ov.Type.f32))
    mean.output(0).get_tensor().set_names({PROBABILITIES})
    entries = [inputs[name] for name in (IMAGE_INPUT, META_INPUT) if name in inputs]
    return ov.Model([op.result(mean)], entries, "dermafuse")


def describe(bundle: Bundle, kind: str, **more: Any) -> dict[str, Any]:
    """Return what ``export.json`` and the file itself say: plain JSON, enough to use the model without dermafuse.

    Args:
        bundle: that was exported.
        kind: format of the export.
        more: what only this format has to say.
    """
    size, encoder = bundle.image_size, bundle.encoder
    pixels = "float32" if kind == "keras" else "uint8"
    inputs: dict[str, Any] = {
        IMAGE_INPUT: {
            "type": pixels,
            "shape": ["batch", size, size, 3],
            "layout": "batch, height, width, channel",
            "channels": "RGB",
            "range": [0, 255],
            "meaning": "RGB, values 0..255, turned upright, both axes stretched to the square (bilinear, antialiased "
            "where they shrink); normalisation is inside the network",
        }
    }
    if any(META_INPUT in port.get_names() for model in bundle.models for port in model.inputs):
        inputs[META_INPUT] = {
            "type": "float32",
            "shape": ["batch", encoder.width],
            "columns": list(encoder.feature_names),
            "meaning": "a number x becomes (x - mean) / scale, or (fill - mean) / scale where it is missing; a word of "
            "the vocabulary is 1 in its own column and 0 in the others, in lower case, with blanks for '_', and a "
            "number in its shortest form; other words that stand for one of the vocabulary are listed under 'words'; a "
            "word that is missing or none of these counts as 'unknown' where that is a word of it, else all its "
            "columns are 0; a column '..._missing' is 1 where the value is missing, and else 0; 'absent' is the whole "
            "vector where nothing is known",
            "absent": encoder.absent().tolist(),
            "encoder": encoder.to_json(),
            "words": {name: words.spellings() for name, words in encoder.words.items()},
        }
    logits = {
        LOGITS: {
            "type": "float32",
            "shape": ["batch", len(bundle.classes)],
            "meaning": "probabilities are softmax(logits / temperature)",
        }
    }
    probabilities = {
        PROBABILITIES: {
            "type": "float32",
            "shape": ["batch", len(bundle.classes)],
            "meaning": "calibrated: softmax(logits / temperature) is inside the network",
        }
    }
    return {
        "dermafuse": dermafuse.__version__,
        "research_use_only": True,
        "disclaimer": DISCLAIMER,
        "licence": licence_of(bundle.card),
        "announcements": bundle.info.get("announcements", []),
        "format": kind,
        **more,
        "model": bundle.digest,
        "inputs": inputs,
        "outputs": logits if kind == "keras" else probabilities,
        **bundle.labels.to_json(),
        "temperature": bundle.temperature,
        "offsets": None if bundle.offsets is None else list(bundle.offsets),
        "decision": "the class with the largest probability"
        if bundle.offsets is None
        else "the class with the largest log(probability) + offset; the probabilities themselves do not change",
    }


def licence_of(card: str) -> str:
    """Return what a model card says under its heading "Licence", in one line."""
    _, found, rest = card.partition("\n## Licence")
    said = " ".join(rest.partition("\n")[2].partition("\n## ")[0].split())
    return said if found and said else "Not stated; ask whoever made the model."


def entries(description: Mapping[str, Any]) -> dict[str, str]:
    """Return a description as texts, key by key, for the metadata of a file: JSON, but for what is a text already."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        for key, value in description.items()
    }


def write_openvino(
    model: ov.Model, folder: Path, description: Mapping[str, Any], *, half_weights: bool = False
) -> Path:
    """Write ``model.xml`` and ``model.bin`` into ``folder`` and return the path of the first.

    The description lies in the file as ``rt_info/dermafuse/<key>``.
    """
    path = folder / "model.xml"
    for key, text in entries(description).items():
        model.set_rt_info(text, ["dermafuse", key])
    ov.save_model(model, path, compress_to_fp16=half_weights)
    return path


def write_onnx(model: ov.Model, folder: Path, description: Mapping[str, Any]) -> Path:
    """Write ``model.onnx`` into ``folder``, with the description as its ``metadata_props``; return its path.

    Raises:
        ConfigError: the package ``onnx`` is not installed.
        OutputError: the network uses an operator that has no ONNX form here, or the disk is full.
    """
    from dermafuse.exporters.onnx_graph import to_onnx

    path = folder / "model.onnx"
    write_atomic(path, to_onnx(model, entries(description)).SerializeToString())
    return path


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``export.json`` into ``folder``."""
    write_json(folder / DESCRIPTION, description)
