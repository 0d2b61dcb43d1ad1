"""For whom does the model work? Metrics by sex, age band, localization, dx_type and source, with their gaps.

Every number of a cell and its gap to all other rows come from the same resampled lesions, so the interval of
the gap allows for lesions with images on both sides. Cells too small to say anything are withheld. A gap is a
description, not a cause: subgroups differ in their mix of diagnoses (``dx_type`` most of all), and with
dozens of cells some intervals miss zero by chance.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.values import UNKNOWN
from dermafuse.errors import DataError
from dermafuse.evaluation.calibration import BINS, ece_if_calibrated, expected_calibration_error
from dermafuse.evaluation.confusion import mean_defined
from dermafuse.evaluation.metric import Metric
from dermafuse.evaluation.metric_table import shown
from dermafuse.evaluation.predictions import (
    MALIGNANT,
    BoolArray,
    FloatArray,
    IntArray,
    Scored,
    check_groups,
    check_predictions,
    missing,
)
from dermafuse.evaluation.resampling import count_groups, interval, resampled_weights
from dermafuse.evaluation.weighted import Measures, WeightedMetrics, proportion_bases
from dermafuse.labels import Classes

#: Fewer rows than this: the cell is withheld.
MINIMUM_ROWS: Final = 30
#: Fewer rows than this of a class (or of malignant, or of benign): metrics that need them are withheld.
MINIMUM_CLASS: Final = 10
#: A number or a band of numbers: ``<30``, ``30-49``, ``70+``, ``1``.
_BAND: Final = re.compile(r"(?P<below><)?\s*(?P<start>\d+(\.\d+)?)\s*(\+|-\s*\d+(\.\d+)?)?")
#: Rows a bin in a cell's ECE, so that small cells use fewer bins rather than noisier ones.
ROWS_PER_BIN: Final = 20

#: Weights held at once as float64 (128 MB): bounds the memory at any number of rows.
_WEIGHTS: Final = 2**24


def age_bands(age: npt.ArrayLike, edges: Sequence[int] = (30, 50, 70)) -> npt.NDArray[np.str_]:
    """Return (n,) band names for ages in years: ``"<30"``, ``"30-49"``, ``"50-69"``, ``"70+"``, ``"unknown"``.

    Args:
        age: (n,) years, NaN where missing.
        edges: rising whole numbers; each is the first year of a band.
    """
    years = np.asarray(age, dtype=np.float64)
    if not edges or list(edges) != sorted(set(edges)):
        raise DataError(f"The age edges {tuple(edges)} must be rising whole numbers, at least one.")
    between = [f"{low}-{high - 1}" for low, high in itertools.pairwise(edges)]
    names = np.array([f"<{edges[0]}", *between, f"{edges[-1]}+", "unknown"])
    band = np.searchsorted(np.asarray(edges, dtype=np.float64), years, side="right")
    return names[np.where(np.isnan(years), len(names) - 1, band)]


def in_order(sizes: Mapping[str, int]) -> list[str]:
    """Return the values of a column as a person reads them: bands of numbers rising, words by size, unknown last.

    Args:
        sizes: value -> number of rows.
    """
    known = [value for value in sizes if value != UNKNOWN]
    starts = {value: found for value in known if (found := _BAND.fullmatch(value))}
    if len(starts) == len(known):
        known.sort(key=lambda value: (float(starts[value]["start"]), starts[value]["below"] is None))
    else:
        known.sort(key=lambda value: -sizes[value])
    return [*known, *(value for value in sizes if value == UNKNOWN)]


def ordered_cells(cells: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the cells of one column of a `subgroup_report` in the order of `in_order`, whatever theirs is."""
    return [(value, cells[value]) for value in in_order({value: int(cell["n"]) for value, cell in cells.items()})]


