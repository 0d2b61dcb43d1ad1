"""Ways to join the image branch and the metadata branch, by name, each with its source.

One more is one more function here and its line in `FUSIONS`. Keras is imported where a network is built: settings
read the names before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from dermafuse.errors import ConfigError, nearest

if TYPE_CHECKING:
    import keras

#: Width of queries, keys and values of the cross-attention, in all.
_ATTENTION_WIDTH: Final = 64
_ATTENTION_HEADS: Final = 4


@dataclass(frozen=True)
class Branches:
    """What a fusion may draw on.

    Attributes:
        image: pooled image features (batch, c).
        meta: output of the metadata branch (batch, m).
        feature_map: last feature map (batch, h, w, c); ``None`` where the backbone is frozen and only its pooled
            features are at hand.
    """

    image: keras.KerasTensor
    meta: keras.KerasTensor
    feature_map: keras.KerasTensor | None = None


Fusion: TypeAlias = "Callable[[Branches], keras.KerasTensor]"


def concat(branches: Branches) -> keras.KerasTensor:
    """Late fusion by concatenation, the mission's: (batch, c) and (batch, m) -> (batch, c + m)."""
    import keras

    joined: keras.KerasTensor = keras.layers.Concatenate(name="fusion_concat")([branches.image, branches.meta])
    return joined


def film(branches: Branches) -> keras.KerasTensor:
    """Scale and shift every channel by the metadata: ``x (1 + gamma(m)) + beta(m)``, (batch, c).

    Perez et al. 2018, "FiLM: Visual reasoning with a general conditioning layer". Both layers start at zero, so
    training starts from the image alone.
    """
    import keras

    channels = branches.image.shape[-1]
    scale = keras.layers.Dense(channels, kernel_initializer="zeros", name="fusion_scale")(branches.meta)
    shift = keras.layers.Dense(channels, kernel_initializer="zeros", name="fusion_shift")(branches.meta)
    scaled = keras.layers.Multiply(name="fusion_scaled")([branches.image, scale])
    modulated: keras.KerasTensor = keras.layers.Add(name="fusion_film")([branches.image, scaled, shift])
    return modulated


def gated(branches: Branches) -> keras.KerasTensor:
    """Let the metadata open and close channels, ``x sigmoid(g(m))``, and keep the metadata: (batch, c + m).

    The gate of squeeze-and-excitation (Hu et al. 2018, "Squeeze-and-Excitation Networks"), computed from the other
    modality as in Joze et al. 2020, "MMTM".
    """
    import keras

    channels = branches.image.shape[-1]
    gate = keras.layers.Dense(channels, activation="sigmoid", name="fusion_gate")(branches.meta)
    opened = keras.layers.Multiply(name="fusion_gated")([branches.image, gate])
    joined: keras.KerasTensor = keras.layers.Concatenate(name="fusion_concat")([opened, branches.meta])
    return joined


def metablock(branches: Branches) -> keras.KerasTensor:
    """MetaBlock: ``sigmoid(tanh(x f(m)) + g(m))``, (batch, c).

    Pacheco & Krohling 2021, "An attention-based mechanism to combine images and metadata in deep learning models
    applied to skin cancer classification"; f and g are dense layers with batch normalisation, as in their code. There
    it stands before the pooling; here behind it, so that it works on stored pooled features too.
    """
    import keras

    channels = branches.image.shape[-1]
    scale = keras.layers.Dense(channels, name="fusion_f")(branches.meta)
    scale = keras.layers.BatchNormalization(name="fusion_f_norm")(scale)
    shift = keras.layers.Dense(channels, name="fusion_g")(branches.meta)
    shift = keras.layers.BatchNormalization(name="fusion_g_norm")(shift)
    scaled = keras.layers.Multiply(name="fusion_scaled")([branches.image, scale])
    bounded = keras.layers.Activation("tanh", name="fusion_tanh")(scaled)
    shifted = keras.layers.Add(name="fusion_shifted")([bounded, shift])
    attended: keras.KerasTensor = keras.layers.Activation("sigmoid", name="fusion_metablock")(shifted)
    return attended


def cross_attention(branches: Branches) -> keras.KerasTensor:
    """Let the metadata ask and the positions of the feature map answer: (batch, c + c + m).

    Multi-head attention (Vaswani et al. 2017, "Attention is all you need") with one query, made from the metadata;
    what it finds joins the pooled features and the metadata.

    Raises:
        ConfigError: there is no feature map.
    """
    import keras

    if branches.feature_map is None:
        raise ConfigError(
            "fusion=cross_attention reads the feature map, and a frozen backbone leaves its pooled features only; "
            "add --unfreeze-from top (or an earlier stage), or use fusion=metablock."
        )
    _, height, width, channels = branches.feature_map.shape
    tokens = keras.layers.Reshape((height * width, channels), name="fusion_tokens")(branches.feature_map)
    asked = keras.layers.Dense(_ATTENTION_WIDTH, name="fusion_query")(branches.meta)
    query = keras.layers.Reshape((1, _ATTENTION_WIDTH), name="fusion_query_token")(asked)
    found = keras.layers.MultiHeadAttention(
        _ATTENTION_HEADS, _ATTENTION_WIDTH // _ATTENTION_HEADS, output_shape=channels, name="fusion_attention"
    )(query, tokens)
    answer = keras.layers.Flatten(name="fusion_answer")(found)
    joined: keras.KerasTensor = keras.layers.Concatenate(name="fusion_concat")([branches.image, answer, branches.meta])
    return joined


def image_only(branches: Branches) -> keras.KerasTensor:
    """Use the image branch alone, (batch, c): the baseline that ignores the metadata."""
    return branches.image


def metadata_only(branches: Branches) -> keras.KerasTensor:
    """Use the metadata branch alone, (batch, m): the baseline that ignores the image."""
    return branches.meta


FUSIONS: Final[dict[str, Fusion]] = {
    "concat": concat,
    "film": film,
    "gated": gated,
    "metablock": metablock,
    "cross_attention": cross_attention,
    "image_only": image_only,
    "metadata_only": metadata_only,
}


def fuse(
    name: str,
    image: keras.KerasTensor,
    meta: keras.KerasTensor | None,
    feature_map: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Join the branches with the named fusion; without metadata (``None``) the image vector is the answer.

    Raises:
        ConfigError: an unknown name, or one that does not suit what is there.
    """
    if name not in FUSIONS:
        raise ConfigError(f"Unknown fusion '{name}'; there are {', '.join(FUSIONS)}.{nearest(name, FUSIONS)}")
    if meta is None and name != "metadata_only":
        return image
    if meta is None:
        raise ConfigError("fusion=metadata_only needs metadata, and this data set has none; use fusion=image_only.")
    return FUSIONS[name](Branches(image, meta, feature_map))
