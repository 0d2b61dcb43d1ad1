"""The closing table of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dermafuse.evaluation.metric_table import Metric


def summary(block: Mapping[str, Any], title: str) -> list[RenderableType]:
    """Return two rich tables of a metrics block: headline figures with intervals, and one row a class."""
    from rich.table import Table

    from dermafuse.evaluation.metric_table import shown

    head = Table(title=title, title_justify="left")
    head.add_column("metric")
    head.add_column("value", justify="right")
    head.add_column("95 % interval", justify="right")
    for metric, value, interval in headlines(block):
        low, high = interval or (None, None)
        span = "" if low is None else f"{_figure(low, metric.format)} to {_figure(high, metric.format)}"
        head.add_row(metric.name, _figure(value, metric.format), span)
    classes = Table()
    columns = shown("classes in short")
    for name in ("class", *(metric.short for metric in columns), "support"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for code, row in block["per_class"].items():
        figures = (_figure(row[metric.leaf], metric.format) for metric in columns)
        classes.add_row(code, *figures, f"{row['support']:,}")
    return [head, classes]


def headlines(block: Mapping[str, Any]) -> list[tuple[Metric, float | None, tuple[float, float] | None]]:
    """Return the headline metrics with their value and 95 % interval in a block."""
    from dermafuse.evaluation.metric_table import shown

    return [(metric, metric.within(block), metric.within(block.get("ci95"))) for metric in shown("summary")]


def _figure(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
