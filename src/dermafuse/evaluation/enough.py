"""How many lesions of tuning rows each fitted thing needs: with fewer it is not fitted, and that is said.

Counted are lesions (or patients), not images: pictures of one lesion are no independent evidence.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

#: Temperature. Of 2,400 fits of each size to made-up models of 2 and 7 classes, well calibrated or 1.5 times too sure,
#: the worst on 100 rows raised the log loss on new rows by 0.16 nats, the worst on 50 by 1.1, on 12 by 4.1 (where all
#: rows are right the temperature goes to its limit); on average 50 rows cost a well calibrated model 0.02, 100 0.006.
TEMPERATURE: Final = 100

#: Prior shift and decision offsets: one strength each, chosen with the temperature, so as many.
DECISION: Final = 100

#: The flag of strange images: its threshold shall let 99 % of ordinary images pass; the largest of 50 scores lets 98 %.
FLAG: Final = 50


def lesions(groups: Any) -> int:
    """Return how many different lesions there are in (n,) ids."""
    return len(np.unique(np.asarray(groups, dtype=str)))


def lack(count: int, least: int, group: str = "lesion") -> str | None:
    """Return why nothing is fitted on ``count`` lesions, ``None`` where there are ``least`` or more."""
    if count >= least:
        return None
    return f"{count:,} tuning {group}(s) are too few, it takes {least:,}"


def least_for_level(level: float) -> int:
    """Return how many lesions a threshold at this sensitivity (specificity) needs to differ from that of all of them.

    At 0.9 one of ten may lie below the threshold; of nine none may, and the threshold is that of the worst lesion.
    """
    return round(1.0 / (1.0 - level)) if level < 1.0 else 1


def left_out(missing: dict[str, str]) -> str:
    """Return the sentence that says what was not fitted and why."""
    return "Not fitted: " + "; ".join(f"{thing} ({why})" for thing, why in missing.items()) + "."
