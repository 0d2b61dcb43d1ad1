"""Asking servers, patiently: GET only, with our own name, again after what passes, never for ever.

Harvard Dataverse refuses (403) HEAD and the default names of HTTP libraries, and answers with a redirect to a signed
link that expires: each attempt therefore begins at the lasting address, and a 403 behind a redirect is asked again.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dermafuse import __version__
from dermafuse.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

AGENT: Final = f"Mozilla/5.0 (compatible; dermafuse/{__version__})"
#: What a server may say and mean "later": 408 and 425, too many requests, its own faults.
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Most bytes of a listing: a data set's is some 100 kB.
_MOST_JSON: Final = 20_000_000


class Again(Exception):
    """This attempt failed, the next may not.

    Attributes:
        wait: seconds the server asks for, ``None`` where it says nothing.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        attempts: how many in a row may fail without a further byte; between them 1, 2, 4 ... seconds.
        seconds: longest wait for a connection or for the next bytes.
        longest_wait: a server that asks for a longer one (``Retry-After``) ends the command.
        unit: seconds of the first wait.
    """

    attempts: int = 6
    seconds: float = 30.0
    longest_wait: float = 600.0
    unit: float = 1.0


class Web:
    """A client for one command; close it.

    Raises:
        ConfigError: httpx is not installed.
    """

    def __init__(self, say: Callable[[str], None], patience: Patience | None = None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ConfigError('fetch needs httpx: pip install "dermafuse[fetch]".') from error
        self._httpx = httpx
        self._say = say
        self._patience = patience or Patience()
        self._client = httpx.Client(
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
            follow_redirects=True,
            max_redirects=5,
            timeout=self._patience.seconds,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def patiently(self, what: str, attempt: Callable[[], T], done: Callable[[], int] = lambda: 0) -> T:
        """Return what ``attempt`` returns, made again after a failure that may pass.

        Args:
            what: is asked for, in words.
            attempt: raises `Again` or an error of httpx where it failed.
            done: how far it has come, in bytes: a failure after progress is a first one.

        Raises:
            NetworkError: it failed too often, or the server asks for too much patience.
        """
        failures, best = 0, done()
        while True:
            try:
                return attempt()
            except (Again, self._httpx.HTTPError) as error:
                reason = str(error) or type(error).__name__
                asked = error.wait if isinstance(error, Again) else None
            failures = 1 if done() > best else failures + 1
            best = max(best, done())
            wait = self._patience.unit * 2 ** (failures - 1) if asked is None else asked
            if failures >= self._patience.attempts or wait > self._patience.longest_wait:
                tried = f"the server asks to wait {wait:,.0f} s" if asked else f"tried {failures} times"
                raise NetworkError(
                    f"Could not fetch {what}: {reason} ({tried}); what was fetched is kept: run the same command "
                    "again later, or take another --source."
                )
            self._say(f"{what}: {reason}; trying again in {wait:,.0f} s.")
            time.sleep(wait)

    @contextlib.contextmanager
    def open(self, address: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """Yield the answer to a GET: its status is 200, 206 or 416, its body not read yet.

        Raises:
            Again: the server is busy or faulty, or a signed link has expired.
            NetworkError: the server refuses.
        """
        with self._client.stream("GET", address, headers=dict(headers or {})) as response:
            status = int(response.status_code)
            if address.startswith("https:") and response.url.scheme != "https":
                raise NetworkError(f"{address} leads to an address without encryption ({response.url.host}).")
            if status in _LATER:
                raise Again(f"the server answers {status}", _retry_after(response.headers.get("Retry-After")))
            if status in (400, 401, 403, 410) and response.history:
                raise Again(f"the server answers {status} to a signed link, which may have expired")
            if status not in (200, 206, 416):
                raise NetworkError(
                    f"{address} answers {status} ({response.reason_phrase}); it may have moved: look whether a newer "
                    "dermafuse knows, or take another --source."
                )
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Again("the server sends the file in an encoding that was not asked for")
            yield response

    def json(self, address: str) -> Any:
        """Return a small JSON document.

        Raises:
            NetworkError: it cannot be had, or is not JSON.
        """

        def attempt() -> bytes:
            content = bytearray()
            with self.open(address) as response:
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > _MOST_JSON:
                        raise NetworkError(f"{address} sends more than {_MOST_JSON:,} bytes instead of a listing.")
            return bytes(content)

        try:
            return json.loads(self.patiently(f"the listing {address}", attempt))
        except ValueError as error:
            raise NetworkError(f"{address} answers with something that is not JSON; try again later.") from error

    def size(self, address: str, what: str) -> int:
        """Return the size of a file in bytes, by asking for its first one (HEAD is refused by some); 0: not said."""

        def attempt() -> int:
            with self.open(address, {"Range": "bytes=0-0"}) as response:
                if response.status_code in (206, 416):
                    return content_range(response.headers.get("Content-Range"))[1]
                return int(response.headers.get("Content-Length", 0))

        return self.patiently(what, attempt)


def content_range(text: str | None) -> tuple[int, int]:
    """Return the first byte and the whole size of ``Content-Range: bytes 5-9/10`` (-1: ``bytes */10``).

    Raises:
        Again: it says neither.
    """
    try:
        unit, _, rest = (text or "").strip().partition(" ")
        span, _, total = rest.partition("/")
        if unit != "bytes":
            raise ValueError
        return (-1 if span == "*" else int(span.partition("-")[0])), int(total)
    except ValueError:
        raise Again(f"the server does not say which bytes it sends (Content-Range: {text})") from None


def _retry_after(text: str | None) -> float | None:
    """Return the seconds of a ``Retry-After``, which holds seconds or a date; ``None`` where it holds neither."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return max(float(int(text)), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    return None
