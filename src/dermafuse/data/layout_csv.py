"""Any table of images, through a small TOML file that names its columns.

``dermafuse.toml`` next to the table (or any ``.toml``, named on the command line)::

    table = "metadata.csv"            # required; relative to this file
    image = "img_id"                  # required; column of image names, with or without suffix
    images = ["imgs_part_1", "more"]  # folder or folders, searched recursively; default: this file's folder
    extension = ".png"                # only files with this suffix; default: every known image suffix
    label = "diagnostic"              # column of the diagnosis
    lesion = "lesion_id"              # column of the lesion (or patient) that images share; optional
    source = "hospital"               # column of where an image comes from; optional
    numeric = ["age"]                 # numeric features: columns, or { feature = "column" }
    categorical = { sex = "gender" }  # categorical features, likewise
    classes = ["benign", "malignant"] # default: the seven codes of HAM10000
    ignore = ["UNK"]                  # diagnoses whose rows are dropped (and counted)

    [labels]                          # the table's diagnosis -> class
    NEV = "nv"

    [values.sex]                      # a category of the table -> the category to learn from
    F = "female"

Diagnoses and categories are compared without regard to case, and categories are kept in lower case, so that
``MALE`` and ``male`` are one. ``age`` is in years, 0 to 120. Empty cells (and ``NA``, ``NaN``, ``null``,
``none``) are missing values; ``unknown`` is missing in a number, and a category of its own elsewhere.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator, model_validator

from dermafuse.data.assemble import Draft, assemble
from dermafuse.data.records import NEVER_FEATURES, Records
from dermafuse.data.scan import IMAGE_SUFFIXES, scan
from dermafuse.data.tables import (
    AGE_RANGE,
    check_image_ids,
    find_columns,
    optional_text,
    parse_numbers,
    read_table,
)
from dermafuse.diagnoses import CODES
from dermafuse.errors import ConfigError, DataError, nearest


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_mapping(value: Any) -> Any:
    """``["age"]`` is short for ``{age = "age"}``."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        if len(set(value)) < len(value):
            raise ValueError("a column is named twice")
        return {name: name for name in value}
    return value


Columns = Annotated[dict[str, str], BeforeValidator(_as_mapping)]


