"""A RUN folder, read back and written: the one place that knows what its files are called and how they are opened.

No Keras: the configuration is a plain mapping, which training validates. Nothing here is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import pandas as pd

from dermafuse.errors import DataError
from dermafuse.evaluation.metrics import labels_of, reported_split
from dermafuse.evaluation.prediction_rows import read_predictions, rows_of_table
from dermafuse.evaluation.predictions import Scored
from dermafuse.files import existing_folder, folder_atomic, sha256, write_atomic, write_json
from dermafuse.labels import LabelSet

CONFIG: Final = "config.toml"
METRICS: Final = "metrics.json"
PREDICTIONS: Final = "predictions.csv"
HISTORY: Final = "history.csv"
SKIPPED: Final = "skipped.csv"
PAGE: Final = "report.html"
FIGURES: Final = "figures"
MODEL: Final = "model"

#: What a folder holds. ``run``: one network; ``ensemble``: several in one bundle; ``folds``: a cross-validation;
#: ``evaluation``: a model judged on another data set.
Kind: TypeAlias = Literal["run", "ensemble", "folds", "evaluation"]


class RunFolder:
    """A finished training, cross-validation or evaluation; files are read when they are asked for, once.

    Attributes:
        path: the folder.
        metrics: content of ``metrics.json``.
    """

    path: Path
    metrics: Mapping[str, Any]

    def __init__(self, path: Path, metrics: Mapping[str, Any]) -> None:
        self.path = path
        self.metrics = metrics

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a folder.

        Raises:
            DataError: there is none, or it holds no finished run.
        """
        folder = existing_folder(Path(path).expanduser(), "run folder")
        return cls(folder, read_metrics(folder))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.kind})"

    @property
    def kind(self) -> Kind:
        """What the folder holds, see `Kind`."""
        if self.reported == "test":
            return "evaluation"
        if "folds" in self.metrics:
            return "folds"
        return "ensemble" if "members" in self.metrics else "run"

    @property
    def reported(self) -> str:
        """The split that the metrics are about: ``validation``, or ``test`` of an evaluation.

        Raises:
            DataError: the metrics hold neither.
        """
        return reported_split(self.metrics)

    @property
    def block(self) -> Mapping[str, Any]:
        """The metrics of the reported split: ``accuracy``, ``per_class``, ``ci95``, ..."""
        block: Mapping[str, Any] = self.metrics[self.reported]
        return block

    @property
    def labels(self) -> LabelSet:
        """The classes, in the order of the confusion matrix."""
        return labels_of(self.metrics)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of ``config.toml``: every setting of the training; empty for an evaluation.

        Raises:
            DataError: it cannot be read.
        """
        return read_config(self.path) or {}

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """``predictions.csv``: ``image_id``, ``lesion_id``, ``split``, ``true``, ``predicted``, ``p_CODE`` (0..1), ...

        Raises:
            DataError: it is missing or no table.
        """
        return read_predictions(self.path / PREDICTIONS)

    @property
    def skipped(self) -> pd.DataFrame | None:
        """``skipped.csv``: the rows that could not be used, ``image_id``, ``path``, ``reason``; ``None``: none was."""
        file = self.path / SKIPPED
        return pd.read_csv(file, dtype=str, keep_default_na=False) if file.is_file() else None

    @cached_property
    def rows(self) -> dict[str, Scored]:
        """The predictions as checked arrays, by split (``validation``, ``tuning``, ``test``), in the file's order.

        Raises:
            DataError: the file is missing, lacks a column, or holds what is no prediction of these classes.
        """
        labels = self.labels  # first: what is no run at all says so
        return rows_of_table(self.predictions, labels, str(self.path / PREDICTIONS))

    @property
    def reported_rows(self) -> Scored:
        """The predictions that the metrics are about.

        Raises:
            DataError: as `rows`, or the file holds none of that split.
        """
        rows = self.rows.get(self.reported)
        if rows is None:
            file = self.path / PREDICTIONS
            raise DataError(f"{file} holds no rows of split '{self.reported}'; repeat the run.")
        return rows

    @cached_property
    def folds(self) -> dict[int, Path]:
        """Number of each fold -> its RUN folder; empty where this is no cross-validation."""
        if self.kind != "folds":
            return {}
        numbers = sorted(set(self.reported_rows.fold.tolist()) - {0})
        return {number: self.path / f"fold-{number}" for number in numbers}

    @cached_property
    def histories(self) -> dict[str, pd.DataFrame]:
        """Learning curves, one row an epoch: ``""`` -> that of the run, or one each of ``fold 1``, ``fold 2``, ..."""
        folders = {f"fold {number}": folder for number, folder in self.folds.items()} or {"": self.path}
        return {name: pd.read_csv(folder / HISTORY) for name, folder in folders.items() if (folder / HISTORY).is_file()}

    @property
    def history(self) -> pd.DataFrame:
        """``history.csv``, one row an epoch; of a cross-validation those of its folds, told apart by ``fold``."""
        named = self.histories
        if list(named) == [""]:
            return named[""]
        parts = [table.assign(fold=int(name.removeprefix("fold "))) for name, table in named.items()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @cached_property
    def bundles(self) -> dict[int, Path]:
        """Number of a fold (0: none) -> the folder that holds its model, as far as it is there."""
        folders = self.folds or {0: self.path}
        found = {number: folder for number, folder in folders.items() if (folder / MODEL / "manifest.json").is_file()}
        judged = (self.metrics.get("model") or {}).get("path")
        if not found and judged and Path(judged).is_dir():
            found[0] = Path(judged)
        return found

    @property
    def bundle(self) -> Path:
        """The folder of the model: that of the run, or the one that an evaluation judged.

        Raises:
            DataError: a cross-validation has several; or the model is no longer there.
        """
        if 0 in self.bundles:
            folder = self.bundles[0]
            return folder / MODEL if (folder / MODEL).is_dir() else folder
        if self.kind == "folds":
            raise DataError(f"{self.path} is a cross-validation, which has a model a fold; name {self.path}/fold-1.")
        raise DataError(f"The model of {self.path} is no longer there; copy it back, or name its RUN folder.")

    @property
    def figures(self) -> dict[str, Path]:
        """Name -> PNG of every figure of the report (SVG and CSV lie beside it); empty where none was made."""
        return {path.stem: path for path in sorted((self.path / FIGURES).glob("*.png"))}

    @property
    def data(self) -> str | None:
        """Where the run says its data set was; ``None`` where it does not."""
        said = self.config.get("data") or (self.metrics.get("data") or {}).get("path")
        return None if said is None else str(said)


class RunWriter:
    """A RUN folder that is being written: its files first, ``metrics.json`` last.

    Attributes:
        path: the folder.
        model: where the bundle belongs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / MODEL

    def write(
        self,
        *,
        config: str | None = None,
        history: pd.DataFrame | None = None,
        predictions: pd.DataFrame | None = None,
        skipped: pd.DataFrame | None = None,
    ) -> None:
        """Write what is given; of a table without rows (nothing was skipped) no file is made.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if config is not None:
            write_atomic(self.path / CONFIG, config)
        if history is not None:
            write_atomic(self.path / HISTORY, history.to_csv(index=False))
        if predictions is not None:
            write_atomic(self.path / PREDICTIONS, predictions.to_csv(index=False, float_format="%.7g"))
        if skipped is not None and len(skipped):
            write_atomic(self.path / SKIPPED, skipped.to_csv(index=False))

    def hashes(self) -> dict[str, str]:
        """Return name -> SHA-256 of the files that were written: ``files`` of ``metrics.json``."""
        names = (CONFIG, HISTORY, PREDICTIONS, SKIPPED)
        return {name: sha256(self.path / name) for name in names if (self.path / name).exists()}

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``: a folder that holds it is finished.

        Raises:
            OutputError: the folder cannot be written to.
            ValueError: NaN or infinity, which are not JSON.
        """
        write_json(self.path / METRICS, metrics)


