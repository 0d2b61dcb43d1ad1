"""The Open Inference Protocol v2: what Triton, KServe, Seldon and OpenVINO Model Server speak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

import dermafuse
from dermafuse.serving.body import held_body
from dermafuse.serving.infer import infer
from dermafuse.serving.limits import Problem
from dermafuse.serving.metrics import Metrics
from dermafuse.serving.pool import Pool
from dermafuse.serving.schemas import INFER, protocol_errors

_JSON: Final = {"content": {"application/json": {"schema": INFER}}}


class Protocol:
    """Handlers of the Open Inference Protocol.

    Args:
        pool: that computes.
        metrics: that count.
        ready: whether the server takes requests.
    """

    def __init__(self, pool: Pool, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self.model = pool.desk.description
        self.pool = pool
        self.metrics = metrics
        self.ready = ready

    def router(self) -> Any:
        """Return the routes."""
        routes = APIRouter(tags=["Open Inference Protocol v2"])

        def add(path: str, handler: Any, *statuses: int) -> None:
            routes.add_api_route(path, handler, methods=["GET"], responses=protocol_errors(400, *statuses))

        add("/v2", self.server, 401, 429)
        add("/v2/health/live", self.live)
        add("/v2/health/ready", self.server_ready, 503)
        for version in ("", "/versions/{version}"):
            model = f"/v2/models/{{name}}{version}"
            add(model, self.metadata, 401, 404, 429)
            add(f"{model}/ready", self.model_ready, 401, 404, 429, 503)
            routes.add_api_route(
                f"{model}/infer",
                self.infer,
                methods=["POST"],
                responses=protocol_errors(400, 401, 404, 408, 413, 415, 422, 429, 503),
                openapi_extra={"requestBody": {"required": True, **_JSON}},
            )
        return routes

    async def server(self) -> Any:
        """Return what this server is."""
        return JSONResponse(
            {
                "name": "dermafuse",
                "version": dermafuse.__version__,
                "extensions": ["binary_tensor_data"],
                "parameters": {"model": self.model.name, "digest": self.model.facts["digest"]},
            }
        )

    async def live(self) -> Any:
        """Say that the process answers."""
        return JSONResponse({"live": True})

    async def server_ready(self) -> Any:
        """Say whether requests are taken: not before the first prediction, and not when the server ends."""
        if not self.ready():
            raise Problem(503, "The server is not ready.", retry_after=1)
        return JSONResponse({"ready": True})

    async def model_ready(self, name: str, version: str | None = None) -> Any:
        """Say whether the model answers."""
        self._check(name, version)
        if not self.ready():
            raise Problem(503, "The model is not ready.", retry_after=1)
        return JSONResponse({"name": self.model.name, "ready": True})

    async def metadata(self, name: str, version: str | None = None) -> Any:
        """Return the model's inputs and outputs."""
        self._check(name, version)
        return JSONResponse(self.model.metadata)

    async def infer(self, request: Request, name: str, version: str | None = None) -> Any:
        """Predict a batch of images: encoded files as BYTES, or pixels as UINT8 (n, height, width, 3)."""
        self._check(name, version)
        started: float = request.state.started
        deadline = started + self.pool.limits.seconds
        length = request.headers.get("inference-header-content-length")
        async with held_body(request, self.pool, deadline) as body:
            reply = await self.pool.run(infer, (body, length, deadline), deadline)
        self.metrics.predictions(reply.strange)
        return Response(reply.content, headers=dict(reply.headers))

    def _check(self, name: str, version: str | None) -> None:
        if name != self.model.name or version not in (None, self.model.version):
            raise Problem(404, f"There is the model '{self.model.name}', version '{self.model.version}', and no other.")
