"""What a careful reader should know first about a model: findings with stable codes, from ``metrics.json``.

The codes of the data set's own findings begin with DF; these begin with DM. All have the same form:
``code``, ``title``, ``severity`` (error, warning, info), ``explanation``, ``action``, ``data``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dermafuse.announcements import announced
from dermafuse.checks.findings import SEVERITIES
from dermafuse.evaluation.enough import left_out
from dermafuse.evaluation.metric_table import shown, subgroup_metrics
from dermafuse.evaluation.metrics import labels_of

Found = dict[str, Any]

#: A share of leaking images above this makes the headline numbers unusable.
_LEAK: Final = 0.05
#: Sensitivities that are called low: of the class that must not be missed, and of any class.
_CRITICAL: Final = (0.75, 0.90)
_CLASS: Final = 0.5
#: Rows of a class under which its numbers are uncertain whatever the interval method.
_FEW: Final = 30
#: A rise of log loss or Brier score by the temperature that is named.
_WORSE: Final = 0.002
#: Gaps between subgroups smaller than this are not reported however sure they are.
_GAP: Final = 0.05
#: Code of an announcement that makes every number unreal -> title of the finding.
_UNREAL: Final = {"synthetic_data": "Synthetic data", "random_weights": "Random weights"}


def model_findings(metrics: Mapping[str, Any], split: str) -> list[Found]:
    """Return the findings about a model, the most serious first.

    Args:
        metrics: content of ``metrics.json``, enriched.
        split: the reported block, ``validation`` or ``test``.
    """
    found = [finding for rule in _RULES for finding in rule(metrics, metrics[split])]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding["severity"]))


def worst_findings(metrics: Mapping[str, Any]) -> list[Found]:
    """Return all findings of a run, data and model together, the most serious first, each code once."""
    listed = [*(metrics.get("model_findings") or []), *(metrics.get("findings") or [])]
    known = [entry for entry in listed if isinstance(entry, Mapping) and entry.get("severity") in SEVERITIES]
    nothing: Mapping[str, Any] = {"severity": "", "data": {}}
    shared = next((entry for entry in known if entry.get("code") == "DF001"), nothing)
    # The data check says the same in more detail.
    said = {
        "DM002": shared["severity"] == "error",
        "DM003": (shared.get("data") or {}).get("lesions_known") is False,
    }
    known = [entry for entry in known if not said.get(str(entry.get("code")), False)]
    return sorted((dict(entry) for entry in known), key=lambda entry: SEVERITIES.index(entry["severity"]))


def _finding(code: str, severity: str, title: str, explanation: str, action: str, **data: Any) -> Found:
    return {
        "code": code,
        "title": title,
        "severity": severity,
        "explanation": explanation,
        "action": action,
        "data": data,
    }


def _overlap(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    overlap = metrics.get("overlap") or {}
    seen = overlap.get("trained_lesion_images")
    if seen:
        yield _finding(
            "DM001",
            "error",
            "The model was trained on lesions of this test set",
            f"{seen:,} of {block['n']:,} images ({overlap['share']:.1%}) show a lesion that the model learned from; "
            "the numbers of all images together say little about new patients.",
            "Use the numbers of the unseen images only, or another data set.",
            images=seen,
            share=overlap["share"],
        )
    elif overlap.get("chose_images"):
        chose = overlap["chose_images"]
        yield _finding(
            "DM001",
            "warning",
            "Images of this test set chose the model",
            f"{chose:,} of {block['n']:,} images show a lesion that had a say in the epoch, the temperature or the "
            "decision of the model: the numbers of all images together are slightly optimistic.",
            "Use the numbers of the unseen images only, or another data set.",
            images=chose,
            share=chose / block["n"],
        )
    elif overlap and not overlap.get("known"):
        yield _finding(
            "DM001",
            "info",
            "Overlap with the training images is unknown",
            str(overlap.get("basis", "")),
            "Make sure that no image or lesion of this test set was used in training.",
        )


def _leakage(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    leak = metrics.get("leakage") or {}
    if not leak:
        return
    group = (metrics.get("data") or {}).get("group", "lesion")
    if not leak.get("lesions_known", True):
        yield _finding(
            "DM003",
            "warning",
            "Lesions are unknown",
            "The data do not say which images show the same lesion, so leakage cannot be measured and the intervals "
            "take every image for an independent observation.",
            "Add a lesion or patient column to the table.",
        )
    elif leak.get("share"):
        yield _finding(
            "DM002",
            "error" if leak["share"] > _LEAK else "warning",
            "The split leaks",
            f"{leak['leaked_images']:,} of {leak['validation_images']:,} validation images ({leak['share']:.1%}) show "
            f"a {group} that is also in training ({leak['shared_lesions']:,} {group}s): all numbers are too good.",
            "Train with --split lesion; use this run only to compare with work that leaks as well.",
            images=leak["leaked_images"],
            share=leak["share"],
        )


def _announced(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    for said in announced(metrics):
        title = _UNREAL.get(said.code.removeprefix("model_"))
        if title is not None:
            yield _finding("DM004", "error", title, said.text, "Do not report these numbers as those of a model.")
        elif said.code == "early_stopping_on_validation":
            yield _finding(
                "DM005",
                "warning",
                "The reported rows chose the epoch",
                "Early stopping looked at the validation rows, so the numbers on them are slightly optimistic.",
                "Train with tuning_fraction above 0 (the standard recipe does).",
            )


def _critical(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    labels = labels_of(metrics)
    if labels.critical is None:
        return
    row = block["per_class"].get(labels.critical)
    if not row or row.get("recall") is None or row["recall"] >= _CRITICAL[1]:
        return
    missed = row["support"] - round(row["recall"] * row["support"])
    said, data = ".", {"missed": missed}
    if labels.malignant:
        confused = block["confusion_matrix"][labels.codes.index(labels.critical)]
        benign = sum(
            count
            for code, count in zip(labels.codes, confused, strict=True)
            if code != labels.critical and code not in labels.malignant
        )
        said, data["called_benign"] = f"; {benign:,} of the missed ones are called benign.", benign
    name = labels.critical_name
    yield _finding(
        "DM006",
        "error" if row["recall"] < _CRITICAL[0] else "warning",
        f"{missed:,} of {row['support']:,} {name} images are called something else",
        f"By the model's own decision the {name} sensitivity is {row['recall']:.1%}{said}",
        f"Decide by a threshold on the {name} probability (operating points), not by the named class.",
        **data,
    )


def _weak_classes(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    rows = block["per_class"]
    weak = [code for code, row in rows.items() if row.get("recall") is not None and row["recall"] < _CLASS]
    if weak:
        shown = ", ".join(f"{code} {rows[code]['recall']:.0%}" for code in weak)
        yield _finding(
            "DM007",
            "warning",
            "Classes found in fewer than half of their images",
            f"Sensitivity: {shown}.",
            "Do not use the named class alone; look at the probabilities, or train with more images of them.",
            classes=weak,
        )
    few = [code for code, row in rows.items() if 0 < row["support"] < _FEW]
    if few:
        shown = ", ".join(f"{code} {rows[code]['support']:,}" for code in few)
        yield _finding(
            "DM008",
            "info",
            "Few images of some classes",
            f"Images: {shown}. Their numbers move a lot with a few images; read the intervals.",
            "Pool more data, or cross-validate (--folds 5).",
            classes=few,
        )
    none = [code for code, row in rows.items() if row["support"] == 0]
    if none:
        yield _finding(
            "DM013",
            "warning",
            "Classes without images",
            f"There is no image of {', '.join(none)}, so nothing is known of them and the macro means leave them out.",
            "Add images of them before saying anything about these classes.",
            classes=none,
        )


def _calibration(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    after = (block.get("calibration") or {}).get("after")
    low, _ = (block.get("ci95") or {}).get("ece") or (None, None)
    if not after or low is None or low <= after["ece_if_calibrated"] or after["ece"] < 0.02:
        return
    direction = "too sure" if after["overconfidence"] > 0 else "too modest"
    yield _finding(
        "DM009",
        "warning",
        "The probabilities are off",
        f"They miss the observed frequency by {after['ece']:.3f} on average (ECE), {after['ece_if_calibrated']:.3f} "
        f"would be chance; on balance the model is {direction} by {abs(after['overconfidence']):.3f}.",
        "Fit the temperature on tuning rows (tuning_fraction above 0), and read the reliability diagram.",
        ece=after["ece"],
        floor=after["ece_if_calibrated"],
    )


def _fitted(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    calibration = block.get("calibration") or {}
    before, after = calibration.get("before") or {}, calibration.get("after") or {}
    names = {metric.leaf: metric.name for metric in shown("temperature")}
    worse = {key: after[key] - before[key] for key in names if key in before and after[key] - before[key] > _WORSE}
    if worse:
        told = " and ".join(f"{names[key]} {before[key]:.3f} to {after[key]:.3f}" for key in worse)
        yield _finding(
            "DM014",
            "warning",
            "The temperature made the probabilities worse",
            f"The temperature {calibration['temperature']:.3f}, fitted on the tuning rows, changed {told} on the rows "
            "reported here: without it the probabilities would be better.",
            "Hold out more tuning rows (tuning_fraction) or pool more data; until then trust the order of the classes "
            "more than the probabilities.",
            **worse,
        )
    sets = block.get("prediction_sets") or {}
    size, k = sets.get("mean_size"), len(block["per_class"])
    if size is not None and size > k - 0.05:
        yield _finding(
            "DM015",
            "warning",
            "The prediction sets say nothing",
            f"They hold {size:.2f} of the {k} classes on average: nearly every set names every class, so its coverage "
            "is no achievement.",
            "Do not use the sets; more tuning rows of each class, or a better model, make them smaller.",
            mean_size=size,
        )
    missing = dict((metrics.get("training") or {}).get("not_fitted") or {})
    few = (block.get("notes") or {}).get("operating_points_too_few")
    if few:
        missing["operating points"] = few
    if missing:
        yield _finding(
            "DM016",
            "warning",
            "Too few tuning rows to fit everything",
            left_out(missing),
            "Hold out more tuning rows (tuning_fraction), pool more data, or judge by cross-validation (--folds 5).",
            left_out=sorted(missing),
        )


def failing_groups(
    subgroups: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return the subgroups in which a metric is below one half, or surely lower than elsewhere, the lowest first.

    Args:
        subgroups: of the reported block.
        metric: such as ``melanoma_sensitivity``.

    Returns:
        (column, value, {value, ci95, gap, gap_ci95}). How a diagnosis was confirmed is no group of patients.
    """
    found = []
    for column, cells in subgroups.items():
        for value, cell in cells.items():
            entry = (cell.get("metrics") or {}).get(metric)
            if column != "dx_type" and entry and (entry["value"] < _CLASS or _surely_lower(entry)):
                found.append((column, value, entry))
    return sorted(found, key=lambda each: float(each[2]["value"]))


