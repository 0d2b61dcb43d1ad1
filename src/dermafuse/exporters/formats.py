"""The registry of export formats. One more is a module that writes it, and its entry in `FORMATS` here.

========== ============================ ==============================================================
format     files                        needs
========== ============================ ==============================================================
openvino   model.xml, model.bin         the bundle alone
onnx       model.onnx (opset 18)        the bundle alone, and ``dermafuse[export]``
bundle     an int8 bundle for dermafuse a RUN and ``int8``
keras      model.keras (logits)         a RUN and ``dermafuse[train]``
========== ============================ ==============================================================

Nothing heavy is imported before a format is written: the command line reads the names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from dermafuse.errors import ConfigError, nearest

if TYPE_CHECKING:
    from dermafuse.exporters.verify import Sample
    from dermafuse.progress import Reporter
    from dermafuse.runtime.bundle.folder import Bundle


@dataclass(frozen=True)
class Task:
    """What is exported.

    Attributes:
        run: a RUN folder or a bundle.
        bundle: its bundle.
        sample: the images on which the export is compared with the bundle.
        data: for 8-bit integers: the data set of the run; ``None``: float32.
        report: who is told the progress.
    """

    run: Path
    bundle: Bundle
    sample: Sample
    data: Path | None
    report: Reporter


@dataclass(frozen=True)
class Format:
    """A format that a model can be exported to.

    Attributes:
        write: writes the files into a folder and returns what ``export.json`` says, ``verified`` among it.
        int8: whether 8-bit integers can be asked for, cannot, or have to be.
        packages: what writes or verifies it and is not installed with dermafuse itself.
        extra: of dermafuse, that installs ``packages``.
        described: whether ``export.json`` is written beside its files.
    """

    write: Callable[[Task, Path], dict[str, Any]]
    int8: Literal["no", "possible", "only"] = "no"
    packages: tuple[str, ...] = ()
    extra: str = "export"
    described: bool = True


def format_named(name: str, *, int8: bool, run: Path) -> Format:
    """Return a format, before any work.

    Raises:
        ConfigError: there is none of this name, it does not go with ``int8``, or a package is missing.
    """
    if name not in FORMATS:
        raise ConfigError(f"Unknown export format '{name}'; there are {', '.join(FORMATS)}.{nearest(name, FORMATS)}")
    found = FORMATS[name]
    if found.int8 == "only" and not int8:
        raise ConfigError(f"{run} holds its bundle already; --format {name} is for --int8.")
    if int8 and found.int8 == "no":
        allowed = " and ".join(other for other, entry in FORMATS.items() if entry.int8 != "no")
        raise ConfigError(f"int8 is for the formats {allowed}; export to {name} without --int8.")
    lacking = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if lacking:
        raise ConfigError(
            f'Export to {name} needs {lacking[0]}; run: pip install "dermafuse[{found.extra}]", or use '
            "--format openvino."
        )
    return found


def _onnx(task: Task, folder: Path) -> dict[str, Any]:
    from dermafuse.exporters.onnx_graph import OPSET
    from dermafuse.exporters.openvino import describe, probability_network, write_onnx
    from dermafuse.exporters.verify import onnx_answer, verify

    description = describe(task.bundle, "onnx", opset=OPSET)
    answer = onnx_answer(write_onnx(probability_network(task.bundle), folder, description))
    return {**description, "verified": verify(task.sample, answer, what="The ONNX model")}


def _openvino(task: Task, folder: Path) -> dict[str, Any]:
    from dermafuse.exporters.openvino import describe, probability_network, write_openvino
    from dermafuse.exporters.verify import TOLERANCE, openvino_answer, verify

    bundle, more = _precision(task)
    description = describe(bundle, "openvino", **more)
    answer = openvino_answer(write_openvino(probability_network(bundle), folder, description))
    tolerance = TOLERANCE if task.data is None else None
    return {**description, "verified": verify(task.sample, answer, tolerance=tolerance, what="The openvino export")}


def _bundle(task: Task, folder: Path) -> dict[str, Any]:
    from dermafuse.exporters.openvino import describe, probability_network
    from dermafuse.exporters.verify import openvino_answer, verify
    from dermafuse.runtime.bundle.folder import read_bundle, write_bundle

    bundle, more = _precision(task)
    write_bundle(folder, replace(bundle, info={**bundle.info, "exported_from": bundle.digest}))
    answer = openvino_answer(probability_network(read_bundle(folder)))
    verified = verify(task.sample, answer, tolerance=None, what="The bundle export")
    return {**describe(bundle, "bundle", **more), "verified": verified}


def _keras(task: Task, folder: Path) -> dict[str, Any]:
    from dermafuse.exporters.openvino import describe
    from dermafuse.exporters.verify import verify
    from dermafuse.training.tensorflow_setup import load_tensorflow

    if len(task.bundle.models) > 1:
        raise ConfigError(
            f"{task.bundle.path} is an ensemble; export the RUN of each member to keras, or use --format onnx or "
            "openvino."
        )
    load_tensorflow()
    from dermafuse.training import export_keras

    model = export_keras.rebuild(task.run, task.bundle)
    answer = export_keras.keras_answer(export_keras.write_keras(model, folder), task.bundle.temperature)
    return {**describe(task.bundle, "keras"), "verified": verify(task.sample, answer, what="The Keras model")}


def _precision(task: Task) -> tuple[Bundle, dict[str, Any]]:
    """Return the bundle, its networks in int8 where that is asked for, and what is to be said of them."""
    if task.data is None:
        return task.bundle, {"precision": "f32"}
    from dermafuse.data.readers.read import read_training_data
    from dermafuse.exporters.quantize import quantize
    from dermafuse.exporters.quantize_gate import figures, split_rows

    bundle = task.bundle
    calibration, validation = split_rows(task.run, bundle, read_training_data(task.data).table)
    quantized = quantize(bundle, calibration, validation, task.report)
    more: dict[str, Any] = {"precision": "int8", "int8": quantized.report}
    card = (
        f"{bundle.card}\nQuantized to int8 from the model {bundle.digest[:16]}, whose measures stand above. On "
        f"{len(validation):,} validation rows: {figures(quantized.before, quantized.after, bundle.labels)}. "
        "Temperature, prediction sets and the out-of-distribution rule are those of that model.\n"
    )
    return replace(bundle, models=quantized.models, info={**bundle.info, **more}, card=card), more


#: Every format by the name that users give it.
FORMATS: Final[dict[str, Format]] = {
    "onnx": Format(_onnx, packages=("onnx", "onnxruntime")),
    "openvino": Format(_openvino, int8="possible"),
    "keras": Format(_keras, packages=("keras", "tensorflow"), extra="train"),
    "bundle": Format(_bundle, int8="only", described=False),  # a bundle refuses files that its manifest does not list
}
