"""Random augmentation of image batches, stateless: the same seed gives the same batch."""

from __future__ import annotations

import math
from typing import Final

import tensorflow as tf

#: Largest rotation beyond the quarter turns, in radians; largest zoom in or out; largest colour factors.
_ROTATION: Final = math.radians(15.0)
_ZOOM: Final = 0.15
_BRIGHTNESS: Final = 0.15
_CONTRAST: Final = 0.15
_CAST: Final = 0.06


def augment_images(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flip, turn (quarter turns and up to 15 degrees), zoom (up to 15 %) and shift the colour of each image.

    Args:
        images: (b, s, s, 3), 0..255.
        seed: int64 (2,).

    Returns:
        float32 (b, s, s, 3) in 0..255. Dermoscopic images have no upright: all eight flips and quarter turns
        are equally likely.
    """
    count = tf.shape(images)[0]
    size = tf.cast(tf.shape(images)[1], tf.float32)
    draws = tf.random.stateless_uniform((9, count), seed)
    angle = tf.floor(draws[0] * 4.0) * (math.pi / 2) + (draws[1] * 2.0 - 1.0) * _ROTATION
    scale = 1.0 + (draws[2] * 2.0 - 1.0) * _ZOOM
    mirror = tf.where(draws[3] < 0.5, -1.0, 1.0)
    warped = _warp(tf.cast(images, tf.float32), angle, scale, mirror, size)
    brightness = 1.0 + (draws[4] * 2.0 - 1.0) * _BRIGHTNESS
    contrast = 1.0 + (draws[5] * 2.0 - 1.0) * _CONTRAST
    cast = 1.0 + (tf.transpose(draws[6:9]) * 2.0 - 1.0) * _CAST  # (b, 3)
    mean = tf.reduce_mean(warped, axis=(1, 2), keepdims=True)
    shifted = (warped - mean) * contrast[:, None, None, None] + mean
    return tf.clip_by_value(shifted * (brightness[:, None] * cast)[:, None, None, :], 0.0, 255.0)


def _warp(images: tf.Tensor, angle: tf.Tensor, scale: tf.Tensor, mirror: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Rotate, scale and mirror about the centre, bilinear, edges reflected."""
    centre = (size - 1.0) / 2.0
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    a, b = cosine * mirror, -sine
    c, d = sine * mirror, cosine
    shift_x = centre - a * centre - b * centre
    shift_y = centre - c * centre - d * centre
    zeros = tf.zeros_like(a)
    transforms = tf.stack([a, b, shift_x, c, d, shift_y, zeros, zeros], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
