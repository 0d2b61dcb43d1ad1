"""What is computed for the friendly API: from the body of a request to the body of its answer."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from dermafuse.labels import DISCLAIMER
from dermafuse.runtime.released import model_facts, which_model
from dermafuse.serving.body import Form, parse_form
from dermafuse.serving.desk import Asked, Description, Reply
from dermafuse.serving.infer import protocol_metadata
from dermafuse.serving.limits import Problem
from dermafuse.serving.model import ServedModel, given_values

#: What a batch says once for all of its images.
_ONCE: Final = frozenset({"model", "disclaimer"})


def describe(model: ServedModel) -> Description:
    """Return what the HTTP process has to know of the model."""
    sentence = which_model(model_facts(model.predictor.bundle))
    return Description(model.facts, model.version, model.describe(), protocol_metadata(model), sentence)


def predict(model: ServedModel, body: bytes, kind: str, asked: Asked) -> Reply:
    """Answer about the one image of a form.

    Raises:
        Problem: 400, 413, 415 or 422: the form, its image or a value cannot be used.
    """
    form = parse_form(body, kind)
    answer = model.answer(_only_image(form), given_values(form.values), asked)
    return Reply(_json(answer), strange=(answer["out_of_distribution"],))


def predict_batch(model: ServedModel, body: bytes, kind: str, asked: Asked, deadline: float) -> Reply:
    """Answer about each image of a form, in the order sent, with its prediction or its problem.

    Raises:
        Problem: 400, 413, 415 or 422: the form cannot be used.
    """
    form = parse_form(body, kind)
    most = model.limits.batch
    if not 1 <= len(form.images) <= most:
        raise Problem(422, f"Send 1 to {most} parts named 'image', not {len(form.images)}.")
    records = _records(form)
    results: list[dict[str, Any]] = []
    strange = []
    for image, record in zip(form.images, records, strict=True):
        try:
            if time.monotonic() > deadline:
                raise Problem(503, "There was no time left for this image; send fewer at once.")
            answer = model.answer(image, given_values(record), asked)
            results.append({name: value for name, value in answer.items() if name not in _ONCE})
            strange.append(answer["out_of_distribution"])
        except Problem as problem:
            results.append({"status": problem.status, "detail": problem.detail})
    whole = {"predictions": results, "model": model.facts, "disclaimer": DISCLAIMER}
    return Reply(_json(whole), strange=tuple(strange))


def similar(model: ServedModel, body: bytes, kind: str, count: int) -> Reply:
    """Answer with the images of the gallery that are nearest to the one image of a form; other parts are ignored.

    Raises:
        Problem: as `predict`; 404, there is no gallery.
    """
    found = model.similar(_only_image(parse_form(body, kind)), count)
    return Reply(_json({"similar": found, "model": model.facts, "disclaimer": DISCLAIMER}))


def sample(model: ServedModel, number: int) -> Reply:
    """Return generated lesion ``number`` as a JPEG file."""
    return Reply(model.samples.jpeg(number), {"Content-Type": "image/jpeg"})


def _only_image(form: Form) -> bytes:
    if len(form.images) != 1:
        raise Problem(422, f"Send one part named 'image', not {len(form.images)}; /v1/predict:batch takes several.")
    return form.images[0]


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _records(form: Form) -> list[dict[str, object]]:
    """Return the metadata of each image: of the part ``records`` one each, and the other parts for all of them."""
    common: dict[str, object] = {name: value for name, value in form.values.items() if name != "records"}
    count = len(form.images)
    if "records" not in form.values:
        return [common] * count
    try:
        records = json.loads(form.values["records"], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "The part 'records' is not JSON.") from error
    plain = (str, int, float, type(None))
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and all(isinstance(value, plain) for value in record.values()) for record in records
    ):
        raise Problem(422, "The part 'records' is a JSON list with one object of fields (texts or numbers) an image.")
    if len(records) != count:
        raise Problem(422, f"The part 'records' has {len(records)} records for {count} images; give one an image.")
    return [{**common, **record} for record in records]
