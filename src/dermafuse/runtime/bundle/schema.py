"""The JSON files of a bundle, field by field: anything unknown, infinite, oversized or mistyped is refused."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from dermafuse.labels import LabelSet

#: Raised when a bundle written from now on could be misread by an older dermafuse.
FORMAT_VERSION: Final = 1

MAX_MEMBERS: Final = 64
MAX_CLASSES: Final = 1000

#: Files that every bundle holds besides ``manifest.json`` and those of its members.
FIXED_FILES: Final = ("README.md", "calibration.json", "head.safetensors", "labels.json", "preprocessing.json")

#: The file that a bundle may hold besides: how it was judged (`runtime.bundle.evaluation`).
EVALUATION: Final = "evaluation.json"

#: The licence of a model to give away; a bundle may hold it.
LICENCE: Final = "LICENSE"

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_DEPTH = 32


def _plain_name(name: str) -> str:
    """Bundles are flat: a name with a separator or a leading dot could reach outside of the folder."""
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain file name inside the bundle")
    return name


def _plain_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    pending: list[tuple[Any, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(item, dict | list):
            pending += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]
    try:
        json.dumps(value, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError("holds NaN or infinity, which are not JSON") from error
    return value


def _known_info(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """What is read from ``info`` must be what its readers expect; other keys are for people."""
    said = value.get("announcements", [])
    if not isinstance(said, list) or len(said) > 100 or not all(isinstance(text, str) for text in said):
        raise ValueError("'announcements' is not a list of at most 100 texts")
    for key in ("recipe", "backbone", "weights", "precision", "fusion", "exported_from"):
        if not isinstance(value.get(key, ""), str):
            raise ValueError(f"'{key}' is not a text")
    return value


FileName = Annotated[str, AfterValidator(_plain_name)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
PlainJson = Annotated[dict[str, JsonValue], AfterValidator(_plain_json)]


class Part(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def text(self) -> str:
        """Return the content of the file."""
        return self.model_dump_json(indent=2) + "\n"


class FileEntry(Part):
    """What a file of the bundle must be."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, lt=2**40)]


class Member(Part):
    """The two files of one network (OpenVINO IR)."""

    model: FileName
    weights: FileName


class Manifest(Part):
    """``manifest.json``: what the bundle consists of.

    Attributes:
        format: tells a bundle from other folders that hold a manifest.
        format_version: of the layout of the folder.
        dermafuse_version: that wrote it.
        members: the networks; several are an ensemble.
        files: every other file of the folder with its hash and size.
        info: how the model came about (recipe, backbone, precision, announcements), for people.
    """

    format: Literal["dermafuse-bundle"]
    format_version: Annotated[int, Field(ge=1)]
    dermafuse_version: Text
    members: Annotated[list[Member], Field(min_length=1, max_length=MAX_MEMBERS)]
    files: Annotated[dict[FileName, FileEntry], Field(max_length=2 * MAX_MEMBERS + 16)]
    info: Annotated[PlainJson, AfterValidator(_known_info)]

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        names = [name for member in self.members for name in (member.model, member.weights)]
        if len(set(names)) < len(names):
            raise ValueError("two members share a file")
        expected = {*names, *FIXED_FILES}
        if len(expected) < len(names) + len(FIXED_FILES) or {EVALUATION, LICENCE} & set(names):
            raise ValueError("a member takes the name of another file of the bundle")
        for name in sorted(expected - self.files.keys()):
            raise ValueError(f"'{name}' is not listed under files")
        for name in sorted(self.files.keys() - expected - {EVALUATION, LICENCE}):
            raise ValueError(f"'{name}' is listed under files but has no role in a bundle")
        return self


class Preprocessing(Part):
    """``preprocessing.json``: from an image and a record to the network's inputs.

    Attributes:
        image_size: side in pixels of the (first) network's input.
        version: ``dermafuse.data.images.PREPROCESSING_VERSION`` that the model was trained with.
        metadata: state of the fitted ``MetadataEncoder``.
    """

    image_size: Annotated[int, Field(ge=1, le=4096)]
    version: Annotated[int, Field(ge=1)]
    metadata: PlainJson


Probability = Annotated[float, Field(ge=0, le=1)]

#: Of a log probability: fitted ones are at most minus the log of a class's share.
Offset = Annotated[float, Field(ge=-50, le=50)]


