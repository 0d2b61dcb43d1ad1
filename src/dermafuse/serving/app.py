"""The application: every route of the API and the page, around one served model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import dermafuse
from dermafuse.labels import DISCLAIMER
from dermafuse.serving import metrics as figures
from dermafuse.serving.desk import Desk
from dermafuse.serving.friendly import Friendly
from dermafuse.serving.guard import Guard
from dermafuse.serving.limits import Access, Limits, Problem
from dermafuse.serving.pool import Pool
from dermafuse.serving.protocol import Protocol

#: FastAPI can report requests to a collector that the environment names; nothing of it is wanted here.
NO_TELEMETRY: Final = {
    "auto_configure": False,
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
}
_MEDIA: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


_PARAMETERS: Final = ("count", "explain", "number", "operating_point", "prevalence", "stability", "views")


@dataclass
class Serving:
    """A running application and what its server may change.

    Attributes:
        pool: places for work.
        guard: the ASGI application.
        warm: the first prediction is done.
        draining: the server ends: no more readiness.
    """

    pool: Pool
    guard: Guard = field(init=False)
    warm: bool = False
    draining: bool = False

    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.warm and not self.draining


def make_app(desk: Desk, limits: Limits, access: Access) -> Serving:
    """Return the application before a desk that computes."""
    pool = Pool(limits, desk)
    serving = Serving(pool)
    metrics = figures.Metrics(pool)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        threading.Thread(target=_warm_up, args=(serving,), daemon=True).start()
        try:
            yield
        finally:
            pool.close()

    app = FastAPI(
        title="dermafuse",
        version=dermafuse.__version__,
        description=DISCLAIMER,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; ours is page/docs.html
        redoc_url=None,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    app.include_router(Friendly(pool, metrics).router())
    app.include_router(Protocol(pool, metrics, serving.ready).router())
    app.add_api_route(
        "/metrics",
        _metrics_route(metrics),
        methods=["GET"],
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    _add_page(app)
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_fault)
    serving.guard = Guard(app, access, pool, metrics)
    return serving


def _metrics_route(metrics: figures.Metrics) -> Any:
    async def handler() -> Any:
        return Response(metrics.text(), media_type=figures.MEDIA_TYPE)

    return handler


def _warm_up(serving: Serving) -> None:
    """Wait for the first predictions, so that the first caller waits for nothing."""
    serving.pool.desk.warm_up()
    serving.warm = True


def page_files() -> dict[str, bytes]:
    """Return the files of the page, name -> content."""
    folder = resources.files("dermafuse.serving") / "page"
    return {
        entry.name: entry.read_bytes() for entry in folder.iterdir() if "." + entry.name.rpartition(".")[2] in _MEDIA
    }


def _add_page(app: Any) -> None:
    for name, content in page_files().items():
        media = _MEDIA["." + name.rpartition(".")[2]]
        paths = {"index.html": ["/"], "docs.html": ["/docs"]}.get(name, [f"/page/{name}"])
        for path in paths:
            app.add_api_route(path, _file_route(content, media), methods=["GET", "HEAD"], include_in_schema=False)


def _file_route(content: bytes, media: str) -> Any:
    async def handler() -> Any:
        return Response(content, media_type=media)

    return handler


def _respond(request: Any, problem: Problem) -> Any:
    protocol = request.url.path.startswith("/v2")
    body, media = problem.body(request.state.request_id, inference_protocol=protocol)
    return Response(body, status_code=problem.status, headers=problem.headers, media_type=media)


async def _answer(request: Any, problem: Problem) -> Any:
    return _respond(request, problem)


async def _answer_validation(request: Any, error: Any) -> Any:
    names = sorted({str(entry["loc"][-1]) for entry in error.errors() if entry.get("loc")})
    known = [name for name in names if name in _PARAMETERS]
    return _respond(request, Problem(422, f"The parameter {', '.join(known) or 'of the query'} has no usable value."))


async def _answer_http(request: Any, error: Any) -> Any:
    said = {404: "There is nothing here; /docs lists what there is.", 405: "This method is not taken here."}
    detail = said.get(error.status_code, str(error.detail))
    return _respond(request, Problem(error.status_code, detail, headers=dict(error.headers or {})))


async def _answer_fault(request: Any, _: Exception) -> Any:
    return _respond(request, Problem(500, "The server failed; its log says where."))
