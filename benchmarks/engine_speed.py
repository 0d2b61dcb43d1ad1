"""Images/s of a frozen backbone in TensorFlow, ONNX Runtime and OpenVINO, and of our extraction from files.

    python benchmarks/engine_speed.py --data ../shared/ham10000 [--images 1500] [--backbones efficientnet_b1 ...]

Every engine runs the same network (image to pooled features) on the same images; rounds alternate between the
engines, so that a machine that changes speed changes it for all; the median over the rounds counts. B1 has
random weights (as fast as any, nothing to download), Lite1 its ImageNet weights. Also: cosine similarity of
bf16 and f32 features, and the extraction pipeline (files to stored activations) as a share of the engine alone.

Needs tf2onnx besides what the extras bring (pip install tf2onnx): the rival in ONNX Runtime is not made by us.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dermafuse.data.images import load_image
from dermafuse.data.readers.read import read_dataset
from dermafuse.runtime.engine import Engine, supports_bf16
from dermafuse.training.config import resolve
from dermafuse.training.features.extraction import extract
from dermafuse.training.features.store import ActivationStore
from dermafuse.training.partition import extraction_model, front_file, plan_network, store_key
from dermafuse.training.tensorflow_setup import load_tensorflow

BATCH = 32


def tensorflow_runner(backbone: str, weights: str, images: np.ndarray) -> Callable[[], None]:
    import keras
    import tensorflow as tf

    from dermafuse.models.backbones import build_backbone

    network = build_backbone(backbone, weights=weights)
    pooled = keras.Model(network.inputs[0], keras.layers.GlobalAveragePooling2D()(network.outputs[0]))
    step = tf.function(lambda batch: pooled(tf.cast(batch, tf.float32), training=False), autograph=False)

    def run() -> None:
        for start in range(0, len(images), BATCH):
            step(tf.constant(images[start : start + BATCH]))

    return run


def onnx_runner(backbone: str, weights: str, images: np.ndarray, folder: str) -> Callable[[], None]:
    import keras
    import onnx
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    from dermafuse.models.backbones import build_backbone

    network = build_backbone(backbone, weights=weights)
    pooled = keras.Model(network.inputs[0], keras.layers.GlobalAveragePooling2D()(network.outputs[0]))
    signature = [tf.TensorSpec([None, *images.shape[1:]], tf.float32, name="image_input")]
    function = tf.function(lambda batch: pooled(batch, training=False), input_signature=signature, autograph=False)
    path = f"{folder}/{backbone}.onnx"
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    # It also lists constants that TensorFlow captured (the input normalisation of B1), which are folded by now.
    for entry in [entry for entry in converted.graph.input if entry.name != "image_input"]:
        converted.graph.input.remove(entry)
    onnx.save_model(converted, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run() -> None:
        for start in range(0, len(images), BATCH):
            session.run(None, {name: images[start : start + BATCH].astype(np.float32)})

    return run


def engine_runner(engine: Engine, images: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        engine.map_threads(range(len(images)), lambda position: engine.infer(images[position : position + 1]))

    return run


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--images", type=int, default=1500)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--backbones", nargs="+", default=["efficientnet_b1", "efficientnet_lite1"])
    arguments = options.parse_args()
    load_tensorflow()
    precisions = ("f32", "bf16") if supports_bf16() else ("f32",)
    every = [Path(path) for path in read_dataset(arguments.data).table["path"]]
    paths = every[:: max(1, len(every) // arguments.images)][: arguments.images]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DERMAFUSE_CACHE"] = folder
        for backbone in arguments.backbones:
            measure(backbone, paths, precisions, arguments.rounds, folder)


def measure(backbone: str, paths: list[Path], precisions: tuple[str, ...], rounds: int, folder: str) -> None:
    weights = "random" if backbone in ("efficientnet_b0", "efficientnet_b1") else "imagenet"
    size = plan_network(resolve("seed", options={"backbone": backbone, "weights": weights})).image_size
    images = np.stack([load_image(path, size) for path in paths])
    subset = images[: len(images) // 4]
    runners: dict[str, tuple[Callable[[], None], int]] = {
        "TensorFlow graph, batch 32": (tensorflow_runner(backbone, weights, subset), len(subset)),
        "ONNX Runtime, batch 32": (onnx_runner(backbone, weights, subset, folder), len(subset)),
    }
    features: dict[str, np.ndarray] = {}
    for precision in precisions:
        config = resolve("seed", options={"backbone": backbone, "weights": weights, "precision": precision})
        plan = plan_network(config)
        engine = Engine(extraction_model(front_file(plan, config)), precision=precision)
        features[precision] = np.concatenate([engine.infer(image[np.newaxis])[0].copy() for image in subset])
        runners[f"OpenVINO {precision}, in memory"] = (engine_runner(engine, images), len(images))
        count = iter(range(1000))

        def pipeline(engine: Engine = engine, plan=plan, count=count, precision=precision) -> None:  # type: ignore[no-untyped-def]
            store = ActivationStore(store_key(plan), Path(folder) / f"{precision}-{next(count)}")
            done = extract(paths, store, lambda: engine, image_size=size)
            assert done.computed == len(paths)

        runners[f"extraction {precision}, files to store"] = (pipeline, len(paths))
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, (run, count) in runners.items():
            started = time.perf_counter()
            run()
            rates[name].append(count / (time.perf_counter() - started))
    median = {name: statistics.median(each[1:]) for name, each in rates.items()}  # the first round warms up
    base = median["TensorFlow graph, batch 32"]
    print(f"\n{backbone}, {size} px, {len(paths):,} images, median of {rounds} rounds\n")
    print("| engine | images/s | / TensorFlow |\n|---|---|---|")
    for name, rate in median.items():
        print(f"| {name} | {rate:.0f} | {rate / base:.2f} |")
    for precision in precisions:
        pairs = zip(
            rates[f"extraction {precision}, files to store"][1:],
            rates[f"OpenVINO {precision}, in memory"][1:],
            strict=True,
        )
        share = statistics.median(files / memory for files, memory in pairs)
        print(f"extraction / engine alone, {precision}: {share:.3f}")
    if len(features) == 2:
        a, b = features["f32"], features["bf16"]
        cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        print(f"cosine similarity of bf16 and f32 features: min {cosine.min():.5f}, mean {cosine.mean():.6f}")


if __name__ == "__main__":
    main()
