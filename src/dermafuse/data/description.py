"""``dermafuse.toml``: the small file that says which column of a table means what.

It lies next to the table (or is any ``.toml``, named on the command line)::

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
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator, model_validator

from dermafuse.data.records import NEVER_FEATURES
from dermafuse.data.scan import IMAGE_SUFFIXES
from dermafuse.diagnoses import CODES
from dermafuse.errors import ConfigError, nearest


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
