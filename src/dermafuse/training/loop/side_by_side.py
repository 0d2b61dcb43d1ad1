"""Parts of a batch side by side: a faster training step on a CPU.

Much of a tail's step is small operations that move more memory than they compute, and that TensorFlow cannot share
well between threads. Two halves of a batch in one graph, each operation on one thread, run at the same time instead:
1.2 times the steps of both threads on one batch (``benchmarks/side_by_side.py``). The function is the same, but dropout
draws another mask and the BatchNormalization of the MetaBlock fusion normalises each part by itself.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def in_parts(model: keras.Model, inputs: dict[str, tf.Tensor], parts: int, *, training: bool) -> tf.Tensor:
    """Return ``model(inputs)``, computed for each of ``parts`` parts of the batch on its own.

    Args:
        model: from name -> (b, ...) to (b, k).
        inputs: name -> (b, ...); b need not be a multiple of ``parts``.
        parts: 1 or more.
        training: as Keras' argument.
    """
    if parts == 1:
        return model(inputs, training=training)
    rows = tf.shape(next(iter(inputs.values())))[0]
    size = -(-rows // parts)
    answers = []
    for number in range(parts):
        # Never empty (TensorFlow's depthwise convolution fails on that): a small batch's last row comes again.
        start = tf.minimum(number * size, rows - 1)
        end = tf.minimum((number + 1) * size, rows)
        answers.append(model({name: each[start:end] for name, each in inputs.items()}, training=training))
    return tf.concat(answers, axis=0)[:rows]


def train_in_parts(model: keras.Model, parts: int) -> None:
    """Make ``model.fit`` compute each batch in parts; the model must be compiled with a loss of logits.

    Args:
        model: from name -> (b, ...) to logits (b, k).
        parts: 1 or more.
    """

    def train_step(data: Any) -> dict[str, tf.Tensor]:
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = in_parts(model, inputs, parts, training=True)
            loss = model.compute_loss(y=labels, y_pred=logits)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        for metric in model.metrics:
            metric.update_state(loss, sample_weight=tf.shape(logits)[0])  # there is but the loss
        return {metric.name: metric.result() for metric in model.metrics}

    model.train_step = train_step
