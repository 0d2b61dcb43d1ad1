"""The whole network of a run in Keras again, and from there to a ``.keras`` file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from dermafuse.errors import BundleError, ConfigError
from dermafuse.models.classifier import is_head, whole_network
from dermafuse.models.network_spec import NetworkSpec
from dermafuse.models.weights import weights_id
from dermafuse.runs import CONFIG, read_config
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.decision.temperature import apply
from dermafuse.runtime.network import IMAGE_INPUT, META_INPUT
from dermafuse.training.run_folder import TRAINED_WEIGHTS

_BATCH: Final = 16


def rebuild(run: Path, bundle: Bundle) -> keras.Model:
    """Return the whole network of a run: its backbone's published weights, its own wherever it trained.

    Inputs ``image_input`` float32 (batch, s, s, 3) in 0..255 and, with metadata, ``meta_input`` float32
    (batch, w); output logits float32 (batch, k). What was frozen in the run is frozen in the model.

    Raises:
        ConfigError: the run lacks its configuration or its trained weights.
        BundleError: configuration, weights and bundle are not of one run.
        WeightsError: the backbone's published weights are not to be had.
    """
    network = NetworkSpec.from_settings(
        _settings(run), image_size=bundle.image_size, classes=len(bundle.classes), meta_width=bundle.encoder.width
    )
    weights = weights_id(network.backbone, network.weights, seed=network.seed)
    if bundle.info.get("weights") != weights or bundle.info.get("backbone") != network.backbone:
        raise BundleError(f"{bundle.path} and {run / CONFIG} are not of one run; copy the run again.")
    model = whole_network(network)
    assign_trained(model, run / TRAINED_WEIGHTS)
    return model


def assign_trained(model: keras.Model, path: Path) -> None:
    """Give ``model`` the weights in ``path``, by variable path; the others keep theirs.

    Raises:
        ConfigError: the file is missing.
        BundleError: it is damaged, or does not fit the model.
    """
    try:
        tensors = safetensors.numpy.load(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}, which holds the trained weights, cannot be read ({error.strerror}); name the RUN folder of a "
            "run by this version of dermafuse, or use --format openvino."
        ) from error
    except Exception as error:  # SafetensorError, or KeyError for a type that NumPy lacks
        raise BundleError(f"{path} is not a safetensors file; copy the run again.") from error
    variables = {variable.path: variable for variable in model.weights}
    for name, tensor in tensors.items():
        if name not in variables or tuple(variables[name].shape) != tensor.shape:
            raise BundleError(f"{path} does not fit the network of the run ({name}); copy the run again.")
        variables[name].assign(tensor)
    untrained = [name for name in variables if is_head(name) and name not in tensors]
    if untrained:
        raise BundleError(f"{path} lacks the trained weights {untrained[0]}; copy the run again.")


def write_keras(model: keras.Model, folder: Path) -> Path:
    """Write ``model.keras`` into ``folder``: logits out, not compiled, for going on with training."""
    path = folder / "model.keras"
    model.save(path)
    return path


def keras_answer(
    path: Path, temperature: float
) -> Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], npt.NDArray[Any]]:
    """Return the probabilities of a ``.keras`` file that we wrote ourselves a moment ago."""
    model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def answer(images: npt.NDArray[np.uint8], meta: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        inputs = {IMAGE_INPUT: images.astype(np.float32), META_INPUT: meta}
        logits = [
            np.array(model({name: inputs[name][start : start + _BATCH] for name in model.input}, training=False))
            for start in range(0, len(images), _BATCH)
        ]
        return apply(np.concatenate(logits), temperature)

    return answer


def _settings(run: Path) -> dict[str, Any]:
    settings = read_config(run)
    if settings is None:
        raise ConfigError(
            f"{run} holds no config.toml, so the Keras model cannot be built again; name a RUN folder, or use "
            "--format openvino."
        )
    return settings
