"""The example gallery: the most confident right and wrong predictions of each class, with where the model looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.data.images import load_image
from dermafuse.errors import DermafuseError, ImageError
from dermafuse.evaluation.predictions import Scored
from dermafuse.progress import Reporter
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.explain.explainer import Explainer
from dermafuse.runtime.explain.overlay import blend, upright
from dermafuse.runtime.predictor import Predictor

#: Examples of each kind and class.
EACH: Final = 3
#: Missed ones on the first screen.
MISSED: Final = 6
_LONGEST: Final = 168
_QUALITY: Final = 76


@dataclass(frozen=True)
class Example:
    """One image of the gallery.

    Attributes:
        row: position in the rows.
        size: width and height of the pictures in pixels, for the page to keep their place free.
        picture: JPEG as a ``data:`` address.
        heatmap: the image under its Grad-CAM for the predicted class, likewise; ``None`` without a model.
    """

    row: int
    size: tuple[int, int]
    picture: str
    heatmap: str | None


@dataclass(frozen=True)
class Gallery:
    """Examples by class: ``right`` and ``wrong`` hold up to `EACH` a true class; ``note`` says what is missing.

    ``missed`` are those of `choose_missed`, without heatmaps.
    """

    right: Mapping[str, Sequence[Example]]
    wrong: Mapping[str, Sequence[Example]]
    missed: Sequence[Example]
    note: str

    @property
    def heatmaps(self) -> bool:
        """Whether some example has one."""
        return any(it.heatmap for part in (self.right, self.wrong) for listed in part.values() for it in listed)


def choose_examples(rows: Scored, each: int = EACH) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return, for each true class, the rows most confidently right and most confidently wrong, one a lesion.

    Confidence is the probability of the decision. Of equals the first in the file comes first.
    """
    said = rows.probabilities[np.arange(len(rows)), rows.predicted]
    order = np.argsort(-said, kind="stable")
    chosen: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    for position, code in enumerate(rows.classes):
        for found, hit in zip(chosen, (True, False), strict=True):
            seen: set[str] = set()
            listed: list[int] = []
            for row in order[(rows.true[order] == position) & ((rows.predicted[order] == position) == hit)]:
                if rows.lesion_id[row] not in seen and len(listed) < each:
                    seen.add(rows.lesion_id[row])
                    listed.append(int(row))
            found[code] = listed
    return chosen


def choose_missed(rows: Scored, limit: int = MISSED) -> list[int]:
    """Return the malignant rows most confidently called benign, one a lesion; none where no class is malignant.

    Where only a critical class is named, those of it that are called something else.
    """
    if rows.has_malignant:
        lost = rows.is_malignant & ~rows.malignant[rows.predicted]
    elif rows.labels.critical is not None:
        own = rows.classes.index(rows.labels.critical)
        lost = (rows.true == own) & (rows.predicted != own)
    else:
        return []
    found: dict[Any, int] = {}
    for row in np.argsort(-rows.probabilities[np.arange(len(rows)), rows.predicted], kind="stable"):
        if lost[row]:
            found.setdefault(rows.lesion_id[row], int(row))
    return list(found.values())[:limit]


def make_gallery(
    rows: Scored, records: pd.DataFrame, bundles: Mapping[int, Path | Predictor], report: Reporter
) -> Gallery:
    """Return the gallery of some rows.

    Args:
        rows: the reported rows.
        records: their records, in the same order (``path`` and the metadata).
        bundles: fold (0 where there are none) -> the model that made the prediction, or its folder; folds
            without one get no heatmap.
        report: who is told the progress.
    """
    right, wrong = choose_examples(rows)
    models = _Models(bundles)
    pictures: dict[int, Example] = {}
    notes = []
    wanted = [row for part in (right, wrong) for listed in part.values() for row in listed]
    with report.bar("Explaining the examples", len(wanted), "images") as advance:
        # Fold by fold: each model is compiled once.
        for row in sorted(wanted, key=lambda row: (rows.fold[row], row)):
            try:
                predicted = rows.classes[rows.predicted[row]]
                pictures[row] = _example(row, predicted, records.iloc[row], models.explainer(int(rows.fold[row])))
            except ImageError as error:
                notes.append(str(error))
            advance(1)
    notes += models.notes
    missed = []
    for row in choose_missed(rows):
        try:
            missed.append(pictures.get(row) or _example(row, "", records.iloc[row], None))
        except ImageError as error:
            notes.append(str(error))

    def shown(part: Mapping[str, Sequence[int]]) -> dict[str, list[Example]]:
        return {code: [pictures[row] for row in listed if row in pictures] for code, listed in part.items()}

    return Gallery(shown(right), shown(wrong), missed, " ".join(dict.fromkeys(notes)))


class _Models:
    """The explainers of the folds, made when first asked for, one held at a time."""

    def __init__(self, bundles: Mapping[int, Path | Predictor]) -> None:
        self._bundles = bundles
        self._held: tuple[int, tuple[Explainer, Predictor] | None] | None = None
        self.notes: list[str] = []

    def explainer(self, fold: int) -> tuple[Explainer, Predictor] | None:
        if self._held is None or self._held[0] != fold:
            self._held = (fold, self._make(fold))
        return self._held[1]

    def _make(self, fold: int) -> tuple[Explainer, Predictor] | None:
        source = self._bundles.get(fold)
        if source is None:
            self.notes.append("The model is not beside the run, so there are no heatmaps.")
            return None
        try:
            predictor = source if isinstance(source, Predictor) else Predictor(read_bundle(source))
            return Explainer(predictor), predictor
        except DermafuseError as error:
            self.notes.append(f"No heatmaps: {error}")
            return None


def picture(path: Path | str) -> tuple[str, tuple[int, int]]:
    """Return a thumbnail of an image file as a ``data:`` address, and its width and height in pixels.

    Raises:
        ImageError: the file cannot be read.
    """
    pixels = upright(path, _LONGEST)
    return _jpeg(pixels), (pixels.shape[1], pixels.shape[0])


def _example(row: int, predicted: str, record: pd.Series, model: tuple[Explainer, Predictor] | None) -> Example:
    path = record["path"]
    pixels = upright(path, _LONGEST)
    size = (pixels.shape[1], pixels.shape[0])
    if model is None:
        return Example(row, size, _jpeg(pixels), None)
    explainer, predictor = model
    known: dict[str, Any] = {
        name: record[name] for name in predictor.fields if name in record.index and not pd.isna(record[name])
    }
    found = explainer.explain(load_image(path, predictor.bundle.image_size), target=predicted, what_if=False, **known)
    return Example(row, size, _jpeg(pixels), _jpeg(blend(pixels, found.heatmap)))


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
