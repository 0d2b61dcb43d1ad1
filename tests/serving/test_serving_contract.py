"""What others' tools make of the API: Schemathesis of its description, Triton's client of its protocol."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason='the server is not tested: pip install "dermafuse[serve]"')

from at_once import AtOnce
from hypothesis import HealthCheck, Phase, given, settings
from test_serving_process import Running, running

from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import load
from dermafuse.serving.app import make_app
from dermafuse.serving.limits import Access, Limits
from dermafuse.serving.model import ServedModel
from tiny_bundle import tiny_bundle, tiny_image


def png(seed: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(tiny_image(seed)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(tiny_bundle(tmp_path_factory.mktemp("contract") / "tiny"))


@pytest.fixture(scope="module")
def server(predictor: Predictor) -> Iterator[Running]:
    with running(predictor.bundle.path, "--workers", "1") as made:
        yield made


def test_schemathesis_finds_no_server_error_and_no_answer_that_is_not_described(predictor: Predictor) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="THE DESCRIPTION IS NOT TESTED: pip install schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    limits = Limits()
    serving = make_app(AtOnce(ServedModel(predictor, limits)), limits, Access(hosts=frozenset({"testserver"})))
    serving.warm = True
    schema = schemathesis.openapi.from_asgi("/openapi.json", serving.guard)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    paths = []
    for found in schema.get_all_operations():
        operation = found.ok()
        paths.append(operation.path)

        @settings(
            max_examples=5,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def asks(case: Any) -> None:
            case.call_and_validate(checks=checks)

        asks()
    assert {"/v1/predict", "/v1/similar", "/v2/models/{name}/infer", "/metrics"} <= set(paths)


@pytest.mark.parametrize("count", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_the_client_of_triton_with_its_defaults_gets_the_probabilities_of_python(
    server: Running, predictor: Predictor, count: int
) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="NOT TESTED: pip install 'tritonclient[http]'")
    images = [png(seed) for seed in range(count)]
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.get_server_metadata()["parameters"]["digest"] == predictor.bundle.digest
    assert client.get_model_metadata("tiny")["outputs"][0]["name"] == "probabilities"
    entries = [
        triton.InferInput("image", [count], "BYTES"),
        triton.InferInput("age", [count], "FP64"),
        triton.InferInput("localization", [count], "BYTES"),
    ]
    entries[0].set_data_from_numpy(np.array(images, dtype=object))
    entries[1].set_data_from_numpy(np.full(count, 50.0))
    entries[2].set_data_from_numpy(np.array([b"back"] * count, dtype=object))
    answer = client.infer("tiny", entries, request_id="7")
    said = predictor.predict(images, age=50, localization="back")
    assert answer.get_response()["id"] == "7"
    assert answer.as_numpy("probabilities").tolist() == [list(one.probabilities.values()) for one in said]
    assert [label.decode() for label in answer.as_numpy("label")] == [one.label for one in said]
    with pytest.raises(Exception, match="other"):
        client.infer("other", entries)
    client.close()


@pytest.mark.parametrize("count", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_processes_give_the_probabilities_of_python_by_either_face(
    server: Running, predictor: Predictor, count: int
) -> None:
    import httpx

    images = [png(seed) for seed in range(count)]
    said = [predictor.predict(image, age=61, sex="female").probabilities for image in images]
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        values = {"age": "61", "sex": "female"}
        answers = [client.post("/v1/predict", files={"image": image}, data=values).json() for image in images]
        batch = client.post("/v1/predict:batch", files=[("image", image) for image in images], data=values).json()
    assert [answer["probabilities"] for answer in answers] == said
    assert [answer["probabilities"] for answer in batch["predictions"]] == said
