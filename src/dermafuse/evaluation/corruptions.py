"""What other cameras, clinics and file handling do to an image, each in one fixed strength."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def compress(image: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return compress


def _blur(share: float) -> Callable[[Pixels], Pixels]:
    def blur(image: Pixels) -> Pixels:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(share * image.shape[1])))

    return blur


def _gain(*factors: float) -> Callable[[Pixels], Pixels]:
    def multiply(image: Pixels) -> Pixels:
        changed: npt.NDArray[Any] = image * np.array(factors, np.float32)
        return np.asarray(np.clip(np.rint(changed), 0, 255), dtype=np.uint8)

    return multiply


def _rescaled(factor: float, *, back: bool) -> Callable[[Pixels], Pixels]:
    def rescale(image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        picture = Image.fromarray(image)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        changed = picture.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(changed.resize((width, height), Image.Resampling.BILINEAR) if back else changed)

    return rescale


def _at_width(width: int) -> Callable[[Pixels], Pixels]:
    """Shrink or enlarge to ``width`` pixels: the copies that data sets are handed around in."""

    def rescale(image: Pixels) -> Pixels:
        return _rescaled(width / image.shape[1], back=False)(image)

    return rescale


def _cropped(share: float, right: int, down: int) -> Callable[[Pixels], Pixels]:
    """Cut ``share`` of width and height off, at one side each: the lesion moves to the other."""

    def crop(image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        x, y = round(width * share), round(height * share)
        return np.ascontiguousarray(image[y * down : height - y * (1 - down), x * right : width - x * (1 - right)])

    return crop


#: Name -> what it does to uint8 (h, w, 3) RGB. Strengths are relative to the image's size, so that they mean the same
#: for small copies and for full-size images; but for the last two, which are sizes that the same picture comes in.
CORRUPTIONS: Final[Mapping[str, Callable[[Pixels], Pixels]]] = {
    "jpeg_quality_30": _jpeg(30),
    "blur": _blur(0.0075),  # sigma of 3 px at a width of 400
    "warm_cast": _gain(1.1, 1.0, 0.85),
    "cool_cast": _gain(0.88, 1.0, 1.12),
    "darker": _gain(0.75, 0.75, 0.75),
    "brighter": _gain(1.25, 1.25, 1.25),
    "half_resolution": _rescaled(0.5, back=True),
    "double_size": _rescaled(2.0, back=False),
    "shift_left_up": _cropped(0.1, 1, 1),
    "shift_right_down": _cropped(0.1, 0, 0),
    "width_200": _at_width(200),
    "width_800": _at_width(800),
}
