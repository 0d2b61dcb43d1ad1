"""Processes that compute, apart from the one that speaks HTTP.

The event loop shares its interpreter with nobody, so that it refuses in time what finds no place; the processes have a
lower priority than it has. One that ends (killed, out of memory, a crash in a library) is replaced, and what it was
computing is computed once more by another.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Literal

from dermafuse.errors import BundleError, DermafuseError
from dermafuse.serving.desk import Description, Fault, Job, Reply
from dermafuse.serving.limits import Limits, Problem

LOG: Final = logging.getLogger("dermafuse.serving")

#: Added to the niceness of the processes that compute.
_NICENESS: Final = 5
#: Seconds past its deadline after which work counts as hung; what is computed looks at its deadline between images.
_HUNG: Final = 10.0
#: Seconds between two starts of a process that does not live long enough to answer.
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True)
class ModelSource:
    """What a process needs to load the model.

    Attributes:
        run: a RUN or bundle folder; ``None``: the released model.
        precision: arithmetic.
        limits: of the server.
        threads: CPUs that one prediction uses.
        gallery: file of a gallery (`gallery_build.build`); ``None``: there is none.
    """

    run: Path | None
    precision: Literal["auto", "f32", "bf16"]
    limits: Limits
    threads: int
    gallery: Path | None = None


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


class Processes:
    """A desk of ``limits.workers`` processes, each with a model of its own.

    Raises:
        DermafuseError: the model cannot be served; as the process that loaded it said.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._alive: set[_Worker] = set()
        self._warm = [threading.Event() for _ in range(source.limits.workers)]
        first: queue.SimpleQueue[Description | DermafuseError] = queue.SimpleQueue()
        for warm in self._warm:
            threading.Thread(target=self._keep, args=(warm, first), daemon=True).start()
        try:
            found = first.get()
        except BaseException:
            self.close()
            raise
        if isinstance(found, DermafuseError):
            self.close()
            raise found
        self.description = found

    def do(self, job: Job, arguments: tuple[Any, ...], deadline: float) -> Reply:
        """Return ``job(model, *arguments)``, as `Desk.do` says."""
        for _ in range(2):
            worker = self._hand_over((job, arguments), deadline)
            try:
                if not worker.pipe.poll(max(0.0, deadline - time.monotonic()) + _HUNG):
                    worker.process.kill()
                    break
                outcome = worker.pipe.recv()
            except (EOFError, OSError):
                continue
            self._idle.put(worker)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome  # type: ignore[no-any-return]
        raise Problem(503, "The process that computed this answer has ended; ask again.", retry_after=2)

    def _hand_over(self, work: tuple[Job, tuple[Any, ...]], deadline: float) -> _Worker:
        while True:
            try:
                worker = self._idle.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty as error:
                raise Problem(503, "No process was free to compute this; ask again.", retry_after=2) from error
            with contextlib.suppress(OSError):  # it ended while it was idle
                worker.pipe.send(work)
                return worker

    def warm_up(self) -> None:
        """Return when every process has computed its first prediction and explanation, or the desk is closed."""
        for warm in self._warm:
            warm.wait()

    def close(self) -> None:
        """End the processes: whoever closes has had its answers."""
        self._closing.set()
        with self._lock:
            for worker in self._alive:
                worker.process.kill()
        for warm in self._warm:
            warm.set()

    def _keep(self, warm: threading.Event, first: queue.SimpleQueue[Description | DermafuseError]) -> None:
        """Keep one process alive."""
        pause = 1.0
        while not self._closing.is_set():
            worker = self._start()
            try:
                first.put(worker.pipe.recv())
                worker.pipe.recv()
            except (EOFError, OSError):
                pause = min(_LONGEST_PAUSE, 2 * pause)
                first.put(BundleError("The process that loads the model ended without a word; is there enough memory?"))
            else:
                pause = 1.0
                warm.set()
                self._idle.put(worker)
            worker.process.join()
            with self._lock:
                self._alive.discard(worker)
            if not self._closing.is_set():
                LOG.error(json.dumps({"event": "worker ended", "exit_code": worker.process.exitcode}))
                self._closing.wait(pause - 1.0)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, self._source), daemon=True, name="dermafuse-serve")
        with self._lock:
            process.start()
            worker = _Worker(process, ours)
            self._alive.add(worker)
            if self._closing.is_set():
                process.kill()
        theirs.close()
        return worker


def work(pipe: Connection, source: ModelSource) -> None:
    """Compute what comes through the pipe, until its other end is closed; the body of a process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also sent to whole groups: the HTTP process ends this one
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    with contextlib.suppress(EOFError, OSError):
        _work(pipe, source)


def _work(pipe: Connection, source: ModelSource) -> None:
    from dermafuse.runtime.released import load
    from dermafuse.serving.jobs import describe
    from dermafuse.serving.model import ServedModel

    try:
        predictor = load(source.run, precision=source.precision, threads=source.threads)
        model = ServedModel(predictor, source.limits, source.gallery)
    except DermafuseError as error:
        pipe.send(error)
        return
    pipe.send(describe(model))
    model.warm_up()
    pipe.send(None)
    while True:
        job, arguments = pipe.recv()
        try:
            outcome: Reply | Exception = job(model, *arguments)
        except Problem as problem:
            outcome = problem
        except Exception as error:
            outcome = Fault.of(error)
        pipe.send(outcome)
