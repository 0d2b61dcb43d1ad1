"""Which vectors are alike: all compared with all, or, where that would take too long, those of nearby lists (faiss).

The exact search takes n * n steps. Above `EXACT_UP_TO` images faiss sorts the vectors into lists around centres and
looks, for each image, only into the few lists nearest to it. How much that overlooks is measured each time: some rows
are compared with all others as well.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from dermafuse.checks.fingerprints import Floats
from dermafuse.progress import Reporter
from dermafuse.runtime.engine import cpu_count

Rows: TypeAlias = npt.NDArray[np.int64]
#: How many rows of the left were looked at, then i of the left, j of the right, and their scores.
Near: TypeAlias = tuple[int, Rows, Rows, Floats]

#: Images up to which all are compared with all.
EXACT_UP_TO: Final = 30_000

#: Rows compared at once, and scores held at once (128 MB): the second counts where images are many.
_BLOCK: Final = 1024
_SCORES: Final = 2**25
#: faiss: lists looked into, rows asked for at once, and vectors that the centre of a list is found from, at least.
_PROBES: Final = 16
_ASKED: Final = 4096
_PER_CENTRE: Final = 39
#: Rows that are compared with all others, to measure what is overlooked.
_SAMPLE: Final = 256


@dataclass(frozen=True)
class Search:
    """How similar images were looked for.

    Attributes:
        engine: ``"exact"`` or ``"faiss"``.
        recall: of the pairs that an exact search keeps, the share that was found, 0..1, measured on ``sampled``
            images; 1 where the search is exact, ``None`` where these images have no similar ones.
        sampled: images that were compared with all others.
    """

    engine: str
    recall: float | None
    sampled: int


class Neighbours(Protocol):
    """Finds the vectors that are alike."""

    def above(self, left: Floats, floor: Callable[[], float]) -> Iterator[Near]:
        """Yield the pairs of unit vectors of ``left`` with one's own whose product is above ``floor``."""


class Exact:
    """All compared with all, in blocks."""

    def __init__(self, right: Floats) -> None:
        self._right = right

    def above(self, left: Floats, floor: Callable[[], float]) -> Iterator[Near]:
        """Yield all pairs above ``floor``, block by block."""
        n = len(self._right)
        block = max(1, min(_BLOCK, _SCORES // max(n, 1)))
        for begin in range(0, len(left), block):
            scores = (left[begin : begin + block] @ self._right.T).ravel()
            near = np.flatnonzero(scores > floor())
            yield min(block, len(left) - begin), near // n + begin, near % n, scores[near]


class Lists:
    """Nearby lists only (faiss, an inverted file of the vectors themselves)."""

    def __init__(self, right: Floats) -> None:
        import faiss

        n, width = right.shape
        faiss.omp_set_num_threads(cpu_count())
        lists = max(1, min(int(4 * np.sqrt(n)), n // _PER_CENTRE))
        self._index: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        self._index.train(right)
        self._index.add(right)
        self._index.nprobe = _PROBES

    def above(self, left: Floats, floor: Callable[[], float]) -> Iterator[Near]:
        """Yield pairs above ``floor``, nearly all of them."""
        for begin in range(0, len(left), _ASKED):
            asked = left[begin : begin + _ASKED]
            ends, scores, found = self._index.range_search(asked, floor())
            i = np.repeat(np.arange(begin, begin + len(asked)), np.diff(ends.astype(np.int64)))
            yield len(asked), i, found, scores


def use_lists(n: int, width: int, looks: int, report: Reporter) -> bool:
    """Whether faiss is to search; where it should and is missing, say how long the exact search will take."""
    if n <= EXACT_UP_TO:
        return False
    if importlib.util.find_spec("faiss") is not None:
        return True
    block = np.random.default_rng(0).normal(size=(min(_BLOCK, n), width)).astype(np.float32)
    started = time.perf_counter()
    np.flatnonzero(block @ block.T > 1e6)
    minutes = (time.perf_counter() - started) * (n / len(block)) ** 2 * looks / 60
    report.warn(
        f"Comparing {n:,} images with all others will take about {minutes:,.0f} minutes; "
        "pip install 'dermafuse[check-large]' makes that a few."
    )
    return False


class Sample:
    """Some rows, compared with all others over every look: what the faster search should have found."""

    def __init__(self, n: int) -> None:
        self.rows = np.sort(np.random.default_rng(0).permutation(n)[:_SAMPLE])
        self._pairs: list[Rows] = []
        self._scores: list[Floats] = []

    def look(self, left: Floats, right: Floats, floor: float) -> None:
        """Compare the rows of ``left`` with all of ``right``."""
        n = len(right)
        for part in np.array_split(self.rows, 8):
            scores = left[part] @ right.T
            scores[np.arange(len(part)), part] = -1.0
            row, j = np.nonzero(scores > floor)
            i = part[row]
            self._pairs.append(np.minimum(i, j) * n + np.maximum(i, j))
            self._scores.append(scores[row, j])

    def recall(self, found: Rows, floor: float) -> float | None:
        """Return the share of pairs above the final floor that are among the ``found`` (smaller * n + larger)."""
        pairs = np.unique(np.concatenate(self._pairs)[np.concatenate(self._scores) > floor])
        return float(np.isin(pairs, found).mean()) if len(pairs) else None
