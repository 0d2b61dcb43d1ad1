"""Generated lesions to try the page with: no patient, no real skin."""

from __future__ import annotations

import functools
import io
import threading
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermafuse.data.synthetic.dataset import NOTICE
from dermafuse.data.synthetic.images import draw
from dermafuse.data.synthetic.lesions import TABLE, Noise, make_lesion

#: What each shows, and the diagnosis whose looks it is generated with.
SAMPLES: Final[tuple[tuple[str, str], ...]] = tuple((title, code) for title, code in TABLE["samples"])
_SIZE: Final = (600, 450)
_SEED: Final = 17


@functools.cache
def _noise() -> Noise:
    return Noise(_SEED)


class Samples:
    """Draws each sample when it is first asked for, and keeps it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn = functools.lru_cache(maxsize=None)(self._draw)

    def jpeg(self, number: int) -> bytes:
        """Return sample ``number`` as a JPEG file."""
        with self._lock:
            return self._drawn(number)

    def pixels(self, number: int) -> npt.NDArray[np.uint8]:
        """Return sample ``number`` as pixels, (450, 600, 3)."""
        rng = np.random.default_rng([_SEED, number])
        return draw(make_lesion(SAMPLES[number][1], rng), _noise(), rng, _SIZE)[0]

    def _draw(self, number: int) -> bytes:
        content = io.BytesIO()
        Image.fromarray(self.pixels(number)).save(content, "JPEG", quality=90, comment=NOTICE.encode())
        return content.getvalue()
