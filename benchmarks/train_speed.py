"""Seconds of the `seed` recipe: written literally, ours with a cold cache, ours with a warm one; one run, one machine.

    python benchmarks/train_speed.py --data ../shared/ham10000 [--epochs 20] [--literal-epochs 2]

The literal recipe does the same work in every epoch; with --literal-epochs below --epochs its total is its
start-up plus epochs x the mean epoch measured, and the table says so. Random backbone weights on both sides:
the arithmetic is the same, and nothing has to be downloaded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Return wall seconds, peak memory in MB, and stdout of a process."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            sys.exit(f"{' '.join(command)} ended with status {status}")
        out.seek(0)
        return wall, usage.ru_maxrss / 1024, out.read()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--literal-epochs", type=int, default=2)
    arguments = options.parse_args()
    here = Path(__file__).parent

    with tempfile.TemporaryDirectory() as scratch:
        ours = [
            sys.executable,
            "-m",
            "dermafuse.cli",
            "train",
            "--data",
            str(arguments.data),
            "--recipe",
            "seed",
            "--backbone",
            "efficientnet_b1",
            "--weights",
            "random",
            "--epochs",
            str(arguments.epochs),
            "--set",
            f"patience={arguments.epochs}",
            "--json",
            "--out",
        ]
        cache = {"DERMAFUSE_CACHE": f"{scratch}/cache"}
        rows = []
        for name in ("cold", "warm"):
            wall, memory, text = run([*ours, f"{scratch}/{name}"], cache)
            metrics = json.loads(text)
            rows.append((name, wall, memory, metrics))
        literal = [sys.executable, str(here / "literal_recipe.py"), "--data", str(arguments.data), "--epochs"]
        wall, memory, text = run([*literal, str(arguments.literal_epochs)], {})
        rival = json.loads(text.splitlines()[-1])

    epoch = sum(rival["epochs"]) / len(rival["epochs"])
    images = rival["train"] + sum(rows[0][3]["data"][side] for side in ("validation",))
    total = rival["start"] + epoch * arguments.epochs
    how = "measured" if arguments.literal_epochs == arguments.epochs else f"from {arguments.literal_epochs} epochs"
    print(f"\n| {arguments.epochs} epochs | total s | s an epoch | images/s | peak MB | literal / this |")
    print("|---|---|---|---|---|---|")
    print(f"| literal ({how}) | {total:.1f} | {epoch:.1f} | {images / epoch:.0f} | {memory:.0f} | 1.0 |")
    for name, wall, peak, metrics in rows:
        seconds = metrics["seconds"]
        each = seconds["train"] / metrics["training"]["epochs"]
        rate = images * arguments.epochs / wall
        print(
            f"| dermafuse, {name} cache ({seconds['extract']:.1f} s extraction, {seconds['train']:.1f} s training) "
            f"| {wall:.1f} | {each:.2f} | {rate:.0f} | {peak:.0f} | {total / wall:.1f} |"
        )


if __name__ == "__main__":
    main()
