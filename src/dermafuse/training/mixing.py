"""Rows blended with each other, so that the network learns to answer in shares: mixup and CutMix."""

from __future__ import annotations

import tensorflow as tf


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
    first, second = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
    return tf.math.divide_no_nan(first, first + second)


def _blend(each: tf.Tensor, mine: tf.Tensor) -> tf.Tensor:
    each = tf.cast(each, tf.float32)
    return mine * each + (1.0 - mine) * tf.roll(each, 1, axis=0)
