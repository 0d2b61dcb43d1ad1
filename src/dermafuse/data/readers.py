"""From a folder (or a TOML file) to records: which layout it is, and the reader for it.

>>> records = read_dataset(Path("ham10000"))            # doctest: +SKIP
>>> len(records), records.layout, records.counts()["mel"]  # doctest: +SKIP
(10015, 'kaggle', 1113)

The layouts themselves: `dermafuse.data.layout_ham`, `layout_isic` and `layout_csv`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dermafuse.data.given_split import training_part
from dermafuse.data.layout_csv import read_csv
from dermafuse.data.layout_ham import find_ham, read_ham
from dermafuse.data.layout_isic import find_isic, read_isic
from dermafuse.data.records import Records
from dermafuse.data.scan import Scan, scan, scan_images
from dermafuse.errors import DataError, examples
from dermafuse.files import existing_folder

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
            a folder with a ``dermafuse.toml``; or a ``.toml`` file (format: `dermafuse.data.description`).
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
    ham = find_ham(found.tables)
    if ham is not None:
        return read_ham(ham, found, root, labelled=labelled)
    isic = find_isic(found)
    if isic is not None:
        return read_isic(isic, found, root, labelled=labelled)
    raise DataError(f"{root} {_state(found, root)}; expected is {_KNOWN}.")


def read_training_data(root: Path) -> Records:
    """Read a data set to learn from: without the test part of a given split (`dermafuse.data.given_split`).

    Raises:
        DataError, ConfigError: as `read_dataset`.
    """
    return training_part(read_dataset(root))


def _state(found: Scan, root: Path) -> str:
    """Say what is there instead of a known layout."""
    if found.tables:
        names = examples([str(path.relative_to(root)) for path in found.tables])
        return f"holds {len(found.images):,} images and no table of a known layout (found {names})"
    if found.images:
        return f"holds {len(found.images):,} images but no table of them"
    return "holds neither images nor a table of them" if any(root.iterdir()) else "is empty"
