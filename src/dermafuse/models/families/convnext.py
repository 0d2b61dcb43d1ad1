"""ConvNeXt (Liu et al., CVPR 2022, "A ConvNet for the 2020s"), with the weights of Keras Applications.

The function is that of ``keras.applications.ConvNeXtTiny``; the graph is our own. Parts of theirs are nested, and its
sums and scales carry names that Keras numbers through the session, so that saved weights would not find them again.
Ours says depthwise and 1x1 convolution where theirs says grouped and dense, which is the same, and what the rest of
the house looks for.

It normalises each position over its channels (LayerNormalization), in training as in inference, whatever else is in
the batch. There are no statistics to freeze, so it trains with its stage: what is said of BatchNormalization does not
apply. The weights were trained with drops of whole blocks; Keras Applications leaves those out, and so does this.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dermafuse.models.backbone_spec import BackboneSpec, DownloadedWeights, Stage
from dermafuse.models.families.efficientnet import IMAGENET

if TYPE_CHECKING:
    import keras

_EPSILON: Final = 1e-6
_SCALE: Final = 1e-6  # what the branch of a fresh block is multiplied by

#: Blocks and channels of the four stages.
_TINY: Final = ((3, 96), (3, 192), (9, 384), (3, 768))

_URL: Final = "https://storage.googleapis.com/tensorflow/keras-applications/convnext/"


def _build(backbone: BackboneSpec, size: int) -> keras.Model:
    """Build the network with Keras' own initial weights."""
    from keras import Input, Model, layers

    image = Input((size, size, 3), name="image_input")
    mean, deviation = backbone.normalisation.mean, backbone.normalisation.deviation
    x = layers.Normalization(
        mean=[255 * each for each in mean],
        variance=[(255 * each) ** 2 for each in deviation],
        name=backbone.normalisation.layer,
    )(image)
    for number, (blocks, channels) in enumerate(_TINY, start=1):
        if number == 1:
            x = layers.Conv2D(channels, 4, strides=4, name="stem_conv")(x)  # (s/4, s/4, c)
            x = layers.LayerNormalization(epsilon=_EPSILON, name="stem_norm")(x)
        else:
            x = layers.LayerNormalization(epsilon=_EPSILON, name=f"stage{number}_down_norm")(x)
            x = layers.Conv2D(channels, 2, strides=2, name=f"stage{number}_down_conv")(x)  # half the side
        for block in range(1, blocks + 1):
            x = _block(x, channels, f"stage{number}_block{block}_")
    x = layers.LayerNormalization(epsilon=_EPSILON, name="top_norm")(x)
    return Model(image, x, name=backbone.name)


def _block(x: Any, channels: int, name: str) -> Any:
    """Filter each channel (7 x 7), mix the channels through four times as many, scale, add the input."""
    from keras import initializers, layers

    entry = x
    x = layers.DepthwiseConv2D(7, padding="same", name=f"{name}dwconv")(x)
    x = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}norm")(x)
    x = layers.Conv2D(4 * channels, 1, name=f"{name}expand_conv")(x)
    x = layers.Activation("gelu", name=f"{name}activation")(x)
    x = layers.Conv2D(channels, 1, name=f"{name}project_conv")(x)
    x = layers.EinsumDense(
        "bhwc,c->bhwc",
        output_shape=tuple(x.shape[1:]),
        kernel_initializer=initializers.Constant(_SCALE),
        name=f"{name}scale",
    )(x)
    return layers.Add(name=f"{name}add")([entry, x])


def _load(model: keras.Model, backbone: BackboneSpec, path: Path) -> None:
    """Load the published ``convnext_tiny_notop.h5``: into Keras' own network, and from there in the same order."""
    import keras

    theirs = keras.applications.ConvNeXtTiny(weights=None, include_top=False, input_shape=(32, 32, 3))
    theirs.load_weights(path)
    for source, target in zip(theirs.weights, model.weights, strict=True):
        # (7, 7, 1, c) of a grouped kernel is (7, 7, c, 1) of a depthwise one; (in, out) is (1, 1, in, out).
        target.assign(keras.ops.reshape(source, target.shape))


def _stages(rows: tuple[tuple[int, int], ...]) -> tuple[Stage, ...]:
    inside = [
        Stage(f"stage{number}", f"stage{number}_block{blocks}_add", 2 ** (number + 1), channels)
        for number, (blocks, channels) in enumerate(rows, start=1)
    ]
    last = inside[-1]
    return (
        Stage("stem", "stem_norm", 4, rows[0][1]),
        *inside,
        Stage("top", "top_norm", last.reduction, last.channels),
    )


BACKBONES: Final = (
    BackboneSpec(
        name="convnext_tiny",
        family="ConvNeXt",
        image_size=224,
        parameters=27_820_128,
        stages=_stages(_TINY),
        normalisation=IMAGENET,
        weights=DownloadedWeights(
            "convnext_tiny_notop.h5",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
            "ConvNeXt of Keras Applications (Apache-2.0), weights by Meta (MIT)",
            f"{_URL}convnext_tiny_notop.h5",
            _load,
        ),
        build=_build,
        tail="stage3",
        float32_until="stage2",
        rounding="down",
    ),
)
