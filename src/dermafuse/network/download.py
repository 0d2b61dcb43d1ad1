"""One file from one address into a part file that any later attempt, or run, goes on with."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermafuse.errors import NetworkError
from dermafuse.files import write_json
from dermafuse.network.catalogue import RemoteFile
from dermafuse.network.http import Again, Web, content_range

if TYPE_CHECKING:
    import httpx


def part_of(file: RemoteFile, folder: Path) -> Path:
    """Return where a file is while it is being fetched."""
    return folder / f"{file.name}.part"


def download(web: Web, file: RemoteFile, folder: Path, advance: Callable[[int], None]) -> Path:
    """Return the whole, verified part file.

    Args:
        web: the client.
        file: with its address and, where they are known, size and checksum.
        folder: of part files.
        advance: told how many bytes more there are; fewer, where the file has to begin again.

    Raises:
        NetworkError: it cannot be had, or is not what the source publishes.
    """
    part = part_of(file, folder)
    advance(_size(part))
    for _ in range(2):  # a join of two versions, or a flipped bit, shows in the checksum only: then once more, whole
        web.patiently(file.name, lambda: _attempt(web, file, part, advance), lambda: _size(part))
        found = digest(part, file.digest)
        if found == file.digest:
            return part
        advance(-_size(part))
        _forget(part)
    raise NetworkError(
        f"{file.name} from {file.address} is not what its source publishes: {found} instead of {file.digest}; "
        "it was deleted: run the same command again, or take another --source."
    )


def digest(path: Path, like: str) -> str:
    """Return the checksum of a file in the form and kind of another, ``""`` like ``""``."""
    kind = like.partition(":")[0]
    if not kind:
        return ""
    with path.open("rb") as stream:
        # usedforsecurity=False: Dataverse publishes MD5 only, and some systems forbid MD5 otherwise.
        return f"{kind}:{hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()}"


def _attempt(web: Web, file: RemoteFile, part: Path, advance: Callable[[int], None]) -> None:
    """Ask for what is missing and write it; return when the file has its size."""
    state = _state(part)
    have = _size(part)
    total = file.size or int(state.get("size", 0))
    if have and total == have:
        return
    # Two versions must not be joined: the server is told which we have part of (If-Range), or a checksum tells.
    known = state.get("validator", "")
    if have and (have > total > 0 or not (known or file.digest)):
        _restart(part, advance)
        have, known = 0, ""
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and known:
        headers["If-Range"] = known
    with web.open(file.address, headers) as response:
        if response.status_code == 416:
            _restart(part, advance)
            raise Again("the server cannot go on where the file ended; beginning again")
        if response.status_code == 206:
            first, whole = content_range(response.headers.get("Content-Range"))
            if first != have or (total and whole != total):
                _restart(part, advance)
                raise Again(f"the server sends byte {first} of {whole}, not byte {have} of {total}; beginning again")
        else:
            whole = _announced(response, file)  # first: for a wrong answer nothing is thrown away
            _restart(part, advance)
            have = 0
            write_json(_state_of(part), {"validator": _validator(response), "size": whole})
        _write(response, part, have, whole, advance)


def _announced(response: httpx.Response, file: RemoteFile) -> int:
    """Return how many bytes the whole file has; 0 where nobody says."""
    said = response.headers.get("Content-Length")
    if file.size and said is not None and int(said) != file.size:
        raise Again(f"the server announces {int(said):,} bytes instead of {file.size:,}")
    return file.size or int(said or 0)


def _write(response: httpx.Response, part: Path, have: int, whole: int, advance: Callable[[int], None]) -> None:
    with part.open("ab", buffering=0) as stream:
        for chunk in response.iter_raw():
            if whole and have + len(chunk) > whole:
                stream.truncate(0)
                advance(-have)
                raise Again(f"the server sends more than the {whole:,} bytes of the file; beginning again")
            _write_all(stream, chunk)
            have += len(chunk)
            advance(len(chunk))
    if have < whole:
        raise Again(f"the connection ended after {have:,} of {whole:,} bytes")
    if not whole:  # nobody said how long it is: the end of the connection is the end of the file
        write_json(_state_of(part), {**_state(part), "size": have})


def _write_all(stream: Any, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[stream.write(rest) :]


def _validator(response: httpx.Response) -> str:
    """Return what names this version of the file; a weak ETag (``W/``) may not be used in ``If-Range``."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _state(part: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        state = json.loads(_state_of(part).read_bytes())
        if isinstance(state, dict):
            return state
    return {}


def _restart(part: Path, advance: Callable[[int], None]) -> None:
    advance(-_size(part))
    _forget(part)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)
