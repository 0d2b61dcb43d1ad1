"""A figure: its numbers, and the one function that draws them on matplotlib axes. As SVG, PNG and CSV.

What matplotlib writes becomes small SVG that fits into a page: colours as attributes with the names of inks as classes
(`inks`), no styles, no ids but the referenced ones, and those with the figure's name; marked shapes (`inks.mark`) get
their attributes.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pandas as pd

from dermafuse.files import write_atomic
from dermafuse.printable import escape
from dermafuse.report.figures.inks import INKS, MARK, dark_style, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'
#: Units of a drawing are points, about CSS pixels in the page.
_INCH: Final = 72
_PNG_SCALE: Final = 2
_NAMES: Final = {light: name for name, (light, _) in INKS.items()}
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
#: Values that are SVG's own when nothing is said.
_DEFAULTS: Final = {("stroke-linecap", "butt"), ("stroke-miterlimit", "100000"), ("stroke-width", "1")}


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure.

    Attributes:
        name: of its files.
        title: in words.
        table: the numbers in it.
        draw: puts the table on axes.
        size: width and height in points.
        margins: left, top, right and bottom of the axes, in points.
        section: of the report (``operating``) at whose end it stands, where no template draws it by its name.
        caption: what the report says below it there.
    """

    name: str
    title: str
    table: pd.DataFrame
    draw: Callable[[Axes, pd.DataFrame], None]
    size: tuple[float, float] = (440, 400)
    margins: tuple[float, float, float, float] = (48, 14, 14, 48)
    section: str = ""
    caption: str = ""

    def frame(self) -> pd.DataFrame:
        """Return the numbers."""
        return self.table

    @property
    def area(self) -> tuple[float, float, float, float]:
        """Where the axes lie in the drawing: left, top, width, height."""
        left, top, right, bottom = self.margins
        return left, top, self.size[0] - left - right, self.size[1] - top - bottom

    def svg(self, *, standalone: bool = True) -> str:
        """Return the drawing as SVG.

        Args:
            standalone: with paper, size and a style for dark viewers; without, for a page that styles it.
        """
        width, height = self.size
        size = f' width="{width:g}" height="{height:g}"' if standalone else ""
        paper = f'<rect width="100%" height="100%" fill="{ink("paper")}" class="f-paper"/>'
        own = f"<style>{dark_style()}</style>{paper}" if standalone else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"{size} role="img" '
            f'aria-label="{escape(self.title)}" font-family=\'{FONT}\' stroke-linejoin="round">'
            f"{own}{self._shapes}</svg>"
        )

    def png(self) -> bytes:
        """Return the drawing as PNG in its light colours, two pixels a point."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        content = io.BytesIO()
        with _plain_style():
            self._sheet.patch.set_visible(True)
            self._sheet.set_dpi(_INCH * _PNG_SCALE)
            FigureCanvasAgg(self._sheet).print_png(content, metadata={"Software": None})
        return content.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Write ``name.svg``, ``name.png`` and ``name.csv`` into a folder that is there; return their paths."""
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("svg", "png", "csv")]
        numbers = self.table.to_csv(index=False, float_format="%.8g")
        contents: list[bytes | str] = [self.svg(), self.png(), numbers]
        for path, content in zip(paths, contents, strict=True):
            write_atomic(path, content)
        return paths

    @cached_property
    def _shapes(self) -> str:
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        content = io.StringIO()
        with _plain_style():
            self._sheet.patch.set_visible(False)
            FigureCanvasSVG(self._sheet).print_svg(content)
        root = ElementTree.fromstring(content.getvalue())  # noqa: S314 - written two lines above
        return "".join(_markup(part, self.name) for part in root)

    @cached_property
    def _sheet(self) -> Sheet:
        from matplotlib.figure import Figure as Sheet

        (width, height), (left, top, across, down) = self.size, self.area
        sheet = Sheet(figsize=(width / _INCH, height / _INCH), dpi=_INCH)
        axes = sheet.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))
        self.draw(axes, self.table)
        return sheet


@contextlib.contextmanager
def _plain_style() -> Iterator[None]:
    """Draw the same whatever somebody's matplotlibrc says; a character that PNG's font lacks is no news."""
    import matplotlib

    own = ("backend", "interactive", "toolbar", "timezone", "webagg", "tk.", "keymap", "savefig.directory")
    usual = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(own)}
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context(usual | {"svg.fonttype": "none", "svg.hashsalt": "dermafuse"}),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _markup(node: ElementTree.Element, name: str) -> str:
    """Return one element of what matplotlib wrote, and what is in it."""
    tag = node.tag.rpartition("}")[2]
    if tag in ("metadata", "style", "clipPath"):  # nothing is drawn beyond its axes
        return ""
    inside = escape(node.text or "") if tag == "text" else "".join(_markup(part, name) for part in node)
    marks = _marks(node.get("id", "")) if tag == "g" else {}
    attributes = _attributes(node, name) | marks
    if tag in ("g", "defs") and (not inside or (tag == "g" and not attributes)):
        return inside
    if marks and inside.startswith("<text "):
        return inside.replace("<text ", f"<text {_written(marks)} ", 1)
    if "data-tip" in marks and 'fill="none"' in inside and inside.startswith("<path "):
        inside += _wide(inside)
    return (
        f"<{tag} {_written(attributes)}>{inside}</{tag}>".replace(" >", ">", 1)
        if inside
        else (f"<{tag} {_written(attributes)}/>")
    )


def _wide(line: str) -> str:
    """Return an invisible twin of a line, which is easier to point at."""
    path = line.split(' d="', 1)[1].split('"', 1)[0]
    return f'<path d="{path}" fill="none" stroke="#000" stroke-opacity="0" stroke-width="11" pointer-events="stroke"/>'


def _marks(identity: str) -> dict[str, str]:
    if not identity.startswith(MARK):
        return {}
    found = dict(parse_qsl(identity.removeprefix(MARK)))
    return found | ({"tabindex": "-1"} if "data-tip" in found else {})


def _attributes(node: ElementTree.Element, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    tag = node.tag.rpartition("}")[2]
    for key, value in node.attrib.items():
        if key == "style":
            found |= _styled(value)
        elif key == _XLINK:
            found["href"] = value.replace("#", f"#{name}-")
        elif key == "id":
            found |= {} if tag in ("g", "text") else {key: f"{name}-{value}"}
        elif key == "d":
            found[key] = re.sub(r"\s*\n|\s+(?=[A-Za-z])|(?<=[A-Za-z])\s+", "", _rounded(value))
        elif key != "clip-path" and not (key == "transform" and value.startswith("rotate(-0 ")):
            found[key] = _rounded(value)
    return found


def _styled(style: str) -> dict[str, str]:
    """Return attributes for what matplotlib writes as a style: attributes give way to the page's style sheet."""
    found: dict[str, str] = {}
    classes = []
    for part in style.split(";"):
        key, _, value = (word.strip() for word in part.partition(":"))
        if key in ("fill", "stroke") and value in _NAMES:
            classes.append(f"{key[0]}-{_NAMES[value]}")
        if key and key != "font-family" and (key, value) not in _DEFAULTS:
            found[key] = value.removesuffix("px")
    return found | ({"class": " ".join(classes)} if classes else {})


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text)


def _written(attributes: dict[str, str]) -> str:
    return " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())
