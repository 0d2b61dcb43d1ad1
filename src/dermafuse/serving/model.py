"""The served model: compiled once, asked from any thread, answering in plain JSON values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dermafuse.data.image_formats import sniff, stored_size
from dermafuse.errors import ConfigError, DermafuseError, ImageError
from dermafuse.labels import DISCLAIMER
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.explain.explainer import Explainer
from dermafuse.runtime.prediction import ImageSource, Prediction, Query
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import is_released
from dermafuse.serving.desk import Asked
from dermafuse.serving.gallery import Embedder, read
from dermafuse.serving.limits import Limits, Problem, unusable
from dermafuse.serving.points import decide, judged, stability
from dermafuse.serving.samples import Samples

#: Names that the requests themselves use.
_RESERVED: Final = frozenset({"image", "records", "target", "what_if"})


class ServedModel:
    """A predictor and its explainer, both compiled once; safe to use from several threads.

    Raises:
        ConfigError: a metadata field is called as a part of the requests is.
        BundleError: the model cannot be explained.
    """

    def __init__(self, predictor: Predictor, limits: Limits, gallery: Path | None = None) -> None:
        clash = sorted(_RESERVED & set(predictor.fields))
        if clash:
            raise ConfigError(
                f"The model has a metadata field '{clash[0]}', which the API needs for itself; rename the column and "
                "train again."
            )
        self.predictor = predictor
        self.limits = limits
        self.explainer = Explainer(predictor)
        self.samples = Samples()
        self.judged = judged(predictor.bundle)
        self.gallery = None if gallery is None else read(gallery)
        self._embed: Embedder | None = None
        if gallery is not None:
            self._embed = Embedder(predictor.bundle, predictor.precision, threads=predictor.threads)
        bundle = predictor.bundle
        folder = bundle.path.resolve()
        called = folder.parent.name if folder.name == "model" else folder.name
        self.name = re.sub(r"[^A-Za-z0-9_.-]+", "-", called).strip("-.") or "model"
        self.version = bundle.digest[:12]
        self.facts = {"name": self.name, "digest": bundle.digest, "released": is_released(bundle)}

    def warm_up(self) -> None:
        """Predict and explain a generated lesion, whatever the limits are for those of others."""
        self.answer(self.samples.pixels(0), {}, Asked(explain=True))

    def answer(self, image: ImageSource, metadata: Mapping[str, object], asked: Asked) -> dict[str, Any]:
        """Return what the model says of one image, as the API gives it.

        Raises:
            Problem: 413, 415 or 422: the image, a value or a field cannot be used.
        """
        said = self.predict(image, metadata, asked.views)
        answer = {**said.to_dict(), **self.in_words(said)}
        if asked.operating_point is not None:
            points = self.judged["operating_points"]
            answer["operating_point"] = decide(points, asked.operating_point, asked.prevalence, said)
        if asked.stability:
            answer["stability"] = stability(self.predictor.predict_views(Query(image, metadata)))
        if asked.explain:
            given: dict[str, Any] = dict(metadata)
            try:
                found = self.explainer.explain(image, target=said.label, **given).to_dict()
            except DermafuseError as error:
                raise unusable(error) from error
            answer["explanation"] = {name: value for name, value in found.items() if name != "disclaimer"}
        return {**answer, "model": self.facts, "disclaimer": DISCLAIMER}

    def predict(self, image: ImageSource, metadata: Mapping[str, object], views: int = 1) -> Prediction:
        """Return the prediction for one image: the same figures as the command line and Python give.

        Raises:
            Problem: as `answer`.
        """
        try:
            if isinstance(image, bytes):
                self._check_file(image)
            self.predictor.check_fields(metadata)
            return self.predictor.predict_query(Query(image, metadata, "The upload"), views)
        except DermafuseError as error:
            raise unusable(error) from error

    def similar(self, image: bytes, count: int) -> list[dict[str, Any]]:
        """Return the images of the gallery that are nearest to this one, as `Gallery.nearest` does.

        Raises:
            Problem: 404, there is no gallery; or as `answer`.
        """
        if self.gallery is None or self._embed is None:
            raise Problem(404, "This server has no gallery; start it with --gallery and labelled images of yours.")
        try:
            self._check_file(image)
            return self.gallery.nearest(self._embed(image), count)
        except DermafuseError as error:
            raise unusable(error) from error

    def _check_file(self, data: bytes) -> None:
        if not data:
            raise Problem(422, "The image is empty (0 bytes).")
        try:
            sniff(data, "The upload")
        except ImageError as error:
            raise Problem(415, str(error)) from error
        width, height = stored_size(data, "The upload")
        if width * height > self.limits.pixels:
            raise Problem(
                413, f"The image has {width:,}x{height:,} pixels, more than the {self.limits.pixels:,} allowed."
            )

    def in_words(self, said: Prediction) -> dict[str, Any]:
        """Return sentences that a person can read beside the figures."""
        names = self.predictor.bundle.names
        sentences: dict[str, Any] = {}
        if said.prediction_set is not None:
            others = [names[code] for code in said.prediction_set if code != said.label]
            if others:
                sentences["prediction_set_text"] = f"Cannot exclude {_listed(others)}."
            elif not said.prediction_set:
                sentences["prediction_set_text"] = "None of the classes fits this image."
        words = UnknownWords(self.predictor.bundle.encoder)
        words.add(said)
        if notes := words.sentences():
            sentences["notes"] = notes
        return sentences

    def describe(self) -> dict[str, Any]:
        """Return what the model is: classes, fields, card, digest, limits."""
        bundle = self.predictor.bundle
        rule = bundle.prediction_set
        return {
            **self.facts,
            "version": self.version,
            "dermafuse_version": bundle.version,
            "precision": self.predictor.precision,
            "labels": [
                {
                    "code": code,
                    "name": bundle.names[code],
                    "malignant": code in bundle.malignant,
                    "critical": code == bundle.labels.critical,
                }
                for code in bundle.classes
            ],
            "fields": self.fields(),
            "coverage": None if rule is None else rule.coverage,
            "out_of_distribution_rule": None if bundle.ood is None else bundle.ood.method,
            "announcements": list(bundle.info.get("announcements", ())),  # type: ignore[arg-type]
            **self.judged,
            "gallery": self.gallery is not None,
            "card": bundle.card,
            "limits": {
                "upload_bytes": self.limits.upload_bytes,
                "pixels": self.limits.pixels,
                "seconds": self.limits.seconds,
                "batch": self.limits.batch,
            },
            "disclaimer": DISCLAIMER,
        }

    def fields(self) -> list[dict[str, Any]]:
        """Return the metadata fields, each as a form needs it."""
        encoder = self.predictor.bundle.encoder
        vocabularies = dict(zip(encoder.categorical, encoder.vocabularies, strict=True))
        statistics = dict(zip(encoder.numeric, encoder.statistics, strict=True))
        found: list[dict[str, Any]] = []
        for name in self.predictor.fields:
            if name in vocabularies:
                found.append({"name": name, "kind": "choice", "choices": list(vocabularies[name])})
            else:
                entry = {"name": name, "kind": "number", "mean": statistics[name].mean}
                # The one field that has a range of its own (`dermafuse.data.values`).
                found.append(entry | ({"least": 0, "most": 120, "unit": "years"} if name == "age" else {}))
        return found


def given_values(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values that say something: an empty text or null is a field that is not given."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