def subgroup_report(
    true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    classes: Classes,
    columns: Mapping[str, npt.ArrayLike],
    *,
    predicted: npt.ArrayLike | None = None,
    malignant: Collection[str] | None = None,
    minimum_rows: int = MINIMUM_ROWS,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return metrics, intervals and gaps to the rest for every value of every column.

    Args:
        true: (n,) class indices.
        probabilities: (n, k) rows summing to 1.
        groups: (n,) lesion ids; ``None`` = each row by itself.
        classes: the label set, or the k codes.
        columns: name -> (n,) values, e.g. ``{"sex": ..., "age": age_bands(...)}``; missing values (None, NaN,
            empty) form the cell ``"unknown"``.
        predicted: (n,) decisions, where not the largest probability.
        malignant: codes counted as malignant; ``None``: as the label set says.
        minimum_rows: cells with fewer rows are withheld.
        replicates: bootstrap replicates, at least 40.
        seed: of the resamples.

    Returns:
        ``{column: {value: cell}}``, cells in the order of `in_order`. A cell holds ``n``, ``lesions``, ``withheld``
        and, unless withheld, ``classes`` and ``metrics``: {``accuracy``, ``balanced_accuracy``,
        ``melanoma_sensitivity`` (``critical_sensitivity`` where another class is the critical one),
        ``malignant_sensitivity``, ``malignant_specificity``, ``malignant_auroc``,
        ``overconfidence`` (mean confidence minus accuracy)}, each {value, ci95, gap, gap_ci95} (gap = cell
        minus rest), and ``ece`` {value, if_calibrated, bins}; the ECE has no gap because its bias grows as
        cells shrink, overconfidence has none of that bias. Balanced accuracy is the mean recall over
        ``classes``: those with at least 10 rows in the cell and, for a fair gap, in the rest. A metric is
        None where the cell holds fewer than 10 of the rows it is about, a gap where the rest does.

    Raises:
        DataError: unusable arrays or a column of another length.
    """
    rows = check_predictions(true, probabilities, classes, malignant=malignant, predicted=predicted)
    codes = check_groups(groups, len(rows))
    # One set of resamples for all cells: (n, replicates) as single bytes, 2 MB for 2,000 rows.
    drawn = np.concatenate([w.astype(np.uint8) for w in resampled_weights(codes, replicates, seed)], axis=1)
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in columns.items():
        names = _names(column, values, len(rows))
        found, sizes = np.unique(names, return_counts=True)
        counts = {str(name): int(size) for name, size in zip(found, sizes, strict=True)}
        report[column] = {name: _cell(rows, codes, names == name, drawn, minimum_rows) for name in in_order(counts)}
    return report


def _cell(
    rows: Scored, codes: IntArray, inside: BoolArray, drawn: npt.NDArray[np.uint8], minimum_rows: int
) -> dict[str, Any]:
    n = int(inside.sum())
    head = {"n": n, "lesions": count_groups(codes, inside), "withheld": n < minimum_rows}
    if head["withheld"]:
        return head
    cell, rest = rows.take(inside), rows.take(~inside)
    shared = _shared_classes(cell, rest)
    cell_found, cell_estimate = _bootstrap(cell, drawn[inside], shared)
    compared = len(rest) >= minimum_rows
    if compared:
        rest_found, rest_estimate = _bootstrap(rest, drawn[~inside], shared)
    bases = proportion_bases(cell)
    metrics: dict[str, Any] = {}
    for metric in shown("subgroups", rows.labels):
        if metric.path[0] == MALIGNANT and not rows.has_malignant:
            continue
        if not _enough(metric, cell) or (metric.key == "balanced_accuracy" and len(shared) < 2):
            metrics[metric.key] = None
            continue
        base = bases.get(metric.path)
        trials = None if base is None else count_groups(codes[inside], base)
        value = float(cell_estimate[metric.path][0])
        entry: dict[str, Any] = {
            "value": value,
            "ci95": interval(cell_found[metric.path], value, trials=trials),
            "gap": None,
            "gap_ci95": None,
        }
        if compared and _enough(metric, rest):
            gap = value - float(rest_estimate[metric.path][0])
            entry["gap"] = gap
            entry["gap_ci95"] = interval(cell_found[metric.path] - rest_found[metric.path], gap)
        metrics[metric.key] = entry
    metrics["ece"] = _ece(cell)
    return {**head, "classes": [rows.classes[c] for c in shared], "metrics": metrics}


def _enough(metric: Metric, part: Scored) -> bool:
    """Whether a side holds enough rows of what a metric is about: its class, or malignant and benign ones."""
    if len(metric.path) == 1:
        return True
    base = proportion_bases(part).get(metric.path)
    needed = [part.is_malignant, ~part.is_malignant] if base is None else [base]
    return all(int(mask.sum()) >= MINIMUM_CLASS for mask in needed)


def _bootstrap(part: Scored, drawn: npt.NDArray[np.uint8], shared: IntArray) -> tuple[Measures, Measures]:
    """Return every metric of one side: (replicates, estimate), balanced accuracy over the shared classes."""
    engine = WeightedMetrics(part, per_class_scores=False)
    # A replicate that drew no lesion of this side has no metrics: NaN, not a division by zero.
    drew = np.flatnonzero(drawn.any(axis=0))
    found: Measures = {}
    parts = math.ceil(max(drawn.size, 1) / _WEIGHTS)  # one, but for tens of thousands of rows
    for columns in np.array_split(drew, parts):
        measured = _restrict(engine.measure(drawn[:, columns].astype(np.float64)), part, shared)
        for path, values in measured.items():
            found.setdefault(path, np.full(drawn.shape[1], np.nan))[columns] = values
    return found, _restrict(engine.measure(np.ones((len(part), 1))), part, shared)


def _restrict(found: Measures, part: Scored, shared: IntArray) -> Measures:
    if len(shared):
        recalls: list[FloatArray] = [found[("per_class", part.classes[c], "recall")] for c in shared]
        found[("balanced_accuracy",)] = mean_defined(np.stack(recalls))
    return found


def _shared_classes(cell: Scored, rest: Scored) -> IntArray:
    k = len(cell.classes)
    enough = np.bincount(cell.true, minlength=k) >= MINIMUM_CLASS
    if len(rest):
        enough &= np.bincount(rest.true, minlength=k) >= MINIMUM_CLASS
    return np.flatnonzero(enough).astype(np.int64)


def _ece(part: Scored) -> dict[str, Any]:
    bins = max(1, min(BINS, len(part) // ROWS_PER_BIN))
    top = part.probabilities.max(axis=1)
    right = part.probabilities.argmax(axis=1) == part.true
    return {
        "value": expected_calibration_error(top, right, bins=bins),
        "if_calibrated": ece_if_calibrated(top, bins=bins),
        "bins": bins,
    }


def _names(column: str, values: npt.ArrayLike, n: int) -> npt.NDArray[np.str_]:
    array = np.asarray(values)
    if array.shape != (n,):
        raise DataError(f"The column {column!r} has shape {array.shape}; expected one value for each of {n:,} rows.")
    return np.where(missing(array), "unknown", array.astype(str))
