"""Did the model learn from the images it is now tested on? What a RUN or a bundle lets us know, and what not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.errors import DermafuseError
from dermafuse.evaluation.predictions import BoolArray, Scored
from dermafuse.runs import RunFolder
from dermafuse.runtime.bundle.evaluation import image_hashes, trained_on

#: Pairs of files compared to tell whether generated data sets with the same ids are the same.
_PAIRS: Final = 8


@dataclass(frozen=True, eq=False)
class Overlap:
    """What of a test set the model has met.

    Attributes:
        known: whether the training images are known.
        basis: one sentence that says how it is known, or why not.
        trained: (n,) images that the model learned from.
        trained_lesions: (n,) images of lesions that it learned from.
        tuning: (n,) images that its RUN held out to choose epoch, temperature and decision.
        validation: (n,) images that its RUN reports.
        chose: (n,) images of lesions that had a say in its epoch, temperature or decision, and of which it did not
            learn: tuning rows, and the reported rows where early stopping looked at them.
        choosing: rows of the RUN on which thresholds may be chosen: none of them is in the test set.
        choosing_name: ``tuning`` or ``validation``.
    """

    known: bool
    basis: str
    trained: BoolArray
    trained_lesions: BoolArray
    tuning: BoolArray
    validation: BoolArray
    chose: BoolArray
    choosing: Scored | None = None
    choosing_name: str = "tuning"

    @property
    def unseen(self) -> BoolArray:
        """(n,) images of lesions that neither taught the model nor had a say in it; nothing where that is unknown."""
        return ~self.trained_lesions & ~self.chose if self.known else np.zeros_like(self.trained)

    def roles(self) -> list[str]:
        """Return what each image was to the model: ``learned from``, ``chose``, ``unseen``; empty where unknown."""
        if not self.known:
            return [""] * len(self.trained)
        pairs = zip(self.trained_lesions, self.chose, strict=True)
        return ["learned from" if learned else "chose" if chose else "unseen" for learned, chose in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values; ``None`` for what is not known."""
        n = len(self.trained)
        lesions = int(self.trained_lesions.sum())
        return {
            "known": self.known,
            "basis": self.basis,
            "trained_images": int(self.trained.sum()) if self.known else None,
            "trained_lesion_images": lesions if self.known else None,
            "share": lesions / n if self.known and n else None,
            "tuning_images": int(self.tuning.sum()),
            "validation_images": int(self.validation.sum()),
            "chose_images": int(self.chose.sum()) if self.known else None,
            "unseen_images": int(self.unseen.sum()) if self.known else None,
        }


def find_overlap(
    run: Path | None, records: Records, classes: tuple[str, ...], evaluation: Mapping[str, Any] | None = None
) -> Overlap:
    """Compare a test set with what its model was trained on.

    The RUN's ``predictions.csv`` names its validation and tuning images; its training images are all others of
    the data set that ``config.toml`` names, as far as that is still where it was. Where there is no RUN, or its data
    have moved, the hashes in the bundle's ``evaluation.json`` tell.

    Args:
        run: the RUN folder, or ``None`` for a bundle alone.
        records: the test set.
        classes: of the model.
        evaluation: `Bundle.evaluation`.
    """
    none = np.zeros(len(records), dtype=np.bool_)
    if run is None:
        return _by_hashes(records, evaluation, "This bundle does not say what it was trained on.")
    try:
        opened = RunFolder.open(run)
        rows = opened.rows
    except DermafuseError as error:
        return _by_hashes(records, evaluation, f"What the model was trained on is not known: {error}")
    images, lesions = (records.table[name].to_numpy(object) for name in ("image_id", "lesion_id"))
    trained, why = _training_set(opened)
    if trained is not None and records.synthetic and trained.synthetic and not _same_files(records, trained):
        return Overlap(
            True,
            "Model and test set are generated data of different seeds; equal ids are different images.",
            none,
            none,
            none,
            none,
            none,
            *_choosing(rows, classes, set(), set()),
        )
    held = {name: np.isin(images, part.image_id) for name, part in rows.items()}
    tuning, validation = held.get("tuning", none), held.get("validation", none)
    choosing = _choosing(rows, classes, set(images), set(lesions))
    if trained is None:
        hashed = _by_hashes(records, evaluation, why)
        if not hashed.known:
            hashed = replace(hashed, tuning=tuning, validation=validation)
        return replace(hashed, choosing=choosing[0], choosing_name=choosing[1])
    table = trained.table
    own = np.isin(images, table["image_id"].to_numpy(object))
    shared = own | (np.isin(lesions, table["lesion_id"].to_numpy(object)) if trained.has_lesions else none)
    basis = f"Compared by image and lesion id with the {len(table):,} images that {run.name} learned from."
    chose = none
    for part in (rows[name] for name in _chose(opened.metrics) if name in rows):
        by_lesion = np.isin(lesions, part.lesion_id) if trained.has_lesions else none
        chose = chose | np.isin(images, part.image_id) | by_lesion
    return Overlap(True, basis, own, shared, tuning, validation, chose & ~shared, *choosing)


