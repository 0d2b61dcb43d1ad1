"""A parallel map over a stream: results in order, memory bounded, a clean end on errors and Ctrl-C."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items queued or finished ahead of the one waited for, a worker: enough that one slow item idles nobody.
_AHEAD = 8


def ordered_map(
    items: Iterable[Item], work: Callable[[Item], Result], *, workers: int
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for every item, in order, computed on ``workers`` threads.

    At most ``8 * workers`` items are taken from ``items`` ahead of the result that is yielded. Close the generator
    where it is left early, so that its threads end.

    Raises:
        Exception: the first one of ``items`` or ``work``, in order; queued items are dropped, running ones finish.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="dermafuse")
    pending: deque[Future[Result]] = deque()
    try:
        exhausted = False
        while pending or not exhausted:
            while not exhausted and len(pending) < workers * _AHEAD:
                try:
                    pending.append(pool.submit(work, next(source)))
                except StopIteration:
                    exhausted = True
            if pending:
                yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
