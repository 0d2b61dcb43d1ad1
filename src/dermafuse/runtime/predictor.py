"""Images and clinical values in, calibrated predictions out: one image at a time through the compiled networks."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from dermafuse.data.images import load_image, resize, view
from dermafuse.errors import BundleError, ConfigError, DataError, DermafuseError, ImageError, nearest
from dermafuse.runtime.batch.ordered import ordered_map
from dermafuse.runtime.bundle.files import printable
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.decision import quality, temperature
from dermafuse.runtime.decision.out_of_distribution import ood_scores
from dermafuse.runtime.decision.rule import choose_labels, ranked_sets
from dermafuse.runtime.engine import Engine, Precision
from dermafuse.runtime.file_metadata import completed
from dermafuse.runtime.network import LOGITS, Network, check_network, inference_model
from dermafuse.runtime.prediction import ImageSource, Prediction, Query, Views

Floats = npt.NDArray[np.float64]

if TYPE_CHECKING:
    from dermafuse.runtime.explain.explainer import Explainer, Explanation


@dataclass(frozen=True, eq=False)
class _Member:
    engine: Engine
    network: Network
    head: Mapping[str, npt.NDArray[Any]]


class Predictor:
    """A bundle, compiled and ready to predict. Safe to use from several threads.

    Every image goes through the networks on its own: what else is in a batch, and in which order, changes
    nothing.

    Args:
        bundle: as `read_bundle` returns it.
        precision: arithmetic of the networks; ``auto`` is bf16 where the CPU has it, else f32.
        mode: ``latency`` (all CPUs on one image) or ``throughput`` (many images at once).
        threads: CPUs to use; 0 means all that this process may use.

    Raises:
        BundleError: a network cannot be compiled.

    Example:
        >>> import dermafuse as df
        >>> model = df.load(run)
        >>> answers = model.predict([image, image], age=[55, None])
        >>> len(answers), answers[1].missing
        (2, ('age', 'sex', 'localization'))
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision = "auto",
        mode: Literal["latency", "throughput"] = "latency",
        threads: int = 0,
    ) -> None:
        self.bundle = bundle
        members = []
        for index, model in enumerate(bundle.models):
            network = check_network(model, len(bundle.classes), bundle.encoder.width, str(bundle.path))
            outputs = (LOGITS,) if bundle.ood is None else (LOGITS, network.ood_output)
            try:
                engine = Engine(inference_model(model, outputs), precision=precision, mode=mode, threads=threads)
            except RuntimeError as error:
                reason = printable(str(error).strip().splitlines()[-1])
                raise BundleError(f"The network of {bundle.path} cannot be compiled ({reason}).") from error
            members.append(_Member(engine, network, bundle.member_head(index)))
        self._members = tuple(members)
        self._malignant = np.array([code in bundle.malignant for code in bundle.classes])
        self._explainer: Explainer | None = None
        self._explaining = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class codes, in the order of the logits."""
        return self.bundle.classes

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the metadata fields that the model uses; empty for an image-only model."""
        used = any(member.network.takes_metadata for member in self._members)
        return tuple(self.bundle.encoder.fields) if used else ()

    @property
    def precision(self) -> Literal["f32", "bf16"]:
        """Arithmetic that the networks were compiled for."""
        return self._members[0].engine.precision

    @property
    def threads(self) -> int:
        """CPUs that it uses."""
        return self._members[0].engine.threads

    @property
    def workers(self) -> int:
        """Threads that keep the engine busy while some of them decode."""
        return self._members[0].engine.workers

    @overload
    def predict(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        age: object = None,
        sex: object = None,
        localization: object = None,
        views: Views = 1,
        **fields: object,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        image: ImageSource,
        *,
        age: object = None,
        sex: object = None,
        localization: object = None,
        views: Views = 1,
        **fields: object,
    ) -> Prediction: ...

    def predict(
        self,
        image: ImageSource | list[Any] | tuple[Any, ...],
        *,
        age: object = None,
        sex: object = None,
        localization: object = None,
        views: Views = 1,
        **fields: object,
    ) -> Prediction | list[Prediction]:
        """Predict one image, or a list or tuple of images.

        Args:
            image: path, bytes of an image file, Pillow image or NumPy array; or a list or tuple of them.
            age: in years, 0..120; ``None`` where unknown. For a list of images, a list of the same length,
                or one value that holds for all of them; so for all fields.
            sex: as in training (``male``, ``female``).
            localization: body site, as in training.
            views: 8 averages the probabilities of the 8 flips and quarter turns of the image.
            fields: further metadata fields of the model.

        Returns:
            A prediction, or a list of them in the order of the images.

        Raises:
            ImageError: an image cannot be used; in a list, the first such image (see `stream` to go on).
            DataError: a metadata value that is not possible, or lists of different length.
            ConfigError: a field that the model does not have, or ``views`` other than 1 and 8.
        """
        given = {"age": age, "sex": sex, "localization": localization, **fields}
        given = {name: value for name, value in given.items() if value is not None}
        if not isinstance(image, list | tuple):
            self.check_fields(given)
            return self.predict_query(Query(image, given), views)
        results = []
        with contextlib.closing(self.stream(self._queries(image, given), views=views)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, DermafuseError):
                    raise outcome
                results.append(outcome)
        return results

    def predict_proba(
        self, images: ImageSource | list[Any] | tuple[Any, ...], *, views: Views = 1, **fields: object
    ) -> npt.NDArray[np.float64]:
        """Return the calibrated probabilities as scikit-learn's classifiers do, columns in the order of `classes`.

        Args:
            images: one image, or a list or tuple of n images, as `predict` takes them.
            views: 1 or 8.
            fields: metadata, as in `predict`.

        Returns:
            float64 (n, k); of one image (1, k).

        Raises:
            ImageError, DataError, ConfigError: as `predict`.

        Example:
            >>> import dermafuse as df
            >>> df.load(run).predict_proba([image, image], age=55).shape
            (2, 7)
        """
        many = list(images) if isinstance(images, list | tuple) else [images]
        answers = self.predict(many, views=views, **fields)
        table = [[answer.probabilities[code] for code in self.classes] for answer in answers]
        return np.asarray(table, np.float64).reshape(len(answers), len(self.classes))

    def explain(
        self, image: ImageSource, *, target: str | None = None, what_if: bool = True, **fields: object
    ) -> Explanation:
        """Explain the prediction of one image: where the model looked, and what each input contributed.

        The networks that this needs are compiled at the first call and kept.

        Args:
            image: path, bytes of an image file, Pillow image or NumPy array.
            target: class code that the heatmap is about; ``None``: the predicted label.
            what_if: also compute the curves over other values of each metadata field.
            fields: metadata, as in `predict`.

        Raises:
            ImageError, DataError, ConfigError: as `predict`; also an unknown class.
            BundleError: the bundle's head cannot be differentiated.

        Example:
            >>> import dermafuse as df
            >>> found = df.load(run).explain(image, age=55, sex="male", target="mel")
            >>> found.heatmap.ndim, float(found.heatmap.max()) <= 1.0
            (2, True)
            >>> sorted(found.attributions["mel"])
            ['age', 'image', 'localization', 'sex']
        """
        with self._explaining:
            if self._explainer is None:
                from dermafuse.runtime.explain.explainer import Explainer

                self._explainer = Explainer(self)
        return self._explainer.explain(image, target=target, what_if=what_if, **fields)

    def stream(
        self, queries: Iterable[Query], *, views: Views = 1
    ) -> Generator[Prediction | DermafuseError, None, None]:
        """Predict any number of images in bounded memory, in order, going on after those that cannot be used.

        Args:
            queries: may be a generator; only a few dozen are in memory at a time.
            views: 1 or 8.

        Yields:
            For each query its prediction, or the error that says why there is none.
        """
        _check_views(views)

        def work(query: Query) -> Prediction | DermafuseError:
            try:
                return self.predict_query(query, views)
            except DermafuseError as error:
                return error

        return ordered_map(queries, work, workers=self.workers)

    def predict_query(self, query: Query, views: int = 1) -> Prediction:
        """Predict one image; fields that the model does not have are ignored.

        Raises:
            ImageError, DataError, ConfigError: as `predict`.
        """
        _check_views(views)
        query, taken = completed(query, self.fields, self.bundle.encoder)
        probabilities, strange, pictures = self._infer(query, views)
        size = max(pictures)
        seen = pictures[size] if size >= quality.SIDE else _load(query, quality.SIDE)
        said = self.conclude(np.mean(probabilities, axis=0), strange, query.metadata)
        return dataclasses.replace(said, quality=quality.judge(resize(seen, quality.SIDE)), from_file=taken)

    def predict_views(self, query: Query) -> list[Prediction]:
        """Predict the 8 flips and quarter turns of one image each by itself, the image as it is first.

        Raises:
            ImageError, DataError, ConfigError: as `predict`.
        """
        query, _ = completed(query, self.fields, self.bundle.encoder)
        probabilities, _, _ = self._infer(query, 8)
        return [
            self.conclude(row, None, query.metadata)
            for row in probabilities.reshape(-1, 8, len(self.classes)).mean(axis=0)
        ]

    def _infer(self, query: Query, views: int) -> tuple[Floats, float | None, dict[int, npt.NDArray[np.uint8]]]:
        """Return probabilities (members * views, k), the mean score of strangeness, and the squares by their side."""
        meta = self.encode(query.metadata)[np.newaxis]
        pictures: dict[int, npt.NDArray[np.uint8]] = {}
        probabilities = []
        strange = []
        for member in self._members:
            size = member.network.image_size
            if size not in pictures:
                pictures[size] = _load(query, size)
            for number in range(views):
                picture = pictures[size] if number == 0 else view(pictures[size], number)
                inputs = (picture[np.newaxis], meta) if member.network.takes_metadata else (picture[np.newaxis],)
                logits, *vector = member.engine.infer(*inputs)
                probabilities.append(temperature.apply(logits[0], self.bundle.temperature))
                if self.bundle.ood is not None and number == 0:
                    strange.append(ood_scores(self.bundle.ood, member.head, logits, vector[0])[0])
        return np.array(probabilities), float(np.mean(strange)) if strange else None, pictures

    def check_fields(self, given: Iterable[str]) -> None:
        """Refuse metadata fields that the model does not have.

        Raises:
            ConfigError: names the field and those there are.
        """
        known = self.fields
        for name in given:
            if name not in known:
                there = f"it uses {', '.join(known)}" if known else "it uses the image alone"
                raise ConfigError(f"This model does not use '{name}' ({there}); leave it out.{nearest(name, known)}")

    def encode(self, metadata: Mapping[str, object]) -> npt.NDArray[np.float32]:
        """Return the metadata vector of a record, float32 (width,)."""
        return self.bundle.encoder.transform_one(metadata)

    def conclude(
        self, probabilities: npt.NDArray[np.float64], ood_score: float | None, metadata: Mapping[str, object]
    ) -> Prediction:
        """Return the prediction that follows from calibrated probabilities (k,) of a record."""
        bundle = self.bundle
        label = bundle.classes[choose_labels(probabilities[np.newaxis], bundle.offsets)[0]]
        chosen = None
        if bundle.prediction_set is not None:
            (inside,) = ranked_sets(probabilities[np.newaxis], bundle.prediction_set)
            chosen = tuple(bundle.classes[position] for position in inside)
        return Prediction(
            probabilities={code: float(p) for code, p in zip(bundle.classes, probabilities, strict=True)},
            label=label,
            name=bundle.names[label],
            malignant_probability=min(1.0, float(probabilities[self._malignant].sum()))
            if self._malignant.any()
            else None,
            prediction_set=chosen,
            out_of_distribution=None
            if bundle.ood is None or ood_score is None
            else bundle.ood.flags(ood_score, self.precision),
            ood_score=ood_score,
            missing=self.missing(metadata),
            unknown=bundle.encoder.unknown(metadata) if self.fields else {},
        )

    def missing(self, metadata: Mapping[str, object]) -> tuple[str, ...]:
        """Return the model's fields that a record leaves open."""
        return tuple(self.bundle.encoder.missing(metadata)) if self.fields else ()

    def _queries(self, images: Sequence[ImageSource], given: Mapping[str, object]) -> Iterator[Query]:
        self.check_fields(given)
        count = len(images)
        columns: dict[str, Sequence[object]] = {}
        for field_name, value in given.items():
            one_each = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
            column: Sequence[object] = value if one_each else [value] * count  # type: ignore[assignment]
            if len(column) != count:
                raise DataError(f"'{field_name}' has {len(column)} values for {count} images; give one an image.")
            columns[field_name] = column
        for index, image in enumerate(images):
            metadata = {field_name: column[index] for field_name, column in columns.items()}
            yield Query(image, metadata, None if isinstance(image, str | Path) else f"Image {index + 1}")


def _check_views(views: int) -> None:
    if views not in (1, 8):
        raise ConfigError(f"views is {views}; it is 1 (the image as it is) or 8 (all flips and quarter turns).")


def _load(query: Query, size: int) -> npt.NDArray[np.uint8]:
    try:
        return load_image(query.image, size, name=query.name)
    except MemoryError as error:
        name = query.name or (query.image if isinstance(query.image, str | Path) else "The image")
        raise ImageError(f"{name} needs more memory than there is; make it smaller.") from error
