"""``dermafuse export``: a trained model for other programs, verified against the bundle, or not written at all."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dermafuse.errors import ConfigError, OutputError
from dermafuse.exporters.formats import Task, format_named
from dermafuse.files import folder_atomic
from dermafuse.progress import Reporter, Silent
from dermafuse.runs import CONFIG


def export(
    run: Path,
    format: str,
    to: Path,
    *,
    int8: bool = False,
    data: Path | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Write a model in another format into a fresh folder, with ``export.json`` that says how to use it.

    ``model.onnx`` (``metadata_props``) and ``model.xml`` (``rt_info/dermafuse``) hold the same, but for ``verified``.

    Every export is read back and asked about 64 images; beyond a difference of 1e-3 in any probability to the
    bundle (f32) nothing is left of it. An int8 model is judged on the validation rows instead (`quantize`).

    Args:
        run: a RUN folder; for ``onnx``, and ``openvino`` without ``int8``, a bundle folder will do.
        format: of `exporters.formats.FORMATS`; its docstring has the table.
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
    from dermafuse.exporters.openvino import write_description
    from dermafuse.exporters.verify import take_sample
    from dermafuse.runtime.bundle.files import find_bundle
    from dermafuse.runtime.bundle.folder import read_bundle
    from dermafuse.runtime.released import model_facts, which_model

    report = report or Silent()
    run, to = Path(run), Path(to)
    find_bundle(run)
    chosen = format_named(format, int8=int8, run=run)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise OutputError(f"{to} exists already; name a folder that does not exist yet with --to.")
    with folder_atomic(to) as folder:
        bundle = read_bundle(run)
        data = _data_of(run, data, report)
        if int8 and data is None:
            raise ConfigError(f"int8 needs the data set that {run} was trained on; name it with --data.")
        task = Task(run, bundle, take_sample(bundle, data), data if int8 else None, report)
        description = chosen.write(task, folder)
        if chosen.described:
            write_description(folder, description)
    verified = description["verified"]
    report.say(which_model(model_facts(bundle)))
    report.say(
        f"{to}: {format}{', int8' if int8 else ''}; largest difference to the model on {verified['source']}: "
        f"{verified['largest_difference']:.2g}."
    )
    return description


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
