"""Does the heatmap lie on the lesion? Grad-CAM judged by lesion masks, against looking nowhere and at the centre.

Measures: the share of the heatmap's energy inside the mask (Wang et al., "Score-CAM", CVPR Workshops 2020, section
4.3) and the pointing game: whether the hottest point lies in the mask, or within a tolerance of it (Zhang et al.,
"Top-down neural attention by excitation backprop", ECCV 2016: 15 pixels of images about 500 wide).

Baselines: ``centre``, a Gaussian in the middle of the image (lesions are photographed there, so that this is the
one to beat), and ``random``, a point anywhere, whose expected values follow from the mask alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermafuse.errors import DataError, ImageError
from dermafuse.evaluation.predictions import BoolArray, FloatArray, IntArray, check_groups
from dermafuse.evaluation.resampling import interval, resampled_weights
from dermafuse.runtime.explain.explainer import stretch

#: Masks are reduced to this width before they are compared: finer than any heatmap.
_WIDTH: Final = 200
#: Tolerance of the pointing game, in widths of the image: 15 of 500 pixels.
TOLERANCE: Final = 0.03
#: Standard deviation of the centre baseline, in sides of the image.
CENTRE_SIGMA: Final = 0.2

_MEASURES: Final = ("energy", "pointing")
_KINDS: Final = ("model", "centre", "random")


def find_masks(root: Path) -> dict[str, Path]:
    """Return image id -> path of its mask, for all ``<image id>_segmentation.png`` below a folder."""
    return {path.name.removesuffix("_segmentation.png"): path for path in sorted(root.rglob("*_segmentation.png"))}


def load_mask(path: Path) -> BoolArray:
    """Return a mask as (h, 200) booleans, True on the lesion, in the proportions of its image.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"The mask {path} cannot be read ({error}); replace it or take it away.") from error
    height = max(1, round(grey.height * _WIDTH / grey.width))
    small = grey.resize((_WIDTH, height), Image.Resampling.BOX)
    return np.asarray(small) > 127


def energy_inside(heatmap: npt.ArrayLike, mask: BoolArray) -> float:
    """Return the share of a heatmap's energy inside a mask, 0..1; NaN where the heatmap is 0 everywhere.

    Args:
        heatmap: (h, w) of any size, at or above 0, over the whole image; stretched to the mask (bilinear).
        mask: (H, W).
    """
    heat = _stretched(heatmap, mask)
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total > 0 else float("nan")


def points_inside(heatmap: npt.ArrayLike, mask: BoolArray, tolerance: float = TOLERANCE) -> float:
    """Return 1 where the hottest point of a heatmap lies in the mask or near it, else 0; NaN for a heatmap of 0.

    Args:
        heatmap: (h, w) of any size. Of several hottest points, the mean of their hits.
        mask: (H, W).
        tolerance: distance allowed, in widths of the mask.
    """
    heat = _stretched(heatmap, mask)
    peak = heat.max()
    if not peak > 0:
        return float("nan")
    return float(_near(mask, tolerance)[heat >= peak].mean())


