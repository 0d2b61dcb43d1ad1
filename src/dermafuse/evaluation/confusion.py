"""Counts of true against decided classes under many weightings at once, and what metrics take from them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from dermafuse.evaluation.predictions import FloatArray


class Confusion:
    """Confusion matrices of r weightings of the same rows: (k true, k predicted, r)."""

    def __init__(self, cells: FloatArray) -> None:
        self.cells = cells

    @cached_property
    def support(self) -> FloatArray:
        """(k, r) rows that are of each class."""
        total: FloatArray = self.cells.sum(axis=1)
        return total

    @cached_property
    def called(self) -> FloatArray:
        """(k, r) rows that are decided to be of each class."""
        total: FloatArray = self.cells.sum(axis=0)
        return total

    @cached_property
    def hits(self) -> FloatArray:
        """(k, r) rows of each class that are decided rightly."""
        k = len(self.cells)
        return self.cells[np.arange(k), np.arange(k)]

    @cached_property
    def n(self) -> FloatArray:
        """(r,) all rows."""
        total: FloatArray = self.support.sum(axis=0)
        return total

    @cached_property
    def recall(self) -> FloatArray:
        """(k, r), NaN for a class without true rows."""
        return ratio(self.hits, self.support)

    @cached_property
    def f1(self) -> FloatArray:
        """(k, r), NaN for a class without true rows."""
        return np.where(self.support > 0, ratio(2 * self.hits, self.support + self.called), np.nan)

    @cached_property
    def agreement(self) -> FloatArray:
        """(r,) share of rows that are decided rightly, 0..1."""
        share: FloatArray = self.hits.sum(axis=0) / self.n
        return share

    @cached_property
    def by_chance(self) -> FloatArray:
        """(r,) sum over classes of support times called, rows squared."""
        total: FloatArray = (self.support * self.called).sum(axis=0)
        return total


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return ``numerator / denominator``, NaN where the denominator is not positive."""
    result: FloatArray = np.divide(
        numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator > 0
    )
    return result


def mean_defined(values: FloatArray) -> FloatArray:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
