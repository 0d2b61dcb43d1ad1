"""Axes for the drawings: scales, ticks, grid, legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dermafuse.report.figures.canvas import Canvas, Label, Line, Point


@dataclass(frozen=True)
class Frame:
    """A plotting area on a canvas: data coordinates to places.

    Attributes:
        left, top, width, height: the area in canvas units.
        x_range, y_range: data values at its edges.
    """

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    def x(self, value: float) -> float:
        """Return where a value lies across, kept inside the area."""
        low, high = self.x_range
        return self.left + self.width * min(1.0, max(0.0, (value - low) / (high - low)))

    def y(self, value: float) -> float:
        """Return where a value lies, upwards, kept inside the area."""
        low, high = self.y_range
        return self.bottom - self.height * min(1.0, max(0.0, (value - low) / (high - low)))

    def place(self, x: float, y: float) -> Point:
        """Return the place of a data point."""
        return self.x(x), self.y(y)

    def axes(
        self,
        canvas: Canvas,
        x_label: str,
        y_label: str,
        *,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        x_text: Callable[[float], str] = lambda value: f"{value:g}",
        y_text: Callable[[float], str] = lambda value: f"{value:g}",
    ) -> None:
        """Draw grid lines, tick labels and axis titles."""
        for value in ticks(*self.x_range) if x_ticks is None else x_ticks:
            canvas.add(
                Line([(self.x(value), self.top), (self.x(value), self.bottom)], "rule"),
                Label(self.x(value), self.bottom + 13, x_text(value), anchor="middle"),
            )
        for value in ticks(*self.y_range) if y_ticks is None else y_ticks:
            canvas.add(
                Line([(self.left, self.y(value)), (self.right, self.y(value))], "rule"),
                Label(self.left - 7, self.y(value), y_text(value), anchor="end"),
            )
        canvas.add(
            Label(self.left + self.width / 2, self.bottom + 31, x_label, size=11.5, anchor="middle"),
            Label(12, self.top + self.height / 2, y_label, size=11.5, anchor="middle", upwards=True),
        )


def unit_frame(canvas: Canvas, x_label: str, y_label: str) -> Frame:
    """Return the usual square frame of a 440-wide drawing, 0..1 on both axes, with its axes drawn."""
    frame = Frame(48, 14, canvas.width - 62, canvas.height - 62)
    frame.axes(canvas, x_label, y_label, x_ticks=_FIFTHS, y_ticks=_FIFTHS)
    return frame


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round values (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``, about ``about`` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda size: abs(size - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def thin(points: Sequence[Point], least: float = 1.2) -> list[Point]:
    """Return the points of a line without those nearer than ``least`` units to the last kept one; ends stay."""
    kept = list(points[:1])
    for point in points[1:-1]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= least:
            kept.append(point)
    return [*kept, *points[-1:]] if len(points) > 1 else kept


_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
