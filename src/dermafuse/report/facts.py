"""Numbers of ``metrics.json`` as text that says where it comes from: every figure in the page is tagged.

``<span data-metric="/validation/accuracy" data-format=".3f">0.661</span>``: the path is a JSON pointer
(RFC 6901), the format Python's. A test compares each tag of a finished page with the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from markupsafe import Markup

from dermafuse.evaluation.glance import first_alarm
from dermafuse.evaluation.metrics import labels_of
from dermafuse.evaluation.model_findings import worst_findings
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

    @property
    def ham10000(self) -> bool:
        """Whether the data are the published HAM10000, of which more is known than a run says."""
        return self.get("/data/layout") in ("kaggle", "dataverse") and not self.get("/data/synthetic")

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

    def show(self, pointer: str, spec: str = "") -> Markup:
        """Return a value as tagged HTML; a dash where there is none."""
        value = self.get(pointer)
        if value is None:
            return trusted(f'<span class="none">{NONE}</span>')
        where, shown = escape(self.full(pointer)), escape(format_value(value, spec))
        return trusted(f'<span data-metric="{where}" data-format="{escape(spec)}">{shown}</span>')

    def span(self, pointer: str, spec: str = ".3f") -> Markup:
        """Return an interval [low, high] as tagged HTML, empty where there is none."""
        if not isinstance(self.get(pointer), list):
            return Markup()
        low, high = self.show(f"{pointer}/0", spec), self.show(f"{pointer}/1", spec)
        return trusted(f'<span class="ci">{low} to {high}</span>')

    def fill(self, template: str) -> Markup:
        """Return a text as HTML, each ``{pointer:format}`` in it shown; the rest is escaped."""
        parts = []
        last = 0
        for match in _PLACE.finditer(template):
            parts += [escape(template[last : match.start()], quote=False), self.show(match[1], match[2] or "")]
            last = match.end()
        return trusted("".join([*parts, escape(template[last:], quote=False)]))

    def text(self, template: str) -> str:
        """Return a text with each ``{pointer:format}`` replaced, without HTML."""
        return _PLACE.sub(lambda match: format_value(self.get(match[1]), match[2] or ""), template)

    def leaves(self, pointer: str) -> Iterator[str]:
        """Yield the pointers of all scalars (and of short lists of scalars) at and below a pointer, `@` written out."""
        value, own = self.get(pointer), self.full(pointer)
        if isinstance(value, Mapping):
            for key in value:
                yield from self.leaves(f"{own}/{step(str(key))}")
        elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
            for number in range(len(value)):
                yield from self.leaves(f"{own}/{number}")
        elif value is not None and value != []:
            yield own

    def numbers(self) -> Iterator[tuple[str, str, str]]:
        """Yield (pointer, format, pointer of its interval) of every value that is no interval, bin or matrix."""
        for pointer in self.leaves(""):
            if not any(part in pointer for part in ("/ci95/", "/reliability/", "/confusion_matrix/")):
                value = self.get(pointer)
                whole = isinstance(value, int) and not isinstance(value, bool)
                first, _, rest = pointer[1:].partition("/")
                yield pointer, ".4f" if isinstance(value, float) else ",d" if whole else "", f"/{first}/ci95/{rest}"

    def differences(self, pointer: str = "") -> Iterator[str]:
        """Yield the pointer of every paired difference (leakage effect, metadata effect, ...), wherever it stands."""
        value = self.get(pointer)
        if isinstance(value, Mapping) and {"difference", "low", "high", "p"} <= value.keys():
            if value["difference"] is not None:
                yield pointer
        elif isinstance(value, Mapping):
            for key in value:
                yield from self.differences(f"{pointer}/{step(str(key))}")

    def alarm(self) -> str | None:
        """Return the pointer of the operating point that is named first (`glance.first_alarm`)."""
        found = first_alarm(self.get("@"))
        return None if found is None else self.full(f"@/operating_points/{found[0]}")

    def findings(self) -> list[tuple[Mapping[str, Any], str]]:
        """Return all findings, data and model, the most serious first, each with the pointer to it."""
        listed = [
            (entry, f"/{block}/{number}")
            for block in ("model_findings", "findings")
            for number, entry in enumerate(self.get(f"/{block}") or [])
        ]
        return [next(each for each in listed if each[0] == entry) for entry in worst_findings(self.metrics)]

    def words(self, pointer: str, skip: int = 0) -> str:
        """Return the steps of a pointer as words, without the first ``skip``."""
        return " / ".join(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1 + skip :])

    def pointers(self, template: str) -> list[str]:
        """Return the pointers that a template names."""
        return [match[1] for match in _PLACE.finditer(template)]


def trusted(html: str) -> Markup:
    """Return HTML whose parts were escaped, or are ours, as what a template writes unchanged."""
    return Markup(html)  # noqa: S704


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
