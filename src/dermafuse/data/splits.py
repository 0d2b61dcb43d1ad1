"""Training and validation rows: by image (as the mission does) or by lesion (nothing leaks), once or k-fold.

A split depends on the image ids, labels, lesion ids and the seed alone, never on the order of the rows.

- By image: scikit-learn's ``train_test_split`` and ``StratifiedKFold`` on the rows in order of image id.
- By lesion (or patient: whatever images share): a lesion goes whole to one side, and every side holds every class
  wherever that is possible (``dealing``). scikit-learn has no stratified *grouped* single split, and its
  ``StratifiedGroupKFold`` deals differently from version to version, so the order of chance is
  ``sha256(seed, lesion_id)`` (the same on every machine, and unchanged for old lesions when new ones come)
  and lesions are dealt class by class until the share of images is met.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from dermafuse.data.dealing import Groups, cover, deal_folds, deal_share, divisible, groups_of
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


def make_split(
    records: Records | pd.DataFrame, *, by: By = "lesion", seed: int, fraction: float = 0.2, train_parts: int = 1
) -> Split:
    """Split rows into training and validation, keeping the proportions of the labels.

    Args:
        records: records, or a table with ``image_id``, ``lesion_id`` and ``label``.
        by: ``"image"``, or ``"lesion"`` to keep all images of a lesion on one side.
        seed: 0 to 2**32 - 1.
        fraction: share of images for validation, between 0 and 1. By lesion it is met in each class up to
            half an image set of one lesion (nearly, where lesions hold several classes); each class that is present
            has a lesion on both sides.
        train_parts: into how many parts by lesion the training side will be divided again: 2 where tuning rows are
            held out. A split that would not allow it is mended, or refused.

    Raises:
        DataError: rows without a label, or classes in too few lesions for so many parts.
        ConfigError: ``by``, ``seed`` or ``fraction`` is not usable.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(f"The validation fraction is {fraction}; give a number between 0 and 1, such as 0.2.")
    table = _checked(records, by, seed)
    n = len(table)
    if by == "image":
        _enough_images(table, 2)
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
        check_training_side(records, _split(table, inside).train, train_parts)
    else:
        groups = groups_of(table, seed, _word(records))
        groups.refuse_too_few(1 + train_parts, _parts(1 + train_parts, train_parts))
        part = cover(groups, deal_share(groups, fraction), (1, *[0] * train_parts))
        inside = _of_rows(table, groups, part) == 1
    return _split(table, inside)


def make_folds(
    records: Records | pd.DataFrame, *, by: By = "lesion", k: int, seed: int, train_parts: int = 1
) -> list[Split]:
    """Return ``k`` splits whose validation sides together hold every row once, labels kept in proportion.

    By lesion, the images of a class differ between two folds by at most the images of one lesion (nearly, where
    lesions hold several classes), and each class has a lesion in every fold. ``train_parts`` as in ``make_split``.

    Raises:
        DataError: rows without a label, or a class with fewer than ``k`` images or lesions.
        ConfigError: ``by``, ``seed`` or ``k`` is not usable.
    """
    if k < 2:
        raise ConfigError(f"{k} folds are not possible; give 2 or more.")
    table = _checked(records, by, seed)
    n = len(table)
    fold = np.empty(n, dtype=np.int64)
    if by == "image":
        _enough_images(table, k)
        dealer = StratifiedKFold(n_splits=k, shuffle=True, random_state=seed)
        for number, (_, rows) in enumerate(dealer.split(np.zeros((n, 1)), table["label"].to_numpy())):
            fold[rows] = number
    else:
        groups = groups_of(table, seed, _word(records))
        # Each of two folds trains the model of the other; of more, those in training can be parts by themselves.
        pieces = train_parts if k == 2 else 1
        parts = max(k * pieces, 1 + train_parts)
        groups.refuse_too_few(parts, _parts(parts, train_parts if parts == 1 + train_parts else 1))
        fold = _of_rows(table, groups, cover(groups, deal_folds(groups, k), sorted([*range(k)] * pieces)))
    folds = [_split(table, fold == number) for number in range(k)]
    if by == "image" or train_parts >= k:
        for split in folds:
            check_training_side(records, split.train, train_parts)
    return folds


def refuse_one_class(records: Records) -> None:
    """Raise a DataError where all images show one class."""
    shown = [code for code, count in records.counts().items() if count]
    if len(shown) == 1:
        raise DataError(
            f"All {len(records):,} images of {records.root} show '{shown[0]}', and a model learns nothing from one "
            "class; add images of another class."
        )


def check_training_side(records: Records | pd.DataFrame, rows: Rows, train_parts: int) -> None:
    """Refuse training rows that lack a class which the others have, or that cannot be divided again by lesion.

    Raises:
        DataError: says so, with the counts.
    """
    table = _table(records)
    train = table.iloc[rows]
    for code in sorted(set(table["label"].dropna()) - set(train["label"])):
        raise DataError(
            f"The split leaves no image of class '{code}' to learn from (there are {(table['label'] == code).sum():,} "
            "in all); move some to the training part or leave the class out."
        )
    if train_parts > 1:
        word = _word(records)
        groups = groups_of(train, 0, word)
        groups.refuse_too_few(train_parts, f"the {train_parts} parts by {word} that training needs", " in training")
        divisible(groups, train_parts)


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


def _word(records: Records | pd.DataFrame) -> str:
    return records.group if isinstance(records, Records) else "lesion"


def _checked(records: Records | pd.DataFrame, by: str, seed: int) -> pd.DataFrame:
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
    return table.sort_values("image_id", kind="stable", ignore_index=True)


def _enough_images(table: pd.DataFrame, parts: int) -> None:
    sizes = table["label"].value_counts()
    for code in sorted(sizes[sizes < parts].index):
        raise DataError(
            f"Class '{code}' has {sizes[code]} image(s), too few for {parts} parts that share none; "
            "add images or leave the class out."
        )


def _parts(parts: int, train_parts: int) -> str:
    """Say what ``parts`` parts are for."""
    if train_parts == 1:
        return f"{parts} parts that share none"
    inner = "tuning and training" if train_parts == 2 else f"{train_parts} of training"
    return f"{parts} parts that share none (validation, {inner})"


def _of_rows(table: pd.DataFrame, groups: Groups, part: Rows) -> Rows:
    """Return the part of each row of the table."""
    home = dict(zip(groups.names, part.tolist(), strict=True))
    return table["lesion_id"].map(home).to_numpy(np.int64)


def _split(table: pd.DataFrame, inside: npt.NDArray[np.bool_]) -> Split:
    rows = table["row"].to_numpy(np.int64)
    return Split(train=np.sort(rows[~inside]), validation=np.sort(rows[inside]))
