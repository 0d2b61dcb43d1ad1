"""Losses and class weights against imbalance."""

from __future__ import annotations

from typing import Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from dermafuse.training.loop.experimental import focused, margins, prior_shift

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


class ClassificationLoss(keras.losses.Loss):
    """Softmax cross-entropy of integer labels and logits, a value a row, with what counters imbalance.

    Labels are int (b,) or (b, 1), or shares of the classes (b, k). Every part is off by default, and parts combine:
    margin and prior shift change the logits in the loss only, then smoothing changes the target, then focus and class
    weight multiply the row's value.

    Args:
        counts: int64 (k,), training rows of each class.
        weights: float64 (k,), by which each row's value is multiplied, after its label. The same as Keras'
            ``class_weight`` (the mean is over rows, not over weights), without the step that looks up a weight for
            every batch in the input pipeline: a tenth of the time of a small head.
        label_smoothing: epsilon of Szegedy et al. 2016, "Rethinking the Inception architecture": the target is
            1 - eps on the label, eps / k spread.
        logit_adjustment: tau of ``experimental.prior_shift``.
        focal_gamma: gamma of ``experimental.focused``.
        margin: the largest of ``experimental.margins``.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        *,
        weights: NDArray[np.float64] | None = None,
        label_smoothing: float = 0.0,
        logit_adjustment: float = 0.0,
        focal_gamma: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__(name="classification_loss", reduction="sum_over_batch_size")
        self._shift = prior_shift(counts, logit_adjustment)
        self._margins = margins(counts, margin)
        self._smoothing = label_smoothing
        self._gamma = focal_gamma
        self.class_weights = keras.Variable(
            np.ones(len(counts)) if weights is None else weights, dtype="float32", trainable=False, name="class_weights"
        )

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of each row, (batch,)."""
        ops = keras.ops
        classes = len(self._shift)
        if len(y_true.shape) == 2 and y_true.shape[-1] == classes > 1:
            labels = ops.cast(y_true, y_pred.dtype)  # shares of the classes, from mixup
        else:
            labels = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes)
        log_p = ops.log_softmax(y_pred + self._shift - labels * self._margins, axis=-1)
        target = labels * (1.0 - self._smoothing) + self._smoothing / classes
        values = -ops.sum(target * log_p, axis=-1)
        if self._gamma:
            values = focused(values, labels, log_p, self._gamma)
        return values * ops.sum(labels * self.class_weights, axis=-1)
