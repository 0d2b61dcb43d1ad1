"""Finding and loading a model: a RUN, a bundle, or the one that comes with dermafuse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dermafuse.errors import BundleError
from dermafuse.files import sha256
from dermafuse.printable import plain
from dermafuse.runtime.bundle.files import MANIFEST
from dermafuse.runtime.bundle.folder import Bundle, read_bundle
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
        >>> import dermafuse as df
        >>> model = df.load(run)
        >>> model.predict(image, age=55, sex="male", localization="back").label in model.classes
        True
    """
    folder = released_bundle() if path is None else Path(path)
    return Predictor(read_bundle(folder), precision=precision, mode=mode, threads=threads)


def is_released(bundle: Bundle) -> bool:
    """Whether a bundle is the model that comes with dermafuse, or a copy of it."""
    try:
        return sha256(released_bundle() / MANIFEST) == bundle.digest
    except (BundleError, OSError):
        return False


def model_facts(bundle: Bundle) -> dict[str, str | bool]:
    """Return which model gave an answer, as plain JSON: ``path``, ``digest`` (SHA-256) and whether ``released``."""
    return {"path": str(bundle.path), "digest": bundle.digest, "released": is_released(bundle)}


def which_model(facts: Mapping[str, Any]) -> str:
    """Return what `model_facts` says as a sentence for a person."""
    path = Path(facts["path"])
    what = f"{plain(path.name)}, released with dermafuse" if facts["released"] else plain(path)
    return f"Model: {what} (digest {facts['digest'][:12]})."


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
