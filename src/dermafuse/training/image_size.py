"""``image_size=auto``: the side in pixels that fits the images, the backbone and the time that the recipe states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from dermafuse.data.images import size_of
from dermafuse.data.records import Records
from dermafuse.errors import ImageError
from dermafuse.models.specs import spec
from dermafuse.training.config import TrainConfig
from dermafuse.training.recipes import AFFORDABLE_SIZE, DEFAULT_RECIPE

#: Sides are multiples of this, so that every stage halves a whole number of pixels for as long as it can.
_STEP: Final = 16
#: So many images, evenly spaced, stand for all.
_LOOKED_AT: Final = 200
_SMALLEST: Final = 64


def with_image_size(config: TrainConfig, records: Records) -> TrainConfig:
    """Return ``config`` with a number for ``image_size=auto``: no more than

    - the recipe can pay for in the time that it states (``recipes.AFFORDABLE_SIZE``),
    - the backbone's ImageNet weights were trained at (the smallest of several backbones),
    - the images have: half of them are no longer than this on their longer side. Enlarged pixels cost and add nothing.
    """
    if config.image_size != "auto":
        return config
    native = min(spec(name).image_size for name in config.members or (config.backbone,))
    side = min(AFFORDABLE_SIZE.get(config.recipe, AFFORDABLE_SIZE[DEFAULT_RECIPE]), native)
    paths = [Path(path) for path in records.table["path"]]
    longer = _longer_sides(paths[:: max(1, len(paths) // _LOOKED_AT)])
    if longer:
        side = min(side, max(_SMALLEST, -(-int(median(longer)) // _STEP) * _STEP))
    return config.model_copy(update={"image_size": side})


def _longer_sides(paths: Sequence[Path]) -> list[int]:
    """Return the longer sides of the images that can be opened; reads their headers only."""
    sides = []
    for path in paths:
        try:
            sides.append(max(size_of(path)))
        except ImageError:
            continue  # what cannot be used is counted and listed where the images are read
    return sides
