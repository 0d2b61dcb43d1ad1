from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dermafuse.data.images import load_image
from dermafuse.training.config import resolve
from dermafuse.training.features.store import ActivationStore, StoreKey, content_digest
from dermafuse.training.loop.experimental import mixed, pasted

if TYPE_CHECKING:
    from dermafuse.training.loop.pipeline import Rows


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(11)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def rows(images: list[Path]) -> Rows:
    from dermafuse.training.loop.pipeline import Rows

    meta = np.arange(22, dtype=np.float32).reshape(11, 2)
    return Rows(images, meta, np.arange(11, dtype=np.int64) % 7, image_size=32)


def epoch(rows: Rows, number: int = 0, **options: object) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    from dermafuse.training.loop.pipeline import training_batches

    steps = -(-len(rows) // 4)
    batches = training_batches(rows, batch_size=4, seed=5, start_epoch=number, **options).take(steps)  # type: ignore[arg-type]
    return [({k: v.numpy() for k, v in x.items()}, y.numpy()) for x, y in batches]


def test_batches_have_the_documented_names_shapes_and_types(rows: Rows) -> None:
    inputs, labels = epoch(rows)[0]
    assert inputs["image_input"].shape == (4, 32, 32, 3)
    assert inputs["image_input"].dtype == np.uint8
    assert inputs["meta_input"].shape == (4, 2)
    assert inputs["meta_input"].dtype == np.float32
    assert labels.dtype == np.int64


def test_image_metadata_and_label_of_a_row_stay_together(rows: Rows, images: list[Path]) -> None:
    for inputs, labels in epoch(rows):
        for image, meta, label in zip(inputs["image_input"], inputs["meta_input"], labels, strict=True):
            number = int(meta[0]) // 2
            assert label == number % 7
            np.testing.assert_array_equal(image, load_image(images[number], 32))


def test_an_epoch_shows_every_row_once_and_the_next_in_another_order(rows: Rows) -> None:
    orders = [np.concatenate([x["meta_input"][:, 0] for x, _ in epoch(rows, number)]) for number in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(0, 22, 2))
    assert not np.array_equal(*orders)


def test_a_resumed_epoch_is_the_epoch_of_the_uninterrupted_run(rows: Rows) -> None:
    from dermafuse.training.loop.pipeline import training_batches

    through = list(training_batches(rows, batch_size=4, seed=5, augment=True).take(9))[6:]
    resumed = list(training_batches(rows, batch_size=4, seed=5, augment=True, start_epoch=2).take(3))
    for (a, _), (b, _) in zip(through, resumed, strict=True):
        np.testing.assert_array_equal(a["image_input"].numpy(), b["image_input"].numpy())
        np.testing.assert_array_equal(a["meta_input"].numpy(), b["meta_input"].numpy())


def test_without_metadata_there_is_no_meta_input(images: list[Path]) -> None:
    from dermafuse.training.loop.pipeline import Rows

    rows = Rows(images, np.zeros((11, 0), np.float32), np.zeros(11, np.int64), image_size=32)
    assert set(epoch(rows)[0][0]) == {"image_input"}


def test_augmentation_keeps_the_range_and_changes_the_pixels(rows: Rows) -> None:
    plain, changed = (epoch(rows, augment=flag)[0][0]["image_input"] for flag in (False, True))
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.abs(changed - plain).mean() > 1


def test_ordered_batches_keep_the_order(rows: Rows) -> None:
    from dermafuse.training.loop.pipeline import ordered_batches

    meta = np.concatenate([inputs["meta_input"].numpy() for inputs, _ in ordered_batches(rows, batch_size=3)])
    np.testing.assert_array_equal(meta, rows.meta)


def test_metadata_dropout_replaces_whole_records_and_single_fields() -> None:
    from dermafuse.training.loop.pipeline import MetadataDropout

    absent = np.array([9, 8, 7], np.float32)
    fields = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
    meta = np.zeros((20_000, 3), np.float32)
    dropped = MetadataDropout(absent, fields, record=0.3, field=0.2)(meta, np.array([1, 2])).numpy()
    lost = dropped == absent
    assert ((dropped == 0) | lost).all()
    np.testing.assert_array_equal(lost[:, 1], lost[:, 2])
    assert lost.all(axis=1).mean() == pytest.approx(0.3 + 0.7 * 0.04, abs=0.02)
    assert lost[:, 0].mean() == pytest.approx(0.3 + 0.7 * 0.2, abs=0.02)


def test_stored_views_are_drawn_at_random_and_row_and_label_stay_together(tmp_path: Path) -> None:
    from dermafuse.training.loop.pipeline import Rows

    store = ActivationStore(StoreKey("b", "w", "block6", 32, 1, 1, "f32", (1, 1, 2)), tmp_path)
    digests = [content_digest(bytes([number])) for number in range(11)]
    with store.writer() as writer:
        for number, digest in enumerate(digests):
            for view in range(8):
                writer.add(digest, view, np.array([[[number, view]]], np.float32))
    table = store.rows(digests, range(8))
    rows = Rows(table, np.zeros((11, 0), np.float32), np.arange(11, dtype=np.int64))
    views = set()
    for number in range(4):
        for inputs, labels in epoch(rows, number):
            np.testing.assert_array_equal(inputs["image_input"][:, 0, 0, 0], labels)
            views |= set(inputs["image_input"][:, 0, 0, 1].tolist())
    assert len(views) == 8


def stored_views(folder: Path, count: int, views: int) -> Rows:
    from dermafuse.training.loop.pipeline import Rows

    store = ActivationStore(StoreKey("b", "w", "block6", 32, 1, 1, "f32", (1, 1, 2)), folder)
    digests = [content_digest(bytes([number])) for number in range(count)]
    with store.writer() as writer:
        for number, digest in enumerate(digests):
            for view in range(views):
                writer.add(digest, view, np.array([[[number, view]]], np.float32))
    labels = np.repeat([0, 1], [count - 3, 3])
    return Rows(store.rows(digests, range(views)), np.zeros((count, 0), np.float32), labels)


def test_a_row_shows_all_its_views_before_one_comes_again(tmp_path: Path) -> None:
    rows = stored_views(tmp_path, 12, 4)
    seen = [x["image_input"][:, 0, 0].astype(int) for number in range(4) for x, _ in epoch(rows, number)]
    assert len(np.unique(np.concatenate(seen), axis=0)) == 48


def test_rare_classes_are_drawn_more_often_each_time_in_another_view(tmp_path: Path) -> None:
    rows = stored_views(tmp_path, 30, 4)
    for number in range(3):
        batches = [(x["image_input"][:, 0, 0].astype(int), y) for x, y in epoch(rows, number, sampling_power=0.5)]
        for seen, labels in batches:
            np.testing.assert_array_equal(seen[:, 0] >= 27, labels == 1)
        seen = np.concatenate([each for each, _ in batches])
        assert (seen[:, 0] >= 27).sum() == 7  # 27 and 3 rows: a quarter of 30, by the square root, not a tenth
        assert len(np.unique(seen, axis=0)) == 30


def test_fresh_random_views_never_repeat_and_every_third_view_of_any_class_is_a_flip_or_turn() -> None:
    from dermafuse.training.prepare import training_views

    config = resolve("standard", options={"random_views": "fresh", "views": 8, "epochs": 5, "sampling_power": 0.5})
    labels = np.repeat([0, 1], [900, 100])  # drawn 750 and 250 times an epoch
    views, counts = training_views(config, labels)
    np.testing.assert_array_equal(counts, np.repeat([5, 13], [900, 100]))
    assert views == [0, 8, 9, 1, 10, 11, 2, 12, 13, 3, 14, 15, 4]
    assert len(training_views(config, np.repeat([0, 1], [90000, 10]))[0]) <= 360


def test_mixup_blends_image_metadata_and_label_by_the_same_share(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    inputs = {
        "image_input": generator.random((6, 3, 3, 2), dtype=np.float32),
        "meta_input": generator.random((6, 4), dtype=np.float32),
    }
    shares = np.eye(6, dtype=np.float32)
    out, blended = mixed(inputs, shares, 0.4, np.array([1, 2]))
    mine = np.diag(blended.numpy())
    assert 0 < mine[0] < 1
    np.testing.assert_allclose(blended.numpy().sum(axis=1), 1, rtol=1e-6)
    for name, each in inputs.items():
        expected = mine[0] * each + (1 - mine[0]) * np.roll(each, 1, axis=0)
        np.testing.assert_allclose(out[name].numpy(), expected, rtol=1e-5)


def test_the_share_of_mixup_follows_its_beta_distribution() -> None:
    inputs = {"image_input": np.zeros((2, 1), np.float32)}
    shares = np.eye(2, dtype=np.float32)
    drawn = [float(mixed(inputs, shares, 0.5, np.array([7, number]))[1][0, 0]) for number in range(800)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
    assert np.var(drawn) == pytest.approx(1 / (4 * (2 * 0.5 + 1)), abs=0.02)  # of Beta(a, a)


def test_with_mixup_labels_are_shares_of_the_classes(rows: Rows) -> None:
    for _, labels in epoch(rows, mixup=0.3, classes=7):
        assert labels.shape[1] == 7
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)


def test_cutmix_pastes_a_rectangle_and_blends_label_and_metadata_by_what_was_kept() -> None:
    image = np.tile(np.arange(3, dtype=np.float32)[:, None, None, None], (1, 7, 7, 2))
    pasted_shares = set()
    for number in range(40):
        inputs = {"image_input": image, "meta_input": np.eye(3, dtype=np.float32)}
        out, shares = pasted(inputs, np.eye(3, dtype=np.float32), 1.0, np.array([3, number]))
        mine = out["image_input"].numpy() == image
        kept = mine[0, :, :, 0].mean()
        np.testing.assert_allclose(np.diag(shares.numpy()), kept, atol=1e-6)
        np.testing.assert_allclose(out["meta_input"].numpy(), shares.numpy(), atol=1e-6)
        others = out["image_input"].numpy()[~mine]
        np.testing.assert_array_equal(others, np.roll(image, 1, axis=0)[~mine])
        gone = np.argwhere(~mine[0, :, :, 0])
        if len(gone):
            low, high = gone.min(axis=0), gone.max(axis=0) + 1
            assert len(gone) == np.prod(high - low)  # one whole rectangle
        pasted_shares.add(round(float(kept), 3))
    assert len(pasted_shares) > 10
