"""Drawings of curves: ROC, precision-recall, reliability, learning curves, score histogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from dermafuse.evaluation.predictions import BoolArray, FloatArray, Scored
from dermafuse.evaluation.subgroups import MINIMUM_ROWS
from dermafuse.labels import LabelSet
from dermafuse.report.figures.bands import precision_band, strips
from dermafuse.report.figures.canvas import Box, Canvas, Dot, Label, Line
from dermafuse.report.figures.plot import Frame, thin, ticks, unit_frame

Drawn = tuple[Canvas, pd.DataFrame]

_SIDE: Final = 440
_HEIGHT: Final = 400
_BINS: Final = 40
#: Where the plotting area of the score histogram lies: left, top, width, height (the page's script draws in it).
SCORE_FRAME: Final = (58.0, 14.0, 368.0, 198.0)
#: Legend entries in a line below a drawing.
_ACROSS: Final = 4


def class_ink(position: int) -> str:
    """Return the ink of a class; beyond seven they repeat."""
    return f"c{position % 7}"


def rates(score: FloatArray, positive: BoolArray) -> pd.DataFrame:
    """Return counts at every distinct threshold, falling: ``threshold``, ``true_positives``, ``false_positives``.

    The first row is the threshold above every score (nothing flagged).
    """
    order = np.argsort(-score, kind="stable")
    sorted_scores = score[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(score) - 1)  # the last row of each run of ties
    hits = np.cumsum(positive[order])[last]
    return pd.DataFrame(
        {
            "threshold": np.append(np.inf, sorted_scores[last]),
            "true_positives": np.append(0, hits),
            "false_positives": np.append(0, last + 1 - hits),
        }
    )


def corners(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `rates` at which an ROC curve turns, and both ends: the curve stays the same."""
    up, across = np.diff(table["true_positives"]), np.diff(table["false_positives"])
    turns = up[1:] * across[:-1] != up[:-1] * across[1:]
    return table[np.concatenate([[True], turns, [True]])] if len(table) > 2 else table


def roc(rows: Scored, block: Mapping[str, Any]) -> Drawn | None:
    """Draw one-vs-rest ROC curves of all classes that have rows on both sides."""
    canvas = Canvas(_SIDE, _HEIGHT, "ROC curve of each class against the rest")
    frame = unit_frame(canvas, "1 - specificity", "sensitivity")
    canvas.add(Line([frame.place(0, 0), frame.place(1, 1)], "soft", dash=4))
    tables, entries = [], []
    for position, code in enumerate(rows.classes):
        positive = rows.true == position
        if not positive.any() or positive.all():
            continue
        table = corners(rates(rows.probabilities[:, position], positive)).copy()
        table["sensitivity"] = table["true_positives"] / positive.sum()
        table["one_minus_specificity"] = table["false_positives"] / (~positive).sum()
        points = [frame.place(x, y) for x, y in zip(table["one_minus_specificity"], table["sensitivity"], strict=True)]
        text = f"{code}: AUROC {_value(block, code, 'auroc')}"
        canvas.add(Line(thin(points), class_ink(position), 1.8, series=code, tip=text))
        entries.append((position, code, _value(block, code, "auroc", interval=False)))
        tables.append(table.assign(label=code))
    _legend(canvas, entries, frame.right - 108, frame.bottom - 16 * len(entries) - 4)
    return (canvas, _stack(tables)) if tables else None


