"""The body of a request, read in bounded memory and never written to a disk.

Starlette's own reader of forms writes parts above 1 MB to a temporary file, so it is not used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from dermafuse.serving.limits import Problem
from dermafuse.serving.pool import Pool

#: Parts of one form: images, and one for each metadata field.
_MAX_PARTS: Final = 1000
#: Bytes of a part that is no image.
_MAX_TEXT: Final = 64 * 1024


@contextlib.asynccontextmanager
async def held_body(request: Any, pool: Pool, deadline: float) -> AsyncIterator[bytes]:
    """Give the whole body, which counts as held in memory until the block ends.

    Raises:
        Problem: 413 more than the limit (the rest is not read), 503 no memory or place, 408 too slow, 400 broken off,
            415 compressed (a small body could unfold to any size).
    """
    from starlette.requests import ClientDisconnect

    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Problem(415, "A compressed body is not taken; send it as it is.", headers={"Accept-Encoding": "identity"})
    pool.check_room()
    limit = pool.limits.upload_bytes
    too_large = Problem(413, f"The request has more than the {limit:,} bytes allowed.", headers={"Connection": "close"})
    with contextlib.suppress(ValueError):
        if int(request.headers.get("content-length", "0")) > limit:
            raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async for chunk in request.stream():
                    if size + len(chunk) > limit:
                        raise too_large
                    pool.hold(len(chunk))
                    size += len(chunk)
                    chunks.append(chunk)
        except TimeoutError as error:
            raise Problem(
                408, "The request came too slowly; send it again.", headers={"Connection": "close"}
            ) from error
        except ClientDisconnect as error:
            raise Problem(400, "The request broke off.") from error
        body = b"".join(chunks)
        chunks.clear()
        yield body
    finally:
        pool.hold(-size)


@dataclass(frozen=True)
class Form:
    """A form as it was sent.

    Attributes:
        images: the contents of the parts named ``image``, in order.
        values: name of every other part -> its text.
    """

    images: tuple[bytes, ...]
    values: dict[str, str]


@dataclass
class _Part:
    name: str
    content: bytearray


def parse_form(body: bytes, content_type: str) -> Form:
    """Read a ``multipart/form-data`` body.

    Raises:
        Problem: 415 another media type, 400 not a well-formed form, 413 a text of more than 64 KiB.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data":
        raise Problem(415, "Send the image as multipart/form-data, in a part named 'image'.")
    if not boundary:
        raise Problem(400, "The multipart/form-data has no boundary in its Content-Type.")
    reader = _Reader(boundary)
    try:
        reader.parser.write(body)
        reader.parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise Problem(400, "The body is not well-formed multipart/form-data.") from error
    if not reader.ended:
        raise Problem(400, "The multipart/form-data is cut short.")
    return _sorted_parts(reader.parts)


def _sorted_parts(parts: list[_Part]) -> Form:
    images: list[bytes] = []
    values: dict[str, str] = {}
    for part in parts:
        if part.name == "image":
            images.append(bytes(part.content))
            continue
        if part.name in values:
            raise Problem(400, "A part of the form is given twice; give each field once.")
        if len(part.content) > _MAX_TEXT:
            raise Problem(413, f"A text of the form has more than {_MAX_TEXT:,} bytes.")
        try:
            values[part.name] = part.content.decode()
        except UnicodeDecodeError as error:
            raise Problem(400, "A text of the form is not UTF-8.") from error
    return Form(tuple(images), values)


class _Reader:
    """Collects the parts that the parser finds."""

    def __init__(self, boundary: bytes) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._header = [b"", b""]
        self._name: str | None = None
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": lambda data, start, end: self.parts[-1].content.extend(data[start:end]),
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        if len(self.parts) >= _MAX_PARTS:
            raise Problem(400, f"The form has more than {_MAX_PARTS} parts.")
        self._name = None

    def _add(self, place: int, data: bytes) -> None:
        self._header[place] += data

    def _header_end(self) -> None:
        field, value = self._header
        self._header = [b"", b""]
        if field.lower() == b"content-disposition":
            name = parse_options_header(value)[1].get(b"name")
            self._name = None if name is None else name.decode("utf-8", "replace")

    def _headers_finished(self) -> None:
        if self._name is None:
            raise Problem(400, "A part of the form has no name.")
        self.parts.append(_Part(self._name, bytearray()))

    def _end(self) -> None:
        self.ended = True
