"""Painting a drawing with Pillow, as PNG."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from PIL import Image, ImageColor, ImageDraw, ImageFont

from dermafuse.report.figures.canvas import INKS, Box, Canvas, Dot, Label, Line, Point, Shape

#: Painted this many times larger and shrunk: Pillow draws without antialiasing.
_OVERSAMPLE: Final = 2


def png(canvas: Canvas, *, scale: int = 2) -> bytes:
    """Return a drawing as PNG in its light colours, ``scale`` pixels a unit."""
    content = io.BytesIO()
    paint(canvas, scale).quantize(64, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def paint(canvas: Canvas, scale: int) -> Image.Image:
    """Return an RGB image of a drawing in its light colours, ``scale`` pixels a unit."""
    zoom = float(scale * _OVERSAMPLE)
    size = round(canvas.width * scale), round(canvas.height * scale)
    image = Image.new("RGB", (size[0] * _OVERSAMPLE, size[1] * _OVERSAMPLE), INKS["paper"][0])
    draw = ImageDraw.Draw(image, "RGBA")
    for shape in canvas.shapes:
        _paint(image, draw, shape, zoom)
    return image.resize(size, Image.Resampling.BOX)


def _paint(image: Image.Image, draw: ImageDraw.ImageDraw, shape: Shape, zoom: float) -> None:
    if isinstance(shape, Line):
        points = [(x * zoom, y * zoom) for x, y in shape.points]
        if shape.fill is not None and len(points) > 2:
            draw.polygon(points, fill=_colour(shape.fill, shape.opacity))
        if shape.ink is not None and len(points) > 1:
            width = max(1, round(shape.width * zoom))
            for part in _dashes(points, shape.dash * zoom):
                draw.line(part, fill=_colour(shape.ink, shape.opacity), width=width, joint="curve")
    elif isinstance(shape, Box):
        if shape.width > 0 and shape.height > 0:
            corners = (shape.x, shape.y, shape.x + shape.width, shape.y + shape.height)
            draw.rectangle([value * zoom for value in corners], fill=_colour(shape.fill, shape.opacity))
    elif isinstance(shape, Dot):
        for radius, ink in ((shape.radius + 0.6, "paper"), (shape.radius, shape.fill)):
            corners = (shape.x - radius, shape.y - radius, shape.x + radius, shape.y + radius)
            draw.ellipse([value * zoom for value in corners], fill=_colour(ink, 1.0))
    else:
        _write(image, draw, shape, zoom)


def _write(image: Image.Image, draw: ImageDraw.ImageDraw, label: Label, zoom: float) -> None:
    font = ImageFont.load_default(label.size * zoom)
    anchor = {"start": "lm", "middle": "mm", "end": "rm"}[label.anchor]
    stroke = max(1, round(zoom * label.size / 60)) if label.bold else 0
    colour = _colour(label.ink, 1.0)
    if not label.upwards:
        place = (label.x * zoom, label.y * zoom)
        draw.text(place, label.text, font=font, fill=colour, anchor=anchor, stroke_width=stroke, stroke_fill=colour)
        return
    width, height = math.ceil(font.getlength(label.text)) + 4, math.ceil(label.size * zoom * 1.6)
    strip = Image.new("L", (width, height), 0)
    ImageDraw.Draw(strip).text((width / 2, height / 2), label.text, font=font, fill=255, anchor="mm")
    turned = strip.rotate(90, expand=True)
    before = {"start": width, "middle": width / 2, "end": 0}[label.anchor]
    corner = round(label.x * zoom - height / 2), round(label.y * zoom - before)
    image.paste(Image.new("RGB", turned.size, colour[:3]), corner, turned)


def _colour(name: str, opacity: float) -> tuple[int, int, int, int]:
    red, green, blue = ImageColor.getrgb(INKS[name][0])[:3]
    return red, green, blue, round(255 * opacity)


def _dashes(points: Sequence[Point], dash: float) -> Iterator[list[Point]]:
    """Yield the drawn parts of a polyline whose strokes and gaps are ``dash`` long; all of it where that is 0."""
    if dash <= 0:
        yield list(points)
        return
    drawn, left = True, dash
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        done = 0.0
        while done < length:
            step = min(left, length - done)
            if drawn:
                ends = (done / length, (done + step) / length)
                yield [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in ends]
            done += step
            left -= step
            if left <= 0:
                drawn, left = not drawn, dash
