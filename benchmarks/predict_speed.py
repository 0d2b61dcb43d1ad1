"""Prediction speed: latency, cold start and files-to-CSV throughput against Keras, TensorFlow and ONNX Runtime.

    python benchmarks/predict_speed.py --data ../shared/ham10000 [--images 256] [--rounds 3] [--int8] [--runs RUN ...]

All run the same network on the same image files in one session; rounds alternate between them, so that a machine
that changes speed changes it for all; medians count. Without --runs, B1 (random weights: as fast as any) and
Lite1 are trained for an epoch on a few generated images first. Rivals get the encoded metadata for nothing.

- Keras `predict`: the exported .keras file on a tf.data pipeline (decode, resize, batch 32, prefetch).
- TensorFlow graph: the same model and pipeline in a tf.function.
- ONNX Runtime: the exported .onnx file, batch 32; our decoder on threads works ahead of it.
- Cold start: a process from start to exit that predicts one image: `dermafuse predict` against a Keras script.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermafuse.data.images import load_image
from dermafuse.data.readers.read import read_dataset
from dermafuse.runtime.batch.predict_table import predict_table
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.engine import cpu_count, supports_bf16
from dermafuse.runtime.predictor import Predictor
from dermafuse.training.tensorflow_setup import load_tensorflow

BATCH = 32
CHUNK = 10
GRAPH = "TensorFlow graph"

KERAS_SCRIPT = """
import sys
import keras
import numpy as np
from PIL import Image
model = keras.saving.load_model(sys.argv[1], compile=False)
size, width = model.input["image_input"].shape[1], model.input["meta_input"].shape[1]
image = Image.open(sys.argv[2]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
inputs = {"image_input": np.asarray(image, np.float32)[None], "meta_input": np.zeros((1, width), np.float32)}
logits = model.predict(inputs, verbose=0)[0]
powers = np.exp(logits - logits.max())
print(*(f"{p:.3f}" for p in powers / powers.sum()))
"""


@dataclass
class Job:
    """A network with the files to predict and what has been measured of it."""

    name: str
    run: Path
    keras: Path
    onnx: Path
    paths: list[str]
    table: Path
    meta: np.ndarray
    scratch: Path
    throughput: dict[str, Callable[[], None]] = field(default_factory=dict)
    latency: dict[str, Callable[[int], None]] = field(default_factory=dict)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--calls", type=int, default=100, help="single images for the latency")
    options.add_argument("--backbones", nargs="+", default=["efficientnet_b1", "efficientnet_lite1"])
    options.add_argument("--runs", nargs="+", type=Path, help="RUN folders to use instead")
    options.add_argument("--int8", action="store_true", help="also in int8 (needs NNCF); not gated, for the speed only")
    arguments = options.parse_args()
    load_tensorflow()
    records = read_dataset(arguments.data)
    table = records.table.sample(arguments.images, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["DERMAFUSE_CACHE"] = str(scratch / "cache")
        runs = arguments.runs or [make_run(name, scratch) for name in arguments.backbones]
        for run in runs:
            job = prepare(run, table, scratch)
            weights = read_bundle(run).info["weights"]
            print(f"\n## {job.name} ({weights}), {len(job.paths):,} images, {cpu_count()} CPUs", flush=True)
            cold_start(job, arguments.rounds)
            add_rivals(job)
            add_ours(job, int8=arguments.int8)
            measure_latency(job, arguments.calls)
            measure_throughput(job, arguments.rounds)


def make_run(backbone: str, scratch: Path) -> Path:
    """Train for one epoch on a few generated images: the speed of a network does not depend on its weights."""
    from dermafuse.data.synthetic.dataset import write_synthetic
    from dermafuse.training.config import resolve
    from dermafuse.training.experiment import train_run

    data = scratch / "generated"
    if not data.exists():
        write_synthetic(data, lesions=56)
    weights = "imagenet" if "lite" in backbone else "random"
    choices = {"data": str(data), "backbone": backbone, "weights": weights, "epochs": 1, "precision": "f32"}
    return train_run(resolve("seed", options=choices), scratch / backbone).out


def prepare(run: Path, table: pd.DataFrame, scratch: Path) -> Job:
    """Export the run for the rivals, and check on a few images that all of them are the same function."""
    from dermafuse.exporters.openvino import probability_network
    from dermafuse.exporters.verify import openvino_answer
    from dermafuse.training import export_keras

    bundle = read_bundle(run)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    model = export_keras.rebuild(run, bundle)
    csv = folder / "images.csv"
    table.rename(columns={"path": "image"})[["image", *bundle.encoder.fields]].to_csv(csv, index=False)
    job = Job(
        name=str(bundle.info["backbone"]),
        run=run,
        keras=export_keras.write_keras(model, folder),
        onnx=export_keras.write_onnx(model, folder, bundle.temperature),
        paths=list(table["path"]),
        table=csv,
        meta=bundle.encoder.transform(table),
        scratch=folder,
    )
    images = np.stack([load_image(path, bundle.image_size) for path in job.paths[:8]])
    wanted = openvino_answer(probability_network(bundle))(images, job.meta[:8])
    for answer in (export_keras.keras_answer(job.keras, bundle.temperature), export_keras.onnx_answer(job.onnx)):
        assert np.abs(answer(images, job.meta[:8]) - wanted).max() < 1e-3
    return job


def add_ours(job: Job, *, int8: bool) -> None:
    bundle = read_bundle(job.run)
    variants = {"f32": bundle, "bf16": bundle} if supports_bf16() else {"f32": bundle}
    if int8:
        from dermafuse.exporters.quantize import to_int8
        from dermafuse.exporters.quantize_gate import LabelledImages

        rows = LabelledImages([Path(path) for path in job.paths], job.meta, np.zeros(len(job.paths), np.int64))
        variants["int8"] = replace(bundle, models=to_int8(bundle, rows))
    records = pd.read_csv(job.table).to_dict("records")
    for precision, variant in variants.items():
        arithmetic: Any = "auto" if precision == "int8" else precision
        single = Predictor(variant, precision=arithmetic, mode="latency")
        many = Predictor(variant, precision=arithmetic, mode="throughput")

        def one(number: int, single: Predictor = single) -> None:
            record = {str(name): value for name, value in records[number].items()}
            single.predict(str(record.pop("image")), **record)

        def files(many: Predictor = many) -> None:
            done = predict_table(many, job.table, job.scratch / "ours.csv", overwrite=True)
            assert done.predicted == len(job.paths)

        job.latency[f"dermafuse {precision}"] = one
        job.throughput[f"dermafuse {precision}"] = files


def add_rivals(job: Job) -> None:
    import keras
    import onnxruntime
    import tensorflow as tf

    model = keras.saving.load_model(job.keras, compile=False)
    session = onnxruntime.InferenceSession(job.onnx, providers=["CPUExecutionProvider"])
    size = model.input["image_input"].shape[1]
    classes = list(read_bundle(job.run).classes)
    step = tf.function(lambda inputs: tf.nn.softmax(model(inputs, training=False)), autograph=False)

    def decode(path: tf.Tensor, meta: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return {"image_input": tf.image.resize(image, (size, size)), "meta_input": meta}

    files = tf.data.Dataset.from_tensor_slices((job.paths, job.meta))
    decoded_files = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    batches_of_files = decoded_files.batch(BATCH).prefetch(tf.data.AUTOTUNE)

    def write(batches: list[np.ndarray]) -> None:
        result = pd.DataFrame(np.concatenate(batches), columns=classes)
        result.insert(0, "image", job.paths)
        result.to_csv(job.scratch / "rival.csv", index=False)

    def keras_predict() -> None:
        logits = model.predict(batches_of_files, verbose=0)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        write([powers / powers.sum(axis=1, keepdims=True)])

    def graph() -> None:
        write([step(batch).numpy() for batch in batches_of_files])

    def decoded(pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
        ahead: list[Any] = []
        for start in range(0, len(job.paths), BATCH):
            ahead.append([pool.submit(load_image, path, size) for path in job.paths[start : start + BATCH]])
            if len(ahead) == 2:
                yield np.stack([future.result() for future in ahead.pop(0)])
        for rest in ahead:
            yield np.stack([future.result() for future in rest])

    def onnx() -> None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            batches = []
            for number, images in enumerate(decoded(pool)):
                meta = job.meta[number * BATCH : (number + 1) * BATCH]
                batches += session.run(None, {"image_input": images, "meta_input": meta})
            write(batches)

    def pixels(number: int) -> dict[str, np.ndarray]:
        image = load_image(job.paths[number], size)[np.newaxis]
        return {"image_input": image.astype(np.float32), "meta_input": job.meta[number : number + 1]}

    def onnx_one(number: int) -> None:
        image = load_image(job.paths[number], size)[np.newaxis]
        session.run(None, {"image_input": image, "meta_input": job.meta[number : number + 1]})

    job.throughput |= {GRAPH: graph, "Keras predict": keras_predict, "ONNX Runtime f32": onnx}
    job.latency |= {
        GRAPH: lambda number: step(pixels(number)).numpy(),
        "Keras predict": lambda number: model.predict(pixels(number), verbose=0),
        "ONNX Runtime f32": onnx_one,
    }


def measure_throughput(job: Job, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in job.throughput}
    for _ in range(rounds + 1):
        for name, work in job.throughput.items():
            started = time.perf_counter()
            work()
            rates[name].append(len(job.paths) / (time.perf_counter() - started))
    median = {name: statistics.median(each[1:]) for name, each in rates.items()}  # the first round warms up
    print(f"\n| files to CSV, median of {rounds} | images/s | / {GRAPH} |\n|---|---|---|")
    for name, rate in median.items():
        print(f"| {name} | {rate:.0f} | {rate / median[GRAPH]:.2f} |", flush=True)


def measure_latency(job: Job, calls: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in job.latency}
    for start in range(-CHUNK, calls, CHUNK):  # the first chunk warms up
        for name, work in job.latency.items():
            for number in range(max(start, 0), max(start, 0) + CHUNK):
                begun = time.perf_counter()
                work(number % len(job.paths))
                if start >= 0:
                    seconds[name].append(time.perf_counter() - begun)
    print(f"\n| one image, file to answer, {calls} calls | p50 ms | p99 ms |\n|---|---|---|")
    for name, each in seconds.items():
        p50, p99 = np.percentile(np.array(each) * 1000, (50, 99))
        print(f"| {name} | {p50:.1f} | {p99:.1f} |", flush=True)


def cold_start(job: Job, rounds: int) -> None:
    script = job.scratch / "keras_script.py"
    script.write_text(KERAS_SCRIPT)
    image = job.paths[0]
    commands = {
        "dermafuse predict": [sys.executable, "-m", "dermafuse.cli", "predict", str(job.run), image],
        "Keras script": [sys.executable, str(script), str(job.keras), image],
    }
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):  # the first round brings the files into memory
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=quiet)
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    print(f"\n| process start to exit, one image, median of {rounds} | s | Keras script / this |\n|---|---|---|")
    for name, each in median.items():
        print(f"| {name} | {each:.2f} | {median['Keras script'] / each:.1f} |", flush=True)


if __name__ == "__main__":
    main()
