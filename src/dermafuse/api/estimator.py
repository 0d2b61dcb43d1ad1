"""A scikit-learn estimator around a training: tables in, probabilities out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import tomli_w
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from dermafuse.api.train import train
from dermafuse.data.readers.read import DESCRIPTION
from dermafuse.errors import DataError, DermafuseError, OutputError, examples, nearest
from dermafuse.files import check_output_folder
from dermafuse.progress import Reporter
from dermafuse.runtime.prediction import Query
from dermafuse.runtime.predictor import Predictor
from dermafuse.runtime.released import load

_TABLE = "table.csv"
#: Columns of the written table; the features keep their own names.
_IMAGE, _LABEL, _GROUP = "dermafuse_image", "dermafuse_label", "dermafuse_group"


class DermafuseClassifier(ClassifierMixin, BaseEstimator):  # scikit-learn wants the mixin first
    """Classifies rows of a table that holds the path of an image and, in its other columns, what is known about it.

    Trained as `dermafuse.train` trains: of the rows given to ``fit`` a part is held out and reported in ``run_``
    (setting ``validation_fraction``). All columns but that of the images are features; numbers are numeric, all else
    is a category; ``age`` is in years. To keep lesions on one side inside ``fit`` too, pass ``groups`` (from
    ``cross_val_score``: ``sklearn.set_config(enable_metadata_routing=True)``, ``set_fit_request(groups=True)`` and
    ``params={"groups": ...}``); recipes then split by lesion, unless ``settings`` say otherwise.

    A fitted estimator cannot be pickled: keep its RUN (``out``) and `dermafuse.load` that.

    Args:
        image: column of the images' paths.
        recipe: as in `dermafuse.train`.
        settings: further settings of a training, such as ``{"epochs": 5}``.
        malignant: classes that are malignant; ``None``: known of HAM10000's codes alone.
        critical: the class that must not be missed, likewise.
        out: folder for ``data/`` and ``run/``, replaced by each ``fit``; ``None``: a temporary one.
        random_state: seed of the split, the weights and every draw; an integer.
        progress: as in `dermafuse.train`.

    Attributes:
        classes_: (k,) the labels, sorted.
        run_: the `dermafuse.Run` of the training.
        predictor_: the trained model.
        n_features_in_, feature_names_in_: number and names of the columns of ``X``.

    Example:
        >>> import dermafuse as df
        >>> table = df.read_dataset(data).table
        >>> X, y = table[["path", "age", "sex"]], table["label"]
        >>> small = {"backbone": "efficientnet_lite0", "weights": "random", "image_size": 64, "epochs": 1}
        >>> model = df.DermafuseClassifier(image="path", recipe="seed", settings=small).fit(X, y, table["lesion_id"])
        >>> model.predict_proba(X[:3]).shape, model.classes_[:2].tolist()
        ((3, 7), ['akiec', 'bcc'])
    """

    def __init__(
        self,
        *,
        image: str = "image",
        recipe: str | None = None,
        settings: Mapping[str, Any] | None = None,
        malignant: list[str] | None = None,
        critical: str | None = None,
        out: str | Path | None = None,
        random_state: int = 0,
        progress: bool | Reporter = False,
    ) -> None:
        self.image = image
        self.recipe = recipe
        self.settings = settings
        self.malignant = malignant
        self.critical = critical
        self.out = out
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: pd.DataFrame, y: Any, groups: Any = None) -> Self:
        """Train on the n rows of a table.

        Args:
            X: the column of image paths, and the features.
            y: (n,) labels.
            groups: (n,) which lesion (or patient) an image shows; ``None``: every image counts as its own.

        Raises:
            DataError: not such a table, or images and values that cannot be used. ConfigError: a wrong setting.
        """
        table = self._checked(X)
        if pd.isna(np.asarray(y, dtype=object)).any():
            raise DataError("y has rows without a label; leave them out.")
        self.classes_ = np.unique(np.asarray(y))
        if len(self.classes_) < 2:
            raise DataError(f"All {len(table):,} rows are of one class; a model learns nothing from that: add others.")
        with self._folder() as folder:
            data = self._write(folder / "data", table, np.asarray(y), None if groups is None else np.asarray(groups))
            split = {} if groups is None else {"split": "lesion"}
            named = {"report": False, **split, "seed": self.random_state, **(self.settings or {})}
            out = folder / "run"
            self.run_ = train(data, out=out, recipe=self.recipe, overwrite=True, progress=self.progress, **named)
            self.predictor_: Predictor = load(self.run_.path, mode="throughput")
        self.n_features_in_ = X.shape[1]
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        return self

    def predict_proba(self, X: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return calibrated probabilities (n, k), rows summing to 1, columns as ``classes_``.

        Raises:
            ImageError, DataError: an image or a value that cannot be used.
        """
        return np.array([list(found.probabilities.values()) for found in self._predictions(X)])

    def predict(self, X: pd.DataFrame) -> npt.NDArray[Any]:
        """Return the decided labels (n,); raises as `predict_proba`."""
        check_is_fitted(self)
        place = {code: position for position, code in enumerate(self._codes())}
        labels: npt.NDArray[Any] = self.classes_[[place[found.label] for found in self._predictions(X)]]
        return labels

    def _predictions(self, X: pd.DataFrame) -> Iterator[Any]:
        check_is_fitted(self)
        absent = [name for name in self.feature_names_in_ if name not in X.columns]
        if absent:
            raise DataError(f"The table lacks the column(s) {examples(absent)} that the model was trained with.")
        table = self._checked(X[list(self.feature_names_in_)])
        fields = [name for name in self.predictor_.fields if name in table.columns]
        rows = table[fields].to_dict("records")
        known = [{str(name): value for name, value in row.items() if not pd.isna(value)} for row in rows]
        queries = (Query(path, values) for path, values in zip(table[self.image], known, strict=True))
        with contextlib.closing(self.predictor_.stream(queries)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, DermafuseError):
                    raise outcome
                yield outcome

    def _checked(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the table with absolute paths."""
        if not isinstance(X, pd.DataFrame):
            raise DataError(f"X is a {type(X).__name__}; give a DataFrame with a column of image paths.")
        if self.image not in X.columns:
            near = nearest(self.image, [str(name) for name in X.columns])
            raise DataError(f"The table has no column '{self.image}'; name that of the image paths (image=...).{near}")
        if X[self.image].isna().any():
            raise DataError(f"Column '{self.image}' has rows without an image path; leave them out.")
        table = X.set_axis([str(name) for name in X.columns], axis=1)
        columns: dict[str, Any] = {
            str(name): values.astype(str)  # words, not numbers
            for name, values in table.select_dtypes("bool").items()
        }
        columns[self.image] = [str(Path(path).expanduser().absolute()) for path in table[self.image]]
        return table.assign(**columns)

    def _codes(self) -> list[str]:
        return [str(label) for label in self.classes_]

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        if self.out is not None:
            folder = Path(self.out)
            check_output_folder(folder / "run", overwrite=True)
            yield folder
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="dermafuse-fit-")  # lives as long as the estimator
        yield Path(self._temporary.name)

    def _write(self, folder: Path, table: pd.DataFrame, y: npt.NDArray[Any], groups: npt.NDArray[Any] | None) -> Path:
        """Write the table and its description as a data set of one's own; return the description's path."""
        if len(y) != len(table) or (groups is not None and len(groups) != len(table)):
            raise DataError(f"X has {len(table)} rows, y {len(y)}, groups {len(y if groups is None else groups)}.")
        features = [str(name) for name in table.columns if name != self.image]
        numeric = [name for name in features if pd.api.types.is_numeric_dtype(table[name])]
        written = table.rename(columns={self.image: _IMAGE}).assign(**{_LABEL: [str(label) for label in y]})
        told: dict[str, Any] = {
            "table": _TABLE,
            "image": _IMAGE,
            "label": _LABEL,
            "classes": self._codes(),
            "numeric": numeric,
            "images": sorted({str(Path(path).parent) for path in written[_IMAGE]}),
            "categorical": [name for name in features if name not in numeric],
        }
        if groups is not None:
            written[_GROUP] = groups
            told["lesion"] = _GROUP
        told |= {name: value for name in ("malignant", "critical") if (value := getattr(self, name)) is not None}
        folder.mkdir(parents=True, exist_ok=True)
        before = folder / DESCRIPTION
        if any(folder.iterdir()) and not (before.is_file() and _IMAGE in before.read_text(encoding="utf-8")):
            raise OutputError(f"{folder} was not made by DermafuseClassifier, which writes there; choose another out.")
        written.to_csv(folder / _TABLE, index=False)
        (folder / DESCRIPTION).write_text(tomli_w.dumps(told), encoding="utf-8")
        return folder / DESCRIPTION
