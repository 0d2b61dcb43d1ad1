"""What bfloat16 in the frozen front costs: one trained head judged on bf16 and on f32 features of the same images.

    python benchmarks/precision.py --data ../shared/ham10000 [--backbone efficientnet_lite1]

Also trains the same head once on each, so that the course of training is compared too (which moves with any
change of the last digit, as it does with the seed).
"""

import argparse
from pathlib import Path

import numpy as np

from dermafuse.progress import Terminal
from dermafuse.training.config import resolve
from dermafuse.training.tensorflow_setup import load_tensorflow

METRICS = ("accuracy", "weighted_f1", "macro_f1", "balanced_accuracy", "macro_auroc")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--backbone", default="efficientnet_lite1")
    options.add_argument("--weights", default="imagenet")
    arguments = options.parse_args()
    load_tensorflow()
    from dermafuse.data.readers.read import read_dataset
    from dermafuse.evaluation.metrics import evaluate_predictions
    from dermafuse.models.classifier import HeadSpec
    from dermafuse.runtime.decision.temperature import apply
    from dermafuse.training.first_look import choose_split
    from dermafuse.training.loop.fit import fit, predict_logits
    from dermafuse.training.partition import plan_network, trainable_model
    from dermafuse.training.prepare import prepare

    records = read_dataset(arguments.data)
    data, models = {}, {}
    for precision in ("f32", "bf16"):
        config = resolve(
            "seed",
            options={
                "data": str(arguments.data),
                "backbone": arguments.backbone,
                "weights": arguments.weights,
                "precision": precision,
            },
        )
        plan = plan_network(config)
        data[precision] = prepare(records, config, plan, Terminal(), choose_split(records, config, None))
        models[precision] = trainable_model(plan, HeadSpec(7, data[precision].encoder.width), config)
        fit(models[precision], data[precision].train.rows, data[precision].validation.rows, config, classes=7)

    def judged(model: str, features: str) -> dict[str, float]:
        rows = data[features].validation.rows
        block = evaluate_predictions(rows.labels, apply(predict_logits(models[model], rows), 1.0), records.classes)
        return {name: block[name] for name in METRICS}

    table = {
        "head trained on bf16, judged on bf16": judged("bf16", "bf16"),
        "head trained on bf16, judged on f32": judged("bf16", "f32"),
        "head trained on f32, judged on f32": judged("f32", "f32"),
        "head trained on f32, judged on bf16": judged("f32", "bf16"),
    }
    print(f"\n| {arguments.backbone} | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(f'{row[metric]:.4f}' for metric in METRICS)} |")
    same_head = [("bf16", "bf16", "f32"), ("f32", "f32", "bf16")]
    moves = [abs(judged(m, a)[metric] - judged(m, b)[metric]) for m, a, b in same_head for metric in METRICS]
    print(f"largest move of a metric of one head between bf16 and f32 features: {max(moves):.4f}")
    a, b = (np.asarray(data[p].validation.rows.images.gather(np.arange(2000)), np.float64) for p in ("f32", "bf16"))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    print(f"cosine similarity of f32 and bf16 features: min {cosine.min():.5f}, mean {cosine.mean():.6f}")


if __name__ == "__main__":
    main()
