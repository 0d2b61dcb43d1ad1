"""dermafuse: multi-modal skin-lesion classification. Research use only, not a medical device."""

from __future__ import annotations

from dermafuse.privacy import forbid_usage_reports

TYPE_CHECKING = False  # typing's own constant, without the time to import typing
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from dermafuse.runtime.predictor import Predictor

__all__ = ["__version__", "load"]

__version__ = "0.1.0"

forbid_usage_reports()


def load(
    path: str | Path | None = None,
    *,
    precision: Literal["auto", "f32", "bf16"] = "auto",
    mode: Literal["latency", "throughput"] = "latency",
    threads: int = 0,
) -> Predictor:
    """Load a trained model from a RUN or bundle folder; see `dermafuse.runtime.released.load`."""
    from dermafuse.runtime.released import load as load_predictor

    return load_predictor(path, precision=precision, mode=mode, threads=threads)
