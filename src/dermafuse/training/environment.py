"""What a run was computed with: the versions that decide the numbers, and the accelerators that TensorFlow found."""

from __future__ import annotations

from typing import Final

import tensorflow as tf

from dermafuse.versions import versions

_PACKAGES: Final = ("keras", "tensorflow-cpu", "tensorflow", "openvino", "numpy", "scikit-learn", "pandas")


def accelerators() -> list[str]:
    """Return the names of the GPUs that TensorFlow computes on, "" where a GPU does not tell its own."""
    found = tf.config.list_physical_devices("GPU")
    return [str(tf.config.experimental.get_device_details(device).get("device_name", "")) for device in found]


def environment() -> dict[str, str]:
    """Return Python, system, package versions, and ``gpu`` where there is one."""
    found = versions(_PACKAGES)
    if gpus := accelerators():
        found["gpu"] = ", ".join(name or "unnamed" for name in gpus)
    return found
