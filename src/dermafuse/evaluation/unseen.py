"""The images of a test set that the model has not met, measured on their own."""

from __future__ import annotations

from typing import Any, Final

from dermafuse.announcements import Announcement, announced, both_lists
from dermafuse.evaluation.glance import at_a_glance, majority
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.predictions import Scored

#: Fewer unseen images than this are not measured on their own.
LEAST: Final = 30


def measure_unseen(metrics: dict[str, Any], unseen: Scored, seed: int) -> None:
    """Say which images the model has met, and measure the others on their own where there are enough of them."""
    overlap, total = metrics["overlap"], metrics["test"]["n"]
    parts = []
    if overlap["trained_lesion_images"]:
        parts.append(f"{overlap['trained_lesion_images']:,} ({overlap['share']:.1%}) show lesions it learned from")
    if overlap["chose_images"]:
        parts.append(f"{overlap['chose_images']:,} show lesions that chose its epoch, temperature or decision")
    learned = bool(overlap["trained_lesion_images"])
    head = "TRAINED ON" if learned else "CHOSEN BY"
    if len(unseen) >= LEAST and len(set(unseen.true.tolist())) > 1:
        metrics["test_unseen"] = {
            **measure(unseen, seed=seed),
            "lesions": unseen.lesions,
            **at_a_glance(unseen, seed=seed),
            "baselines": {"majority": majority(unseen)},
        }
        advice = f"only the {len(unseen):,} unseen images say how it does on new patients."
    else:
        few = f"only {len(unseen):,} unseen, too few to be measured on their own (at least {LEAST} of two classes)"
        advice = f"{few if len(unseen) else 'none is unseen'}: these numbers say little about new patients."
        metrics["test"]["notes"] = {"unseen": f"{advice[0].upper()}{advice[1:]}"}
    text = f"{head}: of {total:,} images {' and '.join(parts)}; {advice}"
    said = Announcement("trained_on_test_images" if learned else "chosen_by_test_images", text)
    metrics |= both_lists([said, *announced(metrics)])
