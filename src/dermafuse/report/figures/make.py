"""The figures of an evaluation. Each is a drawing and the table of its numbers: ``.frame()`` and ``.plot()``.

Written to ``RUN/figures`` as SVG, PNG and CSV, and put into the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.predictions import Scored
from dermafuse.files import write_atomic
from dermafuse.report.figures.canvas import Canvas
from dermafuse.report.figures.curves import learning, precision_recall, reliability, roc, score_histogram
from dermafuse.report.figures.paint import png
from dermafuse.report.figures.tables import confusion, forest, malignant_points


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure.

    Attributes:
        name: of its files.
        title: in words.
        canvas: the drawing.
        table: the numbers in it.
    """

    name: str
    title: str
    canvas: Canvas
    table: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return the numbers."""
        return self.table

    def plot(self) -> str:
        """Return the drawing as a standalone SVG document."""
        return self.canvas.svg()

    def write(self, folder: Path) -> list[Path]:
        """Write ``name.svg``, ``name.png`` and ``name.csv`` into a folder that is there; return their paths."""
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("svg", "png", "csv")]
        numbers = self.table.to_csv(index=False, float_format="%.8g")
        contents: list[bytes | str] = [self.plot(), png(self.canvas), numbers]
        for path, content in zip(paths, contents, strict=True):
            write_atomic(path, content)
        return paths


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
    drawn: list[tuple[str, tuple[Canvas, pd.DataFrame] | None]] = [
        ("confusion", confusion(block, own.classes, split)),
        ("roc", roc(own, block)),
        ("precision_recall", precision_recall(own, block)),
        ("malignant_roc", malignant_points(own, block)),
        ("malignant_scores", score_histogram(own)),
        ("reliability", reliability(block)),
        (f"reliability_{labels.critical_key}", None if critical is None else reliability(block, critical, labels)),
        ("learning_loss", learning(histories, loss=True)),
        ("learning_metrics", learning(histories, loss=False)),
    ]
    if block.get("subgroups"):
        drawn += [(f"subgroups_{key}", forest(block, metric)) for key, metric in subgroup_metrics(labels).items()]
    return {name: Figure(name, found[0].title, *found) for name, found in drawn if found is not None}


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write all figures into ``folder`` (made where missing); return the paths of all files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [path for figure in figures.values() for path in figure.write(folder)]
