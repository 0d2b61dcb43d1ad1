"""What the friendly API says beside the prediction: operating points, stability, quality, neighbours; who may ask."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

pytest.importorskip("fastapi", reason='the server is not tested: pip install "dermafuse[serve]"')
pytest.importorskip("httpx2", reason="the server is not tested: pip install httpx2")

from at_once import AtOnce
from starlette.testclient import TestClient

from dermafuse.cli import main
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.errors import DataError
from dermafuse.progress import Silent
from dermafuse.runtime.bundle.evaluation import evaluation_json
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import load
from dermafuse.serving.app import make_app
from dermafuse.serving.gallery import read
from dermafuse.serving.gallery_build import build
from dermafuse.serving.limits import Access, Limits
from dermafuse.serving.model import ServedModel
from dermafuse.serving.samples import Samples
from tiny_bundle import tiny_bundle, tiny_image

POINT: dict[str, Any] = {
    "target": "malignant",
    "rule": "sensitivity",
    "level": 0.9,
    "threshold": 0.25,
    "n": 200,
    "positives": 50,
    "sensitivity": 0.9,
    "specificity": 0.8,
    "flagged": 0.3,
    "ppv": 0.6,
    "ci95": {"sensitivity": [0.8, 0.96], "specificity": [0.75, 0.84], "ppv": [0.5, 0.7]},
}
METRICS: dict[str, Any] = {
    "recipe": "standard",
    "data": {"images": 1000},
    "validation": {
        "n": 200,
        "accuracy": 0.8,
        "ci95": {"accuracy": [0.75, 0.85]},
        "subgroups": {},
        "operating_points": [POINT, {**POINT, "target": "mel", "threshold": None, "sensitivity": None}],
    },
}


def png(pixels: Any = None) -> bytes:
    content = io.BytesIO()
    Image.fromarray(tiny_image() if pixels is None else pixels).save(content, "PNG")
    return content.getvalue()


def client_of(predictor: Predictor, gallery: Path | None = None, access: Access | None = None) -> TestClient:
    limits = Limits()
    serving = make_app(AtOnce(ServedModel(predictor, limits, gallery)), limits, access or Access())
    return TestClient(serving.guard, base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    content = evaluation_json(METRICS, {})
    return load(tiny_bundle(tmp_path_factory.mktemp("answers") / "tiny", evaluation_json=content))


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with client_of(predictor) as made:
        yield made


# ---------------------------------------------------------------- how the model was judged


def test_the_model_says_how_it_was_judged_and_on_what_it_learned(client: TestClient) -> None:
    told = client.get("/v1/model").json()
    assert told["metrics"]["accuracy"] == 0.8
    assert told["metrics"]["ci95"]["accuracy"] == [0.75, 0.85]
    assert told["metrics"]["split"] == "validation"
    assert [point["name"] for point in told["operating_points"]] == [
        "malignant-sensitivity-0.90",
        "mel-sensitivity-0.90",
    ]
    assert told["operating_points"][0]["ci95"]["specificity"] == [0.75, 0.84]
    assert told["trained_on"] == {"recipe": "standard", "data": {"images": 1000}, "roles": {}}


def test_a_bundle_without_an_evaluation_says_none(tmp_path: Path) -> None:
    with client_of(load(tiny_bundle(tmp_path / "plain"))) as client:
        told = client.get("/v1/model").json()
        assert (told["operating_points"], told["trained_on"], told["gallery"]) == ([], None, False)
        answer = client.post("/v1/predict?operating_point=malignant-sensitivity-0.90", files={"image": png()})
        assert answer.status_code == 422
        assert "holds none" in answer.json()["detail"]


def test_an_operating_point_flags_by_its_threshold_and_says_the_ppv_at_a_prevalence(client: TestClient) -> None:
    path = "/v1/predict?operating_point=malignant-sensitivity-0.90"
    for seed in range(6):
        answer = client.post(f"{path}&prevalence=0.02", files={"image": png(tiny_image(seed))}).json()
        point = answer["operating_point"]
        assert point["score"] == answer["malignant_probability"]
        assert point["flagged"] is (answer["malignant_probability"] >= 0.25)
    assert point["ppv"] == pytest.approx(0.9 * 0.02 / (0.9 * 0.02 + 0.2 * 0.98))
    assert point["ci95"] == {"sensitivity": [0.8, 0.96], "specificity": [0.75, 0.84]}
    own = client.post(path, files={"image": png()}).json()["operating_point"]
    assert own["prevalence"] == 0.25
    assert own["ppv"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "query", ["operating_point=other", "operating_point=mel-sensitivity-0.90", "prevalence=2", "prevalence=nan"]
)
def test_a_point_that_is_none_and_a_prevalence_that_cannot_be_are_refused(client: TestClient, query: str) -> None:
    assert client.post(f"/v1/predict?{query}", files={"image": png()}).status_code == 422


# ---------------------------------------------------------------- stability and quality


def test_stability_is_the_spread_over_flips_and_turns(client: TestClient, predictor: Predictor) -> None:
    answer = client.post("/v1/predict?stability=true", files={"image": png()}).json()
    found = answer["stability"]
    pixels = tiny_image()
    turned = [np.rot90(each, turns).copy() for each in (pixels, pixels[:, ::-1]) for turns in range(4)]
    said = [predictor.predict(each) for each in turned]
    for code, (least, most) in found["probabilities"].items():
        chances = [one.probabilities[code] for one in said]
        # Turning and stretching to a square change places, within a grey level.
        assert (least, most) == pytest.approx((min(chances), max(chances)), abs=0.01)
        assert least <= answer["probabilities"][code] <= most
    assert found["views"] == sum(found["labels"].values()) == 8
    assert found["same_label"] == found["labels"][answer["label"]]
    assert "stability" not in client.post("/v1/predict", files={"image": png()}).json()


def lesion(**changes: Any) -> bytes:
    picture = Image.fromarray(Samples().pixels(1))
    if "blur" in changes:
        picture = picture.filter(ImageFilter.GaussianBlur(changes["blur"]))
    pixels = np.asarray(picture).astype(np.float64) * changes.get("times", 1.0)
    return png(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("changes", "flags"),
    [({}, []), ({"blur": 8}, ["blurred"]), ({"times": 0.3}, ["dark"]), ({"times": 2.5}, ["bright"])],
)
def test_a_blurred_or_badly_exposed_image_is_flagged(
    client: TestClient, tmp_path: Path, predictor: Predictor, capsys: Any, changes: dict[str, float], flags: list[str]
) -> None:
    image = lesion(**changes)
    quality = client.post("/v1/predict", files={"image": image}).json()["quality"]
    assert quality["flags"] == flags
    (tmp_path / "x.png").write_bytes(image)
    assert main(["predict", str(predictor.bundle.path), str(tmp_path / "x.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["quality"] == quality  # the same rule, wherever it is asked


# ---------------------------------------------------------------- the gallery


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("owned") / "data", lesions=21, seed=3)


@pytest.fixture(scope="module")
def gallery(owned: Path, predictor: Predictor) -> Path:
    return build(owned, predictor.bundle, "auto", Silent())


def test_similar_images_are_the_nearest_of_the_gallery_with_their_diagnosis(
    predictor: Predictor, gallery: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = read(gallery).entries
    with client_of(predictor, gallery) as client, caplog.at_level(logging.DEBUG):
        assert client.get("/v1/model").json()["gallery"] is True
        for entry in (entries[0], entries[-1]):
            answer = client.post("/v1/similar?count=4", files={"image": Path(entry.path).read_bytes()}).json()
            found = answer["similar"]
            assert len(found) == 4
            assert found[0]["label"] == entry.label
            assert found[0]["distance"] == pytest.approx(0, abs=1e-5)  # itself
            assert [one["distance"] for one in found] == sorted(one["distance"] for one in found)
            thumbnail = base64.b64decode(found[0]["thumbnail"].removeprefix("data:image/jpeg;base64,"))
            assert max(Image.open(io.BytesIO(thumbnail)).size) <= 192
            assert entry.path not in json.dumps(answer)
        assert client.post("/v1/similar", files={"image": b"no image"}).status_code == 415
        assert client.post("/v1/similar?count=99", files={"image": png()}).status_code == 422
    assert entries[0].id not in caplog.text


def test_the_gallery_is_computed_once_and_again_where_an_image_has_changed(
    owned: Path, predictor: Predictor, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dermafuse.serving.gallery.Embedder.__call__", lambda *_: pytest.fail("computed again"))
    assert build(owned, predictor.bundle, "auto", Silent()) == gallery
    monkeypatch.undo()
    image = Path(read(gallery).entries[0].path)
    content = image.read_bytes()
    try:
        image.write_bytes(content + b"\0")
        assert build(owned, predictor.bundle, "auto", Silent()) != gallery
    finally:
        image.write_bytes(content)


def test_without_a_gallery_the_route_says_so_and_what_is_no_data_set_is_refused(
    client: TestClient, predictor: Predictor, tmp_path: Path
) -> None:
    answer = client.post("/v1/similar", files={"image": png()})
    assert answer.status_code == 404
    assert "--gallery" in answer.json()["detail"]
    with pytest.raises(DataError, match=str(tmp_path)):
        build(tmp_path, predictor.bundle, "auto", Silent())


# ---------------------------------------------------------------- who may ask


def test_pages_of_named_origins_may_ask_and_no_others(predictor: Predictor) -> None:
    with client_of(predictor, access=Access(origins=frozenset({"https://clinic.example"}))) as client:
        asked = {"Origin": "https://clinic.example", "Access-Control-Request-Method": "POST"}
        preflight = client.options("/v1/predict", headers=asked)
        assert preflight.status_code == 204
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        answer = client.post("/v1/predict", files={"image": png()}, headers={"Origin": "https://clinic.example"})
        assert answer.headers["access-control-allow-origin"] == "https://clinic.example"
        assert answer.headers["vary"] == "Origin"
        for other in ("https://evil.example", "null", "https://clinic.example.evil.example", "http://clinic.example"):
            refused = client.options("/v1/predict", headers={**asked, "Origin": other})
            assert refused.status_code == 405
            assert "access-control-allow-origin" not in refused.headers


def test_whoever_guesses_keys_is_told_to_come_later_and_the_right_key_still_opens(predictor: Predictor) -> None:
    key = "correct-horse-battery"
    with client_of(predictor, access=Access(key)) as client:
        statuses = [client.get("/v1/model", headers={"X-API-Key": f"guess-{n}"}).status_code for n in range(22)]
        assert statuses[:20] == [401] * 20
        refused = client.get("/v1/model", headers={"X-API-Key": "guess"})
        assert refused.status_code == statuses[-1] == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.get("/v1/model", headers={"X-API-Key": key}).status_code == 200
        assert client.get("/v1/model").status_code == 401  # without any key nobody guesses: the page asks for it


@pytest.mark.parametrize("origin", ["*", "clinic.example", "https://clinic.example/", "null", "https://a b", ""])
def test_an_origin_that_is_none_is_refused(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--cors", origin]) == 2
    assert "no origin" in capsys.readouterr().err
