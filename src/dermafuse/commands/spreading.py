"""The options that spread long work: over parts of a job array, and over the machines of a cluster."""

from __future__ import annotations

import argparse


def add_shard_option(verb: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--shard I/N``."""
    verb.add_argument("--shard", metavar="I/N", help=f"{meaning} (I from 1 to N)")
