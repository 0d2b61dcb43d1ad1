"""Bands around precision-recall curves of rare classes: how far chance alone moves them."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from dermafuse.evaluation.predictions import FloatArray, Scored, check_groups
from dermafuse.evaluation.resampling import resampled_weights
from dermafuse.report.figures.canvas import Box
from dermafuse.report.figures.plot import Frame

_STEPS: Final = 50
_REPLICATES: Final = 200


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


def strips(frame: Frame, band: pd.DataFrame, ink: str, code: str) -> list[Box]:
    """Return a band as upright strips, one a step of recall."""
    starts = [0.0, *band["recall"].iloc[:-1]]
    return [
        Box(
            frame.x(start),
            frame.y(high),
            frame.x(end) - frame.x(start),
            frame.y(low) - frame.y(high),
            ink,
            0.11,
            series=code,
        )
        for start, end, low, high in zip(starts, band["recall"], band["low"], band["high"], strict=True)
    ]
