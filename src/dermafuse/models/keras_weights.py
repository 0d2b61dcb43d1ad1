"""The published weights of Keras Applications: found, downloaded, checked, loaded.

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

from dermafuse.errors import WeightsError
from dermafuse.models.backbone_spec import BackboneSpec, DownloadedWeights
from dermafuse.models.download import digest, not_to_be_had
from dermafuse.network.sign_of_life import wait_for_sign_of_life
from dermafuse.temporaries import scratch_folder

NETWORK_SECONDS = 20.0  # longest wait for a sign of life, before and during a download


def published_file(backbone: BackboneSpec, source: DownloadedWeights) -> Path:
    """Return the published weights file from Keras' cache, downloaded on first use.

    Raises:
        WeightsError: neither in the cache nor to be had from the network; names the ways out.
    """
    for folder in _keras_caches():
        path = folder / "models" / source.file
        if path.is_file() and digest(path, source.algorithm) == source.digest:
            return path
    try:
        return _download(source)
    except Exception as error:  # Keras raises bare Exception; every failure has the same ways out
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise not_to_be_had(backbone, reason) from error


def _keras_caches() -> tuple[Path, ...]:
    """Return the folders where ``keras.utils.get_file`` keeps files: its home, and its fallback."""
    from keras.src.backend.config import keras_home

    return Path(keras_home()).expanduser(), Path(tempfile.gettempdir()) / ".keras"


def _download(source: DownloadedWeights) -> Path:
    wait_for_sign_of_life(source.url, NETWORK_SECONDS)
    # Keras reports on stdout, which belongs to the program's own output.
    with _socket_timeout(NETWORK_SECONDS), contextlib.redirect_stdout(sys.stderr):
        path = keras.utils.get_file(source.file, source.url, cache_subdir="models", file_hash=source.digest)
    return Path(path)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_published(model: keras.Model, backbone: BackboneSpec, source: DownloadedWeights, path: Path) -> None:
    """Load a published file into a freshly built model, in place.

    Raises:
        WeightsError: the file does not fit the network.
    """
    try:
        # Keras chooses its reader by the file's name, and a user's copy may have any.
        with scratch_folder() as folder:
            copy = folder / source.file
            shutil.copyfile(path, copy)
            source.load(model, backbone, copy)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} does not fit {backbone.name} ({error}); get the published file again.") from error
