"""What a server allows, who may ask, and the errors it answers with (RFC 9457)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from dermafuse.data.images import MAX_PIXELS
from dermafuse.errors import ConfigError, DermafuseError

MEDIA_TYPE: Final = "application/problem+json"

#: Open requests at a time, whatever they ask for: each costs a little memory, and a slow one nothing else.
MAX_OPEN_REQUESTS: Final = 512


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Attributes:
        upload_bytes: of the body of one request; one byte more is refused.
        pixels: of one image.
        seconds: from a request's first byte to its answer.
        workers: predictions that are computed at a time.
        queue: further requests that wait for their turn. A place in the queue is a wait of that many predictions for
            everybody behind it: longer queues answer no more, only later.
        batch: images in one request.

    Raises:
        ConfigError: a bound that lets nothing through.
    """

    upload_bytes: int = 32 * 1024**2
    pixels: int = MAX_PIXELS
    seconds: float = 30.0
    workers: int = 2
    queue: int = 8
    batch: int = 64

    def __post_init__(self) -> None:
        for name, least in (("upload_bytes", 1), ("pixels", 1), ("workers", 1), ("queue", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        if not 0 < self.seconds <= 3600:
            raise ConfigError(f"The timeout is {self.seconds:g} s; it must be above 0 and at most 3600.")
        if self.pixels > MAX_PIXELS:
            raise ConfigError(f"pixels is {self.pixels:,}; at most {MAX_PIXELS:,} are decoded.")

    @property
    def held_bytes(self) -> int:
        """All bodies that are in memory at a time, read or being read."""
        return max(256 * 1024**2, 2 * self.upload_bytes)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        key: what a caller has to show; ``None``: nothing.
        hosts: names by which the server may be called, besides IP addresses, ``localhost`` and those below it.
        origins: of pages elsewhere that may ask from a browser (CORS), such as ``https://clinic.example``.
    """

    key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def admits(self, shown: str | None) -> bool:
        """Whether a caller who shows this key may ask; takes as long for every wrong key."""
        if self.key is None:
            return True
        digests = [
            hashlib.sha256((text or "").encode("utf-8", "surrogateescape")).digest() for text in (shown, self.key)
        ]
        return hmac.compare_digest(*digests) and shown is not None

    def knows(self, host: str) -> bool:
        """Whether a ``Host`` header names this server. A page of another site that points its name here does not."""
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name.rstrip(".") == "localhost" or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class WrongKeys:
    """Wrong keys by the address that showed them: whoever guesses is told to come later, and so guesses slowly."""

    #: Wrong keys in a minute, and addresses that are remembered.
    MOST: Final = 20
    _ADDRESSES: Final = 10_000

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def count(self, address: str, now: float) -> None:
        """Count a wrong key.

        Raises:
            Problem: 429, there were too many in the last minute.
        """
        since, before = self._seen.get(address, (now, 0))
        if now - since >= 60:
            since, before = now, 0
        if len(self._seen) >= self._ADDRESSES:
            self._seen.clear()
        self._seen[address] = (since, before + 1)
        if before >= self.MOST:
            wait = max(1, round(60 - (now - since)))
            raise Problem(429, "Too many wrong keys; ask again later.", retry_after=wait)


class Problem(Exception):
    """An answer other than the one asked for.

    Args:
        status: of HTTP.
        detail: a sentence for the caller.
        retry_after: in seconds, where asking again may help.
        headers: further ones of the answer.
    """

    def __init__(
        self, status: int, detail: str, *, retry_after: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def __reduce__(self) -> tuple[Any, ...]:
        return _problem, (self.status, self.detail, self.headers)

    def content(self, request_id: str) -> dict[str, Any]:
        """Return the answer as RFC 9457 has it."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }

    def body(self, request_id: str, *, inference_protocol: bool) -> tuple[bytes, str]:
        """Return the body and its media type; the Open Inference Protocol has a form of its own."""
        if inference_protocol:
            return json.dumps({"error": self.detail}).encode(), "application/json"
        return json.dumps(self.content(request_id)).encode(), MEDIA_TYPE


def _problem(status: int, detail: str, headers: Mapping[str, str]) -> Problem:
    return Problem(status, detail, headers=headers)


def unusable(error: DermafuseError) -> Problem:
    """Return the problem of an image, value or field that cannot be used."""
    return Problem(422, " ".join(str(error).split()))
