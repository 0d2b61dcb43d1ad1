"""Figures of tables: confusion matrix, forest plot of subgroups, operating points on the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from dermafuse.evaluation.metric import Metric
from dermafuse.evaluation.predictions import MALIGNANT, Scored
from dermafuse.evaluation.subgroups import MINIMUM_ROWS, ordered_cells
from dermafuse.report.figures.figure import Figure
from dermafuse.report.figures.inks import SMALL, TEXT, dot, dress, ink, legend, mark, said, short, unit
from dermafuse.report.figures.rates import corners, rates

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

COLUMN_NAMES: Final[dict[str, str]] = {
    "sex": "Sex",
    "age": "Age, years",
    "localization": "Localization",
    "dx_type": "Diagnosis confirmed by",
    "source": "Image source",
}
_WIDTH: Final = 440
#: Heights of a forest's lines: a value, and the name of a column above its values.
_LINE: Final = 17.0
_HEAD: Final = 24.0


def confusion(block: Mapping[str, Any], classes: Sequence[str], split: str) -> Figure:
    """Return the confusion matrix: counts, and below each its share of the true class, which sets the shade."""
    matrix = np.array(block["confusion_matrix"])
    totals = matrix.sum(axis=1)
    table = pd.DataFrame(
        {
            "true": true,
            "predicted": predicted,
            "count": int(matrix[row, column]),
            "share_of_true": matrix[row, column] / totals[row] if totals[row] else 0.0,
        }
        for row, true in enumerate(classes)
        for column, predicted in enumerate(classes)
    )
    height = len(classes) * min(372 / len(classes), 46.0)
    return Figure(
        "confusion",
        "Confusion matrix: rows are true, columns predicted",
        table,
        partial(_draw_confusion, split),
        (_WIDTH, 48 + height),
        (62, 40, 6, 8),
    )


def _draw_confusion(split: str, ax: Axes, table: pd.DataFrame) -> None:
    classes = list(dict.fromkeys(table["true"]))
    k = len(classes)
    small = k > 10
    dress(ax, "predicted", "true", grid="")
    ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    names = [short(code, 4 if small else 7) for code in classes]
    ax.xaxis.set_label_position("top")
    ax.xaxis.labelpad = 7
    ax.set_xticks(range(k), names, color=ink("ink"), weight="bold", size=TEXT)
    ax.set_yticks(range(k), names, color=ink("ink"), weight="bold", size=TEXT)
    ax.tick_params(top=False, labeltop=True, labelbottom=False)
    for position, cell in enumerate(table.to_dict("records")):
        row, column = divmod(position, k)
        count, share = int(cell["count"]), float(cell["share_of_true"])
        total = table["count"].iloc[row * k : (row + 1) * k].sum()
        tip = f"{count:,} of {total:,} {cell['true']} called {cell['predicted']} ({share:.1%})"
        _square(ax, row, column, "rule", 0.45)
        shade = _square(ax, row, column, "accent" if row == column else "bad", 0.04 + 0.62 * share if count else 0.0)
        mark(shade, tip=tip)
        name, weight = "ink" if count else "soft", "bold" if row == column else "normal"
        written = _inside(ax, (column, row), 0 if small else 7, f"{count:,}", SMALL if small else 12.5, name, weight)
        pointer = f"/{split}/confusion_matrix/{row}/{column}"
        mark(written, data_metric=pointer, data_format=",d", pointer_events="none")
        if count and not small:
            written = _inside(ax, (column, row), -9, f"{share:.0%}", 9.5)
            mark(written, data_share=f"{row} {column}", pointer_events="none")


def _square(ax: Axes, row: int, column: int, name: str, alpha: float) -> Rectangle:
    (square,) = ax.barh(row, 0.96, 0.96, column - 0.48, color=ink(name), alpha=alpha)
    return square


def _inside(
    ax: Axes, place: tuple[int, int], up: float, text: str, size: float, name: str = "ink", weight: str = "normal"
) -> Artist:
    """Write into a cell of the matrix, so many points above its middle."""
    return ax.annotate(
        text,
        place,
        (0, up),
        textcoords="offset points",
        ha="center",
        va="center",
        size=size,
        color=ink(name),
        weight=weight,
    )


def forest(block: Mapping[str, Any], shown: Metric, key: str = "") -> Figure | None:
    """Return one metric of every subgroup with its interval, and of all rows as a line; withheld cells say so.

    Columns of which no cell has the metric are left out; ``None`` where that leaves nothing. ``key`` names the file.
    """
    metric = shown.key
    cells = {
        column: [(value, cell, (cell.get("metrics") or {}).get(metric)) for value, cell in ordered_cells(values)]
        for column, values in block["subgroups"].items()
    }
    cells = {column: found for column, found in cells.items() if any(entry for *_, entry in found)}
    if not cells:
        return None
    table = pd.DataFrame(
        {
            "column": column,
            "value": value,
            "n": cell["n"],
            "lesions": cell["lesions"],
            "withheld": cell["withheld"],
            metric: (entry or {}).get("value"),
            **dict(zip(("low", "high"), (entry or {}).get("ci95") or (None, None), strict=True)),
            "gap": (entry or {}).get("gap"),
            **dict(zip(("gap_low", "gap_high"), (entry or {}).get("gap_ci95") or (None, None), strict=True)),
        }
        for column, found in cells.items()
        for value, cell, entry in found
    )
    area = len(table) * _LINE + len(cells) * _HEAD
    draw = partial(_draw_forest, shown, shown.within(block))
    return Figure(f"subgroups_{key}", f"Subgroups: {shown.name}", table, draw, (_WIDTH, area + 58), (158, 6, 116, 46))


def _draw_forest(shown: Metric, whole: float | None, ax: Axes, table: pd.DataFrame) -> None:
    numbers = {name: table[name].astype(float) for name in (shown.key, "low", "high", "gap", "gap_low", "gap_high")}
    caption = shown.name
    dress(ax, caption, "", grid="x")
    if whole is not None:
        ax.axvline(whole, color=ink("warm"), linewidth=1.3, dashes=(4, 4))
        caption += f"; dashed: all images, {whole:.3f}"
    ax.set_xlabel(said(caption))
    y = 4.0
    for column, part in table.groupby("column", sort=False):
        _beside(ax, y + 12, COLUMN_NAMES.get(str(column), str(column)), -154, weight="bold", color=ink("ink"))
        y += _HEAD
        for position in part.index:
            found = {name: values[position] for name, values in numbers.items()}
            _draw_cell(ax, y + _LINE / 2, part.loc[position], found, shown)
            y += _LINE
    edges = pd.concat([numbers[name] for name in ("low", "high", shown.key)]).dropna()
    ax.set_xlim((min(0.0, edges.min()), max(0.0, edges.max())) if shown.signed else (0, 1))
    ax.xaxis.get_major_locator().set_params(nbins=5)
    ax.set_ylim(y + 2, 0)
    ax.set_yticks([])


def _draw_cell(ax: Axes, y: float, cell: Any, found: Mapping[str, float], shown: Metric) -> None:
    value, low, high = found[shown.key], found["low"], found["high"]
    known = value == value
    _beside(ax, y, short(str(cell["value"]), 17), -146, color=ink("ink" if known else "soft"))
    _beside(ax, y, f"{cell['n']:,}", -10, ha="right", size=SMALL)
    if not known:
        _beside(
            ax, y, f"withheld (n < {MINIMUM_ROWS})" if cell["withheld"] else "too few cases", 9, right=True, size=SMALL
        )
        return
    text = f"{value:.3f}"
    if low == low:
        ax.plot([low, high], [y, y], color=ink("accent"), linewidth=1.6)
        text += f"  {low:.2f} to {high:.2f}".replace("-0.00", "0.00")
    tip = f"{cell['value']}: {text}, n {cell['n']:,}, {cell['lesions']:,} lesions"
    gap, gap_low, gap_high = (found[name] for name in ("gap", "gap_low", "gap_high"))
    if gap == gap:
        tip += f", gap to the rest {gap:+.3f}" + (f" ({gap_low:+.3f} to {gap_high:+.3f})" if gap_low == gap_low else "")
    worse = not shown.signed and gap < 0 and (gap_low > 0 or gap_high < 0)
    dot(ax, value, y, "bad" if worse else "accent", tip=tip)
    _beside(ax, y, text, 9, right=True, size=SMALL, color=ink("ink"))


def _beside(ax: Axes, y: float, text: str, apart: float, *, right: bool = False, **how: Any) -> None:
    """Write beside the axes, so many points from their edge."""
    ax.annotate(
        said(text),
        (1.0 if right else 0.0, y),
        (apart, 0),
        xycoords=ax.get_yaxis_transform(),
        textcoords="offset points",
        va="center",
        **({"size": TEXT, "color": ink("soft")} | how),
    )


def malignant_points(rows: Scored, block: Mapping[str, Any]) -> Figure | None:
    """Return the ROC curves of malignant or not, and of the critical class, with the operating points."""
    asked = rows.targets()
    marked = drawn_points(block)
    tables, words = [], {}
    for target in sorted(asked, key=lambda key: key != MALIGNANT):
        score, positive = asked[target].score, asked[target].positive
        if not positive.any() or positive.all():
            continue
        words[target] = "malignant against benign" if target == MALIGNANT else f"{asked[target].name} against the rest"
        found = corners(rates(score, positive))
        curve = pd.DataFrame(
            {
                "target": target,
                "kind": "curve",
                "one_minus_specificity": found["false_positives"] / (~positive).sum(),
                "sensitivity": found["true_positives"] / positive.sum(),
                "threshold": found["threshold"],
            }
        )
        points = [
            {
                "target": target,
                "kind": f"{point['rule']} {point['level']:.2f}",
                "one_minus_specificity": 1 - point["specificity"],
                "sensitivity": point["sensitivity"],
                "threshold": point["threshold"],
            }
            for point in marked
            if point["target"] == target
        ]
        tables += [curve, pd.DataFrame(points)] if points else [curve]
    if not tables:
        return None
    title = f"ROC curves{' with operating points chosen on other rows' if marked else ''}"
    draw = partial(
        _draw_points,
        words,
        {(point["target"], f"{point['rule']} {point['level']:.2f}"): point["ci95"] for point in marked},
    )
    return Figure("malignant_roc", title, pd.concat(tables, ignore_index=True), draw)


def _draw_points(
    words: Mapping[str, str], spans: Mapping[tuple[str, str], Mapping[str, Any]], ax: Axes, table: pd.DataFrame
) -> None:
    unit(ax, "1 - specificity", "sensitivity", diagonal=True)
    for target, word in words.items():
        part = table[table["target"] == target]
        name = "accent" if target == MALIGNANT else "c4"
        colour = ink(name)
        curve = part[part["kind"] == "curve"]
        (line,) = ax.plot(
            curve["one_minus_specificity"], curve["sensitivity"], color=colour, linewidth=1.8, label=said(word)
        )
        mark(line, series=target)
        for point in part[part["kind"] != "curve"].to_dict("records"):
            x, y, span = point["one_minus_specificity"], point["sensitivity"], spans[(target, point["kind"])]
            across, up = span.get("specificity"), span.get("sensitivity")
            if across:
                mark(ax.plot([1 - across[1], 1 - across[0]], [y, y], color=colour, linewidth=1.4)[0], series=target)
            if up:
                mark(ax.plot([x, x], up, color=colour, linewidth=1.4)[0], series=target)
            tip = (
                f"{point['kind']} asked of {target}: sensitivity {y:.3f}, specificity {1 - x:.3f} "
                f"at threshold {point['threshold']:.4f}"
            )
            dot(ax, x, y, name, 9, series=target, tip=tip)
    legend(ax, list(words), loc="lower right")


def drawn_points(block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the operating points that have a place on the curve."""
    points = block.get("operating_points") or []
    return [point for point in points if point["sensitivity"] is not None and point["specificity"] is not None]
