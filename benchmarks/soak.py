"""Mixed work for some minutes: does memory, open handles or temporary files grow?

    python benchmarks/soak.py --minutes 30 [--model RUN] [--report soak.csv]

One process predicts, explains, answers requests (of the server's application, in the same process), checks a data set
and writes a report, over and over, all with generated data. Each minute (at least ten times in all) it counts its
resident memory, its open handles, its threads, and the temporary files that lie beside its outputs and in the system's
temporary folder. The first third is warming up. Verdict: flat, where the last third uses no more than 5 % or 20 MB
more memory than the middle one, and no more handles, threads or files; the exit status is 1 where it is not.
"""

from __future__ import annotations

import argparse
import csv
import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "serving")]

COLUMNS = ("minute", "memory_mb", "handles", "threads", "temporary", "rounds")
#: What may be more at the end: a share of the memory, or megabytes.
SHARE, MEGABYTES = 0.05, 20.0


def works(folder: Path, model: Path | None) -> dict[str, Callable[[], object]]:
    """Return the kinds of work, each a call that does it once."""
    from at_once import AtOnce
    from starlette.testclient import TestClient

    import dermafuse
    import tiny_bundle
    import tiny_run
    from dermafuse.checks.check import check_records
    from dermafuse.data.readers.read import read_dataset
    from dermafuse.data.synthetic.dataset import write_synthetic
    from dermafuse.progress import SILENT
    from dermafuse.report.page import make_report
    from dermafuse.runtime.batch.predict_table import predict_table
    from dermafuse.serving.app import make_app
    from dermafuse.serving.limits import Access, Limits
    from dermafuse.serving.model import ServedModel

    data = write_synthetic(folder / "data", lesions=60)
    records = read_dataset(data)
    bundle = model or tiny_bundle.tiny_bundle(folder / "model")
    run = tiny_run.tiny_run(folder / "run", data)
    predictor = dermafuse.load(bundle, mode="throughput")
    paths = list(records.table["path"])
    numbers = itertools.cycle(range(len(paths)))
    limits = Limits()
    serving = make_app(AtOnce(ServedModel(predictor, limits)), limits, Access())
    client = TestClient(serving.guard, base_url="http://localhost")
    table = folder / "table.csv"
    pd.DataFrame({"image": paths, "age": records.table["age"], "sex": records.table["sex"]}).to_csv(table, index=False)

    def ask() -> None:
        for _ in range(5):
            answer = client.post("/v1/predict", files={"image": Path(paths[next(numbers)]).read_bytes()})
            answer.raise_for_status()

    return {
        "predict": lambda: predict_table(predictor, table, folder / "out" / "answers.csv", overwrite=True),
        "explain": lambda: predictor.explain(paths[next(numbers)], age=50, sex="male"),
        "serve": ask,
        "check": lambda: check_records(records, SILENT),
        "report": lambda: make_report(run, data=data),
    }


def temporary_files(folder: Path) -> int:
    """Return how many of our own temporary names lie under ``folder`` and in the system's temporary folder."""
    here = [*folder.rglob(".*.dermafuse*"), *folder.rglob("*.partial*")]
    return len(here) + len(list(Path(tempfile.gettempdir()).glob(".scratch.*.dermafuse*")))


def sample(folder: Path, minute: float, rounds: int) -> dict[str, float]:
    gc.collect()
    me = psutil.Process()
    return {
        "minute": round(minute, 2),
        "memory_mb": round(me.memory_info().rss / 1e6, 1),
        "handles": me.num_fds(),
        "threads": me.num_threads(),
        "temporary": temporary_files(folder),
        "rounds": rounds,
    }


def soak(folder: Path, minutes: float, model: Path | None) -> Iterator[dict[str, float]]:
    kinds = works(folder, model)
    started = time.monotonic()
    every = min(1.0, minutes / 10)
    due, rounds = 0.0, 0
    while (now := (time.monotonic() - started) / 60) < minutes:
        for work in kinds.values():
            work()
        rounds += 1
        if now >= due:
            yield sample(folder, now, rounds)
            due += every
    yield sample(folder, now, rounds)


def verdict(samples: list[dict[str, float]]) -> list[str]:
    """Return what grew, in sentences."""
    third = max(len(samples) // 3, 1)
    middle, last = samples[third : 2 * third], samples[-third:]
    grew = []
    for name in COLUMNS[1:-1]:
        before, after = (float(np.median([each[name] for each in part])) for part in (middle, last))
        allowed = max(SHARE * before, MEGABYTES) if name == "memory_mb" else 0.0
        if after > before + allowed:
            grew.append(f"{name} grew from {before:g} to {after:g}")
    return grew


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--model", type=Path, help="a RUN; without: a tiny generated one")
    options.add_argument("--report", type=Path, help="CSV of what was counted")
    arguments = options.parse_args()
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
        for found in soak(Path(folder), arguments.minutes, arguments.model):
            samples.append(found)
            print("| " + " | ".join(f"{found[name]:g}" for name in COLUMNS) + " |", flush=True)
    if arguments.report:
        with arguments.report.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(samples)
    if len(samples) < 6:
        sys.exit(f"Too few samples ({len(samples)}) for a verdict; give more --minutes.")
    grew = verdict(samples)
    print("Not flat: " + "; ".join(grew) + "." if grew else "Flat: memory, handles, threads and temporary files.")
    sys.exit(1 if grew else 0)


if __name__ == "__main__":
    main()
