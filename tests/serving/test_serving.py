"""The HTTP API: its answers, its limits, and what it makes of hostile requests."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason='the server is not tested: pip install "dermafuse[serve]"')
pytest.importorskip("httpx2", reason="the server is not tested: pip install httpx2")

from at_once import AtOnce
from starlette.testclient import TestClient

from dermafuse.cli import main
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import load
from dermafuse.serving.app import Serving, make_app
from dermafuse.serving.limits import Access, Limits, Problem
from dermafuse.serving.model import ServedModel
from tiny_bundle import tiny_bundle, tiny_image

KEY = "correct-horse-battery"
PROBLEM = "application/problem+json"


def png(seed: int = 0, **shape: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(tiny_image(seed, **shape)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("serving") / "tiny")


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return load(bundle)


def client_of(predictor: Predictor, *, key: str | None = None, **limits: Any) -> tuple[Serving, TestClient]:
    made = Limits(**limits)
    serving = make_app(AtOnce(ServedModel(predictor, made)), made, Access(key))
    return serving, TestClient(serving.guard, base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    _, made = client_of(predictor, batch=4)
    with made:
        yield made


def infer(client: TestClient, inputs: list[dict[str, Any]], **more: Any) -> Any:
    return client.post("/v2/models/tiny/infer", json={"inputs": inputs, **more})


def image_input(*images: bytes) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}


def binary_infer(client: TestClient, header: dict[str, Any], tail: bytes) -> Any:
    head = json.dumps(header).encode()
    return client.post(
        "/v2/models/tiny/infer", content=head + tail, headers={"Inference-Header-Content-Length": str(len(head))}
    )


def lengthy(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


# ---------------------------------------------------------------- the same answer whoever asks


def test_page_api_protocol_command_line_and_python_give_identical_probabilities(
    client: TestClient, predictor: Predictor, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [png(seed) for seed in range(4)]
    values = {"age": "50", "sex": "male", "localization": "back"}
    python = [predictor.predict(image, **values).probabilities for image in images]
    api = [client.post("/v1/predict", files={"image": image}, data=values).json()["probabilities"] for image in images]
    batch = client.post("/v1/predict:batch", files=[("image", image) for image in images], data=values).json()
    numbers = {"name": "age", "datatype": "FP64", "shape": [4], "data": [50] * 4}
    words = [
        {"name": name, "datatype": "BYTES", "shape": [4], "data": [word] * 4}
        for name, word in (("sex", "male"), ("localization", "back"))
    ]
    protocol = infer(client, [image_input(*images), numbers, *words]).json()
    tail = lengthy(*images)
    binary = binary_infer(
        client,
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [4],
                    "parameters": {"binary_data_size": len(tail)},
                },
                numbers,
                *words,
            ],
            "parameters": {"binary_data_output": True},
        },
        tail,
    )
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(image)
    options = [word for name, value in values.items() for word in (f"--{name}", value)]
    assert main(["predict", str(bundle), *map(str, files), *options, "--json"]) == 0
    command = [row["probabilities"] for row in json.loads(capsys.readouterr().out)]

    assert api == python == command == [one["probabilities"] for one in batch["predictions"]]
    rows = [list(one.values()) for one in python]
    assert np.reshape(protocol["outputs"][0]["data"], (4, 7)).tolist() == rows
    split = int(binary.headers["Inference-Header-Content-Length"])
    first = json.loads(binary.content[:split])["outputs"][0]
    size = first["parameters"]["binary_data_size"]
    assert np.frombuffer(binary.content[split : split + size], "<f8").reshape(4, 7).tolist() == rows


def test_every_answer_names_the_model_and_its_digest(client: TestClient, predictor: Predictor) -> None:
    one = client.post("/v1/predict", files={"image": png()}).json()
    many = client.post("/v1/predict:batch", files={"image": png()}).json()
    told = client.get("/v1/model").json()
    standard = infer(client, [image_input(png())]).json()
    digest = predictor.bundle.digest
    assert one["model"]["digest"] == many["model"]["digest"] == told["digest"] == digest
    assert standard["parameters"]["digest"] == digest
    assert standard["model_name"] == one["model"]["name"] == "tiny"


def test_the_model_says_its_labels_fields_and_card(client: TestClient) -> None:
    told = client.get("/v1/model").json()
    assert [label["code"] for label in told["labels"] if label["malignant"]] == ["akiec", "bcc", "mel"]
    assert [label["code"] for label in told["labels"] if label["critical"]] == ["mel"]
    assert {field["name"]: field.get("choices") for field in told["fields"]} == {
        "age": None,
        "sex": ["female", "male"],
        "localization": ["abdomen", "back", "face", "trunk"],
    }
    assert told["card"].startswith("# A tiny model")


def test_explanation_comes_on_request_and_its_shares_add_up(client: TestClient) -> None:
    values = {"age": "50", "sex": "male"}
    plain = client.post("/v1/predict", files={"image": png()}, data=values).json()
    answer = client.post("/v1/predict?explain=true", files={"image": png()}, data=values).json()
    assert "explanation" not in plain
    found = answer["explanation"]
    assert found["target"] == answer["label"]
    assert np.max(found["heatmap"]) == 1
    total = found["prediction"]["probabilities"][found["target"]] - found["baseline"][found["target"]]
    assert sum(found["attributions"][found["target"]].values()) == pytest.approx(total)


def test_eight_views_are_those_of_python(client: TestClient, predictor: Predictor) -> None:
    answer = client.post("/v1/predict?views=8", files={"image": png()}).json()
    assert answer["probabilities"] == predictor.predict(png(), views=8).probabilities


def test_the_prediction_set_is_said_in_words_and_unknown_words_are_said(client: TestClient) -> None:
    answer = client.post("/v1/predict", files={"image": png()}, data={"localization": "elbow pit"}).json()
    assert answer["prediction_set_text"].startswith("Cannot exclude ")
    assert answer["name"] not in answer["prediction_set_text"]  # what is named need not be excluded
    assert answer["unknown"] == {"localization": "elbow pit"}
    assert "does not know 'elbow pit'" in answer["notes"][0]


def test_an_image_only_model_refuses_metadata(tmp_path: Path) -> None:
    _, made = client_of(load(tiny_bundle(tmp_path / "plain", metadata=False)))
    with made as client:
        assert client.get("/v1/model").json()["fields"] == []
        refused = client.post("/v1/predict", files={"image": png()}, data={"age": "50"})
        assert refused.status_code == 422
        assert "image alone" in refused.json()["detail"]
        assert client.post("/v1/predict", files={"image": png()}).status_code == 200


# ---------------------------------------------------------------- batch


def test_a_batch_answers_in_order_and_a_bad_image_spoils_no_other(client: TestClient, predictor: Predictor) -> None:
    parts = [("image", png(1)), ("image", b"not an image"), ("image", png(2))]
    records = json.dumps([{"age": 30}, {}, {"age": 70, "sex": "female"}])
    results = client.post("/v1/predict:batch", files=parts, data={"records": records}).json()["predictions"]
    assert results[0]["probabilities"] == predictor.predict(png(1), age=30).probabilities
    assert results[1]["status"] == 415
    assert results[2]["probabilities"] == predictor.predict(png(2), age=70, sex="female").probabilities


@pytest.mark.parametrize(("count", "status"), [(1, 200), (4, 200), (5, 422), (0, 422)])
def test_a_batch_has_its_limit(client: TestClient, count: int, status: int) -> None:
    parts = [("image", png())] * count or [("other", b"x")]
    assert client.post("/v1/predict:batch", files=parts).status_code == status


@pytest.mark.parametrize(
    "records",
    ["", "[", "{}", "[1]", "[{}, {}]", '[{"age": NaN}]', '[{"age": [1]}]', '[{"age": 1' + "0" * 400 + "}]", "[" * 9000],
)
def test_records_that_are_no_records_are_refused(client: TestClient, records: str) -> None:
    answer = client.post("/v1/predict:batch", files={"image": png()}, data={"records": records})
    if answer.status_code == 200:  # well-formed, and refused where it stands
        assert answer.json()["predictions"][0]["status"] == 422
    else:
        assert answer.status_code == 422


# ---------------------------------------------------------------- limits, in pairs


def form_of(image: bytes, total: int) -> tuple[bytes, dict[str, str]]:
    """A form of exactly ``total`` bytes: what is missing is text before its first boundary."""
    rest = b'\r\n--B\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + image + b"\r\n--B--\r\n"
    return rest + b" " * (total - len(rest)), {"Content-Type": "multipart/form-data; boundary=B"}


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_one_byte_too_many_is_413(predictor: Predictor, more: int, status: int, chunked: bool) -> None:
    _, made = client_of(predictor, upload_bytes=20_000)
    body, headers = form_of(png(), 20_000 + more)
    with made as client:
        content: Any = iter([body[:9000], body[9000:]]) if chunked else body
        answer = client.post("/v1/predict", content=content, headers=headers)
    assert answer.status_code == status
    if status == 413:
        assert answer.headers["content-type"] == PROBLEM
        assert "20,000" in answer.json()["detail"]


@pytest.mark.parametrize(("pixels", "status"), [(45 * 60, 200), (45 * 60 - 1, 413)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_one_pixel_too_many_is_413(predictor: Predictor, pixels: int, status: int, kind: str) -> None:
    content = io.BytesIO()
    Image.fromarray(tiny_image()).save(content, kind)
    _, made = client_of(predictor, pixels=pixels)
    with made as client:
        assert client.post("/v1/predict", files={"image": content.getvalue()}).status_code == status


def test_where_every_place_is_taken_the_answer_is_503_at_once_and_later_it_is_given(predictor: Predictor) -> None:
    serving, made = client_of(predictor, workers=1, queue=1)
    go, entered = threading.Event(), threading.Event()
    real = serving.pool.desk.model.predict

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert go.wait(10)
        return real(*arguments)

    with made as client:
        wait_until(lambda: serving.warm)
        serving.pool.desk.model.predict = slow  # type: ignore[method-assign]
        answers: list[int] = []

        def ask() -> None:
            answers.append(client.post("/v1/predict", files={"image": png()}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: serving.pool.admitted == 2)
        start = time.monotonic()
        refused = client.post("/v1/predict", files={"image": png()})
        assert time.monotonic() - start < 0.5
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/v2/health/ready").status_code == 200  # the event loop is free
        go.set()
        for thread in threads:
            thread.join(10)
        assert answers == [200, 200]
        wait_until(lambda: serving.pool.admitted == 0)
        assert client.post("/v1/predict", files={"image": png()}).status_code == 200
        assert 'dermafuse_refusals_total{reason="queue_full"} 1' in client.get("/metrics").text
        assert serving.pool.held == 0


def test_what_takes_longer_than_the_limit_is_503_and_keeps_its_place_until_it_ends(predictor: Predictor) -> None:
    serving, made = client_of(predictor, workers=1, queue=0, seconds=0.3)
    go = threading.Event()
    with made as client:
        wait_until(lambda: serving.warm)
        serving.pool.desk.model.predict = lambda *_: go.wait(10)  # type: ignore[method-assign, assignment, return-value]
        answer = client.post("/v1/predict", files={"image": png()})
        assert answer.status_code == 503
        assert "0.3 s" in answer.json()["detail"]
        assert serving.pool.admitted == 1
        go.set()
        wait_until(lambda: serving.pool.admitted == 0)


def test_what_has_waited_too_long_is_never_computed(predictor: Predictor) -> None:
    serving, made = client_of(predictor, workers=1, queue=2, seconds=0.4)
    go = threading.Event()
    computed: list[int] = []
    with made as client:
        wait_until(lambda: serving.warm)

        def slow(*_: Any) -> Any:
            computed.append(1)
            go.wait(10)

        serving.pool.desk.model.predict = slow  # type: ignore[method-assign]
        answers: list[int] = []

        def ask() -> None:
            answers.append(client.post("/v1/predict", files={"image": png()}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert answers == [503, 503, 503]
        assert serving.pool.admitted == 1  # the one that runs; those that waited have given their places back
        go.set()
        wait_until(lambda: serving.pool.admitted == 0)
        assert computed == [1]


def wait_until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------- hostile requests


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "multipart/form-data; boundary=B", 400),
        (b"garbage", "multipart/form-data; boundary=B", 400),
        (b"--B\r\nContent-Disposition: form-data; name=image\r\n\r\nabc", "multipart/form-data; boundary=B", 400),
        (b"--B\r\nX: y\r\n\r\nabc\r\n--B--\r\n", "multipart/form-data; boundary=B", 400),
        (b"--B--\r\n", "multipart/form-data", 400),
        (b"{}", "application/json", 415),
        (b"abc", "", 415),
        (
            b'--B\r\nContent-Disposition: form-data; name="age"\r\n\r\n\xff\r\n--B--\r\n',
            "multipart/form-data; boundary=B",
            400,
        ),
        (b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 2000, "multipart/form-data; boundary=B", 400),
        (b"\r\n" * 300_000, "multipart/form-data; boundary=B", 400),
    ],
)
def test_a_body_that_is_no_form_is_refused(client: TestClient, content: bytes, kind: str, status: int) -> None:
    start = time.monotonic()
    answer = client.post("/v1/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert time.monotonic() - start < 2


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    for path in ("/v1/predict", "/v2/models/tiny/infer"):
        assert client.post(path, content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"", 422),
        (b"hello", 415),
        (b"GIF89a" + b"\0" * 50, 415),
        (b"\xff\xd8\xff" + b"\0" * 50, 422),
        (png()[:200], 422),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 422),
        (b"RIFF\0\0\0\0WEBP", 422),
        (b"II*\x00" + b"\xff" * 40, 422),
        (b"BM" + b"\xff" * 60, 422),
    ],
)
@pytest.mark.parametrize("explain", ["true", "false"])
def test_an_image_that_cannot_be_used_is_refused(client: TestClient, image: bytes, status: int, explain: str) -> None:
    answer = client.post(f"/v1/predict?explain={explain}", files={"image": ("../../etc/passwd", image)})
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)


@pytest.mark.parametrize("values", [{"age": "500"}, {"age": "old"}, {"agee": "5"}, {"age": "1e999"}, {"age": "-1"}])
def test_values_that_cannot_be_are_refused(client: TestClient, values: dict[str, str]) -> None:
    assert client.post("/v1/predict", files={"image": png()}, data=values).status_code == 422


def test_two_images_or_none_are_refused_and_so_are_wrong_parameters(client: TestClient) -> None:
    assert client.post("/v1/predict", files=[("image", png()), ("image", png())]).status_code == 422
    assert client.post("/v1/predict", data={"age": "5"}, files={"x": b""}).status_code == 422
    for query in ("views=3", "explain=perhaps", "views="):
        answer = client.post(f"/v1/predict?{query}", files={"image": png()})
        assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert client.get("/v1/predict").status_code == 405
    assert client.get("/nothing").status_code == 404


def test_a_fault_of_the_server_is_told_without_what_it_knew(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    serving, made = client_of(predictor)

    def fail(*_: Any) -> Any:
        raise RuntimeError("patient Jane Doe")

    with caplog.at_level(logging.INFO, "dermafuse.serving"), made as client:
        wait_until(lambda: serving.warm)
        serving.pool.desk.model.predict = fail  # type: ignore[method-assign]
        answer = client.post("/v1/predict", files={"image": png()})
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert "Jane" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text
    assert serving.pool.held == serving.pool.admitted == 0


# ---------------------------------------------------------------- who may ask


def test_with_a_key_only_those_who_show_it_are_answered(predictor: Predictor) -> None:
    _, made = client_of(predictor, key=KEY)
    with made as client:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {KEY}"},
            {"X-API-Key": b"\xe9"},
        ):
            refused = client.get("/v1/model", headers=headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/metrics").status_code == 401
        assert client.get("/v2").json() == {"error": refused.json()["detail"]}
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
            assert client.get("/v1/model", headers=headers).status_code == 200
        assert client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("192.168.1.5", True),
        ("clinic.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_somebody_else_points_here_is_refused(host: str, known: bool) -> None:
    assert Access(hosts=frozenset({"clinic.example"})).knows(host) is known


def test_the_host_header_is_checked_and_no_other_site_may_read(client: TestClient) -> None:
    assert client.get("/v1/model", headers={"Host": "evil.example"}).status_code == 400
    answer = client.get("/v1/model", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_request_ids_are_given_back_and_only_harmless_ones(client: TestClient) -> None:
    assert client.get("/v2", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, '"}'):
        assert re.fullmatch(r"[0-9a-f]{32}", client.get("/v2", headers={"X-Request-ID": bad}).headers["x-request-id"])


def test_the_log_holds_no_values_and_no_file_names(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dermafuse.serving"):
        client.post(
            "/v1/predict?explain=true&note=secret",
            files={"image": ("jane-doe.png", png())},
            data={"age": "77", "localization": "elbow pit"},
        )
        client.get("/jane-doe")
    told = [json.loads(record.message) for record in caplog.records]
    assert [entry["route"] for entry in told] == ["/v1/predict", "unmatched"]
    assert not re.search("jane|secret|elbow|77\\b", caplog.text.replace(told[0]["request_id"], ""))


# ---------------------------------------------------------------- the Open Inference Protocol


def test_metadata_and_health_are_as_the_protocol_says(client: TestClient) -> None:
    wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
    version = client.get("/v2/models/tiny").json()["versions"][0]
    for path in ("", f"/versions/{version}"):
        told = client.get(f"/v2/models/tiny{path}").json()
        assert [entry["name"] for entry in told["inputs"]] == ["image", "age", "sex", "localization"]
        assert client.get(f"/v2/models/tiny{path}/ready").status_code == 200
        url = f"/v2/models/tiny{path}/infer"
        assert client.post(url, json={"inputs": [image_input(png())]}).status_code == 200
    for path in ("other", "tiny/versions/9"):
        answer = client.get(f"/v2/models/{path}")
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)


def test_the_id_is_echoed_and_outputs_can_be_chosen(client: TestClient) -> None:
    answer = infer(client, [image_input(png())], id="42", outputs=[{"name": "label"}]).json()
    assert answer["id"] == "42"
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert "id" not in infer(client, [image_input(png())]).json()


def test_binary_outputs_hold_what_json_holds(client: TestClient) -> None:
    tail = lengthy(png(), png(1))
    entry = {"name": "image", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(tail)}}
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("label", "out_of_distribution")]
    answer = binary_infer(client, {"inputs": [entry], "outputs": [*outputs, {"name": "ood_score"}]}, tail)
    plain = {output["name"]: output for output in infer(client, [image_input(png(), png(1))]).json()["outputs"]}
    split = int(answer.headers["Inference-Header-Content-Length"])
    labels = lengthy(*(label.encode() for label in plain["label"]["data"]))
    assert answer.content[split:] == labels + bytes(plain["out_of_distribution"]["data"])
    assert json.loads(answer.content[:split])["outputs"][2]["data"] == plain["ood_score"]["data"]


def test_pixels_are_taken_as_they_are(client: TestClient, predictor: Predictor) -> None:
    pixels = tiny_image(3)
    entry = {"name": "image", "datatype": "UINT8", "shape": [1, *pixels.shape], "data": pixels[None].tolist()}
    answer = infer(client, [entry]).json()
    assert answer["outputs"][0]["data"] == list(predictor.predict(pixels).probabilities.values())


def test_a_missing_value_is_not_a_number_or_an_empty_text(client: TestClient, predictor: Predictor) -> None:
    tail = lengthy(png()) + np.array([np.nan], "<f4").tobytes() + lengthy(b"")
    sizes = (len(tail) - 8, 4, 4)
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "parameters": {"binary_data_size": size}}
        for name, kind, size in zip(("image", "age", "sex"), ("BYTES", "FP32", "BYTES"), sizes, strict=True)
    ]
    answer = binary_infer(client, {"inputs": inputs}, tail).json()
    assert answer["outputs"][0]["data"] == list(predictor.predict(png()).probabilities.values())


IMAGE = image_input(png())
HOSTILE: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"[" * 100_000,
    {},
    {"inputs": []},
    {"inputs": {}},
    {"inputs": [1]},
    {"inputs": [{"name": "image"}]},
    {"inputs": [{**IMAGE, "datatype": "COMPLEX"}]},
    {"inputs": [{**IMAGE, "datatype": ["BYTES"]}]},
    {"inputs": [{**IMAGE, "shape": [2]}]},
    {"inputs": [{**IMAGE, "shape": [-1]}]},
    {"inputs": [{**IMAGE, "shape": [True]}]},
    {"inputs": [{**IMAGE, "shape": [2**40, 2**40]}]},
    {"inputs": [{**IMAGE, "shape": []}]},
    {"inputs": [{**IMAGE, "data": ["not base64!"]}]},
    {"inputs": [{**IMAGE, "data": [7]}]},
    {"inputs": [{**IMAGE, "data": [["a"], "b"]}]},
    {"inputs": [{**IMAGE, "data": [[[[[[[[[["a"]]]]]]]]]]}]},
    {"inputs": [{**IMAGE, "parameters": {"binary_data_size": 10}}]},
    {"inputs": [{**IMAGE, "parameters": 5}]},
    {"inputs": [IMAGE, IMAGE]},
    {"inputs": [IMAGE], "id": 5},
    {"inputs": [IMAGE], "outputs": [{"name": "nothing"}]},
    {"inputs": [IMAGE], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
    {"inputs": [IMAGE], "parameters": {"views": 3}},
    {"inputs": [IMAGE], "parameters": {"views": [1]}},
    {"inputs": [IMAGE, {"name": "age", "datatype": "FP64", "shape": [2], "data": [1, 2]}]},
    {"inputs": [IMAGE, {"name": "age", "datatype": "UINT8", "shape": [1], "data": [300]}]},
    {"inputs": [IMAGE, {"name": "age", "datatype": "INT64", "shape": [1], "data": [10**30]}]},
    {"inputs": [IMAGE, {"name": "age", "datatype": "FP64", "shape": [1], "data": [10**400]}]},
    {"inputs": [IMAGE, {"name": "age", "datatype": "FP64", "shape": [1], "data": ["5"]}]},
    {"inputs": [IMAGE, {"name": "other", "datatype": "FP64", "shape": [1], "data": [5]}]},
    {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 0, 5, 3], "data": []}]},
    {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}]},
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_request_that_the_protocol_does_not_know_is_an_error_with_its_own_form(
    client: TestClient, content: Any
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = client.post("/v2/models/tiny/infer", content=body)
    assert answer.status_code in (400, 413, 415, 422)
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "³", "1" * 50, ""])
def test_a_header_length_outside_the_body_is_refused(client: TestClient, length: str) -> None:
    headers = [(b"Inference-Header-Content-Length", length.encode())]
    answer = client.post("/v2/models/tiny/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400


def test_lengths_of_elements_beyond_the_body_are_refused(client: TestClient) -> None:
    for tail in (b"\xff\xff\xff\xff", b"\x01", lengthy(b"a", b"b"), b"\xff\xff\xff\x7fabc", lengthy(png()) + b"more"):
        size = len(tail) - 4 if tail.endswith(b"more") else len(tail)
        entry = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        assert binary_infer(client, {"inputs": [entry]}, tail).status_code == 400


# ---------------------------------------------------------------- operations


def test_metrics_are_prometheus_text_with_opentelemetry_names(client: TestClient) -> None:
    client.post("/v1/predict", files={"image": png()})
    text = client.get("/metrics").text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"\\]*",?)*\})? [0-9.e+-]+', line), line
    told = 'http_request_method="POST",http_route="/v1/predict",http_response_status_code="200"'
    buckets = [int(line.split()[-1]) for line in text.splitlines() if f"_bucket{{{told}" in line]
    assert buckets == sorted(buckets)
    assert buckets[-1] >= 1
    count = re.search(rf"_count\{{{re.escape(told)}\}} (\d+)", text)
    assert count is not None
    assert int(count[1]) == buckets[-1]


def test_it_is_ready_after_the_first_prediction_and_not_while_it_ends(predictor: Predictor) -> None:
    serving, made = client_of(predictor)
    with made as client:
        wait_until(lambda: serving.warm)
        assert client.get("/v2/health/ready").status_code == 200
        serving.warm = False
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        serving.warm, serving.draining = True, True
        assert client.get("/v2/health/ready").status_code == 503
        assert client.post("/v1/predict", files={"image": png()}).status_code == 200


def test_nothing_connects_anywhere_and_no_image_touches_a_disk(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile", refuse)
    large = png(0, height=1500, width=1500) + b"\0" * 3_000_000
    serving, made = client_of(predictor)
    with made as client:
        assert client.post("/v1/predict?explain=true", files={"image": large}).status_code == 200
        assert client.post("/v1/predict:batch", files={"image": large}).status_code == 200
    assert serving.guard.inner._native_telemetry.enabled() is False  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_the_description_is_complete_and_its_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    assert told["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    fields = told["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(fields["properties"]) == {"image", "age", "sex", "localization"}
    assert {"400", "401", "413", "415", "422", "503"} <= set(told["paths"]["/v1/predict"]["post"]["responses"])


def test_samples_are_generated_and_can_be_predicted(client: TestClient) -> None:
    samples = client.get("/v1/samples").json()["samples"]
    content = client.get(f"/v1/samples/{samples[0]['number']}").content
    assert content == client.get("/v1/samples/0").content
    assert b"SYNTHETIC" in content
    assert client.post("/v1/predict", files={"image": content}).status_code == 200
    assert client.get("/v1/samples/99").status_code == 404
    assert client.get("/v1/samples/x").status_code == 422


def test_limits_that_let_nothing_through_are_refused() -> None:
    for limits in ({"workers": 0}, {"queue": -1}, {"upload_bytes": 0}, {"seconds": 0}, {"seconds": float("nan")}):
        with pytest.raises(Exception, match="must be"):
            Limits(**limits)  # type: ignore[arg-type]


def test_bodies_together_have_a_limit(predictor: Predictor) -> None:
    serving, made = client_of(predictor)
    with made:
        serving.pool.hold(serving.pool.limits.held_bytes)
        with pytest.raises(Problem) as caught:
            serving.pool.hold(1)
    assert caught.value.status == 503
