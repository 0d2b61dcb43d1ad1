"""Drawing one picture of a generated lesion: skin, pigment, blood, texture, border, hairs, light.

Colour follows the Beer-Lambert law, as in skin: light falls on white and is absorbed by melanin (brown) and by
blood (red), so a lesion is a map of how much of each lies where.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from dermafuse.data.synthetic.lesions import TORUS, Floats, Lesion, Noise, Points

#: Absorption per unit of density in R, G, B.
_MELANIN: Final = np.array([0.40, 0.74, 1.00], np.float32)
_BLOOD: Final = np.array([0.13, 0.92, 0.62], np.float32)
_VEIL: Final = np.array([104, 112, 138], np.float32)  # blue-grey: melanin deep in the skin scatters blue
_WHITE: Final = np.array([238, 222, 216], np.float32)  # scar, scale
_LIGHT: Final = np.array([246, 226, 222], np.float32)


def draw(
    lesion: Lesion, noise: Noise, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw one picture of a lesion: another crop, turn, light and hairs each time.

    Args:
        lesion: what is drawn.
        noise: the fields it reads its texture from.
        rng: what differs between pictures.
        size: width and height in pixels.

    Returns:
        uint8 RGB (height, width, 3), and where the lesion is, bool (height, width).
    """
    width, height = size
    trait = lesion.traits
    zoom, turn = rng.uniform(0.85, 1.2), rng.uniform(0, 2 * np.pi)
    radius = trait["radius"] * height * zoom
    centre = np.array([width * (0.5 + rng.normal(0, 0.045)), height * (0.5 + rng.normal(0, 0.045))])
    cos, sin = np.cos(turn), np.sin(turn)

    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (x * np.float32(cos) + y * np.float32(sin)) / np.float32(radius)  # the lesion's own coordinates
    v = (y * np.float32(cos) - x * np.float32(sin)) / np.float32(radius)

    grain = 2 * radius / zoom * 150 / height  # noise samples a radius: textures have a size on the skin, not in it
    column = (u * np.float32(grain)).astype(np.int32) + lesion.patch[0]
    row = (v * np.float32(grain)).astype(np.int32) + lesion.patch[1]
    where = (row % TORUS) * TORUS + column % TORUS

    def read(field: Floats) -> Floats:
        patch: Floats = np.take(field, where)
        return patch

    def disc(points: Points, blur: float) -> Floats:
        return _discs(points, centre, radius, (cos, sin), size, blur)

    area = [read(field) for field in noise.broad]
    mottle = read(noise.fractal[0])

    # How far inside: 1 at the centre, 0 at the border, negative outside.
    angle = np.arctan2(v, u)
    rim = np.ones_like(u)
    for order, (amplitude, phase) in enumerate(lesion.outline, 1):
        rim += np.float32(0.28 * trait["ragged"] * amplitude) * np.cos(order * angle + np.float32(phase))
    distance = np.hypot(u * np.float32(lesion.aspect**0.5), v / np.float32(lesion.aspect**0.5))
    inside = np.maximum(rim, 0.35) - distance + np.float32(trait["ragged"]) * (0.22 * area[0] + 0.16 * mottle)
    soft = np.float32(trait["edge"])
    body = _step(inside / soft)

    uneven = np.float32(trait["uneven"])
    pigment = np.maximum(1 + uneven * (0.75 * area[1] + 0.35 * mottle), 0.08)
    mesh = np.exp(-((read(noise.mesh) / 0.5) ** 2))
    pigment = pigment * (1 + np.float32(1.5 * trait["network"]) * (mesh - 0.5) * _step(1.2 * area[2] + 0.4))
    spots = disc(lesion.spots, 0.6)
    melanin = np.float32(trait["melanin"]) * body * np.maximum(pigment, 0.05)
    melanin += 1.1 * spots * body * np.maximum(0.55 + 0.45 * mottle, 0)
    flush = np.maximum(1 + 0.55 * area[2] + 0.3 * mottle, 0.1)
    blood = np.float32(trait["blood"]) * _step(inside / (soft * 1.5)) * flush
    if trait["lagoons"] > 0.15:
        walls = disc(lesion.lagoons, 1.0)
        blood = blood * (1 - 0.65 * np.float32(trait["lagoons"]) * (1 - walls)) + 0.3 * walls * body
        melanin += np.float32(0.8 * max(trait["veil"] - 0.15, 0)) * walls * body  # clotted: towards black

    around, pink, freckled = lesion.skin
    melanin += np.float32(around) * (1 + 0.35 * mottle)
    melanin += np.float32(0.22 * freckled**3) * _step((area[1] + 0.3 * mottle - 1.0) * 1.5)
    blood += np.float32(pink) * np.maximum(1 + 0.22 * read(noise.fractal[1]) + 0.1 * area[2], 0.1)
    pores = read(noise.pores)
    melanin += 0.022 * pores
    blood += 0.4 * _strokes(lesion.branches, centre, radius, (cos, sin), size) * (body * 0.8 + 0.2)

    colour = _LIGHT * np.exp(-np.maximum(melanin, 0)[..., None] * _MELANIN - blood[..., None] * _BLOOD)
    veil = np.float32(trait["veil"]) * body * _step(area[2] * 0.9 + 0.35 * mottle - 0.1)
    _blend(colour, _VEIL, 0.85 * veil)
    offset = np.hypot(u - np.float32(lesion.scar_at[0]), v - np.float32(lesion.scar_at[1]))
    scar = np.float32(trait["scar"]) * _step((0.42 + 0.12 * mottle - offset) * 4) * body
    _blend(colour, _WHITE, 0.75 * scar)
    flakes = _step((read(noise.flakes) + 0.9 * area[0] - 1.5) * 1.6)
    _blend(colour, _WHITE, np.float32(0.8 * trait["scale"]) * flakes * body)
    _blend(colour, _WHITE, 0.6 * disc(lesion.milia, 0.9) * body)

    hairs = _hairs(lesion.hairy, rng, size)
    if hairs is not None:
        _blend(colour, np.array([48, 34, 30], np.float32) * np.float32(rng.uniform(0.6, 1.6)), 0.85 * hairs)
    _light(colour, x, y, centre, rng)
    colour += rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0.8, 2.2))
    return np.clip(colour, 0, 255).astype(np.uint8), body > 0.5


