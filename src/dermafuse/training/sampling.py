"""Which rows an epoch visits, where rare classes are to be seen more often than they occur."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def class_draws(counts: NDArray[np.int64], power: float, total: int | None = None) -> NDArray[np.int64]:
    """Return how many rows of each class an epoch visits: proportional to ``n_c ** (1 - power)``, ``total`` in all.

    Power 0 draws classes as they occur, 1 equally often, 1/2 by the square root of their size (Mahajan et al. 2018,
    "Exploring the limits of weakly supervised pretraining", section 2.2). Classes without rows get none.

    Args:
        counts: int64 (k,), rows of each class.
        power: 0..1.
        total: draws in an epoch; default as many as there are rows.
    """
    total = int(counts.sum()) if total is None else total
    share = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** (1.0 - power), 0.0)
    exact = total * share / share.sum()
    draws: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    # The rows that rounding down left over go to the largest remainders, so that the sum is exact.
    for position in np.argsort(draws - exact, kind="stable")[: total - int(draws.sum())]:
        draws[position] += 1
    return draws


def epoch_rows(labels: NDArray[np.int64], power: float, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the rows that one epoch visits, in order: int64 (n,), fixed by (seed, epoch).

    Within a class no row is drawn twice before every row was drawn once.

    Args:
        labels: int64 (n,).
        power: of ``class_draws``.
        seed: of the order.
        epoch: from 0.
    """
    generator = np.random.default_rng([seed, epoch])
    draws = class_draws(np.bincount(labels), power)
    chosen = []
    for label, wanted in enumerate(draws):
        rows = np.flatnonzero(labels == label)
        rounds = -(-int(wanted) // max(1, len(rows)))
        chosen.append(np.concatenate([generator.permutation(rows) for _ in range(rounds)] or [rows[:0]])[:wanted])
    return generator.permutation(np.concatenate(chosen)).astype(np.int64)


def occurrence(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each entry how often its row came before it in ``rows``: int64 (n,)."""
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows[order]
    first = np.searchsorted(sorted_rows, sorted_rows, side="left")
    out = np.empty(len(rows), np.int64)
    out[order] = np.arange(len(rows)) - first
    return out
