"""What is asked of a model and what it answers, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy.typing as npt

from dermafuse import notebook
from dermafuse.labels import DISCLAIMER
from dermafuse.runtime.decision.quality import Quality

if TYPE_CHECKING:
    from PIL import Image

#: A path, the bytes of an image file, a Pillow image, or a NumPy array (height, width[, channels]).
ImageSource: TypeAlias = "str | Path | bytes | Image.Image | npt.NDArray[Any]"

Views = Literal[1, 8]


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        probabilities: class code -> calibrated probability; they sum to 1.
        label: code of the chosen class (the most probable one, unless the model has a decision rule).
        name: the label in words.
        malignant_probability: sum over the malignant classes, 0..1; ``None`` where the model names none.
        prediction_set: codes that cannot be excluded at the model's coverage, the most probable first
            (possibly none); ``None`` where the model has no such rule.
        out_of_distribution: whether the image is unlike those the model was trained on; ``None`` where the
            model has no such rule.
        ood_score: the figure behind it; larger is stranger.
        missing: metadata fields that told the model nothing (not given, "unknown", or a word never seen).
        unknown: of these the fields whose word stands for none that the model knows -> that word as given.
        quality: whether the image is blurred or badly exposed; ``None`` where nobody looked.
        from_file: metadata field -> value that nobody gave, taken from the image's own DICOM file.

    Example:
        >>> import dermafuse as df
        >>> answer = df.load(run).predict(image, age=55)
        >>> answer.label in answer.probabilities, round(sum(answer.probabilities.values()), 6)
        (True, 1.0)
        >>> sorted(answer.to_dict())[:2]
        ['label', 'malignant_probability']
        >>> answer.ranked[0][1] == max(answer.probabilities.values())
        True
    """

    probabilities: Mapping[str, float]
    label: str
    name: str
    malignant_probability: float | None
    prediction_set: tuple[str, ...] | None
    out_of_distribution: bool | None
    ood_score: float | None
    missing: tuple[str, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)
    quality: Quality | None = None
    from_file: Mapping[str, object] = field(default_factory=dict)

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Class codes with their probabilities, the most probable first."""
        return sorted(self.probabilities.items(), key=lambda entry: -entry[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values; the last three fields only where there are such."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        plain["probabilities"] = dict(self.probabilities)
        plain["prediction_set"] = None if self.prediction_set is None else list(self.prediction_set)
        plain["missing"] = list(self.missing)
        plain["unknown"] = dict(self.unknown)
        plain["from_file"] = dict(self.from_file)
        for name in ("unknown", "from_file"):
            if not plain[name]:
                del plain[name]
        if self.quality is None:
            del plain["quality"]
        else:
            plain["quality"] = self.quality.to_dict()
        return plain

    def _repr_html_(self) -> str:
        said = [f"{self.name} ({self.label})", *(f"{name}: not known to the model" for name in self.missing)]
        if self.out_of_distribution:
            said.append("This image is unlike those that the model was trained on.")
        return notebook.table(("class", "probability"), self.ranked, title=said[0], notes=[*said[1:], DISCLAIMER])


@dataclass(frozen=True)
class Query:
    """One image to predict, with what is known about the patient and the lesion (field -> value).

    ``name`` is what to call an image in errors that has no path; ``completed`` says whether a DICOM file may tell what
    nobody gave.
    """

    image: ImageSource
    metadata: Mapping[str, object] = field(default_factory=dict)
    name: str | None = None
    completed: bool = True
