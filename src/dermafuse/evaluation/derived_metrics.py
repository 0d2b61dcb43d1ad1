"""The parts of an evaluation that follow from ``predictions.csv``: calibration, operating points, subgroups.

Training and ``dermafuse evaluate`` add them to ``metrics.json`` as they finish; ``dermafuse report`` adds them
to a run that lacks them. What cannot be known is ``None``, with the reason in the block's ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.data.records import Records
from dermafuse.errors import DataError, examples
from dermafuse.evaluation.calibration import calibration_report
from dermafuse.evaluation.enough import TEMPERATURE, least_for_level
from dermafuse.evaluation.glance import at_a_glance, majority
from dermafuse.evaluation.metrics import labels_of, reported_split
from dermafuse.evaluation.model_findings import model_findings
from dermafuse.evaluation.operating_points import operating_points
from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.subgroups import age_bands, subgroup_report
from dermafuse.runtime.decision import temperature as scaling

#: A further categorical column is a subgroup only if it has at most so many values.
_MAX_VALUES: Final = 20


def enriched(
    metrics: Mapping[str, Any],
    rows: Mapping[str, Scored],
    records: Records | None,
    *,
    choosing: Scored | None = None,
    choosing_name: str = "tuning",
    temperature: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return ``metrics`` with what is missing of: lesions, calibration, operating points, subgroups, findings.

    Nothing that is there is changed, so the call may be repeated.

    Args:
        metrics: content of ``metrics.json``.
        rows: of ``predictions.csv``, by split (`prediction_rows.read_rows` or ``rows_of_table``).
        records: the data set the rows come from, for subgroups; ``None``: not at hand.
        choosing: rows on which operating points are chosen; ``None``: the split ``choosing_name`` of ``rows``.
        choosing_name: what those rows are called in ``notes``.
        temperature: T by which the logits were divided; ``None``: ``metrics["training"]["temperature"]``.
        seed: of the bootstraps.

    Returns:
        The metrics; the reported block (``validation`` or ``test``) has, besides, ``lesions``, ``calibration``
        {temperature, after, before}, ``operating_points``, ``subgroups`` and ``notes`` {part: why it is
        missing}, and what `glance.at_a_glance` and `glance.majority` give (``missed``, ``net_benefit``,
        ``calibration_line``, ``baselines``); at the top there is ``model_findings``.

    Raises:
        DataError: the rows are not those of the metrics, or ``records`` lacks some of their images.
    """
    result = dict(metrics)
    split = reported_split(metrics)
    block = result[split] = dict(metrics[split])
    own = rows.get(split)
    if own is None or len(own) != block["n"]:
        found = 0 if own is None else len(own)
        raise DataError(f"predictions.csv holds {found:,} rows of split '{split}', metrics.json says {block['n']:,}.")
    notes = dict(block.get("notes") or {})
    block["lesions"] = own.lesions
    if block.get("calibration") is None:
        known = temperature if temperature is not None else (metrics.get("training") or {}).get("temperature")
        block["calibration"] = _calibration(own, known, notes)
    if block.get("operating_points") is None:
        chooser = choosing if choosing is not None else rows.get(choosing_name)
        block["operating_points"] = _points(own, chooser, choosing_name, notes, seed)
    if block.get("subgroups") is None:
        block["subgroups"] = _subgroups(own, records, notes, seed)
    # Runs of before lack them; what is there stays.
    baselines = dict(block.get("baselines") or {})
    baselines.setdefault("majority", majority(own))
    block |= {**(at_a_glance(own, seed=seed) if "missed" not in block else {}), "baselines": baselines}
    block["notes"] = notes
    result["model_findings"] = model_findings(result, split)
    return result


