"""The section of the report about operating points: the table, the curve, and the threshold explorer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dermafuse.evaluation.predictions import MALIGNANT, BoolArray, FloatArray, Scored
from dermafuse.printable import escape
from dermafuse.report.facts import Facts
from dermafuse.report.figures.curves import SCORE_FRAME, rates
from dermafuse.report.figures.make import Figure
from dermafuse.report.figures.tables import drawn_points
from dermafuse.report.html import Cell, card, figure, grid, note, section, table


def operating(facts: Facts, figures: Mapping[str, Figure], rows: Scored) -> str:
    """Return the operating points, the curve they lie on, and the threshold explorer."""
    points = facts.get("@/operating_points")
    if points:
        names = {key: target.name for key, target in rows.targets().items()}
        listed = [_point(facts, number, point, names) for number, point in enumerate(points)]
        heads = (
            "target",
            "asked",
            "threshold",
            "sensitivity",
            "specificity",
            "PPV",
            "NPV",
            "flagged",
            "biopsies a hit",
        )
        chosen = facts.fill(
            "Thresholds were chosen on {@/operating_points/0/chosen_on/n:,d} {@/notes/operating_points_chosen_on} "
            "images and judged on the reported ones, which had no say in them. Biopsies a hit = flagged images for "
            "each true one, at the prevalence of these images."
        )
        body = card(table(heads, listed, name="operating-points"), note(chosen), wide=True)
    else:
        why = facts.show("@/notes/operating_points") if facts.get("@/notes/operating_points") else "Not computed."
        body = card(note(why), title="Operating points: not available", wide=True)
    marked = drawn_points(facts.get("@") or {})
    crosses = "Crosses: operating points with 95 % intervals." if marked else ""
    return section(
        "operating", "Operating points",
        body,
        grid(
            figure(figures.get("malignant_roc"), crosses),
            _explorer(rows, figures),
        ),
    )  # fmt: skip


def threshold_grid(score: FloatArray, positive: BoolArray, size: int = 200) -> list[list[float]]:
    """Return ``[threshold, true positives, false positives]`` at up to ``size`` of the scores that occur, rising."""
    table = rates(score, positive).iloc[:0:-1]
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(size, len(table))).round().astype(int))]
    return [
        [float(f"{threshold:.6g}"), int(hits), int(alarms)]
        for threshold, hits, alarms in chosen.itertuples(index=False)
    ]


def _point(facts: Facts, number: int, point: Mapping[str, Any], names: Mapping[str, str]) -> list[Cell | str]:
    base = f"@/operating_points/{number}"

    def measured(key: str, spec: str = ".3f") -> Cell:
        return Cell(f"{facts.show(f'{base}/{key}', spec)} {facts.span(f'{base}/ci95/{key}', spec)}", point[key], True)

    return [
        names.get(point["target"], point["target"]),
        Cell(facts.fill(f"{{{base}/rule}} {{{base}/level:.2f}}")),
        Cell(facts.show(f"{base}/threshold", ".4f"), point["threshold"], True),
        measured("sensitivity"), measured("specificity"), measured("ppv"), measured("npv"),
        measured("flagged", ".1%"), measured("number_needed_to_biopsy", ".1f"),
    ]  # fmt: skip


def _explorer(rows: Scored, figures: Mapping[str, Figure]) -> str:
    """Return the threshold explorer: counts at some two hundred thresholds, read out by the page's script."""
    asked = rows.targets()
    content = {
        target.name: {
            "n": len(rows),
            "positives": int(target.positive.sum()),
            "points": threshold_grid(np.minimum(target.score, 1.0), target.positive),
        }
        for _, target in sorted(asked.items(), key=lambda item: item[0] != MALIGNANT)
        if target.positive.any() and not target.positive.all()
    }
    if not content:
        return ""
    frame = " ".join(f"{value:g}" for value in SCORE_FRAME)
    options = "".join(f"<option>{escape(name)}</option>" for name in content)
    histogram = figures.get("malignant_scores")
    drawing = f"<figure>{histogram.canvas.svg(standalone=False)}</figure>" if histogram else ""
    outputs = "".join(
        f'<div><dt>{name}</dt><dd data-read="{key}">–</dd></div>'
        for key, name in (
            ("sensitivity", "sensitivity"), ("specificity", "specificity"), ("ppv", "PPV"), ("npv", "NPV"),
            ("flagged", "flagged"), ("nnb", "biopsies a hit"),
        )
    )  # fmt: skip
    return card(
        f'<div class="explorer" data-frame="{frame}" hidden>'
        f'<p class="row"><label>Target <select name="target">{options}</select></label>'
        '</p><p class="row"><label>Threshold <output data-read="threshold"></output>'
        '<input type="range" name="threshold" min="0" value="0" step="1"></label></p>'
        '<p class="row"><label>Prevalence <output data-read="prevalence"></output>'
        '<input type="range" name="prevalence" min="0.5" max="60" step="0.5"></label></p>'
        f'<dl class="reads">{outputs}</dl>'
        f'<script type="application/json">{json.dumps(content, separators=(",", ":"))}</script></div>'
        + drawing
        + note(
            "What each threshold would do on these images. PPV, NPV and biopsies a hit follow the prevalence you set "
            "(Bayes). For looking only: a threshold picked here flatters the model."
        ),
        title="Threshold explorer",
    )
