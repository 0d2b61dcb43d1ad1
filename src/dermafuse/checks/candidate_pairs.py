"""Which pairs of images might show the same: the most similar fingerprints, over zooms, flips and turns.

All images are compared with all others block by block, or above some ten thousand of them with those of nearby lists
(`neighbours`), and only the best pairs are kept, so that memory grows with the number of images, not with its square.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dermafuse.checks.fingerprints import ZOOMS, Fingerprints, Floats
from dermafuse.checks.neighbours import Exact, Lists, Neighbours, Rows, Sample, Search, use_lists
from dermafuse.errors import DataError
from dermafuse.progress import Advance, Reporter

#: Fingerprints less alike than this are never of interest.
_FLOOR: Final = 0.5
#: Dimensions of the whitened embeddings.
_EMBEDDING_RANK: Final = 256
_VIEWS: Final = 8


def candidates(
    pixels: npt.NDArray[np.uint8], embeddings: npt.ArrayLike | None, limit: int, report: Reporter
) -> tuple[tuple[Rows, Rows], Rows, npt.NDArray[np.float64], Search]:
    """Return (rows, views) of the images to turn and zoom, rows to lay them over, zooms, and how these were found.

    About ``limit`` pairs.
    """
    n = len(pixels)
    looks = len(ZOOMS) + _VIEWS - 1 + (embeddings is not None)
    prints = Fingerprints(pixels)
    sample = Sample(n) if use_lists(n, prints.vectors.shape[1], looks, report) else None
    with report.bar("Comparing all images with all others", looks * n, "images") as advance:
        return _compared(prints, embeddings, limit, sample, advance)


def _compared(
    prints: Fingerprints, embeddings: npt.ArrayLike | None, limit: int, sample: Sample | None, advance: Advance
) -> tuple[tuple[Rows, Rows], Rows, npt.NDArray[np.float64], Search]:
    n = len(prints.vectors)
    best = _Best(prints.vectors, limit, sample, advance)
    for number, zoom in enumerate(ZOOMS):
        best.add(prints.zoomed(zoom) if number else prints.vectors, (0, zoom), symmetric=number == 0)
    for view in range(1, _VIEWS):
        # The views are a group: a pair that view v brings together is brought together by its inverse as well.
        best.add(prints.turned(view), (view, 1.0), symmetric=False)
    rows, targets, channels, _ = best.take()
    search = Search("exact", 1.0, n)
    if sample is not None:
        found_pairs = np.minimum(rows, targets) * n + np.maximum(rows, targets)
        search = Search("faiss", sample.recall(found_pairs, best.floor), len(sample.rows))
    found = [(rows, targets, channels)]
    settings = list(best.channels)
    if embeddings is not None:
        vectors = _whitened(embeddings, n)
        alike = _Best(vectors, limit // 3, None, advance, lists=sample is not None)
        alike.add(vectors, (0, 1.0), symmetric=True)
        one, other, _, _ = alike.take()
        found.append(_best_zoom(prints, one, other))
    rows, targets, channels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    views = np.array([view for view, _ in settings])[channels]
    zooms = np.array([zoom for _, zoom in settings])[channels]
    return (rows, views), targets, zooms, search


def _best_zoom(prints: Fingerprints, one: Rows, other: Rows) -> tuple[Rows, Rows, Rows]:
    """Return which image of each pair to zoom, over which, and the number of the zoom, by their fingerprints."""
    scores = []
    for number, zoom in enumerate(ZOOMS):
        vectors = prints.zoomed(zoom) if number else prints.vectors
        scores += [np.einsum("ij,ij->i", vectors[a], prints.vectors[b]) for a, b in ((one, other), (other, one))]
    chosen = np.argmax(np.stack(scores), axis=0)
    swapped = chosen % 2 == 1
    return np.where(swapped, other, one), np.where(swapped, one, other), chosen // 2


class _Best:
    """The most similar ordered pairs so far, over several comparisons (channels), in bounded memory."""

    def __init__(
        self, right: Floats, limit: int, sample: Sample | None, advance: Advance, *, lists: bool = False
    ) -> None:
        self.n = len(right)
        self.limit = max(limit, 1)
        self.floor = _FLOOR
        self._right = right
        self._near: Neighbours = Lists(right) if lists or sample is not None else Exact(right)
        self._sample = sample
        self._advance = advance
        self.channels: list[tuple[int, float]] = []
        self._keys: list[Rows] = []
        self._scores: list[Floats] = []
        self._from: list[Rows] = []
        self._held = 0

    def add(self, left: Floats, channel: tuple[int, float], *, symmetric: bool) -> None:
        """Compare unit vectors (n, d) with one's own: all i with all j, or the j above i where that says it all."""
        number = len(self.channels)
        self.channels.append(channel)
        if self._sample is not None:
            self._sample.look(left, self._right, self.floor)
        for looked_at, i, j, scores in self._near.above(left, lambda: self.floor):
            wanted = i < j if symmetric else i != j
            self._keys.append((i * self.n + j)[wanted])
            self._scores.append(scores[wanted])
            self._from.append(np.full(int(wanted.sum()), number))
            self._held += int(wanted.sum())
            if self._held > 4 * self.limit:
                self._prune()
            self._advance(looked_at)

    def take(self) -> tuple[Rows, Rows, Rows, Floats]:
        """Return i, j, channel and score of the best pairs."""
        self._prune()
        if not self._keys:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty, empty, np.zeros(0, dtype=np.float32)
        keys, scores, channel = self._keys[0], self._scores[0], self._from[0]
        return keys // self.n, keys % self.n, channel, scores

    def _prune(self) -> None:
        """Keep each unordered pair's best channel, and of the pairs the best ``limit``."""
        if not self._keys:
            return
        keys, channel = np.concatenate(self._keys), np.concatenate(self._from)
        scores: Floats = np.concatenate(self._scores)
        i, j = keys // self.n, keys % self.n
        pair = np.minimum(i, j) * self.n + np.maximum(i, j)
        order = np.argsort(-scores, kind="stable")
        _, first = np.unique(pair[order], return_index=True)
        kept = order[np.sort(first)[: self.limit]]
        self._keys, self._scores, self._from = [keys[kept]], [scores[kept]], [channel[kept]]
        self._held = len(kept)
        if len(kept) == self.limit:
            self.floor = max(self.floor, float(scores[kept].min()))


def _whitened(embeddings: npt.ArrayLike, n: int) -> Floats:
    """Return embeddings as unit vectors whose directions all count alike (the 256 of largest spread)."""
    values = np.asarray(embeddings, dtype=np.float32)
    if values.ndim != 2 or len(values) != n or not np.isfinite(values).all():
        raise DataError(f"embeddings have shape {values.shape}; pass finite numbers (n, c) for {n:,} images.")
    centred = values - values.mean(axis=0)
    spread, axes = np.linalg.eigh(centred.T @ centred / max(n - 1, 1))
    used = np.argsort(-spread)[: min(_EMBEDDING_RANK, n - 1)]
    used = used[spread[used] > 1e-6 * spread.max()]
    white = centred @ (axes[:, used] / np.sqrt(spread[used]))
    unit: Floats = (white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-6)).astype(np.float32)
    return unit
