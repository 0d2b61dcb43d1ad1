"""What a random view costs, beside decoding its image and the frozen front that reads it, on one core.

    python benchmarks/view_speed.py [--data ../shared/ham10000] [--images 100] [--sizes 208 240]

Processor time in milliseconds, medians over images; the rival of a view is the front of recipe standard (EfficientNet-
Lite1 up to block4), which every view goes through. To compare two versions of the views run it on both commits.
"""

import argparse
import statistics
import time
from pathlib import Path

from dermafuse.data.images import load_image
from dermafuse.data.random_views import random_view
from dermafuse.data.readers.read import read_dataset
from dermafuse.runtime.engine import Engine
from dermafuse.training.config import resolve
from dermafuse.training.partition import extraction_model, front_file, plan_network


def milliseconds(call: object, items: list) -> float:
    """Return the median processor time of ``call(item)``."""
    taken = []
    for item in items:
        start = time.process_time()
        call(item)
        taken.append(time.process_time() - start)
    return 1e3 * statistics.median(taken)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, default=Path("../shared/ham10000"))
    options.add_argument("--images", type=int, default=100)
    options.add_argument("--sizes", type=int, nargs="+", default=[208, 240])
    arguments = options.parse_args()
    paths = list(read_dataset(arguments.data).table["path"][: arguments.images])
    print("| side | decode and resize | random view | front | view / front |\n|---|---|---|---|---|")
    for side in arguments.sizes:
        config = resolve("standard", assignments=[f"image_size={side}"])
        engine = Engine(extraction_model(front_file(plan_network(config), config)), precision="f32")
        images = [load_image(path, side) for path in paths]
        decode = milliseconds(lambda path, side=side: load_image(path, side), paths)
        seen = milliseconds(lambda pair: random_view(pair[1], bytes([pair[0] % 256, 7, 7, 7])), [*enumerate(images)])
        front = milliseconds(lambda image, engine=engine: engine.infer(image[None]), images)
        print(f"| {side} | {decode:.2f} | {seen:.2f} | {front:.2f} | {seen / front:.2f} |")


if __name__ == "__main__":
    main()
