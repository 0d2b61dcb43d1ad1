"""The friendly API: ``/v1/predict``, ``/v1/predict:batch``, ``/v1/model``, ``/v1/samples``."""

from __future__ import annotations

import json
import time
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from dermafuse.diagnoses import DISCLAIMER
from dermafuse.serving.body import Form, held_body, parse_form
from dermafuse.serving.limits import Problem
from dermafuse.serving.metrics import Metrics
from dermafuse.serving.model import Asked, ServedModel, given_values
from dermafuse.serving.pool import Pool
from dermafuse.serving.samples import SAMPLES, Samples
from dermafuse.serving.schemas import batch_form, one_form, problems


class Friendly:
    """Handlers of the friendly API.

    Args:
        model: that answers.
        pool: in whose threads.
        metrics: that count.
    """

    def __init__(self, model: ServedModel, pool: Pool, metrics: Metrics) -> None:
        self.model = model
        self.pool = pool
        self.metrics = metrics
        self.samples = Samples()

    def router(self) -> Any:
        """Return the routes."""
        routes = APIRouter(tags=["friendly"])
        form = one_form(self.model.fields())
        routes.add_api_route(
            "/v1/predict",
            self.predict,
            methods=["POST"],
            summary="Predict one image",
            responses=problems(400, 401, 408, 413, 415, 422, 503),
            openapi_extra={"requestBody": form},
        )
        routes.add_api_route(
            "/v1/predict:batch",
            self.batch,
            methods=["POST"],
            summary="Predict several images",
            responses=problems(400, 401, 408, 413, 415, 422, 503),
            openapi_extra={"requestBody": batch_form(self.model.limits.batch)},
        )
        routes.add_api_route(
            "/v1/model", self.describe, methods=["GET"], summary="What the model is", responses=problems(400, 401)
        )
        routes.add_api_route(
            "/v1/samples", self.list_samples, methods=["GET"], summary="Generated lesions", responses=problems(400, 401)
        )
        routes.add_api_route(
            "/v1/samples/{number}",
            self.sample,
            methods=["GET"],
            summary="A generated lesion as JPEG",
            responses={200: {"content": {"image/jpeg": {}}}, **problems(400, 401, 404, 422, 503)},
            response_class=Response,
        )
        return routes

    async def predict(self, request: Request, explain: bool = False, views: Literal["1", "8"] = "1") -> Any:
        """Answer about one image, sent as the part 'image' of a form beside the model's fields."""
        deadline = _deadline(request, self.pool)
        async with held_body(request, self.pool, deadline) as body:
            asked = Asked(int(views), explain)
            kind = request.headers.get("content-type", "")
            answer = await self.pool.run(lambda: self._one(body, kind, asked), deadline)
        self.metrics.prediction(answer["out_of_distribution"])
        return JSONResponse(answer)

    async def batch(self, request: Request, explain: bool = False, views: Literal["1", "8"] = "1") -> Any:
        """Answer about several images; each has its prediction or its problem, in the order sent."""
        deadline = _deadline(request, self.pool)
        async with held_body(request, self.pool, deadline) as body:
            asked = Asked(int(views), explain)
            kind = request.headers.get("content-type", "")
            results = await self.pool.run(lambda: self._many(body, kind, asked, deadline), deadline)
        for result in results:
            if "label" in result:
                self.metrics.prediction(result["out_of_distribution"])
        return JSONResponse({"predictions": results, "model": self.model.facts, "disclaimer": DISCLAIMER})

    async def describe(self) -> Any:
        """Return labels, fields with their vocabularies, card and digest."""
        return JSONResponse(self.model.describe())

    async def list_samples(self) -> Any:
        """Return which generated lesions there are."""
        return JSONResponse({"samples": [{"number": n, "name": name} for n, (name, _) in enumerate(SAMPLES)]})

    async def sample(self, request: Request, number: int) -> Any:
        """Return a generated lesion as JPEG."""
        if not 0 <= number < len(SAMPLES):
            raise Problem(404, f"There are samples 0 to {len(SAMPLES) - 1}.")
        content = await self.pool.run(lambda: self.samples.jpeg(number), _deadline(request, self.pool))
        return Response(content, media_type="image/jpeg")

    def _one(self, body: bytes, kind: str, asked: Asked) -> dict[str, Any]:
        form = parse_form(body, kind)
        if len(form.images) != 1:
            raise Problem(422, f"Send one part named 'image', not {len(form.images)}; /v1/predict:batch takes several.")
        return self.model.answer(form.images[0], given_values(form.values), asked)

    def _many(self, body: bytes, kind: str, asked: Asked, deadline: float) -> list[dict[str, Any]]:
        form = parse_form(body, kind)
        most = self.model.limits.batch
        if not 1 <= len(form.images) <= most:
            raise Problem(422, f"Send 1 to {most} parts named 'image', not {len(form.images)}.")
        records = _records(form)
        results = []
        for image, record in zip(form.images, records, strict=True):
            try:
                if time.monotonic() > deadline:
                    raise Problem(503, "There was no time left for this image; send fewer at once.")
                answer = self.model.answer(image, given_values(record), asked)
                results.append({name: value for name, value in answer.items() if name not in _ONCE})
            except Problem as problem:
                results.append({"status": problem.status, "detail": problem.detail})
        return results


#: What a batch says once for all of its images.
_ONCE: Final = frozenset({"model", "disclaimer"})


def _deadline(request: Any, pool: Pool) -> float:
    started: float = request.state.started
    return started + pool.limits.seconds


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
