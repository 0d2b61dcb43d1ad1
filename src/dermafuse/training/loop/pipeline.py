"""tf.data pipelines that yield ``({"image_input": ..., "meta_input": ...}, label)`` in an order fixed by seed.

The order and every random draw of an epoch depend on (seed, epoch) alone, so a run resumed at epoch e sees
exactly what the uninterrupted run saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dermafuse.data.images import load_image
from dermafuse.training.features.store import RowTable
from dermafuse.training.loop.augmentation import augment_images
from dermafuse.training.loop.experimental import mixed, pasted
from dermafuse.training.loop.sampling import epoch_rows

#: Streams of random numbers that must not repeat each other.
_ORDER, _VIEW, _META, _IMAGE, _MIX = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class MetadataDropout:
    """Random loss of metadata, so that one model serves records with and without it.

    Attributes:
        absent: float32 (width,), the encoding of a record without any metadata.
        fields: float32 (number of fields, width) of 0 and 1: the columns that each field owns.
        record: chance that a record loses all its metadata.
        field: chance that a record loses a field, each on its own.
    """

    absent: NDArray[np.float32]
    fields: NDArray[np.float32]
    record: float
    field: float

    def __call__(self, meta: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return ``meta`` float32 (b, width) with the chosen fields replaced by ``absent``."""
        rows = tf.shape(meta)[0]
        lost_field = tf.random.stateless_uniform((rows, len(self.fields)), seed) < self.field
        lost_record = tf.random.stateless_uniform((rows, 1), seed + 1) < self.record
        lost = tf.cast(lost_field | lost_record, tf.float32) @ tf.constant(self.fields)
        return tf.where(lost > 0, tf.constant(self.absent)[tf.newaxis], meta)


@dataclass(frozen=True)
class Rows:
    """The rows of one side of a split, ready for a pipeline.

    Attributes:
        images: paths of image files, or the table of their stored activations.
        meta: float32 (n, width); width 0 when there is no metadata.
        labels: int64 (n,), position of the diagnosis.
        image_size: side in pixels, for paths.
        targets: float32 (n, k), shares of the classes to learn in place of ``labels``; ``None``: the labels.
    """

    images: Sequence[Path] | RowTable
    meta: NDArray[np.float32]
    labels: NDArray[np.int64]
    image_size: int = 0
    targets: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: NDArray[np.int64]) -> Rows:
        """Return the rows at these positions."""
        images = self.images
        return Rows(
            images.subset(chosen) if isinstance(images, RowTable) else [images[position] for position in chosen],
            self.meta[chosen],
            self.labels[chosen],
            self.image_size,
            None if self.targets is None else self.targets[chosen],
        )


