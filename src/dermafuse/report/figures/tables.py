"""Drawings of tables: confusion matrix, forest plot of subgroups, operating points on the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from dermafuse.evaluation.metric_table import Metric
from dermafuse.evaluation.predictions import MALIGNANT, Scored
from dermafuse.evaluation.subgroups import MINIMUM_ROWS, ordered_cells
from dermafuse.report.figures.canvas import Box, Canvas, Dot, Label, Line
from dermafuse.report.figures.curves import Drawn, corners, rates
from dermafuse.report.figures.plot import Frame, thin, ticks, unit_frame

COLUMN_NAMES: Final[dict[str, str]] = {
    "sex": "Sex",
    "age": "Age, years",
    "localization": "Localization",
    "dx_type": "Diagnosis confirmed by",
    "source": "Image source",
}


_WIDTH: Final = 440
_INKS: Final = {MALIGNANT: "accent"}


def confusion(block: Mapping[str, Any], classes: Sequence[str], split: str) -> Drawn:
    """Draw the confusion matrix: counts, and below each its share of the true class, which sets the shade."""
    matrix = np.array(block["confusion_matrix"])
    k = len(classes)
    cell = 372 / k
    height = min(cell, 46.0)
    left, top = 62.0, 40.0
    canvas = Canvas(left + 372 + 6, top + k * height + 8, "Confusion matrix: rows are true, columns predicted")
    canvas.add(
        Label(left + 186, 10, "predicted", size=11.5, anchor="middle"),
        Label(10, top + k * height / 2, "true", size=11.5, anchor="middle", upwards=True),
    )
    small = cell < 34
    for column, code in enumerate(classes):
        canvas.add(Label(left + (column + 0.5) * cell, 29, _short(code, small), ink="ink", anchor="middle", bold=True))
    table = []
    for row, true in enumerate(classes):
        y = top + row * height
        canvas.add(Label(left - 8, y + height / 2, _short(true, small), ink="ink", anchor="end", bold=True))
        total = int(matrix[row].sum())
        for column, predicted in enumerate(classes):
            count = int(matrix[row, column])
            share = count / total if total else 0.0
            x = left + column * cell
            tip = f"{count:,} of {total:,} {true} called {predicted} ({share:.1%})"
            ink = "accent" if row == column else "bad"
            canvas.add(
                Box(x + 1, y + 1, cell - 2, height - 2, "rule", 0.45),
                Box(x + 1, y + 1, cell - 2, height - 2, ink, 0.04 + 0.62 * share if count else 0.0, tip=tip),
            )
            attributes = {
                "data-metric": f"/{split}/confusion_matrix/{row}/{column}",
                "data-format": ",d",
                "pointer-events": "none",
            }
            canvas.add(
                Label(
                    x + cell / 2, y + height / 2 - (7 if not small else 0), f"{count:,}", 10 if small else 12.5,
                    "ink" if count else "soft", "middle", row == column, attributes=attributes,
                )
            )  # fmt: skip
            if not small and count:
                canvas.add(
                    Label(
                        x + cell / 2, y + height / 2 + 9, f"{share:.0%}", 9.5, "ink", "middle",
                        attributes={"data-share": f"{row} {column}", "pointer-events": "none"},
                    )
                )  # fmt: skip
            table.append({"true": true, "predicted": predicted, "count": count, "share_of_true": share})
    return canvas, pd.DataFrame(table)


def forest(block: Mapping[str, Any], shown: Metric) -> Drawn | None:
    """Draw one metric of every subgroup with its interval, and of all rows as a line; withheld cells say so.

    Columns of which no cell has the metric are left out of the drawing; ``None`` where that leaves nothing.
    """
    metric = shown.key
    found = {
        column: [(value, cell, (cell.get("metrics") or {}).get(metric)) for value, cell in ordered_cells(values)]
        for column, values in block["subgroups"].items()
    }
    found = {column: cells for column, cells in found.items() if any(entry for *_, entry in cells)}
    if not found:
        return None
    cells = [each for column in found.values() for each in column]
    known = [entry for *_, entry in cells if entry]
    edges = [bound for entry in known for bound in (entry["ci95"] or [entry["value"]] * 2)]
    low, high = (min(0.0, *edges), max(0.0, *edges)) if shown.signed else (0.0, 1.0)
    height = 17.0
    area = len(cells) * height + len(found) * 24
    canvas = Canvas(_WIDTH, area + 58, f"Subgroups: {shown.name}")
    frame = Frame(158, 6, 166, area + 6, (low, high), (0, 1))
    for tick in ticks(low, high):
        canvas.add(
            Line([(frame.x(tick), frame.top), (frame.x(tick), frame.bottom)], "rule"),
            Label(frame.x(tick), frame.bottom + 13, f"{tick:g}", anchor="middle"),
        )
    whole = shown.within(block)
    caption = shown.name
    if whole is not None:
        canvas.add(Line([(frame.x(whole), frame.top), (frame.x(whole), frame.bottom)], "warm", 1.3, dash=4))
        caption += f"; dashed: all images, {whole:.3f}"
    canvas.add(Label(_WIDTH / 2, frame.bottom + 32, caption, size=11.5, anchor="middle"))
    y = frame.top + 4
    table = []
    for column, entries in found.items():
        y += 12
        canvas.add(Label(4, y, COLUMN_NAMES.get(column, column), ink="ink", bold=True))
        y += 12
        for value, cell, entry in entries:
            _forest_row(canvas, frame, y + height / 2, value, cell, entry, judged=not shown.signed)
            y += height
            span = (entry or {}).get("ci95") or [None, None]
            gap_span = (entry or {}).get("gap_ci95") or [None, None]
            table.append(
                {
                    "column": column, "value": value, "n": cell["n"], "lesions": cell["lesions"],
                    "withheld": cell["withheld"], metric: (entry or {}).get("value"), "low": span[0], "high": span[1],
                    "gap": (entry or {}).get("gap"), "gap_low": gap_span[0], "gap_high": gap_span[1],
                }
            )  # fmt: skip
    return canvas, pd.DataFrame(table)


def malignant_points(rows: Scored, block: Mapping[str, Any]) -> Drawn | None:
    """Draw the ROC curves of malignant or not, and of the critical class, with the operating points."""
    asked = rows.targets()
    targets = [
        (key, _INKS.get(key, "c4"), asked[key].score, asked[key].positive)
        for key in sorted(asked, key=lambda key: key != MALIGNANT)
        if asked[key].positive.any() and not asked[key].positive.all()
    ]
    if not targets:
        return None
    marked = bool(drawn_points(block))
    canvas = Canvas(440, 400, f"ROC curves{' with operating points chosen on other rows' if marked else ''}")
    frame = unit_frame(canvas, "1 - specificity", "sensitivity")
    canvas.add(Line([frame.place(0, 0), frame.place(1, 1)], "soft", dash=4))
    words = {
        key: "malignant against benign" if key == MALIGNANT else f"{target.name} against the rest"
        for key, target in asked.items()
    }
    table = []
    for row, (target, ink, score, positive) in enumerate(targets):
        found = corners(rates(score, positive))
        x, y = found["false_positives"] / (~positive).sum(), found["true_positives"] / positive.sum()
        canvas.add(Line(thin([frame.place(*pair) for pair in zip(x, y, strict=True)]), ink, 1.8, series=target))
        canvas.add(
            Line([(frame.right - 178, frame.bottom - 30 + 16 * row), (frame.right - 162, frame.bottom - 30 + 16 * row)],
                 ink, 2.4, series=target),
            Label(frame.right - 156, frame.bottom - 30 + 16 * row, words[target], ink="ink", series=target),
        )  # fmt: skip
        table += [
            {"target": target, "kind": "curve", "one_minus_specificity": a, "sensitivity": b, "threshold": t}
            for a, b, t in zip(x, y, found["threshold"], strict=True)
        ]
        for point in drawn_points(block):
            if point["target"] == target:
                _cross(canvas, frame, point, ink, target)
                table.append(
                    {
                        "target": target, "kind": f"{point['rule']} {point['level']:.2f}",
                        "one_minus_specificity": 1 - point["specificity"], "sensitivity": point["sensitivity"],
                        "threshold": point["threshold"],
                    }
                )  # fmt: skip
    return canvas, pd.DataFrame(table)


def drawn_points(block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the operating points that have a place on the curve."""
    points = block.get("operating_points") or []
    return [point for point in points if point["sensitivity"] is not None and point["specificity"] is not None]


