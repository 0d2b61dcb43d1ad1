"""Every scalar metric of a set of rows, under many weightings of the rows at once.

A bootstrap replicate is a weighting: how often each row was drawn. So one engine serves both the estimate
(all weights 1) and 2,000 replicates (integer weights), and the two cannot disagree. Sorting is done once;
what is left for each replicate is cumulative sums and one matrix product.

Sources:
    Those of `metric_table`, and:
    AUROC with ties: Hanley & McNeil, Radiology 143, 1982 (the Mann-Whitney statistic, ties one half).
    Average precision: sum of precision times the step in recall over distinct scores, no interpolation.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dermafuse.evaluation import metric_table
from dermafuse.evaluation.calibration import BINS, equal_mass_bins
from dermafuse.evaluation.confusion import Confusion, mean_defined, ratio
from dermafuse.evaluation.predictions import BoolArray, FloatArray, Scored

#: ``("per_class", CODE, "recall") -> (r,)``: one value a weighting, NaN where undefined.
Measures = dict[tuple[str, ...], FloatArray]

#: Specificities at which the malignant-versus-benign sensitivity is read off the ROC curve.
SPECIFICITIES: Final = (0.90, 0.95)


class Ranking:
    """One score against one binary outcome, sorted once; then AUROC and AP for any number of weightings."""

    def __init__(self, score: FloatArray, positive: BoolArray) -> None:
        self.order = np.argsort(-score, kind="stable")
        falling = -score[self.order]
        at = np.flatnonzero(positive[self.order])  # (m,) places of the positives in the falling order
        self.positives = self.order[at]
        # The run of equal scores that each positive stands in covers places [start, end) of the order ...
        self.start = np.searchsorted(falling, falling[at], side="left")
        self.end = np.searchsorted(falling, falling[at], side="right")
        # ... and places [first, last) of the positives.
        self.first = np.searchsorted(at, self.start, side="left")
        self.last = np.searchsorted(at, self.end, side="left")

    def measure(
        self, weights: FloatArray, specificities: tuple[float, ...] = ()
    ) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
        """Return (auroc, average precision, sensitivity at each specificity), each (r,), for weights (n, r).

        NaN where a replicate holds no positive (all three) or no negative (AUROC, sensitivities). The
        sensitivity is the largest at any threshold whose specificity reaches the level (no interpolation).
        """
        flagged = _running(weights[self.order])  # (n + 1, r): weight of the first j rows
        own = weights[self.positives]  # (m, r)
        hits = _running(own)  # (m + 1, r)
        positive, negative = hits[-1], flagged[-1] - hits[-1]
        flagged_at, hits_at = flagged[self.end], hits[self.last]
        alarms = flagged_at - hits_at
        alarms_above = flagged[self.start] - hits[self.first]
        auroc = ratio(np.einsum("mr,mr->r", own, negative - (alarms + alarms_above) / 2), positive * negative)
        precision = np.divide(hits_at, flagged_at, out=np.zeros_like(hits_at), where=flagged_at > 0)
        ap = ratio(np.einsum("mr,mr->r", own, precision), positive)
        sensitivities = []
        for level in specificities:
            # A count of false alarms; the small slack keeps 0.1 * 30 = 3.0000000000000004 from mattering.
            allowed = alarms <= (1 - level) * negative + 1e-9
            best = np.where(allowed, hits_at, 0.0).max(axis=0, initial=0.0)
            sensitivities.append(np.where(negative > 0, ratio(best, positive), np.nan))
        return auroc, ap, sensitivities


class WeightedMetrics:
    """All scalar metrics of fixed rows as a function of row weights."""

    def __init__(self, rows: Scored, *, per_class_scores: bool = True, bins: int = BINS) -> None:
        """Sort and bin once.

        Args:
            rows: n rows over k classes.
            per_class_scores: also one-vs-rest AUROC, average precision and ECE of each class; without
                them a replicate costs about a third.
            bins: equal-mass bins of the ECE. Their membership is fixed by the rows, not redrawn with
                the weights: the binning is part of the estimator.
        """
        self.rows = rows
        n, k = rows.probabilities.shape
        self.with_scores = per_class_scores
        one_hot = np.arange(k) == rows.true[:, None]  # (n, k)
        top = rows.probabilities.max(axis=1)
        right = rows.probabilities.argmax(axis=1) == rows.true
        cells = np.zeros((k * k, n))
        cells[rows.true * k + rows.predicted, np.arange(n)] = 1
        means = np.stack([metric.of_rows(rows) for metric in metric_table.METRICS if metric.of_rows is not None])
        blocks = [cells, means, _gaps(top, right, bins)]
        if per_class_scores:
            blocks += [_gaps(rows.probabilities[:, c], one_hot[:, c], bins) for c in range(k)]
        self.cuts = np.cumsum([len(block) for block in blocks])[:-1]
        self.linear = np.concatenate(blocks)  # (q, n): everything that is a weighted sum over rows
        self.rankings = [Ranking(rows.probabilities[:, c], one_hot[:, c]) for c in range(k)] if per_class_scores else []
        self.malignant_ranking = Ranking(rows.malignant_score, rows.is_malignant) if rows.has_malignant else None

    def measure(self, weights: FloatArray) -> Measures:
        """Return every metric for r weightings, ``weights`` (n, r) not negative, not all zero in a column."""
        k = len(self.rows.classes)
        total = weights.sum(axis=0)
        cells, means, gaps, *class_gaps = np.split(self.linear @ weights, self.cuts)
        found = decision_metrics(cells.reshape(k, k, -1), self.rows)
        for metric, sums in zip(
            (each for each in metric_table.METRICS if each.of_rows is not None), means, strict=True
        ):
            found[metric.path] = sums / total
        found[("ece",)] = np.abs(gaps).sum(axis=0) / total
        if self.with_scores:
            self._measure_scores(weights, total, class_gaps, found)
        if self.malignant_ranking is not None:
            auroc, ap, at_specificity = self.malignant_ranking.measure(weights, SPECIFICITIES)
            found[("malignant", "auroc")] = auroc
            found[("malignant", "average_precision")] = ap
            for level, values in zip(SPECIFICITIES, at_specificity, strict=True):
                found[("malignant", f"sensitivity_at_specificity_{level:.2f}")] = values
        return found

    def _measure_scores(
        self, weights: FloatArray, total: FloatArray, class_gaps: list[FloatArray], found: Measures
    ) -> None:
        names = ("auroc", "average_precision", "ece")
        for code, ranking, gaps in zip(self.rows.classes, self.rankings, class_gaps, strict=True):
            auroc, ap, _ = ranking.measure(weights)
            for name, values in zip(names, (auroc, ap, np.abs(gaps).sum(axis=0) / total), strict=True):
                found[("per_class", code, name)] = values
        for target, name in zip(("macro_auroc", "macro_average_precision", "classwise_ece"), names, strict=True):
            found[(target,)] = mean_defined(np.stack([found[("per_class", code, name)] for code in self.rows.classes]))


def decision_metrics(confusion: FloatArray, rows: Scored) -> Measures:
    """Return what follows from the confusion matrices (k true, k predicted, r) alone; NaN where 0/0.

    A class without true rows has no recall and no F1 and is left out of the macro means; a class never
    predicted has no precision.
    """
    counts = Confusion(confusion)
    found = {
        metric.path: metric.of_decisions(counts) for metric in metric_table.METRICS if metric.of_decisions is not None
    }
    rejected = counts.n - counts.support - counts.called + counts.hits
    for name, values in {
        "precision": ratio(counts.hits, counts.called),
        "recall": counts.recall,
        "specificity": ratio(rejected, counts.n - counts.support),
        "npv": ratio(rejected, counts.n - counts.called),
        "f1": counts.f1,
    }.items():
        for code, of_class in zip(rows.classes, values, strict=True):
            found[("per_class", code, name)] = of_class
    if rows.has_malignant:
        bad = rows.malignant
        caught, missed = confusion[np.ix_(bad, bad)].sum(axis=(0, 1)), confusion[np.ix_(bad, ~bad)].sum(axis=(0, 1))
        alarm, clear = confusion[np.ix_(~bad, bad)].sum(axis=(0, 1)), confusion[np.ix_(~bad, ~bad)].sum(axis=(0, 1))
        found[("malignant", "sensitivity")] = ratio(caught, caught + missed)
        found[("malignant", "specificity")] = ratio(clear, clear + alarm)
        found[("malignant", "ppv")] = ratio(caught, caught + alarm)
        found[("malignant", "npv")] = ratio(clear, clear + missed)
    return found


def proportion_bases(rows: Scored) -> dict[tuple[str, ...], BoolArray]:
    """Return, for each metric that is a plain proportion, the (n,) mask of the rows it is a proportion of."""
    everything = np.ones(len(rows), dtype=np.bool_)
    bases: dict[tuple[str, ...], BoolArray] = {
        metric.path: everything for metric in metric_table.METRICS if metric.proportion
    }
    for c, code in enumerate(rows.classes):
        bases[("per_class", code, "recall")] = rows.true == c
        bases[("per_class", code, "specificity")] = rows.true != c
        bases[("per_class", code, "precision")] = rows.predicted == c
        bases[("per_class", code, "npv")] = rows.predicted != c
    if rows.has_malignant:
        called = rows.malignant[rows.predicted]
        bases[("malignant", "sensitivity")] = rows.is_malignant
        bases[("malignant", "specificity")] = ~rows.is_malignant
        bases[("malignant", "ppv")] = called
        bases[("malignant", "npv")] = ~called
    return bases


def _running(weights: FloatArray) -> FloatArray:
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def _gaps(confidence: FloatArray, outcome: BoolArray, bins: int) -> FloatArray:
    """Return (bins, n): row i's confidence minus outcome, in the row of its bin."""
    gaps = np.zeros((bins, len(confidence)))
    gaps[equal_mass_bins(confidence, bins), np.arange(len(confidence))] = confidence - outcome
    return gaps
