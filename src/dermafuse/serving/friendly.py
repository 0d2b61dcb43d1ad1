"""The friendly API: ``/v1/predict``, ``/v1/predict:batch``, ``/v1/similar``, ``/v1/model``, ``/v1/samples``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from dermafuse.serving import jobs
from dermafuse.serving.body import held_body
from dermafuse.serving.desk import Asked, Job
from dermafuse.serving.limits import Problem
from dermafuse.serving.metrics import Metrics
from dermafuse.serving.pool import Pool
from dermafuse.serving.samples import SAMPLES
from dermafuse.serving.schemas import batch_form, one_form, problems


def _asked(
    explain: bool = False,
    views: Literal["1", "8"] = "1",
    stability: bool = False,
    operating_point: Annotated[str | None, Query(max_length=100)] = None,
    prevalence: Annotated[float | None, Query(ge=0, le=1)] = None,
) -> Asked:
    return Asked(int(views), explain, stability, operating_point, prevalence)


class Friendly:
    """Handlers of the friendly API.

    Args:
        pool: that computes.
        metrics: that count.
    """

    def __init__(self, pool: Pool, metrics: Metrics) -> None:
        self.pool = pool
        self.told = pool.desk.description.told
        self.metrics = metrics

    def router(self) -> Any:
        """Return the routes."""
        routes = APIRouter(tags=["friendly"])
        form = one_form(self.told["fields"])
        routes.add_api_route(
            "/v1/predict",
            self.predict,
            methods=["POST"],
            summary="Predict one image",
            responses=problems(400, 401, 429, 408, 413, 415, 422, 503),
            openapi_extra={"requestBody": form},
        )
        routes.add_api_route(
            "/v1/predict:batch",
            self.batch,
            methods=["POST"],
            summary="Predict several images",
            responses=problems(400, 401, 429, 408, 413, 415, 422, 503),
            openapi_extra={"requestBody": batch_form(self.pool.limits.batch)},
        )
        routes.add_api_route(
            "/v1/similar",
            self.similar,
            methods=["POST"],
            summary="Similar images of the gallery",
            responses=problems(400, 401, 429, 404, 408, 413, 415, 422, 503),
            openapi_extra={"requestBody": form},
        )
        routes.add_api_route(
            "/v1/model", self.describe, methods=["GET"], summary="What the model is", responses=problems(400, 401, 429)
        )
        routes.add_api_route(
            "/v1/samples",
            self.list_samples,
            methods=["GET"],
            summary="Generated lesions",
            responses=problems(400, 401, 429),
        )
        routes.add_api_route(
            "/v1/samples/{number}",
            self.sample,
            methods=["GET"],
            summary="A generated lesion as JPEG",
            responses={200: {"content": {"image/jpeg": {}}}, **problems(400, 401, 429, 404, 422, 503)},
            response_class=Response,
        )
        return routes

    async def predict(self, request: Request, asked: Annotated[Asked, Depends(_asked)]) -> Any:
        """Answer about one image, sent as the part 'image' of a form beside the model's fields."""
        return await self._answer(request, jobs.predict, asked)

    async def batch(self, request: Request, asked: Annotated[Asked, Depends(_asked)]) -> Any:
        """Answer about several images; each has its prediction or its problem, in the order sent."""
        return await self._answer(request, jobs.predict_batch, asked, _deadline(request, self.pool))

    async def similar(self, request: Request, count: Annotated[int, Query(ge=1, le=24)] = 6) -> Any:
        """Answer with the labelled images of the server's gallery that are most like an image; fields are ignored."""
        return await self._answer(request, jobs.similar, count)

    async def _answer(self, request: Any, job: Job, *arguments: object) -> Any:
        deadline = _deadline(request, self.pool)
        async with held_body(request, self.pool, deadline) as body:
            kind = request.headers.get("content-type", "")
            reply = await self.pool.run(job, (body, kind, *arguments), deadline)
        self.metrics.predictions(reply.strange)
        return Response(reply.content, headers=dict(reply.headers))

    async def describe(self) -> Any:
        """Return labels, fields with their vocabularies, card and digest."""
        return JSONResponse(self.told)

    async def list_samples(self) -> Any:
        """Return which generated lesions there are."""
        return JSONResponse({"samples": [{"number": n, "name": name} for n, (name, _) in enumerate(SAMPLES)]})

    async def sample(self, request: Request, number: int) -> Any:
        """Return a generated lesion as JPEG."""
        if not 0 <= number < len(SAMPLES):
            raise Problem(404, f"There are samples 0 to {len(SAMPLES) - 1}.")
        reply = await self.pool.run(jobs.sample, (number,), _deadline(request, self.pool))
        return Response(reply.content, headers=dict(reply.headers))


def _deadline(request: Any, pool: Pool) -> float:
    started: float = request.state.started
    return started + pool.limits.seconds
