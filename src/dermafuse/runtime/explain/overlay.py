"""The explanation as one picture: image, heatmap with its scale, probabilities and contributions. Pillow only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dermafuse.data.dicom import is_dicom
from dermafuse.data.image_formats import stored_size
from dermafuse.data.images import load_image
from dermafuse.files import read_regular, write_atomic
from dermafuse.labels import DISCLAIMER
from dermafuse.runtime.explain.explainer import Explanation
from dermafuse.runtime.prediction import ImageSource

#: Anchors of the "inferno" colour scale (van der Walt & Smith, CC0): perceptually uniform, safe for the
#: colour-blind, still ordered in grey print.
_INFERNO: Final = np.array(
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ],
    dtype=np.float64,
)

_INK, _SOFT, _RULE, _PAPER = (28, 30, 34), (98, 103, 112), (222, 225, 230), (255, 255, 255)
_BAR, _CHOSEN, _ALARM = (168, 178, 194), (38, 84, 160), (178, 48, 42)
_FOR, _AGAINST = (38, 84, 160), (196, 112, 40)

_MARGIN: Final = 32
_PICTURE: Final = 440  # longest side of each of the two pictures
_COLUMN: Final = 470  # width of the charts
_ROW: Final = 30


def save_overlay(image: ImageSource, explanation: Explanation, path: Path) -> None:
    """Write the picture of an explanation as PNG, atomically.

    Raises:
        ImageError: the image cannot be read.
        OutputError: ``path`` cannot be written.
    """
    content = io.BytesIO()
    draw_overlay(image, explanation).save(content, "PNG")
    write_atomic(path, content.getvalue())


def draw_overlay(image: ImageSource, explanation: Explanation) -> Image.Image:
    """Return the picture of an explanation: RGB, about 1,500 pixels wide.

    Args:
        image: the image that was explained.
        explanation: from `dermafuse.runtime.explain.explainer`.

    Raises:
        ImageError: the image cannot be read.
    """
    pixels = upright(image, _PICTURE)
    height, width = pixels.shape[:2]
    players = _players(explanation)
    chart = 60 + _ROW * len(explanation.prediction.probabilities) + (80 + _ROW * len(players) if players else 0)
    body = max(height + 70, chart)
    total = (2 * width + _COLUMN + 4 * _MARGIN, 108 + body + 88 + 24 * len(explanation.notes))
    canvas = Image.new("RGB", total, _PAPER)
    pen = _Pen(ImageDraw.Draw(canvas))

    _title(pen, explanation, total[0])
    top = 108
    canvas.paste(Image.fromarray(pixels), (_MARGIN, top))
    pen.text((_MARGIN, top + height + 10), "Image", 15, _SOFT)
    left = 2 * _MARGIN + width
    canvas.paste(Image.fromarray(blend(pixels, explanation.heatmap)), (left, top))
    _scale(pen, canvas, explanation, left, top + height + 10, width)
    right = left + width + _MARGIN
    bottom = _probabilities(pen, explanation, right, top)
    if players:
        _contributions(pen, explanation, players, right, bottom + 28)

    foot = total[1] - 52 - 24 * len(explanation.notes)
    pen.draw.line((_MARGIN, foot, total[0] - _MARGIN, foot), _RULE)
    for number, note in enumerate(explanation.notes):
        pen.text((_MARGIN, foot + 12 + 24 * number), pen.fit(note, 14, total[0] - 2 * _MARGIN), 14, _SOFT)
    pen.text((_MARGIN, total[1] - 40), DISCLAIMER, 15, _ALARM, bold=True)
    return canvas


def upright(image: ImageSource, longest: int) -> npt.NDArray[np.uint8]:
    """Return an image upright in its own proportions, uint8 (height, width, 3), longest side ``longest``."""
    square = load_image(image, longest)
    width, height = _proportions(image)
    size = (
        (longest, max(1, round(longest * height / width)))
        if width >= height
        else (max(1, round(longest * width / height)), longest)
    )
    # Extreme strips would not be readable in their own proportions.
    size = (max(size[0], longest // 4), max(size[1], longest // 4))
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.LANCZOS))


def blend(pixels: npt.NDArray[np.uint8], heatmap: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Lay a heatmap (h, w), 0..1, over an image (height, width, 3): the hotter, the more of its colour shows.

    Where the heatmap is 0 the image is shown in grey, so that colour means heat and nothing else.
    """
    heat = np.clip(smooth(np.asarray(heatmap, np.float64), pixels.shape[:2]), 0.0, 1.0)[..., np.newaxis]
    grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., np.newaxis]
    share = 0.75 * heat
    mixed = grey * (1.0 - share) + inferno(heat[..., 0]) * share
    result: npt.NDArray[np.uint8] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return result


