"""Images/s of a training step: the tail behind a cut (ours) against the whole network in Keras; steps interleaved.

    python benchmarks/tail_speed.py [--backbone efficientnet_lite1] [--stages block6 block5] [--steps 12]

Rivals: `plain Keras` is the whole network with every layer trainable, as `backbone.trainable = True` leaves it
(BatchNormalization in training mode); `BatchNormalization frozen` is our own whole-network mode.
"""

import argparse
import statistics
import time

import numpy as np

from dermafuse.models.classifier import HeadSpec
from dermafuse.training.config import resolve
from dermafuse.training.partition import cut_shape, plan_network, trainable_model
from dermafuse.training.tensorflow_setup import load_tensorflow

BATCH = 32
HEAD = HeadSpec(classes=7, meta_width=19)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--backbone", default="efficientnet_lite1")
    options.add_argument("--stages", nargs="+", default=["block6", "block5"])
    options.add_argument("--steps", type=int, default=12)
    arguments = options.parse_args()
    load_tensorflow()
    import keras

    from dermafuse.models.backbones import build_backbone
    from dermafuse.models.classifier import full_classifier

    weights = "random" if arguments.backbone in ("efficientnet_b0", "efficientnet_b1") else "imagenet"
    plain = build_backbone(arguments.backbone, weights=weights)
    made = {"whole network, plain Keras f32": (full_classifier(plain, HEAD, seed=0), plain.inputs[0].shape[1:])}
    cases: list[tuple[str, dict[str, object]]] = [
        ("whole network, BatchNormalization frozen, f32", {"unfreeze_from": "all", "precision": "f32"})
    ]
    for stage in arguments.stages:
        cut = {"unfreeze_from": stage}
        kept = {**cut, "train_depthwise": False}
        cases += [
            (f"tail from {stage}, f32", {**cut, "precision": "f32"}),
            (f"tail from {stage}, auto", cut),
            (f"tail from {stage}, depthwise kernels kept, auto", kept),
            (f"tail from {stage}, depthwise kernels kept, 208 px, auto", {**kept, "image_size": 208}),
        ]
    for name, settings in cases:
        config = resolve("seed", options={"backbone": arguments.backbone, "weights": weights, **settings})
        plan = plan_network(config)
        shape = cut_shape(plan) if plan.cached else (plan.image_size, plan.image_size, 3)
        made[name.replace("auto", plan.precision)] = (trainable_model(plan, HEAD, config), shape)
    generator = np.random.default_rng(0)
    runs = {}
    for name, (model, shape) in made.items():
        model.compile(
            keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        inputs = {
            "image_input": generator.random((BATCH, *shape), dtype=np.float32),
            "meta_input": generator.random((BATCH, HEAD.meta_width), dtype=np.float32),
        }
        runs[name] = (model, inputs, generator.integers(0, 7, BATCH), [])
    for _ in range(arguments.steps + 2):
        for model, inputs, labels, seconds in runs.values():
            started = time.perf_counter()
            model.train_on_batch(inputs, labels)
            seconds.append(time.perf_counter() - started)
    rates = {name: BATCH / statistics.median(run[3][2:]) for name, run in runs.items()}
    plain_rate, frozen_rate = list(rates.values())[:2]
    print(f"\n{arguments.backbone}, batch {BATCH}, median of {arguments.steps} interleaved steps\n")
    print("| training step | images/s | / plain Keras | / BatchNormalization frozen |\n|---|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / plain_rate:.1f} | {rate / frozen_rate:.1f} |")


if __name__ == "__main__":
    main()
