"""Grad-CAM heatmaps of a model on images whose lesion masks are known, judged (`explanation_quality`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.records import Records
from dermafuse.errors import DataError
from dermafuse.evaluation.explanation_quality import explanation_quality, find_masks
from dermafuse.progress import Reporter, Silent
from dermafuse.runtime.batch.ordered import ordered_map
from dermafuse.runtime.explain.explainer import Explainer
from dermafuse.runtime.predictor import Predictor

#: Images judged: enough for intervals of a few hundredths.
IMAGES: Final = 500


def judge_heatmaps(
    predictor: Predictor,
    records: Records,
    masks: Path,
    *,
    images: int = IMAGES,
    seed: int = 0,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Return how well the heatmaps of the predicted classes lie on the lesions: the block ``explanation_quality``.

    Args:
        predictor: of the model.
        records: labelled rows that trained nothing; a sample of those with a mask is judged.
        masks: folder with ``<image id>_segmentation.png`` at any depth.
        images: how many at most.
        seed: of the sample and of the bootstrap.
        report: who is told the progress.

    Returns:
        As `explanation_quality`, with results by true class.

    Raises:
        DataError: no image has a mask. ImageError: an image or a mask cannot be read.
    """
    known = find_masks(masks)
    having = np.flatnonzero(records.table["image_id"].isin(known.keys()).to_numpy())
    if not len(having):
        raise DataError(
            f"{masks} holds no mask IMAGE_segmentation.png of any of {len(records):,} images; check the folder."
        )
    if len(having) > images:
        having = np.sort(np.random.default_rng(seed).choice(having, images, replace=False))
    chosen = records.subset(having)
    table = chosen.table
    explainer = Explainer(predictor)
    given = chosen.known([name for name in predictor.fields if name in table.columns])

    def look(row: tuple[str, dict[str, Any]]) -> npt.NDArray[np.float64]:
        path, known_fields = row
        return explainer.explain(path, what_if=False, **known_fields).cam

    with (report or Silent()).bar("Judging heatmaps by lesion masks", len(table), "images") as advance:
        heatmaps = []
        for heatmap in ordered_map(zip(table["path"], given, strict=True), look, workers=predictor.workers):
            heatmaps.append(heatmap)
            advance(1)
    return explanation_quality(
        heatmaps,
        [known[name] for name in table["image_id"]],
        table["lesion_id"].to_numpy(),
        labels=list(table["label"]),
        seed=seed,
    )
