"""Numbers of ``metrics.json`` as text that says where it comes from: every figure in the page is tagged.

``<span data-metric="/validation/accuracy" data-format=".3f">0.661</span>``: the path is a JSON pointer
(RFC 6901), the format Python's. A test compares each tag of a finished page with the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from dermafuse.evaluation.metrics import labels_of
from dermafuse.labels import LabelSet
from dermafuse.printable import escape

#: What stands where a number is not defined or not known.
NONE: Final = "–"

_PLACE: Final = re.compile(r"\{([@/][^{}:]*)(?::([^{}]+))?\}")


class Facts:
    """Reads the metrics of one run.

    Args:
        metrics: content of ``metrics.json``.
        split: the reported block; ``@`` at the start of a pointer stands for ``/<split>``.
    """

    def __init__(self, metrics: Mapping[str, Any], split: str) -> None:
        self.metrics = metrics
        self.split = split

    @cached_property
    def labels(self) -> LabelSet:
        """The classes of the run."""
        return labels_of(self.metrics)

    def get(self, pointer: str) -> Any:
        """Return the value at a pointer, ``None`` where there is none."""
        value: Any = self.metrics
        for step in self.full(pointer).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        return value

    def frozen(self, config: Mapping[str, Any] | None) -> bool:
        """Whether the image network was used as it was published; ``config``: the settings of the run, if at hand."""
        for pointer in ("/network/frozen", "/model/info/frozen"):
            if self.get(pointer) is not None:
                return bool(self.get(pointer))
        said = (config or {}).get("unfreeze_from")  # runs of before say it in their settings alone
        return self.get("/network/cut") == "pooled" or said in ("none", "")

    def full(self, pointer: str) -> str:
        """Return a pointer with ``@`` written out."""
        return f"/{self.split}{pointer[1:]}" if pointer.startswith("@") else pointer

    def show(self, pointer: str, spec: str = "") -> str:
        """Return a value as tagged HTML; a dash where there is none."""
        value = self.get(pointer)
        if value is None:
            return f'<span class="none">{NONE}</span>'
        return (
            f'<span data-metric="{escape(self.full(pointer))}" data-format="{escape(spec)}">'
            f"{escape(format_value(value, spec))}</span>"
        )

    def span(self, pointer: str, spec: str = ".3f") -> str:
        """Return an interval [low, high] as tagged HTML, empty where there is none."""
        if not isinstance(self.get(pointer), list):
            return ""
        return f'<span class="ci">{self.show(pointer + "/0", spec)} to {self.show(pointer + "/1", spec)}</span>'

    def fill(self, template: str) -> str:
        """Return a text as HTML, each ``{pointer:format}`` in it shown; the rest is escaped."""
        parts = []
        last = 0
        for match in _PLACE.finditer(template):
            parts += [escape(template[last : match.start()], quote=False), self.show(match[1], match[2] or "")]
            last = match.end()
        return "".join([*parts, escape(template[last:], quote=False)])

    def text(self, template: str) -> str:
        """Return a text with each ``{pointer:format}`` replaced, without HTML."""
        return _PLACE.sub(lambda match: format_value(self.get(match[1]), match[2] or ""), template)

    def pointers(self, template: str) -> list[str]:
        """Return the pointers that a template names."""
        return [match[1] for match in _PLACE.finditer(template)]


def format_value(value: Any, spec: str) -> str:
    """Return a JSON value as text: by a Python format, ``yes``/``no``, a list joined by commas, a dash for None."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(format_value(item, spec) for item in value)
    if spec and isinstance(value, int | float):
        return format(value, spec)
    return str(value)


def step(key: str) -> str:
    """Return a key as one step of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
