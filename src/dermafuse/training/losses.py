"""Losses and class weights against imbalance. All take integer labels and logits."""

from __future__ import annotations

from typing import Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray

Weighting = Literal["none", "balanced", "inverse_sqrt", "effective_number"]

#: beta of the effective number of samples; Cui et al. 2019 use 0.999 for data sets of this size.
EFFECTIVE_NUMBER_BETA: Final = 0.999


def class_weights(labels: NDArray[np.int64], classes: int, weighting: Weighting) -> NDArray[np.float64]:
    """Return one weight a class, float64 (classes,); a class without rows gets 0.

    * ``balanced``: n / (k * n_c), scikit-learn's ``compute_class_weight`` and the mission's.
    * ``inverse_sqrt``: proportional to 1 / sqrt(n_c), scaled to a mean of 1 over the rows.
    * ``effective_number``: proportional to (1 - beta) / (1 - beta^n_c), Cui et al. 2019, scaled likewise.

    Args:
        labels: int64 (n,), of the training rows.
        classes: k.
        weighting: as above; ``none`` gives ones.
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    present = counts > 0
    if weighting == "none":
        return present.astype(np.float64)
    safe = np.where(present, counts, 1.0)
    if weighting == "balanced":
        return np.where(present, len(labels) / (classes * safe), 0.0)
    if weighting == "inverse_sqrt":
        raw = 1.0 / np.sqrt(safe)
    else:
        raw = (1.0 - EFFECTIVE_NUMBER_BETA) / (1.0 - EFFECTIVE_NUMBER_BETA**safe)
    raw = np.where(present, raw, 0.0)
    return raw * len(labels) / float((raw * counts).sum())


def classification_loss(
    priors: NDArray[np.float64],
    *,
    weights: NDArray[np.float64] | None = None,
    label_smoothing: float = 0.0,
    logit_adjustment: float = 0.0,
) -> keras.losses.Loss:
    """Return the softmax cross-entropy of integer labels and logits, a value a row.

    Args:
        priors: float64 (k,), share of each class among the training rows.
        weights: float64 (k,), by which each row's value is multiplied, after its label. The same as Keras'
            ``class_weight`` (the mean is over rows, not over weights), without the step that looks up a weight for
            every batch in the input pipeline: a tenth of the time of a small head.
        label_smoothing: epsilon of Szegedy et al. 2016: the target is 1 - eps on the label, eps / k spread.
        logit_adjustment: tau of Menon et al. 2021, "Long-tail learning via logit adjustment":
            ``tau * log(prior)`` is added to the logits in the loss only, so that plain argmax afterwards aims
            at balanced accuracy. tau = 1 is the balanced softmax of Ren et al. 2020.
    """
    classes = len(priors)
    shift = logit_adjustment * np.log(np.maximum(priors, 1e-12))
    factors = np.ones(classes) if weights is None else weights
    return _ClassificationLoss(shift.astype(np.float32), factors.astype(np.float32), label_smoothing)


class _ClassificationLoss(keras.losses.Loss):
    def __init__(self, shift: NDArray[np.float32], weights: NDArray[np.float32], label_smoothing: float) -> None:
        super().__init__(name="classification_loss", reduction="sum_over_batch_size")
        self._shift = shift
        self._weights = weights
        self._smoothing = label_smoothing

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of each row, (batch,)."""
        ops = keras.ops
        classes = len(self._shift)
        labels = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes)
        target = labels * (1.0 - self._smoothing) + self._smoothing / classes
        values = -ops.sum(target * ops.log_softmax(y_pred + self._shift, axis=-1), axis=-1)
        return values * ops.sum(labels * self._weights, axis=-1)
