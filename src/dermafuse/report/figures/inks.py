"""Named colours, light and dark, and what every drawing has in common: grid, labels, legend, and marks for the page.

Drawings are made in the light colours. The SVG carries them as attributes and the ink's name as a class, so that a
style sheet can recolour it (the page's theme) and a program without CSS still shows the right picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from dermafuse.printable import plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

#: name -> (light, dark). The class colours keep their order of lightness for the colour-blind; red: the critical one.
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
#: What the id of a marked group begins with.
MARK: Final = "mark?"
#: Sizes of text, in points.
SMALL: Final = 10.0
TEXT: Final = 11.0
_FIFTHS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def theme_style() -> str:
    """Return the CSS rules that let a page's variables (``--c0`` ...) recolour the drawings inside it."""
    return "".join(f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in INKS)


def theme_variables(*, dark: bool) -> str:
    """Return the CSS variable definitions of all inks."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in INKS.items())


def dark_style() -> str:
    """Return the CSS rules that recolour a drawing by itself for a dark viewer."""
    rules = "".join(f".f-{name}{{fill:{dark}}}.s-{name}{{stroke:{dark}}}" for name, (_, dark) in INKS.items())
    return f"@media (prefers-color-scheme:dark){{{rules}}}"


def ink(name: str) -> str:
    """Return an ink's light colour."""
    return INKS[name][0]


def class_ink(position: int) -> str:
    """Return the ink of a class; beyond seven they repeat."""
    return f"c{position % 7}"


def said(text: object) -> str:
    """Return text for a drawing: every character shows, and ``$`` begins no formula."""
    return plain(text).replace("$", r"\$")


def short(code: str, limit: int = 7) -> str:
    """Return a class code of at most ``limit`` characters."""
    return said(code if len(code) <= limit else code[: limit - 1] + ".")


def mark(artist: Artist, *, series: str = "", tip: str = "", **attributes: str) -> None:
    """Say what the page is to know of a shape: its series, what it tells under the pointer, any other attribute."""
    given = {"data-series": series, "data-tip": tip, **{k.replace("_", "-"): v for k, v in attributes.items()}}
    artist.set_gid(MARK + urlencode({name: plain(value) for name, value in given.items() if value}))


def dress(ax: Axes, x_label: str, y_label: str, *, grid: str = "both") -> None:
    """Give axes their grid, their labels, and no frame."""
    ax.patch.set_alpha(0.0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.grid(visible=False)
    if grid:
        ax.grid(visible=True, axis=grid, color=ink("rule"), linewidth=1.0)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelcolor=ink("soft"), labelsize=TEXT)
    ax.set_xlabel(said(x_label), color=ink("soft"), size=TEXT + 0.5)
    ax.set_ylabel(said(y_label), color=ink("soft"), size=TEXT + 0.5)


def unit(ax: Axes, x_label: str, y_label: str, *, diagonal: bool = False) -> None:
    """Give axes of 0..1 both ways, with a dashed diagonal where it means something."""
    dress(ax, x_label, y_label)
    for set_ticks in (ax.set_xticks, ax.set_yticks):
        set_ticks(_FIFTHS, [f"{value:g}" for value in _FIFTHS])
    if diagonal:
        ax.plot([0, 1], [0, 1], color=ink("soft"), dashes=(4, 4), linewidth=1)
    ax.set(xlim=(0, 1), ylim=(0, 1))


def dot(ax: Axes, x: float, y: float, name: str, size: float = 8.0, **told: str) -> None:
    """Draw a filled circle with a thin rim of paper, and `mark` it."""
    (found,) = ax.plot(
        [x],
        [y],
        color=ink(name),
        marker="o",
        markersize=size,
        markeredgecolor=ink("paper"),
        linestyle="",
        clip_on=False,
    )
    mark(found, **told)


def legend(ax: Axes, series: Sequence[str], **where: Any) -> None:
    """Explain the labelled shapes of axes; each entry belongs to its series."""
    found = ax.legend(
        fontsize=TEXT,
        labelcolor=ink("ink"),
        facecolor=ink("paper"),
        edgecolor="none",
        framealpha=0.85,
        handlelength=1.4,
        handletextpad=0.5,
        borderpad=0.3,
        labelspacing=0.35,
        columnspacing=1.0,
        **where,
    )
    for handle, text, name in zip(
        found.legend_handles, found.get_texts(), series, strict=False
    ):  # drawn twice on axes: more
        if handle is not None:
            mark(handle, series=name)
        mark(text, series=name)