@contextlib.contextmanager
def begin(out: Path, *, overwrite: bool = False) -> Iterator[RunWriter]:
    """Begin a RUN: it appears at ``out``, whole, when the block ends without an error (`files.folder_atomic`).

    Raises:
        OutputError: ``out`` may not be replaced, or the disk takes no more.
    """
    with folder_atomic(out, overwrite=overwrite) as folder:
        yield RunWriter(folder)


def find_run(path: Path) -> Path | None:
    """Return the RUN folder of a RUN or of the bundle inside it; ``None`` for a bundle that stands alone."""
    candidates = [path, path.resolve().parent] if MODEL in (path.name, path.resolve().name) else [path]
    return next((each for each in candidates if all((each / name).is_file() for name in (METRICS, PREDICTIONS))), None)


def read_metrics(run: Path) -> dict[str, Any]:
    """Return the content of ``RUN/metrics.json``.

    Raises:
        DataError: there is none, or it is not what dermafuse writes.
    """
    path = run / METRICS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; name the RUN folder of a finished training or evaluation.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); repeat the run.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold metrics; name the RUN folder of a training or evaluation.")
    return content


def read_config(run: Path) -> dict[str, Any] | None:
    """Return the content of ``RUN/config.toml``, ``None`` where there is none.

    Raises:
        DataError: it cannot be read.
    """
    path = run / CONFIG
    if not path.exists():
        return None
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it or repeat the run.") from error
