"""What the data alone decide, before TensorFlow is loaded or an image computed: which rows do what; what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import pandas as pd

from dermafuse.data.images import size_of
from dermafuse.data.readers.given_split import given_folds, given_split
from dermafuse.data.records import Records
from dermafuse.data.splits import Split, check_training_side, make_folds, make_split, refuse_one_class
from dermafuse.errors import DataError, ImageError, examples
from dermafuse.models.specs import spec
from dermafuse.training.config import TrainConfig
from dermafuse.training.recipes import AFFORDABLE_SIZE, DEFAULT_RECIPE


def choose_split(records: Records, config: TrainConfig, fold: int | None) -> Split:
    """Return one 80/20 split, or fold ``fold`` (from 0) of ``config.folds``: as the data give it, else drawn.

    Raises:
        DataError: nothing can be learned from these data: all images show one class, a class has too few lesions for
            validation, tuning and training rows, or too many rows are known to be unusable.
        ConfigError: the data give another number of folds.
    """
    refuse_one_class(records)
    refuse_too_many_bad(records.skipped, len(records) + len(records.skipped), config.max_bad)
    given = given_split(records) if fold is None else given_folds(records, config.folds)
    if given is None:
        return draw_split(records, config, fold)
    for split in [given] if isinstance(given, Split) else given:
        check_training_side(records, split.train, _train_parts(config))
    return given if isinstance(given, Split) else given[fold or 0]


def draw_split(records: Records, config: TrainConfig, fold: int | None = None) -> Split:
    """Return a split that is drawn, whatever the data give.

    Raises:
        DataError: a class has too few lesions for validation, tuning and training rows.
    """
    how: dict[str, Any] = {"by": config.split, "seed": config.seed, "train_parts": _train_parts(config)}
    if fold is None:
        return make_split(records, fraction=config.validation_fraction, **how)
    return make_folds(records, k=config.folds, **how)[fold]


def _train_parts(config: TrainConfig) -> int:
    """Return into how many parts the training side is divided again, by lesion."""
    return config.member_folds if config.members else 2 if config.tuning_fraction > 0 else 1


def refuse_too_many_bad(skipped: pd.DataFrame, total: int, limit: float) -> None:
    """Stop where more than ``limit`` (share) of ``total`` rows are unusable.

    Raises:
        DataError: with the count, the first reasons and what to do.
    """
    if len(skipped) > limit * total:
        reasons = [f"{row.image_id}: {row.reason}" for row in skipped.head(3).itertuples()]
        raise DataError(
            f"{len(skipped):,} of {total:,} rows are unusable ({examples(reasons, len(skipped))}), more than "
            f"max_bad={limit:.0%}; mend them, or allow more with --set max_bad={len(skipped) / total + 0.005:.2f}."
        )


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
