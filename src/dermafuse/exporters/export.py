"""``dermafuse export``: a trained model for other programs, verified against the bundle, or not written at all."""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermafuse.errors import ConfigError, OutputError, nearest
from dermafuse.files import folder_atomic
from dermafuse.progress import Reporter, Silent
from dermafuse.runs import CONFIG

if TYPE_CHECKING:
    from dermafuse.exporters.openvino import Format
    from dermafuse.runtime.bundle.folder import Bundle


def export(
    run: Path,
    format: Format,
    to: Path,
    *,
    int8: bool = False,
    data: Path | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Write a model in another format into a fresh folder, with ``export.json`` that says how to use it.

    ``model.onnx`` (``metadata_props``) and ``model.xml`` (``rt_info/dermafuse``) hold the same, but for ``verified``.

    ========== ============================ ==============================================================
    format     files                        needs
    ========== ============================ ==============================================================
    openvino   model.xml, model.bin         the bundle alone
    onnx       model.onnx (opset 18)        the bundle alone, and ``dermafuse[export]``
    bundle     an int8 bundle for dermafuse a RUN and ``int8``
    keras      model.keras (logits)         a RUN and ``dermafuse[train]``
    ========== ============================ ==============================================================

    Every export is read back and asked about 64 images; beyond a difference of 1e-3 in any probability to the
    bundle (f32) nothing is left of it. An int8 model is judged on the validation rows instead (`quantize`).

    Args:
        run: a RUN folder; for ``onnx``, and ``openvino`` without ``int8``, a bundle folder will do.
        format: see above.
        to: a folder that does not exist yet, or is empty.
        int8: for ``openvino`` and ``bundle``: 8-bit integers, gated; needs the data set of the run.
        data: the data set, default the one named in ``RUN/config.toml``; where that is not there, the check
            runs on generated images, and says so.
        report: who is told the progress and the largest difference.

    Returns:
        The content of ``export.json``.

    Raises:
        ConfigError: an unknown format, or a package or a part of the run that this export needs is missing.
        OutputError: ``to`` cannot be used; or the check failed, with the figures.
        BundleError, DataError, WeightsError: an unusable run or data set.
    """
    from dermafuse.exporters.openvino import FORMATS, write_description
    from dermafuse.exporters.verify import take_sample
    from dermafuse.runtime.bundle.files import find_bundle
    from dermafuse.runtime.bundle.folder import read_bundle
    from dermafuse.runtime.released import model_facts, which_model

    report = report or Silent()
    run, to = Path(run), Path(to)
    find_bundle(run)
    if format not in FORMATS:
        raise ConfigError(
            f"Unknown export format '{format}'; there are {', '.join(FORMATS)}.{nearest(format, FORMATS)}"
        )
    if format == "bundle" and not int8:
        raise ConfigError(f"{run} holds its bundle already; --format bundle is for --int8.")
    if int8 and format not in ("openvino", "bundle"):
        raise ConfigError(f"int8 is for the formats openvino and bundle; export to {format} without --int8.")
    _check_installed(format)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise OutputError(f"{to} exists already; name a folder that does not exist yet with --to.")
    with folder_atomic(to) as folder:
        bundle = read_bundle(run)
        data = _data_of(run, data, report)
        if int8 and data is None:
            raise ConfigError(f"int8 needs the data set that {run} was trained on; name it with --data.")
        sample = take_sample(bundle, data)
        if format == "keras":
            description = _export_keras(run, folder, bundle, sample)
        elif format == "onnx":
            description = _export_onnx(folder, bundle, sample)
        else:
            description = _export_openvino(run, format, folder, bundle, sample, data if int8 else None, report)
        if format != "bundle":  # which refuses files that its manifest does not list
            write_description(folder, description)
    verified = description["verified"]
    report.say(which_model(model_facts(bundle)))
    report.say(
        f"{to}: {format}{', int8' if int8 else ''}; largest difference to the model on {verified['source']}: "
        f"{verified['largest_difference']:.2g}."
    )
    return description


def _export_keras(run: Path, folder: Path, bundle: Bundle, sample: Any) -> dict[str, Any]:
    from dermafuse.exporters.openvino import describe
    from dermafuse.exporters.verify import verify
    from dermafuse.training.quiet import load_tensorflow

    if len(bundle.models) > 1:
        raise ConfigError(
            f"{bundle.path} is an ensemble; export the RUN of each member to keras, or use --format onnx or openvino."
        )
    load_tensorflow()
    from dermafuse.training import export_keras

    model = export_keras.rebuild(run, bundle)
    answer = export_keras.keras_answer(export_keras.write_keras(model, folder), bundle.temperature)
    return {**describe(bundle, "keras"), "verified": verify(sample, answer, what="The Keras model")}


def _export_onnx(folder: Path, bundle: Bundle, sample: Any) -> dict[str, Any]:
    from dermafuse.exporters.onnx_graph import OPSET
    from dermafuse.exporters.openvino import describe, probability_network, write_onnx
    from dermafuse.exporters.verify import onnx_answer, verify

    description = describe(bundle, "onnx", opset=OPSET)
    answer = onnx_answer(write_onnx(probability_network(bundle), folder, description))
    return {**description, "verified": verify(sample, answer, what="The ONNX model")}


def _export_openvino(
    run: Path, format: Format, folder: Path, bundle: Bundle, sample: Any, data: Path | None, report: Reporter
) -> dict[str, Any]:
    """Write an IR, or a bundle; in int8 where ``data``, the data set of the run, is given."""
    from dermafuse.exporters.openvino import describe, probability_network, write_openvino
    from dermafuse.exporters.verify import TOLERANCE, openvino_answer, verify
    from dermafuse.runtime.bundle.folder import read_bundle, write_bundle

    more: dict[str, Any] = {"precision": "f32"}
    if data is not None:
        bundle, more = _in_int8(run, bundle, data, report)
    tolerance = TOLERANCE if data is None else None
    description = describe(bundle, format, **more)
    if format == "bundle":
        write_bundle(folder, replace(bundle, info={**bundle.info, "exported_from": bundle.digest}))
        answer = openvino_answer(probability_network(read_bundle(folder)))
    else:
        answer = openvino_answer(write_openvino(probability_network(bundle), folder, description))
    return {**description, "verified": verify(sample, answer, tolerance=tolerance, what=f"The {format} export")}


def _in_int8(run: Path, bundle: Bundle, data: Path, report: Reporter) -> tuple[Bundle, dict[str, Any]]:
    """Return the bundle with its networks in int8, and what is to be said of them."""
    from dermafuse.data.readers.read import read_training_data
    from dermafuse.exporters.quantize import quantize
    from dermafuse.exporters.quantize_gate import figures, split_rows

    calibration, validation = split_rows(run, bundle, read_training_data(data).table)
    quantized = quantize(bundle, calibration, validation, report)
    more: dict[str, Any] = {"precision": "int8", "int8": quantized.report}
    card = (
        f"{bundle.card}\nQuantized to int8 from the model {bundle.digest[:16]}, whose measures stand above. On "
        f"{len(validation):,} validation rows: {figures(quantized.before, quantized.after, bundle.labels)}. "
        "Temperature, prediction sets and the out-of-distribution rule are those of that model.\n"
    )
    return replace(bundle, models=quantized.models, info={**bundle.info, **more}, card=card), more


def _check_installed(format: Format) -> None:
    """Refuse a format before any work where what writes or verifies it is not installed."""
    needed: dict[str, tuple[tuple[str, ...], str]] = {
        "onnx": (("onnx", "onnxruntime"), "export"),
        "keras": (("keras", "tensorflow"), "train"),
    }
    packages, extra = needed.get(format, ((), ""))
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f'Export to {format} needs {lacking[0]}; run: pip install "dermafuse[{extra}]", or use --format openvino.'
        )


def _data_of(run: Path, named: Path | None, report: Reporter) -> Path | None:
    """Return the data set to verify on; ``None`` where none is named and the run's own is not there any more."""
    if named is not None:
        return named
    file = run / CONFIG
    try:
        data = str(tomllib.loads(file.read_text(encoding="utf-8")).get("data", "")) if file.is_file() else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); copy the run again.") from error
    if data and Path(data).exists():
        return Path(data)
    report.warn("The data set of the run is not here, so the export is verified on GENERATED images.")
    return None
