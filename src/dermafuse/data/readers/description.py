"""``dermafuse.toml``: the small file that says which column of a table means what.

It lies next to the table (or is any ``.toml``, named on the command line)::

    table = "metadata.csv"            # relative to this file; or `folders`, where there is no table
    folders = ["split", "label"]      # the folders below `images`, from the top, as columns of these names
    image = "img_id"                  # required with a table; column of image names
    images = ["imgs_part_1", "more"]  # folder or folders, searched recursively; default: this file's folder
    extension = ".png"                # only files with this suffix; default: every known image suffix
    label = "diagnostic"              # column of the diagnosis, or a list of one-hot columns
    lesion = "lesion_id"              # column of the lesion that images share; optional
    patient = "patient_id"            # column of the patient: all images of one stay together; optional
    source = "hospital"               # column of where an image comes from; optional
    split = "split"                   # column that says train, validation or test; optional
    fold = "fold"                     # column of the fold for cross-validation; optional
    numeric = ["age"]                 # numeric features: columns, or { feature = "column" }
    categorical = { sex = "gender" }  # categorical features, likewise
    classes = ["benign", "malignant"] # default: the seven codes of HAM10000
    malignant = ["malignant"]         # which of them are malignant; known of HAM10000's codes, else say it here
    critical = "malignant"            # the class that must not be missed, likewise; optional
    ignore = ["UNK", "", "*"]         # diagnoses whose rows are dropped: "" is blank, "*" all that are no class

    [names]                           # class -> its name in reports; optional
    benign = "benign lesion"

    [labels]                          # the table's diagnosis -> class
    "benign nevus" = "benign"

    [values.sex]                      # a category of the table -> the category to learn from ("": missing)
    F = "female"

    [keep]                            # only rows where a column has one of these values
    image_type = "dermoscopic"

    [join]                            # a second table, such as labels per lesion
    table = "ground_truth.csv"
    on = "lesion_id"                  # the column that both have, or { here = "there" }

Diagnoses and categories are compared without regard to case, ``_`` and blanks, and categories are kept in lower
case, so that ``MALE`` and ``male`` are one. ``age`` is in years, 0 to 120. Empty cells (and ``NA``, ``NaN``,
``null``, ``none``) are missing values; ``unknown`` is missing in a number, and a category of its own elsewhere.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator, model_validator

from dermafuse.data.records import NEVER_FEATURES
from dermafuse.data.scan import IMAGE_SUFFIXES
from dermafuse.data.words import mapping, normal
from dermafuse.errors import ConfigError, DataError, nearest
from dermafuse.files import read_regular
from dermafuse.labels import HAM10000, LabelSet


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
Words = Annotated[list[str], BeforeValidator(_as_list)]

#: What a given split may send a row to; ``""``: to no part.
PARTS: Final = ("train", "validation", "test")

#: In ``ignore``: all diagnoses that are no class.
OTHERS: Final = "*"

#: The column of image paths where folders stand for a table.
FOLDER_IMAGE: Final = "image"


#: Columns of the records that hold what `split` and `fold` say.
SPLIT: Final = "given_split"
FOLD: Final = "given_fold"


def label_word(text: str) -> str:
    """Return a diagnosis as diagnoses compare: see `dermafuse.data.words.normal`; ``""`` for a blank."""
    return normal(text) or ""


class Join(BaseModel):
    """A second table whose columns are added to the first."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    table: str
    on: Annotated[dict[str, str], BeforeValidator(lambda value: {value: value} if isinstance(value, str) else value)]

    @field_validator("on")
    @classmethod
    def _one_column(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) != 1:
            raise ValueError('one column is needed, such as "lesion_id" or { lesion_id = "case" }')
        return value


