"""Random views of an image: other framing, light, cameras and clutter, the same ones whenever the seed is the same.

A network that is to judge images of other clinics must not depend on what is alike in all images of one: framing,
colour, sharpness, compression, the black corners of some dermatoscopes, hairs. Each view draws its own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Pixels = npt.NDArray[np.uint8]

#: What a view can change, in this order.
ViewChange = Literal["framing", "constancy", "colour", "hairs", "corners", "quality"]
VIEW_CHANGES: Final[tuple[ViewChange, ...]] = get_args(ViewChange)

#: Raised when the same seed gives another view.
RANDOM_VIEWS_VERSION: Final = 2

#: Power of the Minkowski mean of shades of grey; Finlayson & Trezzi 2004 found 6 to be the best.
_SHADES_POWER: Final = 6


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
    """
    generator = np.random.default_rng(np.frombuffer(seed.ljust(-(-len(seed) // 4) * 4, b"\0"), np.uint32))
    picture = Image.fromarray(image)

    def change(name: ViewChange, made: Callable[[Image.Image], Image.Image]) -> Image.Image:
        changed = made(picture)
        return changed if name in changes else picture

    picture = change("framing", lambda before: _framed(np.asarray(before), generator))
    if generator.random() < 0.12:
        picture = change("constancy", lambda before: Image.fromarray(shades_of_grey(np.asarray(before))))
    picture = change("colour", lambda before: _coloured(before, generator))
    if generator.random() < 0.12:
        picture = change("hairs", lambda before: _with_hairs(before, generator))
    if generator.random() < 0.15:
        picture = change("corners", lambda before: _dark_corners(before, generator))
    if generator.random() < 0.5:
        picture = change("quality", lambda before: _degraded(before, generator))
    return np.asarray(picture)


def _framed(image: Pixels, generator: np.random.Generator) -> Image.Image:
    """Turn, mirror, zoom, stretch and shift about the centre; what lies outside mirrors the inside."""
    side = image.shape[0]
    # A lesion has no upright; whole quarter turns do not blur.
    quarters = float(generator.integers(4)) if generator.random() < 0.5 else generator.uniform(0.0, 4.0)
    angle = quarters * math.pi / 2
    zoom = math.exp(generator.uniform(-0.5, 0.25))  # below 1 shows less of the image, larger
    stretch = math.exp(generator.uniform(-0.12, 0.12))
    mirror = -1.0 if generator.random() < 0.5 else 1.0
    shift = generator.uniform(-0.1, 0.1, 2) * side
    margin = side // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    cosine, sine = math.cos(angle) * zoom, math.sin(angle) * zoom
    a, b = cosine * stretch * mirror, -sine / stretch
    d, e = sine * stretch * mirror, cosine / stretch
    centre = side / 2
    middle_x, middle_y = margin + centre + shift[0], margin + centre + shift[1]
    return Image.fromarray(padded).transform(
        (side, side),
        Image.Transform.AFFINE,
        (a, b, middle_x - a * centre - b * centre, d, e, middle_y - d * centre - e * centre),
        resample=Image.Resampling.BILINEAR,
    )


def _coloured(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Change saturation, then exposure, contrast, gamma and cast, each channel by a table of 256 values."""
    picture = ImageEnhance.Color(picture).enhance(generator.uniform(0.7, 1.3))
    level = np.arange(256) / 255.0
    gamma, contrast = math.exp(generator.uniform(-0.25, 0.25)), generator.uniform(0.75, 1.25)
    exposure = math.exp(generator.uniform(-0.2, 0.2))
    cast = np.exp(generator.uniform(-0.08, 0.08, 3))
    toned = (level**gamma - 0.6) * contrast + 0.6  # skin lies about 0.6: contrast turns about it, not about black
    table = np.clip(np.outer(exposure * cast, toned) * 255.0, 0.0, 255.0).round().astype(int)
    return picture.point(table.ravel().tolist())


def shades_of_grey(image: Pixels) -> Pixels:
    """Return the image under a neutral light, as estimated by the Minkowski mean of each channel.

    Finlayson & Trezzi 2004, "Shades of gray and colour constancy"; for skin lesions Barata et al. 2015, "Improving
    dermoscopy image classification using color constancy".

    Args:
        image: uint8 (h, w, 3), RGB.
    """
    levels = np.arange(256, dtype=np.float64) ** _SHADES_POWER
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    light = (counts @ levels / counts[0].sum()) ** (1.0 / _SHADES_POWER)
    gain = light.mean() / np.maximum(light, 1.0)
    table = np.clip(np.outer(gain, np.arange(256)), 0.0, 255.0).round().astype(np.uint8)
    return np.stack([table[channel][image[..., channel]] for channel in range(3)], axis=-1)


def _with_hairs(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Draw some thin dark arcs."""
    side = picture.width
    picture = picture.copy()
    pen = ImageDraw.Draw(picture)
    for _ in range(generator.integers(2, 12)):
        middle, radius = generator.uniform(-0.5, 1.5, 2) * side, generator.uniform(0.4, 1.5) * side
        start = generator.uniform(0.0, 360.0)
        ink = generator.integers(10, 70)
        box = (*(middle - radius), *(middle + radius))
        colour = (int(ink), int(ink * 0.8), int(ink * 0.6))
        pen.arc(box, start, start + generator.uniform(20.0, 90.0), fill=colour, width=int(generator.integers(1, 3)))
    return picture


def _dark_corners(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Darken what lies outside a circle, sharply as a dermatoscope's tube does or softly as a lens does."""
    side = picture.width
    middle = side / 2 + generator.uniform(-0.06, 0.06, 2) * side
    radius, softness = generator.uniform(0.46, 0.66) * side, generator.choice([2.0, side / 6])
    y, x = np.ogrid[:side, :side]
    beyond = np.hypot(x - middle[0], y - middle[1]) - radius
    light = np.clip(1.0 - beyond / softness, generator.uniform(0.0, 0.3), 1.0)
    return Image.fromarray((np.asarray(picture) * light[..., None]).astype(np.uint8))


def _degraded(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Lose quality in one of four ways."""
    side = picture.width
    way = generator.integers(4)
    if way == 0:
        return picture.filter(ImageFilter.GaussianBlur(generator.uniform(0.4, 2.0)))
    if way == 1:
        coarse = max(8, round(side / generator.uniform(1.3, 3.5)))
        small = picture.resize((coarse, coarse), Image.Resampling.BILINEAR)
        return small.resize((side, side), Image.Resampling.BILINEAR)
    if way == 2:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(generator.integers(15, 75)))
        return Image.open(buffer).convert("RGB")
    noise: npt.NDArray[Any] = generator.standard_normal((side, side, 3), dtype=np.float32) * generator.uniform(2.0, 9.0)
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0.0, 255.0).astype(np.uint8))
