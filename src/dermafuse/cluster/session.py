"""Connecting to a Ray cluster, or starting one on this machine for as long as a command runs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dermafuse.errors import ConfigError, DermafuseError
from dermafuse.progress import Reporter

#: Bytes of Ray's object store on this machine: shards and answers are small, images are never sent.
_STORE_BYTES: Final = 256 << 20
#: CPUs of a worker where every machine has at least twice as many; one engine with four threads needs a quarter of the
#: memory of four engines.
_CPUS_OF_A_WORKER: Final = 4


@dataclass(frozen=True)
class Session:
    """A connection.

    Attributes:
        workers: at most so many at a time.
        threads: CPUs of each.
        report: who is told what was lost.
    """

    workers: int
    threads: int
    report: Reporter

    def shards(self, job: Any, items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Do small shards: while a worker does one, the next waits there. A `dermafuse.parallel.Runner`."""
        return self._run(job, items, ahead=1)

    def trainings(self, job: Any, items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Do long tasks, each handed out when a worker is free. A `dermafuse.parallel.Runner`."""
        return self._run(job, items, ahead=0)

    def _run(self, job: Any, items: Iterable[tuple[Any, Any]], *, ahead: int) -> Iterator[tuple[Any, Any]]:
        from dermafuse.cluster.pool import Pool

        pool = Pool(job, workers=self.workers, threads=self.threads, ahead=ahead, report=self.report)
        yield from pool.run(items)


@contextlib.contextmanager
def connect(address: str, *, jobs: int | None, report: Reporter, whole_machines: bool = False) -> Iterator[Session]:
    """Start Ray here (``local``) or connect to a cluster, while the block runs.

    Nothing is reported to Ray's makers, and no dashboard is started.

    Args:
        address: ``local``; or ``HOST:PORT`` of a head node, or ``auto``, on a machine of that cluster.
        jobs: workers at a time; ``None``: as many as there are CPUs, of a cluster all but one.
        report: who is told what goes on.
        whole_machines: each worker gets all CPUs of its machine, where ``jobs`` does not say otherwise.

    Raises:
        DermafuseError: Ray is not installed, or no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs} cannot work; name 1 or more.")
    try:
        import ray
    except ImportError as error:
        raise DermafuseError('--cluster and --jobs need Ray; run: pip install "dermafuse[cluster]".') from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if address == "local":
            from dermafuse.runtime.engine import cpu_count

            workers = jobs or (1 if whole_machines else cpu_count())
            threads = max(1, cpu_count() // workers)
            # One more than the workers take: Ray's own tasks, and the driver, never wait for one of them to end.
            here: dict[str, Any] = {
                "num_cpus": workers * threads + 1,
                "num_gpus": 0,
                "object_store_memory": _STORE_BYTES,
            }
            _start(ray, include_dashboard=False, **here, **quiet)
        else:
            ray.init(address=address, **quiet)
            workers, threads = _places(ray, whole_machines=whole_machines)
            workers = min(workers, jobs or workers)
    except (ConnectionError, ValueError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise DermafuseError(
            f"No Ray cluster at {address} ({said}); give the address on a machine of the cluster (ray start "
            "--address=... makes it one), or --cluster local."
        ) from error
    finally:
        _restore(handlers)  # Ray takes SIGTERM for itself
    _mute()
    try:
        report.say(f"Ray {ray.__version__}: {workers} worker(s) with {threads} CPU(s) each.")
        yield Session(workers, threads, report)
    finally:
        ray.shutdown()


def _mute() -> None:
    """Keep Ray from printing the state of a lost node over the progress: what was lost, `Pool` says in one line."""
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker

        worker.print_to_stdstream = lambda *arguments, **options: None


def _start(ray: Any, **options: Any) -> None:
    """Start Ray here. Its parts wait 15 seconds for each other, which is too short on a busy machine: try again."""
    for last in (False, False, True):
        try:
            ray.init(**options)
        except Exception as error:
            ray.shutdown()
            if last or "timed out" not in str(error).lower():
                raise RuntimeError(str(error)) from error
        else:
            return


def _places(ray: Any, *, whole_machines: bool) -> tuple[int, int]:
    """Return how many workers a cluster has room for, one CPU left to the driver, and the CPUs of each."""
    here = ray.get_runtime_context().get_node_id()
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    least = min((count for count in cpus.values() if count), default=0)
    if not least:
        raise RuntimeError("it has no CPUs")
    threads = least if whole_machines else _CPUS_OF_A_WORKER if least >= 2 * _CPUS_OF_A_WORKER else 1
    left = {node: count - (node == here and sum(cpus.values()) > threads) for node, count in cpus.items()}
    return max(1, sum(count // threads for count in left.values())), threads


def _restore(handlers: dict[Any, Any]) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread: signals are not ours
        for number, handler in handlers.items():
            signal.signal(number, handler)
