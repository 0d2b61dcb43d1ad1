"""DF003: columns that give the diagnosis away.

How well a column alone predicts is measured across two halves of the lesions: class shares of each value are
learned on one half (with one count of the overall shares added) and scored by log loss on the other. The share of
the label's uncertainty that this removes is an estimate of the normalised mutual information (Theil's uncertainty
coefficient) that many rare values cannot inflate, as they do the plug-in estimate.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding

CODE: Final = "DF003"
TITLE: Final = "Columns that give the diagnosis away"

#: Share of the label's uncertainty, 0..1, from which a column is named whatever its values.
_TELLING: Final = 0.25
#: ... and from which one that describes the picture-taking, not the patient, is.
_SHORTCUT: Final = 0.05
#: A value decides the class where it holds for this many images and nearly all of them are of one class.
_DECIDES_IMAGES: Final = 30
_DECIDES_SHARE: Final = 0.99
_BINS: Final = 10

#: Decided with or after the diagnosis, or properties of the camera: not facts about the patient.
_NOT_CLINICAL: Final = ("dx_type", "source", "image size")
_NEVER: Final = frozenset({"image_id", "lesion_id", "label", "path"})


def check(given: Given) -> Finding | None:
    """Return the columns that alone predict the label too well."""
    labels = given.table["label"]
    rows = labels.notna().to_numpy()
    if labels[rows].nunique() < 2:
        return None
    halves = np.array([hashlib.sha256(str(x).encode()).digest()[1] & 1 for x in given.table["lesion_id"]])
    codes, names = pd.factorize(labels[rows], sort=True)
    measured = {}
    for name, values in _columns(given).items():
        figures = _measure(values[rows], codes.astype(np.int64), list(map(str, names)), halves[rows])
        if figures is not None:
            measured[name] = figures
    flagged = [name for name, figures in measured.items() if _gives_away(name, figures)]
    if not flagged:
        return None
    used = [name for name in flagged if name in given.features]
    said = "; ".join(_sentence(name, measured[name]) for name in flagged)
    action = "Never use these columns as inputs."
    if "dx_type" in flagged:
        action = "Never use dx_type as an input (dermafuse does not): it was decided with the diagnosis."
    if used:
        action = f"Take {', '.join(used)} out of the features unless it is known before the diagnosis is."
    if set(flagged) & {"source", "image size"}:
        action += " Report results by image source: a model can learn the camera instead of the lesion."
    explanation = f"{said}. A model that sees such a column scores well and has learned nothing about skin."
    return Finding(
        CODE,
        TITLE,
        "error" if used else "warning",
        explanation,
        action,
        {"flagged": flagged, "used_as_feature": used, "columns": measured},
    )


def _columns(given: Given) -> dict[str, npt.NDArray[Any]]:
    """Return name -> (n,) values as text, numbers in tenths of their range; columns without values left out."""
    found = {}
    for name in given.table.columns:
        if name in _NEVER:
            continue
        column = given.table[name]
        if pd.api.types.is_float_dtype(column):
            if column.notna().any():
                edges = np.unique(np.nanquantile(column, np.linspace(0, 1, _BINS + 1)[1:-1]))
                bins = np.digitize(column, edges).astype(str)
                found[str(name)] = np.where(column.isna(), "missing", bins)
        elif column.notna().any():
            found[str(name)] = column.fillna("missing").astype(str).to_numpy(dtype=object)
    if given.images is not None:
        sizes = given.images.sizes
        found["image size"] = np.array([f"{width}x{height}" for width, height in sizes], dtype=object)
    return found


def _measure(
    values: npt.NDArray[Any], labels: npt.NDArray[np.int64], names: list[str], halves: npt.NDArray[Any]
) -> dict[str, Any] | None:
    codes, words = pd.factorize(values)
    if len(words) < 2:
        return None
    k = len(names)
    counts = np.zeros((2, len(words), k))
    np.add.at(counts, (halves, codes, labels), 1.0)
    if not counts.sum(axis=(1, 2)).all():
        return None
    loss = blind = right = 0.0
    for half in (0, 1):
        learned = counts[1 - half]
        prior = (learned.sum(axis=0) + 1.0) / (learned.sum() + k)
        shares = (learned + prior) / (learned.sum(axis=1, keepdims=True) + 1.0)
        loss -= float((counts[half] * np.log(shares)).sum())
        blind -= float((counts[half] * np.log(prior)).sum())
        right += float(counts[half][np.arange(len(words)), shares.argmax(axis=1)].sum())
    whole = counts.sum(axis=0)
    commonest = whole.sum(axis=0).max() / whole.sum()
    decided = {
        str(words[row]): {"class": names[int(whole[row].argmax())], "images": int(whole[row].sum())}
        for row in np.argsort(-whole.sum(axis=1), kind="stable")
        if whole[row].sum() >= _DECIDES_IMAGES
        and whole[row].max() >= _DECIDES_SHARE * whole[row].sum()
        and commonest < _DECIDES_SHARE - 0.1
    }
    return {
        "information": max(0.0, 1.0 - loss / blind),
        "accuracy_alone": right / float(whole.sum()),
        "accuracy_of_the_commonest_class": float(commonest),
        "values": len(words),
        "deciding_values": decided,
    }


def _gives_away(name: str, figures: dict[str, Any]) -> bool:
    if figures["information"] >= (_SHORTCUT if name in _NOT_CLINICAL else _TELLING):
        return True
    return bool(figures["deciding_values"]) and figures["information"] >= _SHORTCUT and name != "age"


def _sentence(name: str, figures: dict[str, Any]) -> str:
    text = f"'{name}' alone removes {figures['information']:.0%} of the uncertainty about the diagnosis"
    if figures["accuracy_alone"] > figures["accuracy_of_the_commonest_class"] + 0.02:
        text += (
            f" and predicts {figures['accuracy_alone']:.0%} of the images right "
            f"({figures['accuracy_of_the_commonest_class']:.0%} without it)"
        )
    sure = [f"'{v}' is always {f['class']} ({f['images']:,} images)" for v, f in figures["deciding_values"].items()]
    return (f"{text}: {', '.join(sure[:3])}" if sure else text).replace("%", " %")
