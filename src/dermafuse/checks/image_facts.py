"""What the checks need to know of the image files: readable or not, size, content, and a small grey copy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from dermafuse.checks.fingerprints import SIDE, to_grey
from dermafuse.data.images import load_image, size_of
from dermafuse.data.records import Records
from dermafuse.errors import ImageError
from dermafuse.runtime.engine import cpu_count


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Facts of n images, in the order of the records.

    Attributes:
        unreadable: row -> why the image cannot be used.
        grey: (n, 64, 64) uint8, the image stretched to a square; black where unreadable.
        sizes: (n, 2) int64, width and height in pixels of the file; 0 where unreadable.
        digests: 16 bytes that identify the file's content, ``b""`` where unreadable.
    """

    unreadable: dict[int, str]
    grey: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int64]
    digests: tuple[bytes, ...]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the image can be used."""
        good = np.ones(len(self.grey), dtype=np.bool_)
        good[list(self.unreadable)] = False
        return good


def read_images(records: Records, advance: Callable[[int], None] = lambda done: None) -> ImageFacts:
    """Open every image once (decoded at 64 pixels, which finds every broken file).

    Args:
        records: of any layout.
        advance: called with 1 after each image.
    """
    n = len(records)
    paths = list(records.table["path"])
    grey = np.zeros((n, SIDE, SIDE), dtype=np.uint8)
    sizes = np.zeros((n, 2), dtype=np.int64)
    digests = [b""] * n

    def look(row: int) -> str | None:
        try:
            grey[row] = to_grey(load_image(paths[row], SIDE))
            sizes[row] = size_of(paths[row])
            digests[row] = xxhash.xxh3_128_digest(Path(paths[row]).read_bytes())
        except ImageError as error:
            return str(error)
        return None

    unreadable = {}
    with ThreadPoolExecutor(cpu_count()) as pool:
        for row, reason in enumerate(pool.map(look, range(n))):
            if reason is not None:
                unreadable[row] = reason
            advance(1)
    return ImageFacts(unreadable, grey, sizes, tuple(digests))
