"""Adam or AdamW, their schedule, and the moving average of the weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dermafuse.training.config import TrainConfig


def make_optimizer(config: TrainConfig, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """Return Adam, or AdamW where weight decay is set, with the configured schedule."""
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        warmup = round(config.warmup_epochs * steps_an_epoch)
        total = config.epochs * steps_an_epoch
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=config.learning_rate / 20 if warmup else config.learning_rate,
            decay_steps=max(1, total - warmup),
            alpha=0.01,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    average: dict[str, Any] = {"use_ema": True, "ema_momentum": config.ema} if config.ema else {}
    if config.weight_decay:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, **average)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
    return keras.optimizers.Adam(rate, **average)


class averaged_weights:
    """Put the optimizer's moving average of the weights into the model for the length of the block."""

    def __init__(self, model: keras.Model, ema: float) -> None:
        self._model = model
        self._active = ema > 0

    def _swap(self) -> None:
        averages = self._model.optimizer._model_variables_moving_average
        for variable, average in zip(self._model.trainable_variables, averages, strict=True):
            current = np.array(variable)
            variable.assign(average)
            average.assign(current)

    def __enter__(self) -> None:
        if self._active:
            self._swap()

    def __exit__(self, *_: object) -> None:
        if self._active:
            self._swap()
