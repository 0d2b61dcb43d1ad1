"""Pictures of one lesion that the lesion ids do not know of: found by looking, judged against the ids themselves.

Two steps. Fingerprints of all images, as they are, zoomed and in all 8 flips and quarter turns, are compared with
each other (with embeddings, those too), and the most similar pairs become candidates. Each candidate is then laid
over its partner and their fine details are correlated: small dark moles look alike, the hairs around them do not.

How good the detector is, is measured on the data: pairs of one lesion id count as true, all others as false. The
threshold is chosen on one half of the lesions and precision and recall are reported on the other. A pair of
one lesion that the ids miss counts as false here, so the precision is a lower bound; pictures of one lesion that
were taken years or angles apart count as missed, so the recall is low by nature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from dermafuse.checks.candidate_pairs import candidates
from dermafuse.checks.fingerprints import SIDE, Floats, fit
from dermafuse.checks.neighbours import Rows, Search
from dermafuse.data.images import view
from dermafuse.errors import DataError
from dermafuse.progress import Reporter, Silent
from dermafuse.runtime.engine import cpu_count

#: Threshold of the fit where lesion ids cannot choose one: what HAM10000's ids choose, rounded up.
DEFAULT_THRESHOLD: Final = 0.80
#: Precision that the threshold is chosen for.
TARGET_PRECISION: Final = 0.95
#: True pairs that the half which chooses needs, so that its precision means something.
_ENOUGH_PAIRS: Final = 30

#: Candidates kept, as a multiple of the number of images.
_KEPT: Final = 3
_BATCH: Final = 128


@dataclass(frozen=True)
class Validation:
    """The detector judged by lesion ids, on the half of the lesions that did not choose the threshold.

    Attributes:
        precision: of the pairs above the threshold, 0..1; ``None`` where there is none.
        recall: of all pairs of images of one lesion, 0..1; ``None`` where there is none.
        true_pairs: pairs of one lesion in this half.
        found_pairs: of them above the threshold.
        lesions: lesions in this half.
        chosen: whether the other half chose the threshold (else it is the default).
    """

    precision: float | None
    recall: float | None
    true_pairs: int
    found_pairs: int
    lesions: int
    chosen: bool


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Candidate pairs and the verdict on them.

    Attributes:
        first: (m,) row positions, the smaller of each pair; pairs in falling order of ``fit``.
        second: (m,) row positions, the larger.
        fit: (m,) how well the details fit, -1..1.
        threshold: pairs at or above it are near-duplicates.
        same_lesion: (m,) whether the ids know the pair.
        validation: ``None`` where no lesion id is shared.
        search: how the candidates were found.
    """

    first: Rows
    second: Rows
    fit: Floats
    threshold: float
    same_lesion: npt.NDArray[np.bool_]
    validation: Validation | None
    search: Search

    @property
    def missed(self) -> npt.NDArray[np.bool_]:
        """(m,) near-duplicates whose lesion ids differ."""
        return (self.fit >= self.threshold) & ~self.same_lesion


def find_near_duplicates(
    grey: npt.NDArray[np.uint8],
    lesions: Sequence[Any] | npt.NDArray[Any],
    *,
    embeddings: npt.ArrayLike | None = None,
    threads: int = 0,
    report: Reporter | None = None,
) -> NearDuplicates:
    """Find pairs of images that show the same.

    Args:
        grey: (n, 64, 64) uint8, the images stretched to squares.
        lesions: (n,) lesion ids (where unknown, an id of its own for each image).
        embeddings: (n, c) of any network; adds candidates that fingerprints overlook.
        threads: 0 means all CPUs.
        report: who is told the progress.

    About 30 s for 10,000 images on 2 CPUs; memory grows with n, not with its square, and above
    `dermafuse.checks.neighbours.EXACT_UP_TO` images so does the time, where faiss is installed.

    Raises:
        DataError: arrays of another shape.
    """
    pixels = np.asarray(grey)
    names = np.asarray(lesions, dtype=object).astype(str)
    n = len(pixels)
    if pixels.shape != (n, SIDE, SIDE) or pixels.dtype != np.uint8 or names.shape != (n,):
        raise DataError(
            f"grey is {pixels.dtype} {pixels.shape} and lesions {names.shape}; "
            f"pass uint8 (n, {SIDE}, {SIDE}) and one id an image."
        )
    report = report or Silent()
    low, high, fits, search = _looked_for(pixels, embeddings, threads, report)
    order = np.lexsort((high, low, -fits))
    first, second, fits = low[order], high[order], fits[order]
    _, keep = np.unique(first * n + second, return_index=True)  # the best fit of each pair comes first
    keep = np.sort(keep)
    first, second, fits = first[keep], second[keep], fits[keep]
    same = names[first] == names[second]
    threshold, validation = _judge(first, second, fits, same, names)
    return NearDuplicates(first, second, fits, threshold, same, validation, search)


