"""The closing table of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import RenderableType

_HEADLINES: Final = (
    ("accuracy", "accuracy"),
    ("weighted_f1", "weighted F1"),
    ("macro_f1", "macro F1"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_auroc", "macro AUROC"),
)


def summary(block: Mapping[str, Any], title: str) -> list[RenderableType]:
    """Return two rich tables of a metrics block: headline figures with intervals, and one row a class."""
    from rich.table import Table

    head = Table(title=title, title_justify="left")
    head.add_column("metric")
    head.add_column("value", justify="right")
    head.add_column("95 % interval", justify="right")
    intervals = block.get("ci95", {})
    for key, name in _HEADLINES:
        low, high = intervals.get(key) or (None, None)
        head.add_row(name, _figure(block[key]), "" if low is None else f"{_figure(low)} to {_figure(high)}")
    classes = Table()
    for name in ("class", "precision", "recall", "F1", "specificity", "AUROC", "support"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for code, row in block["per_class"].items():
        figures = (_figure(row[key]) for key in ("precision", "recall", "f1", "specificity", "auroc"))
        classes.add_row(code, *figures, f"{row['support']:,}")
    return [head, classes]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
