"""Two or more models judged on the same images: paired differences, tests, and the images that changed sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dermafuse.errors import DataError, examples
from dermafuse.evaluation.intervals import paired
from dermafuse.evaluation.metrics import block_of
from dermafuse.evaluation.paired_tests import delong, holm, mcnemar
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.evaluation.predictions import Scored
from dermafuse.files import nearest_path
from dermafuse.runs import RunFolder

#: How an image changed from the first model to another.
CHANGES: Final = ("gained", "lost", "other")


@dataclass(frozen=True, eq=False)
class Judged:
    """The reported predictions of one model: where they come from, and the rows in order of image id."""

    name: str
    path: Path
    rows: Scored


def read_judged(path: Path) -> Judged:
    """Read the reported predictions of a RUN, a folder of folds, an evaluation, or a ``predictions.csv``.

    Raises:
        DataError: it is none of these, or an image stands in it twice.
    """
    path = Path(path)
    if path.is_dir():
        run = RunFolder.open(path)
        split, rows = run.reported, run.rows.get(run.reported)
    elif path.suffix.lower() == ".csv":
        parts = read_rows(path, _classes_of(path))
        split = next((name for name in ("test", "validation") if name in parts), "")
        rows = parts.get(split)
    else:
        state = "is no predictions.csv" if path.exists() else "does not exist"
        raise DataError(
            f"{path} {state}; name RUN folders, folders of folds, evaluations or predictions.csv files."
            f"{nearest_path(path)}"
        )
    if rows is None:
        raise DataError(f"{path} holds no predictions of split '{split or 'validation'}'; repeat the run.")
    order = np.argsort(rows.image_id.astype(str), kind="stable")
    rows = rows.take(order)
    twice = [name for name, later in zip(rows.image_id[:-1], rows.image_id[1:], strict=True) if name == later]
    if twice:
        raise DataError(f"{path}: {len(twice):,} image(s) stand in the predictions twice ({examples(twice)}).")
    return Judged(str(path), path, rows)


def compare(judged: Sequence[Judged], *, replicates: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Compare models with the first of them, on the same rows.

    Args:
        judged: two or more, from `read_judged`; the first is the base.
        replicates: of the bootstrap over lesions.
        seed: of the bootstrap.

    Returns:
        ``base``, ``base_metrics``, ``images``, ``lesions``, ``classes`` and ``compared``: for each other model
        ``name``, ``metrics``, ``differences`` (the shape of the metrics block; each leaf ``{"difference", "low",
        "high", "p", "p_holm", "holds_zero"}``, the model minus the base), ``mcnemar`` (A: the base), ``delong`` (one
        test a class, the class against the rest) and ``changed`` (counts of `CHANGES`). ``p_holm`` is corrected for
        the number of models compared (one: equal to ``p``); that of DeLong's tests for models times classes.

    Raises:
        DataError: fewer than two models, or rows, classes, labels or lesions that differ.
    """
    if len(judged) < 2:
        raise DataError("Name at least two runs to compare.")
    base, *others = judged
    fitting = [aligned(base, other) for other in others]  # all of them, before the first takes its seconds
    compared = [
        _compared(base.rows, other.name, rows, replicates, seed) for other, rows in zip(others, fitting, strict=True)
    ]
    for same_metric in zip(*(leaves(entry["differences"]) for entry in compared), strict=True):
        _correct_family(list(same_metric))
    _correct_family([entry["mcnemar"] for entry in compared])
    _correct_family([test for entry in compared for test in entry["delong"].values()])
    return {
        "base": base.name,
        "base_metrics": block_of(base.rows),
        "images": len(base.rows),
        "lesions": base.rows.lesions,
        "classes": list(base.rows.classes),
        "compared": compared,
    }


