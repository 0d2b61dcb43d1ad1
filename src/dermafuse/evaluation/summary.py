"""The closing table of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def summary(block: Mapping[str, Any], title: str) -> list[RenderableType]:
    """Return two rich tables of a metrics block: headline figures with intervals, and one row a class."""
    from rich.table import Table

    from dermafuse.evaluation.metric_table import shown

    head = Table(title=title, title_justify="left")
    head.add_column("metric")
    head.add_column("value", justify="right")
    head.add_column("95 % interval", justify="right")
    intervals = block.get("ci95", {})
    for metric in shown("summary"):
        low, high = metric.within(intervals) or (None, None)
        span = "" if low is None else f"{_figure(low, metric.format)} to {_figure(high, metric.format)}"
        head.add_row(metric.name, _figure(metric.within(block), metric.format), span)
    classes = Table()
    columns = shown("classes in short")
    for name in ("class", *(metric.short for metric in columns), "support"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for code, row in block["per_class"].items():
        figures = (_figure(row[metric.leaf], metric.format) for metric in columns)
        classes.add_row(code, *figures, f"{row['support']:,}")
    return [head, classes]


def _figure(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
