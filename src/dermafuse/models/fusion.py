"""Ways to join the image vector and the metadata vector, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import keras

from dermafuse.errors import ConfigError, nearest

Fusion = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]


def concat(image: keras.KerasTensor, meta: keras.KerasTensor) -> keras.KerasTensor:
    """Late fusion by concatenation, the mission's: (batch, c) and (batch, m) -> (batch, c + m)."""
    joined: keras.KerasTensor = keras.layers.Concatenate(name="fusion_concat")([image, meta])
    return joined


def metadata_only(image: keras.KerasTensor, meta: keras.KerasTensor) -> keras.KerasTensor:
    """Use the metadata branch alone, (batch, m): the baseline that ignores the image."""
    del image
    return meta


FUSIONS: Final[dict[str, Fusion]] = {"concat": concat, "metadata_only": metadata_only}


def fuse(name: str, image: keras.KerasTensor, meta: keras.KerasTensor | None) -> keras.KerasTensor:
    """Join the branches with the named fusion; without metadata (``None``) the image vector is the answer.

    Raises:
        ConfigError: an unknown name, or ``metadata_only`` on data without metadata.
    """
    if name not in (*FUSIONS, "image_only"):
        raise ConfigError(f"Unknown fusion '{name}'; there are {', '.join(FUSIONS)}.{nearest(name, FUSIONS)}")
    if name == "image_only" or (meta is None and name != "metadata_only"):
        return image
    if meta is None:
        raise ConfigError("fusion=metadata_only needs metadata, and this data set has none; use fusion=image_only.")
    return FUSIONS[name](image, meta)
