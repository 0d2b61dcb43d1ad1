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
        path: a RUN folder, a bundle folder, the name of a model that comes with dermafuse (``dermafuse models`` lists
            them), or ``hf://OWNER/NAME`` for one on the Hugging Face hub; ``None``: the model released with dermafuse.
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
    return Predictor(read_bundle(model_folder(path)), precision=precision, mode=mode, threads=threads)


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


def model_folder(named: str | Path | None = None) -> Path:
    """Return the folder of a model however it is named: nothing, by its path, by a released model's name, ``hf://``.

    A path that is there comes first. What is neither is returned as it is: whoever opens it says what is wrong.

    Raises:
        BundleError: nothing is named, and this installation has no released model.
        NetworkError: a model on the hub cannot be had. ConfigError: its name is none, or a package is missing.
    """
    if named is None:
        return released_bundle()
    path = Path(named)
    if path.exists():
        return path
    if str(path).startswith("hf:"):
        from dermafuse.network.hub import model_from_hub

        return model_from_hub(str(named))
    return released_models().get(str(named), path)


def released_models() -> dict[str, Path]:
    """Return name -> folder of the models that come with dermafuse; the first answers where none is named."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "pretrained", here.parents[3] / "pretrained"):  # installed; source tree
        found = sorted(entry.parent for entry in folder.glob("*/manifest.json"))
        if found:
            return {entry.name: entry for entry in found}
    return {}


def released_bundle() -> Path:
    """Return the folder of the model that comes with dermafuse.

    Raises:
        BundleError: this installation has none.
    """
    for folder in released_models().values():
        return folder
    raise BundleError("This dermafuse comes without a released model; name a RUN folder (dermafuse train makes one).")
