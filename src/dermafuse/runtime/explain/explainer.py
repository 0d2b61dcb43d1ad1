"""Why did the model say that? Where it looked, what each input contributed, and what other values would change.

All of it is computed from the bundle alone, in float32 networks and a float64 head, whatever the precision of the
predictor; ``Explanation.prediction`` is the prediction of that computation, so that its figures add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dermafuse import notebook
from dermafuse.data.images import load_image
from dermafuse.errors import ConfigError, nearest
from dermafuse.labels import DISCLAIMER
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.decision import temperature
from dermafuse.runtime.decision.out_of_distribution import ood_scores
from dermafuse.runtime.engine import Engine
from dermafuse.runtime.explain.attribution import MAX_PLAYERS, grad_cam, shapley
from dermafuse.runtime.explain.headgraph import HeadGraph
from dermafuse.runtime.file_metadata import completed
from dermafuse.runtime.network import FEATURE_MAP, LOGITS, META_INPUT, check_network, inference_model
from dermafuse.runtime.prediction import ImageSource, Prediction, Query

Floats = npt.NDArray[np.float64]

#: The player that is the image itself.
IMAGE: Final = "image"

#: Said under every heatmap of a network whose image branch was not trained.
FROZEN_HEATMAP: Final = (
    "The image network was not trained on skin lesions: its heatmaps show which of its general features counted, not "
    "what it learned to look for."
)

#: Where the what-if curve of age looks, in years.
AGES: Final = tuple(float(age) for age in range(0, 91, 5))


@dataclass(frozen=True)
class WhatIf:
    """The prediction over the values of one field, all else as given.

    Attributes:
        field: its name.
        values: what it was set to: numbers, or the words of the vocabulary.
        given: its value in the record, ``None`` where missing.
        probabilities: class code -> one calibrated probability a value.
    """

    field: str
    values: tuple[float | str, ...]
    given: object
    probabilities: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The explanation of one prediction.

    Attributes:
        prediction: what is explained.
        target: class code that the heatmap is about.
        cam: Grad-CAM of the target's logit, float64 (h, w), at or above 0, over the whole (upright) image; the
            mean over the members of an ensemble.
        heatmap: ``cam`` divided by its largest value: float32 (h, w), 0..1; all 0 where nothing speaks for it.
        attributions: class code -> player -> Shapley value, in probability. Players are ``image`` and the
            metadata fields. For each class they sum to its probability minus its ``baseline``.
        baseline: class code -> probability when no player is present: the mean training embedding for an
            image, and the encoding of a record about which nothing is known.
        what_if: one curve a metadata field.
        notes: what could not be computed, and why; what to beware of.

    Example:
        >>> import dermafuse as df
        >>> why = df.load(run).explain(image, age=55)
        >>> added = sum(why.attributions[why.target].values()) + why.baseline[why.target]
        >>> abs(added - why.prediction.probabilities[why.target]) < 1e-6, why.heatmap.shape == why.cam.shape
        (True, True)
    """

    prediction: Prediction
    target: str
    cam: Floats
    attributions: Mapping[str, Mapping[str, float]]
    baseline: Mapping[str, float]
    what_if: tuple[WhatIf, ...]
    notes: tuple[str, ...]

    @property
    def heatmap(self) -> npt.NDArray[np.float32]:
        """``cam`` scaled to 0..1."""
        peak = self.cam.max()
        return (self.cam / peak if peak > 0 else self.cam).astype(np.float32)

    def _repr_html_(self) -> str:
        shares = self.attributions.get(self.target) or {}
        title = f"{self.target}: probability {self.prediction.probabilities[self.target]:.3f}"
        return notebook.table(("input", "contributed"), shares.items(), title=title, notes=[*self.notes, DISCLAIMER])

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain JSON values."""
        return {
            "prediction": self.prediction.to_dict(),
            "target": self.target,
            "cam": self.cam.tolist(),
            "heatmap": self.heatmap.astype(float).tolist(),
            "attributions": {code: dict(shares) for code, shares in self.attributions.items()},
            "baseline": dict(self.baseline),
            "what_if": [
                {
                    "field": curve.field,
                    "values": list(curve.values),
                    "given": curve.given if isinstance(curve.given, int | float | str) else None,
                    "probabilities": {code: list(curve_of) for code, curve_of in curve.probabilities.items()},
                }
                for curve in self.what_if
            ],
            "notes": list(self.notes),
            "disclaimer": DISCLAIMER,
        }


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one member makes of the image: feature map (h, w, c) and its stand-in for "no image"."""

    head: HeadGraph
    features: npt.NDArray[np.float32]
    blank: npt.NDArray[np.float32] | None
    takes_metadata: bool

    def logits(self, meta: npt.NDArray[np.float32], *, image: bool = True) -> Floats:
        features = self.features if image or self.blank is None else self.blank
        return self.head(features, meta if self.takes_metadata else None)


