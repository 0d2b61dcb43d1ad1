"""dermafuse: multi-modal skin-lesion classification. Research use only, not a medical device.

>>> import dermafuse as df                                          # doctest: +SKIP
>>> run = df.train("HAM10000", out="RUN")                           # doctest: +SKIP
>>> run.plot.confusion_matrix()                                     # doctest: +SKIP
>>> df.load("RUN").predict("lesion.jpg", age=55, sex="male").label  # doctest: +SKIP

This module is the map of the public names; each is loaded when it is first asked for.
"""

from __future__ import annotations

from dermafuse.privacy import forbid_usage_reports

TYPE_CHECKING = False  # typing's own constant, without the time to import typing
if TYPE_CHECKING:
    from dermafuse.api.compare import Comparison, compare
    from dermafuse.api.data import DataCheck, check, read_dataset
    from dermafuse.api.estimator import DermafuseClassifier
    from dermafuse.api.export import export
    from dermafuse.api.run import Run, evaluate
    from dermafuse.api.train import train
    from dermafuse.data.records import Records
    from dermafuse.errors import (
        BundleError,
        ConfigError,
        DataError,
        DermafuseError,
        ImageError,
        OutputError,
        WeightsError,
    )
    from dermafuse.labels import LabelSet
    from dermafuse.runtime.explain.explainer import Explanation
    from dermafuse.runtime.prediction import Prediction
    from dermafuse.runtime.predictor import Predictor
    from dermafuse.runtime.released import load

__all__ = [
    "BundleError",
    "Comparison",
    "ConfigError",
    "DataCheck",
    "DataError",
    "DermafuseClassifier",
    "DermafuseError",
    "Explanation",
    "ImageError",
    "LabelSet",
    "OutputError",
    "Prediction",
    "Predictor",
    "Records",
    "Run",
    "WeightsError",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "export",
    "load",
    "read_dataset",
    "train",
]

__version__ = "0.1.0"

#: Module -> the public names that it holds.
_HOMES = {
    "api.compare": ("Comparison", "compare"),
    "api.data": ("DataCheck", "check", "read_dataset"),
    "api.estimator": ("DermafuseClassifier",),
    "api.export": ("export",),
    "api.run": ("Run", "evaluate"),
    "api.train": ("train",),
    "data.records": ("Records",),
    "errors": (
        "BundleError",
        "ConfigError",
        "DataError",
        "DermafuseError",
        "ImageError",
        "OutputError",
        "WeightsError",
    ),
    "labels": ("LabelSet",),
    "runtime.explain.explainer": ("Explanation",),
    "runtime.prediction": ("Prediction",),
    "runtime.predictor": ("Predictor",),
    "runtime.released": ("load",),
}

forbid_usage_reports()


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            found = globals()[name] = getattr(importlib.import_module(f"dermafuse.{home}"), name)
            return found
    raise AttributeError(f"module 'dermafuse' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
