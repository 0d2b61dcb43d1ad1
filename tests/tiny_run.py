"""A finished RUN folder without training: made-up but plausible predictions of a generated data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.data.splits import leakage, make_split
from dermafuse.evaluation.intervals import cluster_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.prediction_rows import rows_of_table
from tiny_bundle import tiny_bundle


def tiny_probabilities(labels: np.ndarray, k: int, *, seed: int = 0, skill: float = 2.0) -> np.ndarray:
    """Return (n, k) probabilities that favour the true class by ``skill`` in the logit."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.2, (len(labels), k))
    logits[np.arange(len(labels)), labels] += skill
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def predictions_table(records: Records, split: str, *, seed: int = 0, skill: float = 2.0) -> pd.DataFrame:
    number = {code: position for position, code in enumerate(records.classes)}
    labels = records.table["label"].map(number).to_numpy(np.int64)
    probabilities = tiny_probabilities(labels, len(records.classes), seed=seed, skill=skill)
    table = records.table[["image_id", "lesion_id"]].reset_index(drop=True)
    table["split"] = split
    table["true"] = records.table["label"].to_numpy()
    table["predicted"] = np.array(records.classes)[probabilities.argmax(axis=1)]
    for position, code in enumerate(records.classes):
        table[f"p_{code}"] = [float(f"{p:.7g}") for p in probabilities[:, position]]
    return table


def tiny_run(
    folder: Path,
    data: Path,
    *,
    by: str = "lesion",
    tuning: bool = True,
    temperature: float = 1.4,
    model: bool = True,
    replicates: int = 60,
    **changes: Any,
) -> Path:
    """Write config.toml, metrics.json, predictions.csv, history.csv and model/; ``changes`` replace metrics."""
    records = read_dataset(data)
    split = make_split(records, by=by, seed=0)
    train, validation = records.subset(split.train), records.subset(split.validation)
    parts = [predictions_table(validation, "validation", seed=1)]
    if tuning:
        inner = make_split(train, by="lesion", seed=1, fraction=0.2)
        parts.insert(0, predictions_table(train.subset(inner.validation), "tuning", seed=2))
        train = train.subset(inner.train)
    table = pd.concat(parts, ignore_index=True)
    own = rows_of_table(table, records.classes)["validation"]
    block = evaluate_predictions(own.true, own.probabilities, own.classes)
    block["ci95"] = cluster_bootstrap(own.true, own.probabilities, own.lesion_id, own.classes, replicates=replicates)
    metrics: dict[str, Any] = {
        "dermafuse": "0.1.0",
        "research_use_only": True,
        "announcements": ["SYNTHETIC DATA: these numbers say nothing about real skin lesions."]
        if records.synthetic
        else [],
        "recipe": "seed",
        "data": {
            "layout": records.layout,
            "images": len(records),
            "classes": list(records.classes),
            "synthetic": records.synthetic,
            "train": len(train),
            "tuning": len(table) - len(validation),
            "validation": len(validation),
            "skipped": 0,
            "metadata_columns": ["age", "sex=male"],
        },
        "validation": block,
        "leakage": leakage(records, split).to_dict(),
        "training": {
            "epochs": 3,
            "best_epoch": 2,
            "stopped_early": False,
            "early_stopping_rows": "tuning" if tuning else "validation",
            "monitor": "loss",
            "temperature": temperature if tuning else 1.0,
        },
        "network": {
            "backbone": "tiny",
            "weights": "random",
            "image_size": 32,
            "parameters": {"total": 1234, "trainable": 1234},
        },
        "environment": {"python": "3.11"},
        "seconds": {"train": 1.5, "total": 2.5},
        **changes,
    }
    folder.mkdir(parents=True)
    table.to_csv(folder / "predictions.csv", index=False)
    epochs = {"epoch": [1, 2, 3], "loss": [1.9, 1.2, 0.9], "val_loss": [1.8, 1.4, 1.5], "val_accuracy": [0.2, 0.5, 0.6]}
    pd.DataFrame(epochs).to_csv(folder / "history.csv", index=False)
    (folder / "config.toml").write_text(tomli_w.dumps({"recipe": "seed", "data": str(data), "split": by, "seed": 0}))
    if model:
        tiny_bundle(folder / "model", prediction_set=None, ood=None, temperature=temperature)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def copy_run(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


#: Arguments of `dermafuse train` for a small, fast run.
FAST = [
    "--recipe",
    "seed",
    "--backbone",
    "efficientnet_lite0",
    "--weights",
    "random",
    "--epochs",
    "3",
    "--set",
    "image_size=64",
]
