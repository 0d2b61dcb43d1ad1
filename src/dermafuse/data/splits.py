"""Training and validation rows: by image (as the mission does) or by lesion (nothing leaks), once or k-fold.

A split depends on the image ids, labels, lesion ids and the seed alone, never on the order of the rows.

- By image: scikit-learn's ``train_test_split`` and ``StratifiedKFold`` on the rows in order of image id.
- By lesion: a lesion goes whole to one side. scikit-learn has no stratified *grouped* single split, and its
  ``StratifiedGroupKFold`` deals differently from version to version, so the order of chance is
  ``sha256(seed, lesion_id)`` (the same on every machine, and unchanged for old lesions when new ones come)
  and lesions are dealt class by class until the share of images is met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from dermafuse.data.records import Records
from dermafuse.errors import ConfigError, DataError, examples, nearest

By = Literal["lesion", "image"]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row positions of a table: ``train`` and ``validation``, int64, ascending, each row on one side."""

    train: Rows
    validation: Rows


@dataclass(frozen=True)
class ClassLeakage:
    """Leakage of one class: validation images, how many leak, and their share in 0..1."""

    validation_images: int
    leaked_images: int
    share: float


@dataclass(frozen=True)
class Leakage:
    """How much of the validation set shows lesions that are in training too.

    Attributes:
        lesions_known: whether the data name their lesions; without, the numbers below say nothing.
        shared_lesions: lesions with images on both sides.
        validation_images: images in the validation set.
        leaked_images: validation images whose lesion is also in training.
        share: ``leaked_images / validation_images``, 0..1.
        per_class: the same for each class with validation images.
    """

    lesions_known: bool
    shared_lesions: int
    validation_images: int
    leaked_images: int
    share: float
    per_class: dict[str, ClassLeakage]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as they stand in ``metrics.json`` under ``leakage``."""
        return asdict(self)


def make_split(records: Records | pd.DataFrame, *, by: By = "lesion", seed: int, fraction: float = 0.2) -> Split:
    """Split rows into training and validation, keeping the proportions of the labels.

    Args:
        records: records, or a table with ``image_id``, ``lesion_id`` and ``label``.
        by: ``"image"``, or ``"lesion"`` to keep all images of a lesion on one side.
        seed: 0 to 2**32 - 1.
        fraction: share of images for validation, between 0 and 1. By lesion it is met in each class up to
            half an image set of one lesion; each class that is present has a lesion on both sides.

    Raises:
        DataError: rows without a label, or a class too small for two sides.
        ConfigError: ``by``, ``seed`` or ``fraction`` is not usable.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(f"The validation fraction is {fraction}; give a number between 0 and 1, such as 0.2.")
    table = _checked(records, by, seed, parts=2)
    n = len(table)
    if by == "image":
        classes = int(table["label"].nunique())
        small = min(int(np.ceil(n * fraction)), int(np.floor(n * (1 - fraction))))
        if small < classes:
            raise DataError(
                f"{n:,} images are too few to give each of {classes} classes a place in a "
                f"{1 - fraction:.0%}/{fraction:.0%} split; use more images or another fraction."
            )
        chosen = train_test_split(
            np.arange(n), test_size=fraction, stratify=table["label"].to_numpy(), random_state=seed
        )[1]
        inside = np.zeros(n, bool)
        inside[chosen] = True
    else:
        picked: set[str] = set()
        for lesions in _lesions_by_class(table, seed):
            picked |= _pick(lesions, fraction)
        inside = table["lesion_id"].isin(picked).to_numpy(bool)
    return _split(table, inside)


def make_folds(records: Records | pd.DataFrame, *, by: By = "lesion", k: int, seed: int) -> list[Split]:
    """Return ``k`` splits whose validation sides together hold every row once, labels kept in proportion.

    By lesion, the images of a class differ between two folds by at most the images of one lesion.

    Raises:
        DataError: rows without a label, or a class with fewer than ``k`` images or lesions.
        ConfigError: ``by``, ``seed`` or ``k`` is not usable.
    """
    if k < 2:
        raise ConfigError(f"{k} folds are not possible; give 2 or more.")
    table = _checked(records, by, seed, parts=k)
    n = len(table)
    fold = np.empty(n, dtype=np.int64)
    if by == "image":
        dealer = StratifiedKFold(n_splits=k, shuffle=True, random_state=seed)
        for number, (_, rows) in enumerate(dealer.split(np.zeros((n, 1)), table["label"].to_numpy())):
            fold[rows] = number
    else:
        home: dict[str, int] = {}
        total = [0] * k
        for lesions in _lesions_by_class(table, seed):
            held = [0] * k
            # Large lesions first: the small ones then level the folds. The sort keeps the order of chance.
            for lesion, size in sorted(lesions, key=lambda item: -item[1]):
                number = min(range(k), key=lambda f: (held[f], total[f], f))
                home[lesion] = number
                held[number] += size
                total[number] += size
        fold[:] = table["lesion_id"].map(home).to_numpy(np.int64)
    return [_split(table, fold == number) for number in range(k)]


