"""The section of the report about what the model does not know: prediction sets, unusual images; and heatmaps judged.

Read from the reported block: ``prediction_sets`` (`coverage.coverage_report` or `evaluated_sets.set_block`),
``out_of_distribution`` (any scalars), ``explanation_quality`` (`explanation_quality.explanation_quality`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dermafuse.report.details import escape_path, leaves
from dermafuse.report.facts import Facts, step
from dermafuse.report.html import Cell, card, grid, note, section, table


def uncertainty(facts: Facts) -> str:
    """Return coverage and size of the prediction sets, and the out-of-distribution flag."""
    return section("uncertainty", "Uncertainty", grid(_sets(facts), _flags(facts)))


def explanation_quality(facts: Facts) -> str:
    """Return how much of the heatmaps' energy lies in the lesion, against a centred Gaussian and chance."""
    base = "@/explanation_quality"
    if not facts.get(base):
        return ""
    kinds = (("model", "Grad-CAM"), ("centre", "centred Gaussian"), ("random", "chance"))
    rows: list[Sequence[Cell | str]] = []
    for measure, words in (("energy", "share of the energy inside the lesion"), ("pointing", "peak inside the lesion")):
        cells = []
        for kind, _ in kinds:
            at = f"{base}/{measure}/{kind}"
            cells.append(Cell(f"{facts.show(f'{at}/value', '.3f')} {facts.span(f'{at}/ci95')}", number=True))
        rows.append([words, *cells])
    said = facts.fill(
        f"On {{{base}/n:,d}} images with a lesion mask, which covers {{{base}/lesion_area:.1%}} on average."
    )
    heads = ("measure", *(words for _, words in kinds))
    return card(table(heads, rows, sortable=False), note(said), title="Heatmaps against lesion masks", wide=True)


def _sets(facts: Facts) -> str:
    base = "@/prediction_sets"
    if not facts.get(base):
        return ""
    rows: list[Sequence[Cell | str]] = []
    expected = False
    for code in facts.get(f"{base}/per_class"):
        own = f"{base}/per_class/{step(code)}"
        expected = expected or facts.get(f"{own}/expected") is not None
        span = f"{own}/expected" if facts.get(f"{own}/expected") is not None else f"{own}/ci95"
        rows.append(
            [
                code,
                Cell(facts.show(f"{own}/n", ",d"), facts.get(f"{own}/n"), True),
                Cell(facts.show(f"{own}/coverage", ".3f"), facts.get(f"{own}/coverage"), True),
                Cell(facts.span(span) or facts.show(span), number=True),
                Cell(facts.show(f"{own}/mean_size", ".2f"), facts.get(f"{own}/mean_size"), True),
            ]
        )
    said = facts.fill(
        f"Made to hold the true class for {{{base}/target:.0%}} of each class; they held it for "
        f"{{{base}/coverage:.1%}} of the images, with {{{base}/mean_size:.2f}} classes on average, one class in "
        f"{{{base}/single_share:.1%}} and none in {{{base}/empty_share:.1%}} of the cases."
    )
    heads = ("class", "images", "coverage", "expected range" if expected else "95 % interval", "mean size")
    return card(f"<p>{said}</p>", table(heads, rows), title="Prediction sets")


def _flags(facts: Facts) -> str:
    base = "@/out_of_distribution"
    found = facts.get(base)
    if not found:
        return ""
    rows: list[Sequence[Cell | str]] = []
    for pointer in leaves(found, facts.full(base)):
        value = facts.get(pointer)
        spec = ".3f" if isinstance(value, float) else ",d" if type(value) is int else ""
        name = escape_path(pointer.split("/")[3:]).replace("_", " ")
        rows.append([name, Cell(facts.show(pointer, spec), number=True)])
    return card(table(("", ""), rows, sortable=False), title="Images unlike the training images")
