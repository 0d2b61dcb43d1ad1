"""Peak memory of extraction for a short and a long list of images: it must not grow with the list.

    python benchmarks/extraction_memory.py --data ../shared/ham10000 [--counts 10015 100000]

The long list repeats the files, each copy with a JPEG comment of its own, so that every one is new to the store.
Each count runs in a process of its own; its peak resident memory is the operating system's figure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def with_comment(jpeg: bytes, number: int) -> bytes:
    """Return the same picture as a file of other content: a comment segment behind the start marker."""
    comment = f"copy {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def child(data: Path, count: int, backbone: str, size: int) -> None:
    from dermafuse.data.readers.read import read_dataset
    from dermafuse.runtime.engine import Engine
    from dermafuse.training.config import resolve
    from dermafuse.training.features.extraction import extract
    from dermafuse.training.features.store import ActivationStore
    from dermafuse.training.partition import extraction_model, front_file, plan_network, store_key

    sources = [Path(path) for path in read_dataset(data).table["path"]]
    config = resolve("seed", options={"backbone": backbone, "image_size": size})
    plan = plan_network(config)
    front = front_file(plan, config)  # converted by an earlier process: TensorFlow is not part of extraction
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(count):
            path = Path(folder) / f"{number}.jpg"
            path.write_bytes(with_comment(sources[number % len(sources)].read_bytes(), number))
            paths.append(path)
        store = ActivationStore(store_key(plan), Path(folder) / "store")
        started = time.perf_counter()
        done = extract(
            paths, store, lambda: Engine(extraction_model(front), precision=plan.precision), image_size=plan.image_size
        )
        assert done.computed == count
        print(json.dumps({"seconds": time.perf_counter() - started, "precision": plan.precision}))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--counts", type=int, nargs="+", default=[10_015, 100_000])
    options.add_argument("--backbone", default="efficientnet_lite1")
    options.add_argument("--image-size", type=int, default=240)
    options.add_argument("--child", type=int)
    arguments = options.parse_args()
    if arguments.child is not None:
        child(arguments.data, arguments.child, arguments.backbone, arguments.image_size)
        return
    command = [
        sys.executable,
        __file__,
        "--data",
        str(arguments.data),
        "--backbone",
        arguments.backbone,
        "--image-size",
        str(arguments.image_size),
        "--child",
    ]
    subprocess.run([*command, "2"], check=True, stdout=subprocess.DEVNULL)
    print("| images | seconds | images/s | peak MB |\n|---|---|---|---|")
    for count in arguments.counts:
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen([*command, str(count)], stdout=out)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"extraction of {count} images ended with status {status}")
            out.seek(0)
            seconds = json.loads(out.read().splitlines()[-1])["seconds"]
        print(f"| {count:,} | {seconds:.0f} | {count / seconds:.0f} | {usage.ru_maxrss / 1024:.0f} |", flush=True)


if __name__ == "__main__":
    main()
