import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermafuse.data.images import load_image, view
from dermafuse.progress import Silent
from dermafuse.runtime.engine import Engine
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.features.extraction import Extraction, extract
from dermafuse.training.features.store import ActivationStore
from dermafuse.training.partition import cut_shape, extraction_model, front_file, plan_network, store_key


def settings(**options: object) -> TrainConfig:
    return resolve(
        "seed",
        options={
            "backbone": "efficientnet_lite0",
            "weights": "random",
            "image_size": 64,
            "precision": "f32",
            **options,
        },
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    for number in range(6):
        pixels = generator.integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg", quality=95)
    return tmp_path


def run(
    paths: list[Path],
    store: ActivationStore,
    config: TrainConfig,
    views: tuple[int, ...] = (0,),
    counts: np.ndarray | None = None,
) -> Extraction:
    plan = plan_network(config)

    def engine() -> Engine:
        return Engine(extraction_model(front_file(plan, config)), precision="f32", threads=2)

    return extract(paths, store, engine, image_size=64, views=views, counts=counts)


@pytest.mark.parametrize("stage", [None, "block5"])
def test_stored_activations_are_those_of_keras_for_every_view(folder: Path, tmp_path: Path, stage: str | None) -> None:
    import keras

    from dermafuse.models.backbones import build_backbone

    config = settings(unfreeze_from=stage)
    plan = plan_network(config)
    paths = sorted(folder.glob("*.jpg"))
    store = ActivationStore(store_key(plan), tmp_path / "store")
    table = run(paths, store, config, views=tuple(range(8))).table
    backbone = build_backbone("efficientnet_lite0", image_size=64, weights="random", seed=config.seed)
    output = backbone.outputs[0]
    if stage is None:
        output = keras.layers.GlobalAveragePooling2D()(output)
    else:
        output = backbone.get_layer(plan.backbone.stage("block4").layer).output
    network = keras.Model(backbone.inputs[0], output)
    for number in (0, 3, 7):
        batch = np.stack([view(load_image(path, 64), number) for path in paths]).astype(np.float32)
        expected = network(batch, training=False).numpy()
        got = table.gather(np.arange(len(paths)), number)
        assert got.shape[1:] == cut_shape(plan)
        np.testing.assert_allclose(got, expected, rtol=3e-3, atol=3e-3 * np.abs(expected).max())


def test_only_new_and_changed_images_are_computed_and_a_moved_folder_costs_nothing(
    folder: Path, tmp_path: Path
) -> None:
    config = settings()
    root = tmp_path / "store"

    def computed(paths: list[Path]) -> int:
        return run(paths, ActivationStore(store_key(plan_network(config)), root), config).computed

    paths = sorted(folder.glob("*.jpg"))
    assert computed(paths[:4]) == 4
    assert computed(paths[:4]) == 0
    assert computed(paths) == 2
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=shutil.ignore_patterns("store"))
    assert computed(sorted(moved.glob("*.jpg"))) == 0
    Image.new("RGB", (50, 60), (200, 10, 10)).save(moved / "3.jpg")
    assert computed(sorted(moved.glob("*.jpg"))) == 1


def test_unreadable_images_are_listed_with_a_reason_and_the_rest_is_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:300])
    (folder / "2.jpg").write_text("not an image")
    (folder / "4.jpg").write_bytes(b"")
    paths = [*sorted(folder.glob("*.jpg")), folder / "gone.jpg"]
    config = settings()
    found = run(paths, ActivationStore(store_key(plan_network(config)), tmp_path / "store"), config)
    assert found.good.tolist() == [0, 3, 5]
    assert sorted(found.bad) == [1, 2, 4, 6]
    assert len(found.table) == 3
    for position, reason in found.bad.items():
        assert position == 6 or paths[position].name in reason


def test_random_views_are_those_of_the_files_content_whatever_else_is_extracted(folder: Path, tmp_path: Path) -> None:
    config = settings()
    key = store_key(plan_network(config))
    paths = sorted(folder.glob("*.jpg"))
    table = run(paths, ActivationStore(key, tmp_path / "one"), config, views=(0, 8, 9)).table
    again = run(paths[::-1], ActivationStore(key, tmp_path / "two"), config, views=(9,)).table
    everything = np.arange(len(paths))
    np.testing.assert_array_equal(again.gather(everything[::-1], 0), table.gather(everything, 2))
    assert not np.array_equal(table.gather(everything, 1), table.gather(everything, 2))
    assert not np.array_equal(table.gather(everything, 0), table.gather(everything, 1))


def test_each_image_gets_as_many_views_as_asked_and_a_repeated_one_is_computed_once(
    folder: Path, tmp_path: Path
) -> None:
    config = settings()
    paths = sorted(folder.glob("*.jpg"))[:3]
    shutil.copy(paths[0], folder / "copy.jpg")  # of equal files the longest list counts
    paths = [*paths, folder / "copy.jpg"]
    store = ActivationStore(store_key(plan_network(config)), tmp_path / "store")
    found = run(paths, store, config, views=(0, 8, 0, 1), counts=np.array([1, 3, 4, 2])).table
    assert len(store) == 2 + 2 + 3
    np.testing.assert_array_equal(found.views, [1, 3, 4, 2])
    each = np.array([1, 2])
    np.testing.assert_array_equal(found.gather(each, 0), found.gather(each, 2))
    np.testing.assert_array_equal(found.gather(np.array([0])), found.gather(np.array([3])))


def test_damaged_rows_are_computed_again_and_counted(folder: Path, tmp_path: Path) -> None:
    config = settings()
    key = store_key(plan_network(config))
    paths = sorted(folder.glob("*.jpg"))
    good = run(paths, ActivationStore(key, tmp_path / "store"), config)
    before = good.table.gather(np.arange(6)).copy()
    (data,) = (tmp_path / "store").glob("*/*.f16")
    content = bytearray(data.read_bytes())
    content[5] ^= 64
    data.write_bytes(content)
    found = run(paths, ActivationStore(key, tmp_path / "store"), config)
    assert (found.computed, found.repaired) == (1, 1)
    np.testing.assert_allclose(found.table.gather(np.arange(6)), before, rtol=1e-3, atol=1e-3)
    again = run(paths, ActivationStore(key, tmp_path / "store"), config)
    assert (again.computed, again.repaired) == (0, 0)


def test_a_damaged_converted_front_is_converted_again_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path))
    config = settings()
    said: list[str] = []

    class Listener(Silent):
        def warn(self, text: str) -> None:
            said.append(text)

    front = front_file(plan_network(config), config, Listener())
    wholes = {ending: front.with_suffix(ending).read_bytes() for ending in (".xml", ".xxh3", ".bin")}
    for ending, whole in wholes.items():
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        front.with_suffix(ending).write_bytes(damaged)
        with monkeypatch.context() as patch:
            # Converting takes seconds: here that it is begun is enough.
            patch.setattr("dermafuse.models.backbones.build_backbone", _stop)
            with pytest.raises(StopIteration):
                front_file(plan_network(config), config, Listener())
        front.with_suffix(ending).write_bytes(whole)
    assert len(said) == 3
    assert all(str(front) in text and "again" in text for text in said)
    front.with_suffix(".bin").write_bytes(bytes(damaged))
    front_file(plan_network(config), config, Listener())
    assert front.with_suffix(".bin").read_bytes() == wholes[".bin"]
    said.clear()
    front_file(plan_network(config), config, Listener())
    assert said == []


def _stop(*_: object, **__: object) -> None:
    raise StopIteration
