"""The published weights of Keras Applications' EfficientNet: found, downloaded, checked, loaded.

Keras gives another network for ``weights="imagenet"`` than for ``weights=FILE``: the former has one rescaling
step more. Here every path goes through one construction, so that a file and a download are the same model.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from dermafuse.errors import WeightsError
from dermafuse.models.download import not_to_be_had, wait_for_sign_of_life
from dermafuse.models.file_digest import digest
from dermafuse.models.specs import BackboneSpec
from dermafuse.temporaries import scratch_folder

Statistics = npt.NDArray[np.float32]

NETWORK_SECONDS = 20.0  # longest wait for a sign of life, before and during a download

# Statistics of ImageNet's training images in 0..1, red, green, blue (keras.src.applications.efficientnet).
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STDDEV = np.array([0.229, 0.224, 0.225], np.float32)


def published_file(backbone: BackboneSpec) -> Path:
    """Return the published weights file from Keras' cache, downloaded on first use.

    Raises:
        WeightsError: neither in the cache nor to be had from the network; names the ways out.
    """
    for folder in _keras_caches():
        path = folder / "models" / backbone.weights.file
        if path.is_file() and digest(path, backbone.weights.algorithm) == backbone.weights.digest:
            return path
    try:
        return _download(backbone)
    except Exception as error:  # Keras raises bare Exception; every failure has the same ways out
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise not_to_be_had(backbone, reason) from error


def _keras_caches() -> tuple[Path, ...]:
    """Return the folders where ``keras.utils.get_file`` keeps files: its home, and its fallback."""
    from keras.src.backend.config import keras_home

    return Path(keras_home()).expanduser(), Path(tempfile.gettempdir()) / ".keras"


def _download(backbone: BackboneSpec) -> Path:
    from keras.src.applications.efficientnet import BASE_WEIGHTS_PATH

    url = BASE_WEIGHTS_PATH + backbone.weights.file
    wait_for_sign_of_life(url, NETWORK_SECONDS)
    # Keras reports on stdout, which belongs to the program's own output.
    with _socket_timeout(NETWORK_SECONDS), contextlib.redirect_stdout(sys.stderr):
        path = keras.utils.get_file(
            backbone.weights.file, url, cache_subdir="models", file_hash=backbone.weights.digest
        )
    return Path(path)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_published(model: keras.Model, backbone: BackboneSpec, path: Path) -> None:
    """Load a published ``*_notop.h5`` into a model built with ``weights=None``, in place.

    The file's normalisation holds standard deviations where the layer expects variances; Keras mends that
    with a further division by sqrt(stddev), here the stored variance is multiplied by stddev:
    (x - mean) / sqrt(v) / sqrt(s) = (x - mean) / sqrt(v s).

    Raises:
        WeightsError: the file does not fit the network.
    """
    try:
        # Keras chooses its reader by the file's name, and a user's copy may have any.
        with scratch_folder() as folder:
            copy = folder / backbone.weights.file
            shutil.copyfile(path, copy)
            model.load_weights(copy)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} does not fit {backbone.name} ({error}); get the published file again.") from error
    layer = normalisation(model)
    mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.adapt_mean, layer.adapt_variance))
    set_normalisation(layer, mean, variance * IMAGENET_STDDEV)


def normalisation(model: keras.Model) -> keras.layers.Normalization:
    """Return the model's input normalisation layer."""
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))


def set_normalisation(layer: keras.layers.Normalization, mean: Statistics, variance: Statistics) -> None:
    """Set a normalisation layer's statistics, each float32 (3,)."""
    layer.adapt_mean.assign(mean)
    layer.adapt_variance.assign(variance)
    layer.finalize_state()  # the layer computes with a copy made here