def explanation_quality(
    heatmaps: Callable[[int], npt.ArrayLike] | Sequence[npt.ArrayLike],
    masks: Sequence[Path],
    groups: npt.ArrayLike | None,
    *,
    labels: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
    replicates: int = 2000,
    seed: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Judge the heatmaps of n images by their masks.

    Args:
        heatmaps: the n heatmaps, or a function from 0..n-1 to one: (h, w), at or above 0, over the whole image, as
            ``Explanation.heatmap`` is.
        masks: n paths of masks.
        groups: (n,) lesion ids for the cluster bootstrap; ``None``: each image by itself.
        labels: (n,) class codes; with them, results by class.
        tolerance: of the pointing game, in widths of the image.
        replicates: of the bootstrap, at least 40.
        seed: of the resamples.
        advance: called with 1 after each image.

    Returns:
        ``{"n", "empty_heatmaps", "empty_masks", "lesion_area", "tolerance", "energy", "pointing", "per_class"}``.
        ``energy`` and ``pointing`` hold ``model``, ``centre``, ``random``, ``model_minus_centre`` and
        ``model_minus_random``, each ``{"value", "ci95"}``. ``per_class``: code -> ``{"n", "energy", "pointing"}``,
        likewise. ``n`` counts the images that are judged: those with a heatmap and a mask that are not empty.

    Raises:
        DataError: nothing to judge, or arrays of different length. ImageError: a mask cannot be read.
    """
    n = len(masks)
    if labels is not None and len(labels) != n:
        raise DataError(f"There are {n:,} masks and {len(labels):,} labels; pass one of each an image.")
    codes = check_groups(groups, n)
    heat_of = heatmaps if callable(heatmaps) else heatmaps.__getitem__
    values = {(measure, kind): np.full(n, np.nan) for measure in _MEASURES for kind in _KINDS}
    area = np.full(n, np.nan)
    empty_masks = 0
    for row in range(n):
        mask = load_mask(masks[row])
        advance(1)
        if not mask.any():
            empty_masks += 1
            continue
        near = _near(mask, tolerance)
        area[row] = mask.mean()
        centre = centre_gaussian(mask.shape)
        heat = heat_of(row)
        values["energy", "model"][row] = energy_inside(heat, mask)
        values["pointing", "model"][row] = points_inside(heat, mask, tolerance)
        values["energy", "centre"][row] = energy_inside(centre, mask)
        values["pointing", "centre"][row] = points_inside(centre, mask, tolerance)
        values["energy", "random"][row] = area[row]
        values["pointing", "random"][row] = near.mean()
    good = ~np.isnan(values["energy", "model"])
    if not good.any():
        raise DataError(f"None of {n:,} images has both a heatmap and a lesion mask; there is nothing to judge.")
    empty_heatmaps = int((~np.isnan(area) & ~good).sum())
    judge = _Judge({key: column[good] for key, column in values.items()}, codes[good], replicates, seed)
    whole = np.ones(int(good.sum()), dtype=np.bool_)
    result: dict[str, Any] = {
        "n": int(good.sum()),
        "empty_heatmaps": empty_heatmaps,
        "empty_masks": empty_masks,
        "lesion_area": float(area[good].mean()),
        "tolerance": tolerance,
        **judge(whole),
        "per_class": {},
    }
    if labels is not None:
        named = np.asarray(labels, dtype=str)[good]
        for code in sorted(set(named)):
            result["per_class"][str(code)] = {"n": int((named == code).sum()), **judge(named == code)}
    return result


class _Judge:
    """Means of all measures with their intervals, over chosen rows."""

    def __init__(
        self, values: Mapping[tuple[str, str], FloatArray], groups: IntArray, replicates: int, seed: int
    ) -> None:
        self._values = values
        _, numbered = np.unique(groups, return_inverse=True)
        chunks = resampled_weights(numbered.astype(np.int64), replicates, seed)
        self._weights = np.concatenate([chunk.astype(np.uint8) for chunk in chunks], axis=1)  # (n, r)

    def __call__(self, rows: BoolArray) -> dict[str, Any]:
        weights = self._weights[rows].astype(np.float64)
        total = weights.sum(axis=0)
        weights = weights[:, total > 0] / total[total > 0]
        return {measure: self._measure(measure, rows, weights) for measure in _MEASURES}

    def _measure(self, measure: str, rows: BoolArray, weights: FloatArray) -> dict[str, Any]:
        columns = {kind: self._values[measure, kind][rows] for kind in _KINDS}
        columns["model_minus_centre"] = columns["model"] - columns["centre"]
        columns["model_minus_random"] = columns["model"] - columns["random"]
        return {
            name: {"value": float(column.mean()), "ci95": interval(column @ weights, float(column.mean()))}
            for name, column in columns.items()
        }


def centre_gaussian(shape: tuple[int, ...]) -> FloatArray:
    """Return the centre baseline (h, w): a Gaussian as wide and high as the image's sides ask."""
    height, width = shape
    down = ((np.arange(height) + 0.5) / height - 0.5) / CENTRE_SIGMA
    across = ((np.arange(width) + 0.5) / width - 0.5) / CENTRE_SIGMA
    return np.asarray(np.exp(-0.5 * np.square(down))[:, None] * np.exp(-0.5 * np.square(across)), dtype=np.float64)


def _near(mask: BoolArray, tolerance: float) -> BoolArray:
    """Return the points within ``tolerance`` (in widths) of the mask."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    distance = np.asarray(distance_transform_edt(~mask))
    return np.asarray(distance <= tolerance * mask.shape[1], dtype=np.bool_)


def _stretched(heatmap: npt.ArrayLike, mask: BoolArray) -> FloatArray:
    heat = np.asarray(heatmap, dtype=np.float64)
    if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all() or heat.min() < 0:
        raise DataError(f"A heatmap has shape {heat.shape}; pass finite values at or above 0, (height, width).")
    return stretch(heat, mask.shape)
