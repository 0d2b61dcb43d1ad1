"""Running the application: the socket, the log, and an end at which every admitted request is answered."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import uvicorn

from dermafuse.errors import ConfigError
from dermafuse.serving.app import Serving

#: Seconds from SIGTERM to the end of listening: whoever balances the load sees first that this one is not ready.
_LINGER: Final = 1.0
#: Seconds that admitted requests then have: all in all less than the ten that process managers give.
_GRACE: Final = 8


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: the address is not one of this machine, or taken.
    """
    if not 0 <= port <= 65535:  # getaddrinfo takes the rest of a division by 65,536
        raise ConfigError(f"--port is {port}; choose another from 0 to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot listen at {host} port {port} ({reason}); choose another --host or --port."
        ) from error


class _JsonLines(logging.Formatter):
    """One JSON object a line; messages that are objects already keep their fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        head = json.dumps({"time": stamp, "level": record.levelname.lower()})
        said = record.getMessage()
        facts = said if record.name == "dermafuse.serving" else json.dumps({"event": said})
        return f"{head[:-1]}, {facts[1:]}"


def log_to_stderr() -> None:
    """Let the server log to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name, level in (("dermafuse.serving", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


class _Server(uvicorn.Server):
    """uvicorn's server, which on SIGTERM first says that it is not ready, and then ends with status 0."""

    def __init__(self, config: Any, serving: Serving) -> None:
        super().__init__(config)
        self.serving = serving
        self._stop_at: float | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.serving.draining:  # asked twice
            self.force_exit = self.should_exit = True
        self.serving.draining = True
        self._stop_at = time.monotonic() + (_LINGER if sig == signal.SIGTERM else 0.0)

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        ended: bool = await super().on_tick(counter)
        return ended


def serve(serving: Serving, listener: socket.socket, *, started: Callable[[], None] | None = None) -> None:
    """Answer until SIGTERM or Ctrl-C.

    Args:
        serving: from `dermafuse.serving.app.make_app`.
        listener: from `listen`.
        started: called once, from another thread, when the first prediction is done.
    """
    # uvicorn's choice of loop and parser, without the packages that others may have installed.
    config = uvicorn.Config(
        serving.guard,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config, serving)
    if started is not None:
        threading.Thread(target=_tell, args=(serving, started), daemon=True).start()
    server.run(sockets=[listener])
    if serving.pool.admitted:  # work past every deadline: threads cannot be stopped, and the process must end
        sys.stderr.flush()
        os._exit(0)


def _tell(serving: Serving, started: Callable[[], None]) -> None:
    while not serving.warm:
        if serving.draining:
            return
        time.sleep(0.05)
    started()