def training_batches(
    rows: Rows,
    *,
    batch_size: int,
    seed: int,
    start_epoch: int = 0,
    augment: bool = False,
    dropout: MetadataDropout | None = None,
    sampling_power: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    classes: int = 0,
) -> tf.data.Dataset:
    """Return an endless dataset of shuffled batches, ``ceil(n / batch_size)`` an epoch, from ``start_epoch`` on.

    Args:
        rows: what to train on. Stored activations of several views take turns, starting from a random one.
        batch_size: rows a batch; the last one of an epoch is smaller.
        seed: of order, views, augmentation and metadata dropout.
        start_epoch: number of the first epoch, counted from 0.
        augment: random flips, turns, zoom and colour, for images (activations have their views instead).
        dropout: loss of metadata.
        sampling_power: how much more often rare classes are drawn (``sampling.class_draws``).
        mixup: alpha of ``mixed``; above 0 labels are float32 (b, k), shares of the classes.
        cutmix: alpha of ``pasted``; above 0 labels are shares too.
        classes: k; needed for mixup and cutmix.
    """
    count = len(rows)
    views = rows.images.views if isinstance(rows.images, RowTable) else np.ones(count, np.int64)
    first_view = np.random.default_rng([seed, _VIEW]).integers(views)

    def resampled(epoch: np.int64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order, rounds = epoch_rows(rows.labels, sampling_power, seed=seed, epoch=int(epoch))
        return order, first_view[order] + rounds

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        if sampling_power > 0:
            order, turn = tf.numpy_function(resampled, [epoch], (tf.int64, tf.int64), stateful=False)
            order.set_shape((count,))
            turn.set_shape((count,))
        else:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(count, dtype=tf.int64), seed=tf.stack([seed * 8 + _ORDER, epoch])
            )
            turn = tf.gather(first_view, order) + epoch
        chosen = turn % tf.gather(views, order)
        positions = tf.data.Dataset.from_tensor_slices((order, chosen)).batch(batch_size)
        return positions.enumerate().map(lambda step, pair: (pair[0], pair[1], epoch * 100_003 + step))

    indices = tf.data.Dataset.counter(start_epoch, dtype=tf.int64).flat_map(epoch_batches)
    fetch = _fetcher(rows)

    def load(positions: tf.Tensor, view: tf.Tensor, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs, labels = fetch(positions, view)
        if augment:
            inputs["image_input"] = augment_images(
                inputs["image_input"], tf.stack([tf.constant(seed * 8 + _IMAGE, tf.int64), number])
            )
        if dropout is not None and "meta_input" in inputs:
            draw = tf.stack([tf.constant(seed * 8 + _META, tf.int64), number])
            inputs["meta_input"] = dropout(inputs["meta_input"], draw)
        if mixup > 0 or cutmix > 0:
            draw = tf.stack([tf.constant(seed * 8 + _MIX, tf.int64), number])
            blend = mixed if mixup > 0 else pasted
            return blend(inputs, tf.one_hot(labels, classes), mixup or cutmix, draw)
        return inputs, labels

    return _settled(indices.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True))


def ordered_batches(rows: Rows, *, batch_size: int, view: int = 0) -> tf.data.Dataset:
    """Return one pass over ``rows`` in their order, in one fixed view."""
    fetch = _fetcher(rows)
    positions = tf.data.Dataset.range(len(rows)).batch(batch_size)
    return _settled(
        positions.map(
            lambda batch: fetch(batch, tf.fill(tf.shape(batch), tf.constant(view, tf.int64))),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    )


def _fetcher(rows: Rows) -> Callable[[tf.Tensor, tf.Tensor], tuple[dict[str, tf.Tensor], tf.Tensor]]:
    """Return the function from positions and views to a batch, in the way that suits where the images are."""
    labels = tf.constant(rows.labels if rows.targets is None else rows.targets)
    meta = tf.constant(rows.meta)
    image_of = _image_fetcher(rows)

    def fetch(positions: tf.Tensor, views: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs = {"image_input": image_of(positions, views)}
        if rows.meta.shape[1]:
            inputs["meta_input"] = tf.gather(meta, positions)
        return inputs, tf.gather(labels, positions)

    return fetch


def _image_fetcher(rows: Rows) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    source = rows.images
    if isinstance(source, RowTable) and len(source.shape) == 1 and (source.views == 1).all():
        # Pooled features of a whole data set are small: keep them in the graph, no Python in the loop.
        pooled = tf.constant(source.gather(np.arange(len(source))).astype(np.float32))
        return lambda positions, views: tf.gather(pooled, positions)
    if isinstance(source, RowTable):
        table = source

        def from_store(positions: tf.Tensor, views: tf.Tensor) -> tf.Tensor:
            batch = tf.numpy_function(table.gather, [positions, views], tf.float16, stateful=False)
            batch.set_shape((None, *table.shape))
            return tf.cast(batch, tf.float32)

        return from_store

    paths, size = source, rows.image_size

    def decode(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([load_image(paths[int(position)], size) for position in positions])

    def from_files(positions: tf.Tensor, views: tf.Tensor) -> tf.Tensor:
        batch = tf.numpy_function(decode, [positions], tf.uint8, stateful=False)
        batch.set_shape((None, size, size, 3))
        return batch

    return from_files


def _settled(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
