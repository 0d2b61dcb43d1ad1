"""Steps/s of recipe standard's tail: batches in parts side by side against whole batches on all threads.

    python benchmarks/side_by_side.py [--rounds 3] [--steps 25]

Threads are fixed when TensorFlow starts, so each measurement is a process of its own; the two take turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

from dermafuse.training.tensorflow_setup import load_tensorflow, parts_of_a_batch, threads_of_a_part

BATCH = 32


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=25)
    options.add_argument("--measure", nargs=2, type=int, metavar=("PARTS", "THREADS"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments.steps)))
        return
    forms = {"whole batches, all threads": (1, 0), "in parts": (parts_of_a_batch(), threads_of_a_part())}
    found: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(arguments.rounds):
        for name, (parts, threads) in forms.items():
            command = [sys.executable, __file__, "--steps", str(arguments.steps)]
            command += ["--measure", str(parts), str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    rates = {name: statistics.median(each) for name, each in found.items()}
    whole, parted = rates.values()
    for name, rate in rates.items():
        print(f"{name} (parts, threads of each: {forms[name]}): {rate:.2f} steps/s of {BATCH} images")
    print(f"in parts / whole batches: {parted / whole:.2f}")


def measure(parts: int, threads: int, steps: int) -> float:
    """Return the median steps/s of this process."""
    load_tensorflow(threads=threads)
    from dermafuse.models.classifier import HeadSpec
    from dermafuse.training.config import resolve
    from dermafuse.training.loop.losses import ClassificationLoss
    from dermafuse.training.loop.optimizer import make_optimizer
    from dermafuse.training.loop.side_by_side import train_in_parts
    from dermafuse.training.partition import cut_shape, plan_network, trainable_model

    config = resolve("standard", assignments=["image_size=208"])
    plan = plan_network(config)
    model = trainable_model(plan, HeadSpec(classes=7, meta_width=22), config)
    model.compile(make_optimizer(config, 200), ClassificationLoss(np.full(7, 100)), jit_compile=False)
    if parts > 1:
        train_in_parts(model, parts)
    generator = np.random.default_rng(0)
    inputs = {
        "image_input": generator.random((BATCH, *cut_shape(plan)), dtype=np.float32),
        "meta_input": generator.random((BATCH, 22), dtype=np.float32),
    }
    labels = generator.integers(0, 7, BATCH)
    seconds = []
    for _ in range(steps + 3):
        started = time.perf_counter()
        model.train_on_batch(inputs, labels)
        seconds.append(time.perf_counter() - started)
    return 1.0 / statistics.median(seconds[3:])


if __name__ == "__main__":
    main()
