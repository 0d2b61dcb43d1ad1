"""Soft labels from a teacher that did not learn from the rows it speaks about (distillation out of fold).

Hinton et al. 2015, "Distilling the knowledge in a neural network": a network learns the classes' probabilities of a
better one beside the labels. An ensemble of grouped folds predicts each of its training lesions by those members alone
that never saw it, so its answers there are as uncertain as they are on new lesions; a label that no member would give
counts less.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermafuse.data.records import Records
from dermafuse.errors import ConfigError, DataError, examples
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.evaluation.predictions import Scored
from dermafuse.runs import PREDICTIONS, read_metrics
from dermafuse.training.config import TrainConfig
from dermafuse.training.loop.sampling import class_draws


def soft_targets(
    train: Records, labels: NDArray[np.int64], judged: Records, config: TrainConfig
) -> NDArray[np.float32] | None:
    """Return shares of the classes to learn from, float32 (n, k), rows summing to 1; ``None`` without a teacher.

    A row is ``(1 - teacher_share) * label + teacher_share * answer of the teacher``. The answer is brought to the
    class frequencies in which ``sampling_power`` draws the rows, as the labels are.

    Args:
        train: the n rows to learn from.
        labels: int64 (n,), positions of their classes.
        judged: the rows that will be reported.
        config: ``teacher`` is the RUN of an ensemble.

    Raises:
        ConfigError: ``teacher`` is no such run.
        DataError: the teacher learned from lesions that will be reported, or did not predict all of ``train``.
    """
    if not config.teacher:
        return None
    answers = _out_of_fold(Path(config.teacher), train.classes, judged)
    place = pd.Index(answers.image_id).get_indexer(pd.Index(train.table["image_id"]))
    if (place < 0).any():
        absent = train.table["image_id"][place < 0].tolist()
        raise DataError(
            f"The teacher {config.teacher} has no out-of-fold prediction of {len(absent):,} training images "
            f"({examples(absent)}); train it on the same data, split and seed."
        )
    counts = np.bincount(labels, minlength=len(train.classes))
    often = class_draws(counts, config.sampling_power) / np.maximum(counts, 1)
    shares = answers.probabilities[place] * often
    shares /= shares.sum(axis=1, keepdims=True)
    hard = np.eye(len(train.classes))[labels]
    return ((1.0 - config.teacher_share) * hard + config.teacher_share * shares).astype(np.float32)


def check_teacher(run: Path) -> None:
    """Refuse what cannot teach.

    Raises:
        ConfigError: ``run`` is no finished RUN of an ensemble.
    """
    try:
        metrics = read_metrics(run)
    except DataError as error:
        raise ConfigError(f"The teacher {run} is no finished run; make one with train --recipe best.") from error
    if "members" not in metrics:
        raise ConfigError(f"The teacher {run} is no ensemble; name a RUN of train --recipe best.")


def _out_of_fold(run: Path, classes: tuple[str, ...], judged: Records) -> Scored:
    """Return the teacher's predictions of lesions that the members which made them had not seen."""
    check_teacher(run)
    rows = read_rows(run / PREDICTIONS, classes)
    leaked = sorted(set(judged.table["lesion_id"]) - set(rows["validation"].lesion_id))
    if leaked:
        raise DataError(
            f"The teacher {run} learned from {len(leaked):,} lesions that are to be reported here "
            f"({examples(leaked)}); train both with the same split and seed."
        )
    return rows["tuning"]
