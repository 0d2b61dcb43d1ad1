"""Similar lesions: the nearest neighbours of an image, by embedding, among a user's own labelled images."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermafuse.data.image_formats import Pixels
from dermafuse.data.images import load_image, read_pixels
from dermafuse.errors import DataError, DermafuseError
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.engine import Engine, Precision
from dermafuse.runtime.network import EMBEDDING, META_INPUT, check_network, inference_model
from dermafuse.runtime.prediction import ImageSource

_THUMBNAIL: Final = 192


class Embedder:
    """The first network of a bundle, compiled to embed images."""

    def __init__(self, bundle: Bundle, precision: Precision, *, threads: int = 0, many: bool = False) -> None:
        model = bundle.models[0]
        network = check_network(model, len(bundle.classes), bundle.encoder.width, str(bundle.path))
        self.engine = Engine(
            inference_model(model, (EMBEDDING,)),
            precision=precision,
            mode="throughput" if many else "latency",
            threads=threads,
        )
        self._size = network.image_size
        blank = np.zeros((1, bundle.encoder.width), np.float32)
        names = {name for port in model.inputs for name in port.get_names()}
        self._more = (blank,) if META_INPUT in names else ()  # the embedding is of the image alone

    def __call__(self, image: ImageSource) -> npt.NDArray[np.float32]:
        """Return the embedding of an image, scaled to length 1, float32 (d,)."""
        square: Pixels = load_image(image, self._size)
        (vector,) = self.engine.infer(square[np.newaxis], *self._more)
        length = float(np.linalg.norm(vector[0]))
        return np.asarray(vector[0] / max(length, 1e-12), np.float32)


@dataclass(frozen=True)
class Entry:
    """One labelled image of the gallery."""

    id: str
    label: str
    name: str
    path: str


class Gallery:
    """Embedded images, and the way from another image to those nearest to it.

    Attributes:
        entries: of the images, in the order of the rows.
        vectors: (n, d) float32, of length 1.
    """

    def __init__(self, entries: list[Entry], vectors: npt.NDArray[np.float32]) -> None:
        self.entries = entries
        self.vectors = vectors

    def nearest(self, vector: npt.NDArray[np.float32], count: int) -> list[dict[str, Any]]:
        """Return the nearest images: ``id``, ``label``, ``name``, ``distance`` (1 - cosine), ``thumbnail`` (data URI).

        A file that has gone since the start has no thumbnail.
        """
        distances = 1.0 - self.vectors @ vector
        rows = np.argsort(distances, kind="stable")[:count]
        return [self._told(self.entries[row], float(distances[row])) for row in rows]

    @staticmethod
    def _told(entry: Entry, distance: float) -> dict[str, Any]:
        told = {"id": entry.id, "label": entry.label, "name": entry.name, "distance": max(0.0, round(distance, 6))}
        return {**told, "thumbnail": _thumbnail(entry.path)}


def _thumbnail(path: str) -> str | None:
    try:
        picture = Image.fromarray(read_pixels(path))
    except DermafuseError:
        return None
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def read(file: Path) -> Gallery:
    """Return the gallery that `gallery_build.build` kept.

    Raises:
        DataError: the file has gone or is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            entries = [Entry(*entry) for entry in json.loads(content["entries"].tobytes())]
            return Gallery(entries, content["vectors"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"The gallery {file} cannot be read; delete it and start again.") from error
