"""Pictures that are no dermoscopic images, to measure with whenever a model is made whether it would notice.

The photographs come with scikit-learn (``china.jpg``, ``flower.jpg``); noise and flat colours are generated. More
photographs, medical ones among them, are in ``benchmarks/ood_scores.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pictures = list[npt.NDArray[np.uint8]]

#: Width and height in pixels of every picture.
_SIZE: Final = (200, 150)
_PHOTOGRAPHS: Final = ("china.jpg", "flower.jpg")
_PARTS: Final = (1.0, 0.6, 0.35)


def strange_pictures(*, seed: int = 0, count: int = 48) -> dict[str, Pictures]:
    """Return kind (``photographs``, ``noise``, ``flat_colours``) -> ``count`` pictures, (150, 200, 3) uint8.

    Args:
        seed: of crops, noise and colours.
        count: pictures a kind.
    """
    generator = np.random.default_rng(seed)
    return {
        "photographs": _photographs(generator, count),
        "noise": [_noise(generator, coarse=number % 2 == 1) for number in range(count)],
        "flat_colours": [_flat(generator) for _ in range(count)],
    }


def _photographs(generator: np.random.Generator, count: int) -> Pictures:
    import sklearn

    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    opened = []
    for name in _PHOTOGRAPHS:
        with Image.open(folder / name) as file:
            opened.append(file.convert("RGB"))
    found = []
    for number in range(count):
        image = opened[number % len(opened)]
        part = _PARTS[number // len(opened) % len(_PARTS)]
        height = int(part * min(image.height, image.width * _SIZE[1] // _SIZE[0]))
        width = height * _SIZE[0] // _SIZE[1]
        left = int(generator.integers(0, image.width - width + 1))
        top = int(generator.integers(0, image.height - height + 1))
        crop = image.crop((left, top, left + width, top + height))
        found.append(np.asarray(crop.resize(_SIZE, Image.Resampling.BICUBIC)))
    return found


def _noise(generator: np.random.Generator, *, coarse: bool) -> npt.NDArray[np.uint8]:
    """Return grain, or clouds of colour."""
    width, height = (8, 6) if coarse else _SIZE
    grain = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(grain).resize(_SIZE, Image.Resampling.BICUBIC))


def _flat(generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    colour = generator.integers(0, 256, 3, dtype=np.uint8)
    return np.broadcast_to(colour, (_SIZE[1], _SIZE[0], 3)).copy()