class TableDescription(BaseModel):
    """The keys of the TOML file; see the module's docstring."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    table: str
    image: str
    images: Annotated[list[str], BeforeValidator(_as_list)] = ["."]
    extension: str | None = None
    label: str | None = None
    lesion: str | None = None
    source: str | None = None
    numeric: Columns = {}
    categorical: Columns = {}
    classes: list[str] = list(CODES)
    ignore: list[str] = []
    labels: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}

    @field_validator("extension")
    @classmethod
    def _known_extension(cls, value: str | None) -> str | None:
        suffix = None if value is None else "." + value.lower().lstrip(".")
        if suffix is not None and suffix not in IMAGE_SUFFIXES:
            raise ValueError(f"'{value}' is not one of {', '.join(sorted(IMAGE_SUFFIXES))}")
        return suffix

    @field_validator("classes")
    @classmethod
    def _sorted_classes(cls, value: list[str]) -> list[str]:
        if len(value) < 2 or len(set(value)) < len(value) or not all(name.strip() for name in value):
            raise ValueError("at least two different names are needed")
        return sorted(value)

    @model_validator(mode="after")
    def _consistent(self) -> TableDescription:
        for raw, code in self.labels.items():
            if code not in self.classes:
                raise ValueError(
                    f"[labels] sends '{raw}' to '{code}', which is not one of the classes "
                    f"{', '.join(self.classes)}.{nearest(code, self.classes)}"
                )
        told = {name.lower() for name in (self.label, self.lesion, self.image, "dx_type") if name}
        for feature, column in [*self.numeric.items(), *self.categorical.items()]:
            if feature in NEVER_FEATURES or column.lower() in told:
                raise ValueError(f"'{column}' cannot be a feature: it names the image or comes with its diagnosis")
        if "age" in self.categorical:
            raise ValueError("'age' is in years: list it under numeric")
        for feature in set(self.numeric) & ({"sex", "localization"} | set(self.categorical)):
            raise ValueError(f"'{feature}' cannot be numeric: it is a category")
        for feature in self.values:
            if feature not in self.categorical:
                raise ValueError(
                    f"[values.{feature}] is not a categorical feature.{nearest(feature, self.categorical)}"
                )
        return self


def read_description(path: Path) -> TableDescription:
    """Read and check a TOML file.

    Raises:
        ConfigError: not TOML, a key unknown (with the nearest known one), missing, or of the wrong kind.
    """
    try:
        return TableDescription.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}; check the file and its rights.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML ({error}); mend it.") from error
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling says more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = TableDescription.model_fields
            raise ConfigError(
                f"{path}: unknown key '{key}'.{nearest(key, known) or ' Known are ' + ', '.join(known) + '.'}"
            ) from error
        if first["type"] == "missing":
            raise ConfigError(f"{path}: the key '{key}' is missing; add it.") from error
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise ConfigError(f"{path}: {key + ': ' if key else ''}{said}; mend it.") from error


def read_csv(path: Path, *, labelled: bool) -> Records:
    """Read the table that a TOML file describes, and join it to its images.

    Raises:
        ConfigError: see `read_description`.
        DataError: see `dermafuse.data.readers.read_dataset`.
    """
    told = read_description(path)
    home = path.parent
    table = home / told.table
    if not table.is_file():
        raise DataError(f"The table {table}, named in {path.name}, does not exist; check the path.")
    if labelled and told.label is None:
        raise ConfigError(f"{path}: the key 'label' is missing; name the column of the diagnosis.")
    found = scan(
        [home / folder for folder in told.images],
        suffixes=frozenset({told.extension}) if told.extension else IMAGE_SUFFIXES,
    )
    frame = read_table(table)
    names = [told.image, told.label, told.lesion, told.source, *told.numeric.values(), *told.categorical.values()]
    if not labelled and told.label is not None and told.label.lower() not in map(str.lower, frame.columns):
        names.remove(told.label)
    column = find_columns(frame, [name for name in names if name], table)

    raw: list[str | None] = [None] * len(frame)
    if told.label in column:
        raw = optional_text(frame[column[told.label]])
    ignored = {label.lower() for label in told.ignore}
    dropped = pd.Series([label is not None and label.lower() in ignored for label in raw], dtype=bool)
    names_of_images = [_bare(str(name)) for name in frame[column[told.image]]]
    check_image_ids(names_of_images, table)
    gone = frozenset(name for name, out in zip(names_of_images, dropped, strict=True) if out)
    frame = frame[~dropped].reset_index(drop=True)
    ids = [name for name in names_of_images if name not in gone]
    notes: list[str] = []
    if gone:
        notes.append(f"{len(gone):,} row(s) are dropped, as `ignore` says ({', '.join(told.ignore)}).")
    labels = _labels([label for label, out in zip(raw, dropped, strict=True) if not out], told, notes)

    text: dict[str, list[str | None]] = {
        feature: _categories(frame[column[name]], told.values.get(feature, {}))
        for feature, name in told.categorical.items()
    }
    if told.source is not None:
        text["source"] = optional_text(frame[column[told.source]])
    return assemble(
        Draft(
            table=table,
            ids=ids,
            labels=labels,
            lesions=[] if told.lesion is None else optional_text(frame[column[told.lesion]]),
            text=text,
            numbers={
                feature: parse_numbers(
                    list(frame[column[name]]), ids, name, table, AGE_RANGE if feature == "age" else None
                )
                for feature, name in told.numeric.items()
            },
            dropped=gone,
            notes=notes,
        ),
        found,
        layout="csv",
        root=path,
        labelled=labelled,
        classes=tuple(told.classes),
        numeric=tuple(told.numeric),
        categorical=tuple(told.categorical),
    )


def _bare(name: str) -> str:
    """Return an image name without its image suffix (other dots belong to the name)."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _labels(raw: list[str | None], told: TableDescription, notes: list[str]) -> list[str | None]:
    """Map the table's diagnoses to classes, without regard to case; unknown ones are left as they are."""
    known = {name.lower(): name for name in told.classes}
    known |= {name.lower(): code for name, code in told.labels.items()}
    labels = [None if label is None else known.get(label.lower(), label) for label in raw]
    moved = Counter((a, b) for a, b in zip(raw, labels, strict=True) if a and b and a.lower() != b.lower())
    if moved:
        listed = ", ".join(f"{old} -> {new} ({n:,})" for (old, new), n in sorted(moved.items()))
        notes.append(f"Diagnoses mapped: {listed}.")
    return labels


def _categories(values: pd.Series, mapping: dict[str, str]) -> list[str | None]:
    lowered = {old.lower(): new.lower() for old, new in mapping.items()}
    return optional_text(lowered.get(str(value).lower(), str(value).lower()) for value in values)
