"""How much worse does a model get on other cameras, and without metadata? The same rows, each time paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermafuse.data.images import read_pixels
from dermafuse.data.records import Records
from dermafuse.errors import DermafuseError
from dermafuse.evaluation.corruptions import CORRUPTIONS, Pixels
from dermafuse.evaluation.intervals import paired
from dermafuse.evaluation.metric_table import chosen_of
from dermafuse.evaluation.metrics import block_of
from dermafuse.evaluation.predictions import Scored, check_predictions
from dermafuse.progress import Reporter
from dermafuse.runtime.prediction import Query, Views
from dermafuse.runtime.predictor import Predictor


def measure_robustness(
    predictor: Predictor,
    records: Records,
    *,
    metadata: bool = True,
    seed: int = 0,
    replicates: int = 2000,
    report: Reporter,
) -> dict[str, Any]:
    """Predict labelled images as they are, without metadata, and under each of ``CORRUPTIONS``.

    Args:
        predictor: the model.
        records: labelled images that it did not learn from.
        metadata: give what is known of age, sex and so on to the corrupted images too.
        seed: of the bootstrap.
        replicates: of the bootstrap.
        report: who is told the progress.

    Returns:
        JSON-able: ``images``; figures of ``clean``, ``eight_views`` (averaged over flips and turns),
        ``metadata_missing`` and each corruption; ``change``: for each but ``clean`` the paired difference to it with
        interval; ``mean_change`` over the corruptions.
    """
    labels = np.array([predictor.classes.index(label) for label in records.table["label"]])
    lesions = records.table["lesion_id"].to_numpy(object)
    fields = [name for name in predictor.fields if name in records.table.columns]
    runs: dict[str, tuple[Callable[[Pixels], Pixels] | None, bool, Views]] = {
        "clean": (None, True, 1),
        "eight_views": (None, True, 8),
        **({"metadata_missing": (None, False, 1)} if fields else {}),
        **{name: (change, metadata, 1) for name, change in CORRUPTIONS.items()},
    }
    found: dict[str, Scored] = {}
    with report.bar("Robustness", len(runs) * len(records), "images") as advance:
        for name, (change, known, views) in runs.items():
            outcomes = []
            for outcome in predictor.stream(queries(records, fields if known else [], change), views=views):
                if isinstance(outcome, DermafuseError):
                    raise outcome
                outcomes.append(outcome)
                advance(1)
            probabilities = np.array([list(outcome.probabilities.values()) for outcome in outcomes])
            predicted = np.array([predictor.classes.index(outcome.label) for outcome in outcomes])
            found[name] = check_predictions(
                labels, probabilities, predictor.bundle.labels, predicted=predicted, groups=lesions
            )
    figures = {name: chosen_of(block_of(scored), "change") for name, scored in found.items()}
    changes = {
        name: chosen_of(paired(scored, found["clean"], replicates=replicates, seed=seed), "change")
        for name, scored in found.items()
        if name != "clean"
    }
    mean = {key: _mean([changes[name][key]["difference"] for name in CORRUPTIONS]) for key in figures["clean"]}
    return {
        "images": len(records),
        "metadata_given": bool(fields) and metadata,
        **figures,
        "change": {name: changes[name] for name in runs if name in changes},
        "mean_change": mean,
    }


def _mean(differences: Sequence[float | None]) -> float | None:
    """Return the mean; ``None`` where one is undefined, as the AUROC of images of one class is."""
    known = [difference for difference in differences if difference is not None]
    return float(np.mean(known)) if len(known) == len(differences) else None


def queries(
    records: Records, fields: Sequence[str], change: Callable[[Pixels], Pixels] | None = None
) -> Iterator[Query]:
    """Yield one question an image, in order, with what is known of ``fields``; ``change`` alters the pixels first."""
    for path, known in zip(records.table["path"], records.known(fields), strict=True):
        image = Path(path) if change is None else change(read_pixels(Path(path)))
        yield Query(image, known, completed=bool(fields))  # without fields: as if nobody knew, the file neither
