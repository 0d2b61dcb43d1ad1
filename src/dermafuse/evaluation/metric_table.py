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

from typing import Any

import numpy as np

from dermafuse.evaluation.calibration import brier_scores, log_losses, overconfidences
from dermafuse.evaluation.confusion import Confusion, mean_defined, ratio
from dermafuse.evaluation.metric import CRITICAL, EACH, Metric, Path, Place
from dermafuse.evaluation.predictions import MALIGNANT, FloatArray, in_top_two
from dermafuse.labels import LabelSet


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
        meaning="Share of all images whose class the model names rightly.",
        shown=("baselines", "summary", "audit line", "tiles", "card", "folds", "compare", "change", "subgroups"),
        proportion=True,
        of_decisions=lambda counts: counts.agreement,
    ),
    Metric(
        path=("weighted_f1",),
        name="weighted F1",
        meaning="F1 of each class, averaged by how many images it has: frequent classes decide.",
        shown=("summary", "tiles", "card", "folds", "compare"),
        of_decisions=_weighted_f1,
    ),
    Metric(
        path=("macro_f1",),
        name="macro F1",
        meaning="F1 of each class, averaged over the classes: rare ones count as much as frequent ones.",
        shown=("baselines", "summary", "audit line", "tiles", "card", "folds", "compare", "change"),
        of_decisions=lambda counts: mean_defined(counts.f1),
    ),
    Metric(
        path=("balanced_accuracy",),
        name="balanced accuracy",
        meaning="Share named rightly in each class, averaged over the classes: rare ones count as much.",
        shown=(
            "baselines",
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
        meaning="How well each class ranks before the others, averaged: 0.5 is chance, 1 is perfect.",
        shown=("baselines", "summary", "tiles", "card", "folds", "compare", "change"),
    ),
    Metric(
        path=("cohen_kappa",),
        name="Cohen's kappa",
        meaning="Agreement with the truth beyond chance: 0 is chance, 1 is perfect.",
        shown=("further",),
        of_decisions=_kappa,
    ),
    Metric(
        path=("mcc",),
        name="Matthews correlation",
        meaning="Correlation of the named with the true classes: 0 is chance, 1 is perfect.",
        shown=("further",),
        of_decisions=_mcc,
    ),
    Metric(
        path=("top2_accuracy",),
        name="top-2 accuracy",
        meaning="Share of images whose class is one of the two most probable.",
        shown=("further",),
        proportion=True,
        of_rows=in_top_two,
    ),
    Metric(
        path=("macro_average_precision",),
        name="macro average precision",
        meaning="Area under precision over recall, averaged over the classes.",
        shown=("further",),
    ),
    Metric(
        path=("per_class", CRITICAL, "recall"),
        key=f"{CRITICAL}_sensitivity",
        name=f"{CRITICAL} sensitivity",
        meaning="Share of its images that the model names as such.",
        shown=("tiles", "subgroups", "subgroups in the card", "failing", "gaps"),
    ),
    Metric(
        path=("malignant", "sensitivity"),
        name="malignant sensitivity",
        meaning="Share of the malignant images that are called one of the malignant classes.",
        long="malignant: sensitivity of the named class",
        shown=("card", "further", "compare", "subgroups", "failing", "gaps"),
    ),
    Metric(
        path=("malignant", "specificity"),
        name="malignant specificity",
        meaning="Share of the other images that are called none of the malignant classes.",
        long="malignant: specificity of the named class",
        shown=("card", "further", "compare", "subgroups", "subgroups in the card", "gaps"),
    ),
    Metric(
        path=("malignant", "ppv"),
        name="malignant PPV",
        meaning="Share of the images called malignant that are so.",
        shown=("further", "compare"),
    ),
    Metric(
        path=("malignant", "npv"),
        name="malignant NPV",
        meaning="Share of the images called benign that are so.",
        shown=("further", "compare"),
    ),
    Metric(
        path=("malignant", "auroc"),
        name="malignant AUROC",
        meaning="How often a malignant image scores above another one: 0.5 is chance, 1 is perfect.",
        shown=("tiles", "card", "compare", "subgroups"),
    ),
    Metric(
        path=("malignant", "average_precision"),
        name="malignant average precision",
        meaning="Area under precision over recall of the summed malignant probability.",
        shown=("further", "compare"),
    ),
    Metric(
        path=("malignant", "sensitivity_at_specificity_0.90"),
        name="malignant sensitivity at specificity 0.90",
        meaning="Malignant sensitivity at the threshold that 90 % of the other images stay below.",
        shown=("further", "compare"),
    ),
    Metric(
        path=("malignant", "sensitivity_at_specificity_0.95"),
        name="malignant sensitivity at specificity 0.95",
        meaning="Malignant sensitivity at the threshold that 95 % of the other images stay below.",
        shown=("further", "compare"),
    ),
    Metric(
        path=("ece",),
        name="calibration error (ECE)",
        meaning="How far the model's probabilities are from how often it is right, on average: 0 is best.",
        short="ECE",
        long="ECE (top label, 15 equal-mass bins)",
        shown=("tiles", "calibration", "folds", "compare"),
        larger_is_better=False,
        biased_upward=True,
    ),
    Metric(
        path=("classwise_ece",),
        name="class-wise ECE",
        meaning="The calibration error of the probability of each class, averaged over the classes.",
        shown=("calibration",),
        larger_is_better=False,
        biased_upward=True,
    ),
    Metric(
        path=("nll",),
        name="log loss",
        meaning="How surprised the model is by the truth: 0 is best; being sure and wrong costs most.",
        long="log loss (nats)",
        shown=("calibration", "folds", "compare", "temperature"),
        larger_is_better=False,
        of_rows=log_losses,
    ),
    Metric(
        path=("brier",),
        name="Brier score",
        meaning="Squared distance of the probabilities from the truth: 0 is best, 2 is worst.",
        long="Brier score (0 to 2)",
        shown=("calibration", "temperature"),
        larger_is_better=False,
        of_rows=brier_scores,
    ),
    Metric(
        path=("overconfidence",),
        name="overconfidence",
        meaning="Mean probability of the named class less the share that is right: above 0 is too sure.",
        shown=("calibration", "subgroups"),
        larger_is_better=False,
        signed=True,
        of_rows=overconfidences,
    ),
    Metric(
        path=("per_class", EACH, "recall"),
        name="sensitivity",
        meaning="Share of the images of the class that are named so (recall).",
        short="recall",
        shown=("classes", "classes in short"),
    ),
    Metric(
        path=("per_class", EACH, "specificity"),
        name="specificity",
        meaning="Share of the other images that are not named so.",
        shown=("classes", "classes in short"),
    ),
    Metric(
        path=("per_class", EACH, "precision"),
        name="PPV",
        meaning="Share of the images named so that are of the class (precision).",
        short="precision",
        shown=("classes", "classes in short"),
    ),
    Metric(
        path=("per_class", EACH, "npv"),
        name="NPV",
        meaning="Share of the images not named so that are of another class.",
        shown=("classes",),
    ),
    Metric(
        path=("per_class", EACH, "f1"),
        name="F1",
        meaning="Harmonic mean of sensitivity and PPV.",
        shown=("classes", "classes in short"),
    ),
    Metric(
        path=("per_class", EACH, "auroc"),
        name="AUROC",
        meaning="How often an image of the class scores above another one: 0.5 is chance, 1 is perfect.",
        shown=("classes", "classes in short"),
    ),
    Metric(
        path=("per_class", EACH, "average_precision"),
        name="avg. precision",
        meaning="Area under precision over recall; chance gives the share of the class.",
        shown=("classes",),
    ),
    Metric(
        path=("per_class", EACH, "ece"),
        name="ECE",
        meaning="How far the probability of the class is from its frequency, on average: 0 is best.",
        larger_is_better=False,
        biased_upward=True,
    ),
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