def aligned(base: Judged, other: Judged) -> Scored:
    """Return the rows of ``other`` with the classes in the order of ``base``.

    Raises:
        DataError: images, labels, lesions or classes differ; says which and what to do.
    """
    a, b = base.rows, other.rows
    if set(a.classes) != set(b.classes):
        raise DataError(
            f"{base.name} has the classes {', '.join(a.classes)} and {other.name} {', '.join(b.classes)}; "
            "compare models of the same classes."
        )
    if not np.array_equal(a.image_id, b.image_id):
        here, there = set(a.image_id), set(b.image_id)
        raise DataError(
            f"{base.name} and {other.name} are judged on different images ({len(here & there):,} in both, "
            f"{len(here - there):,} and {len(there - here):,} in one alone: {examples(sorted(here ^ there))}); compare "
            "runs of the same data, split and seed, or evaluate both on one data set."
        )
    order = [b.classes.index(code) for code in a.classes]
    place = np.argsort(order)
    b = replace(
        b, labels=a.labels, true=place[b.true], predicted=place[b.predicted], probabilities=b.probabilities[:, order]
    )
    for what, mine, theirs in (("labels", a.true, b.true), ("lesion ids", a.lesion_id, b.lesion_id)):
        differ = np.flatnonzero(mine != theirs)
        if len(differ):
            raise DataError(
                f"{base.name} and {other.name} have different {what} for {len(differ):,} image(s) "
                f"({examples(a.image_id[differ])}); compare runs of the same table."
            )
    return b


def changed_images(base: Scored, other: Scored) -> pd.DataFrame:
    """Return the images whose decision changed, of `aligned` rows.

    Columns: ``change`` (see `CHANGES`), ``image_id``, ``lesion_id``, ``true``, ``base`` and ``other`` (decisions),
    ``base_p`` and ``other_p`` (probability of the true class, 0..1). By change, then by how far that moved.
    """
    codes = np.array(base.classes)
    every = np.arange(len(base))
    right, was_right = other.predicted == base.true, base.predicted == base.true
    table = pd.DataFrame(
        {
            "change": pd.Categorical(np.select([right, was_right], CHANGES[:2], CHANGES[2]), CHANGES, ordered=True),
            "image_id": base.image_id,
            "lesion_id": base.lesion_id,
            "true": codes[base.true],
            "base": codes[base.predicted],
            "other": codes[other.predicted],
            "base_p": base.probabilities[every, base.true],
            "other_p": other.probabilities[every, base.true],
        }
    )[base.predicted != other.predicted]
    order = table.assign(moved=(table["base_p"] - table["other_p"]).abs())
    order = order.sort_values(["change", "moved", "image_id"], ascending=[True, False, True])
    changed: pd.DataFrame = table.loc[order.index].reset_index(drop=True)
    return changed


def _classes_of(path: Path) -> tuple[str, ...]:
    try:
        header = list(pd.read_csv(path, nrows=0).columns)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); name a predictions.csv.") from error
    return tuple(name.removeprefix("p_") for name in header if name.startswith("p_"))


def _compared(base: Scored, name: str, other: Scored, replicates: int, seed: int) -> dict[str, Any]:
    differences = paired(other, base, replicates=replicates, seed=seed)
    for leaf in leaves(differences):
        low, high = leaf["low"], leaf["high"]
        leaf["holds_zero"] = None if low is None or high is None else bool(low <= 0.0 <= high)
    counts = changed_images(base, other)["change"].value_counts()
    return {
        "name": name,
        "metrics": block_of(other),
        "differences": differences,
        "mcnemar": mcnemar(base.predicted == base.true, other.predicted == base.true),
        "delong": {
            code: delong(base.probabilities[:, c], other.probabilities[:, c], base.true == c)
            for c, code in enumerate(base.classes)
        },
        "changed": {change: int(counts.get(change, 0)) for change in CHANGES},
    }


def leaves(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the differences of a tree of metrics, in their order."""
    found: list[dict[str, Any]] = []
    for value in tree.values():
        if isinstance(value, dict):
            found += [value] if "difference" in value else leaves(value)
    return found


def _correct_family(tests: list[dict[str, Any]]) -> None:
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
