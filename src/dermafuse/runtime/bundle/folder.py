"""The model bundle: a folder that holds all that prediction needs, verified at load, with nothing executable.

::

    manifest.json        format version; hash and size of every other file; how the model came about
    model.xml, .bin      the network as OpenVINO IR (several members: model-1.xml, model-1.bin, ...)
    head.safetensors     arrays that attribution and out-of-distribution scores need
    preprocessing.json   image size, version of the preprocessing, state of the metadata encoder
    calibration.json     temperature, decision offsets, prediction sets, out-of-distribution rule
    labels.json          classes in the order of the logits, names, which are malignant, which must not be missed
    README.md            model card
    evaluation.json      optional: how the model was judged, and what it learned from (`runtime.bundle.evaluation`)

Every network takes ``image_input`` uint8 (batch, s, s, 3) and, where it uses metadata, ``meta_input`` float32
(batch, w), and gives ``logits`` float32 (batch, k), ``feature_map`` (batch, h, w, c) and ``embedding``
(batch, c); and, where the out-of-distribution rule looks at it, ``ood_features`` (batch, 2 m). The hashes show damage
and tampering with single files, not who made the bundle.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
import safetensors
import safetensors.numpy
from pydantic import JsonValue, ValidationError

import dermafuse
from dermafuse.data.images import PREPROCESSING_VERSION
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.errors import BundleError, DermafuseError, OutputError
from dermafuse.files import sync_folder, write_atomic
from dermafuse.labels import LabelSet
from dermafuse.runtime.bundle.arrays import check_ood_arrays, read_arrays
from dermafuse.runtime.bundle.evaluation import parse_evaluation
from dermafuse.runtime.bundle.files import MANIFEST, find_bundle, parse, printable, read_manifest, read_verified
from dermafuse.runtime.bundle.schema import (
    EVALUATION,
    FORMAT_VERSION,
    LICENCE,
    Calibration,
    FileEntry,
    Labels,
    Manifest,
    Member,
    OutOfDistribution,
    Part,
    PredictionSets,
    Preprocessing,
)
from dermafuse.runtime.network import check_network

__all__ = ["Bundle", "BundleContent", "OutOfDistribution", "PredictionSets", "read_bundle", "write_bundle"]

Array = np.ndarray[Any, Any]

#: YAML for a hub of models, at the top of a card.
_FRONT_MATTER: Final = re.compile(r"---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True, eq=False, kw_only=True)
class BundleContent:
    """What a bundle holds.

    Attributes:
        models: the networks, one or (an ensemble) several; their probabilities are averaged.
        head: arrays by name: ``baseline/embedding`` (c,), the mean embedding of the training images, stands
            for "no image" in attributions; ``ood/...`` for the out-of-distribution rule. With several members
            each name is preceded by ``model-1/``, ``model-2/``, ... Other names are kept as they are.
        image_size: side in pixels of the first network's input.
        encoder: of the metadata, fitted.
        labels: the classes in the order of the logits, their names, which are malignant, which must not be missed.
        temperature: T of ``softmax(logits / T)``.
        offsets: (k,) added to the log probabilities before the label is chosen, or ``None``.
        prediction_set: rule of the prediction sets, or ``None``.
        ood: rule of the out-of-distribution flag, or ``None``.
        info: plain JSON for people and reports: recipe, backbone, precision, synthetic data, random weights.
        card: the model card, Markdown.
        evaluation_json: content of ``evaluation.json`` (`evaluation.evaluation_json`), or ``None``.
        front_matter: what stands before the card for a hub of models: YAML between ``---`` lines, or ``""``.
        licence: the licence file of a model to give away, or ``None``.
    """

    models: tuple[ov.Model, ...]
    head: Mapping[str, Array]
    image_size: int
    encoder: MetadataEncoder
    labels: LabelSet
    temperature: float
    offsets: tuple[float, ...] | None
    prediction_set: PredictionSets | None
    ood: OutOfDistribution | None
    info: Mapping[str, JsonValue]
    card: str
    evaluation_json: bytes | None = None
    front_matter: str = ""
    licence: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Codes of the classes, in the order of the logits."""
        return self.labels.codes

    @property
    def names(self) -> Mapping[str, str]:
        """Code -> name for people."""
        return self.labels.names

    @property
    def malignant(self) -> frozenset[str]:
        """Codes that count as malignant."""
        return self.labels.malignant

    def member_head(self, index: int) -> dict[str, Array]:
        """Return the arrays of one member, without the prefix that tells members apart."""
        if len(self.models) == 1:
            return dict(self.head)
        prefix = f"model-{index + 1}/"
        return {name.removeprefix(prefix): array for name, array in self.head.items() if name.startswith(prefix)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Bundle(BundleContent):
    """A bundle read from a folder.

    Attributes:
        path: of the folder.
        digest: SHA-256 of the manifest, which holds the hashes of all else: identifies the model.
        version: of the dermafuse that wrote it.
    """

    path: Path
    digest: str
    version: str

    @cached_property
    def evaluation(self) -> Mapping[str, Any] | None:
        """How the model was judged and what it learned from, parsed when it is first asked for; ``None``: not said.

        The keys are those of ``metrics.json`` (``validation``: the block of the judged rows with ``ci95`` and
        ``operating_points``; ``labels``, ``data``, ``training``, ``folds``, ``announcements``, ...) and ``trained_on``:
        see `runtime.bundle.evaluation`. Bundles of earlier versions have none. Where ``info["exported_from"]`` is set,
        the figures are those of the model that was exported.

        Raises:
            BundleError: the file does not hold that.
        """
        if self.evaluation_json is None:
            return None
        return parse_evaluation(self.evaluation_json, self.path / EVALUATION)


def write_bundle(folder: Path, content: BundleContent, *, half_weights: bool = False) -> None:
    """Write a bundle into a fresh folder and read it back, so that whatever is written can be read.

    Args:
        folder: missing or empty; made where missing.
        content: what to write.
        half_weights: keep the networks' constants as float16 (half the size; computed with as float32).

    Raises:
        OutputError: the folder is not empty or cannot be written to.
        BundleError: the content is not a usable model; says why.
    """
    many = len(content.models) > 1
    stems = [f"model-{number}" if many else "model" for number in range(1, len(content.models) + 1)]
    checked = _checked_parts(content, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty; a bundle is written into a fresh folder.")
        for stem, model in zip(stems, content.models, strict=True):
            ov.save_model(model, folder / f"{stem}.xml", compress_to_fp16=half_weights)
    except (OSError, RuntimeError) as error:  # OpenVINO calls a full disk an "iostream error"
        raise OutputError(
            f"Cannot write the bundle {folder}: {printable(str(error))}; where the disk is full, make room, then "
            "run the command again (train: with --resume)."
        ) from error
    arrays = {name: np.ascontiguousarray(array) for name, array in content.head.items()}
    write_atomic(folder / "head.safetensors", safetensors.numpy.save(arrays))
    write_atomic(folder / "README.md", content.front_matter + content.card)
    for name, part in checked.items():
        write_atomic(folder / name, part.text())
    names = [f"{stem}.{suffix}" for stem in stems for suffix in ("xml", "bin")]
    if content.evaluation_json is not None:
        write_atomic(folder / EVALUATION, content.evaluation_json)
        names.append(EVALUATION)
    if content.licence is not None:
        write_atomic(folder / LICENCE, content.licence)
        names.append(LICENCE)
    files = {name: _entry(folder / name) for name in sorted([*names, "head.safetensors", "README.md", *checked])}
    try:
        manifest = Manifest(
            format="dermafuse-bundle",
            format_version=FORMAT_VERSION,
            dermafuse_version=dermafuse.__version__,
            members=[Member(model=f"{stem}.xml", weights=f"{stem}.bin") for stem in stems],
            files=files,
            info=dict(content.info),
        )
    except ValidationError as error:
        raise BundleError(f"The info of the bundle {folder} is not plain JSON: {_first(error)}.") from error
    # Last, so that a folder without a manifest is never taken for a whole bundle.
    write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    sync_folder(folder)
    _ = read_bundle(folder).evaluation


def read_bundle(path: Path | str) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: the bundle's folder, or a RUN folder that holds it as ``model/``.

    Raises:
        BundleError: a file is missing, changed, unlisted, malformed, newer than this dermafuse, or outside
            of the folder; or the parts do not fit together. The message says which and what to do.
    """
    folder = find_bundle(Path(path))
    manifest, digest = read_manifest(folder)
    contents = {
        name: read_verified(folder, name, entry)
        for name, entry in manifest.files.items()
        if not name.endswith((".xml", ".bin"))
    }
    preprocessing = parse(Preprocessing, contents["preprocessing.json"], folder / "preprocessing.json")
    calibration = parse(Calibration, contents["calibration.json"], folder / "calibration.json")
    labels = parse(Labels, contents["labels.json"], folder / "labels.json")
    if preprocessing.version != PREPROCESSING_VERSION:
        raise BundleError(
            f"{folder} was trained with preprocessing {preprocessing.version} and this dermafuse has "
            f"{PREPROCESSING_VERSION}; use the dermafuse {printable(manifest.dermafuse_version)} that wrote it."
        )
    try:
        encoder = MetadataEncoder.from_json(preprocessing.metadata)
    except (DermafuseError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise BundleError(
            f"{folder / 'preprocessing.json'} is not valid (metadata: {printable(str(error))}); copy the bundle again."
        ) from error
    try:
        card = contents["README.md"].decode()
        licence = contents[LICENCE].decode() if LICENCE in contents else None
    except UnicodeDecodeError as error:
        raise BundleError(f"A text of {folder} (README.md, {LICENCE}) is not UTF-8; copy the bundle again.") from error
    before = _FRONT_MATTER.match(card)
    models = tuple(
        _read_network(
            read_verified(folder, member.model, manifest.files[member.model]),
            read_verified(folder, member.weights, manifest.files[member.weights]),
            folder / member.model,
        )
        for member in manifest.members
    )
    bundle = Bundle(
        models=models,
        head=read_arrays(contents["head.safetensors"], folder / "head.safetensors"),
        image_size=preprocessing.image_size,
        encoder=encoder,
        labels=labels.label_set(),
        temperature=calibration.temperature,
        offsets=None if calibration.offsets is None else tuple(calibration.offsets),
        prediction_set=calibration.prediction_set,
        ood=calibration.out_of_distribution,
        info=manifest.info,
        card=card[before.end() :] if before else card,
        front_matter=before[0] if before else "",
        licence=licence,
        evaluation_json=contents.get(EVALUATION),
        path=folder,
        digest=digest,
        version=manifest.dermafuse_version,
    )
    _check_fit(bundle, folder)
    return bundle


def _checked_parts(content: BundleContent, folder: Path) -> dict[str, Part]:
    """Return the JSON files of ``content`` as checked models; refuse content that does not fit together."""
    try:
        parts: dict[str, Part] = {
            "preprocessing.json": Preprocessing(
                image_size=content.image_size,
                version=PREPROCESSING_VERSION,
                metadata=content.encoder.to_json(),
            ),
            "calibration.json": Calibration(
                temperature=float(content.temperature),
                offsets=None if content.offsets is None else [float(value) for value in content.offsets],
                prediction_set=content.prediction_set,
                out_of_distribution=content.ood,
            ),
            "labels.json": Labels.of(content.labels),
        }
    except ValidationError as error:
        raise BundleError(f"The bundle {folder} cannot be written: {_first(error)}.") from error
    _check_fit(content, folder)
    return parts


def _check_fit(content: BundleContent, folder: Path) -> None:
    """Refuse parts that contradict each other."""
    k = len(content.classes)
    lists: Mapping[str, Sequence[float] | None] = {
        "offsets": content.offsets,
        "minimum_probability": None if content.prediction_set is None else content.prediction_set.minimum_probability,
    }
    for name, values in lists.items():
        if values is not None and len(values) != k:
            raise BundleError(f"{folder}: '{name}' has {len(values)} values for {k} classes; train the model again.")
    if not content.models:
        raise BundleError(f"{folder}: a bundle needs at least one network.")
    sizes = []
    for index, model in enumerate(content.models):
        name = f"network {index + 1} of {len(content.models)}"
        network = check_network(model, k, content.encoder.width, f"{folder}: {name}")
        sizes.append(network.image_size)
        head = content.member_head(index)
        baseline = head.get("baseline/embedding")
        if baseline is not None and baseline.shape != (network.channels,):
            raise BundleError(
                f"{folder}: baseline/embedding of {name} has shape {baseline.shape}, expected ({network.channels},)."
            )
        if content.ood is not None:
            check_ood_arrays(content.ood, head, network.ood_width, f"{folder}: head.safetensors of {name}")
    if sizes[0] != content.image_size:
        raise BundleError(f"{folder}: image_size is {content.image_size}, but the network takes {sizes[0]} pixels.")


def _read_network(xml: bytes, weights: bytes, path: Path) -> ov.Model:
    try:
        return ov.Core().read_model(model=xml, weights=weights)
    except Exception as error:  # whatever the parser makes of a foreign file
        said = str(error).strip().splitlines()
        reason = printable(said[-1] if said else type(error).__name__)
        raise BundleError(f"{path} is not a network that OpenVINO reads ({reason}); copy the bundle again.") from error


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as stream:
        return FileEntry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}")
