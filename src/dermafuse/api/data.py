"""Data sets from Python: read, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dermafuse import notebook
from dermafuse.api.reporting import reporter
from dermafuse.data.readers.read import read_dataset as _read
from dermafuse.data.records import Records
from dermafuse.errors import DataError
from dermafuse.progress import Reporter

if TYPE_CHECKING:
    import pandas as pd

#: A data set: the path of a folder or ``.toml`` file, or what `read_dataset` returned.
Data: TypeAlias = str | Path | Records


def read_dataset(path: str | Path, *, labelled: bool = True) -> Records:
    """Read a data set in any known layout.

    Args:
        path: a folder in the layout of HAM10000 (Kaggle, Harvard Dataverse), ISIC 2018 Task 3 or ISIC 2019; one with a
            ``dermafuse.toml`` (docs/reference/tables.md); or such a ``.toml`` file.
        labelled: whether every image must have a diagnosis.

    Returns:
        The records: ``.table`` (a row an image; ``age`` in years, ``path`` absolute), ``.labels``, ``.notes``,
        ``.skipped``.

    Raises:
        DataError: nothing there, no known layout, or a column or value that cannot be used.
        ConfigError: the TOML file is not right.

    Example:
        >>> import dermafuse as df
        >>> records = df.read_dataset(data)
        >>> records.layout, records.classes[:2], len(records) == len(records.table)
        ('kaggle', ('akiec', 'bcc'), True)
    """
    return _read(Path(path), labelled=labelled)


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What `check` found.

    Attributes:
        records: what was looked at.
        content: as ``dermafuse check --json`` prints it: counts, ``leakage``, ``findings``, ``checks_passed``, ...

    Example:
        >>> import dermafuse as df
        >>> found = df.check(df.read_dataset(data).subset(range(30)), progress=False)
        >>> found.content["images"], {entry["severity"] for entry in found.findings} <= {"error", "warning", "info"}
        (30, True)
    """

    records: Records
    content: Mapping[str, Any]

    @property
    def findings(self) -> Sequence[Mapping[str, Any]]:
        """The most serious first: ``code``, ``title``, ``severity``, ``explanation``, ``action``, ``data``."""
        found: Sequence[Mapping[str, Any]] = self.content["findings"]
        return found

    def frame(self) -> pd.DataFrame:
        """Return the findings as a table: ``code``, ``severity``, ``title``, ``explanation``, ``action``."""
        import pandas as pd

        return pd.DataFrame(list(self.findings), columns=["code", "severity", "title", "explanation", "action"])

    def __repr__(self) -> str:
        listed = ", ".join(f"{found['code']} ({found['severity']})" for found in self.findings)
        return f"DataCheck({self.content['images']} images; {listed or 'nothing found'})"

    def _repr_html_(self) -> str:
        rows = self.frame().itertuples(index=False)
        title = f"{self.content['root']}: {self.content['images']:,} images, {self.content['lesions']:,} lesions"
        return notebook.table(("code", "severity", "finding", "why", "what to do"), rows, title=title)


def check(
    data: Data,
    *,
    split: Literal["lesion", "image"] | None = None,
    seed: int = 0,
    model: str | Path | None = None,
    progress: bool | Reporter = True,
) -> DataCheck:
    """Open every image of a data set; find what is wrong with it, and what would leak from training to validation.

    Args:
        data: a path, or records.
        split: judge the 80/20 split that training would make; ``None``: say what one by image would leak.
        seed: of the split.
        model: a RUN or bundle, whose embeddings help to find near-duplicates (slower).
        progress: ``True``: told on stderr; ``False``: to ``logging`` alone; or a reporter of your own.

    Raises:
        DataError: the data cannot be read, or the split cannot be made. BundleError: the model cannot be used.

    Example:
        >>> import dermafuse as df
        >>> found = df.check(data, progress=False)
        >>> sorted(found.frame().columns)
        ['action', 'code', 'explanation', 'severity', 'title']
    """
    from dermafuse.checks.check import check_records
    from dermafuse.runtime.bundle.files import find_bundle
    from dermafuse.runtime.released import model_folder
    from dermafuse.training.recipes import DEFAULT_RECIPE, RECIPES, against_imbalance

    if model is not None:
        model = model_folder(model)
        find_bundle(model)  # refused before minutes of looking at images
    # Whether or not every image has a diagnosis: that, too, is something to find out.
    records = data if isinstance(data, Records) else read_dataset(data, labelled=False)
    found = check_records(
        records,
        reporter(progress),
        split=split,
        seed=seed,
        model=model,
        against_imbalance=against_imbalance(RECIPES[DEFAULT_RECIPE]),
    )
    return DataCheck(records, found)


def path_of(data: Data) -> Path:
    """Return where a data set lies, for what reads it from there.

    Raises:
        DataError: records that were changed after they were read.
    """
    if not isinstance(data, Records):
        return Path(data).expanduser()
    there = _read(data.root)
    if there.labels != data.labels or not there.table.equals(data.table):
        raise DataError(
            f"These records are not what {data.root} holds (a subset, or changed), and runs read their data there; "
            "describe these rows in a dermafuse.toml (keep, ignore, split), or use DermafuseClassifier, which takes "
            "tables."
        )
    return data.root
