"""What stands before every route: who may ask, under which name, request ids, headers, counts, the log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from dermafuse.serving.desk import Fault
from dermafuse.serving.limits import MAX_OPEN_REQUESTS, Access, Problem, WrongKeys
from dermafuse.serving.metrics import Metrics
from dermafuse.serving.pool import Pool

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG: Final = logging.getLogger("dermafuse.serving")

#: Of the page and of every other answer. Nothing may come from elsewhere, and nobody may frame it.
SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: What needs the key: all that answers about images or the server's work. The page itself asks for the key.
_GUARDED: Final = ("/v1/", "/metrics", "/v2")
_OPEN: Final = ("/v2/health/live", "/v2/health/ready")
#: What takes a place; where none is free it is refused here, before its body is read and the routes are looked through.
_PLACED: Final = re.compile(r"/v1/(predict|predict:batch|similar)|/v2/models/.*/infer")


@dataclass
class _Exchange:
    """One request, as far as it is known."""

    request_id: str
    started: float
    status: int = 0

    @property
    def answered(self) -> bool:
        return self.status > 0


class Guard:
    """An ASGI application around another.

    Args:
        inner: what answers.
        access: key and names.
        pool: counts refusals.
        metrics: counts requests.
    """

    def __init__(self, inner: Application, access: Access, pool: Pool, metrics: Metrics) -> None:
        self.inner = inner
        self.access = access
        self.pool = pool
        self.metrics = metrics
        self.wrong_keys = WrongKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.inner(scope, receive, send)
            return  # a websocket: there are none
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        exchange = _Exchange(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex, time.monotonic())
        scope.setdefault("state", {}).update(request_id=exchange.request_id, started=exchange.started)

        allowed = _shared_with(headers.get("origin"), self.access)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = self._headers(message.get("headers", ()), exchange.request_id, allowed)
            await send(message)

        self.metrics.active += 1
        try:
            if allowed and scope["method"] == "OPTIONS" and self.access.knows(headers.get("host", "")):
                await _answer_preflight(told)
            else:
                self._check(scope, headers)
                await self.inner(scope, receive, told)
        except Problem as problem:
            await _answer_problem(problem, scope, exchange, told)
        except asyncio.CancelledError:  # the server ends, and there was no time left for this one
            await _answer_problem(Problem(503, "The server ends; ask again.", retry_after=2), scope, exchange, told)
            raise
        except Exception as error:
            fault = Fault.of(error)
            _log("error", exchange.request_id, error=fault.error, at=fault.at)
            await _answer_problem(Problem(500, "The server failed; its log says where."), scope, exchange, told)
        finally:
            self.metrics.active -= 1
            self._finish(scope, exchange)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        if self.metrics.active > MAX_OPEN_REQUESTS and scope["path"] not in _OPEN:
            self.pool.refused["open_requests"] += 1
            raise Problem(503, "The server has too many open requests.", retry_after=2)
        if not self.access.knows(headers.get("host", "")):
            raise Problem(400, "This server is not known by the name in the Host header; --allowed-host adds one.")
        path = scope["path"]
        if path.startswith(_GUARDED) and path not in _OPEN:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            shown = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
            if not self.access.admits(shown):
                if shown is not None:
                    self.wrong_keys.count((scope.get("client") or ("",))[0], time.monotonic())
                raise Problem(
                    401,
                    "This server needs an API key: send 'Authorization: Bearer KEY'.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if scope["method"] == "POST" and _PLACED.fullmatch(path):
            self.pool.check_room()

    @staticmethod
    def _headers(own: Any, request_id: str, allowed: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        found = [(bytes(name), bytes(value)) for name, value in own]
        there = {name.lower() for name, _ in found}
        ours = {**SECURITY, "X-Request-ID": request_id, **allowed}
        return found + [
            (name.lower().encode(), value.encode())
            for name, value in ours.items()
            if name.lower().encode() not in there
        ]

    def _finish(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.monotonic() - exchange.started
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.request(method, route, exchange.status, seconds)
        _log(
            "request",
            exchange.request_id,
            method=method,
            route=route,
            status=exchange.status,
            seconds=round(seconds, 4),
        )


def _shared_with(origin: str | None, access: Access) -> Mapping[str, str]:
    """Return the headers that let a page of another origin read the answer; none where it was not named."""
    if origin is None or origin.lower() not in access.origins:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "X-Request-ID, Retry-After, Inference-Header-Content-Length",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }


async def _answer_preflight(send: Send) -> None:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, X-API-Key, Content-Type, X-Request-ID, "
        "Inference-Header-Content-Length",
        "Access-Control-Max-Age": "600",
    }
    start = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 204, "headers": start})
    await send({"type": "http.response.body", "body": b""})


async def _answer_problem(problem: Problem, scope: Scope, exchange: _Exchange, send: Send) -> None:
    if exchange.answered:
        return  # the answer had begun: the connection ends
    body, media = problem.body(exchange.request_id, inference_protocol=scope["path"].startswith("/v2"))
    headers = {"Content-Type": media, "Content-Length": str(len(body)), **problem.headers}
    start = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _log(event: str, request_id: str, **facts: Any) -> None:
    LOG.info(json.dumps({"event": event, "request_id": request_id, **facts}))
