"""``dermafuse report``: one self-contained page, and its figures as files, from what a run left.

Every number in the page comes from ``metrics.json`` or ``predictions.csv`` and says from where (`report.facts`).
The page loads nothing: fonts are the system's, drawings inline, pictures embedded; its policy forbids the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dermafuse import diagnoses
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import DataError, DermafuseError, OutputError
from dermafuse.evaluation.derived_metrics import enriched, match_records
from dermafuse.evaluation.judge_heatmaps import judge_heatmaps
from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.predictions import Scored
from dermafuse.files import existing_folder, write_atomic, write_json
from dermafuse.printable import escape
from dermafuse.progress import Reporter, Silent
from dermafuse.report.details import (
    all_numbers,
    checklists,
    cite,
    configuration,
    data,
    gallery,
    training,
)
from dermafuse.report.facts import Facts
from dermafuse.report.figures.make import Figure, make_figures, write_figures
from dermafuse.report.gallery import Gallery, make_gallery
from dermafuse.report.operating import operating
from dermafuse.report.sections import all_findings, calibration, classes, verdict
from dermafuse.report.shell import page
from dermafuse.report.subgroups import subgroups
from dermafuse.report.uncertainty import explanation_quality, uncertainty
from dermafuse.runs import FIGURES, METRICS, PAGE, RunFolder
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import load

_CONTENTS: Final = {
    "verdict": "Verdict",
    "classes": "Class by class",
    "operating": "Operating points",
    "calibration": "Calibration",
    "subgroups": "Subgroups",
    "uncertainty": "Uncertainty",
    "examples": "Examples",
    "training": "Training",
    "findings": "Findings, data checks",
    "data": "Data and leakage",
    "configuration": "Configuration",
    "checklists": "Checklists",
    "numbers": "All numbers",
    "cite": "How to cite",
}


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
) -> Path:
    """Write the page and the figures of enriched metrics into ``folder``; return the path of the page."""
    own = rows[reported_split(metrics)]
    found = None
    if sources.records is not None:
        found = make_gallery(own, match_records(own, sources.records), sources.bundles, report)
    figures = make_figures(metrics, rows, sources.histories)
    write_figures(folder / FIGURES, figures)
    write_atomic(folder / PAGE, render(metrics, own, figures, found, sources, title))
    return folder / PAGE


def render(
    metrics: Mapping[str, Any],
    rows: Scored,
    figures: Mapping[str, Figure],
    found: Gallery | None,
    sources: Sources,
    title: str,
) -> str:
    """Return the page as HTML."""
    facts = Facts(metrics, reported_split(metrics))
    main = "".join(
        (
            verdict(facts),
            classes(facts, figures),
            operating(facts, figures, rows),
            calibration(facts, figures),
            subgroups(facts, figures),
            uncertainty(facts),
            gallery(
                found,
                rows,
                sources.why or "The images were not at hand.",
                explanation_quality(facts),
                frozen=facts.frozen(sources.config),
            ),
            training(facts, figures),
            all_findings(facts),
            data(facts),
            configuration(facts, sources.config),
            checklists(facts),
            all_numbers(facts),
            cite(facts),
        )
    )
    links = "".join(
        f'<a href="#{name}">{text}</a>' for name, text in _CONTENTS.items() if f'<section id="{name}"' in main
    )
    kind = "Test of" if facts.split == "test" else "Report of"
    lead = facts.fill(_lead(facts))
    footer = (
        f"{escape(diagnoses.DISCLAIMER)} Made by dermafuse {facts.show('/dermafuse')}; every figure is "
        f"in <code>{FIGURES}/</code> as SVG, PNG and CSV."
    )
    return page(title, f"{kind} {escape(title)}", lead, main, footer, links=links, panes=subgroup_metrics(facts.labels))


def _lead(facts: Facts) -> str:
    parts = []
    if facts.get("/recipe"):
        parts.append("recipe {/recipe}")
    if facts.get("/network/backbone"):
        parts.append("{/network/backbone}, {/network/image_size:d} px")
    elif facts.get("/model/info/backbone"):
        parts.append("{/model/info/backbone}")
    if facts.get("/folds"):
        parts.append("cross-validation, pooled out-of-fold predictions")
    parts.append("{@/n:,d} " + ("test" if facts.split == "test" else "validation") + " images")
    return " · ".join(parts)


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
