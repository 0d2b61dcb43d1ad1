"""The loop on tiny stored features: early stopping, best weights, EMA, exact resume, kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.features.store import ActivationStore, StoreKey, content_digest

if TYPE_CHECKING:
    import keras

    from dermafuse.training.loop.fit import FitResult
    from dermafuse.training.loop.pipeline import Rows

CLASSES = 3
WIDTH = 6


def rows_of(folder: Path, count: int, seed: int) -> Rows:
    from dermafuse.training.loop.pipeline import Rows

    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    features = generator.normal(size=(count, WIDTH)) + 1.2 * np.eye(CLASSES, WIDTH)[labels]
    store = ActivationStore(StoreKey("b", "w", "pooled", 32, 1, 1, f"s{seed}", (WIDTH,)), folder)
    digests = [content_digest(f"{seed}/{number}".encode()) for number in range(count)]
    if store.missing({key: [0] for key in digests}):
        with store.writer() as writer:
            for digest, row in zip(digests, features, strict=True):
                writer.add(digest, 0, row)
    meta = generator.normal(size=(count, 2)).astype(np.float32)
    return Rows(store.rows(digests, [0]), meta, labels)


def network() -> keras.Model:
    from dermafuse.models.classifier import HeadSpec, pooled_classifier

    return pooled_classifier(WIDTH, HeadSpec(CLASSES, 2, meta_units=(4,), fusion_units=8), seed=0)


def settings(**options: object) -> TrainConfig:
    return resolve("seed", options={"batch_size": 16, "epochs": 6, "learning_rate": 0.01, **options})


def train(
    folder: Path, config: TrainConfig, checkpoints: Path | None = None, **options: object
) -> tuple[keras.Model, FitResult]:
    from dermafuse.training.loop.fit import fit

    model = network()
    result = fit(
        model,
        rows_of(folder, 150, 1),
        rows_of(folder, 60, 2),
        config,
        classes=CLASSES,
        checkpoints=checkpoints,
        run="run",
        **options,  # type: ignore[arg-type]
    )
    return model, result


def test_training_learns_and_ends_with_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    from dermafuse.training.loop.fit import predict_logits

    model, result = train(tmp_path, settings(epochs=12, patience=3))
    losses = [entry["val_loss"] for entry in result.history]
    assert min(losses) < losses[0]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    watched = rows_of(tmp_path, 60, 2)
    logits = predict_logits(model, watched)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert -log_p[np.arange(60), watched.labels].mean() == pytest.approx(min(losses), rel=1e-4)


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    _, result = train(tmp_path, settings(epochs=60, patience=2, learning_rate=0.1))
    assert result.stopped_early
    assert len(result.history) == result.best_epoch + 2


def test_the_same_call_twice_gives_the_same_weights(tmp_path: Path) -> None:
    first, second = (train(tmp_path, settings())[0] for _ in range(2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first, second = (train(tmp_path, settings(seed=seed))[0] for seed in (0, 1))
    assert not np.allclose(first.get_layer("logits").kernel, second.get_layer("logits").kernel)


def test_deferred_class_weights_begin_to_count_in_their_epoch(tmp_path: Path) -> None:
    def losses(**options: object) -> list[float]:
        return [entry["loss"] for entry in train(tmp_path, settings(epochs=4, patience=9, **options))[1].history]

    plain = losses(class_weighting="none")
    deferred = losses(class_weighting="balanced", deferred_weighting=0.5)
    assert deferred[:2] == pytest.approx(plain[:2], rel=1e-6)
    assert deferred[2:] != pytest.approx(plain[2:], rel=1e-3)


RICH = {
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "weight_decay": 0.01,
    "ema": 0.9,
    "label_smoothing": 0.05,
    "class_weighting": "inverse_sqrt",
    "monitor": "macro_f1",
    "metadata_dropout": 0.3,
    "logit_adjustment": 0.5,
}


@pytest.mark.parametrize("options", [{}, RICH], ids=["seed", "everything"])
def test_a_run_cut_after_any_epoch_and_resumed_ends_as_if_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    from dermafuse.training.loop.pipeline import MetadataDropout

    monkeypatch.setattr("dermafuse.training.loop.fit._CHECKPOINT_EVERY", 0.0)
    config = settings(epochs=4, **options)
    dropout = MetadataDropout(np.zeros(2, np.float32), np.eye(2, dtype=np.float32), 0.3, 0.1) if options else None
    whole, expected = train(tmp_path, config, tmp_path / "whole", dropout=dropout)

    class CutError(Exception):
        pass

    for stop in (1, 3):
        folder = tmp_path / f"cut-{stop}"

        def cut(epoch: int, step: int, steps: int, stop: int = stop) -> None:
            if epoch == stop:
                raise CutError

        with pytest.raises(CutError):
            train(tmp_path, config, folder, on_step=cut, dropout=dropout)
        resumed, result = train(tmp_path, config, folder, dropout=dropout)
        assert result.resumed_from == stop
        for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        strip = [{k: v for k, v in entry.items() if k != "seconds"} for entry in result.history]
        assert strip == [{k: v for k, v in entry.items() if k != "seconds"} for entry in expected.history]


def _train_slowly(folder: Path, checkpoints: Path) -> None:
    import dermafuse.training.loop.fit as module

    module._CHECKPOINT_EVERY = 0.0
    train(folder, settings(epochs=40, patience=40), checkpoints, on_step=lambda *_: time.sleep(0.05))


def test_a_run_killed_with_sigkill_at_several_points_ends_as_if_uninterrupted(tmp_path: Path) -> None:
    config = settings(epochs=40, patience=40)
    whole, _ = train(tmp_path, config)
    context = multiprocessing.get_context("spawn")
    checkpoints = tmp_path / "checkpoints"
    for delay in (0.0, 0.31, 0.17):
        before = _newest(checkpoints)
        process = context.Process(target=_train_slowly, args=(tmp_path, checkpoints))
        process.start()
        while process.is_alive() and _newest(checkpoints) <= before:
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    assert 3 <= _newest(checkpoints) < 40
    resumed, result = train(tmp_path, config, checkpoints)
    assert result.resumed_from >= 3
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def _newest(folder: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in folder.glob("epoch-*")), default=0)


def test_a_finished_run_resumed_trains_no_more(tmp_path: Path) -> None:
    first, _ = train(tmp_path, settings(epochs=3), tmp_path / "c")
    again, result = train(tmp_path, settings(epochs=3), tmp_path / "c")
    assert result.resumed_from == 3
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
