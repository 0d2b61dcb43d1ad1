"""Whether a server answers at all, with a limit that holds; no package is needed for it."""

from __future__ import annotations

import threading
import urllib.request


def wait_for_sign_of_life(url: str, seconds: float) -> None:
    """Ask for the file's headers; raises OSError when no answer comes in time.

    In a thread, because a name lookup without a network can hang for minutes and heeds no timeout.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - from addresses.toml, https
            with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if outcome[0] is not None:
        raise outcome[0]
