"""A data set described in Croissant, the machine-readable format of MLCommons, whatever layout it came in.

Source: Croissant format specification 1.0, MLCommons, 2024 (JSON-LD on schema.org). What is described is the table
as dermafuse reads it (`records_csv`, one row an image, paths relative to the data folder), so that the same
description serves all layouts; `write_croissant` writes both next to each other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dermafuse.data.readers.croissant_terms import CONTEXT, KNOWN, Publication
from dermafuse.data.records import COLUMNS, Records
from dermafuse.files import write_atomic, write_json

__all__ = ["Publication", "croissant", "records_csv", "write_croissant"]

#: File names that `write_croissant` uses.
TABLE_NAME: Final = "records.csv"
FILE_NAME: Final = "croissant.json"

_MEANINGS: Final[Mapping[str, str]] = {
    "image_id": "Name of the image file without its suffix.",
    "lesion_id": "Images with the same value show the same lesion; the image id where no lesion is known.",
    "label": "Diagnosis.",
    "path": "Image file, relative to the data folder.",
    "age": "Age of the patient in years; empty where unknown.",
    "sex": "Sex of the patient.",
    "localization": "Body site of the lesion.",
    "dx_type": "How the diagnosis was made. Decided with it, so never an input of a model.",
    "source": "Where the image comes from.",
}

_ENCODINGS: Final[Mapping[str, str]] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}


def croissant(records: Records, publication: Publication | None = None) -> dict[str, Any]:
    """Return the Croissant description of a data set, as JSON-LD.

    Args:
        records: of any layout.
        publication: who published the data under which terms; ``None``: as known for the layout. A custom table
            has no licence unless one is given here, and generated data say that they are generated.

    The table it describes is that of `records_csv`, named ``records.csv``.
    """
    told = publication or _publication(records)
    table = records_csv(records).encode()
    suffixes = sorted({Path(path).suffix for path in records.table["path"]})
    description: dict[str, Any] = {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": told.name,
        "description": told.description,
        "url": told.url,
        "license": told.license,
        "citeAs": told.citation,
        "creator": None if told.creator is None else {"@type": "sc:Organization", "name": told.creator},
        "datePublished": None if told.published is None else told.published.isoformat(),
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": TABLE_NAME,
                "name": TABLE_NAME,
                "description": f"One row for each of {len(records):,} images, as dermafuse reads the data.",
                "contentUrl": TABLE_NAME,
                "encodingFormat": "text/csv",
                "sha256": hashlib.sha256(table).hexdigest(),
                "contentSize": f"{len(table)} B",
            },
            *(_file_set(suffix, _folders(records, suffix)) for suffix in suffixes),
        ],
        "recordSet": [
            _classes(records),
            # A field has one source: images of several formats cannot be joined to the table.
            *([_image_files(suffixes[0])] if len(suffixes) == 1 else []),
            _images(records, joined=len(suffixes) == 1),
        ],
    }
    return {key: value for key, value in description.items() if value is not None}


def records_csv(records: Records) -> str:
    """Return the table as CSV: columns as in `Records`, paths relative to the data folder, with ``/``."""
    table = records.table.copy()
    folder = _folder(records)
    table["path"] = [Path(os.path.relpath(path, folder)).as_posix() for path in table["path"]]
    return str(table.to_csv(index=False, lineterminator="\n"))


def write_croissant(records: Records, out: Path, publication: Publication | None = None) -> Path:
    """Write ``records.csv`` and ``croissant.json`` into a folder (made if missing); return the latter's path.

    Paths in them are relative to the data folder: that is where they belong.

    Raises:
        OutputError: the folder cannot be written to.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / TABLE_NAME, records_csv(records))
    write_json(out / FILE_NAME, croissant(records, publication))
    return out / FILE_NAME


def _publication(records: Records) -> Publication:
    if records.synthetic:
        return Publication(
            "SYNTHETIC lesions",
            f"SYNTHETIC: {len(records):,} generated pictures for trying out dermafuse; no patient, no real skin, no "
            "medical meaning.",
            license="https://creativecommons.org/publicdomain/zero/1.0/",
        )
    if records.layout in KNOWN:
        return KNOWN[records.layout]
    name = records.root.stem if records.root.suffix and records.root.stem != "dermafuse" else _folder(records).name
    return Publication(name, f"{len(records):,} images of skin lesions with {len(records.classes)} diagnoses.")


def _folder(records: Records) -> Path:
    return records.root.parent if records.root.suffix.lower() == ".toml" else records.root


def _folders(records: Records, suffix: str) -> list[str]:
    folder = _folder(records)
    parents = {Path(path).parent for path in records.table["path"] if Path(path).suffix == suffix}
    return sorted(Path(os.path.relpath(parent, folder)).as_posix() for parent in parents)


def _file_set(suffix: str, folders: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": _set_id(suffix),
        "name": _set_id(suffix),
        "description": f"The images ({suffix}).",
        "encodingFormat": _ENCODINGS.get(suffix.lower(), "application/octet-stream"),
        "includes": [f"*{suffix}" if folder == "." else f"{folder}/*{suffix}" for folder in folders],
    }


def _set_id(suffix: str) -> str:
    return f"images-{suffix.lstrip('.')}"


def _classes(records: Records) -> dict[str, Any]:
    fields = [_field("classes", name, "sc:Text", text) for name, text in (("code", "Code."), ("name", "In words."))]
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The diagnoses.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/code"},
        "field": fields,
        "data": [{"classes/code": code, "classes/name": records.labels.names[code]} for code in records.classes],
    }


def _image_files(suffix: str) -> dict[str, Any]:
    source = {"fileSet": {"@id": _set_id(suffix)}}
    return {
        "@type": "cr:RecordSet",
        "@id": "image_files",
        "name": "image_files",
        "description": "The image files by their names.",
        "key": {"@id": "image_files/image_id"},
        "field": [
            {
                **_field("image_files", "image_id", "sc:Text", _MEANINGS["image_id"]),
                "source": {
                    **source,
                    "extract": {"fileProperty": "filename"},
                    "transform": {"regex": r"^(.*)\.[^.]+$"},
                },
            },
            {
                **_field("image_files", "content", "sc:ImageObject", "The image."),
                "source": {**source, "extract": {"fileProperty": "content"}},
            },
        ],
    }


def _images(records: Records, *, joined: bool) -> dict[str, Any]:
    fields = []
    names = [name for name in records.table.columns if name in COLUMNS or name in records.numeric + records.categorical]
    for name in names:
        kind = "sc:Float" if pd.api.types.is_float_dtype(records.table[name]) else "sc:Text"
        field = {
            **_field("images", name, kind, _MEANINGS.get(name, f"Clinical feature '{name}'.")),
            "source": {"fileObject": {"@id": TABLE_NAME}, "extract": {"column": name}},
        }
        if name == "label":
            field["references"] = {"field": {"@id": "classes/code"}}
        if name == "image_id" and joined:
            field["references"] = {"field": {"@id": "image_files/image_id"}}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "One record an image.",
        "key": {"@id": "images/image_id"},
        "field": fields,
    }


def _field(record_set: str, name: str, kind: str, meaning: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": meaning,
        "dataType": kind,
    }
