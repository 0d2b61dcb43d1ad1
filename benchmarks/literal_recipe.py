"""The reference recipe written literally, as the named rival of train_speed.py: no code of dermafuse in it.

tf.data decodes and resizes every image in every epoch, the frozen EfficientNetB1 runs in the training graph,
plain Keras `fit`. Prints JSON: seconds of every epoch, start-up, and the final validation accuracy.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
START = time.perf_counter()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import tensorflow as tf  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.utils.class_weight import compute_class_weight  # noqa: E402

SIZE = 240


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--epochs", type=int, required=True)
    arguments = options.parse_args()
    keras.utils.set_random_seed(0)

    table = pd.read_csv(arguments.data / "HAM10000_metadata.csv")
    paths = {path.stem: str(path) for path in arguments.data.glob("HAM10000_images_part_*/*.jpg")}
    table["path"] = table["image_id"].map(paths)
    table["age"] = table["age"].fillna(table["age"].mean())
    encoded = pd.get_dummies(table[["sex", "localization"]])
    age = (table["age"] - table["age"].mean()) / table["age"].std(ddof=0)
    meta = np.column_stack([age, encoded]).astype("float32")
    labels = table["dx"].map({name: i for i, name in enumerate(sorted(table["dx"].unique()))}).to_numpy()
    train, validation = train_test_split(np.arange(len(table)), test_size=0.2, stratify=labels, random_state=0)
    weights = dict(enumerate(compute_class_weight("balanced", classes=np.arange(7), y=labels[train])))

    def load(path: tf.Tensor, features: tf.Tensor, label: tf.Tensor):  # type: ignore[no-untyped-def]
        image = tf.image.decode_jpeg(tf.io.read_file(path), channels=3)
        image = tf.image.resize(image, (SIZE, SIZE))
        return {"image_input": image, "meta_input": features}, label

    def dataset(rows: np.ndarray, shuffle: bool) -> tf.data.Dataset:
        made = tf.data.Dataset.from_tensor_slices((table["path"].to_numpy(str)[rows], meta[rows], labels[rows]))
        if shuffle:
            made = made.shuffle(len(rows), seed=0)
        return made.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)

    image_input = keras.Input((SIZE, SIZE, 3), name="image_input")
    meta_input = keras.Input((meta.shape[1],), name="meta_input")
    # Random weights: a frozen network takes as long with them as with ImageNet's, and no download is needed.
    base = keras.applications.EfficientNetB1(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    base.trainable = False
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(base(image_input, training=False)))
    y = keras.layers.Dense(16, activation="relu")(keras.layers.Dense(32, activation="relu")(meta_input))
    z = keras.layers.Dropout(0.4)(keras.layers.Concatenate()([x, y]))
    output = keras.layers.Dense(7, activation="softmax")(keras.layers.Dense(64, activation="relu")(z))
    model = keras.Model({"image_input": image_input, "meta_input": meta_input}, output)
    # jit_compile=False is the faster of the two on CPU: the rival is not handicapped.
    model.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )

    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            seconds.append(time.perf_counter() - self.began)

    ready = time.perf_counter() - START
    history = model.fit(
        dataset(train, True),
        validation_data=dataset(validation, False),
        epochs=arguments.epochs,
        class_weight=weights,
        callbacks=[Clock(), keras.callbacks.EarlyStopping(patience=20, restore_best_weights=True)],
        verbose=0,
    )
    accuracy = history.history["val_accuracy"][-1]
    print(json.dumps({"start": ready, "epochs": seconds, "train": len(train), "val_accuracy": accuracy}))


if __name__ == "__main__":
    main()
