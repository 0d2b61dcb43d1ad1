"""The frame of every page that dermafuse writes: self-contained, light and dark, nothing loaded from outside."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Final

from dermafuse.printable import escape
from dermafuse.report.figures.canvas import theme_style, theme_variables

#: Colours of the page itself: name -> (light, dark). The drawings' inks come on top.
_COLOURS: Final = {
    "ground": ("#f4f5f8", "#0e1115"),
    "edge": ("#dfe3e9", "#2a303a"),
    "tint": ("#f0f3f8", "#1f252d"),
    "good": ("#2a7a4b", "#6fcf97"),
}


def page(
    name: str, heading: str, lead: str, main: str, footer: str, *, links: str = "", panes: Iterable[str] = ()
) -> str:
    """Return a whole page.

    Args:
        name: for the window's title, plain text.
        heading: HTML.
        lead: what stands under the heading, HTML.
        main: the sections, HTML.
        footer: HTML.
        links: of the contents, HTML.
        panes: names of the drawings that tabs (``tab-NAME``, ``pane-NAME``) choose among.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(name)}: dermafuse report</title><style>{_style(panes)}</style></head><body>"
        f'<div class="frame"><nav class="contents" aria-label="Contents">{links}</nav><main class="page">'
        f'<header class="top"><div><h1>{heading}</h1><span class="sub">{lead}</span></div>'
        '<button class="theme" type="button" hidden>Dark</button></header>'
        f"{main}<footer>{footer}</footer></main></div>"
        f"<script>{_asset('report.js')}</script></body></html>\n"
    )


def _style(panes: Iterable[str]) -> str:
    light, dark = (
        "".join(f"--{name}:{pair[mode]};" for name, pair in _COLOURS.items()) + theme_variables(dark=bool(mode))
        for mode in (0, 1)
    )
    chosen = ",".join(f"#tab-{name}:checked~#pane-{name}" for name in panes)
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"{_asset('report.css')}{theme_style()}{chosen + '{display:block}' if chosen else ''}"
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}"
    )


def _asset(name: str) -> str:
    return files("dermafuse.report").joinpath("static", name).read_text(encoding="utf-8")
