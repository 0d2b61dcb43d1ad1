"""Admission: so many predictions at a time, so many that wait, and "later" at once for all others."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dermafuse.serving.desk import Desk, Job, Reply
from dermafuse.serving.limits import Limits, Problem


class Pool:
    """The places before the desk that computes, and threads that wait for it. Used from one event loop.

    A place is given back when its work has ended, not when its caller has gone: work that is running is not
    stopped, and so it still counts.

    Attributes:
        desk: that computes.
        admitted: requests that have a place: computed or waiting.
        held: bytes of bodies in memory.
        refused: reason -> how many requests got no place.
    """

    def __init__(self, limits: Limits, desk: Desk) -> None:
        self.limits = limits
        self.desk = desk
        self.admitted = 0
        self.held = 0
        self.refused: dict[str, int] = {"queue_full": 0, "timeout": 0, "memory": 0, "open_requests": 0}
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="dermafuse-serve")

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return max(0, self.admitted - self.limits.workers)

    def check_room(self) -> None:
        """Refuse a request where no place is free.

        Raises:
            Problem: 503, every place is taken.
        """
        if self.admitted >= self.limits.workers + self.limits.queue:
            self.refused["queue_full"] += 1
            raise Problem(503, "The server is busy; ask again in a moment.", retry_after=1)

    def hold(self, count: int) -> None:
        """Count bytes of a body as held (negative: given back).

        Raises:
            Problem: 503, the bodies of all requests together are too large.
        """
        if count > 0 and self.held + count > self.limits.held_bytes:
            self.refused["memory"] += 1
            raise Problem(503, "The server holds too many uploads; ask again in a moment.", retry_after=2)
        self.held += count

    async def run(self, job: Job, arguments: tuple[Any, ...], deadline: float) -> Reply:
        """Return ``job(model, *arguments)``, computed at the desk.

        Args:
            job: is computed once, or (past the deadline) not at all; a second time only where the process that computed
                it has ended without an answer.
            arguments: of the job, after the model.
            deadline: on the clock of ``time.monotonic``.

        Raises:
            Problem: 503, there is no place, or no answer before the deadline; or what the job raises.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        self.admitted += 1
        future = self._threads.submit(self.desk.do, job, arguments, deadline)

        def leave(_: Future[Reply]) -> None:
            loop.call_soon_threadsafe(self._leave)

        future.add_done_callback(leave)
        answer = asyncio.wrap_future(future)
        # Looked at, so that asyncio does not log the error of work whose caller has gone: it may quote a value.
        answer.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(answer), max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            if future.done() and not future.cancelled():  # it came at the last moment, or failed with this very error
                return future.result()
            future.cancel()  # where it has not begun
            self.refused["timeout"] += 1
            seconds = self.limits.seconds
            raise Problem(503, f"There was no answer within {seconds:g} s; ask again.", retry_after=2) from error

    def _leave(self) -> None:
        self.admitted -= 1

    def close(self) -> None:
        """End the threads and the desk; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.desk.close()