def smooth(values: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return a map (h, w) enlarged to ``shape`` (height, width) without edges: cubic B-splines, the peak kept.

    Bilinear enlargement, by which heatmaps are judged (`stretch`), shows the few cells of a feature map as crosses and
    corners, which look like things in the image.
    """
    result = values
    for axis, size in enumerate(shape):
        length = result.shape[axis]
        centre = (np.arange(size) + 0.5) * length / size - 0.5
        first = np.floor(centre).astype(np.intp)
        t = (centre - first).reshape((-1, 1) if axis == 0 else (1, -1))
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        result = sum(
            (
                np.take(result, np.clip(first + offset, 0, length - 1), axis) * weight / 6
                for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)
            ),
            start=np.zeros(()),
        )
    peak = result.max()
    return result * (values.max() / peak) if peak > 0 else result


def inferno(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return RGB colours 0..255, (..., 3), of values 0..1."""
    place = np.linspace(0.0, 1.0, len(_INFERNO))
    return np.stack([np.interp(values, place, _INFERNO[:, channel]) for channel in range(3)], axis=-1)


@dataclass(frozen=True)
class _Pen:
    """Text in the font that comes with Pillow."""

    draw: ImageDraw.ImageDraw

    def text(
        self,
        at: tuple[float, float],
        text: str,
        size: int,
        colour: tuple[int, int, int] = _INK,
        *,
        anchor: str = "la",
        bold: bool = False,
    ) -> None:
        stroke = 0.4 if bold else 0
        self.draw.text(at, text, colour, ImageFont.load_default(size), anchor=anchor, stroke_width=stroke)

    def width(self, text: str, size: int) -> float:
        return float(self.draw.textlength(text, ImageFont.load_default(size)))

    def fit(self, text: str, size: int, room: float) -> str:
        """Return text cut to a width, with an ellipsis where something was cut."""
        if self.width(text, size) <= room:
            return text
        while text and self.width(text + "...", size) > room:
            text = text[:-1]
        return text.rstrip() + "..."


def _title(pen: _Pen, explanation: Explanation, width: int) -> None:
    said = explanation.prediction
    share = said.probabilities[said.label]
    room = width - 2 * _MARGIN
    pen.text((_MARGIN, 24), pen.fit(f"{said.name} ({said.label}), probability {share:.0%}", 28, room), 28, bold=True)
    bad = said.malignant_probability
    facts = [] if bad is None else [f"malignant {bad:.0%}"]
    if said.prediction_set is not None and said.prediction_set != (said.label,):
        facts.append(f"cannot be excluded: {', '.join(said.prediction_set) or 'none of the classes fits'}")
    if said.missing:
        facts.append(f"not known: {', '.join(said.missing)}")
    pen.text((_MARGIN, 66), pen.fit("   |   ".join(facts), 17, room), 17, _SOFT)
    if said.out_of_distribution:
        warning = "Unlike the images this model was trained on: do not trust the prediction."
        pen.text((_MARGIN, 87), pen.fit(warning, 15, room), 15, _ALARM, bold=True)


def _scale(pen: _Pen, canvas: Image.Image, explanation: Explanation, left: int, top: int, width: int) -> None:
    """Draw the heatmap's legend: what it shows, and a colour bar with its ends."""
    caption = f"Where the network sees {explanation.target} (Grad-CAM)"
    pen.text((left, top), pen.fit(caption, 15, width), 15, _SOFT)
    if explanation.cam.max() <= 0:
        pen.text((left, top + 26), pen.fit("Nothing in this image speaks for it.", 14, width), 14, _SOFT)
        return
    ends = ("none", "most")
    start = left + pen.width(ends[0], 14) + 8
    length = max(20, int(width - pen.width(ends[0], 14) - pen.width(ends[1], 14) - 16))
    ramp = inferno(np.linspace(0, 1, length)[np.newaxis].repeat(12, axis=0))
    canvas.paste(Image.fromarray(ramp.astype(np.uint8)), (round(start), top + 30))
    pen.text((left, top + 28), ends[0], 14, _SOFT)
    pen.text((start + length + 8, top + 28), ends[1], 14, _SOFT)


def _probabilities(pen: _Pen, explanation: Explanation, left: int, top: int) -> int:
    """Draw the bar chart of the classes, the most probable first; return where it ends."""
    said = explanation.prediction
    pen.text((left, top), "Probability of each diagnosis", 18, bold=True)
    start, room = left + 78, _COLUMN - 78 - 62
    ranked = sorted(said.probabilities.items(), key=lambda item: -item[1])
    for number, (code, share) in enumerate(ranked):
        y = top + 36 + number * _ROW
        chosen = code == said.label
        pen.text((left, y + 9), pen.fit(code, 16, 72), 16, _INK if chosen else _SOFT, anchor="lm", bold=chosen)
        pen.draw.rectangle((start, y, start + room, y + 18), (244, 245, 247))
        pen.draw.rectangle((start, y, start + max(1, room * share), y + 18), _CHOSEN if chosen else _BAR)
        pen.text((start + room + 8, y + 9), f"{share:.1%}", 15, _INK if chosen else _SOFT, anchor="lm")
    return top + 36 + len(ranked) * _ROW


def _players(explanation: Explanation) -> list[tuple[str, float]]:
    shares = explanation.attributions.get(explanation.target, {})
    return sorted(shares.items(), key=lambda item: -abs(item[1]))


def _contributions(
    pen: _Pen, explanation: Explanation, players: Sequence[tuple[str, float]], left: int, top: int
) -> None:
    """Draw what each input adds to, or takes from, the probability of the target."""
    target = explanation.target
    pen.text((left, top), f"What speaks for and against {target} (Shapley values)", 18, bold=True)
    base, share = explanation.baseline[target], explanation.prediction.probabilities[target]
    pen.text((left, top + 24), f"from {base:.1%} with nothing known to {share:.1%} with all of this", 14, _SOFT)
    widest = max(abs(value) for _, value in players) or 1.0
    start = left + 118
    half = (_COLUMN - 118 - 74) / 2
    middle = start + half
    for number, (player, value) in enumerate(players):
        y = top + 52 + number * _ROW
        known = player not in explanation.prediction.missing
        pen.text((left, y + 9), pen.fit(player, 15, 112), 15, _INK if known else _SOFT, anchor="lm")
        end = middle + half * value / widest
        pen.draw.rectangle((min(middle, end), y, max(middle, end), y + 18), _FOR if value >= 0 else _AGAINST)
        pen.text(
            (start + 2 * half + 8, y + 9), f"{100 * value:+.1f} pt" if known else "not known", 14, _SOFT, anchor="lm"
        )
    pen.draw.line((middle, top + 48, middle, top + 52 + len(players) * _ROW - 8), _SOFT)


def _proportions(image: ImageSource) -> tuple[int, int]:
    """Return (width, height) of the upright image; only the header of a file is read."""
    if isinstance(image, np.ndarray):
        return int(image.shape[1]), int(image.shape[0])
    if isinstance(image, Image.Image):
        opened = image
        turned = opened.getexif().get(0x0112, 1) >= 5
        return (opened.height, opened.width) if turned else opened.size

    data = bytes(image) if isinstance(image, bytes | bytearray) else read_regular(image)
    if is_dicom(data):
        return stored_size(data, "The image")
    with Image.open(io.BytesIO(data)) as opened:
        turned = opened.getexif().get(0x0112, 1) >= 5
        return (opened.height, opened.width) if turned else opened.size
