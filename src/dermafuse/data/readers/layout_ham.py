"""HAM10000 as Kaggle and as Harvard Dataverse hand it out.

Kaggle: ``HAM10000_metadata.csv`` and the images in ``HAM10000_images_part_1`` and ``_part_2``.
Dataverse: ``HAM10000_metadata`` (comma) or ``HAM10000_metadata.tab`` (tab), with a further column
``dataset`` that says where an image was taken (``vidir_modern``, ``rosendahl``, ...): it becomes ``source``.
File and folder names may be upper or lower case; where below the root the images lie does not matter.

The word ``unknown`` is a category of ``sex`` and ``localization`` in this data set and stays one; an empty
cell is a missing value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dermafuse.data.image_names import image_ids
from dermafuse.data.readers.assemble import Draft, assemble
from dermafuse.data.records import Records
from dermafuse.data.scan import Scan
from dermafuse.data.table_files import read_header
from dermafuse.data.tables import (
    AGE_RANGE,
    check_image_ids,
    find_columns,
    optional_text,
    parse_numbers,
    read_table,
)
from dermafuse.data.words import mapped

#: The vocabulary of ``localization`` in HAM10000.
LOCALIZATIONS: Final[frozenset[str]] = frozenset(
    {
        "abdomen",
        "acral",
        "back",
        "chest",
        "ear",
        "face",
        "foot",
        "genital",
        "hand",
        "lower extremity",
        "neck",
        "scalp",
        "trunk",
        "unknown",
        "upper extremity",
    }
)

_REQUIRED: Final = ("lesion_id", "image_id", "dx", "age", "sex", "localization")


def ham_tables(tables: tuple[Path, ...]) -> tuple[list[Path], list[Path]]:
    """Return the tables that bear the name of HAM10000's, and the others that have its columns."""
    named = [path for path in tables if path.stem.lower() == "ham10000_metadata"]
    alike = [
        path
        for path in tables
        if path not in named and {"image_id", "dx"} <= {name.lower() for name in read_header(path)}
    ]
    return named, alike


def read_ham(table: Path, found: Scan, root: Path, *, labelled: bool) -> Records:
    """Read a HAM10000 table and join it to the scanned images; ``dx_type`` and ``dataset`` are optional.

    Raises:
        DataError: see `dermafuse.data.readers.read.read_dataset`.
    """
    notes: list[str] = []
    frame = read_table(table, notes)
    present = {str(name).lower() for name in frame.columns}
    wanted = [name for name in _REQUIRED if labelled or name != "dx" or "dx" in present]
    wanted += [name for name in ("dx_type", "dataset") if name in present]
    column = {name: list(frame[own]) for name, own in find_columns(frame, wanted, table).items()}
    ids = column["image_id"]
    check_image_ids(image_ids(ids), table)
    blank: list[str] = [""] * len(ids)
    draft = Draft(
        table=table,
        ids=ids,
        labels=[value.lower() if value else None for value in column.get("dx", blank)],
        lesions=optional_text(column["lesion_id"]),
        text={
            "sex": mapped(column["sex"], {}),
            "localization": mapped(column["localization"], {}),
            "dx_type": optional_text(column.get("dx_type", blank)),
            "source": optional_text(column.get("dataset", blank)),
        },
        numbers={"age": parse_numbers(column["age"], ids, "age", table, AGE_RANGE, notes)},
        notes=notes,
    )
    dataverse = "dataset" in present or table.suffix.lower() != ".csv"
    return assemble(
        draft,
        found,
        layout="dataverse" if dataverse else "kaggle",
        root=root,
        labelled=labelled,
        numeric=("age",),
        categorical=("sex", "localization"),
    )
