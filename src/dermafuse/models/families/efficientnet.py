"""EfficientNet B0 to B4 and EfficientNetV2 B0 to B3 of Keras Applications."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dermafuse.models.backbone_spec import BackboneSpec, DownloadedWeights, Normalisation, Stage
from dermafuse.models.families.scaling import TABLE_1, Row, round_filters, scaled_blocks, stages_of

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

#: Statistics of ImageNet's training images (keras.src.applications.efficientnet).
IMAGENET: Final = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_PUBLISHED_AT: Final = "https://storage.googleapis.com/keras-applications/"
_V2_PUBLISHED_AT: Final = "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"
_LICENCE: Final = "{} of Keras Applications (Apache-2.0), weights by Google"

# Tan and Le, ICML 2021, "EfficientNetV2: smaller models and faster training"; the B networks are those of the
# reference implementation.
_V2_ROWS: Final = (
    Row(3, 1, 16, 1, 1, fused=True),
    Row(3, 2, 32, 4, 2, fused=True),
    Row(3, 2, 48, 4, 2, fused=True),
    Row(3, 3, 96, 4, 2),
    Row(3, 5, 112, 6, 1),
    Row(3, 8, 192, 6, 2),
)

_STEM, _FEATURES = 32, 1280


def _build(backbone: BackboneSpec, size: int) -> keras.Model:
    """Build the network of Keras Applications without weights, its input correctly normalised."""
    import keras

    class_of = {"EfficientNet": "EfficientNetB", "EfficientNetV2": "EfficientNetV2B"}[backbone.family]
    make = getattr(keras.applications, f"{class_of}{backbone.name[-1]}")
    image = keras.Input((size, size, 3), name="image_input")
    built = make(include_top=False, weights=None, input_tensor=image)
    # Built again over the same layers: Keras' own wants its input in a list, and warns otherwise.
    model = keras.Model(image, built.output, name=backbone.name)
    # Keras numbers nameless layers through the session; ours explain themselves and stay the same.
    next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)).name = "input_rescaling"
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    layer.name = backbone.normalisation.layer
    for variable in layer.weights:  # saved weights are found again by these, so they too must stay the same
        variable._path = f"normalization/{variable.name}"
    if backbone.family == "EfficientNet":  # V2 has its statistics as constants, and right
        _set_normalisation(layer, _array(backbone.normalisation.mean), _array(backbone.normalisation.deviation) ** 2)
    return model


def _load(model: keras.Model, backbone: BackboneSpec, path: Path) -> None:
    """Load a published ``*_notop.h5``.

    The files of the first EfficientNet hold standard deviations where the layer expects variances; Keras mends that
    with a further division by sqrt(stddev), here the stored variance is multiplied by stddev:
    (x - mean) / sqrt(v) / sqrt(s) = (x - mean) / sqrt(v s).
    """
    import keras

    model.load_weights(path)
    if backbone.family == "EfficientNet":
        layer = model.get_layer(backbone.normalisation.layer)
        mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.adapt_mean, layer.adapt_variance))
        _set_normalisation(layer, mean, variance * _array(backbone.normalisation.deviation))


def _array(values: Sequence[float]) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.array(values, np.float32)


def _set_normalisation(
    layer: keras.layers.Normalization, mean: npt.NDArray[np.float32], variance: npt.NDArray[np.float32]
) -> None:
    """Set a normalisation layer's statistics, each float32 (3,)."""
    layer.adapt_mean.assign(mean)
    layer.adapt_variance.assign(variance)
    layer.finalize_state()  # the layer computes with a copy made here


def _register(number: int, size: int, stages: tuple[Stage, ...], parameters: int, md5: str, v2: bool) -> BackboneSpec:
    family = "EfficientNetV2" if v2 else "EfficientNet"
    file = f"efficientnetv2-b{number}_notop.h5" if v2 else f"efficientnetb{number}_notop.h5"
    url = (_V2_PUBLISHED_AT if v2 else _PUBLISHED_AT) + file
    return BackboneSpec(
        name=f"efficientnet_v2_b{number}" if v2 else f"efficientnet_b{number}",
        family=family,
        image_size=size,
        parameters=parameters,
        stages=stages,
        normalisation=IMAGENET,
        weights=DownloadedWeights(file, md5, _LICENCE.format(family), url, _load),
        build=_build,
        tail="block4",
        float32_until="block3",
    )


def _first(number: int, size: int, width: float, depth: float, parameters: int, md5: str) -> BackboneSpec:
    stem = round_filters(_STEM, width)
    blocks = scaled_blocks(TABLE_1, stem=stem, width=width, depth=depth)
    stages = stages_of(blocks, stem=stem, features=round_filters(_FEATURES, width))
    return _register(number, size, stages, parameters, md5, v2=False)


def _second(number: int, size: int, width: float, depth: float, parameters: int, md5: str) -> BackboneSpec:
    stem = round_filters(_STEM, width, never_far_down=False)
    blocks = scaled_blocks(_V2_ROWS, stem=stem, width=width, depth=depth, never_far_down=False)
    stages = stages_of(blocks, stem=stem, features=round_filters(_FEATURES, width, never_far_down=False))
    return _register(number, size, stages, parameters, md5, v2=True)


BACKBONES: Final = (
    _first(0, 224, 1.0, 1.0, 4_049_571, "50bc09e76180e00e4465e1a485ddc09d"),
    _first(1, 240, 1.0, 1.1, 6_575_239, "74c4e6b3e1f6a1eea24c589628592432"),
    _first(2, 260, 1.1, 1.2, 7_768_569, "111f8e2ac8aa800a7a99e3239f7bfb39"),
    _first(3, 300, 1.2, 1.4, 10_783_535, "af6d107764bb5b1abb91932881670226"),
    _first(4, 380, 1.4, 1.8, 17_673_823, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    _second(0, 224, 1.0, 1.0, 5_919_312, "893217f2bb855e2983157299931e43ff"),
    _second(1, 240, 1.0, 1.1, 6_931_124, "0e80663031ca32d657f9caa404b6ec37"),
    _second(2, 260, 1.1, 1.2, 8_769_374, "1dfe2e7a5d45b6632553a8961ea609eb"),
    _second(3, 300, 1.2, 1.4, 12_930_622, "f6abf7b5849ac99a89b50dd3fd532856"),
)
