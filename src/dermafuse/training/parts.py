"""The trainings that one command stands for: the folds of a cross-validation, the members of an ensemble.

Each is a task of its own, which any process can do from the settings and the data alone; no TensorFlow here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermafuse.data.records import Records
from dermafuse.data.splits import Split, make_folds
from dermafuse.training.config import TrainConfig
from dermafuse.training.first_look import choose_split


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        name: of its folder: backbone and part.
        backbone: of it.
        part: which part of the training lesions it holds out, from 1.
        config: its own settings.
        tuning: int64, the rows of the data that it holds out.
    """

    name: str
    backbone: str
    part: int
    config: TrainConfig
    tuning: NDArray[np.int64]


def members_of(config: TrainConfig, records: Records, split: Split) -> Iterator[Member]:
    """Yield the members of an ensemble, in order."""
    inner = make_folds(records.subset(split.train), by="lesion", k=config.member_folds, seed=config.seed + 1)
    for backbone in config.members:
        for number, part in enumerate(inner, start=1):
            update = {"backbone": backbone, "members": (), "report": False, "seed": config.seed + number}
            own = config.model_copy(update=update)
            yield Member(f"{backbone}-{number}", backbone, number, own, split.train[part.validation])


def trainings_of(
    config: TrainConfig, records: Records
) -> Iterator[tuple[TrainConfig, Split, NDArray[np.int64] | None]]:
    """Yield settings, split and held-out rows (``None``: drawn) of every network that a command trains."""
    for fold in range(config.folds) if config.folds else [None]:
        split = choose_split(records, config, fold)
        if not config.members:
            yield config, split, None
        else:
            yield from ((each.config, split, each.tuning) for each in members_of(config, records, split))
