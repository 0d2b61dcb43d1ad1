"""From a folder (or a TOML file) to records: which layout it is, and the reader for it.

>>> records = read_dataset(Path("ham10000"))            # doctest: +SKIP
>>> len(records), records.layout  # doctest: +SKIP
(10015, 'kaggle')

The layouts themselves: `dermafuse.data.readers.layout_ham`, `layout_isic` and `layout_csv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from dermafuse.data.readers.given_split import training_part
from dermafuse.data.readers.layout_csv import read_csv
from dermafuse.data.readers.layout_ham import ham_tables, read_ham
from dermafuse.data.readers.layout_isic import find_isic, isic_tables, read_isic
from dermafuse.data.records import Records
from dermafuse.data.scan import Scan, scan, scan_images
from dermafuse.errors import DataError, examples
from dermafuse.files import existing_folder, sha256

__all__ = ["DESCRIPTION", "read_dataset", "read_training_data", "scan_images"]

#: The file that describes a custom table, where it lies in the data folder.
DESCRIPTION: Final = "dermafuse.toml"

_KNOWN: Final = (
    "HAM10000_metadata(.csv/.tab), ISIC2018_Task3_*_GroundTruth.csv, ISIC_2019_*_GroundTruth.csv "
    f"or a {DESCRIPTION} that describes another table"
)


def read_dataset(root: Path, *, labelled: bool = True) -> Records:
    """Read a data set in any known layout.

    Args:
        root: a folder in the layout of Kaggle's or Dataverse's HAM10000, of ISIC 2018 Task 3 or of ISIC 2019;
            a folder with a ``dermafuse.toml``; or a ``.toml`` file (format: `dermafuse.data.readers.description`).
        labelled: whether every image must have a diagnosis. Without it, diagnoses that are there are read
            (and checked), and the others are ``None``.

    Returns:
        The records, in the order of the table. Rows whose image file is missing are in ``skipped``; what
        else was mapped, dropped or left out is in ``notes``.

    Raises:
        DataError: nothing there, no known layout, no images; a column missing; image ids given twice or
            holding a path; diagnoses missing or unknown; age not a number or outside 0..120. Each message
            gives the first examples and the count.
        ConfigError: the TOML file is not right.
    """
    root = Path(root).expanduser().absolute()
    if root.is_file():
        if root.suffix.lower() != ".toml":
            raise DataError(f"{root} is a file; name the folder it lies in, or a .toml file that describes the table.")
        return read_csv(root, labelled=labelled)
    existing_folder(root, "data folder")
    if (root / DESCRIPTION).is_file():
        return read_csv(root / DESCRIPTION, labelled=labelled)
    found = scan([root])
    records = read_known_layout(found, root, labelled=labelled)
    if records is None:
        raise DataError(
            f"{root} {_state(found, root)}; expected is {_KNOWN} (`dermafuse init {root}` writes one where it can)."
        )
    return records


def read_known_layout(found: Scan, root: Path, *, labelled: bool) -> Records | None:
    """Read a folder that needs no description; ``None`` where it is in no such layout.

    Raises:
        DataError: as `read_dataset`.
    """
    found = replace(found, tables=_without_copies(found.tables))
    named, alike = ham_tables(found.tables)
    one_hot = [path for path in isic_tables(found) if path not in alike]
    if not named and not alike:
        isic = find_isic(found)
        return None if isic is None else read_isic(isic, found, root, labelled=labelled)
    fitting = named or [*alike, *one_hot]
    if len(fitting) > 1:
        raise DataError(
            f"{root} holds {len(fitting)} tables that could be meant ({_names(fitting, root)}); keep one there, or add "
            f'a {DESCRIPTION} that says which: table = "{fitting[0].relative_to(root).as_posix()}", image, label, ... '
            f"(`dermafuse init {fitting[0]}` writes one)."
        )
    records = read_ham(fitting[0], found, root, labelled=labelled)
    left = [*alike, *one_hot] if named else []
    if left:
        first, *rest = records.notes
        records = replace(records, notes=(first, f"Also there and not read: {_names(left, root)}.", *rest))
    return records


def _without_copies(tables: tuple[Path, ...]) -> tuple[Path, ...]:
    """Leave out tables that repeat an earlier one byte by byte, as a download unpacked twice has them."""
    first: dict[object, Path] = {}
    try:
        sizes = [path.stat().st_size for path in tables]
        for path, size in zip(tables, sizes, strict=True):
            first.setdefault(sha256(path) if sizes.count(size) > 1 else path, path)
    except OSError as error:
        raise DataError(f"Cannot read {error.filename}: {error.strerror}; check the file and its rights.") from error
    return tuple(first.values())


def _names(tables: Sequence[Path], root: Path) -> str:
    return examples([str(path.relative_to(root)) for path in tables], limit=5)


def read_training_data(root: Path) -> Records:
    """Read a data set to learn from: without the test part of a given split (`dermafuse.data.readers.given_split`).

    Raises:
        DataError, ConfigError: as `read_dataset`.
    """
    return training_part(read_dataset(root))


def _state(found: Scan, root: Path) -> str:
    """Say what is there instead of a known layout."""
    if found.others and not found.tables:
        names = examples([str(path.relative_to(root)) for path in found.others])
        return f"holds {len(found.images):,} images and a table that is no text ({names}: save it as 'CSV UTF-8' first)"
    if found.tables and all(path.name.lower().startswith("hmnist") for path in found.tables):
        return "holds hmnist tables, which are shrunken pixels; the images and HAM10000_metadata.csv are needed"
    if found.tables:
        names = examples([str(path.relative_to(root)) for path in found.tables])
        return f"holds {len(found.images):,} images and no table of a known layout (found {names})"
    if found.images:
        return f"holds {len(found.images):,} images but no table of them"
    return "holds neither images nor a table of them" if any(root.iterdir()) else "is empty"
