"""The one block of numbers about some predictions: every metric with its interval."""

from __future__ import annotations

from typing import Any

from dermafuse.evaluation.intervals import intervals_of
from dermafuse.evaluation.metrics import block_of
from dermafuse.evaluation.predictions import Scored


def measure(scored: Scored, *, seed: int) -> dict[str, Any]:
    """Return the metrics block (`metrics.evaluate_predictions`) with ``ci95`` (`intervals.cluster_bootstrap`).

    Args:
        scored: the rows.
        seed: of the bootstrap over lesions, 2,000 replicates.
    """
    return {**block_of(scored), "ci95": intervals_of(scored, seed=seed)}
