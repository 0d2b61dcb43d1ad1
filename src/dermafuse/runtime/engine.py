"""OpenVINO: compile a network for this CPU and push many images through it from a pool of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import openvino as ov

from dermafuse.errors import ConfigError

Item = TypeVar("Item")
Array = np.ndarray[Any, Any]
Precision = Literal["auto", "f32", "bf16"]

#: Workers beyond the number of inference streams: while the streams compute, these decode and store. With 2 the
#: streams wait now and then (5 % slower); more than 4 gain nothing.
_EXTRA_WORKERS = 4

#: Seconds between two reports of progress.
_TELL_EVERY = 0.1


# The first NumPy array handed to OpenVINO initialises a static of pybind11 whose lock and Python's are taken in
# opposite orders: two threads that are first together wait for each other for ever (seen: py-spy shows one in
# __cxa_guard_acquire, one in call_once<npy_api>). Importing is done by one thread: the first array goes over here.
ov.Tensor(np.zeros(1, np.uint8))


class _End:
    """What an exhausted source gives."""


_END = _End()


def cpu_count() -> int:
    """Return how many CPUs this process may use (its affinity, not the machine's total)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def supports_bf16() -> bool:
    """Return whether this CPU has native bfloat16 arithmetic, as OpenVINO reports it."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def choose_precision(asked: Precision) -> Literal["f32", "bf16"]:
    """Resolve ``auto`` to what this CPU supports; refuse bf16 where it would only be emulated.

    Raises:
        ConfigError: bf16 asked for on a CPU without it.
    """
    if asked == "f32":
        return "f32"
    if supports_bf16():
        return "bf16"
    if asked == "bf16":
        raise ConfigError("This CPU has no bfloat16 arithmetic; use precision=f32 or precision=auto.")
    return "f32"


class Engine:
    """A compiled network and its pool of infer requests.

    Args:
        model: an ``openvino.Model`` or the path of an IR (``model.xml``).
        precision: arithmetic inside the network; outputs are float32 whichever is chosen.
        mode: ``throughput`` (one single-threaded stream a CPU) or ``latency`` (one stream on all CPUs).
        threads: CPUs to use; 0 means all that this process may use.
    """

    def __init__(
        self,
        model: ov.Model | Path,
        *,
        precision: Precision = "auto",
        mode: Literal["throughput", "latency"] = "throughput",
        threads: int = 0,
    ) -> None:
        self.precision = choose_precision(precision)
        self.threads = threads or cpu_count()
        self.streams = self.threads if mode == "throughput" else 1
        core = ov.Core()
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": self.precision,
                "NUM_STREAMS": self.streams,
                "INFERENCE_NUM_THREADS": self.threads,
                # Pinned stream threads would leave the decoding threads no fair share of a busy core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.output_names: tuple[str, ...] = tuple(
            next(iter(sorted(port.get_names())), f"output_{index}") for index, port in enumerate(self._compiled.outputs)
        )
        self._local = threading.local()

    @property
    def workers(self) -> int:
        """Threads that keep every stream busy while some of them decode."""
        return self.streams + _EXTRA_WORKERS

    def infer(self, *inputs: Array) -> tuple[Array, ...]:
        """Run one batch; inputs and outputs in the network's order. Safe to call from several threads.

        The outputs are views of the calling thread's request: copy what must outlive the next call.
        """
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        results = request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return tuple(results.values())

    def map_threads(
        self,
        items: Iterable[Item],
        work: Callable[[Item], None],
        *,
        on_done: Callable[[int], None] | None = None,
    ) -> None:
        """Call ``work(item)`` for every item on enough threads to keep every stream busy.

        Each call decodes, infers and stores its own item, so memory is bounded by the number of threads
        whatever the number of items (which may be a generator). The first exception, or a Ctrl-C, ends the
        run after the items in flight; the exception is raised again.
        """
        for done in bounded_map(items, work, workers=self.workers):
            if on_done is not None:
                on_done(done)


def bounded_map(
    items: Iterable[Item],
    work: Callable[[Item], None],
    *,
    workers: int,
) -> Iterator[int]:
    """Run ``work`` over ``items`` on ``workers`` threads, each taking its next item itself; yield counts done.

    Threads that fetch for themselves, not a pool with futures: handing over and waiting for an item costs 0.2 ms,
    a twentieth of what the network takes.

    Raises:
        Exception: the first one of ``items`` or ``work``; no further items are taken, running ones finish.
    """
    source = iter(items)
    turn = threading.Lock()
    stop = threading.Event()
    ended = threading.Semaphore(0)
    counts = [0] * workers
    errors: list[BaseException] = []

    def run(worker: int) -> None:
        try:
            while not stop.is_set():
                with turn:
                    item = next(source, _END)
                if isinstance(item, _End):
                    break
                work(item)
                counts[worker] += 1
        except BaseException as error:
            errors.append(error)
            stop.set()
        finally:
            ended.release()

    threads = [threading.Thread(target=run, args=(n,), name=f"dermafuse-{n}", daemon=True) for n in range(workers)]
    told = 0
    try:
        for thread in threads:
            thread.start()
        running = workers
        while running:
            running -= ended.acquire(timeout=_TELL_EVERY)
            if (now := sum(counts)) > told:
                yield now - told
                told = now
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if errors:
        raise errors[0]
