"""The images of a test set that the model has not met, measured on their own."""

from __future__ import annotations

from typing import Any, Final

from dermafuse.evaluation.intervals import cluster_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.prediction_rows import Rows

#: Fewer unseen images than this are not measured on their own.
LEAST: Final = 30


def measured(rows: Rows, seed: int) -> dict[str, Any]:
    """Return the metrics block of some rows, with its intervals."""
    block = evaluate_predictions(rows.true, rows.probabilities, rows.labels, predicted=rows.predicted)
    block["ci95"] = cluster_bootstrap(
        rows.true, rows.probabilities, rows.lesion_id, rows.labels, seed=seed, predicted=rows.predicted
    )
    return block


def measure_unseen(metrics: dict[str, Any], unseen: Rows, seed: int) -> None:
    """Say which images the model has met, and measure the others on their own where there are enough of them."""
    overlap, total = metrics["overlap"], metrics["test"]["n"]
    parts = []
    if overlap["trained_lesion_images"]:
        parts.append(f"{overlap['trained_lesion_images']:,} ({overlap['share']:.1%}) show lesions it learned from")
    if overlap["chose_images"]:
        parts.append(f"{overlap['chose_images']:,} show lesions that chose its epoch, temperature or decision")
    head = "TRAINED ON" if overlap["trained_lesion_images"] else "CHOSEN BY"
    if len(unseen) >= LEAST and len(set(unseen.true.tolist())) > 1:
        metrics["test_unseen"] = {**measured(unseen, seed), "lesions": unseen.lesions}
        advice = f"only the {len(unseen):,} unseen images say how it does on new patients."
    else:
        few = f"only {len(unseen):,} unseen, too few to be measured on their own (at least {LEAST} of two classes)"
        advice = f"{few if len(unseen) else 'none is unseen'}: these numbers say little about new patients."
        metrics["test"]["notes"] = {"unseen": f"{advice[0].upper()}{advice[1:]}"}
    text = f"{head}: of {total:,} images {' and '.join(parts)}; {advice}"
    metrics["announcements"] = [text, *metrics["announcements"]]
