"""How each step grows with its data: time and peak memory at 10^4, 10^5, 10^6 rows.

    python benchmarks/growth.py --step bootstrap --rows 10000 100000 1000000
    python benchmarks/growth.py --step check --rows 10000 100000
    python benchmarks/growth.py --step predict --rows 20000 1000000

Each size runs in a process of its own: wall seconds, seconds of processor, peak resident memory as the system counts
it. What a step needs is made before, in FOLDER (--folder, kept; default: a temporary one), and is not timed. Pictures
are generated: for `check` N different ones, blended from a few hundred, one in twenty a turned and darker copy of
another; for the others N names (hard links) of a few hundred files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

LESIONS = 300
STEPS = ("check", "bootstrap", "report", "readers", "splits", "predict")


def table_of(base: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return the table of HAM10000's layout, repeated: new images of new lesions."""
    copy = np.arange(rows) // len(base)
    table = base.iloc[np.arange(rows) % len(base)].reset_index(drop=True)
    table["base"] = table["image_id"]
    table["image_id"] = [f"ISIC_{number:08d}" for number in range(rows)]
    table["lesion_id"] = [f"{lesion}_{number}" for lesion, number in zip(table["lesion_id"], copy, strict=True)]
    return table


def data_set(folder: Path, rows: int, *, different: bool) -> Path:
    """Write a data set of N pictures, or of N names of few."""
    from dermafuse.data.synthetic.dataset import write_synthetic

    target = folder / f"{'pictures' if different else 'names'}-{rows}"
    if target.exists():
        return target
    base = folder / "base"
    if not base.exists():
        write_synthetic(base, lesions=LESIONS)
    files = {path.stem: path for path in base.rglob("*.jpg")}
    table = table_of(pd.read_csv(base / "HAM10000_metadata.csv"), rows)
    making = folder / f".{target.name}"
    (making / "HAM10000_images_part_1").mkdir(parents=True)
    (making / "HAM10000_images_part_2").mkdir()
    sources = [files[name] for name in table.pop("base")]
    paths = [making / "HAM10000_images_part_1" / f"{name}.jpg" for name in table["image_id"]]
    if different:
        blend(list(files.values()), paths)
    else:
        for source, path in zip(sources, paths, strict=True):
            os.link(source, path)
    table.to_csv(making / "HAM10000_metadata.csv", index=False)
    making.rename(target)
    return target


def blend(sources: list[Path], paths: list[Path]) -> None:
    """Write different pictures: two of the sources, turned and laid over each other; one in twenty shows another."""
    import simplejpeg

    pictures = [simplejpeg.decode_jpeg(path.read_bytes()) for path in sources]

    def turned(picture: np.ndarray, view: int) -> np.ndarray:
        return picture[:: -1 if view & 1 else 1, :: -1 if view & 2 else 1]

    def write(number: int) -> None:
        again = number % 20 == 19
        rng = np.random.default_rng(number - 1 if again else number)
        one, other = (turned(pictures[rng.integers(len(pictures))], int(rng.integers(4))) for _ in range(2))
        shift = rng.integers(0, 100, 2)
        mixed = one.astype(np.float32) * 0.5 + np.roll(other, shift, (0, 1)) * 0.5
        mixed = turned(mixed, 2) * 0.9 if again else mixed
        paths[number].write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(mixed.astype(np.uint8)), quality=85))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(len(paths))))


