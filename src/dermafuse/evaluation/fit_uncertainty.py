"""What a model does not know, fitted and measured at the end of training: prediction sets, and strange images.

Three kinds of rows, never mixed: training rows teach what an ordinary image looks like, tuning rows (lesions that
trained nothing) set minima and threshold, and validation rows tell how well that works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov

from dermafuse.data.records import Records
from dermafuse.data.splits import make_split
from dermafuse.errors import DataError
from dermafuse.evaluation import enough
from dermafuse.evaluation.calibration import wilson_interval
from dermafuse.evaluation.coverage import coverage_report
from dermafuse.evaluation.ood_probes import strange_pictures
from dermafuse.progress import Reporter, Silent
from dermafuse.runtime.bundle.schema import OutOfDistribution, PredictionSets
from dermafuse.runtime.decision.conformal import calibration_counts, fit_prediction_sets
from dermafuse.runtime.decision.ood_features import FeatureReader, with_ood_features
from dermafuse.runtime.decision.out_of_distribution import KEPT, Arrays, fit_ood, fit_threshold, ood_scores

Floats = npt.NDArray[np.float64]

#: Images looked at of each side: more would cost seconds and change the third digit.
TRAIN_IMAGES: Final = 1_000
TUNING_IMAGES: Final = 1_000
VALIDATION_IMAGES: Final = 500


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows with their predictions: records, calibrated probabilities (n, k), true class indices (n,)."""

    records: Records
    probabilities: Floats
    true: npt.NDArray[np.int64]


def fit_sets(
    tuning: Measured | None, validation: Measured, *, alpha: float = 0.1
) -> tuple[PredictionSets | None, dict[str, Any] | None]:
    """Return the rule of the prediction sets (for ``BundleContent.prediction_set``) and how it does on validation rows.

    Args:
        tuning: rows that trained nothing; ``None``: there are none, and neither are there sets, because sets made
            for the rows that are reported would keep their promise by construction.
        validation: the rows reported.
        alpha: share of misses allowed in each class.

    Returns:
        The rule and the block ``prediction_sets`` of the metrics (`coverage_report`); both ``None`` without tuning, and
        where no class has lesions enough for a threshold: every set would hold every class.
    """
    if tuning is None:
        return None, None
    lesions = tuning.records.table["lesion_id"].to_numpy()
    rule = fit_prediction_sets(tuning.probabilities, tuning.true, alpha=alpha, groups=lesions)
    if not any(rule.minimum_probability):
        return None, None
    counts = calibration_counts(tuning.true, tuning.probabilities.shape[1], lesions)
    block = coverage_report(
        validation.probabilities,
        validation.true,
        validation.records.classes,
        rule,
        counts,
        groups=validation.records.table["lesion_id"].to_numpy(),
    )
    return rule, block


def too_few_for_sets(alpha: float, group: str = "lesion") -> str:
    """Return why there are no prediction sets where no class has tuning lesions enough."""
    return f"no class has {int(np.ceil(1 / alpha - 1 - 1e-9))} tuning {group}s, without which every set holds all"


@dataclass(frozen=True, eq=False)
class FittedFlag:
    """The flag of strange images.

    Attributes:
        network: the model with the output ``ood_features``; goes into the bundle in place of the one given.
        rule: for ``BundleContent.ood``.
        arrays: to add to ``BundleContent.head``.
        block: the block ``out_of_distribution`` of the metrics: ``method``, ``kept`` (share of ordinary images that
            shall pass), ``threshold_images`` (that set it), ``images`` (validation images looked at), ``flagged``,
            ``share``, ``share_ci95`` (Wilson), and for each kind of strange picture ``auroc_KIND`` against those
            validation images and ``flagged_KIND``, the share of them flagged.
    """

    network: ov.Model
    rule: OutOfDistribution
    arrays: Arrays
    block: dict[str, Any]


def fit_flag(
    network: ov.Model,
    train: Records,
    tuning: Records | None,
    validation: Records,
    *,
    seed: int = 0,
    report: Reporter | None = None,
) -> FittedFlag | None:
    """Fit and measure the flag "not an image of the kind that the model was trained on".

    Args:
        network: a bundle's network, which reads uint8 images.
        train: what an ordinary image looks like; a sample is enough.
        tuning: set the threshold; ``None``: a fifth of the training lesions does, which is fair as far as the
            layer looked at did not learn from them (it lies in the frozen part of every recipe but ``full``).
        validation: the rows reported.
        seed: of the samples.
        report: who is told the progress.

    Returns:
        ``None`` where images of fewer than ``enough.FLAG`` lesions can set the threshold.
    """
    if tuning is None:
        try:
            held = make_split(train, by="lesion", seed=seed)
        except DataError:
            return None
        train, tuning = train.subset(held.train), train.subset(held.validation)
    if min(enough.lesions(side.table["lesion_id"]) for side in (train, tuning)) < enough.FLAG:
        return None
    generator = np.random.default_rng(seed)
    sides = [
        _sample(records, limit, generator)
        for records, limit in ((train, TRAIN_IMAGES), (tuning, TUNING_IMAGES), (validation, VALIDATION_IMAGES))
    ]
    extended = with_ood_features(network)
    reader = FeatureReader(extended)
    strange = strange_pictures(seed=seed)
    total = sum(map(len, sides)) + sum(map(len, strange.values()))
    with (report or Silent()).bar("Learning what ordinary images look like", total, "images") as advance:
        known, held_out, judged = (reader.read(paths, advance) for paths in sides)
        fitted = fit_ood(known, held_out)
        rule = fitted.rule.model_copy(update={"thresholds": {reader.precision: fitted.rule.threshold}})
        if reader.precision == "bf16":  # people without it, and who asks for f32, get the threshold of that
            scores = ood_scores(rule, fitted.arrays, None, FeatureReader(extended, "f32").read(sides[1]))
            rule.thresholds["f32"] = fit_threshold(scores)
        block: dict[str, Any] = {"method": rule.method, "kept": KEPT, "threshold_images": len(sides[1])}
        inside = ood_scores(rule, fitted.arrays, None, judged)
        flagged = int((inside > rule.threshold).sum())
        block |= {
            "images": len(inside),
            "flagged": flagged,
            "share": flagged / len(inside),
            "share_ci95": wilson_interval(float(flagged), len(inside)),
        }
        for kind, pictures in strange.items():
            outside = ood_scores(rule, fitted.arrays, None, reader.read(pictures, advance))
            block[f"auroc_{kind}"] = auroc(inside, outside)
            block[f"flagged_{kind}"] = float((outside > rule.threshold).mean())
    return FittedFlag(extended, rule, fitted.arrays, block)


def auroc(inside: Floats, outside: Floats) -> float:
    """Return the share of pairs in which the stranger has the larger score, ties half (Mann & Whitney, 1947)."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    wins = ranks.sum() - len(outside) * (len(outside) + 1) / 2
    return float(wins / (len(inside) * len(outside)))


def _sample(records: Records, limit: int, generator: np.random.Generator) -> Sequence[str]:
    paths = records.table["path"].to_numpy()
    if len(paths) <= limit:
        return [str(path) for path in paths]
    return [str(path) for path in paths[np.sort(generator.choice(len(paths), limit, replace=False))]]
