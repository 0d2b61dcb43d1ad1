"""What somebody writes who has an exported file and none of our code: from a record to the network's vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

NOTHING = ("", "na", "n/a", "nan", "null", "none")


def metadata_vector(meta: Mapping[str, Any], record: Mapping[str, Any]) -> np.ndarray:
    """Return the vector of one record by what the file says of its input ``meta_input``."""
    place = {name: number for number, name in enumerate(meta["columns"])}
    vector = np.zeros(len(place), np.float32)
    for field in meta["encoder"]["numeric"]:
        name, text = field["name"], _text(record.get(field["name"]))
        missing = text in (*NOTHING, "unknown")
        vector[place[name]] = ((field["fill"] if missing else float(text)) - field["mean"]) / field["scale"]
        if missing and f"{name}_missing" in place:
            vector[place[f"{name}_missing"]] = 1
    for field in meta["encoder"]["categorical"]:
        name, word = field["name"], _text(record.get(field["name"]))
        word = meta["words"][name].get(word, word)
        if word in field["vocabulary"]:
            vector[place[f"{name}={word}"]] = 1
        elif "unknown" in field["vocabulary"]:
            vector[place[f"{name}=unknown"]] = 1
        elif f"{name}_missing" in place:
            vector[place[f"{name}_missing"]] = 1
    return vector


def _text(value: object) -> str:
    text = "" if value is None else " ".join(str(value).lower().replace("_", " ").split())
    return text.removesuffix(".0")  # numbers in their shortest form
