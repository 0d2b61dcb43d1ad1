"""The model card: the ``README.md`` of a bundle, from the numbers of its run.

The order of the parts follows Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dermafuse import diagnoses
from dermafuse.errors import examples
from dermafuse.evaluation.metric_table import Metric, shown, subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.model_findings import failing_groups, worst_findings
from dermafuse.evaluation.subgroups import ordered_cells
from dermafuse.labels import LabelSet
from dermafuse.report.facts import Facts, format_value, step
from dermafuse.report.figures.tables import COLUMN_NAMES

#: Groups that are named for each metric before the rest is left to the table.
_FAILING: Final = 6


def model_card(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the model card as Markdown.

    Args:
        metrics: content of ``metrics.json``; what it lacks (subgroups, calibration) is said to be lacking.
        config: the resolved settings (``TrainConfig.model_dump()``, or ``config.toml``).
    """
    facts = Facts(metrics, reported_split(metrics))
    ham = facts.get("/data/layout") in ("kaggle", "dataverse") and not facts.get("/data/synthetic")
    parts = [
        ["# dermafuse model", "", f"**{diagnoses.DISCLAIMER}**"],
        [f"- **{text}**" for text in facts.get("/announcements") or []],
        _before_use(facts),
        _model(facts, config),
        _use(),
        _data(facts, config, ham),
        _performance(facts, config),
        _classes(facts),
        _calibration(facts),
        _subgroups(facts),
        _limitations(facts, ham),
        _licence(ham),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _before_use(facts: Facts) -> list[str]:
    """Return what a user must know first: the images it is made for, and whom it fails."""
    lines = []
    if facts.get("/network/image_size"):
        size = "Trained on images of {/network/image_size:d} x {/network/image_size:d} pixels"
        if facts.get("/data/image_pixels"):
            size += ", made from files of {/data/image_pixels} pixels"
        lines.append(facts.text(f"- {size}; all are resized to that; what much smaller ones give is not known."))
    for key, metric in subgroup_metrics(facts.labels, "failing").items():
        found = failing_groups(facts.get("@/subgroups") or {}, key)
        if found:
            whole = metric.within(facts.get("@"))
            rest = "" if whole is None else f" (all images: {whole:.2f})"
            listed = examples([f"{column} {value} {_entry(entry)}" for column, value, entry in found], limit=_FAILING)
            lines.append(f"- **Low {metric.name}{rest}** for {listed}.")
    return ["## Before use", "", *lines] if lines else []


def _model(facts: Facts, config: Mapping[str, Any]) -> list[str]:
    lines = ["## Model", ""]
    lines.append(facts.text("Made by dermafuse {/dermafuse} with the recipe `{/recipe}`."))
    if facts.get("/network"):
        lines.append(
            facts.text(
                "Backbone `{/network/backbone}` ({/network/weights}), {/network/image_size:d} px; "
                "{/network/parameters/trainable:,d} of {/network/parameters/total:,d} parameters trained."
            )
        )
    told = ("fusion", "split", "seed", "class_weighting", "unfreeze_from", "metadata_dropout")
    settings = [f"{name} `{'none' if config[name] is None else config[name]}`" for name in told if name in config]
    if settings:
        lines.append(f"Settings: {', '.join(settings)}; `config.toml` of the run has them all.")
    names = facts.labels.names
    codes = (f"`{code}` {names[code]}" if names[code] != code else f"`{code}`" for code in facts.labels.codes)
    return [*lines, "", f"Classes: {', '.join(codes)}.", *_roles(facts.labels)]


def _roles(labels: LabelSet) -> list[str]:
    if not labels.malignant:
        return ["Nobody said which of them are malignant, so the model gives no probability of that."]
    said = f"Counted as malignant: {', '.join(f'`{code}`' for code in labels.codes if code in labels.malignant)}"
    return [said + ("." if labels.critical is None else f"; not to be missed: `{labels.critical}`.")]


def _use() -> list[str]:
    return [
        "## Intended use",
        "",
        "Research on the automatic classification of dermoscopic images: comparison of methods, teaching, study of "
        "failures. Not for diagnosis, triage or any decision about a patient. It is not a medical device and has not "
        "been tested in clinical use.",
        "",
        "Out of scope: clinical (non-dermoscopic) photographs, lesions of other kinds than the classes above, mucosa "
        "and nails unless tested on them, and any use without a person who checks the result.",
    ]


def _data(facts: Facts, config: Mapping[str, Any], ham: bool) -> list[str]:
    lines = ["## Data", ""]
    if facts.get("/data/synthetic"):
        lines.append("Generated pictures: nothing here says anything about real skin.")
    elif ham:
        lines.append("HAM10000 (Tschandl, Rosendahl & Kittler, Sci. Data 5:180161, 2018).")
    else:
        lines.append(facts.text("A data set in the layout `{/data/layout}`."))
    if facts.get("/data/released_after"):
        lines.append(
            facts.text(
                "{/data/train:,d} images to learn from. Reported below: {/data/validation:,d} predictions of "
                "{/data/released_after:d} other models of the same recipe, each on the images it was not trained on."
            )
        )
    elif facts.get("/data/train") is not None:
        lines.append(
            facts.text(
                "{/data/train:,d} images to learn from, {/data/tuning:,d} for tuning (epoch, temperature), "
                "{/data/validation:,d} reported below; {/data/skipped:,d} unusable rows left out."
            )
        )
    if facts.get("/data/image_pixels"):
        lines.append(facts.text("The image files have {/data/image_pixels} pixels."))
    split = config.get("split")
    if split:
        lines.append(f"Split by {split}, stratified by class.")
    if not facts.get("/leakage/lesions_known"):
        lines.append("Which images show the same lesion is not known, so leakage is not known.")
    elif facts.get("/leakage/leaked_images"):
        lines.append(
            facts.text(
                "**Leakage: {/leakage/leaked_images:,d} of {/leakage/validation_images:,d} reported images "
                "({/leakage/share:.1%}) show a lesion that is also in training; the numbers below are too good.**"
            )
        )
    else:
        whose = "the training of the model that predicted it" if facts.get("/data/released_after") else "training"
        lines.append(f"Leakage: no reported image shows a lesion that is also in {whose}.")
    return lines


def _performance(facts: Facts, config: Mapping[str, Any]) -> list[str]:
    name = "test" if facts.split == "test" else "validation"
    heading = facts.text(f"## Performance on {{@/n:,d}} {name} images")
    rows = [
        [each.name, facts.text(f"{{@/{each.pointer}:{each.format}}}"), _span(facts, each)]
        for each in shown("card", facts.labels)
        if facts.get(f"@/{each.pointer}") is not None
    ]
    rule = "the most probable class"
    if config.get("decision") == "prior":
        rule = "the largest log probability plus offset; the offsets favour rare classes (`calibration.json`)"
    said = f"Intervals are 95 %, by bootstrap over lesions. The decision is {rule}."
    return [heading, "", *_table(("metric", "value", "95 % interval"), rows), "", said]


def _classes(facts: Facts) -> list[str]:
    columns = shown("classes in short")
    rows = []
    for code in facts.get("@/per_class"):
        base = f"per_class/{step(code)}"
        cells = [
            f"{facts.text(f'{{@/{base}/{each.leaf}:{each.format}}}')} {_bracket(facts, f'{base}/{each.leaf}')}"
            for each in columns
        ]
        rows.append([code, facts.text(f"{{@/{base}/support:,d}}"), *cells])
    return ["### By class", "", *_table(("class", "images", *(each.name for each in columns)), rows)]


def _calibration(facts: Facts) -> list[str]:
    lines = ["### Calibration", ""]
    temperature = facts.get("@/calibration/temperature") or facts.get("/training/temperature")
    if temperature is not None and temperature != 1.0:
        lines += [f"Probabilities are scaled with the temperature {temperature:.3f}, fitted on tuning rows.", ""]
    elif temperature == 1.0:
        why = facts.get("/training/not_fitted/temperature") or "there were no tuning rows"
        lines += [f"No temperature was fitted: {why}.", ""]
    before = facts.get("@/calibration/before") is not None
    rows = []
    for each in shown("calibration", facts.labels):
        key, spec = each.pointer, each.format
        if facts.get(f"@/{key}") is not None:
            own = [facts.text(f"{{@/calibration/before/{key}:{spec}}}")] if before else []
            rows.append([each.long, *own, facts.text(f"{{@/{key}:{spec}}}"), _span(facts, each)])
    heads = ("measure", "before", "after", "95 % interval") if before else ("measure", "value", "95 % interval")
    return [*lines, *_table(heads, rows)]


def _subgroups(facts: Facts) -> list[str]:
    known = facts.get("@/subgroups")
    lines = ["### Subgroups", ""]
    if not known:
        return [*lines, "Not measured for this card; the run's report has them where the data set says who is who."]
    columns = subgroup_metrics(facts.labels, "subgroups in the card")
    rows = []
    for column, cells in known.items():
        for value, cell in ordered_cells(cells):
            entries = [(cell.get("metrics") or {}).get(key) for key in columns]
            told = ["withheld" if cell["withheld"] else _entry(entry) for entry in entries]
            rows.append([COLUMN_NAMES.get(column, column), value, f"{cell['n']:,}", *told])
    heads = ("group", "value", "images", *(metric.name for metric in columns.values()))
    said = "Cells under 30 images are withheld; differences describe and do not explain."
    return [*lines, *_table(heads, rows), "", said]


def _limitations(facts: Facts, ham: bool) -> list[str]:
    lines = ["## Limitations", ""]
    lines += [
        f"- {entry['title']}. {entry['explanation']}"
        for entry in worst_findings(facts.metrics)
        if entry["severity"] != "info"
    ]
    if ham:
        lines += [
            "- HAM10000 does not record skin tone; its patients come from Austria and Australia and are mostly "
            "fair-skinned. Performance on darker skin is unknown.",
            "- It holds far more melanomas than a screening population: predictive values do not carry over.",
        ]
    lines += [
        "- Internal validation on one collection; other devices, sites and populations are not covered."
        if facts.split == "validation"
        else "- One test set; other devices, sites and populations are not covered.",
        "- The model always names one of its classes, also for images that show none of them.",
        "- A heatmap shows where the network looked, not that it looked for the right reason.",
    ]
    return lines


def _licence(ham: bool) -> list[str]:
    data = (
        "The training images (HAM10000) are CC BY-NC 4.0: they may not be used commercially."
        if ham
        else "The training images are under the licence of their source."
    )
    lines = ["## Licence and citation", "", f"Weights: Apache-2.0. {data}", ""]
    if ham:
        lines.append(
            "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source "
            "dermatoscopic images of common pigmented skin lesions. Sci Data 5:180161, 2018. doi:10.1038/sdata.2018.161"
        )
    return [*lines, "Cite this software as dermafuse, with its version and the digest of the bundle's manifest."]


def _entry(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "too few"
    span = entry["ci95"]
    return f"{entry['value']:.3f}" + (f" [{span[0]:.2f}, {span[1]:.2f}]" if span else "")


def _span(facts: Facts, metric: Metric) -> str:
    span = facts.get(f"@/ci95/{metric.pointer}")
    return f"{span[0]:{metric.format}} to {span[1]:{metric.format}}" if span else format_value(None, "")


def _bracket(facts: Facts, key: str) -> str:
    span = facts.get(f"@/ci95/{key}")
    return f"[{span[0]:.2f}, {span[1]:.2f}]" if span else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/').strip() for cell in cells)} |"

    return [line(heads), f"|{'|'.join('---' for _ in heads)}|", *(line(row) for row in rows)]
