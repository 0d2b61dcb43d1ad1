"""Before a bundle is published: rows of the run go through it, from image file to probabilities.

What was judged came from stored activations and from Keras; what people get is the bundle. Whatever lies between (a
damaged front, a wrong conversion, an encoder of other rows) shows here, before the RUN has its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dermafuse.data.records import Records
from dermafuse.errors import BundleError, DermafuseError
from dermafuse.evaluation.robustness import queries
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.predictor import Predictor

#: So many rows are asked.
ROWS: Final = 64

#: Largest difference of a probability, and largest mean over the rows of each row's largest. In float32 what differs
#: is the storing of activations and weights as float16 (measured: 0.0002 and 0.00002); in bfloat16 also the part that
#: was judged in float32 (0.009 and 0.001). A front with 10 kB of 16 MB changed gave 0.039.
TOLERANCES: Final[dict[str, tuple[float, float]]] = {"f32": (0.01, 0.002), "bf16": (0.06, 0.01)}


@dataclass(frozen=True, eq=False)
class Published:
    """A bundle that answers as the model that was judged.

    Attributes:
        predictor: the bundle, compiled.
        block: for ``metrics.json``: ``rows``, ``precision``, ``largest_difference`` and ``mean_difference`` of a
            probability, 0..1.
    """

    predictor: Predictor
    block: dict[str, float | int | str]


def check_published(
    bundle: Path, records: Records, probabilities: NDArray[np.float64], precision: Literal["f32", "bf16"]
) -> Published:
    """Ask a written bundle about rows of its run, and refuse it where it answers otherwise.

    Args:
        bundle: its folder, or the RUN folder that holds it.
        records: rows that were judged (n).
        probabilities: float64 (n, k), what was judged.
        precision: arithmetic of the engine that made the activations which were judged.

    Raises:
        BundleError: an answer differs by more than `TOLERANCES`, or an image cannot be predicted.
    """
    chosen = np.unique(np.linspace(0, len(records) - 1, min(len(records), ROWS)).astype(np.int64))
    predictor = Predictor(read_bundle(bundle), precision=precision, mode="throughput")
    asked = queries(records.subset(chosen), [name for name in predictor.fields if name in records.table.columns])
    differences = []
    for row, answer in zip(chosen, predictor.stream(asked), strict=True):
        image = records.table["image_id"].iloc[row]
        if isinstance(answer, DermafuseError):
            raise BundleError(f"Not published: {image} was judged, but the bundle cannot predict it. {answer}")
        differences.append(np.abs(np.array(list(answer.probabilities.values())) - probabilities[row]).max())
    largest, mean = float(max(differences)), float(np.mean(differences))
    if largest > TOLERANCES[precision][0] or mean > TOLERANCES[precision][1]:
        worst = records.table["image_id"].iloc[chosen[int(np.argmax(differences))]]
        raise BundleError(
            f"Not published: the bundle does not answer as the model that was judged (probabilities differ by up to "
            f"{largest:.3f}, on average {mean:.3f}; worst: {worst}). A stored front or activation may be damaged: run "
            "dermafuse cache --prune, then train again with --resume."
        )
    block: dict[str, float | int | str] = {
        "rows": len(chosen),
        "precision": precision,
        "largest_difference": largest,
        "mean_difference": mean,
    }
    return Published(predictor, block)
