"""Figures of curves: ROC, precision-recall, reliability, learning curves, score histogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.subgroups import MINIMUM_ROWS
from dermafuse.labels import LabelSet
from dermafuse.report.figures.figure import Figure
from dermafuse.report.figures.inks import class_ink, dot, dress, ink, legend, mark, short, unit
from dermafuse.report.figures.rates import corners, precision_band, rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS: Final = 40
#: Legend entries in a line below a drawing.
_ACROSS: Final = 4
_SIDES: Final = {"benign": "c5", "malignant": "c4"}
_LEARNED: Final = {
    "val_accuracy": "accuracy",
    "val_balanced_accuracy": "balanced accuracy",
    "val_macro_f1": "macro F1",
}


@dataclass(frozen=True)
class _Curve:
    """What is said of the curve of a class: in the legend, and under the pointer."""

    ink: str
    value: str
    tip: str


def roc(rows: Scored, block: Mapping[str, Any]) -> Figure | None:
    """Return the one-vs-rest ROC curves of all classes that have rows on both sides."""
    tables, curves = [], {}
    for position, code in enumerate(rows.classes):
        positive = rows.true == position
        if not positive.any() or positive.all():
            continue
        table = corners(rates(rows.probabilities[:, position], positive)).copy()
        table["sensitivity"] = table["true_positives"] / positive.sum()
        table["one_minus_specificity"] = table["false_positives"] / (~positive).sum()
        tip = f"{code}: AUROC {_value(block, code, 'auroc')}"
        curves[code] = _Curve(class_ink(position), _value(block, code, "auroc", interval=False), tip)
        tables.append(table.assign(label=code))
    if not tables:
        return None
    return Figure("roc", "ROC curve of each class against the rest", _stack(tables), partial(_draw_roc, curves))


def _draw_roc(curves: Mapping[str, _Curve], ax: Axes, table: pd.DataFrame) -> None:
    unit(ax, "1 - specificity", "sensitivity", diagonal=True)
    for code, part in table.groupby("label", sort=False):
        _curve(ax, str(code), curves[str(code)], part["one_minus_specificity"], part["sensitivity"])
    legend(ax, list(curves), loc="lower right")


def precision_recall(rows: Scored, block: Mapping[str, Any]) -> Figure | None:
    """Return the one-vs-rest precision-recall curves; the short dashes at the left are each class's prevalence.

    Classes of few images (`rare_classes`) have a band of 95 %: each image of them is a step of several points, and
    what looks like the shape of their curve is mostly chance.
    """
    rare = rare_classes(block)
    tables, curves = [], {}
    for position, code in enumerate(rows.classes):
        positive = rows.true == position
        if not positive.any():
            continue
        table = corners(rates(rows.probabilities[:, position], positive)).iloc[1:].copy()
        table["recall"] = table["true_positives"] / positive.sum()
        table["precision"] = table["true_positives"] / (table["true_positives"] + table["false_positives"])
        if code in rare:
            band = precision_band(rows, position)
            table["low"], table["high"] = (
                np.interp(table["recall"], band["recall"], band[end]) for end in ("low", "high")
            )
        name, prevalence = "average_precision", f"prevalence {positive.mean():.3f}"
        tip = f"{code}: average precision {_value(block, code, name)}, {prevalence}"
        curves[code] = _Curve(class_ink(position), _value(block, code, name, interval=False), tip)
        tables.append(table.assign(label=code))
    if not tables:
        return None
    below = 6.0 + 17 * -(-len(rows.classes) // _ACROSS)
    return Figure(
        "precision_recall",
        "Precision-recall curve of each class against the rest",
        _stack(tables),
        partial(_draw_precision_recall, curves),
        (440, 400 + below),
        (48, 14, 14, 48 + below),
    )


def _draw_precision_recall(curves: Mapping[str, _Curve], ax: Axes, table: pd.DataFrame) -> None:
    unit(ax, "recall (sensitivity)", "precision (PPV)")
    for code, part in table.groupby("label", sort=False):
        curve = curves[str(code)]
        if "low" in part and part["low"].notna().all():
            band = ax.fill_between(part["recall"], part["low"], part["high"], color=ink(curve.ink), alpha=0.11, lw=0)
            mark(band, series=str(code))
        prevalence = part["true_positives"].iloc[-1] / (part["true_positives"] + part["false_positives"]).iloc[-1]
        (dash,) = ax.plot([0, 0.04], [prevalence] * 2, color=ink(curve.ink), linewidth=2.5)
        mark(dash, series=str(code))
        _curve(ax, str(code), curve, part["recall"], part["precision"])
    legend(ax, list(curves), loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=_ACROSS)


def _curve(ax: Axes, code: str, curve: _Curve, x: pd.Series[float], y: pd.Series[float]) -> None:
    (line,) = ax.plot(x, y, color=ink(curve.ink), linewidth=1.8, label=f"{short(code)} {curve.value}")
    mark(line, series=code, tip=curve.tip)


def rare_classes(block: Mapping[str, Any]) -> list[str]:
    """Return the classes that have images, but too few for a curve whose shape means something."""
    return [code for code, row in block["per_class"].items() if 0 < row["support"] < MINIMUM_ROWS]


def reliability(block: Mapping[str, Any], code: str | None = None, labels: LabelSet | None = None) -> Figure | None:
    """Return how often came true what was said with each confidence: of the top label, or of one class."""
    known = block.get("calibration")
    if not known:
        return None
    stages = {"after": known["after"] if code is None else known["after"]["per_class"].get(code)}
    if code is None and known.get("before"):
        stages = {"before": known["before"], **stages}
    if stages["after"] is None:
        return None
    what = "the most probable class" if code is None else code if labels is None else labels.names[code]
    names = {"before": "before temperature", "after": "after temperature" if "before" in stages else "as predicted"}
    keys = {stage: f"{names[stage]}: ECE {part['ece']:.3f}" for stage, part in stages.items()}
    table = pd.DataFrame(
        {
            "stage": stage,
            "confidence": entry["confidence"],
            "frequency": entry["frequency"],
            "low": entry["ci95"][0],
            "high": entry["ci95"][1],
            "n": entry["n"],
        }
        for stage, part in stages.items()
        for entry in part["reliability"]
    )
    title = f"Reliability of the probability of {what}"
    name = "reliability" if code is None or labels is None else f"reliability_{labels.critical_key}"
    return Figure(name, title, table, partial(_draw_reliability, keys, what))


def _draw_reliability(keys: Mapping[str, str], what: str, ax: Axes, table: pd.DataFrame) -> None:
    unit(ax, f"probability said of {what}", "share that came true", diagonal=True)
    for stage, part in table.groupby("stage", sort=False):
        series, name = str(stage), "accent" if stage == "after" else "warm"
        colour = ink(name)
        (line,) = ax.plot(part["confidence"], part["frequency"], color=colour, linewidth=1.4, alpha=0.7)
        mark(line, series=series)
        bars = ax.vlines(part["confidence"], part["low"], part["high"], color=colour, linewidth=1.2, alpha=0.55)
        mark(bars, series=series)
        ax.plot([], [], color=colour, marker="o", linestyle="", markersize=8, label=keys[series])
        for row in part.to_dict("records"):
            tip = (
                f"{keys[series].split(':')[0]}: said {row['confidence']:.3f}, came true {row['frequency']:.3f} "
                f"({row['low']:.3f} to {row['high']:.3f}), n {row['n']:,}"
            )
            dot(ax, row["confidence"], row["frequency"], name, series=series, tip=tip)
    legend(ax, list(keys), loc="upper left")


def learning(histories: Mapping[str, pd.DataFrame], *, loss: bool) -> Figure | None:
    """Return the curves of the epochs: losses, or the metrics of the held-out rows. Folds share a colour."""
    found = {column for history in histories.values() for column in history.columns}
    words = {"loss": "training", "val_loss": "held out"} if loss else _LEARNED
    words = {column: name for column, name in words.items() if loss or column in found}
    tables = []
    for name, history in histories.items():
        for column in words:
            if column in history.columns and "epoch" in history.columns:
                part = history[["epoch", column]].rename(columns={column: "value"})
                tables.append(part.assign(column=column, fold=name).dropna())
    whole = _stack(tables)
    if not len(whole):
        return None
    title = "Loss by epoch" if loss else "Metrics of the held-out rows by epoch"
    name = "learning_loss" if loss else "learning_metrics"
    return Figure(name, title, whole, partial(_draw_learning, words, loss), (440, 320), (48, 14, 14, 48))


def _draw_learning(words: Mapping[str, str], loss: bool, ax: Axes, table: pd.DataFrame) -> None:
    dress(ax, "epoch", "loss" if loss else "value")
    for position, (column, word) in enumerate(words.items()):
        name = ("warm", "accent")[position] if loss else class_ink((5, 4, 2)[position])
        colour = ink(name)
        for fold, part in table[table["column"] == column].groupby("fold", sort=False):
            (line,) = ax.plot(part["epoch"], part["value"], color=colour, linewidth=1.8)
            last = part.iloc[-1]
            end = f"{word}{f' ({fold!s})' if fold else ''}: {last['value']:.3f} in epoch {last['epoch']:g}"
            mark(line, series=column, tip=end)
            for row in part.to_dict("records"):
                tip = f"epoch {row['epoch']:g}: {word} {row['value']:.4f}"
                dot(ax, row["epoch"], row["value"], name, 5.2, series=column, tip=tip)
        ax.plot([], [], color=colour, linewidth=2.4, label=word)
    last_epoch = float(table["epoch"].max())
    ax.set_xlim(0.0 if last_epoch < 2 else 1.0, max(last_epoch, 1.0))
    ax.xaxis.get_major_locator().set_params(integer=True)
    if not loss:
        ax.set_ylim(0, 1)
    legend(ax, list(words), loc="upper right" if loss else "lower right")


def score_histogram(rows: Scored) -> Figure | None:
    """Return how the malignant score (summed probability of the malignant classes) is spread over both sides."""
    bad = rows.malignant
    if not bad.any() or bad.all():
        return None
    score, positive = np.minimum(rows.probabilities[:, bad].sum(axis=1), 1.0), bad[rows.true]
    edges = np.linspace(0, 1, _BINS + 1)
    counts = {"benign": np.histogram(score[~positive], edges)[0], "malignant": np.histogram(score[positive], edges)[0]}
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})
    title = "Malignant score of malignant and benign images"
    return Figure("malignant_scores", title, table, _draw_scores, (440, 260), (58, 14, 14, 48))


def _draw_scores(ax: Axes, table: pd.DataFrame) -> None:
    dress(ax, "malignant score", "share of the side")
    for side, name in _SIDES.items():
        total = int(table[side].sum())
        shares = table[side] / max(1, total)
        bars = ax.bar(
            table["low"],
            shares,
            (table["high"] - table["low"]) * 0.95,
            align="edge",
            color=ink(name),
            alpha=0.5,
            label=f"{side} {total:,}",
        )
        for bar, low, high, count in zip(bars, table["low"], table["high"], table[side], strict=True):
            mark(bar, series=side, tip=f"{low:.3f} to {high:.3f}: {count:,} {side}")
    ax.set_xlim(0, 1)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    legend(ax, list(_SIDES)[::-1], loc="upper right", reverse=True)


def _value(block: Mapping[str, Any], code: str, name: str, *, interval: bool = True) -> str:
    value = block["per_class"][code].get(name)
    if value is None:
        return "–"
    span = ((block.get("ci95") or {}).get("per_class") or {}).get(code, {}).get(name) if interval else None
    return f"{value:.3f}" + (f" ({span[0]:.3f} to {span[1]:.3f})" if span else "")


def _stack(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