class PredictionSets(Part):
    """Class-conditional conformal prediction sets: a class is in the set where its probability reaches its minimum.

    Source: Sadinle, Lei & Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA
    2019. The minima are quantiles of each class's own probability on held-out rows.

    Attributes:
        coverage: share of rows of each class whose set shall hold the class, 0..1.
        minimum_probability: calibrated probability a class, in the order of the classes.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    minimum_probability: Annotated[list[Probability], Field(max_length=MAX_CLASSES)]


#: What a score can be at all: a rule beyond it never flags anything, or everything. Distances of vectors of length 1
#: lie in 0..2.
_SCORES: Final = {"energy": (-1e9, 1e9), "mahalanobis": (0.0, 1e9), "knn": (0.0, 2.0)}


class OutOfDistribution(Part):
    """When an image counts as unlike the training images: its score (larger is stranger) is above the threshold.

    Attributes:
        method: ``energy``: minus the log-sum-exp of the logits (Liu et al., NeurIPS 2020). ``mahalanobis``:
            squared distance of the embedding to the nearest mean after whitening (Lee et al., NeurIPS 2018).
            ``knn``: distance of the normalised embedding to its ``neighbours``-th neighbour among training
            embeddings (Sun et al., ICML 2022). The arrays of the last two are in ``head.safetensors``.
        threshold: of the score, in the arithmetic that the model was fitted with.
        thresholds: the same for each arithmetic that could be fitted: bfloat16 moves a score by up to 2 %.
        neighbours: for ``knn``.
    """

    method: Literal["energy", "mahalanobis", "knn"]
    threshold: float
    thresholds: dict[Literal["f32", "bf16"], float] = {}
    neighbours: Annotated[int, Field(ge=1, le=10_000)] = 1

    @model_validator(mode="after")
    def _possible(self) -> OutOfDistribution:
        least, most = _SCORES[self.method]
        for threshold in (self.threshold, *self.thresholds.values()):
            if not least <= threshold <= most:
                raise ValueError(f"threshold {threshold:g} is outside of {self.method}'s {least:g}..{most:g}")
        return self

    def flags(self, score: float, precision: Literal["f32", "bf16"]) -> bool:
        """Return whether a score that was computed in this arithmetic is above the threshold."""
        return score > self.thresholds.get(precision, self.threshold)


class Calibration(Part):
    """``calibration.json``: from logits to probabilities, label, set and flag.

    Attributes:
        temperature: T of ``softmax(logits / T)``; fitted ones lie in 0.1..10.
        offsets: added to the log probabilities before the label is chosen (the decision rule for rare
            classes); probabilities do not change. ``None``: the most probable class.
        prediction_set: rule of the sets, or ``None``.
        out_of_distribution: rule of the flag, or ``None``.
    """

    temperature: Annotated[float, Field(ge=0.05, le=20)]
    offsets: Annotated[list[Offset], Field(max_length=MAX_CLASSES)] | None
    prediction_set: PredictionSets | None
    out_of_distribution: OutOfDistribution | None


class Labels(Part):
    """``labels.json``: the classes in the order of the network's outputs.

    Attributes:
        classes: codes.
        names: code -> name for people.
        malignant: codes that count as malignant.
        critical: code of the class that must not be missed; not written where it is the one that `LabelSet.of` knows,
            so that earlier versions read HAM10000's bundles.
    """

    classes: Annotated[list[Text], Field(min_length=2, max_length=MAX_CLASSES)]
    names: dict[Text, Text]
    malignant: list[Text]
    critical: Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Labels:
        known = set(self.classes)
        if len(known) < len(self.classes):
            raise ValueError("a class is listed twice")
        if self.names.keys() != known:
            raise ValueError("names and classes do not match")
        if not known.issuperset(self.malignant) or len(set(self.malignant)) < len(self.malignant):
            raise ValueError("malignant lists an unknown class, or one twice")
        if self.critical is not None and self.critical not in known:
            raise ValueError("critical names an unknown class")
        return self

    @classmethod
    def of(cls, labels: LabelSet) -> Labels:
        """Return the file's content for a label set."""
        content = labels.to_json()
        if LabelSet.of(labels.codes, malignant=labels.malignant).critical == labels.critical:
            del content["critical"]
        return cls(**content)

    def text(self) -> str:
        """Return the content of the file, without a critical class that was not set."""
        return self.model_dump_json(indent=2, exclude_unset=True) + "\n"

    def label_set(self) -> LabelSet:
        """Return the label set; the critical class of a bundle that says nothing of it is HAM10000's, if any."""
        if "critical" in self.model_fields_set:
            return LabelSet(tuple(self.classes), self.names, frozenset(self.malignant), self.critical)
        return LabelSet.of(self.classes, names=self.names, malignant=self.malignant)