def _cross(canvas: Canvas, frame: Frame, point: Mapping[str, Any], ink: str, series: str) -> None:
    x, y = 1 - point["specificity"], point["sensitivity"]
    span = point["ci95"].get("specificity"), point["ci95"].get("sensitivity")
    if span[0]:
        canvas.add(Line([frame.place(1 - span[0][1], y), frame.place(1 - span[0][0], y)], ink, 1.4, series=series))
    if span[1]:
        canvas.add(Line([frame.place(x, span[1][0]), frame.place(x, span[1][1])], ink, 1.4, series=series))
    tip = (
        f"{point['rule']} {point['level']:.2f} asked of {series}: sensitivity {y:.3f}, "
        f"specificity {point['specificity']:.3f} at threshold {point['threshold']:.4f}"
    )
    canvas.add(Dot(*frame.place(x, y), 4.5, ink, series=series, tip=tip))


def _forest_row(
    canvas: Canvas,
    frame: Frame,
    y: float,
    value: str,
    cell: Mapping[str, Any],
    entry: Mapping[str, Any] | None,
    *,
    judged: bool,
) -> None:
    label = value if len(value) <= 17 else value[:16] + "."
    canvas.add(
        Label(12, y, label, ink="ink" if entry else "soft"),
        Label(frame.left - 10, y, f"{cell['n']:,}", 10.5, anchor="end"),
    )
    if entry is None:
        why = f"withheld (n < {MINIMUM_ROWS})" if cell["withheld"] else "too few cases"
        canvas.add(Label(frame.right + 9, y, why, 10.5))
        return
    x = frame.x(entry["value"])
    span = entry["ci95"]
    text = f"{entry['value']:.3f}"
    if span:
        canvas.add(Line([(frame.x(span[0]), y), (frame.x(span[1]), y)], "accent", 1.6))
        text += f"  {span[0]:.2f} to {span[1]:.2f}".replace("-0.00", "0.00")
    gap, sure = entry["gap"], entry["gap_ci95"]
    apart = bool(sure and (sure[0] > 0 or sure[1] < 0))
    tip = f"{value}: {text}, n {cell['n']:,}, {cell['lesions']:,} lesions" + (
        f", gap to the rest {gap:+.3f}" + (f" ({sure[0]:+.3f} to {sure[1]:+.3f})" if sure else "")
        if gap is not None
        else ""
    )
    canvas.add(
        Dot(x, y, 4, "bad" if judged and apart and gap is not None and gap < 0 else "accent", tip=tip),
        Label(frame.right + 9, y, text, 10.5, "ink"),
    )


def _short(code: str, small: bool) -> str:
    limit = 4 if small else 7
    return code if len(code) <= limit else code[: limit - 1] + "."