def precision_recall(rows: Scored, block: Mapping[str, Any]) -> Drawn | None:
    """Draw one-vs-rest precision-recall curves; the short dashes at the left are each class's prevalence.

    Classes of few images (`rare_classes`) have a band of 95 %: each image of them is a step of several points, and
    what looks like the shape of their curve is mostly chance.
    """
    rare = rare_classes(block)
    lines = -(-len(rows.classes) // _ACROSS)
    canvas = Canvas(_SIDE, _HEIGHT, "Precision-recall curve of each class against the rest")
    frame = unit_frame(canvas, "recall (sensitivity)", "precision (PPV)")
    canvas.height += 6 + 17 * lines
    tables, entries = [], []
    for position, code in enumerate(rows.classes):
        positive = rows.true == position
        if not positive.any():
            continue
        table = corners(rates(rows.probabilities[:, position], positive)).iloc[1:].copy()
        table["recall"] = table["true_positives"] / positive.sum()
        table["precision"] = table["true_positives"] / (table["true_positives"] + table["false_positives"])
        points = [frame.place(x, y) for x, y in zip(table["recall"], table["precision"], strict=True)]
        text = f"{code}: average precision {_value(block, code, 'average_precision')}, prevalence {positive.mean():.3f}"
        ink = class_ink(position)
        base = float(positive.mean())
        if code in rare:
            band = precision_band(rows, position)
            table["low"], table["high"] = (
                np.interp(table["recall"], band["recall"], band[end]) for end in ("low", "high")
            )
            canvas.add(*strips(frame, band, ink, code))
        canvas.add(
            Line([frame.place(0, base), frame.place(0.04, base)], ink, 2.5, series=code),
            Line(thin(points), ink, 1.8, series=code, tip=text),
        )
        entries.append((position, code, _value(block, code, "average_precision", interval=False)))
        tables.append(table.assign(label=code))
    for row, (position, code, value) in enumerate(entries):
        x, y = frame.left - 34 + 102 * (row % _ACROSS), _HEIGHT + 6 + 17 * (row // _ACROSS)
        canvas.add(
            Line([(x, y), (x + 12, y)], class_ink(position), 2.6, series=code),
            Label(x + 16, y, _cut(code), ink="ink", series=code),
            Label(x + 54, y, value, series=code),
        )
    return (canvas, _stack(tables)) if tables else None


def rare_classes(block: Mapping[str, Any]) -> list[str]:
    """Return the classes that have images, but too few for a curve whose shape means something."""
    return [code for code, row in block["per_class"].items() if 0 < row["support"] < MINIMUM_ROWS]


def reliability(block: Mapping[str, Any], code: str | None = None, labels: LabelSet | None = None) -> Drawn | None:
    """Draw how often came true what was said with each confidence: of the top label, or of one class."""
    known = block.get("calibration")
    if not known:
        return None
    stages = {"after": known["after"] if code is None else known["after"]["per_class"].get(code)}
    if code is None and known.get("before"):
        stages = {"before": known["before"], **stages}
    if stages["after"] is None:
        return None
    name = code if code is None or labels is None else labels.names[code]
    what = "the most probable class" if name is None else name
    canvas = Canvas(_SIDE, _HEIGHT, f"Reliability of the probability of {what}")
    frame = unit_frame(canvas, f"probability said of {what}", "share that came true")
    canvas.add(Line([frame.place(0, 0), frame.place(1, 1)], "soft", dash=4))
    names = {"before": "before temperature", "after": "after temperature" if "before" in stages else "as predicted"}
    tables = []
    for row, (stage, part) in enumerate(stages.items()):
        ink = "accent" if stage == "after" else "warm"
        places = [frame.place(entry["confidence"], entry["frequency"]) for entry in part["reliability"]]
        canvas.add(Line(places, ink, 1.4, series=stage, opacity=0.7))
        for entry, place in zip(part["reliability"], places, strict=True):
            low, high = (frame.y(value) for value in entry["ci95"])
            tip = (
                f"{names[stage]}: said {entry['confidence']:.3f}, came true {entry['frequency']:.3f} "
                f"({entry['ci95'][0]:.3f} to {entry['ci95'][1]:.3f}), n {entry['n']:,}"
            )
            canvas.add(
                Line([(place[0], low), (place[0], high)], ink, 1.2, series=stage, opacity=0.55),
                Dot(*place, 4, ink, series=stage, tip=tip),
            )
        canvas.add(
            Dot(frame.left + 14, frame.top + 14 + 18 * row, 4, ink),
            Label(frame.left + 24, frame.top + 14 + 18 * row, f"{names[stage]}: ECE {part['ece']:.3f}", 11.5, "ink"),
        )
        tables += [
            {
                "stage": stage, "confidence": entry["confidence"], "frequency": entry["frequency"],
                "low": entry["ci95"][0], "high": entry["ci95"][1], "n": entry["n"],
            }
            for entry in part["reliability"]
        ]  # fmt: skip
    return canvas, pd.DataFrame(tables)


def learning(histories: Mapping[str, pd.DataFrame], *, loss: bool) -> Drawn | None:
    """Draw the curves of the epochs: losses, or the metrics of the held-out rows. Folds share a colour."""
    pairs = [("loss", "training"), ("val_loss", "held out")] if loss else _metric_columns(histories)
    tables = []
    for name, history in histories.items():
        for column, _ in pairs:
            if column in history.columns and "epoch" in history.columns:
                part = history[["epoch", column]].rename(columns={column: "value"})
                tables.append(part.assign(column=column, fold=name).dropna())
    whole = _stack(tables)
    if not len(whole):
        return None
    title = "Loss by epoch" if loss else "Metrics of the held-out rows by epoch"
    canvas = Canvas(_SIDE, 320, title)
    low, high = (float(whole["value"].min()), float(whole["value"].max())) if loss else (0.0, 1.0)
    pad = 0.06 * (high - low or 1.0) if loss else 0.0
    last = float(whole["epoch"].max())
    frame = Frame(
        48, 14, _SIDE - 62, 258, (0.0 if last < 2 else 1.0, max(last, 1.0)), (max(0.0, low - pad), high + pad)
    )
    frame.axes(
        canvas, "epoch", "loss" if loss else "value", x_ticks=[t for t in ticks(*frame.x_range, 6) if t == int(t)]
    )
    for position, (column, words) in enumerate(pairs):
        ink = ("warm", "accent")[position] if loss else class_ink((5, 4, 2, 0, 6, 1, 3)[position % 7])
        for fold, part in whole[whole["column"] == column].groupby("fold"):
            places = [frame.place(x, y) for x, y in zip(part["epoch"], part["value"], strict=True)]
            final = part.iloc[-1]
            end = f"{words}{f' ({fold!s})' if fold else ''}: {final['value']:.3f} in epoch {final['epoch']:g}"
            canvas.add(Line(places, ink, 1.8, series=column, tip=end))
            canvas.add(
                *(
                    Dot(*place, 2.6, ink, series=column, tip=f"epoch {x:g}: {words} {y:.4f}")
                    for place, x, y in zip(places, part["epoch"], part["value"], strict=True)
                )
            )
        place = frame.top + 10 + 15 * position if loss else frame.bottom - 12 - 15 * (len(pairs) - 1 - position)
        canvas.add(
            Line([(frame.right - 128, place), (frame.right - 112, place)], ink, 2.4, series=column),
            Label(frame.right - 106, place, words, ink="ink", series=column),
        )
    return canvas, whole


def score_histogram(rows: Scored) -> Drawn | None:
    """Draw how the malignant score (summed probability of the malignant classes) is spread over both sides."""
    bad = rows.malignant
    if not bad.any() or bad.all():
        return None
    score, positive = np.minimum(rows.probabilities[:, bad].sum(axis=1), 1.0), bad[rows.true]
    edges = np.linspace(0, 1, _BINS + 1)
    sides = {"benign": np.histogram(score[~positive], edges)[0], "malignant": np.histogram(score[positive], edges)[0]}
    shares = {name: counts / max(1, counts.sum()) for name, counts in sides.items()}
    top = max(float(values.max()) for values in shares.values()) or 1.0
    canvas = Canvas(_SIDE, 260, "Malignant score of malignant and benign images")
    left, upper, width, height = SCORE_FRAME
    frame = Frame(left, upper, width, height, (0.0, 1.0), (0.0, top * 1.05))
    frame.axes(canvas, "malignant score", "share of the side", y_text=lambda value: f"{value:.0%}")
    for name, ink in (("benign", "c5"), ("malignant", "c4")):
        for bin_number, share in enumerate(shares[name]):
            left, right = frame.x(edges[bin_number]), frame.x(edges[bin_number + 1])
            tip = f"{edges[bin_number]:.3f} to {edges[bin_number + 1]:.3f}: {sides[name][bin_number]:,} {name}"
            if share > 0:
                y = frame.y(float(share))
                canvas.add(Box(left, y, right - left - 0.5, frame.bottom - y, ink, 0.5, series=name, tip=tip))
    for row, (name, ink) in enumerate((("malignant", "c4"), ("benign", "c5"))):
        y = frame.top + 10 + 16 * row
        canvas.add(
            Box(frame.right - 100, y - 5, 10, 10, ink, 0.6),
            Label(frame.right - 85, y, f"{name} {sides[name].sum():,}", ink="ink"),
        )
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], **sides})
    return canvas, table


