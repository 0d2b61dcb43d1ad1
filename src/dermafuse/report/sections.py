"""The sections of the report about the model: verdict, findings, classes, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermafuse import diagnoses
from dermafuse.evaluation.metric_table import Metric, shown
from dermafuse.evaluation.model_findings import worst_findings
from dermafuse.evaluation.subgroups import MINIMUM_ROWS
from dermafuse.printable import escape
from dermafuse.report.facts import Facts, step
from dermafuse.report.figures.curves import rare_classes
from dermafuse.report.figures.make import Figure
from dermafuse.report.html import Cell, badge, card, figure, grid, note, section, table


def verdict(facts: Facts) -> str:
    """Return the box at the top: what is claimed, how sure it is, and what speaks against it."""
    base = "@" if facts.get("/test_unseen") is None else "/test_unseen"
    headlines = shown("tiles", facts.labels)
    tiles = "".join(_tile(facts, base, each) for each in headlines if facts.get(f"{base}/{each.pointer}") is not None)
    known = worst_findings(facts.metrics)
    listed = "".join(f"<li>{_finding(facts, entry)}</li>" for entry in known[:3])
    findings = f'<h3>Most serious findings</h3><ol class="findings">{listed}</ol>' if listed else ""
    more = len(known) - 3
    if more > 0:
        findings += f'<p class="note"><a href="#findings">{more} more finding{"s" if more > 1 else ""}</a></p>'
    said = "".join(
        f'<p class="announce">{facts.show(f"/announcements/{number}")}</p>'
        for number, _ in enumerate(facts.get("/announcements") or [])
    )
    worst = known[0]["severity"] if known else "info"
    return (
        f'<section id="verdict" class="verdict {escape(worst)}"><h2>Verdict</h2>'
        f'<p class="disclaimer">{escape(diagnoses.DISCLAIMER)}</p>{said}'
        f"<p>{_claim(facts, base)}</p>"
        f'<div class="tiles">{tiles}</div>{_all_images(facts)}{findings}</section>'
    )


def all_findings(facts: Facts) -> str:
    """Return every finding, data and model."""
    rows = [
        [
            Cell(badge(entry["severity"]), ("error", "warning", "info").index(entry["severity"])),
            Cell(f"<code>{escape(str(entry.get('code', '')))}</code>"),
            Cell(_finding(facts, entry, mark=False)),
        ]
        for entry in worst_findings(facts.metrics)
    ]
    remarks = "" if facts.get("/findings") is not None else note("Data checks were not part of this run.")
    for key, words in (("checks_passed", "Checks that found nothing"), ("checks_left_out", "Checks that did not run")):
        codes = facts.get(f"/{key}") or {}
        listed = ", ".join(f"{facts.show(f'/{key}/{step(code)}')} ({escape(code)})" for code in codes)
        remarks += note(f"{words}: {listed}.") if listed else ""
    return section(
        "findings", "Findings and data checks", card(table(("severity", "code", "finding"), rows), remarks, wide=True)
    )


def classes(facts: Facts, figures: Mapping[str, Figure]) -> str:
    """Return confusion matrix, class table, curves and the remaining metrics."""
    codes = list(facts.get("@/per_class"))
    columns = shown("classes")
    rows: list[Sequence[Cell | str]] = []
    for code in codes:
        base = f"@/per_class/{step(code)}"
        name = facts.labels.names[code]
        label = f"<b>{escape(code)}</b>" + (f'<span class="sub">{escape(name)}</span>' if name != code else "")
        cells = [Cell(label, code), Cell(facts.show(f"{base}/support", ",d"), facts.get(f"{base}/support"), True)]
        rows.append([*cells, *(_measured(facts, f"per_class/{step(code)}/{each.leaf}", each) for each in columns)])
    per_class = table(("class", "images", *(each.name for each in columns)), rows, name="per-class")
    other: list[Sequence[Cell | str]] = [
        [each.long_title, _measured(facts, each.pointer, each)]
        for each in shown("further", facts.labels)
        if facts.get(f"@/{each.pointer}") is not None
    ]
    matrix = figure(
        figures.get("confusion"), "Rows are the true class, columns the called one; shares are of the true class."
    )
    return section(
        "classes", "Class by class",
        grid(matrix, card(table(("metric", "value"), other), title="Further metrics")),
        card(per_class, title="Each class against the rest", wide=True),
        grid(
            figure(figures.get("roc"), "Point at a name or curve to single it out; numbers are AUROC."),
            _precision_recall(facts, figures.get("precision_recall")),
        ),
    )  # fmt: skip


def _precision_recall(facts: Facts, drawn: Figure | None) -> str:
    rare = rare_classes(facts.get("@"))
    said = f"Bands: 95 %, for classes of fewer than {MINIMUM_ROWS} images ({escape(', '.join(rare))})." if rare else ""
    words = "Dashes at the left are the prevalence: the precision of chance. Numbers are average precision."
    return figure(drawn, f"{words} {said}".strip())


def calibration(facts: Facts, figures: Mapping[str, Figure]) -> str:
    """Return reliability diagrams and the calibration numbers before and after the temperature."""
    if not facts.get("@/calibration"):
        return ""
    both = facts.get("@/calibration/before") is not None
    rows: list[Sequence[Cell | str]] = []
    for metric in shown("calibration", facts.labels):
        floor = f"{metric.leaf}_if_calibrated"
        for key, name in ((metric.leaf, metric.long_title), (floor, f"{metric.short} that chance alone would give")):
            if key == floor and facts.get(f"@/calibration/after/{floor}") is None:
                continue
            after = facts.show(f"@/calibration/after/{key}", metric.format)
            interval = facts.span(f"@/ci95/{key}") if facts.get(f"@/ci95/{key}") else ""
            before = [Cell(facts.show(f"@/calibration/before/{key}", metric.format), number=True)] if both else []
            rows.append([name, *before, Cell(f"{after} {interval}", number=True)])
    heads = ("measure", "before", "after") if both else ("measure", "value")
    by_class: list[Sequence[Cell | str]] = []
    for code in facts.get("@/calibration/after/per_class") or {}:
        base = f"@/calibration/after/per_class/{step(code)}"
        own = Cell(
            f"{facts.show(f'{base}/ece', '.3f')} {facts.span(f'@/ci95/per_class/{step(code)}/ece')}",
            facts.get(f"{base}/ece"), True,
        )  # fmt: skip
        by_class.append([code, own, Cell(facts.show(f"{base}/ece_if_calibrated", ".3f"), number=True)])
    said = [facts.fill("Temperature {@/calibration/temperature:.3f}.")] if both else []
    if facts.get("@/notes/calibration_before"):
        said.append(facts.show("@/notes/calibration_before"))
    said.append("Overconfidence is mean confidence minus accuracy: above 0 the model is too sure.")
    return section(
        "calibration", "Calibration",
        grid(
            figure(figures.get("reliability"), "On the diagonal, probabilities mean what they say. Bars: 95 %."),
            figure(figures.get(f"reliability_{facts.labels.critical_key}")),
            card(table(heads, rows, sortable=False), note(" ".join(said)), title="Calibration in numbers"),
            card(
                table(("class", "ECE", "by chance"), by_class),
                note("How far the probability of each class misses its frequency, and how far it would by chance."),
                title="Calibration of each class",
            ),
        ),
    )  # fmt: skip


def _claim(facts: Facts, base: str) -> str:
    """Return what is said of which images; ``base``: the block that comes first (the unseen images, or all)."""
    leaks, watched = facts.get("/leakage/leaked_images"), facts.get("/training/early_stopping_rows") == "validation"
    if base != "@":
        words = "On the {/test_unseen/n:,d} images ({/test_unseen/lesions:,d} lesions) that are unseen, "
    elif facts.split == "validation" and leaks and facts.get("/leakage/lesions_known"):
        words = (
            "On {@/n:,d} images ({@/lesions:,d} lesions) that were not in training, while other photographs of "
            "{/leakage/shared_lesions:,d} of these lesions were ({/leakage/leaked_images:,d} of the images show one), "
        )
    elif facts.split == "validation" and facts.get("/leakage/lesions_known") is False:
        words = "On {@/n:,d} images that were not in training, though their lesions may have been, "
    elif facts.split == "validation":
        words = "On {@/n:,d} images ({@/lesions:,d} lesions) held out of training, "
    elif not facts.get("/overlap/known"):
        words = "On {@/n:,d} images ({@/lesions:,d} lesions; whether the model learned from them is not known), "
    elif facts.get("/overlap/trained_lesion_images"):
        words = "On {@/n:,d} images ({@/lesions:,d} lesions), some of which the model learned from, "
    elif facts.get("/overlap/chose_images"):
        words = "On {@/n:,d} images ({@/lesions:,d} lesions), some of which chose its epoch, temperature or decision, "
    else:
        words = "On {@/n:,d} images ({@/lesions:,d} lesions) that the model did not learn from, "
    text = words + f"the model's decision is right for {{{base}/accuracy:.1%}}."
    critical = f"{base}/per_class/{step(facts.labels.critical or '')}"
    if facts.get(f"{critical}/recall") is not None:
        name = facts.labels.critical_name.replace("{", "(").replace("}", ")")
        text += f" It names {{{critical}/recall:.1%}} of the {{{critical}/support:,d}} {name} images as such."
    if facts.get("/leakage/lesions_known") and facts.get("/leakage/leaked_images") == 0:
        text += " None of these lesions was in training."
    if facts.split == "validation" and watched and facts.get("/training/monitor") != "last":
        text += " The same images chose the epoch that was kept."
    return facts.fill(text) + " Intervals are 95 %, by bootstrap over lesions."


def _tile(facts: Facts, base: str, metric: Metric) -> str:
    key = metric.pointer
    value, span = facts.get(f"{base}/{key}"), facts.get(f"{base}/ci95/{key}")
    bar = ""
    if span and 0 <= value <= 1:
        low, high = (100 * min(1.0, max(0.0, bound)) for bound in span)
        bar = (
            f'<span class="bar"><i style="left:{low:.1f}%;width:{max(high - low, 0.8):.1f}%"></i>'
            f'<b style="left:{100 * value:.1f}%"></b></span>'
        )
    return (
        f'<div class="tile"><span class="name">{escape(metric.title)}</span>'
        f'<span class="value">{facts.show(f"{base}/{key}", metric.format)}</span>'
        f"{facts.span(f'{base}/ci95/{key}')}{bar}</div>"
    )


def _all_images(facts: Facts) -> str:
    """Return the unseen images beside all images; or why the unseen ones were not measured."""
    if facts.get("/test_unseen") is None:
        return note(facts.show("@/notes/unseen")) if facts.get("@/notes/unseen") else ""
    rows: list[Sequence[Cell | str]] = []
    for metric in shown("tiles", facts.labels):
        key, spec = metric.pointer, metric.format
        if facts.get(f"/test_unseen/{key}") is not None:
            own = f"{facts.show(f'/test_unseen/{key}', spec)} {facts.span(f'/test_unseen/ci95/{key}')}"
            rows.append([metric.title, Cell(own, number=True), Cell(facts.show(f"@/{key}", spec), number=True)])
    heading = facts.fill("Beside all {@/n:,d} images, those that the model has met included")
    listed = table(("metric", "unseen images", "all images"), rows, sortable=False)
    return f"<h3>{heading}</h3>{listed}{note('All that stands below is about all images.')}"


def _finding(facts: Facts, entry: Mapping[str, Any], *, mark: bool = True) -> str:
    """Return one finding; its texts are tagged with where they stand in metrics.json."""
    for block in ("model_findings", "findings"):
        for number, own in enumerate(facts.get(f"/{block}") or []):
            if own == entry:
                base = f"/{block}/{number}"
                head = badge(entry["severity"]) if mark else ""
                action = f'<span class="action">{facts.show(f"{base}/action")}</span>' if entry.get("action") else ""
                return f"{head} <b>{facts.show(f'{base}/title')}.</b> {facts.show(f'{base}/explanation')} {action}"
    return escape(str(entry.get("title", "")))


def _measured(facts: Facts, key: str, metric: Metric) -> Cell:
    value = facts.get(f"@/{key}")
    html = facts.show(f"@/{key}", metric.format)
    return Cell(f"{html} {facts.span(f'@/ci95/{key}')}", -1.0 if value is None else value, True)