def _training_set(run: RunFolder) -> tuple[Records | None, str]:
    """Return the records that the run trained on, or why they are not known."""
    try:
        named = run.config.get("data")
        if not named:
            return None, f"The training images are not known: {run.path.name} does not say where its data are."
        records = read_training_data(Path(named))
    except DermafuseError as error:
        return None, f"The training images are not known: {error}"
    rows, metrics = run.rows, run.metrics
    met = {image for part in rows.values() for image in part.image_id}
    ids = records.table["image_id"]
    if not met <= set(ids) or len(ids) != metrics.get("data", {}).get("images"):
        return None, f"The training images are not known: {named} is no longer the data set that {run.path.name} saw."
    # What one member of an ensemble holds out, the others learn from.
    held = [part for name, part in rows.items() if name != "tuning" or not metrics.get("members")]
    return records.subset(~ids.isin({image for part in held for image in part.image_id}).to_numpy(bool)), ""


def _chose(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the splits of a training whose rows had a say in its epoch, temperature or decision."""
    said = metrics.get("training") or {}
    watched = said.get("early_stopping_rows") == "validation" and said.get("monitor") != "last"
    return ("tuning", "validation") if watched else ("tuning",)


def _by_hashes(records: Records, evaluation: Mapping[str, Any] | None, unknown: str) -> Overlap:
    """Return the overlap by the hashes in a bundle; not known, as ``unknown`` says, where it names none.

    The file of an image is the same or it is not: a copy of another size or format is known by its lesion alone.
    """
    none = np.zeros(len(records), np.bool_)
    roles = trained_on(evaluation) if evaluation else {}
    if evaluation is None or "train" not in roles:
        return Overlap(False, unknown, none, none, none, none, none)
    files, lesions = image_hashes(records)
    same = {role: np.array([each in known.files for each in files], np.bool_) for role, known in roles.items()}
    counts = [len(getattr(roles["train"], name)) for name in ("files", "lesions")]
    basis = (
        f"Compared with the hashes of the {counts[0]:,} image files and {counts[1]:,} lesions that the bundle learned "
        "from; copies of another size are known by their lesion id alone."
    )
    met: dict[str, BoolArray] = {}
    generated = records.synthetic and (evaluation.get("data") or {}).get("synthetic")
    if generated and not any(each.any() for each in same.values()):
        # Generated data sets number their lesions alike, whatever their seed.
        return Overlap(True, f"{basis} None of these generated images is among them.", none, none, none, none, none)
    for role, known in roles.items():
        # Of a file that was recognised the lesion is known, whatever this table calls it.
        shown = {lesion for lesion, found in zip(lesions, same[role], strict=True) if found} | known.lesions
        met[role] = np.array([lesion in shown for lesion in lesions], np.bool_)
    chose = none.copy()
    for role in _chose(evaluation):
        chose |= met.get(role, none)
    return Overlap(
        True,
        basis,
        same["train"],
        met["train"],
        same.get("tuning", none),
        same.get("validation", none),
        chose & ~met["train"],
    )


def _choosing(
    rows: Mapping[str, Scored], classes: tuple[str, ...], images: set[Any], lesions: set[Any]
) -> tuple[Scored | None, str]:
    name = "tuning" if "tuning" in rows else "validation"
    part = rows.get(name)
    if part is None or part.classes != classes:
        return None, name
    free = [
        image not in images and lesion not in lesions
        for image, lesion in zip(part.image_id, part.lesion_id, strict=True)
    ]
    return part.take(np.array(free, dtype=np.bool_)), name


def _same_files(records: Records, other: Records) -> bool:
    """Whether two data sets with equal ids hold the same files, judged by the first few pairs."""
    theirs = dict(zip(other.table["image_id"], other.table["path"], strict=True))
    pairs = [
        (mine, theirs[image])
        for image, mine in zip(records.table["image_id"], records.table["path"], strict=True)
        if image in theirs
    ]
    return any(Path(mine).read_bytes() == Path(their).read_bytes() for mine, their in pairs[:_PAIRS])