def _metric_columns(histories: Mapping[str, pd.DataFrame]) -> list[tuple[str, str]]:
    words = {
        "val_accuracy": "accuracy",
        "val_balanced_accuracy": "balanced accuracy",
        "val_macro_f1": "macro F1",
    }
    found = {column for history in histories.values() for column in history.columns}
    return [(column, name) for column, name in words.items() if column in found]


def _legend(canvas: Canvas, entries: list[tuple[int, str, str]], left: float, top: float) -> None:
    canvas.add(Box(left - 8, top - 6, 112, 16 * len(entries) + 8, "paper", 0.85))
    for row, (position, code, value) in enumerate(entries):
        y = top + 6 + 16 * row
        canvas.add(
            Line([(left, y), (left + 16, y)], class_ink(position), 2.6, series=code),
            Label(left + 22, y, _cut(code), ink="ink", series=code),
            Label(left + 98, y, value, anchor="end", series=code),
        )


def _cut(code: str) -> str:
    return code if len(code) <= 7 else code[:6] + "."


def _value(block: Mapping[str, Any], code: str, name: str, *, interval: bool = True) -> str:
    value = block["per_class"][code].get(name)
    if value is None:
        return "–"
    span = ((block.get("ci95") or {}).get("per_class") or {}).get(code, {}).get(name) if interval else None
    return f"{value:.3f}" + (f" ({span[0]:.3f} to {span[1]:.3f})" if span else "")


def _stack(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
