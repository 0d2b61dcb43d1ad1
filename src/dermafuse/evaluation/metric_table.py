"""The one table of metrics: key, name for people, format, which way is better, what it needs, where it is shown.

Terminal, report, model card, cross-validation, comparison, audits and findings list what this table says, in its
order; ``tests/evaluation/test_metric_table.py`` holds that no other module lists metrics. A new one that is a function
of the decisions or a mean over the rows is one entry here; one that needs more is computed in :mod:`.weighted`.

Sources:
    Balanced accuracy = mean recall over the classes present = the ISIC 2018 Task 3 ranking metric (Codella et
        al., arXiv:1902.03368, 2019). Macro F1: mean of the per-class F1.
    Kappa: Cohen, Educ. Psychol. Meas. 20, 1960. MCC over k classes: Gorodkin, Comput. Biol. Chem. 28, 2004.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from dermafuse.evaluation.calibration import brier_scores, log_losses, overconfidences
from dermafuse.evaluation.confusion import Confusion, mean_defined, ratio
from dermafuse.evaluation.predictions import MALIGNANT, FloatArray, Scored, in_top_two
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


def _weighted_f1(counts: Confusion) -> FloatArray:
    share: FloatArray = (counts.support * np.nan_to_num(counts.f1)).sum(axis=0) / counts.n
    return share


def _kappa(counts: Confusion) -> FloatArray:
    chance = counts.by_chance / counts.n**2
    return ratio(counts.agreement - chance, 1 - chance)


def _mcc(counts: Confusion) -> FloatArray:
    n = counts.n
    spread = (n**2 - (counts.called**2).sum(axis=0)) * (n**2 - (counts.support**2).sum(axis=0))
    covariance = counts.hits.sum(axis=0) * n - counts.by_chance
    # No association can be seen when one side is constant: 0, as in scikit-learn.
    found: FloatArray = np.nan_to_num(ratio(covariance, np.sqrt(spread)))
    return found


#: Every metric, in the order in which they are shown.
METRICS: tuple[Metric, ...] = (
    Metric(
        path=("accuracy",),
        name="accuracy",
        shown=("summary", "audit line", "tiles", "card", "folds", "compare", "change", "subgroups"),
        proportion=True,
        of_decisions=lambda counts: counts.agreement,
    ),
    Metric(
        path=("weighted_f1",),
        name="weighted F1",
        shown=("summary", "tiles", "card", "folds", "compare"),
        of_decisions=_weighted_f1,
    ),
    Metric(
        path=("macro_f1",),
        name="macro F1",
        shown=("summary", "audit line", "tiles", "card", "folds", "compare", "change"),
        of_decisions=lambda counts: mean_defined(counts.f1),
    ),
    Metric(
        path=("balanced_accuracy",),
        name="balanced accuracy",
        shown=(
            "summary",
            "audit line",
            "tiles",
            "card",
            "folds",
            "compare",
            "change",
            "subgroups",
            "subgroups in the card",
            "failing",
            "gaps",
        ),
        of_decisions=lambda counts: mean_defined(counts.recall),
    ),
    Metric(
        path=("macro_auroc",),
        name="macro AUROC",
        shown=("summary", "tiles", "card", "folds", "compare", "change"),
    ),
    Metric(path=("cohen_kappa",), name="Cohen's kappa", shown=("further",), of_decisions=_kappa),
    Metric(path=("mcc",), name="Matthews correlation", shown=("further",), of_decisions=_mcc),
    Metric(path=("top2_accuracy",), name="top-2 accuracy", shown=("further",), proportion=True, of_rows=in_top_two),
    Metric(path=("macro_average_precision",), name="macro average precision", shown=("further",)),
    Metric(
        path=("per_class", CRITICAL, "recall"),
        key=f"{CRITICAL}_sensitivity",
        name=f"{CRITICAL} sensitivity",
        shown=("tiles", "subgroups", "subgroups in the card", "failing", "gaps"),
    ),
    Metric(
        path=("malignant", "sensitivity"),
        name="malignant sensitivity",
        long="malignant: sensitivity of the named class",
        shown=("card", "further", "compare", "subgroups", "failing", "gaps"),
    ),
    Metric(
        path=("malignant", "specificity"),
        name="malignant specificity",
        long="malignant: specificity of the named class",
        shown=("card", "further", "compare", "subgroups", "subgroups in the card", "gaps"),
    ),
    Metric(path=("malignant", "ppv"), name="malignant PPV", shown=("further", "compare")),
    Metric(path=("malignant", "npv"), name="malignant NPV", shown=("further", "compare")),
    Metric(path=("malignant", "auroc"), name="malignant AUROC", shown=("tiles", "card", "compare", "subgroups")),
    Metric(path=("malignant", "average_precision"), name="malignant average precision", shown=("further", "compare")),
    Metric(
        path=("malignant", "sensitivity_at_specificity_0.90"),
        name="malignant sensitivity at specificity 0.90",
        shown=("further", "compare"),
    ),
    Metric(
        path=("malignant", "sensitivity_at_specificity_0.95"),
        name="malignant sensitivity at specificity 0.95",
        shown=("further", "compare"),
    ),
    Metric(
        path=("ece",),
        name="calibration error (ECE)",
        short="ECE",
        long="ECE (top label, 15 equal-mass bins)",
        shown=("tiles", "calibration", "folds", "compare"),
        larger_is_better=False,
        biased_upward=True,
    ),
    Metric(
        path=("classwise_ece",),
        name="class-wise ECE",
        shown=("calibration",),
        larger_is_better=False,
        biased_upward=True,
    ),
    Metric(
        path=("nll",),
        name="log loss",
        long="log loss (nats)",
        shown=("calibration", "folds", "compare", "temperature"),
        larger_is_better=False,
        of_rows=log_losses,
    ),
    Metric(
        path=("brier",),
        name="Brier score",
        long="Brier score (0 to 2)",
        shown=("calibration", "temperature"),
        larger_is_better=False,
        of_rows=brier_scores,
    ),
    Metric(
        path=("overconfidence",),
        name="overconfidence",
        shown=("calibration", "subgroups"),
        larger_is_better=False,
        signed=True,
        of_rows=overconfidences,
    ),
    Metric(
        path=("per_class", EACH, "recall"), name="sensitivity", short="recall", shown=("classes", "classes in short")
    ),
    Metric(path=("per_class", EACH, "specificity"), name="specificity", shown=("classes", "classes in short")),
    Metric(path=("per_class", EACH, "precision"), name="PPV", short="precision", shown=("classes", "classes in short")),
    Metric(path=("per_class", EACH, "npv"), name="NPV", shown=("classes",)),
    Metric(path=("per_class", EACH, "f1"), name="F1", shown=("classes", "classes in short")),
    Metric(path=("per_class", EACH, "auroc"), name="AUROC", shown=("classes", "classes in short")),
    Metric(path=("per_class", EACH, "average_precision"), name="avg. precision", shown=("classes",)),
    Metric(path=("per_class", EACH, "ece"), name="ECE", larger_is_better=False, biased_upward=True),
)


def shown(place: Place, labels: LabelSet | None = None) -> list[Metric]:
    """Return the metrics of a place, in their order.

    Args:
        place: what shows them.
        labels: those that need classes which it does not name are left out, its critical class is filled in;
            ``None``: only those that need no class of a role.
    """
    found = [metric for metric in METRICS if place in metric.shown]
    if labels is None:
        return [metric for metric in found if metric.path[0] != MALIGNANT and CRITICAL not in metric.path]
    return [metric.of(labels) for metric in found if metric.fits(labels)]


def chosen_of(block: Any, place: Place) -> dict[str, Any]:
    """Return flat key -> value of those of a place that need no class of a role."""
    return {metric.key: metric.within(block) for metric in shown(place)}


def subgroup_metrics(labels: LabelSet, place: Place = "subgroups") -> dict[str, Metric]:
    """Return key -> metric of subgroups: first what is about the critical class, then malignant ones, then all."""
    found = shown(place, labels)
    ranks = {"per_class": 0, MALIGNANT: 1}
    return {metric.key: metric for metric in sorted(found, key=lambda metric: ranks.get(metric.path[0], 2))}


def metric_at(path: Path) -> Metric:
    """Return the metric that stands at a path of the metrics block.

    Raises:
        KeyError: the table does not hold it.
    """
    wanted = ("per_class", EACH, *path[2:]) if path[0] == "per_class" else path
    for metric in METRICS:
        if metric.path == wanted:
            return metric
    raise KeyError(f"{'/'.join(path)} is not in the table of metrics (evaluation/metric_table.py).")
