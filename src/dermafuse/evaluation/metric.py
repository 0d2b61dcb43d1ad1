"""What a metric is: where it stands in the metrics block, what it is called, what it says, and where it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from dermafuse.evaluation.confusion import Confusion
from dermafuse.evaluation.predictions import MALIGNANT, FloatArray, Scored
from dermafuse.labels import LabelSet

Place: TypeAlias = Literal[
    "summary",  # the terminal after a training, and the figures of an audit
    "audit line",  # what the terminal says of an audit
    "tiles",  # the head of the report
    "further",  # the report's table of the other metrics
    "classes",  # the report's table of classes
    "classes in short",  # the table of classes in the terminal and in the model card
    "calibration",  # report and model card
    "card",  # the model card's table
    "folds",  # mean and spread in a cross-validation
    "compare",  # what the terminal shows of a comparison; page and JSON have every metric
    "change",  # robustness, and the members of an ensemble
    "subgroups",  # the report's forest plots and table, and metrics.json
    "subgroups in the card",
    "failing",  # low values for a group are named at the head of the model card
    "gaps",  # gaps between groups that are a finding
    "baselines",  # also measured of what costs nothing: the most frequent class, the metadata alone
    "temperature",  # a finding where the temperature makes them worse
]

#: Stand in a path for each class' code, and for the code of the class that must not be missed.
EACH: Final = "{each}"
CRITICAL: Final = "{critical}"

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One scalar of the metrics block.

    Attributes:
        path: where it stands in the block. It begins with ``malignant`` where it needs malignant classes, holds
            `CRITICAL` where it needs a critical class, and `EACH` where each class has one.
        name: for people; ``{critical}`` stands for the name of the critical class.
        shown: the places that show it.
        short: its name where there is little room; empty: ``name``.
        long: its name where there is much; empty: ``name``.
        meaning: what it says, in plain words, for who points at it.
        format: Python's, of the value.
        larger_is_better: which way is better.
        proportion: a plain share of all rows: 0 and 1 then get an exact interval.
        biased_upward: resampling itself raises it (see `resampling.interval`).
        signed: may be negative, and is best at 0.
        of_decisions: its formula, (r,) for the confusion matrices of r weightings, NaN where undefined.
        of_rows: its formula where it is the mean of a value of each row: (n,).
    """

    path: Path
    name: str
    shown: tuple[Place, ...] = ()
    short: str = ""
    long: str = ""
    meaning: str = ""
    format: str = ".3f"
    larger_is_better: bool = True
    proportion: bool = False
    biased_upward: bool = False
    signed: bool = False
    of_decisions: Callable[[Confusion], FloatArray] | None = None
    of_rows: Callable[[Scored], FloatArray] | None = None
    key: str = ""  # its flat key, ``malignant_auroc``; made of the path unless given

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", self.short or self.name)
        object.__setattr__(self, "long", self.long or self.name)
        object.__setattr__(self, "key", self.key or "_".join(self.path))

    @property
    def title(self) -> str:
        """The name with a capital at its start."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def long_title(self) -> str:
        """The long name with a capital at its start."""
        return self.long[:1].upper() + self.long[1:]

    @property
    def leaf(self) -> str:
        """The last step of the path: its key among those of one class."""
        return self.path[-1]

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer (RFC 6901) without its first slash."""
        return "/".join(step.replace("~", "~0").replace("/", "~1") for step in self.path)

    def within(self, block: Any) -> Any:
        """Return its value in a metrics block (or its entry in a block of that shape); ``None`` where there is none."""
        for step in self.path:
            block = (block or {}).get(step)
        return block

    def fits(self, labels: LabelSet) -> bool:
        """Whether a label set names the classes that it needs."""
        return not (self.path[0] == MALIGNANT and not labels.malignant) and not (
            CRITICAL in self.path and labels.critical is None
        )

    def of(self, labels: LabelSet) -> Metric:
        """Return it with the critical class of a label set filled in."""
        if CRITICAL not in self.path or labels.critical is None:
            return self
        return replace(
            self,
            path=tuple(labels.critical if step == CRITICAL else step for step in self.path),
            key=self.key.replace(CRITICAL, labels.critical_key),
            **{name: getattr(self, name).replace(CRITICAL, labels.critical_name) for name in ("name", "short", "long")},
        )