class TableDescription(BaseModel):
    """The keys of the TOML file; see the module's docstring."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    table: str | None = None
    folders: Words = []
    image: str | None = None
    images: Words = ["."]
    extension: str | None = None
    label: Words = []
    lesion: str | None = None
    patient: str | None = None
    source: str | None = None
    split: str | None = None
    fold: str | None = None
    numeric: Columns = {}
    categorical: Columns = {}
    classes: list[str] = list(HAM10000.codes)
    malignant: Annotated[list[str] | None, BeforeValidator(_as_list)] = None
    critical: str | None = None
    names: dict[str, str] = {}
    ignore: list[str] = []
    labels: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    keep: dict[str, Words] = {}
    join: Join | None = None

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

    @field_validator("folders", "label")
    @classmethod
    def _distinct_names(cls, value: list[str]) -> list[str]:
        if not all(name.strip() for name in value) or len({name.lower() for name in value}) < len(value):
            raise ValueError("each name must be there once, and none empty")
        return value

    @model_validator(mode="after")
    def _rows_are_known(self) -> TableDescription:
        if self.table is None and not self.folders:
            raise ValueError("the key 'table' is missing (or 'folders', where the folders are the classes)")
        if self.table is not None and self.folders:
            raise ValueError("'table' and 'folders' exclude each other: the rows come from one of them")
        if self.table is not None and self.image is None:
            raise ValueError("the key 'image' is missing")
        if self.folders and (self.image is not None or FOLDER_IMAGE in map(str.lower, self.folders)):
            raise ValueError(f"with 'folders' the images name themselves: leave out '{FOLDER_IMAGE}'")
        return self

    @model_validator(mode="after")
    def _parts_are_known(self) -> TableDescription:
        for word, part in self.values.get("split", {}).items():
            if part not in (*PARTS, "") and "split" not in self.categorical:
                raise ValueError(
                    f"[values.split] sends '{word}' to '{part}', which is not one of {', '.join(PARTS)} "
                    f'("" for no part).{nearest(part, PARTS)}'
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> TableDescription:
        try:
            self.label_set()
        except DataError as error:
            raise ValueError(str(error)) from error
        for raw, code in self.labels.items():
            if code not in self.classes:
                raise ValueError(
                    f"[labels] sends '{raw}' to '{code}', which is not one of the classes "
                    f"{', '.join(self.classes)}.{nearest(code, self.classes)}"
                )
        self.label_words()
        own = (*self.label, self.lesion, self.patient, self.image, self.split, self.fold, "dx_type")
        told = {name.lower() for name in own if name}
        for feature, column in [*self.numeric.items(), *self.categorical.items()]:
            if feature in NEVER_FEATURES or feature in (SPLIT, FOLD) or column.lower() in told:
                raise ValueError(
                    f"'{column}' cannot be a feature: it names the image or its part, or comes with its diagnosis"
                )
        if "age" in self.categorical:
            raise ValueError("'age' is in years: list it under numeric")
        for feature in set(self.numeric) & ({"sex", "localization"} | set(self.categorical)):
            raise ValueError(f"'{feature}' cannot be numeric: it is a category")
        for feature, words in self.values.items():
            if feature not in self.categorical and not (feature == "split" and self.split):
                raise ValueError(
                    f"[values.{feature}] is not a categorical feature.{nearest(feature, self.categorical)}"
                )
            try:
                mapping(words)
            except ValueError as error:
                raise ValueError(f"[values.{feature}] {error}") from error
        return self

    def label_words(self) -> dict[str, str]:
        """Return diagnosis, as `label_word` writes it -> class: the classes themselves, then ``[labels]``.

        Raises:
            ValueError: two classes, or two lines of ``[labels]``, that differ in case, ``_`` or blanks alone.
        """
        known: dict[str, str] = {}
        for name in self.classes:
            if (other := known.setdefault(label_word(name), name)) != name:
                raise ValueError(f"the classes '{other}' and '{name}' cannot be told apart (case, '_' and blanks)")
        told: dict[str, str] = {}
        for raw, code in self.labels.items():
            if (other := told.setdefault(label_word(raw), code)) != code:
                raise ValueError(
                    f"[labels] sends '{raw}' to '{other}' and to '{code}' (case, '_' and blanks do not matter)"
                )
        return known | told

    def label_set(self) -> LabelSet:
        """Return the classes with their names and roles.

        Raises:
            DataError: a name or a role of a class that is not there.
        """
        return LabelSet.of(self.classes, names=self.names, malignant=self.malignant, critical=self.critical)


def read_description(path: Path) -> TableDescription:
    """Read and check a TOML file.

    Raises:
        ConfigError: not TOML, a key unknown (with the nearest known one), missing, or of the wrong kind.
    """
    try:
        return TableDescription.model_validate(tomllib.loads(read_regular(path).decode("utf-8-sig")))
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


def group_word(column: str) -> str:
    """Return what a column of groups names, by its name: ``lesion``, ``patient``, or ``group`` where it says neither.

    Images of a lesion have one diagnosis, so two are a mistake in the table; a patient may have several.
    """
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", column)]
    if any(part.startswith(("lesion", "nevus", "naevus", "mole")) for part in parts):
        return "lesion"
    named = any(part.startswith(("patient", "pacient", "subject", "person", "participant")) for part in parts)
    return "patient" if named or {"pat", "pid"} & set(parts) else "group"
