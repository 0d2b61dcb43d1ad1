"""Temperature scaling: one number that makes softmax probabilities mean what they say.

Source: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2:
``softmax(logits / T)`` with the T > 0 that minimises the log loss on rows not used for training. The ranking
of the classes, and so the accuracy, does not change. T > 1 softens an overconfident model.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dermafuse.errors import DataError

#: Where T is looked for. Rows that are all classified right have no best T (the log loss falls as T -> 0):
#: a fit on such rows returns the lower limit.
LIMITS: Final = (0.1, 10.0)


def fit_temperature(logits: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """Return the temperature, within 0.1..10, that minimises the mean log loss of ``softmax(logits / T)``.

    Args:
        logits: (n, k) class logits of rows held out from training; log-probabilities do as well.
        true: (n,) class indices 0..k-1.

    The loss is convex in 1/T, so its one minimum on ``log T`` is found by bounded scalar search (needs SciPy,
    here only).

    Raises:
        DataError: empty or non-finite logits, or labels that do not fit them.
    """
    from scipy.optimize import minimize_scalar

    scores = _check_logits(logits)
    labels = np.asarray(true)
    n, k = scores.shape
    if n == 0 or labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"logits {scores.shape} and true {labels.shape} ({labels.dtype}) do not fit; "
            "pass one integer class index a row, and at least one row."
        )
    if labels.min() < 0 or labels.max() >= k:
        raise DataError(f"true holds classes {labels.min()}..{labels.max()}; expected 0..{k - 1}.")
    # The largest logit at 0 keeps every exponential at or below 1.
    shifted = scores - scores.max(axis=1, keepdims=True)
    of_true = shifted[np.arange(n), labels]

    if not of_true.any():
        return LIMITS[0]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(shifted * inverse).sum(axis=1)) - of_true * inverse))

    found = minimize_scalar(
        loss, bounds=(np.log(LIMITS[0]), np.log(LIMITS[1])), method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(found.x))


def apply(logits: npt.ArrayLike, temperature: float) -> npt.NDArray[np.float64]:
    """Return ``softmax(logits / temperature)``, (n, k) or (k,) as given, float64, rows summing to 1.

    Any finite logits are safe: the largest is subtracted first. Needs NumPy only.

    Raises:
        DataError: non-finite logits, or a temperature that is not a positive number.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise DataError(f"The temperature is {temperature}; it must be a positive number.")
    scores = np.asarray(logits, dtype=np.float64)
    scores = _check_logits(scores[None])[0] if scores.ndim == 1 else _check_logits(scores)
    powers = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    probabilities: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def _check_logits(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(f"logits have shape {scores.shape}; expected (rows, classes) with at least 2 classes.")
    if not np.isfinite(scores).all():
        raise DataError("logits hold NaN or infinity; check the model that made them.")
    return scores
