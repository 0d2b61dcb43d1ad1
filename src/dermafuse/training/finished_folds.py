"""A finished cross-validation as ``release`` needs it; what cannot be released is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermafuse.errors import ConfigError
from dermafuse.files import nearest_path
from dermafuse.runs import CONFIG, METRICS, read_metrics
from dermafuse.training.config import TrainConfig, resolve


@dataclass(frozen=True)
class FinishedFolds:
    """What ``train --folds K`` left.

    Attributes:
        folder: of the cross-validation.
        config: its settings, for one training on all lesions.
        metrics: content of its ``metrics.json``.
        training: the part ``training`` of each fold's metrics.
    """

    folder: Path
    config: TrainConfig
    metrics: Mapping[str, Any]
    training: Sequence[Mapping[str, Any]]


def read_folds(folder: Path) -> FinishedFolds:
    """Read a finished cross-validation whose recipe can be trained once more on all lesions.

    Raises:
        ConfigError: no finished cross-validation, one of an ensemble, or one of a recipe without tuning rows.
    """
    if not (folder / METRICS).is_file():
        near = nearest_path(folder)
        raise ConfigError(f"{folder} is no finished cross-validation; make one with train --folds 5.{near}")
    metrics = read_metrics(folder)
    config = resolve(file=folder / CONFIG)
    if "folds" in metrics and config.members:
        raise ConfigError(
            f"{folder} is a cross-validation of an ensemble ({len(config.members)} x {config.member_folds} networks), "
            "and release trains one network, to which the figures of the ensemble would not belong; give away the "
            f"bundle of an ensemble itself: {folder / 'fold-1' / 'model'}, or that of train --recipe {config.recipe} "
            "without --folds."
        )
    if "folds" not in metrics or config.tuning_fraction == 0:
        raise ConfigError(
            f"{folder} is no cross-validation, or one of a recipe without tuning rows, so nothing can calibrate the "
            "released model; make one with train --folds 5."
        )
    parts = [read_metrics(folder / f"fold-{number}") for number in range(1, config.folds + 1)]
    # Nothing is held out, so nothing can choose an epoch: all are trained.
    whole = config.model_copy(update={"folds": 0, "tuning_fraction": 0.0, "monitor": "last"})
    return FinishedFolds(folder, whole, metrics, [part["training"] for part in parts])
