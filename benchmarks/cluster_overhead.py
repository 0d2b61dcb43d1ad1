"""One process against parts and against Ray workers, over the same table on the same CPUs: seconds, and equal bytes.

    python benchmarks/cluster_overhead.py --model RUN --csv TABLE --image-root DIR [--jobs 1 --jobs 2]

Run it on a quiet machine. Ray's own start (seconds, once a command) is told apart: it does not grow with the table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--image-root", required=True)
    parser.add_argument("--jobs", type=int, action="append", help="workers to try (default 1 and 2)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole.csv"
        print(f"one process: {timed(arguments, whole):8.1f} s")
        parts = Path(scratch) / "parts.csv"
        seconds = sum(timed(arguments, parts, *more) for more in (("--shard", "1/2"), ("--shard", "2/2"), ()))
        report("two parts and a join", seconds, whole, parts)
        for jobs in arguments.jobs or [1, 2]:
            out = Path(scratch) / f"{jobs}.csv"
            start = ray_start(jobs)
            seconds = timed(arguments, out, "--jobs", str(jobs))
            report(f"--jobs {jobs} (of it {start:.1f} s start of Ray)", seconds, whole, out)


def timed(arguments: argparse.Namespace, out: Path, *more: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "dermafuse", "predict", arguments.model, "--csv", arguments.csv]
    subprocess.run(
        [*command, "--image-root", arguments.image_root, "--out", str(out), *more], check=True, capture_output=True
    )
    return time.perf_counter() - began


def ray_start(jobs: int) -> float:
    code = (
        "from dermafuse.cluster.session import connect\nfrom dermafuse.progress import SILENT\n"
        f"with connect('local', jobs={jobs}, report=SILENT): pass"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - began


def report(what: str, seconds: float, whole: Path, out: Path) -> None:
    print(f"{what}: {seconds:8.1f} s, {'the same bytes' if whole.read_bytes() == out.read_bytes() else 'OTHER BYTES'}")


if __name__ == "__main__":
    main()
