"""Random views of an image: other framing, light, cameras and clutter, the same ones whenever the seed is the same.

A network that is to judge images of other clinics must not depend on what is alike in all images of one: framing,
colour, sharpness, compression, the black corners of some dermatoscopes, hairs. Each view draws its own. OpenCV, of the
``train`` extra, makes them: training draws a hundred thousand (``benchmarks/view_speed.py`` says what one costs).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import simplejpeg

Pixels = npt.NDArray[np.uint8]

#: What a view can change, in this order.
ViewChange = Literal["framing", "constancy", "colour", "hairs", "corners", "quality"]
VIEW_CHANGES: Final[tuple[ViewChange, ...]] = get_args(ViewChange)

#: Raised when the same seed gives another view.
RANDOM_VIEWS_VERSION: Final = 3

#: Power of the Minkowski mean of shades of grey; Finlayson & Trezzi 2004 found 6 to be the best.
_SHADES_POWER: Final = 6

#: So many places the noise of a view can start at, in a table drawn once.
_NOISE_PERIOD: Final = 1 << 16

#: What red, green and blue count in brightness (ITU-R BT.601).
_BRIGHTNESS: Final = (0.299, 0.587, 0.114)


def random_view(image: Pixels, seed: bytes, changes: Sequence[ViewChange] = VIEW_CHANGES) -> Pixels:
    """Return ``image`` as another camera or clinic might have taken it.

    Framing (turn by any angle, mirror, zoom, stretch, shift) and colour (exposure, contrast, gamma, cast, saturation)
    always change; one view in two loses quality (blur, coarser sampling, compression or noise); some get the dark
    corners of a round field of view, some hairs, some the colour constancy that other collections apply.

    Args:
        image: uint8 (s, s, 3), RGB.
        seed: any bytes; equal seeds give equal views.
        changes: those to make. What is left out is drawn all the same, so the other changes do not depend on it.

    Returns:
        uint8 (s, s, 3).

    Raises:
        ModuleNotFoundError: OpenCV is not installed (extra ``train``).
    """
    generator = np.random.default_rng(np.frombuffer(seed.ljust(-(-len(seed) // 4) * 4, b"\0"), np.uint32))
    picture = image

    def change(name: ViewChange, made: Callable[[Pixels, np.random.Generator], Pixels]) -> Pixels:
        changed = made(picture, generator)
        return changed if name in changes else picture

    picture = change("framing", _framed)
    if generator.random() < 0.12:
        picture = change("constancy", lambda before, _: shades_of_grey(before))
    picture = change("colour", _coloured)
    if generator.random() < 0.12:
        picture = change("hairs", _with_hairs)
    if generator.random() < 0.15:
        picture = change("corners", _dark_corners)
    if generator.random() < 0.5:
        picture = change("quality", _degraded)
    return picture


def _framed(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Turn, mirror, zoom, stretch and shift about the centre; what lies outside mirrors the inside."""
    cv2 = _opencv()

    side = image.shape[0]
    # A lesion has no upright; whole quarter turns do not blur.
    quarters = float(generator.integers(4)) if generator.random() < 0.5 else generator.uniform(0.0, 4.0)
    angle = quarters * math.pi / 2
    zoom = math.exp(generator.uniform(-0.5, 0.25))  # below 1 shows less of the image, larger
    stretch = math.exp(generator.uniform(-0.12, 0.12))
    mirror = -1.0 if generator.random() < 0.5 else 1.0
    shift = generator.uniform(-0.1, 0.1, 2) * side
    cosine, sine = math.cos(angle) * zoom, math.sin(angle) * zoom
    a, b = cosine * stretch * mirror, -sine / stretch
    d, e = sine * stretch * mirror, cosine / stretch
    margin = side // 2
    # Mirrored before the warp: OpenCV's own mirroring takes twice the time.
    padded = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    centre = (side - 1) / 2
    x, y = margin + centre + shift[0], margin + centre + shift[1]
    onto = np.array([[a, b, x - (a + b) * centre], [d, e, y - (d + e) * centre]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _pixels(cv2.warpAffine(padded, onto, (side, side), flags=how, borderMode=cv2.BORDER_REPLICATE))


def _coloured(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Change saturation, then exposure, contrast, gamma and cast, each channel by a table of 256 values."""
    cv2 = _opencv()

    saturation = generator.uniform(0.7, 1.3)
    mix = saturation * np.eye(3) + (1.0 - saturation) * np.tile(_BRIGHTNESS, (3, 1))
    level = np.arange(256) / 255.0
    gamma, contrast = math.exp(generator.uniform(-0.25, 0.25)), generator.uniform(0.75, 1.25)
    exposure = math.exp(generator.uniform(-0.2, 0.2))
    cast = np.exp(generator.uniform(-0.08, 0.08, 3))
    toned = (level**gamma - 0.6) * contrast + 0.6  # skin lies about 0.6: contrast turns about it, not about black
    table = np.clip(np.outer(toned, exposure * cast) * 255.0, 0.0, 255.0).round().astype(np.uint8)
    return _pixels(cv2.LUT(cv2.transform(image, mix), table[:, np.newaxis]))


def shades_of_grey(image: Pixels) -> Pixels:
    """Return the image under a neutral light, as estimated by the Minkowski mean of each channel.

    Finlayson & Trezzi 2004, "Shades of gray and colour constancy"; for skin lesions Barata et al. 2015, "Improving
    dermoscopy image classification using color constancy".

    Args:
        image: uint8 (h, w, 3), RGB.
    """
    cv2 = _opencv()

    levels = np.arange(256, dtype=np.float64) ** _SHADES_POWER
    counts = [cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    light = (np.stack(counts).astype(np.float64) @ levels / counts[0].sum()) ** (1.0 / _SHADES_POWER)
    gain = light.mean() / np.maximum(light, 1.0)
    table = np.clip(np.outer(np.arange(256), gain), 0.0, 255.0).round().astype(np.uint8)
    return _pixels(cv2.LUT(image, table[:, np.newaxis]))


def _with_hairs(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Draw some thin dark arcs."""
    cv2 = _opencv()

    side = image.shape[1]
    drawn = image.copy()
    for _ in range(generator.integers(2, 12)):
        middle, radius = generator.uniform(-0.5, 1.5, 2) * side, generator.uniform(0.4, 1.5) * side
        start = generator.uniform(0.0, 360.0)
        ink = generator.integers(10, 70)
        colour = (int(ink), int(ink * 0.8), int(ink * 0.6))
        cv2.ellipse(
            drawn,
            (round(middle[0]), round(middle[1])),
            (round(radius), round(radius)),
            0.0,
            start,
            start + generator.uniform(20.0, 90.0),
            colour,
            int(generator.integers(1, 3)),
            cv2.LINE_AA,
        )
    return drawn


def _dark_corners(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Darken what lies outside a circle, sharply as a dermatoscope's tube does or softly as a lens does."""
    side = image.shape[1]
    middle = side / 2 + generator.uniform(-0.06, 0.06, 2) * side
    radius, softness = generator.uniform(0.46, 0.66) * side, generator.choice([2.0, side / 6])
    y, x = np.ogrid[:side, :side]
    across, down = (x - middle[0]).astype(np.float32), (y - middle[1]).astype(np.float32)
    beyond = np.sqrt(across**2 + down**2) - np.float32(radius)
    light = np.clip(1.0 - beyond / np.float32(softness), np.float32(generator.uniform(0.0, 0.3)), 1.0)
    return _pixels((image * light[..., np.newaxis]).astype(np.uint8))


def _degraded(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Lose quality in one of four ways."""
    cv2 = _opencv()

    side = image.shape[1]
    way = generator.integers(4)
    if way == 0:
        return _pixels(cv2.GaussianBlur(image, (0, 0), generator.uniform(0.4, 2.0)))
    if way == 1:
        coarse = max(8, round(side / generator.uniform(1.3, 3.5)))
        small = cv2.resize(image, (coarse, coarse), interpolation=cv2.INTER_AREA)
        return _pixels(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR))
    if way == 2:
        quality = int(generator.integers(15, 75))
        packed = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")
        return _pixels(simplejpeg.decode_jpeg(packed))
    start = int(generator.integers(_NOISE_PERIOD))
    noise = _noise(3 * side * side)[start : start + 3 * side * side].reshape(side, side, 3)
    return _pixels(cv2.add(image, noise * np.float32(generator.uniform(2.0, 9.0)), dtype=cv2.CV_8U))


@functools.lru_cache(maxsize=4)
def _noise(length: int) -> npt.NDArray[np.float32]:
    """Return standard normal noise, drawn once: drawing it takes three times as long as all other changes."""
    return np.random.default_rng(_NOISE_PERIOD).standard_normal(_NOISE_PERIOD + length, dtype=np.float32)


@functools.cache
def _opencv() -> Any:
    """Return OpenCV, with one thread a call: views are made on as many threads as there are processors."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def _pixels(made: Any) -> Pixels:
    return np.ascontiguousarray(made, dtype=np.uint8)
