"""``dermafuse report``: one self-contained page, and its figures as files, from what a run left.

Every number in the page comes from ``metrics.json`` or ``predictions.csv`` and says from where (`report.facts`).
The page loads nothing: fonts are the system's, drawings inline, pictures embedded; its policy forbids the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import DataError, DermafuseError, OutputError
from dermafuse.evaluation.derived_metrics import enriched, match_records
from dermafuse.evaluation.judge_heatmaps import judge_heatmaps
from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.predictions import MALIGNANT, BoolArray, FloatArray, Scored
from dermafuse.evaluation.subgroups import MINIMUM_CLASS, MINIMUM_ROWS
from dermafuse.files import existing_folder, write_atomic, write_json
from dermafuse.progress import Reporter, Silent
from dermafuse.report import templates
from dermafuse.report.checklists import STATES, filled_checklists
from dermafuse.report.facts import Facts
from dermafuse.report.figures.curves import rare_classes
from dermafuse.report.figures.figure import Figure
from dermafuse.report.figures.make import make_figures, write_figures
from dermafuse.report.figures.rates import rates
from dermafuse.report.figures.tables import drawn_points
from dermafuse.report.gallery import Gallery, make_gallery
from dermafuse.runs import CONFIG, FIGURES, METRICS, PAGE, RunFolder
from dermafuse.runtime.explain.explainer import FROZEN_HEATMAP
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import load

#: Thresholds that the explorer offers, at most.
_THRESHOLDS: Final = 200


@dataclass(frozen=True, eq=False)
class Sources:
    """What a report can draw on besides the metrics and predictions.

    Attributes:
        records: the data set of the reported rows; ``None``: not at hand, ``why`` says why.
        bundles: fold (0: none) -> the model, or its folder.
        histories: name -> learning curve.
        config: of the training.
        why: why there are no records.
    """

    records: Records | None
    bundles: Mapping[int, Path | Predictor] = field(default_factory=dict)
    histories: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    why: str = ""


def make_report(
    run: Path,
    *,
    data: Path | None = None,
    masks: Path | None = None,
    title: str | None = None,
    report: Reporter | None = None,
) -> Path:
    """Write ``RUN/report.html`` and ``RUN/figures``; add to ``metrics.json`` what the page shows and it lacks.

    Args:
        run: the folder of a finished training, cross-validation or evaluation.
        data: its data set, for subgroups and examples; ``None``: where the run says it was.
        masks: lesion masks ``IMAGE_segmentation.png``, to judge the heatmaps by; ``None``: they are not judged.
        title: of the page; ``None``: the name of the folder.
        report: who is told the progress.

    Returns:
        The path of the page.

    Raises:
        DataError: not a finished run; or ``data`` is named and is not the data set of the run.
        OutputError: the run's folder cannot be written to; or a page with images would be replaced by one without.
    """
    report = report or Silent()
    found = RunFolder.open(run)
    if masks is not None:
        existing_folder(masks, "mask folder")
    sources = _sources(found, data)
    if sources.records is None:
        _keep_fuller(run / PAGE, sources.why)
        report.warn(sources.why)
    full = enriched(found.metrics, found.rows, sources.records)
    if masks is not None:
        full[found.reported]["explanation_quality"] = _judged_heatmaps(found.reported_rows, sources, masks, report)
    if full != found.metrics:
        write_json(run / METRICS, full)
    return write_report(run, full, found.rows, sources, title=title or run.resolve().name, report=report)


def _keep_fuller(page: Path, why: str) -> None:
    """Refuse to replace a page that shows images of the data set by one that cannot."""
    if page.is_file() and "data:image/" in page.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"{page} shows images, and a new page would not. {why} To have one without, move it away.")


def write_report(
    folder: Path,
    metrics: Mapping[str, Any],
    rows: Mapping[str, Scored],
    sources: Sources,
    *,
    title: str,
    report: Reporter,
    lap: Callable[[str], None] = lambda part: None,
) -> Path:
    """Write the page and the figures of enriched metrics into ``folder``; return the path of the page.

    ``lap`` is told "report" before the page is put together, so that the page says how long all of it took.
    """
    own = rows[reported_split(metrics)]
    found = None
    if sources.records is not None:
        found = make_gallery(own, match_records(own, sources.records), sources.bundles, report)
    figures = make_figures(metrics, rows, sources.histories)
    write_figures(folder / FIGURES, figures)
    lap("report")
    write_atomic(folder / PAGE, render(metrics, own, figures, found, sources, title))
    return folder / PAGE


def render(
    metrics: Mapping[str, Any],
    rows: Scored,
    figures: Mapping[str, Figure],
    gallery: Gallery | None,
    sources: Sources,
    title: str,
) -> str:
    """Return the page as HTML."""
    facts = Facts(metrics, reported_split(metrics))
    return templates.render(
        "report.html.j2",
        facts,
        title=title,
        rows=rows,
        figures=figures,
        gallery=gallery,
        why=sources.why,
        config=sources.config,
        frozen=facts.frozen(sources.config),
        findings=facts.findings(),
        checklists=filled_checklists(facts),
        numbers=list(facts.numbers()),
        targets={key: target.name for key, target in rows.targets().items()},
        explorer=explorer(rows),
        crosses=bool(drawn_points(facts.get("@"))),
        rare=rare_classes(facts.get("@")),
        forests=[key for key in subgroup_metrics(facts.labels) if f"subgroups_{key}" in figures],
        MINIMUM_ROWS=MINIMUM_ROWS,
        MINIMUM_CLASS=MINIMUM_CLASS,
        FROZEN_HEATMAP=FROZEN_HEATMAP,
        STATES=STATES,
        CONFIG=CONFIG,
        FIGURES=FIGURES,
    )


def explorer(rows: Scored) -> dict[str, dict[str, Any]]:
    """Return what the threshold explorer reads out: target in words -> ``n``, ``positives``, `threshold_grid`."""
    return {
        target.name: {
            "n": len(rows),
            "positives": int(target.positive.sum()),
            "points": threshold_grid(np.minimum(target.score, 1.0), target.positive),
        }
        for _, target in sorted(rows.targets().items(), key=lambda item: item[0] != MALIGNANT)
        if target.positive.any() and not target.positive.all()
    }


def threshold_grid(score: FloatArray, positive: BoolArray, size: int = _THRESHOLDS) -> list[list[float]]:
    """Return ``[threshold, true positives, false positives]`` at up to ``size`` of the scores that occur, rising."""
    table = rates(score, positive).iloc[:0:-1]
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(size, len(table))).round().astype(int))]
    return [
        [float(f"{threshold:.6g}"), int(hits), int(alarms)]
        for threshold, hits, alarms in chosen.itertuples(index=False)
    ]


def _judged_heatmaps(rows: Scored, sources: Sources, masks: Path, report: Reporter) -> dict[str, Any]:
    model = sources.bundles.get(0)
    if sources.records is None or model is None:
        raise DataError(
            "Heatmaps are judged on the images of a single run; name its RUN folder and, with --data, them."
        )
    predictor = model if isinstance(model, Predictor) else load(model, mode="throughput")
    records = sources.records
    reported = np.flatnonzero(records.table["image_id"].isin(set(rows.image_id)).to_numpy())
    return judge_heatmaps(predictor, records.subset(reported), masks, report=report)


def _sources(run: RunFolder, named: Path | None) -> Sources:
    records, why = records_of_rows(run.reported_rows, named, run.data)
    return Sources(records, run.bundles, run.histories, run.config or None, why)


def records_of_rows(rows: Scored, named: Path | None, said: str | None) -> tuple[Records | None, str]:
    """Return the data set of the rows, or why there is none; a named one must fit."""
    if named is not None:
        records = read_dataset(named)
        match_records(rows, records)
        return records, ""
    if said is None:
        return None, "The run does not say where its data are; name them with --data for subgroups and examples."
    try:
        records = read_dataset(Path(said))
        match_records(rows, records)
    except DermafuseError as error:
        return None, f"No subgroups and examples: {error} Name the data set with --data."
    return records, ""
