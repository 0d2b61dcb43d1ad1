"""The proof that an exported model gives the bundle's answers: both are asked about the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov

from dermafuse.data.images import load_image
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import ConfigError, DataError, ImageError, OutputError
from dermafuse.exporters.openvino import PROBABILITIES
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.engine import Engine
from dermafuse.runtime.network import IMAGE_INPUT, META_INPUT
from dermafuse.runtime.prediction import Query
from dermafuse.runtime.predictor import Predictor
from dermafuse.temporaries import scratch_folder

Floats = npt.NDArray[np.float64]

#: Images that every export is verified on.
COUNT: Final = 64

#: Largest difference of a probability that counts as the same answer.
TOLERANCE: Final = 1e-3

#: Rows that ONNX Runtime is given at a time.
_BATCH: Final = 16

#: From images uint8 (n, s, s, 3) and metadata float32 (n, w) to probabilities (n, k).
Answer = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Sample:
    """Images to verify on, and what the bundle says of them.

    Attributes:
        images: uint8 (n, s, s, 3).
        meta: float32 (n, w), w = 0 for a model without metadata.
        reference: float64 (n, k), the predictor's probabilities in f32, from files and records to the end.
        source: where the images come from, in words.
    """

    images: npt.NDArray[np.uint8]
    meta: npt.NDArray[np.float32]
    reference: Floats
    source: str


def take_sample(bundle: Bundle, data: Path | None, *, count: int = COUNT) -> Sample:
    """Return ``count`` readable images of a data set with the bundle's answers; the same ones each time.

    Args:
        bundle: the model.
        data: a data set in a known layout, labelled or not; ``None`` generates one.
        count: how many; fewer where there are not so many.

    Raises:
        DataError: no data set, or no readable image in it.
    """
    with _folder(data) as folder:
        records = read_dataset(folder, labelled=False)
        chosen, images, queries = [], [], []
        for row in np.random.default_rng(0).permutation(len(records)):
            record = records.table.iloc[int(row)]
            try:
                images.append(load_image(record["path"], bundle.image_size))
            except ImageError:
                continue
            fields = {name: record[name] for name in bundle.encoder.fields if name in records.table.columns}
            queries.append(Query(Path(record["path"]), fields))
            chosen.append(row)
            if len(chosen) == count:
                break
        if not chosen:
            raise DataError(f"{folder} holds no readable image to verify the export on; check the data set.")
        reference = _predict(bundle, queries)
    kind = "generated" if data is None or records.synthetic else "real"
    source = f"{len(chosen)} {kind} images" + ("" if data is None else f" of {data}")
    return Sample(
        images=np.stack(images),
        meta=bundle.encoder.transform(records.table.iloc[np.array(chosen)]),
        reference=reference,
        source=source,
    )


def verify(sample: Sample, answer: Answer, *, tolerance: float | None = TOLERANCE, what: str) -> dict[str, Any]:
    """Compare an exported model with the bundle.

    Args:
        sample: from `take_sample`.
        answer: the exported model, read back from what was written.
        tolerance: largest difference of a probability; ``None`` measures only.
        what: the export, for the error.

    Returns:
        ``{"images", "source", "largest_difference", "tolerance", "same_class"}``; the last is the share of
        images with the same most probable class.

    Raises:
        OutputError: beyond the tolerance, of another shape, or not finite.
    """
    found = np.asarray(answer(sample.images, sample.meta), dtype=np.float64)
    reference = sample.reference
    if found.shape != reference.shape or not np.isfinite(found).all():
        raise OutputError(f"{what} was not written: it gives no probabilities on {sample.source}; please report this.")
    difference = float(np.abs(found - reference).max())
    if tolerance is not None and difference > tolerance:
        raise OutputError(
            f"{what} was not written: its probabilities differ from the model's by up to {difference:.2g} on "
            f"{sample.source} ({tolerance:g} is allowed); please report this."
        )
    same = float((found.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return {
        "images": len(reference),
        "source": sample.source,
        "largest_difference": difference,
        "tolerance": tolerance,
        "same_class": same,
    }


def openvino_answer(model: ov.Model | Path) -> Answer:
    """Return the answers of a network with one output, or of its file, computed in f32, one image at a time."""
    network = ov.Core().read_model(model) if isinstance(model, Path) else model
    takes_metadata = len(network.inputs) == 2
    engine = Engine(network, precision="f32", mode="latency")

    def answer(images: npt.NDArray[np.uint8], meta: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        rows = []
        for image, vector in zip(images, meta, strict=True):
            inputs = (image[np.newaxis], vector[np.newaxis]) if takes_metadata else (image[np.newaxis],)
            rows.append(engine.infer(*inputs)[0].copy())
        return np.concatenate(rows)

    return answer


def onnx_answer(path: Path) -> Answer:
    """Return the answers of ONNX Runtime on the CPU.

    Raises:
        ConfigError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError('Verifying ONNX needs onnxruntime; run: pip install "dermafuse[export]".') from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def answer(images: npt.NDArray[np.uint8], meta: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        inputs: dict[str, npt.NDArray[Any]] = {IMAGE_INPUT: images, META_INPUT: meta}
        rows: list[npt.NDArray[Any]] = []
        for start in range(0, len(images), _BATCH):
            rows += session.run([PROBABILITIES], {name: inputs[name][start : start + _BATCH] for name in names})
        return np.concatenate(rows)

    return answer


def _predict(bundle: Bundle, queries: list[Query]) -> Floats:
    predictor = Predictor(bundle, precision="f32", mode="throughput")
    rows = []
    for outcome in predictor.stream(queries):
        if isinstance(outcome, Exception):
            raise outcome
        rows.append([outcome.probabilities[code] for code in bundle.classes])
    return np.array(rows)


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    from dermafuse.data.synthetic.dataset import write_synthetic

    with scratch_folder() as scratch:
        yield write_synthetic(scratch / "generated", lesions=COUNT, seed=0, size=(200, 150))
