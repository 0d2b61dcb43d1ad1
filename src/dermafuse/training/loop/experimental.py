"""What no recipe uses: settings that stay valid, in one place.

Terms of the loss (`losses.ClassificationLoss`) and rows blended with each other, so that the network learns to answer
in shares: mixup and CutMix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

#: The settings that are marked so in the help; a test holds that no recipe sets one.
EXPERIMENTAL: Final = ("logit_adjustment", "focal_gamma", "margin", "deferred_weighting", "mixup", "cutmix")


def prior_shift(counts: NDArray[np.int64], tau: float) -> NDArray[np.float32]:
    """Return what is added to the logits in the loss, (k,): ``tau * log(prior)``.

    Menon et al. 2021, "Long-tail learning via logit adjustment": plain argmax afterwards aims at balanced accuracy.
    tau = 1 is the balanced softmax of Ren et al. 2020.
    """
    shift: NDArray[np.float32] = (tau * np.log(np.maximum(counts / counts.sum(), 1e-12))).astype(np.float32)
    return shift


def margins(counts: NDArray[np.int64], largest: float) -> NDArray[np.float32]:
    """Return by how much each class's logit is lowered where it is the label, (k,): rarer classes by more.

    ``largest * (n_min / n_label) ** 0.25`` of LDAM (Cao et al. 2019, "Learning imbalanced datasets with
    label-distribution-aware margin loss"). Their scale s = 30 belongs to logits that are cosines; these are not, so
    s = 1.
    """
    safe = np.maximum(counts, 1)
    lowered: NDArray[np.float32] = (largest * (safe.min() / safe) ** 0.25).astype(np.float32)
    return lowered


def focused(
    values: keras.KerasTensor, labels: keras.KerasTensor, log_p: keras.KerasTensor, gamma: float
) -> keras.KerasTensor:
    """Return the rows' values (b,) times ``(1 - p_label) ** gamma``: Lin et al. 2017, "Focal loss".

    Args:
        values: (b,).
        labels: (b, k), one-hot or shares.
        log_p: (b, k).
        gamma: above 0.
    """
    from keras import ops

    return values * (1.0 - ops.exp(ops.sum(labels * log_p, axis=-1))) ** gamma


def mixed(
    inputs: dict[str, tf.Tensor], shares: tf.Tensor, alpha: float, seed: tf.Tensor
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Blend each row with the next of the batch: mixup of images, of stored activations the manifold mixup.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization"; Verma et al. 2019, "Manifold mixup". One share
    lambda ~ Beta(alpha, alpha) a batch, the same for image, metadata and label.

    Args:
        inputs: name -> (b, ...).
        shares: float32 (b, k), of the classes.
        alpha: above 0; small: rows stay nearly what they are.
        seed: int64 (2,).
    """
    mine = _share(alpha, seed)
    return {name: _blend(each, mine) for name, each in inputs.items()}, _blend(shares, mine)


def pasted(
    inputs: dict[str, tf.Tensor], shares: tf.Tensor, alpha: float, seed: tf.Tensor
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Paste a rectangle of the next row of the batch into each row: CutMix, of stored activations in their map.

    Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable features". The
    rectangle covers a share 1 - lambda of the map, lambda ~ Beta(alpha, alpha), and lies anywhere; what of it falls
    outside is lost. Labels and metadata are blended by the share of the map that was kept.

    Args:
        inputs: name -> (b, ...); ``image_input`` (b, h, w, c).
        shares: float32 (b, k), of the classes.
        alpha: above 0.
        seed: int64 (2,).
    """
    import tensorflow as tf

    image = tf.cast(inputs["image_input"], tf.float32)
    size = tf.cast(tf.shape(image)[1:3], tf.float32)
    side = size * tf.sqrt(1.0 - _share(alpha, seed))
    middle = size * tf.random.stateless_uniform((2,), seed + 1)
    low = tf.cast(tf.round(tf.maximum(middle - side / 2, 0.0)), tf.int32)
    high = tf.cast(tf.round(tf.minimum(middle + side / 2, size)), tf.int32)
    rows, columns = tf.range(tf.shape(image)[1]), tf.range(tf.shape(image)[2])
    inside = ((rows >= low[0]) & (rows < high[0]))[:, tf.newaxis] & ((columns >= low[1]) & (columns < high[1]))
    kept = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32))
    out = {name: _blend(each, kept) for name, each in inputs.items() if name != "image_input"}
    out["image_input"] = tf.where(inside[tf.newaxis, :, :, tf.newaxis], tf.roll(image, 1, axis=0), image)
    return out, _blend(shares, kept)


def _share(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Return one draw of Beta(alpha, alpha)."""
    import tensorflow as tf

    first, second = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
    return tf.math.divide_no_nan(first, first + second)


def _blend(each: tf.Tensor, mine: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    each = tf.cast(each, tf.float32)
    return mine * each + (1.0 - mine) * tf.roll(each, 1, axis=0)
