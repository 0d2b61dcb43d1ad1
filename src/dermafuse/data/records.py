"""One row an image: the table every reader hands out, and what a person wants to know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse import notebook
from dermafuse.data.values import UNKNOWN
from dermafuse.errors import DataError
from dermafuse.labels import HAM10000, LabelSet

#: Columns that every table has, in this order; a custom CSV adds its own after them.
COLUMNS: Final[tuple[str, ...]] = (
    "image_id",
    "lesion_id",
    "label",
    "path",
    "age",
    "sex",
    "localization",
    "dx_type",
    "source",
)

#: Columns that describe the image or were decided with the diagnosis: never an input of a model.
NEVER_FEATURES: Final[frozenset[str]] = frozenset(COLUMNS) - {"age", "sex", "localization"}

#: A file of this name in a data folder says that its images are generated.
SYNTHETIC_MARKER: Final = "SYNTHETIC.txt"


def no_rows_skipped() -> pd.DataFrame:
    """Return the empty list of skipped rows: text columns ``image_id``, ``path``, ``reason``."""
    return pd.DataFrame({name: pd.Series([], dtype=object) for name in ("image_id", "path", "reason")})


@dataclass(frozen=True, eq=False)
class Records:
    """A data set as one table, one row an image, checked.

    Attributes:
        table: RangeIndex; columns `COLUMNS` and, for a custom CSV, the further features it names.
            Text columns have dtype object, holding ``str``, or ``None`` where missing; ``age`` and other
            numeric features are float64, NaN where missing. ``image_id`` is unique. ``lesion_id`` is
            never missing: where the data names none, the image stands for its own lesion. ``label`` is a
            member of ``labels``, ``None`` only where reading without labels was asked for. ``path`` is
            absolute.
        layout: ``"kaggle"``, ``"dataverse"``, ``"isic2018"``, ``"isic2019"`` or ``"csv"``.
        root: absolute folder (or ``.toml`` file) that was read.
        labels: the classes a model of these data tells apart, in the order of its outputs, and which are malignant.
        numeric: names of the numeric features, ``()`` where the layout has none.
        categorical: names of the categorical features, ``()`` likewise.
        skipped: rows that could not be used: columns ``image_id``, ``path``, ``reason``.
        notes: sentences for the user: what was mapped, dropped or left out, with counts.
        synthetic: whether the folder says that its images are generated.
        has_lesions: whether lesion ids are known (for at least one image).
        values: categorical feature -> word of the table -> word in ``table``, as its reader mapped them
            (`dermafuse.data.words.mapping`): a model of these data carries them.
        group: what ``lesion_id`` names: ``"lesion"``, ``"patient"``, or ``"group"`` where that is not known. Images of
            a lesion have one diagnosis; those of a patient may have several.

    Example:
        >>> import dermafuse as df
        >>> records = df.read_dataset(data)
        >>> first = records.subset(range(10))
        >>> len(first), first.table.columns[:3].tolist(), sum(first.counts().values())
        (10, ['image_id', 'lesion_id', 'label'], 10)
    """

    table: pd.DataFrame
    layout: str
    root: Path
    labels: LabelSet = HAM10000
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    skipped: pd.DataFrame = field(default_factory=no_rows_skipped)
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    has_lesions: bool = True
    values: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    group: str = "lesion"

    def __len__(self) -> int:
        return len(self.table)

    def _repr_html_(self) -> str:
        return notebook.table(("class", "images"), self.counts().items(), title=str(self.root), notes=self.notes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Codes of the classes, in the order of a model's outputs."""
        return self.labels.codes

    @property
    def has_metadata(self) -> bool:
        """Whether any clinical feature (numeric or categorical) comes with the images."""
        return bool(self.numeric or self.categorical)

    def subset(self, rows: Sequence[int] | Sequence[bool] | np.ndarray | pd.Series) -> Records:
        """Return the records of some rows, in the order given, numbered from 0 again.

        Args:
            rows: integer row positions, or a boolean mask as long as the table.

        Raises:
            DataError: a mask of another length, or a position outside the table.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise DataError(f"A mask of {chosen.size:,} values cannot choose among {len(self):,} rows.")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        if outside.size:
            raise DataError(f"Row {outside[0]} does not exist: the table has rows 0 to {len(self) - 1}.")
        return replace(self, table=self.table.iloc[chosen].reset_index(drop=True))

    def known(self, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Return for each row its values of ``fields`` (columns of the table), without those that are missing."""
        rows = self.table[list(fields)].to_dict("records")
        return [{str(name): value for name, value in row.items() if not pd.isna(value)} for row in rows]

    def is_missing(self, feature: str) -> npt.NDArray[np.bool_]:
        """Return (n,) which rows have no value of a feature: an empty cell, and in a category the word ``unknown``."""
        column = self.table[feature]
        missing: npt.NDArray[np.bool_] = np.array(column.isna(), dtype=np.bool_)
        return missing | np.array(column.eq(UNKNOWN), dtype=np.bool_) if feature in self.categorical else missing

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class, in the order of ``classes`` (0 where there is none)."""
        found = self.table["label"].value_counts()
        return {code: int(found.get(code, 0)) for code in self.classes}


def summarize(records: Records) -> dict[str, Any]:
    """Return what ``dermafuse check`` shows of a data set, as plain JSON values.

    Keys: ``layout``, ``root``, ``synthetic``, ``images``, ``lesions``, ``lesions_known``, ``group`` (what
    the ids of lesions name), ``unlabelled``;
    ``classes`` (code -> ``{"images", "lesions", "share"}``, share of labelled images in 0..1); ``missing``
    (feature -> count of rows without a value, `Records.is_missing`); ``age`` (``min``, ``median``, ``max`` in
    years, or ``None``);
    ``categories`` (feature -> value -> count, most frequent first); ``images_per_lesion`` (``mean``,
    ``max``, ``histogram``: number of images -> number of lesions); ``sources`` (where known, else ``{}``);
    ``skipped`` (count), ``skipped_share`` (of all rows read), ``skipped_reasons``; ``notes``.
    """
    table = records.table
    counts = records.counts()
    labelled = sum(counts.values())
    lesions = {str(k): int(v) for k, v in table.groupby("label")["lesion_id"].nunique().items()}
    sizes = table["lesion_id"].value_counts()
    ages = table["age"].dropna()
    features = (*records.numeric, *records.categorical)
    skipped = len(records.skipped)
    return {
        "layout": records.layout,
        "root": str(records.root),
        "synthetic": records.synthetic,
        "images": len(table),
        "lesions": len(sizes),
        "lesions_known": records.has_lesions,
        "group": records.group,
        "unlabelled": len(table) - labelled,
        "classes": {
            code: {"images": n, "lesions": lesions.get(code, 0), "share": n / labelled if labelled else 0.0}
            for code, n in counts.items()
        },
        "missing": {name: int(records.is_missing(name).sum()) for name in features},
        "age": {"min": float(ages.min()), "median": float(ages.median()), "max": float(ages.max())}
        if len(ages)
        else None,
        "categories": {name: _tally(table[name]) for name in records.categorical},
        "images_per_lesion": {
            "mean": float(sizes.mean()) if len(sizes) else 0.0,
            "max": int(sizes.max()) if len(sizes) else 0,
            "histogram": {str(k): int(v) for k, v in sizes.value_counts().sort_index().items()},
        },
        "sources": _tally(table["source"]),
        "skipped": skipped,
        "skipped_share": skipped / (len(table) + skipped) if skipped else 0.0,
        "skipped_reasons": _tally(records.skipped["reason"]),
        "notes": list(records.notes),
    }


def _tally(values: pd.Series) -> dict[str, int]:
    """Count the values that are not missing, most frequent first, equal counts by name."""
    found = {str(value): int(count) for value, count in values.dropna().value_counts().items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
