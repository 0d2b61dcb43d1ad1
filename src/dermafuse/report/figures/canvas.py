"""A drawing as a list of shapes, written as SVG (for the page and for papers) or painted as PNG with Pillow.

Colours are named inks with a light and a dark value. The SVG carries the light value as an attribute and the
name as a class, so that a style sheet can recolour it (the page's theme) and a program without CSS still
shows the right picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dermafuse.printable import escape

#: name -> (light, dark). The class colours keep their order of lightness for the colour-blind; red is melanoma.
INKS: Final[dict[str, tuple[str, str]]] = {
    "ink": ("#1b1f26", "#e7eaf0"),
    "soft": ("#5c6470", "#a0a9b6"),
    "rule": ("#e2e5ea", "#2c323b"),
    "paper": ("#ffffff", "#171b21"),
    "accent": ("#2456a6", "#7db0ff"),
    "warm": ("#c2622d", "#f2a578"),
    "bad": ("#b3302a", "#ff8f86"),
    "c0": ("#c77f1a", "#eeb05a"),
    "c1": ("#1f94bd", "#66ccee"),
    "c2": ("#228833", "#62c076"),
    "c3": ("#7d7d7d", "#b4b4b4"),
    "c4": ("#d4303f", "#ff7b88"),
    "c5": ("#3566b8", "#86b0ff"),
    "c6": ("#a13a8f", "#dd8bce"),
}
FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A polyline, or a filled polygon where ``fill`` names an ink."""

    points: Sequence[Point]
    ink: str | None
    width: float = 1.0
    dash: float = 0.0
    fill: str | None = None
    opacity: float = 1.0
    series: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    opacity: float = 1.0
    series: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Dot:
    """A filled circle with a thin rim of paper."""

    x: float
    y: float
    radius: float
    fill: str
    series: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Label:
    """One line of text; ``anchor`` is start, middle or end, and ``y`` its middle height."""

    x: float
    y: float
    text: str
    size: float = 11.0
    ink: str = "soft"
    anchor: str = "start"
    bold: bool = False
    upwards: bool = False
    series: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


Shape = Line | Box | Dot | Label


@dataclass
class Canvas:
    """Shapes in the order they are painted, in a box of ``width`` x ``height`` units (about CSS pixels)."""

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Append shapes; later ones lie on top."""
        self.shapes.extend(shapes)

    def svg(self, *, standalone: bool = True) -> str:
        """Return the drawing as SVG.

        Args:
            standalone: with paper, size and a style for dark viewers; without, for a page that styles it.
        """
        size = f' width="{self.width:g}" height="{self.height:g}"' if standalone else ""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}"{size} role="img" '
            f"aria-label=\"{escape(self.title)}\" font-family='{FONT}'>"
        ]
        if standalone:
            parts.append(f"<style>{_dark_style()}</style>")
            parts.append(f'<rect width="100%" height="100%" {_ink("fill", "paper")}/>')
        parts += [_svg(shape) for shape in self.shapes]
        return "".join([*parts, "</svg>"])


def theme_style() -> str:
    """Return the CSS rules that let a page's variables (``--c0`` ...) recolour the drawings inside it."""
    return "".join(f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in INKS)


def theme_variables(*, dark: bool) -> str:
    """Return the CSS variable definitions of all inks."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in INKS.items())


def _dark_style() -> str:
    rules = "".join(f".f-{name}{{fill:{dark}}}.s-{name}{{stroke:{dark}}}" for name, (_, dark) in INKS.items())
    return f"@media (prefers-color-scheme:dark){{{rules}}}"


def _ink(kind: str, name: str | None) -> str:
    if name is None:
        return f'{kind}="none"'
    return f'{kind}="{INKS[name][0]}"'


def _classes(*pairs: tuple[str, str | None]) -> str:
    names = " ".join(f"{kind}-{name}" for kind, name in pairs if name is not None)
    return f' class="{names}"' if names else ""


def _extra(series: str, tip: str) -> str:
    return (f' data-series="{escape(series)}"' if series else "") + (
        f' data-tip="{escape(tip)}" tabindex="-1"' if tip else ""
    )


def _svg(shape: Shape) -> str:
    if isinstance(shape, Line):
        return _svg_line(shape)
    if isinstance(shape, Box):
        return (
            f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{max(0.0, shape.width):.1f}" '
            f'height="{max(0.0, shape.height):.1f}" {_ink("fill", shape.fill)}'
            f"{_opacity(shape.opacity)}{_classes(('f', shape.fill))}{_extra(shape.series, shape.tip)}/>"
        )
    if isinstance(shape, Dot):
        return (
            f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:.1f}" {_ink("fill", shape.fill)} '
            f"{_ink('stroke', 'paper')}{_classes(('f', shape.fill), ('s', 'paper'))}{_extra(shape.series, shape.tip)}/>"
        )
    turn = f' transform="rotate(-90 {shape.x:.1f} {shape.y:.1f})"' if shape.upwards else ""
    bold = ' font-weight="600"' if shape.bold else ""
    more = "".join(f' {name}="{escape(value)}"' for name, value in shape.attributes.items())
    return (
        f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" dy=".35em" font-size="{shape.size:g}" '
        f'text-anchor="{shape.anchor}" {_ink("fill", shape.ink)}{bold}{turn}{_classes(("f", shape.ink))}'
        f"{_extra(shape.series, '')}{more}>{escape(shape.text)}</text>"
    )


def _svg_line(shape: Line) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    tag = "polyline" if shape.fill is None else "polygon"
    dash = f' stroke-dasharray="{shape.dash:g}"' if shape.dash else ""
    width = f' stroke-width="{shape.width:g}"' if shape.ink is not None else ""
    drawn = (
        f'<{tag} points="{places}" {_ink("fill", shape.fill)} {_ink("stroke", shape.ink)}{width}{dash}'
        f' stroke-linejoin="round"{_opacity(shape.opacity)}{_classes(("f", shape.fill), ("s", shape.ink))}'
        f"{_extra(shape.series, '')}/>"
    )
    if shape.tip:  # a wide invisible twin makes a thin line easy to point at
        few = [*shape.points[:-1:4], shape.points[-1]] if len(shape.points) > 40 else shape.points
        places = " ".join(f"{x:.0f},{y:.0f}" for x, y in few)
        drawn += (
            f'<polyline points="{places}" fill="none" stroke="#000" stroke-opacity="0" stroke-width="11" '
            f'pointer-events="stroke"{_extra(shape.series, shape.tip)}/>'
        )
    return drawn


def _opacity(value: float) -> str:
    return "" if value >= 1 else f' opacity="{value:.3g}"'