class Concluding(Protocol):
    """What an explanation needs of a `dermafuse.runtime.predictor.Predictor`, which in turn keeps an `Explainer`."""

    bundle: Bundle

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the metadata fields."""

    def check_fields(self, given: Iterable[str]) -> None:
        """Refuse fields that the model does not have."""

    def encode(self, metadata: Mapping[str, object]) -> npt.NDArray[np.float32]:
        """Return the metadata vector (width,)."""

    def conclude(
        self, probabilities: npt.NDArray[np.float64], ood_score: float | None, metadata: Mapping[str, object]
    ) -> Prediction:
        """Return the prediction that follows from probabilities (k,)."""


class Explainer:
    """Explains predictions of a predictor's bundle; safe to use from several threads.

    Raises:
        BundleError: the bundle's head cannot be differentiated.
    """

    def __init__(self, predictor: Concluding) -> None:
        self._predictor = predictor
        self._bundle = bundle = predictor.bundle
        networks = [
            check_network(model, len(bundle.classes), bundle.encoder.width, str(bundle.path)) for model in bundle.models
        ]
        self._engines = [
            Engine(inference_model(model, (FEATURE_MAP, network.ood_output, LOGITS)), precision="f32", mode="latency")
            for model, network in zip(bundle.models, networks, strict=True)
        ]
        self._heads = [HeadGraph(model) for model in bundle.models]
        self._takes_metadata = [any(META_INPUT in port.get_names() for port in model.inputs) for model in bundle.models]
        self._sizes = [int(model.input("image_input").get_partial_shape()[1].get_length()) for model in bundle.models]

    def explain(
        self, image: ImageSource, *, target: str | None = None, what_if: bool = True, **metadata: object
    ) -> Explanation:
        """Explain the prediction of one image.

        Args:
            image: path, bytes of an image file, Pillow image or NumPy array.
            target: class code that the heatmap is about; ``None``: the predicted label.
            what_if: also compute the what-if curves.
            metadata: the model's fields (``age``, ``sex``, ``localization``, ...); ``None`` where unknown.

        Raises:
            ImageError: the image cannot be used.
            DataError: a metadata value that is not possible.
            ConfigError: an unknown class or field.
        """
        bundle = self._bundle
        if target is not None and target not in bundle.classes:
            raise ConfigError(
                f"There is no class '{target}'; there are {', '.join(bundle.classes)}.{nearest(target, bundle.classes)}"
            )
        asked = {name: value for name, value in metadata.items() if value is not None}
        self._predictor.check_fields(asked)
        query, taken = completed(Query(image, asked), self._predictor.fields, bundle.encoder)
        given = dict(query.metadata)
        meta = self._predictor.encode(given)
        seen, score = self._look(image)
        prediction = self._predictor.conclude(self._probabilities(seen, meta), score, given)
        prediction = dataclasses.replace(prediction, from_file=taken)
        chosen = target or prediction.label
        attributions, baseline, notes = self._attribute(seen, meta)
        if bundle.info.get("frozen"):
            notes.append(FROZEN_HEATMAP)
        curves = self._curves(seen, given) if what_if else ()
        return Explanation(
            prediction=prediction,
            target=chosen,
            cam=self._cam(seen, meta, bundle.classes.index(chosen)),
            attributions=attributions,
            baseline=baseline,
            what_if=curves,
            notes=tuple(notes),
        )

    def _look(self, image: ImageSource) -> tuple[list[_Seen], float | None]:
        pictures = {size: load_image(image, size) for size in set(self._sizes)}
        seen, scores = [], []
        for index, engine in enumerate(self._engines):
            picture = pictures[self._sizes[index]][np.newaxis]
            # The feature map does not depend on the metadata; the logits are computed again by the head.
            blank_meta = self._bundle.encoder.absent()[np.newaxis]
            inputs = (picture, blank_meta) if self._takes_metadata[index] else (picture,)
            features, vector, logits = (output[0].copy() for output in engine.infer(*inputs))
            arrays = self._bundle.member_head(index)
            mean = arrays.get("baseline/embedding")
            blank = None if mean is None else np.broadcast_to(mean.astype(np.float32), features.shape)
            seen.append(_Seen(self._heads[index], features, blank, self._takes_metadata[index]))
            if self._bundle.ood is not None:
                scores.append(ood_scores(self._bundle.ood, arrays, logits[np.newaxis], vector[np.newaxis])[0])
        return seen, float(np.mean(scores)) if scores else None

    def _probabilities(self, seen: Sequence[_Seen], meta: npt.NDArray[np.float32], *, image: bool = True) -> Floats:
        each = [temperature.apply(one.logits(meta, image=image), self._bundle.temperature) for one in seen]
        mean: Floats = np.mean(each, axis=0)
        return mean

    def _cam(self, seen: Sequence[_Seen], meta: npt.NDArray[np.float32], target: int) -> Floats:
        maps = []
        for one in seen:
            _, gradient = one.head.gradient(one.features, meta if one.takes_metadata else None, target)
            maps.append(grad_cam(one.features, gradient))
        shape = max((cam.shape for cam in maps), key=lambda size: size[0] * size[1])
        mean: Floats = np.mean([stretch(cam, shape) for cam in maps], axis=0)
        return mean

    def _attribute(
        self, seen: Sequence[_Seen], meta: npt.NDArray[np.float32]
    ) -> tuple[dict[str, dict[str, float]], dict[str, float], list[str]]:
        notes = []
        has_blank = all(one.blank is not None for one in seen)
        if not has_blank:
            notes.append(
                "The bundle holds no mean training embedding (baseline/embedding), so the image is always present "
                "and only the metadata fields share the difference."
            )
        fields = self._predictor.fields
        players = [IMAGE, *fields] if has_blank else list(fields)
        if len(players) > MAX_PLAYERS:
            notes.append(f"Exact attribution among {len(players)} players is too long; {MAX_PLAYERS} are possible.")
            return {}, {}, notes
        absent = self._bundle.encoder.absent()
        slices = self._bundle.encoder.fields

        def worth(present: tuple[bool, ...]) -> Floats:
            here = dict(zip(players, present, strict=True))
            record = meta.copy()
            for name in fields:
                if not here[name]:
                    record[slices[name]] = absent[slices[name]]
            return self._probabilities(seen, record, image=here.get(IMAGE, True))

        shares = shapley(len(players), worth)
        empty = worth((False,) * len(players))
        classes = self._bundle.classes
        attributions = {
            code: {player: float(shares[row, column]) for row, player in enumerate(players)}
            for column, code in enumerate(classes)
        }
        return attributions, {code: float(p) for code, p in zip(classes, empty, strict=True)}, notes

    def _curves(self, seen: Sequence[_Seen], given: Mapping[str, object]) -> tuple[WhatIf, ...]:
        curves = []
        for name in self._predictor.fields:
            values = self._choices(name)
            table = [self._probabilities(seen, self._predictor.encode({**given, name: value})) for value in values]
            probabilities = {
                code: tuple(float(row[column]) for row in table) for column, code in enumerate(self._bundle.classes)
            }
            curves.append(WhatIf(name, tuple(values), given.get(name), probabilities))
        return tuple(curves)

    def _choices(self, name: str) -> Sequence[float | str]:
        """Return the values that a what-if curve visits: ages, two spreads around a mean, or all words."""
        encoder = self._bundle.encoder
        if name in encoder.categorical:
            return encoder.vocabularies[encoder.categorical.index(name)]
        if name == "age":
            return AGES
        known = encoder.statistics[encoder.numeric.index(name)]
        return [float(value) for value in known.mean + known.scale * np.linspace(-2.0, 2.0, 21)]


def stretch(values: Floats, shape: Iterable[int]) -> Floats:
    """Return a map (h, w) stretched to ``shape`` (height, width), bilinear, pixel centres half-way."""
    result = np.asarray(values, dtype=np.float64)
    for axis, size in enumerate(shape):
        length = result.shape[axis]
        if length == size:
            continue
        centre = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        first = np.floor(centre).astype(np.intp)
        second = np.minimum(first + 1, length - 1)
        part = (centre - first).reshape((-1, 1) if axis == 0 else (1, -1))
        result = np.take(result, first, axis) * (1 - part) + np.take(result, second, axis) * part
    return result