def leakage(records: Records | pd.DataFrame, split: Split) -> Leakage:
    """Return how many validation images show a lesion that is also in training."""
    table = _table(records)
    train, validation = table.iloc[split.train], table.iloc[split.validation]
    leaks = validation["lesion_id"].isin(set(train["lesion_id"])).to_numpy(bool)
    labels = validation["label"]
    classes = sorted(labels.dropna().unique())
    n = len(validation)
    return Leakage(
        lesions_known=records.has_lesions if isinstance(records, Records) else True,
        shared_lesions=int(validation["lesion_id"][leaks].nunique()),
        validation_images=n,
        leaked_images=int(leaks.sum()),
        share=float(leaks.mean()) if n else 0.0,
        per_class={
            str(code): ClassLeakage(int(own.sum()), int(leaks[own].sum()), float(leaks[own].mean()))
            for code in classes
            if (own := (labels == code).to_numpy(bool)).any()
        },
    )


def _table(records: Records | pd.DataFrame) -> pd.DataFrame:
    return records.table if isinstance(records, Records) else records


def _checked(records: Records | pd.DataFrame, by: str, seed: int, parts: int) -> pd.DataFrame:
    """Return ids, labels and original positions (column ``row``) in order of image id, after all checks."""
    if by not in ("lesion", "image"):
        raise ConfigError(f"Splits are made by 'lesion' or 'image', not by '{by}'.{nearest(by, ['lesion', 'image'])}")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The seed is {seed}; give a whole number from 0 to {2**32 - 1}.")
    table = _table(records)[["image_id", "lesion_id", "label"]].reset_index(drop=True)
    table["row"] = np.arange(len(table), dtype=np.int64)
    if table.empty:
        raise DataError("There are no images to split; check what was read.")
    bare = table.loc[table["label"].isna(), "image_id"]
    if len(bare):
        raise DataError(f"{len(bare):,} image(s) have no label ({examples(bare)}); a split needs all of them.")
    table = table.sort_values("image_id", kind="stable", ignore_index=True)
    units = table if by == "image" else _lesion_table(table)
    sizes = units["label"].value_counts()
    small = sizes[sizes < parts]
    if len(small):
        code = sorted(small.index)[0]
        raise DataError(
            f"Class '{code}' has {small[code]} {by}(s), too few for {parts} parts that share none; "
            "add images or leave the class out."
        )
    return table


def _lesion_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a lesion: ``label`` (its most frequent, the first by name among equals) and ``size``."""
    counts = table.groupby(["lesion_id", "label"], sort=True).size().rename("n").reset_index()
    first = counts.sort_values(["lesion_id", "n", "label"], ascending=[True, False, True])
    lesions = first.drop_duplicates("lesion_id").set_index("lesion_id")[["label"]]
    return lesions.assign(size=table.groupby("lesion_id").size())


def _lesions_by_class(table: pd.DataFrame, seed: int) -> list[list[tuple[str, int]]]:
    """Return, class by class in order of name, (lesion id, images) in the order of chance of ``seed``."""
    lesions = _lesion_table(table)
    chance = [hashlib.sha256(f"{seed}:{lesion}".encode()).digest() for lesion in lesions.index]
    ordered = lesions.assign(chance=chance).sort_values(["label", "chance"], kind="stable")
    return [
        list(zip(part.index.astype(str), part["size"].astype(int), strict=True))
        for _, part in ordered.groupby("label", sort=True)
    ]


def _pick(lesions: Sequence[tuple[str, int]], fraction: float) -> set[str]:
    """Return lesions for validation whose images come as close to ``fraction`` as dealing in order allows.

    A lesion is taken where that brings the count nearer to the target. Both sides get at least one lesion.
    """
    target = fraction * sum(size for _, size in lesions)
    picked: list[str] = []
    taken = 0
    for lesion, size in lesions:
        if 2 * taken + size <= 2 * target:
            picked.append(lesion)
            taken += size
    if not picked:
        picked = [min(lesions, key=lambda item: item[1])[0]]
    if len(picked) == len(lesions):
        picked.remove(min(lesions, key=lambda item: item[1])[0])
    return set(picked)


def _split(table: pd.DataFrame, inside: npt.NDArray[np.bool_]) -> Split:
    rows = table["row"].to_numpy(np.int64)
    return Split(train=np.sort(rows[~inside]), validation=np.sort(rows[inside]))