def class_codes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class codes in the order of the confusion matrix."""
    return labels_of(metrics).codes


def match_records(rows: Scored, records: Records) -> pd.DataFrame:
    """Return the records of the rows, in their order.

    Raises:
        DataError: images are not in the records, or have another diagnosis there.
    """
    table = records.table.set_index("image_id")
    absent = [image for image in rows.image_id if image not in table.index]
    if absent:
        raise DataError(f"{records.root} lacks {len(absent):,} of the predicted images ({examples(absent)}).")
    found = table.loc[list(rows.image_id)]
    labels = np.array(rows.classes, dtype=object)[rows.true]
    other = rows.image_id[found["label"].to_numpy(object) != labels]
    if len(other):
        raise DataError(
            f"{records.root} gives {len(other):,} of the predicted images another diagnosis ({examples(other)})."
        )
    return found


def subgroup_columns(table: pd.DataFrame, records: Records) -> dict[str, npt.NDArray[Any]]:
    """Return the columns that form subgroups: sex, age band, site, how diagnosed, source, other categories."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in ("sex", "age", "localization", *records.categorical, "dx_type", "source"):
        many = name not in ("sex", "localization", "dx_type") and table[name].nunique() > _MAX_VALUES
        if name != "age" and many:
            continue
        values = age_bands(table["age"].to_numpy(np.float64)) if name == "age" else table[name].to_numpy(object)
        if len(set(pd.Series(values).fillna(""))) > 1:  # a single group has no rest to be compared with
            columns[name] = values
    return columns


def _calibration(rows: Scored, temperature: float | None, notes: dict[str, str]) -> dict[str, Any]:
    after = calibration_report(rows.true, rows.probabilities, rows.classes)
    before = None
    if temperature is None:
        notes["calibration_before"] = "The temperature of these probabilities is not known (several models, or views)."
    elif temperature == 1.0:
        notes["calibration_before"] = (
            f"No temperature was fitted: that needs tuning rows (tuning_fraction above 0) of {TEMPERATURE} lesions."
        )
    else:
        # p = softmax(z / T), so softmax(z) = softmax(T log p). The floor is far below the seven digits of the file.
        logits = temperature * np.log(np.maximum(rows.probabilities, 1e-30))
        before = calibration_report(rows.true, scaling.apply(logits, 1.0), rows.classes)
        del before["per_class"]
    return {"temperature": temperature, "after": after, "before": before}


def _points(
    rows: Scored, chooser: Scored | None, name: str, notes: dict[str, str], seed: int
) -> list[dict[str, Any]] | None:
    if chooser is not None and not len(chooser):
        notes["operating_points"] = (
            f"All {name} images of the model's run, or their lesions, are in this test set, so none are left to choose "
            "thresholds on."
        )
        return None
    if chooser is None:
        notes["operating_points"] = (
            f"There are no {name} rows to choose thresholds on, and thresholds chosen on the reported rows would "
            "flatter the model; train with tuning_fraction above 0."
        )
        return None
    try:
        points = operating_points(
            chooser.true,
            chooser.probabilities,
            rows.true,
            rows.probabilities,
            rows.lesion_id,
            rows.labels,
            chosen_groups=chooser.lesion_id,
            seed=seed,
        )
    except DataError as error:
        notes["operating_points"] = str(error)
        return None
    if not points:
        notes["operating_points"] = (
            "No class is marked as malignant or as one not to miss; where there are such, name them in dermafuse.toml "
            "(malignant, critical)."
        )
        return None
    few = [point for point in points if point["threshold"] is None]
    if few:
        notes["operating_points_too_few"] = "; ".join(_too_few(point, name) for point in few)
    if len(few) == len(points):
        notes["operating_points"] = f"No threshold could be chosen: {notes['operating_points_too_few']}."
        return None
    notes["operating_points_chosen_on"] = name
    return points


def _too_few(point: Mapping[str, Any], name: str) -> str:
    """Return why an operating point has no threshold."""
    side = "of it" if point["rule"] == "sensitivity" else "of the others"
    return (
        f"{point['target']} at {point['rule']} {point['level']:.2f} ({point['chosen_on']['lesions']:,} {name} "
        f"lesion(s) {side}, it takes {least_for_level(point['level'])})"
    )


def _subgroups(
    rows: Scored, records: Records | None, notes: dict[str, str], seed: int
) -> dict[str, dict[str, dict[str, Any]]] | None:
    if records is None:
        notes["subgroups"] = "The data set was not at hand when this was computed; name it with --data."
        return None
    columns = subgroup_columns(match_records(rows, records), records)
    if not columns:
        notes["subgroups"] = "The data set says nothing about the patients, sites or sources of its images."
        return None
    notes.pop("subgroups", None)
    return subgroup_report(
        rows.true, rows.probabilities, rows.lesion_id, rows.labels, columns, predicted=rows.predicted, seed=seed
    )
