"""Pages and cards as Jinja2 templates (``templates/``): what a variable holds is escaped, and every character shows.

Templates decide what is said of which number; how numbers become tagged text is `report.facts`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from dermafuse.evaluation.metric_table import shown, subgroup_metrics
from dermafuse.evaluation.subgroups import ordered_cells
from dermafuse.labels import DISCLAIMER
from dermafuse.printable import plain
from dermafuse.report.facts import Facts, format_value, step, trusted
from dermafuse.report.figures.inks import theme_style, theme_variables
from dermafuse.report.figures.tables import COLUMN_NAMES

if TYPE_CHECKING:
    from jinja2 import Environment

#: Colours of the page itself: name -> (light, dark). The drawings' inks come on top.
_COLOURS: Final = {
    "ground": ("#f4f5f8", "#0e1115"),
    "edge": ("#dfe3e9", "#2a303a"),
    "tint": ("#f0f3f8", "#1f252d"),
    "good": ("#2a7a4b", "#6fcf97"),
}

#: The n-th tab shows the n-th pane.
_TABS: Final = "".join(
    f".tabs>input:nth-of-type({n}):checked~.pane:nth-of-type({n}){{display:block}}" for n in range(1, 25)
)
#: The source of the data that most runs are about.
_HAM10000: Final = (
    "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source dermatoscopic images "
    "of common pigmented skin lesions. Sci Data 5:180161, 2018. doi:10.1038/sdata.2018.161"
)


def render(name: str, facts: Facts | None = None, **content: Any) -> str:
    """Return a template of ``templates/`` filled in.

    Args:
        name: of the file. Of HTML every value is escaped; Markdown (``.md.j2``) is taken as it is.
        facts: the run's numbers: ``get``, ``show``, ``span``, ``fill``, ``text`` and ``labels`` of the template.
        content: what else the template names.
    """
    if facts is not None:
        own = ("get", "show", "span", "fill", "text", "labels")
        content |= {"facts": facts, **{key: getattr(facts, key) for key in own}}
    return _environment().get_template(name).render(content)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("dermafuse.report"),
        autoescape=select_autoescape(disabled_extensions=("md.j2",), default=True),
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.globals |= {
        "DISCLAIMER": DISCLAIMER,
        "HAM10000_CITATION": _HAM10000,
        "COLUMN_NAMES": COLUMN_NAMES,
        "shown": shown,
        "subgroup_metrics": subgroup_metrics,
        "ordered_cells": ordered_cells,
        "asset": lambda name: trusted(_asset(name)),
        "style": lambda: trusted(_style()),
    }
    made.filters |= {"step": step, "spec": format_value, "words": lambda key: str(key).replace("_", " ")}
    return made


def _visible(value: Any) -> Any:
    """Return what is written: text from files with every character visible; what is markup already stays."""
    return value if isinstance(value, Markup) else "\n".join(map(plain, str(value).split("\n")))


def _style() -> str:
    light, dark = (
        "".join(f"--{name}:{pair[mode]};" for name, pair in _COLOURS.items()) + theme_variables(dark=bool(mode))
        for mode in (0, 1)
    )
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"{_asset('report.css')}{theme_style()}{_TABS}"
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}"
    )


def _asset(name: str) -> str:
    return files("dermafuse.report").joinpath("static", name).read_text(encoding="utf-8")
