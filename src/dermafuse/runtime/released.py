"""Finding and loading a model: a RUN, a bundle, or the one that comes with dermafuse."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dermafuse.errors import BundleError
from dermafuse.runtime.bundle import read_bundle
from dermafuse.runtime.engine import Precision
from dermafuse.runtime.predictor import Predictor


def load(
    path: str | Path | None = None,
    *,
    precision: Precision = "auto",
    mode: Literal["latency", "throughput"] = "latency",
    threads: int = 0,
) -> Predictor:
    """Load a trained model.

    Args:
        path: a RUN folder or a bundle folder; ``None``: the model released with dermafuse.
        precision: ``auto`` (bf16 where the CPU has it), ``f32`` or ``bf16``.
        mode: ``latency`` for single images, ``throughput`` for many.
        threads: CPUs to use; 0: all.

    Raises:
        BundleError: there is no such model, or it is damaged; says what to do.

    Example:
        >>> model = dermafuse.load("RUN")  # doctest: +SKIP
        >>> model.predict("lesion.jpg", age=55, sex="male", localization="back").label  # doctest: +SKIP
        'nv'
    """
    folder = released_bundle() if path is None else Path(path)
    return Predictor(read_bundle(folder), precision=precision, mode=mode, threads=threads)


def released_bundle() -> Path:
    """Return the folder of the model that comes with dermafuse.

    Raises:
        BundleError: this installation has none.
    """
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "pretrained", here.parents[3] / "pretrained"):  # installed; source tree
        found = sorted(entry.parent for entry in folder.glob("*/manifest.json"))
        if found:
            return found[0]
    raise BundleError("This dermafuse comes without a released model; name a RUN folder (dermafuse train makes one).")