def _surely_lower(entry: Mapping[str, Any]) -> bool:
    """Whether the interval of the gap to all others excludes zero and the gap is worth a word."""
    return bool(entry["gap_ci95"] and entry["gap_ci95"][1] < 0 and entry["gap"] <= -_GAP)


def _gaps(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    labels = labels_of(metrics)
    named = subgroup_metrics(labels, "gaps")
    gaps = []
    looked = 0
    for column, cells in (block.get("subgroups") or {}).items():
        if column == "dx_type":  # how the diagnosis was made follows from the diagnosis
            continue
        for value, cell in cells.items():
            for name, metric in named.items():
                entry = (cell.get("metrics") or {}).get(name)
                if not entry or entry["gap_ci95"] is None:
                    continue
                looked += 1
                if _surely_lower(entry):
                    gaps.append(
                        (
                            entry["gap"],
                            f"{column} {value}: {metric.name} {entry['value']:.1%}, {100 * entry['gap']:+.1f} points",
                        )
                    )
    if gaps:
        gaps.sort()
        yield _finding(
            "DM010",
            "warning",
            "The model works less well for some",
            f"Against all others: {'; '.join(text for _, text in gaps[:3])}. {looked:,} comparisons were made, so "
            f"about {looked * 0.025:.0f} would look like this by chance.",
            "Check the subgroup table before use on such patients; a gap can also come from another mix of diagnoses.",
            gaps=len(gaps),
            comparisons=looked,
        )


def _internal(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Found]:
    if "test" not in metrics:
        yield _finding(
            "DM011",
            "info",
            "Internal validation only",
            "The reported images come from the same collection as the training images; performance elsewhere "
            "(other devices, skin types, prevalence) is usually lower.",
            "Run dermafuse evaluate on images of another source.",
        )
    skipped = (metrics.get("data") or {}).get("skipped")
    if skipped:
        yield _finding(
            "DM012",
            "info",
            "Rows were left out",
            f"{skipped:,} rows could not be used; skipped.csv says why.",
            "Mend or accept them.",
            skipped=skipped,
        )


_RULES: Final = (_overlap, _announced, _leakage, _critical, _calibration, _fitted, _gaps, _weak_classes, _internal)
