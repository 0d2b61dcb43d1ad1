"""What runs in a Ray actor: one job, loaded in its first task, and then one shard after the other."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
from collections.abc import Callable
from typing import Any, Final

#: What a network disk says that may be there again in a moment.
_PASSING: Final = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOTCONN, errno.EHOSTDOWN})


class ShareGoneError(ConnectionError):
    """A shared disk did not answer: the one error of a shard that is worth another try."""


class Worker:
    """One job on one machine.

    Nothing is loaded in the constructor: an actor whose constructor failed is never started again.

    Args:
        job: a pickled `dermafuse.parallel.Job`. In bytes, so that nothing is imported before the environment is set.
        threads: CPUs to use.
        environment: variables of the machine where the command was given; ``None``: not set there.
    """

    def __init__(self, job: bytes, threads: int, environment: dict[str, str | None]) -> None:
        self._job = job
        self._threads = threads
        self._work: Callable[[Any], Any] | None = None
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def ready(self) -> str:
        """Load the job; return the Ray id of the node."""
        import ray

        self._load()
        return str(ray.get_runtime_context().get_node_id())

    def do(self, item: Any) -> Any:
        """Do one shard."""
        try:
            return self._load()(item)
        except OSError as error:
            if error.errno in _PASSING:
                raise ShareGoneError(error.errno, error.strerror, error.filename) from error
            raise

    def _load(self) -> Callable[[Any], Any]:
        if self._work is None:  # the first task, also of an actor that was started again
            # Written by the command that started this actor, over Ray's own connection.
            self._work = pickle.loads(self._job).start(self._threads)  # noqa: S301
        return self._work


def environment_of_the_driver() -> dict[str, str | None]:
    """Return what decides results and places, for all workers. Ray sets the number of threads; we do not want it."""
    names = ("DERMAFUSE_CACHE", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    found: dict[str, str | None] = {name: os.environ.get(name) for name in names}
    if found["DERMAFUSE_CACHE"] is not None:
        with contextlib.suppress(OSError):
            found["DERMAFUSE_CACHE"] = os.path.realpath(str(found["DERMAFUSE_CACHE"]))
    return found