def predictions(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from tiny_run import tiny_probabilities

    rng = np.random.default_rng(0)
    true = rng.choice(7, rows, p=[0.03, 0.05, 0.11, 0.01, 0.11, 0.67, 0.02])
    return true, tiny_probabilities(true, 7), rng.integers(0, max(rows * 3 // 4, 1), rows)


def prepare(step: str, folder: Path, rows: int) -> None:
    if step in ("check", "readers", "splits", "report", "predict"):
        data = data_set(folder, rows, different=step == "check")
    if step == "report":
        finished_run(folder, data, rows)
    if step == "predict":
        from tiny_bundle import tiny_bundle

        if not (folder / "bundle").exists():
            tiny_bundle(folder / "bundle")
        table = pd.read_csv(data / "HAM10000_metadata.csv")
        table["image"] = [str(data / "HAM10000_images_part_1" / f"{name}.jpg") for name in table["image_id"]]
        table[["image", "age", "sex", "localization"]].to_csv(folder / f"table-{rows}.csv", index=False)


def finished_run(folder: Path, data: Path, rows: int) -> None:
    """Write a RUN whose validation has all rows of the data, and tuning rows besides."""
    from dermafuse.data.readers.read import read_dataset
    from dermafuse.evaluation.metrics import evaluate_predictions
    from dermafuse.evaluation.prediction_rows import rows_of_table
    from tiny_run import predictions_table, tiny_run

    run = folder / f"run-{rows}"
    if run.exists():
        return
    tiny_run(run, folder / "base")
    records = read_dataset(data)
    table = predictions_table(records, "validation", seed=1)
    tuning = pd.read_csv(run / "predictions.csv").query("split == 'tuning'")
    pd.concat([tuning, table], ignore_index=True).to_csv(run / "predictions.csv", index=False)
    own = rows_of_table(table, records.classes)["validation"]
    metrics = json.loads((run / "metrics.json").read_text())
    intervals = metrics["validation"]["ci95"]
    metrics["validation"] = {**evaluate_predictions(own.true, own.probabilities, own.classes), "ci95": intervals}
    metrics["data"] |= {"images": rows, "validation": rows}
    (run / "metrics.json").write_text(json.dumps(metrics))


def work(step: str, folder: Path, rows: int) -> str:
    """Do a step and return what came out of it."""
    if step == "bootstrap":
        from dermafuse.evaluation.intervals import cluster_bootstrap
        from dermafuse.labels import HAM10000

        true, probabilities, lesions = predictions(rows)
        return f"accuracy {cluster_bootstrap(true, probabilities, lesions, HAM10000)['accuracy']}"
    if step == "predict":
        from dermafuse.runtime.batch.predict_table import predict_table
        from dermafuse.runtime.released import load

        with tempfile.TemporaryDirectory() as out:
            done = predict_table(
                load(folder / "bundle", mode="throughput"), folder / f"table-{rows}.csv", Path(out) / "out.csv"
            )
            return f"{done.predicted:,} predicted, {done.failed:,} failed"
    if step == "report":
        from dermafuse.report.page import make_report

        page = make_report(folder / f"run-{rows}", data=folder / f"names-{rows}")
        return f"page of {page.stat().st_size / 1e6:.1f} MB"
    from dermafuse.data.readers.read import read_dataset
    from dermafuse.data.splits import leakage, make_folds, make_split
    from dermafuse.progress import Terminal

    records = read_dataset(folder / f"{'pictures' if step == 'check' else 'names'}-{rows}")
    if step == "readers":
        return f"{len(records):,} rows"
    if step == "splits":
        by_image = make_split(records, by="image", seed=0)
        by_lesion, folds = make_split(records, seed=0), make_folds(records, k=5, seed=0)
        leaks = leakage(records, by_image).leaked_images
        return f"{len(by_lesion.validation):,} by lesion, {len(folds)} folds, {leaks:,} leak by image"
    from dermafuse.checks.check import check_records

    found = check_records(records, Terminal())
    pairs = [each["data"] for each in found["findings"] if each["code"] == "DF002"]
    return f"{pairs[0]['pairs']:,} near-duplicates, search {pairs[0]['search']}" if pairs else "no near-duplicates"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--step", choices=STEPS, required=True)
    options.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    options.add_argument("--folder", type=Path)
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        started = time.perf_counter()
        said = work(arguments.step, arguments.folder, arguments.rows[0])
        print(json.dumps({"seconds": time.perf_counter() - started, "found": said}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("| step | rows | seconds | processor s | peak MB | found |\n|---|---|---|---|---|---|")
        for rows in arguments.rows:
            prepare(arguments.step, folder, rows)
            measure(arguments.step, folder, rows)


def measure(step: str, folder: Path, rows: int) -> None:
    command = [sys.executable, __file__, "--child", "--step", step, "--rows", str(rows), "--folder", str(folder)]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{step} of {rows:,} rows ended with status {status}")
        out.seek(0)
        said = json.loads(out.read().splitlines()[-1])
    busy = usage.ru_utime + usage.ru_stime
    print(
        f"| {step} | {rows:,} | {said['seconds']:.1f} | {busy:.1f} | {usage.ru_maxrss / 1024:.0f} | {said['found']} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
