"""Goldens: every number that follows from fixed predictions of three label sets, as it was before the metrics moved.

``python tests/evaluation/test_metric_goldens.py`` writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermafuse.evaluation.derived_metrics import enriched
from dermafuse.evaluation.intervals import cluster_bootstrap, paired_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.subgroups import subgroup_report
from dermafuse.labels import HAM10000, LabelSet

GOLDEN = Path(__file__).parent / "golden"

SETS = {
    "ham10000": HAM10000,
    "binary": LabelSet.of(("benign", "cancer"), malignant={"cancer"}, critical="cancer"),
    "no_malignant": LabelSet.of(("wart", "eczema", "acne"), malignant=()),
}


def made_up(labels: LabelSet, seed: int, n: int = 260, skill: float = 1.6) -> Scored:
    """Return fixed predictions: classes of falling frequency, some lesions with two images, skewed decisions."""
    rng = np.random.default_rng(seed)
    k = len(labels)
    frequency = 1.0 / np.arange(1, k + 1)
    true = rng.choice(k, n, p=frequency / frequency.sum())
    logits = rng.normal(0.0, 1.2, (n, k))
    logits[np.arange(n), true] += skill
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    lesions = np.array([f"lesion-{number // 3 * 2 + min(number % 3, 1)}" for number in range(n)], dtype=object)
    images = np.array([f"image-{number:04}" for number in range(n)], dtype=object)
    predicted = (np.log(probabilities) + np.linspace(0, 0.4, k)).argmax(axis=1)
    return Scored(labels, images, lesions, true, predicted, probabilities, np.zeros(n, np.int64))


def made_up_metrics(labels: LabelSet) -> tuple[dict[str, Any], Scored, Scored]:
    """Return the content of a ``metrics.json`` of `made_up` rows, those rows, and another model's."""
    rows, tuning = made_up(labels, 1), made_up(labels, 2)
    worse = made_up(labels, 1, skill=0.9)
    block = evaluate_predictions(rows.true, rows.probabilities, labels, predicted=rows.predicted)
    block["ci95"] = cluster_bootstrap(
        rows.true, rows.probabilities, rows.lesion_id, labels, replicates=100, predicted=rows.predicted
    )
    sex = np.where(np.arange(len(rows)) % 5 < 2, "male", "female")
    block["subgroups"] = subgroup_report(
        rows.true, rows.probabilities, rows.lesion_id, labels, {"sex": sex}, predicted=rows.predicted, replicates=100
    )
    metrics: dict[str, Any] = {
        "labels": labels.to_json(),
        "validation": block,
        "training": {"temperature": 1.3},
        "announcements": [],
    }
    return enriched(metrics, {"validation": rows, "tuning": tuning}, None), rows, worse


def everything(labels: LabelSet) -> Any:
    metrics, rows, worse = made_up_metrics(labels)
    differences = paired_bootstrap(
        rows.true,
        rows.probabilities,
        worse.probabilities,
        rows.lesion_id,
        labels,
        replicates=100,
        predicted_a=rows.predicted,
        predicted_b=worse.predicted,
    )
    return rounded({"metrics": metrics, "differences": differences})


def rounded(value: Any) -> Any:
    """Return a JSON value with its numbers at seven digits."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def compare(found: Any, golden: Any, where: str = "") -> None:
    if isinstance(golden, dict):
        assert found.keys() == golden.keys(), where
        for key, value in golden.items():
            compare(found[key], value, f"{where}/{key}")
    elif isinstance(golden, list):
        assert len(found) == len(golden), where
        for number, value in enumerate(golden):
            compare(found[number], value, f"{where}/{number}")
    elif isinstance(golden, float):
        assert found == pytest.approx(golden, rel=2e-6, abs=1e-9), where
    else:
        assert found == golden, where


@pytest.mark.parametrize("name", SETS)
def test_every_number_of_fixed_predictions_is_as_it_was(name: str) -> None:
    found = json.loads(json.dumps(everything(SETS[name])))
    compare(found, json.loads((GOLDEN / f"metrics-{name}.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    for name, labels in SETS.items():
        text = json.dumps(everything(labels), indent=0, allow_nan=False)
        (GOLDEN / f"metrics-{name}.json").write_text(text + "\n", encoding="utf-8")
