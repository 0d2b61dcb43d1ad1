"""What an int8 model is judged on: labelled rows of a run, and the decisions of two networks on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import openvino as ov

from dermafuse.data.images import load_image
from dermafuse.errors import ConfigError
from dermafuse.labels import LabelSet
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.decision.temperature import apply
from dermafuse.runtime.engine import Engine
from dermafuse.runtime.network import IMAGE_INPUT, LOGITS, inference_model

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Rows of a data set: image files, encoded metadata float32 (n, w), labels int64 (n,)."""

    paths: Sequence[Path]
    meta: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Scores:
    """What the gate looks at, 0..1. ``critical_sensitivity`` is ``None`` where no row is of the critical class."""

    accuracy: float
    balanced_accuracy: float
    critical_sensitivity: float | None

    def to_json(self, labels: LabelSet) -> dict[str, float | None]:
        """Return the scores as the description of an export names them."""
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            f"{labels.critical_key}_sensitivity": self.critical_sensitivity,
        }


class Decider:
    """The decisions of some networks under a bundle's temperature and offsets, computed in f32 where not in int8."""

    def __init__(self, bundle: Bundle, models: Sequence[ov.Model]) -> None:
        self._bundle = bundle
        self._engines = [
            (Engine(inference_model(model, (LOGITS,)), precision="f32"), len(model.inputs) == 2, side_of(model))
            for model in models
        ]

    def scores(self, rows: LabelledImages) -> Scores:
        """Return accuracy, balanced accuracy (mean recall of the classes that occur), sensitivity for the critical."""
        bundle = self._bundle
        means = np.zeros((len(rows), len(bundle.classes)))

        def work(row: int) -> None:
            pictures: dict[int, npt.NDArray[np.uint8]] = {}
            probabilities = []
            for engine, takes_metadata, side in self._engines:
                if side not in pictures:
                    pictures[side] = load_image(rows.paths[row], side)[np.newaxis]
                inputs = (pictures[side], rows.meta[row : row + 1]) if takes_metadata else (pictures[side],)
                probabilities.append(apply(engine.infer(*inputs)[0][0], bundle.temperature))
            means[row] = np.mean(probabilities, axis=0)

        self._engines[0][0].map_threads(range(len(rows)), work)
        return scores_of(rows.labels, choose_labels(means, bundle.offsets), bundle.labels)


def scores_of(true: npt.NDArray[np.int64], decided: npt.NDArray[np.int64], classes: LabelSet) -> Scores:
    """Return the scores of decisions, both (n,) class positions."""
    right = true == decided
    recalls = {code: float(right[true == k].mean()) for k, code in enumerate(classes.codes) if (true == k).any()}
    return Scores(float(right.mean()), float(np.mean(list(recalls.values()))), recalls.get(classes.critical or ""))


def drop(before: Scores, after: Scores) -> float:
    """Return by how much the measure that lost more has dropped (below 0: none lost), as a share."""
    drops = [before.balanced_accuracy - after.balanced_accuracy]
    if before.critical_sensitivity is not None and after.critical_sensitivity is not None:
        drops.append(before.critical_sensitivity - after.critical_sensitivity)
    return max(drops)


def figures(before: Scores, after: Scores, labels: LabelSet) -> str:
    """Return both measures before and after, in words."""
    said = f"balanced accuracy {100 * before.balanced_accuracy:.1f} % -> {100 * after.balanced_accuracy:.1f} %"
    if before.critical_sensitivity is not None and after.critical_sensitivity is not None:
        said += f", {labels.critical_name} sensitivity {100 * before.critical_sensitivity:.1f} % -> "
        said += f"{100 * after.critical_sensitivity:.1f} %"
    return said


def split_rows(run: Path, bundle: Bundle, table: pd.DataFrame) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and the validation rows of a run, told apart by its ``predictions.csv``.

    Args:
        run: the RUN folder.
        bundle: its model.
        table: of the records of the data set that the run was trained on.

    Raises:
        ConfigError: no ``predictions.csv``, or it is of another data set.
    """
    import pandas as pd

    try:
        predictions = pd.read_csv(run / "predictions.csv", dtype={"image_id": str}, usecols=["image_id", "split"])
        skipped = pd.read_csv(run / "skipped.csv", dtype=str) if (run / "skipped.csv").exists() else None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{run / 'predictions.csv'}, which tells training from validation rows, cannot be read ({error}); "
            "name a finished RUN folder to export in int8."
        ) from error
    held_out = predictions.loc[predictions["split"] == "validation", "image_id"]
    lacking = set(held_out) - set(table["image_id"])
    if lacking or not len(held_out):
        raise ConfigError(
            f"The data set lacks {len(lacking):,} of the {len(held_out):,} validation images of {run}; "
            "name the data set that the run was trained on with --data."
        )
    others = [*predictions["image_id"], *([] if skipped is None else skipped["image_id"])]
    training = table[~table["image_id"].isin(others)]
    if not len(training):
        raise ConfigError(f"The data set holds no training row of {run}; name its data set with --data.")
    validation = table[table["image_id"].isin(held_out)]
    return _rows(training, bundle), _rows(validation, bundle)


def side_of(model: ov.Model) -> int:
    """Return the side in pixels of the images that a network takes."""
    return int(model.input(IMAGE_INPUT).get_partial_shape()[1].get_length())


def _rows(table: pd.DataFrame, bundle: Bundle) -> LabelledImages:
    number = {code: position for position, code in enumerate(bundle.classes)}
    unknown = set(table["label"]) - number.keys()
    if unknown:
        raise ConfigError(f"The data set has the class '{unknown.pop()}', which the model of {bundle.path} lacks.")
    labels = np.array([number[label] for label in table["label"]], dtype=np.int64)
    return LabelledImages([Path(path) for path in table["path"]], bundle.encoder.transform(table), labels)
