"""The figures of an evaluation: written to ``RUN/figures`` as SVG, PNG and CSV, and put into the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.predictions import Scored
from dermafuse.report.figures.curves import learning, precision_recall, reliability, roc, score_histogram
from dermafuse.report.figures.figure import Figure
from dermafuse.report.figures.tables import confusion, forest, malignant_points

#: Figures of which an evaluation has one, by the name that `run.plot` gives them, from its rows and its metrics block.
#: One more is the function that makes it, which names the section of the report that shows it, and its line here.
DISPLAYS: Final[Mapping[str, Callable[[Scored, Mapping[str, Any]], Figure | None]]] = {
    "roc": roc,
    "precision_recall": precision_recall,
    "operating_points": malignant_points,
    "score_histogram": lambda rows, block: score_histogram(rows),
}


def make_figures(
    metrics: Mapping[str, Any], rows: Mapping[str, Scored], histories: Mapping[str, pd.DataFrame]
) -> dict[str, Figure]:
    """Return every figure that the numbers allow, by name.

    Args:
        metrics: content of ``metrics.json``, enriched (`evaluation.derived_metrics.enriched`).
        rows: of ``predictions.csv``, by split.
        histories: name -> ``history.csv``; one of name ``""``, or one a fold; none for an evaluation.
    """
    split = reported_split(metrics)
    block, own = metrics[split], rows[split]
    labels, critical = own.labels, own.labels.critical
    found = [
        confusion(block, own.classes, split),
        *(made(own, block) for made in DISPLAYS.values()),
        reliability(block),
        None if critical is None else reliability(block, critical, labels),
        learning(histories, loss=True),
        learning(histories, loss=False),
    ]
    if block.get("subgroups"):
        found += [forest(block, metric, key) for key, metric in subgroup_metrics(labels).items()]
    return {figure.name: figure for figure in found if figure is not None}


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write all figures into ``folder`` (made where missing); return the paths of all files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [path for figure in figures.values() for path in figure.write(folder)]
