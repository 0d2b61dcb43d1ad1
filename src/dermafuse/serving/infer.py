"""Inference in the Open Inference Protocol v2: from the body of a request to the body of its answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.prediction import ImageSource, Prediction
from dermafuse.serving.desk import Reply
from dermafuse.serving.limits import Problem
from dermafuse.serving.model import ServedModel, given_values
from dermafuse.serving.tensors import InferRequest, Tensor, read_request, write_answer


def protocol_metadata(model: ServedModel) -> dict[str, Any]:
    """Return the model's inputs and outputs as the protocol says them."""
    k = len(model.predictor.classes)
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    for field in model.fields():
        datatype = "FP64" if field["kind"] == "number" else "BYTES"
        inputs.append({"name": field["name"], "datatype": datatype, "shape": [-1]})
    outputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": [-1, *([k] if tensor.name == "probabilities" else [])],
        }
        for tensor in _tensors(model, [])
    ]
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "dermafuse_openvino",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"digest": model.facts["digest"], "classes": list(model.predictor.classes)},
    }


def infer(model: ServedModel, body: bytes, length: str | None, deadline: float) -> Reply:
    """Answer an infer request.

    Raises:
        Problem: 400, 413, 415, 422 or 503: the request, an image or a value cannot be used, or there was no time.
    """
    asked = read_request(body, length)
    views = asked.parameters.get("views", 1)
    if views not in (1, 8) or isinstance(views, bool):
        raise Problem(400, "The parameter 'views' is 1 or 8.")
    images = _images(asked.inputs)
    if not 1 <= len(images) <= model.limits.batch:
        raise Problem(400, f"'image' has {len(images)} images; 1 to {model.limits.batch} are taken.")
    columns = {name: _column(tensor, len(images)) for name, tensor in asked.inputs.items() if name != "image"}
    said: list[Prediction] = []
    for index, image in enumerate(images):
        if time.monotonic() > deadline:
            raise Problem(503, "There was no time left; send fewer images at once.", retry_after=2)
        record = given_values({name: column[index] for name, column in columns.items()})
        said.append(model.predict(image, record, int(views)))
    words = UnknownWords(model.predictor.bundle.encoder)
    for one in said:
        words.add(one)
    head = {
        "model_name": model.name,
        "model_version": model.version,
        "parameters": {"digest": model.facts["digest"], **({"notes": words.of_files()} if words.from_file else {})},
        **({} if asked.id is None else {"id": asked.id}),
    }
    content, headers = write_answer(head, _chosen(model, asked, said))
    return Reply(content, headers, tuple(one.out_of_distribution for one in said))


def _chosen(model: ServedModel, asked: InferRequest, said: list[Prediction]) -> list[tuple[Tensor, bool]]:
    there = {tensor.name: tensor for tensor in _tensors(model, said)}
    if asked.outputs is None:
        return [(tensor, asked.binary) for tensor in there.values()]
    for name in asked.outputs:
        if name not in there:
            raise Problem(400, f"An output is not one of {', '.join(there)}.")
    return [(there[name], binary) for name, binary in asked.outputs.items()]


def _tensors(model: ServedModel, said: list[Prediction]) -> list[Tensor]:
    """Return all outputs; the malignant probability and the flag only where the model has them."""
    bundle, n = model.predictor.bundle, len(said)
    rows = [[one.probabilities[code] for code in bundle.classes] for one in said]
    tensors = [
        Tensor("probabilities", "FP64", (n, len(bundle.classes)), np.array(rows, np.float64)),
        Tensor("label", "BYTES", (n,), [one.label.encode() for one in said]),
    ]
    if bundle.malignant:
        chances = np.array([one.malignant_probability for one in said], np.float64)
        tensors.append(Tensor("malignant_probability", "FP64", (n,), chances))
    if bundle.prediction_set is not None:
        sets = ["|".join(one.prediction_set or ()).encode() for one in said]
        tensors.append(Tensor("prediction_set", "BYTES", (n,), sets))
    if bundle.ood is not None:
        flags = np.array([one.out_of_distribution for one in said], np.bool_)
        scores = np.array([one.ood_score for one in said], np.float64)
        tensors += [
            Tensor("out_of_distribution", "BOOL", (n,), flags),
            Tensor("ood_score", "FP64", (n,), scores),
        ]
    return tensors


def _images(inputs: Mapping[str, Tensor]) -> list[ImageSource]:
    tensor = inputs.get("image")
    if tensor is None:
        raise Problem(400, "There is no input 'image'.")
    if isinstance(tensor.values, list):
        if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise Problem(400, "'image' as BYTES has the shape [n] or [n, 1].")
        return list(tensor.values)
    if tensor.datatype != "UINT8" or len(tensor.shape) != 4 or tensor.shape[3] != 3:
        raise Problem(400, "'image' is BYTES [n], or UINT8 [n, height, width, 3].")
    return list(tensor.values)


def _column(tensor: Tensor, count: int) -> list[object]:
    """Return the values of one metadata field, one an image; not-a-number and an empty text are no value."""
    if tensor.shape not in ((count,), (count, 1)):
        raise Problem(
            400, f"A metadata input has the shape {list(tensor.shape)}; one value for each image is expected."
        )
    if isinstance(tensor.values, list):
        try:
            return [value.decode() for value in tensor.values]
        except UnicodeDecodeError as error:
            raise Problem(400, "A text of a metadata input is not UTF-8.") from error
    return [None if isinstance(value, float) and value != value else value for value in tensor.values.ravel().tolist()]