def _step(value: Points) -> Floats:
    """Return a smooth step from 0 (below -1) to 1 (above 1)."""
    t = np.clip(0.5 + 0.5 * value, 0, 1).astype(np.float32, copy=False)
    smooth: Floats = t * t * (3 - 2 * t)
    return smooth


def _blend(colour: Floats, other: Floats, share: Points) -> None:
    """Move ``colour`` (h, w, 3) towards ``other`` by ``share`` (h, w), in place."""
    colour += (other - colour) * np.clip(share, 0, 1)[..., None]


def _light(colour: Floats, x: Floats, y: Floats, centre: Points, rng: np.random.Generator) -> None:
    """Apply what camera and lamp do: white balance, brightness, a gradient, and often a dark rim; in place."""
    height, width = x.shape
    tilt = rng.normal(0, 0.09, 2)
    shade = np.float32(rng.uniform(0.82, 1.06)) * (
        1 + np.float32(tilt[0] / width) * x + np.float32(tilt[1] / height) * y
    )
    x = x + np.float32(centre[0] - width / 2)  # from the middle of the picture
    y = y + np.float32(centre[1] - height / 2)
    from_middle = np.hypot(x, y) / np.float32(0.5 * np.hypot(width, height))
    shade *= 1 - np.float32(rng.uniform(0, 0.22)) * from_middle**2
    if rng.random() < 0.22:  # the edge of the lens
        lens = np.float32(rng.uniform(0.78, 1.0))
        shade *= 0.06 + 0.94 * _step((lens - from_middle) * np.float32(rng.uniform(12, 40)))
    cast = np.array([rng.normal(1.0, 0.02), rng.normal(1.0, 0.035), rng.normal(1.0, 0.07)], np.float32)
    colour *= shade[..., None] * cast


def _place(points: Points, centre: Points, radius: float, turn: tuple[float, float]) -> Points:
    """Return lesion coordinates (n, 2) as pixels (n, 2)."""
    cos, sin = turn
    turned = [points[:, 0] * cos - points[:, 1] * sin, points[:, 0] * sin + points[:, 1] * cos]
    placed: Points = centre + radius * np.stack(turned, 1)
    return placed


def _discs(
    points: Points,
    centre: Points,
    radius: float,
    turn: tuple[float, float],
    size: tuple[int, int],
    blur: float,
) -> Floats:
    """Return soft discs as shares 0..1 (h, w)."""
    if not len(points):
        return np.zeros((size[1], size[0]), np.float32)
    canvas = Image.new("L", (size[0] * 2, size[1] * 2))
    brush = ImageDraw.Draw(canvas)
    for (px, py), r in zip(2 * _place(points[:, :2], centre, radius, turn), 2 * radius * points[:, 2], strict=True):
        brush.ellipse((px - r, py - r, px + r, py + r), fill=255)
    return _shares(canvas, size, blur)


def _strokes(
    lines: list[Points],
    centre: Points,
    radius: float,
    turn: tuple[float, float],
    size: tuple[int, int],
) -> Floats:
    """Return thin lines as shares 0..1 (h, w): stems (every third) wider than branches."""
    if not lines:
        return np.zeros((size[1], size[0]), np.float32)
    canvas = Image.new("L", (size[0] * 2, size[1] * 2))
    brush = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        points = [tuple(point) for point in 2 * _place(line, centre, radius, turn)]
        brush.line(points, fill=255, width=3 if number % 3 == 0 else 2, joint="curve")
    return _shares(canvas, size, 0.5)


def _hairs(tendency: float, rng: np.random.Generator, size: tuple[int, int]) -> Floats | None:
    """Return hairs as shares 0..1 (h, w), quadratic curves across the picture; None where there are none."""
    count = int(rng.poisson(tendency))
    if not count:
        return None
    width, height = size
    canvas = Image.new("L", (width * 2, height * 2))
    brush = ImageDraw.Draw(canvas)
    t = np.linspace(0, 1, 14)[:, None]
    grain = rng.uniform(0, np.pi)  # hairs of one spot lie more or less one way
    for _ in range(count):
        middle = rng.uniform(0, 1, 2) * (2 * width, 2 * height)
        angle, length = grain + rng.normal(0, 0.5), rng.uniform(0.2, 1.0) * height
        along = np.array([np.cos(angle), np.sin(angle)]) * length
        bend = np.array([-along[1], along[0]]) * rng.normal(0, 0.25)
        curve = middle + (2 * t - 1) * along + (1 - (2 * t - 1) ** 2) * bend
        brush.line([tuple(point) for point in curve], fill=int(rng.uniform(120, 255)), width=int(rng.integers(1, 4)))
    return _shares(canvas, size, 0.4)


def _shares(canvas: Image.Image, size: tuple[int, int], blur: float) -> Floats:
    """Return a canvas of twice the size, made smaller and soft, as shares 0..1 (h, w)."""
    small = canvas.reduce(2).filter(ImageFilter.GaussianBlur(blur * size[1] / 150))
    shares: Floats = np.asarray(small, np.float32) / np.float32(255)
    return shares
