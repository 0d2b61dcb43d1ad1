"""The closing words of a run for the terminal: what it would miss, how good it is, and each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dermafuse.evaluation.metric import Metric


def summary(block: Mapping[str, Any], title: str) -> list[RenderableType]:
    """Return what a metrics block says first, for rich: what is missed, headline figures, one row a class."""
    from rich.table import Table
    from rich.text import Text

    from dermafuse.evaluation.metric_table import shown

    baselines = block.get("baselines") or {}
    beside = {"metadata": "metadata alone", "majority": f"always {(baselines.get('majority') or {}).get('class')}"}
    beside = {key: name for key, name in beside.items() if key in baselines}
    head = Table()
    for number, name in enumerate(("metric", "value", "95 % interval", *beside.values())):
        head.add_column(Text(name), justify="right" if number else "left")
    for metric, value, interval in headlines(block):
        others = (baselines[key].get(metric.key) for key in beside)
        head.add_row(
            Text(metric.name),
            _figure(value, metric.format),
            _span(interval, metric.format),
            *("" if other is None else _figure(other, metric.format) for other in others),
        )
    classes = Table()
    columns = shown("classes in short")
    for name in ("class", *(metric.short for metric in columns), "support"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for code, row in block["per_class"].items():
        figures = (_figure(row[metric.leaf], metric.format) for metric in columns)
        classes.add_row(Text(code), *figures, f"{row['support']:,}")
    return [Text(title, style="bold"), *map(Text, _missed(block)), head, *map(Text, _calibrated(block)), classes]


def changes(block: Mapping[str, Any]) -> RenderableType:
    """Return how each change of the images changes the figures (block ``robustness``), for rich."""
    from rich.table import Table
    from rich.text import Text

    from dermafuse.evaluation.metric_table import shown

    columns = shown("change")
    table = Table()
    for number, name in enumerate(("the same images", *(metric.name for metric in columns))):
        table.add_column(name, justify="right" if number else "left")
    for name, own in block["change"].items():
        figures = (_figure(own[metric.key]["difference"], f"+{metric.format}") for metric in columns)
        table.add_row(Text(name.replace("_", " ")), *figures)
    return table


def headlines(block: Mapping[str, Any]) -> list[tuple[Metric, float | None, tuple[float, float] | None]]:
    """Return the headline metrics with their value and 95 % interval in a block."""
    from dermafuse.evaluation.metric_table import shown

    return [(metric, metric.within(block), metric.within(block.get("ci95"))) for metric in shown("summary")]


def _missed(block: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each thing that a clinician asks first, as far as the label set lets it be said."""
    from dermafuse.evaluation.glance import first_alarm
    from dermafuse.evaluation.predictions import MALIGNANT

    missed = block.get("missed") or {}
    if "critical" in missed:
        own = missed["critical"]
        benign = f", {own['called_benign']:,} of them benign" if "called_benign" in own else ""
        yield f"{own['missed']:,} of {own['support']:,} {own['name']} images are called something else{benign}."
    if "malignant" in missed:
        own = missed["malignant"]
        yield f"{own['called_benign']:,} of {own['support']:,} malignant images are called benign."
    if alarm := first_alarm(block):
        _, point = alarm
        name = MALIGNANT if point["target"] == MALIGNANT else (missed.get("critical") or {}).get("name", "")
        figures = ", ".join(
            f"{key} {_figure(point[key], '.1%')} ({_span(point['ci95'][key], '.1%')})"
            for key in ("sensitivity", "specificity")
        )
        yield (
            f"Alarm where the {name} probability reaches {point['threshold']:.3f}, chosen on other images: {figures}."
        )
    if benefit := block.get("net_benefit"):
        yield (
            f"Net benefit of acting at {benefit['threshold']:.0%}: {benefit['model']:.3f}; "
            f"acting on every image {benefit['all']:.3f}, on none 0."
        )


def _calibrated(block: Mapping[str, Any]) -> Iterator[str]:
    if line := block.get("calibration_line"):
        figures = " and ".join(
            f"{key} {_figure(line[key], '.2f')} ({_span(line['ci95'][key], '.2f')}; right: {right})"
            for key, right in (("slope", 1), ("intercept", 0))
        )
        yield f"Calibration {figures} for {line['of']}."


def _figure(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _span(interval: Any, spec: str) -> str:
    return "" if interval is None else f"{_figure(interval[0], spec)} to {_figure(interval[1], spec)}"
