"""What the OpenAPI description says of forms and errors."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from dermafuse.serving.limits import MEDIA_TYPE

_IMAGE: Final = {"type": "string", "format": "binary", "description": "JPEG, PNG, BMP, TIFF or WebP"}

PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
INFER: Final = {
    "type": "object",
    "description": "Open Inference Protocol v2; 'image' is BYTES (files, in JSON as base64) or UINT8 [n, h, w, 3]",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 256},
        "parameters": {"type": "object", "description": "views (1 or 8), binary_data_output"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
                    "data": {"type": "array"},
                },
            },
        },
        "outputs": {"type": "array"},
    },
}
PROTOCOL_ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": PROBLEM}}}
        for status in statuses
    }


def protocol_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route of the Open Inference Protocol."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": PROTOCOL_ERROR}}}
        for status in statuses
    }


def one_form(fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of ``/v1/predict``: an image and the model's fields."""
    properties: dict[str, Any] = {"image": _IMAGE}
    for field in fields:
        known = f"One of {', '.join(field['choices'])}." if field["kind"] == "choice" else field.get("unit", "")
        properties[field["name"]] = {"type": "string", "description": known}
    return _form(properties)


def batch_form(most: int) -> dict[str, Any]:
    """Return the body of ``/v1/predict:batch``: images, and a JSON list with the fields of each."""
    return _form(
        {
            "image": {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": most},
            "records": {"type": "string", "description": "JSON list: one object of fields for each image"},
        }
    )


def _form(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": ["image"], "properties": properties, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
