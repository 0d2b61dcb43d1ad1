"""The training loop: Keras ``fit`` with early stopping, best weights, history, and exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dermafuse.training.config import TrainConfig
from dermafuse.training.loop.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dermafuse.training.loop.losses import ClassificationLoss, class_weights
from dermafuse.training.loop.monitors import BETTER_IF_LARGER, monitor_values
from dermafuse.training.loop.optimizer import averaged_weights, make_optimizer
from dermafuse.training.loop.pipeline import MetadataDropout, Rows, ordered_batches, training_batches
from dermafuse.training.loop.side_by_side import in_parts, train_in_parts
from dermafuse.training.tensorflow_setup import accelerators, parts_of_a_batch

#: Called after every step: epoch (from 0), steps done in it, steps in an epoch.
StepProgress = Callable[[int, int, int], None]

#: Seconds between checkpoints: an epoch of a cached head takes less than writing one.
_CHECKPOINT_EVERY: Final = 5.0

_EVALUATION_BATCH: Final = 64


@dataclass
class FitResult:
    """What training leaves.

    Attributes:
        history: one dictionary an epoch (epoch, loss, learning_rate, seconds, val_...).
        best_epoch: number of the epoch (from 1) whose weights the model holds now.
        stopped_early: whether patience ran out.
        resumed_from: epochs taken over from a checkpoint.
        seconds: spent in this call.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False
    resumed_from: int = 0
    seconds: float = 0.0


def fit(
    model: keras.Model,
    train: Rows,
    watched: Rows | None,
    config: TrainConfig,
    *,
    classes: int,
    dropout: MetadataDropout | None = None,
    augment: bool = False,
    checkpoints: Path | None = None,
    run: str = "",
    on_step: StepProgress | None = None,
) -> FitResult:
    """Train ``model`` in place; on return it holds the weights of the best epoch.

    Args:
        model: from ``{"image_input", "meta_input"}`` to logits (b, classes).
        train: rows to learn from.
        watched: rows that early stopping looks at, never learned from; ``None`` only with ``monitor="last"``.
        config: rates, epochs, loss, patience.
        classes: k.
        dropout: loss of metadata while training.
        augment: random flips, turns, zoom and colour (whole-network training from image files).
        checkpoints: folder for checkpoints; an unfinished run found there is continued.
        run: identity of the run; a checkpoint of another one is refused.
        on_step: told the progress.
    """
    started = time.perf_counter()
    steps = math.ceil(len(train) / config.batch_size)
    loss = ClassificationLoss(
        np.bincount(train.labels, minlength=classes),
        label_smoothing=config.label_smoothing,
        logit_adjustment=config.logit_adjustment,
        focal_gamma=config.focal_gamma,
        margin=config.margin,
    )
    weighting = _Weighting(loss, class_weights(train.labels, classes, config.class_weighting), config)
    optimizer = make_optimizer(config, steps)
    model.compile(
        optimizer=optimizer,
        loss=loss,
        # One call of the compiled function an epoch where a step is far cheaper than calling it.
        steps_per_execution=steps if len(model.inputs[0].shape) == 2 else 1,
        # XLA on CPU is 12 times slower on these convolutions than oneDNN (measured).
        jit_compile=False,
    )
    optimizer.build(model.trainable_variables)
    if _parts(model) > 1:
        train_in_parts(model, _parts(model))
    keeper = _EpochKeeper(model, watched, config, steps, checkpoints, run, on_step)
    start = keeper.restore()
    if not keeper.finished:
        model.fit(
            training_batches(
                train,
                batch_size=config.batch_size,
                seed=config.seed,
                start_epoch=start,
                augment=augment,
                dropout=dropout,
                sampling_power=config.sampling_power,
                mixup=config.mixup,
                cutmix=config.cutmix,
                classes=classes,
            ),
            initial_epoch=start,
            epochs=config.epochs,
            steps_per_epoch=steps,
            callbacks=[weighting, keeper],
            shuffle=False,
            verbose=0,
        )
    result = keeper.finish()
    result.seconds = time.perf_counter() - started
    return result


def predict_logits(model: keras.Model, rows: Rows, *, view: int = 0) -> NDArray[np.float32]:
    """Return float32 logits (n, classes) of ``rows`` in order, in inference mode."""
    return _logits(model, _evaluation_batches(model, rows, view))


def _evaluation_batches(model: keras.Model, rows: Rows, view: int = 0) -> tf.data.Dataset:
    pooled = len(model.inputs[0].shape) == 2
    return ordered_batches(rows, batch_size=_EVALUATION_BATCH * (16 if pooled else 1), view=view)


def _logits(model: keras.Model, batches: tf.data.Dataset) -> NDArray[np.float32]:
    step = getattr(model, "_dermafuse_infer", None)
    if step is None:
        # Reused between epochs: tracing costs more than running a cached head.
        step = model._dermafuse_infer = tf.function(
            lambda inputs: in_parts(model, inputs, _parts(model), training=False),
            reduce_retracing=True,
            autograph=False,
        )
    return np.concatenate([step(inputs).numpy() for inputs, _ in batches])


