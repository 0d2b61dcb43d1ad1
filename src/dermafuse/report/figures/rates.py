"""What curves are made of: counts at every threshold, and how far chance alone moves the curve of a rare class."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from dermafuse.evaluation.predictions import BoolArray, FloatArray, Scored, check_groups
from dermafuse.evaluation.resampling import resampled_weights

_STEPS: Final = 50
_REPLICATES: Final = 200


def rates(score: FloatArray, positive: BoolArray) -> pd.DataFrame:
    """Return counts at every distinct threshold, falling: ``threshold``, ``true_positives``, ``false_positives``.

    The first row is the threshold above every score (nothing flagged).
    """
    order = np.argsort(-score, kind="stable")
    sorted_scores = score[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(score) - 1)  # the last row of each run of ties
    hits = np.cumsum(positive[order])[last]
    return pd.DataFrame(
        {
            "threshold": np.append(np.inf, sorted_scores[last]),
            "true_positives": np.append(0, hits),
            "false_positives": np.append(0, last + 1 - hits),
        }
    )


def corners(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `rates` at which an ROC curve turns, and both ends: the curve stays the same."""
    up, across = np.diff(table["true_positives"]), np.diff(table["false_positives"])
    turns = up[1:] * across[:-1] != up[:-1] * across[1:]
    return table[np.concatenate([[True], turns, [True]])] if len(table) > 2 else table


def precision_band(rows: Scored, position: int) -> pd.DataFrame:
    """Return the 95 % band of the precision of one class at rising recall, by bootstrap over lesions.

    Args:
        rows: n rows.
        position: of the class, of which there is at least one row.

    Returns:
        ``recall`` (steps of 0.02 up to 1), ``low`` and ``high``.
    """
    order = np.argsort(-rows.probabilities[:, position], kind="stable")
    positive = (rows.true == position)[order]
    recall = np.arange(1, _STEPS + 1) / _STEPS
    found: list[FloatArray] = []
    for weights in resampled_weights(check_groups(rows.lesion_id, len(rows)), _REPLICATES, 0):
        for drawn in weights[order].T.astype(np.float64):
            hits, flagged = np.cumsum(drawn * positive), np.cumsum(drawn)
            if hits[-1] > 0:  # else no row of the class was drawn
                first = np.minimum(np.searchsorted(hits, recall * hits[-1] - 1e-9), len(hits) - 1)
                found.append(hits[first] / flagged[first])
    low, high = np.quantile(np.array(found), (0.025, 0.975), axis=0)
    return pd.DataFrame({"recall": recall, "low": low, "high": high})
