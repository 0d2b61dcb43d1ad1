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


def epoch_rows(
    labels: NDArray[np.int64], power: float, *, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what one epoch visits, in order, fixed by (seed, epoch).

    Each class is an endless stream of rounds; a round visits every row of the class once, in an order of its own. An
    epoch takes the next ``class_draws`` rows of each stream, so over the epochs no row is drawn twice before every row
    of its class was drawn once.

    Args:
        labels: int64 (n,).
        power: of ``class_draws``.
        seed: of the order.
        epoch: from 0.

    Returns:
        rows: int64 (n,).
        rounds: int64 (n,), how often each was drawn before, in this epoch and all earlier ones.
    """
    chosen, rounds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for label, wanted in enumerate(class_draws(np.bincount(labels), power).tolist()):
        rows = np.flatnonzero(labels == label)
        place, end = epoch * wanted, (epoch + 1) * wanted
        while place < end:
            number, start = divmod(place, len(rows))
            part = np.random.default_rng([seed, label, number]).permutation(rows)[start : start + end - place]
            chosen.append(part)
            rounds.append(np.full(len(part), number))
            place += len(part)
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    return np.concatenate(chosen)[order], np.concatenate(rounds)[order]


def draws_a_row(labels: NDArray[np.int64], power: float, epochs: int) -> NDArray[np.int64]:
    """Return how often ``epochs`` epochs draw each row at most: int64 (n,), equal for the rows of a class."""
    counts = np.bincount(labels)
    most = -(-epochs * class_draws(counts, power) // np.maximum(counts, 1))
    return np.asarray(most[labels], np.int64)