def _looked_for(
    pixels: npt.NDArray[np.uint8], embeddings: npt.ArrayLike | None, threads: int, report: Reporter
) -> tuple[Rows, Rows, Floats, Search]:
    """Return pairs of rows (smaller, larger), how well they fit, and how they were found.

    Of equal images one is looked for and paired with each of its copies: a thousand copies of one placeholder make
    half a million pairs, which would leave no room for others.
    """
    _, own, of = np.unique([xxhash.xxh3_128_digest(image) for image in pixels], return_index=True, return_inverse=True)
    chosen = np.sort(own)
    copies = np.setdiff1d(np.arange(len(pixels)), chosen)
    if len(copies):
        embeddings = None if embeddings is None else np.asarray(embeddings)[chosen]
    kept = pixels[chosen] if len(copies) else pixels
    source, target, zoom, search = candidates(kept, embeddings, _KEPT * len(kept), report)
    fits = _register(kept, source, target, zoom, threads, report)
    low, high = chosen[np.minimum(source[0], target)], chosen[np.maximum(source[0], target)]
    originals = own[of[copies]]
    low, high = np.concatenate([low, originals]), np.concatenate([high, copies])
    return low, high, np.concatenate([fits, np.ones(len(copies), np.float32)]), search


def _register(
    pixels: npt.NDArray[np.uint8],
    source: tuple[Rows, Rows],
    target: Rows,
    zoom: npt.NDArray[np.float64],
    threads: int,
    report: Reporter,
) -> Floats:
    rows, views = source
    fits = np.full(len(rows), -1.0, dtype=np.float32)

    def work(begin: int) -> None:
        part = slice(begin, begin + _BATCH)
        moving = _turn(pixels[rows[part]].astype(np.float32), views[part])
        fits[part] = fit(moving, pixels[target[part]].astype(np.float32), zoom[part])

    title = "Laying similar images over each other"
    with ThreadPoolExecutor(threads or cpu_count()) as pool, report.bar(title, len(rows), "pairs") as advance:
        for begin, _ in zip(range(0, len(rows), _BATCH), pool.map(work, range(0, len(rows), _BATCH)), strict=True):
            advance(min(_BATCH, len(rows) - begin))
    return fits


def _turn(images: Floats, views: Rows) -> Floats:
    turned = images.copy()
    for number in np.unique(views[views > 0]):
        for position in np.flatnonzero(views == number):
            turned[position] = view(images[position], int(number))
    return turned


def _judge(
    first: Rows, second: Rows, fits: Floats, same: npt.NDArray[np.bool_], names: npt.NDArray[Any]
) -> tuple[float, Validation | None]:
    """Choose the threshold on one half of the lesions, measure it on the other."""
    lesions, number, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if (sizes < 2).all():
        return DEFAULT_THRESHOLD, None
    half = np.array([hashlib.sha256(lesion.encode()).digest()[0] & 1 for lesion in lesions], dtype=bool)
    side = half[number]  # which half an image is in
    inside = side[first] == side[second]
    true_pairs = (sizes * (sizes - 1) // 2).astype(np.int64)
    # A half holds half of the true pairs but only a quarter of the false ones: these count twice.
    weight = np.where(same, 1.0, 2.0)

    choosing = inside & ~side[first]
    threshold, chosen = DEFAULT_THRESHOLD, False
    true = np.cumsum(same[choosing])
    precision = true / np.cumsum(weight[choosing]) if choosing.any() else np.zeros(0)
    enough = np.flatnonzero((precision >= TARGET_PRECISION) & (true >= _ENOUGH_PAIRS))
    if len(enough):
        threshold, chosen = float(fits[choosing][enough[-1]]), True

    flagged = inside & side[first] & (fits >= threshold)
    found = int(same[flagged].sum())
    total = int(true_pairs[half].sum())
    counted = float(weight[flagged].sum())
    return threshold, Validation(
        precision=found / counted if counted else None,
        recall=found / total if total else None,
        true_pairs=total,
        found_pairs=found,
        lesions=int(half.sum()),
        chosen=chosen,
    )
