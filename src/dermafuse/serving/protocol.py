"""The Open Inference Protocol v2: what Triton, KServe, Seldon and OpenVINO Model Server speak."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

import dermafuse
from dermafuse.runtime.prediction import ImageSource, Prediction
from dermafuse.serving.body import held_body
from dermafuse.serving.limits import Problem
from dermafuse.serving.metrics import Metrics
from dermafuse.serving.model import ServedModel, given_values
from dermafuse.serving.pool import Pool
from dermafuse.serving.schemas import INFER, protocol_errors
from dermafuse.serving.tensors import InferRequest, Tensor, read_request, write_answer

_JSON: Final = {"content": {"application/json": {"schema": INFER}}}


class Protocol:
    """Handlers of the Open Inference Protocol.

    Args:
        model: that answers.
        pool: in whose threads.
        metrics: that count.
        ready: whether the server takes requests.
    """

    def __init__(self, model: ServedModel, pool: Pool, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self.model = model
        self.pool = pool
        self.metrics = metrics
        self.ready = ready

    def router(self) -> Any:
        """Return the routes."""
        routes = APIRouter(tags=["Open Inference Protocol v2"])

        def add(path: str, handler: Any, *statuses: int) -> None:
            routes.add_api_route(path, handler, methods=["GET"], responses=protocol_errors(400, *statuses))

        add("/v2", self.server, 401)
        add("/v2/health/live", self.live)
        add("/v2/health/ready", self.server_ready, 503)
        for version in ("", "/versions/{version}"):
            model = f"/v2/models/{{name}}{version}"
            add(model, self.metadata, 401, 404)
            add(f"{model}/ready", self.model_ready, 401, 404, 503)
            routes.add_api_route(
                f"{model}/infer",
                self.infer,
                methods=["POST"],
                responses=protocol_errors(400, 401, 404, 408, 413, 415, 422, 503),
                openapi_extra={"requestBody": {"required": True, **_JSON}},
            )
        return routes

    async def server(self) -> Any:
        """Return what this server is."""
        return JSONResponse(
            {"name": "dermafuse", "version": dermafuse.__version__, "extensions": ["binary_tensor_data"]}
        )

    async def live(self) -> Any:
        """Say that the process answers."""
        return JSONResponse({"live": True})

    async def server_ready(self) -> Any:
        """Say whether requests are taken: not before the first prediction, and not when the server ends."""
        if not self.ready():
            raise Problem(503, "The server is not ready.", retry_after=1)
        return JSONResponse({"ready": True})

    async def model_ready(self, name: str, version: str | None = None) -> Any:
        """Say whether the model answers."""
        self._check(name, version)
        if not self.ready():
            raise Problem(503, "The model is not ready.", retry_after=1)
        return JSONResponse({"name": self.model.name, "ready": True})

    async def metadata(self, name: str, version: str | None = None) -> Any:
        """Return the model's inputs and outputs."""
        self._check(name, version)
        k = len(self.model.predictor.classes)
        inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        for field in self.model.fields():
            datatype = "FP64" if field["kind"] == "number" else "BYTES"
            inputs.append({"name": field["name"], "datatype": datatype, "shape": [-1]})
        outputs = [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": [-1, *([k] if tensor.name == "probabilities" else [])],
            }
            for tensor in self._tensors([])
        ]
        return JSONResponse(
            {
                "name": self.model.name,
                "versions": [self.model.version],
                "platform": "dermafuse_openvino",
                "inputs": inputs,
                "outputs": outputs,
                "parameters": {"digest": self.model.facts["digest"], "classes": list(self.model.predictor.classes)},
            }
        )

    async def infer(self, request: Request, name: str, version: str | None = None) -> Any:
        """Predict a batch of images: encoded files as BYTES, or pixels as UINT8 (n, height, width, 3)."""
        self._check(name, version)
        started: float = request.state.started
        deadline = started + self.pool.limits.seconds
        length = request.headers.get("inference-header-content-length")
        async with held_body(request, self.pool, deadline) as body:
            content, headers, said = await self.pool.run(lambda: self._infer(body, length, deadline), deadline)
        for prediction in said:
            self.metrics.prediction(prediction.out_of_distribution)
        return Response(content, headers=headers)

    def _check(self, name: str, version: str | None) -> None:
        if name != self.model.name or version not in (None, self.model.version):
            raise Problem(404, f"There is the model '{self.model.name}', version '{self.model.version}', and no other.")

    def _infer(
        self, body: bytes, length: str | None, deadline: float
    ) -> tuple[bytes, dict[str, str], list[Prediction]]:
        asked = read_request(body, length)
        views = asked.parameters.get("views", 1)
        if views not in (1, 8) or isinstance(views, bool):
            raise Problem(400, "The parameter 'views' is 1 or 8.")
        images = _images(asked.inputs)
        if not 1 <= len(images) <= self.model.limits.batch:
            raise Problem(400, f"'image' has {len(images)} images; 1 to {self.model.limits.batch} are taken.")
        columns = {name: _column(tensor, len(images)) for name, tensor in asked.inputs.items() if name != "image"}
        said: list[Prediction] = []
        for index, image in enumerate(images):
            if time.monotonic() > deadline:
                raise Problem(503, "There was no time left; send fewer images at once.", retry_after=2)
            record = given_values({name: column[index] for name, column in columns.items()})
            said.append(self.model.predict(image, record, int(views)))
        head = {
            "model_name": self.model.name,
            "model_version": self.model.version,
            "parameters": {"digest": self.model.facts["digest"]},
            **({} if asked.id is None else {"id": asked.id}),
        }
        content, headers = write_answer(head, self._chosen(asked, said))
        return content, headers, said

    def _chosen(self, asked: InferRequest, said: list[Prediction]) -> list[tuple[Tensor, bool]]:
        there = {tensor.name: tensor for tensor in self._tensors(said)}
        if asked.outputs is None:
            return [(tensor, asked.binary) for tensor in there.values()]
        for name in asked.outputs:
            if name not in there:
                raise Problem(400, f"An output is not one of {', '.join(there)}.")
        return [(there[name], binary) for name, binary in asked.outputs.items()]

    def _tensors(self, said: list[Prediction]) -> list[Tensor]:
        """Return all outputs; the malignant probability and the flag only where the model has them."""
        bundle, n = self.model.predictor.bundle, len(said)
        rows = [[one.probabilities[code] for code in bundle.classes] for one in said]
        tensors = [
            Tensor("probabilities", "FP64", (n, len(bundle.classes)), np.array(rows, np.float64)),
            Tensor("label", "BYTES", (n,), [one.label.encode() for one in said]),
        ]
        if bundle.malignant:
            chances = np.array([one.malignant_probability for one in said], np.float64)
            tensors.append(Tensor("malignant_probability", "FP64", (n,), chances))
        if bundle.prediction_set is not None:
            sets = ["|".join(one.prediction_set or ()).encode() for one in said]
            tensors.append(Tensor("prediction_set", "BYTES", (n,), sets))
        if bundle.ood is not None:
            flags = np.array([one.out_of_distribution for one in said], np.bool_)
            scores = np.array([one.ood_score for one in said], np.float64)
            tensors += [
                Tensor("out_of_distribution", "BOOL", (n,), flags),
                Tensor("ood_score", "FP64", (n,), scores),
            ]
        return tensors


def _images(inputs: Mapping[str, Tensor]) -> list[ImageSource]:
    tensor = inputs.get("image")
    if tensor is None:
        raise Problem(400, "There is no input 'image'.")
    if isinstance(tensor.values, list):
        if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise Problem(400, "'image' as BYTES has the shape [n] or [n, 1].")
        return list(tensor.values)
    if tensor.datatype != "UINT8" or len(tensor.shape) != 4 or tensor.shape[3] != 3:
        raise Problem(400, "'image' is BYTES [n], or UINT8 [n, height, width, 3].")
    return list(tensor.values)


def _column(tensor: Tensor, count: int) -> list[object]:
    """Return the values of one metadata field, one an image; not-a-number and an empty text are no value."""
    if tensor.shape not in ((count,), (count, 1)):
        raise Problem(
            400, f"A metadata input has the shape {list(tensor.shape)}; one value for each image is expected."
        )
    if isinstance(tensor.values, list):
        try:
            return [value.decode() for value in tensor.values]
        except UnicodeDecodeError as error:
            raise Problem(400, "A text of a metadata input is not UTF-8.") from error
    return [None if isinstance(value, float) and value != value else value for value in tensor.values.ravel().tolist()]
