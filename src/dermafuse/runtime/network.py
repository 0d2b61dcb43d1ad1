"""What every network of a bundle takes and gives, checked before it runs, and cut down to what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import openvino as ov

from dermafuse.errors import BundleError

IMAGE_INPUT = "image_input"
META_INPUT = "meta_input"
LOGITS = "logits"
FEATURE_MAP = "feature_map"
EMBEDDING = "embedding"
#: What the out-of-distribution score looks at, where a network has it (`dermafuse.runtime.decision.ood_features`).
OOD_FEATURES = "ood_features"

#: Images larger than this are no use to a classifier and would only exhaust the memory.
_MAX_SIDE = 2048


@dataclass(frozen=True)
class Network:
    """What is known of a checked network.

    Attributes:
        image_size: input side in pixels.
        channels: of the feature map.
        takes_metadata: whether it has a metadata input.
        ood_output: name of the output that out-of-distribution scores look at.
        ood_width: its width.
    """

    image_size: int
    channels: int
    takes_metadata: bool
    ood_output: str
    ood_width: int


def check_network(model: ov.Model, classes: int, meta_width: int, where: str) -> Network:
    """Check names, types and shapes of inputs and outputs.

    Args:
        model: one network of a bundle.
        classes: k, the number of logits.
        meta_width: width of the encoded metadata vector.
        where: what to call the network in errors.

    Raises:
        BundleError: an input or output is missing, unexpected, or of another type or shape.
    """
    inputs = {name: port for port in model.inputs for name in port.get_names()}
    outputs = {name: port for port in model.outputs for name in port.get_names()}
    if len(model.inputs) > 2 or IMAGE_INPUT not in inputs or (len(model.inputs) == 2 and META_INPUT not in inputs):
        raise BundleError(f"{where} takes other inputs than {IMAGE_INPUT} and {META_INPUT}; export the model again.")
    for name in (LOGITS, FEATURE_MAP, EMBEDDING):
        if name not in outputs:
            raise BundleError(f"{where} has no output '{name}'; export the model again.")

    image = _shape(inputs[IMAGE_INPUT], IMAGE_INPUT, ov.Type.u8, [None, None, None, 3], where)
    side = image[1]
    if side is None or image[2] != side or not 1 <= side <= _MAX_SIDE:
        raise BundleError(f"{where} does not take square images of a fixed size; export the model again.")
    if META_INPUT in inputs:
        _shape(inputs[META_INPUT], META_INPUT, ov.Type.f32, [None, meta_width], where)
    _shape(outputs[LOGITS], LOGITS, ov.Type.f32, [None, classes], where)
    embedding = _shape(outputs[EMBEDDING], EMBEDDING, ov.Type.f32, [None, None], where)
    features = _shape(outputs[FEATURE_MAP], FEATURE_MAP, ov.Type.f32, [None, None, None, embedding[1]], where)
    if None in features[1:] or embedding[1] is None:
        raise BundleError(f"{where} has a feature map of no fixed size; export the model again.")
    ood_output, ood_width = EMBEDDING, embedding[1]
    if OOD_FEATURES in outputs:
        width = _shape(outputs[OOD_FEATURES], OOD_FEATURES, ov.Type.f32, [None, None], where)[1]
        if width is None:
            raise BundleError(f"{where} has an output '{OOD_FEATURES}' of no fixed size; export the model again.")
        ood_output, ood_width = OOD_FEATURES, width
    return Network(side, embedding[1], META_INPUT in inputs, ood_output, ood_width)


def inference_model(model: ov.Model, outputs: Sequence[str]) -> ov.Model:
    """Return a copy for one image at a time with only the wanted outputs, in that order.

    Its inputs are ``image_input`` uint8 (1, s, s, 3) and, where the network takes it, ``meta_input`` float32
    (1, w), in this order. A fixed batch of one compiles to the fastest kernels, and is as fast an image as
    any larger batch.

    Raises:
        BundleError: the network cannot be brought into this form.
    """
    try:
        copy = model.clone()
        results = [
            next(result for result in copy.get_results() if name in result.get_output_tensor(0).get_names())
            for name in outputs
        ]
        entries = [
            next(entry for entry in copy.get_parameters() if name in entry.get_output_tensor(0).get_names())
            for name in (IMAGE_INPUT, META_INPUT)[: len(copy.inputs)]
        ]
        single = ov.Model(results, entries, "dermafuse")
        shapes = {index: entry.get_partial_shape() for index, entry in enumerate(entries)}
        for shape in shapes.values():
            shape[0] = 1
        single.reshape(shapes)
    except (RuntimeError, StopIteration, TypeError) as error:
        raise BundleError("The network cannot take one image at a time; export the model again.") from error
    return single


def _shape(port: ov.Output, name: str, kind: ov.Type, expected: Sequence[int | None], where: str) -> list[int | None]:
    """Return the port's dimensions (``None``: open); refuse another type, rank or fixed dimension."""
    shape = port.get_partial_shape()
    fits = port.get_element_type() == kind and shape.rank.is_static and len(shape) == len(expected)
    found = [dimension.get_length() if dimension.is_static else None for dimension in shape] if fits else []
    fits = fits and found[0] in (None, 1)
    fits = fits and all(wanted in (None, have) for wanted, have in zip(expected, found, strict=True))
    if not fits:
        words = ", ".join("?" if wanted is None else str(wanted) for wanted in expected)
        raise BundleError(
            f"'{name}' of {where} is {port.get_element_type().get_type_name()} {shape}, "
            f"expected {kind.get_type_name()} ({words}); export the model again."
        )
    return found