def _parts(model: keras.Model) -> int:
    """Return into how many parts the batches of a model are divided: those of a tail on CPUs; heads are too small."""
    shape = model.inputs[0].shape
    tail = len(shape) == 4 and shape[-1] != 3  # 3: pixels, the literal form of the recipe
    return parts_of_a_batch() if tail and not accelerators() else 1


class _Weighting(keras.callbacks.Callback):
    """Gives the loss its class weights, from the epoch on in which they are to count."""

    def __init__(self, loss: ClassificationLoss, weights: NDArray[np.float64], config: TrainConfig) -> None:
        super().__init__()
        self._loss = loss
        self._weights = weights
        self._first = round(config.deferred_weighting * config.epochs)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        present = (self._weights > 0).astype(np.float64)
        self._loss.class_weights.assign(self._weights if epoch >= self._first else present)


class _EpochKeeper(keras.callbacks.Callback):
    """After every epoch: measure the watched rows, keep the best weights, write a checkpoint, maybe stop."""

    def __init__(
        self,
        model: keras.Model,
        watched: Rows | None,
        config: TrainConfig,
        steps: int,
        folder: Path | None,
        run: str,
        on_step: StepProgress | None,
    ) -> None:
        super().__init__()
        self.network = model
        self.watched = watched
        self.config = config
        self.steps = steps
        self.folder = folder
        self.run = run
        self.on_step = on_step
        self.result = FitResult()
        self.best_value = math.inf
        self.best_weights: list[NDArray[Any]] = []
        self.waited = 0
        self.finished = False
        # Made once: building the input pipeline costs more than running a cached head through it.
        self._batches = None if watched is None else _evaluation_batches(model, watched)
        self._epoch = 0
        self._epoch_started = 0.0
        self._saved_at = time.monotonic()

    # -- Keras calls these ---------------------------------------------------------------------------------

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch, self._epoch_started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.on_step is not None:
            self.on_step(self._epoch, batch + 1, self.steps)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        logs = logs or {}
        with averaged_weights(self.network, self.config.ema):
            values: dict[str, float] = {}
            if self.watched is not None and self._batches is not None:
                values = monitor_values(self.watched.labels, _logits(self.network, self._batches))
            watched = float(epoch) if self.config.monitor == "last" else values[self.config.monitor]
            value = -watched if self.config.monitor in BETTER_IF_LARGER else watched
            improved = value < self.best_value
            if improved:
                self.best_value, self.waited, self.result.best_epoch = value, 0, epoch + 1
                self.best_weights = [np.array(variable) for variable in self.network.weights]
        if not improved:
            self.waited += 1
        self.result.history.append(
            {
                "epoch": epoch + 1,
                "loss": float(logs.get("loss", math.nan)),
                "learning_rate": float(keras.ops.convert_to_numpy(self.network.optimizer.learning_rate)),
                "seconds": time.perf_counter() - self._epoch_started,
                **{f"val_{name}": number for name, number in values.items()},
            }
        )
        if self.waited >= self.config.patience:
            self.result.stopped_early = True
            self.network.stop_training = True
        self.finished = self.result.stopped_early or epoch + 1 == self.config.epochs
        if self.finished or time.monotonic() - self._saved_at > _CHECKPOINT_EVERY:
            self.save(epoch + 1)

    # -- state ---------------------------------------------------------------------------------------------

    def _variables(self) -> dict[str, Any]:
        # Weights, optimizer slots, and the dropout layers' random generators (they are variables too).
        named = {f"model/{index}": variable for index, variable in enumerate(self.network.variables)}
        optimizer = self.network.optimizer
        return named | {f"optimizer/{index}": variable for index, variable in enumerate(optimizer.variables)}

    def save(self, epoch: int) -> None:
        if self.folder is None:
            return
        tensors = {name: np.array(variable) for name, variable in self._variables().items()}
        tensors |= {f"best/{index}": value for index, value in enumerate(self.best_weights)}
        state = {
            "best_value": self.best_value,
            "best_epoch": self.result.best_epoch,
            "waited": self.waited,
            "finished": self.finished,
            "stopped_early": self.result.stopped_early,
            "history": self.result.history,
        }
        save_checkpoint(self.folder, Checkpoint(epoch, tensors, state, self.run))
        self._saved_at = time.monotonic()

    def restore(self) -> int:
        """Take over the newest checkpoint; return the number of epochs it holds."""
        found = None if self.folder is None else load_checkpoint(self.folder, self.run)
        if found is None:
            return 0
        for name, variable in self._variables().items():
            variable.assign(found.tensors[name])
        self.best_weights = [found.tensors[f"best/{index}"] for index in range(len(self.network.weights))]
        self.best_value = float(found.state["best_value"])
        self.waited = int(found.state["waited"])
        self.finished = bool(found.state["finished"])
        self.result = FitResult(
            history=list(found.state["history"]),
            best_epoch=int(found.state["best_epoch"]),
            stopped_early=bool(found.state["stopped_early"]),
            resumed_from=found.epoch,
        )
        return found.epoch

    def finish(self) -> FitResult:
        """Put the best weights into the model."""
        for variable, value in zip(self.network.weights, self.best_weights, strict=True):
            variable.assign(value)
        return self.result
