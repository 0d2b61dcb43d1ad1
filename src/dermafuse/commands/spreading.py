"""The options that spread long work: over parts of a job array, and over the machines of a cluster."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dermafuse.errors import ConfigError

if TYPE_CHECKING:
    from dermafuse.cluster.session import Session
    from dermafuse.progress import Reporter


def add_shard_option(verb: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--shard I/N``."""
    verb.add_argument("--shard", metavar="I/N", help=f"{meaning} (I from 1 to N)")


def add_cluster_options(verb: argparse.ArgumentParser, what: str) -> None:
    """Add ``--cluster`` and ``--jobs``; ``what``: is spread."""
    verb.add_argument(
        "--cluster", metavar="local|ADDRESS", help=f"spread {what} with Ray: over processes here, or over a cluster"
    )
    verb.add_argument("--jobs", metavar="N", type=int, help="so many at a time; alone it means --cluster local")


@contextlib.contextmanager
def cluster_of(
    arguments: argparse.Namespace, report: Reporter, *, whole_machines: bool = False
) -> Iterator[Session | None]:
    """Yield the cluster that the options name, connected while the block runs; ``None`` where they name none.

    Raises:
        ConfigError: parts of a job array and a cluster exclude each other.
    """
    if arguments.cluster is None and arguments.jobs is None:
        yield None
        return
    if arguments.shard:
        raise ConfigError("--shard is for machines that know nothing of each other; leave out --cluster and --jobs.")
    from dermafuse.cluster.session import connect

    address = arguments.cluster or "local"
    with connect(address, jobs=arguments.jobs, report=report, whole_machines=whole_machines) as session:
        yield session
