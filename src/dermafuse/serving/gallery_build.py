"""Making the gallery: the labelled images of a RUN's data, or of a data set, embedded once and kept."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import DataError, ImageError
from dermafuse.files import cache_folder, write_atomic
from dermafuse.progress import Reporter
from dermafuse.runs import METRICS, RunFolder
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.engine import Precision
from dermafuse.serving.gallery import Embedder, read

#: Of the file that keeps the embeddings.
_VERSION: Final = 1


def build(source: Path, bundle: Bundle, precision: Precision, reporter: Reporter) -> Path:
    """Embed the labelled images of a RUN's data or of a data set, and return the file that keeps the result.

    It lies in the cache folder and is used again while model and image files are the same.

    Raises:
        DataError: there are no labelled images, or none can be read.
    """
    records = _records(source)
    paths = [str(path) for path in records.table["path"]]
    embedder = Embedder(bundle, precision, many=True)
    file = _file(bundle, embedder.engine.precision, records, paths)
    if _usable(file):
        return file
    vectors: dict[int, npt.NDArray[np.float32]] = {}

    def work(row: int) -> None:
        try:
            vectors[row] = embedder(paths[row])
        except ImageError:
            return

    with reporter.bar("Gallery", len(paths), "images") as advance:
        embedder.engine.map_threads(range(len(paths)), work, on_done=advance)
    if not vectors:
        raise DataError(f"None of the {len(paths):,} images of {source} can be read; check --gallery.")
    if len(vectors) < len(paths):
        reporter.warn(f"{len(paths) - len(vectors):,} images of the gallery cannot be read and are left out.")
    rows = sorted(vectors)
    table = records.table
    entries = [
        [str(table["image_id"][row]), str(table["label"][row]), records.labels.names[table["label"][row]], paths[row]]
        for row in rows
    ]
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(entries).encode(), np.uint8)
    np.savez(content, vectors=np.stack([vectors[row] for row in rows]), entries=text)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, content.getvalue())
    return file


def _usable(file: Path) -> bool:
    try:
        read(file)
    except DataError:
        return False
    return True


def _records(source: Path) -> Records:
    folder = source.expanduser()
    if (folder / METRICS).is_file():
        run = RunFolder.open(folder)
        if run.data is None:
            raise DataError(f"{source} does not say which data it was made with; name the data folder.")
        folder = Path(run.data)
    records = read_dataset(folder, labelled=False)
    records = records.subset(records.table["label"].notna())
    if not len(records):
        raise DataError(f"{source} holds no image with a diagnosis; name a data set with labels.")
    return records


def _file(bundle: Bundle, precision: str, records: Records, paths: list[str]) -> Path:
    key = hashlib.sha256(f"{_VERSION} {bundle.digest} {precision}".encode())
    for path, label in zip(paths, records.table["label"], strict=True):
        facts = Path(path).stat()
        key.update(f"\n{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0{label}".encode(errors="surrogateescape"))
    return cache_folder() / "gallery" / f"{key.hexdigest()[:32]}.npz"
