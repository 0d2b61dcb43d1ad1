"""Batches computed in parts: the same function and the same training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from dermafuse.training.tensorflow_setup import parts_of_a_batch, threads_of_a_part

if TYPE_CHECKING:
    import keras


def tail(dropout: float = 0.0) -> keras.Model:
    import keras

    keras.utils.set_random_seed(4)
    image = keras.Input((5, 5, 8), name="image_input")
    meta = keras.Input((3,), name="meta_input")
    x = keras.layers.Conv2D(6, 1, activation="relu")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Dropout(dropout)(keras.layers.GlobalAveragePooling2D()(x))
    logits = keras.layers.Dense(4)(keras.layers.Concatenate()([x, meta]))
    return keras.Model({"image_input": image, "meta_input": meta}, logits)


def rows(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(2)
    inputs = {
        "image_input": generator.random((count, 5, 5, 8), dtype=np.float32),
        "meta_input": generator.random((count, 3), dtype=np.float32),
    }
    return inputs, generator.integers(0, 4, count)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_any_batch_gives_the_answers_of_the_whole(count: int, parts: int) -> None:
    import tensorflow as tf

    from dermafuse.training.loop.side_by_side import in_parts

    model = tail()
    inputs, _ = rows(count)
    inputs = {name: tf.constant(each) for name, each in inputs.items()}
    found = tf.function(lambda given: in_parts(model, given, parts, training=False))(inputs)
    np.testing.assert_allclose(found, model(inputs, training=False), atol=1e-5)


@pytest.mark.parametrize("parts", [2, 3])
def test_training_in_parts_learns_the_same_weights_and_reports_the_same_loss(parts: int) -> None:
    import keras

    from dermafuse.training.loop.losses import ClassificationLoss
    from dermafuse.training.loop.side_by_side import train_in_parts

    inputs, labels = rows(21)  # batches of 10, 10 and 1
    trained = []
    for number in (1, parts):
        model = tail()
        model.compile(keras.optimizers.SGD(0.1), ClassificationLoss(np.bincount(labels, minlength=4)))
        if number > 1:
            train_in_parts(model, number)
        history = model.fit(inputs, labels, batch_size=10, epochs=3, shuffle=False, verbose=0).history["loss"]
        trained.append((history, [np.array(weight) for weight in model.weights]))
    np.testing.assert_allclose(trained[1][0], trained[0][0], rtol=1e-5)
    for mine, other in zip(trained[1][1], trained[0][1], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_dropout_draws_for_each_part_and_again_in_each_step() -> None:
    import tensorflow as tf

    from dermafuse.training.loop.side_by_side import in_parts

    model = tail(dropout=0.5)
    same = {"image_input": np.ones((4, 5, 5, 8), np.float32), "meta_input": np.zeros((4, 3), np.float32)}
    step = tf.function(lambda given: in_parts(model, given, 2, training=True))
    answers = np.concatenate([step(same).numpy() for _ in range(4)])
    assert len(np.unique(answers.round(5), axis=0)) > 4


def test_parts_and_threads_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, expected in {1: (1, 1), 2: (2, 1), 4: (4, 1), 16: (4, 4)}.items():
        monkeypatch.setattr("dermafuse.training.tensorflow_setup.cpu_count", lambda cpus=cpus: cpus)
        assert (parts_of_a_batch(), threads_of_a_part()) == expected


def test_a_gpu_gets_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from dermafuse.training.loop import fit

    monkeypatch.setattr("dermafuse.training.tensorflow_setup.cpu_count", lambda: 2)
    assert fit._parts(tail()) == 2
    monkeypatch.setattr(fit, "accelerators", lambda: ["a GPU"])
    assert fit._parts(tail()) == 1
