"""The metrics block of ``metrics.json``: every number of one set of predictions, ready for JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError
from dermafuse.evaluation.predictions import Scored, check_predictions
from dermafuse.evaluation.weighted import WeightedMetrics
from dermafuse.labels import Classes, LabelSet


def evaluate_predictions(
    true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Classes,
    *,
    malignant: Collection[str] | None = None,
    predicted: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Return every metric of one set of rows as a JSON-ready block (formulas: :mod:`.weighted`).

    Args:
        true: (n,) integer class indices, 0..k-1.
        probabilities: (n, k) rows summing to 1, columns in the order of ``classes``.
        classes: the label set, or the k codes.
        malignant: codes counted as malignant; ``None``: as the label set says. The score is their summed probability.
        predicted: (n,) decisions, where the rule is not "largest probability" (for example offsets by
            class). It decides accuracy, F1, recall and all that comes from the confusion matrix; AUROC,
            average precision, top-2, NLL, Brier, ECE and overconfidence depend on the probabilities alone.

    Returns:
        ``n``; ``accuracy``, ``balanced_accuracy`` (= ISIC 2018 BMA), ``weighted_f1``, ``macro_f1``,
        ``macro_auroc``, ``macro_average_precision``, ``cohen_kappa``, ``mcc``, ``top2_accuracy``, ``nll``
        (nats), ``brier`` (0..2), ``ece`` (top label, 15 equal-mass bins), ``classwise_ece``,
        ``overconfidence`` (mean confidence minus accuracy of the most probable class); ``malignant``
        {support, auroc, average_precision, sensitivity_at_specificity_0.90 and _0.95 (read off the ROC
        curve of these very rows), and of the decisions sensitivity, specificity, ppv, npv}, ``None`` where
        no class, or every class, is malignant; ``per_class`` {code: {support, precision, recall,
        specificity, npv, f1, auroc, average_precision, ece}}; ``confusion_matrix`` (rows true, columns
        predicted).

        Never NaN: what these rows cannot define is ``None``. A class without true rows has no recall, F1,
        AUROC or average precision and is left out of the macro means, as scikit-learn's balanced accuracy
        does; a class never predicted has no precision; specificity, AUROC and kappa need a second class.

    Raises:
        DataError: arrays that are not labels and probabilities of the same rows.
    """
    return block_of(check_predictions(true, probabilities, classes, malignant=malignant, predicted=predicted))


def block_of(rows: Scored) -> dict[str, Any]:
    """Return every metric of some rows; see `evaluate_predictions`."""
    k = len(rows.classes)
    block: dict[str, Any] = {"n": len(rows)}
    support = np.bincount(rows.true, minlength=k)
    counts: dict[tuple[str, ...], float | None] = {
        ("per_class", code, "support"): int(support[c]) for c, code in enumerate(rows.classes)
    }
    if rows.has_malignant:
        counts[("malignant", "support")] = int(rows.is_malignant.sum())
    block |= nest({**counts, **estimates(rows)})
    block.setdefault("malignant", None)
    confusion = np.bincount(rows.true * k + rows.predicted, minlength=k * k).reshape(k, k)
    block["confusion_matrix"] = confusion.tolist()
    # Scalars first, then the nested blocks: the file is read by people, too.
    return {key: block[key] for key in sorted(block, key=lambda key: isinstance(block[key], dict | list))}


def reported_split(metrics: Mapping[str, Any]) -> str:
    """Return which block of the metrics is the one reported: ``test`` where there is one, else ``validation``.

    Raises:
        DataError: neither is there.
    """
    for name in ("test", "validation"):
        if isinstance(metrics.get(name), Mapping):
            return name
    raise DataError("metrics.json holds neither a validation nor a test block; repeat the run.")


def labels_of(metrics: Mapping[str, Any]) -> LabelSet:
    """Return the label set of a run's classes, in the order of the confusion matrix.

    Runs of earlier versions name the codes alone; the roles are then known where they are HAM10000's.

    Raises:
        DataError: neither is there.
    """
    if "labels" in metrics:
        return LabelSet.from_json(metrics["labels"])
    return LabelSet.of(tuple(metrics[reported_split(metrics)]["per_class"]))


def estimates(rows: Scored) -> dict[tuple[str, ...], float | None]:
    """Return every scalar metric by its path, e.g. ``("per_class", CODE, "recall")``; None if undefined."""
    found = WeightedMetrics(rows).measure(np.ones((len(rows), 1)))
    return {path: number(float(values[0])) for path, values in found.items()}


def number(value: float) -> float | None:
    """Return the value, or None for NaN, which JSON does not know."""
    return None if np.isnan(value) else value


def nest(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Turn ``{("a", "b"): 1}`` into ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        branch = tree
        for step in path[:-1]:
            branch = branch.setdefault(step, {})
        branch[path[-1]] = value
    return tree
