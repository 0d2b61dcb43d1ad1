"""A pool of actors over a list of shards: bounded, and going on when processes and machines are lost.

Ray restarts an actor whose process died (``max_restarts``) and repeats its tasks (``max_task_retries``); both are 0 by
default. Where a machine is lost and no other has room, Ray waits for ever: the pool therefore looks itself which nodes
are alive, hands the shards of a lost one to the others, and starts a worker in its place as soon as there is room.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from dermafuse.cluster.worker import ShareGoneError, Worker, environment_of_the_driver
from dermafuse.errors import DermafuseError
from dermafuse.progress import Reporter

_RESTARTS: Final = 4
#: So often a shard is handed to another worker before the run ends: a file that kills every process is nobody's fault.
_MOST_TRIES: Final = 3
_LOOK_EVERY: Final = 1.0

_LOST: Final = (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)


@dataclass
class _Shard:
    key: Any
    item: Any
    tries: int = 0


@dataclass
class _Actor:
    handle: Any
    ready: Any
    node: str | None = None
    shards: dict[Any, _Shard] = field(default_factory=dict)


class Pool:
    """Actors that work on one job.

    Args:
        job: see `dermafuse.parallel.Job`.
        workers: at most so many actors.
        threads: CPUs of each.
        ahead: shards that wait at each while it works on one.
        report: who is told what was lost.

    Attributes:
        repeated: how many shards were handed out again.
    """

    def __init__(self, job: Any, *, workers: int, threads: int, ahead: int, report: Reporter) -> None:
        self.repeated = 0
        self._most = workers
        self._threads = threads
        self._depth = 1 + ahead
        self._report = report
        self._arguments = (pickle.dumps(job), threads, environment_of_the_driver())
        self._actors: list[_Actor] = []
        self._queue: deque[_Shard] = deque()
        self._looked = time.monotonic()
        self._failed_starts = 0

    def run(self, items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Yield (key, result) of every (key, shard), in any order; items are taken as they are needed.

        Raises:
            DermafuseError: that of a shard, or a shard ended every worker that it was given to.
        """
        source = iter(items)
        try:
            while self._fill(source):
                waiting = [ref for actor in self._actors for ref in (*actor.shards, *self._not_ready(actor))]
                done, _ = ray.wait(waiting, num_returns=1, timeout=_LOOK_EVERY)
                for ref in done:
                    yield from self._take(ref)
                self._replace_lost()
        finally:
            for actor in self._actors:
                _end(actor)

    def _fill(self, source: Iterator[tuple[Any, Any]]) -> bool:
        """Keep every actor busy; return ``False`` where all is done."""
        busy = sum(len(actor.shards) for actor in self._actors)
        room = self._most * self._depth - busy
        while len(self._queue) < room and (following := next(source, None)) is not None:
            self._queue.append(_Shard(*following))
        while len(self._actors) < min(self._most, len(self._queue) + busy):
            self._actors.append(self._new_actor())
        for depth in range(1, self._depth + 1):  # each gets one before any gets two
            for actor in self._actors:
                if self._queue and actor.node is not None and len(actor.shards) < depth:
                    shard = self._queue.popleft()
                    # No other exception of Python's is worth another try: it would come again.
                    do = actor.handle.do.options(retry_exceptions=[ShareGoneError])
                    actor.shards[do.remote(shard.item)] = shard
        return bool(self._queue) or any(actor.shards for actor in self._actors)

    def _new_actor(self) -> _Actor:
        how: dict[str, Any] = {"max_restarts": _RESTARTS, "max_task_retries": _RESTARTS}
        how |= {"num_cpus": self._threads, "scheduling_strategy": "SPREAD"}
        made = ray.remote(Worker).options(**how).remote(*self._arguments)
        return _Actor(made, made.ready.remote())

    @staticmethod
    def _not_ready(actor: _Actor) -> list[Any]:
        return [actor.ready] if actor.node is None else []

    def _take(self, ref: Any) -> Iterator[tuple[Any, Any]]:
        actor = next(each for each in self._actors if ref in each.shards or ref is each.ready or ref == each.ready)
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            raise _cause(error) from None
        except _LOST as error:
            self._lose(actor, error)
            return
        if ref not in actor.shards:
            actor.node = result
            return
        shard = actor.shards.pop(ref)
        yield shard.key, result

    def _replace_lost(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for actor in [each for each in self._actors if each.node is not None and each.node not in alive]:
            self._lose(actor, None)

    def _lose(self, actor: _Actor, error: RayError | None) -> None:
        """Hand the shards of an actor to the others."""
        self._actors.remove(actor)
        _end(actor)
        what = "machine" if error is None else "worker"
        self._report.warn(f"A {what} of the cluster was lost; {len(actor.shards):,} shard(s) are handed out again.")
        for shard in actor.shards.values():
            # Of those that waited behind the one that ended the worker, none is to blame; nobody can tell them apart.
            shard.tries += error is not None
            if shard.tries >= _MOST_TRIES:
                raise DermafuseError(
                    f"Shard {shard.key} ended {shard.tries} workers, one after the other ({_short(error)}); is there "
                    "too little memory? Then run the same command again with fewer --jobs: what is finished is kept."
                )
            self._queue.appendleft(shard)
        self.repeated += len(actor.shards)
        self._failed_starts = self._failed_starts + 1 if actor.node is None else 0
        if self._failed_starts >= _MOST_TRIES:
            raise DermafuseError(f"No worker of the cluster starts ({_short(error)}).")


def _end(actor: _Actor) -> None:
    with contextlib.suppress(RayError, ValueError):
        ray.kill(actor.handle, no_restart=True)


def _cause(error: RayTaskError) -> BaseException:
    """Return the error that a task raised: ours as it was, others as what they say."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else DermafuseError(f"A task of the cluster failed: {error}")


def _short(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:300] if error else "lost"
