"""How an EfficientNet of some width and depth follows from the table of the smallest one (Tan and Le, ICML 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dermafuse.models.backbone_spec import Stage


@dataclass(frozen=True)
class Row:
    """One stage of the smallest network of a family.

    Attributes:
        kernel: side of the depthwise (or fused) kernel.
        repeats: blocks.
        filters: out.
        expansion: of the channels inside a block.
        stride: of the first block.
        fused: expansion and depthwise convolution are one convolution (EfficientNetV2).
    """

    kernel: int
    repeats: int
    filters: int
    expansion: int
    stride: int
    fused: bool = False


#: Stages of EfficientNet-B0, which its larger ones and EfficientNet-Lite scale: Tan & Le, ICML 2019, table 1.
TABLE_1: Final = (
    Row(3, 1, 16, 1, 1),
    Row(3, 2, 24, 6, 2),
    Row(5, 2, 40, 6, 2),
    Row(3, 3, 80, 6, 2),
    Row(5, 3, 112, 6, 1),
    Row(5, 4, 192, 6, 2),
    Row(3, 1, 320, 6, 1),
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
    fused: bool = False

    @property
    def residual(self) -> bool:
        """Whether the block adds its input to its output."""
        return self.stride == 1 and self.filters_in == self.filters_out

    @property
    def last_layer(self) -> str:
        """Return the layer whose output is the block's, as Keras Applications names it."""
        if self.residual:
            return f"{self.name}add"
        return f"{self.name}{'project_activation' if self.fused and self.expansion == 1 else 'project_bn'}"


def round_filters(filters: int, width: float, *, never_far_down: bool = True) -> int:
    """Scale a channel count and round it to a multiple of 8, with ``never_far_down`` never more than 10 % down."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if never_far_down and rounded < 0.9 * scaled else rounded


def scaled_blocks(
    rows: Sequence[Row], *, stem: int, width: float, depth: float, fixed_ends: bool = False, never_far_down: bool = True
) -> tuple[tuple[BlockSpec, ...], ...]:
    """Return the blocks of each stage, first to last.

    Args:
        rows: of the smallest network.
        stem: channels in front of the first block.
        width: factor of the channels.
        depth: factor of the repeats.
        fixed_ends: first and last stage keep their repeats (the Lite networks).
        never_far_down: as in ``round_filters``.
    """
    stages, filters_in = [], stem
    for number, row in enumerate(rows, start=1):
        filters_out = round_filters(row.filters, width, never_far_down=never_far_down)
        fixed = fixed_ends and number in (1, len(rows))
        blocks = []
        for repeat in range(row.repeats if fixed else math.ceil(depth * row.repeats)):
            name = f"block{number}{chr(ord('a') + repeat)}_"
            stride = 1 if repeat else row.stride
            blocks.append(BlockSpec(name, row.kernel, stride, row.expansion, filters_in, filters_out, row.fused))
            filters_in = filters_out
        stages.append(tuple(blocks))
    return tuple(stages)


def stages_of(blocks: Sequence[Sequence[BlockSpec]], *, stem: int, features: int) -> tuple[Stage, ...]:
    """Return the stages ``stem``, ``block1`` ..., ``top`` of a network with these blocks."""
    reduction = 2
    stages = [Stage("stem", "stem_activation", reduction, stem)]
    for number, inside in enumerate(blocks, start=1):
        reduction *= math.prod(block.stride for block in inside)
        stages.append(Stage(f"block{number}", inside[-1].last_layer, reduction, inside[-1].filters_out))
    return (*stages, Stage("top", "top_activation", reduction, features))
