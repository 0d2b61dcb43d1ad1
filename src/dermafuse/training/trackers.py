"""Finished runs for the tools that people keep them in: TensorBoard, MLflow, or a plain folder.

All of it is read from the RUN folder once it is whole, so that a run is complete with or without its tracker, and a
tracker that fails costs no training: ``dermafuse train ... --resume --track ...`` tells it again. What is handed over:
settings, one row an epoch, every metric of the reported images with its 95 % interval, the report's figures, and the
model's bundle. No picture of a patient, no prediction and no image name is among it. Nothing leaves the machine unless
the user pointed MLflow at a server (``MLFLOW_TRACKING_URI``), and then that is said.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image

from dermafuse.errors import ConfigError, OutputError, nearest
from dermafuse.files import check_writable, folder_atomic, write_atomic, write_json
from dermafuse.progress import Reporter
from dermafuse.runs import CONFIG, FIGURES, HISTORY, METRICS, MODEL, RunFolder

#: Where the event files of a run lie: in the RUN, so that `tensorboard --logdir RUNS` finds those of all.
EVENTS: Final = "tensorboard"

#: One row a run, in the folder of a plain tracker.
TABLE: Final = "runs.csv"

_PACKAGES: Final = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
_EXPERIMENT: Final = "dermafuse"
_BATCH: Final = 100  # of MLflow: parameters in one request, and a tenth of its limit of metrics


def check_tracker(target: str) -> None:
    """Refuse a tracker that cannot be used, before any work starts.

    Raises:
        ConfigError: its package is missing, or its name is misspelt. OutputError: the folder cannot be written to.
    """
    if target in _PACKAGES:
        if importlib.util.find_spec(_PACKAGES[target]) is None:
            raise ConfigError(f'--track {target} needs {_PACKAGES[target]}; run: pip install "dermafuse[track]".')
        return
    hint = nearest(target, [*_PACKAGES])
    if hint and Path(target).name == target and not Path(target).exists():
        raise ConfigError(f"--track '{target}' is no tracker.{hint} A folder of that name is ./{target}.")
    check_writable(Path(target), "choose another --track")


def track(run: RunFolder, target: str, report: Reporter) -> None:
    """Hand a finished run over.

    Args:
        run: a run, ensemble or cross-validation.
        target: ``tensorboard``, ``mlflow``, or a folder.
        report: is told where it went.

    Raises:
        OutputError: the tracker does not take it; the run itself is whole.
    """
    ways: Mapping[str, Callable[[RunFolder], str]] = {"tensorboard": _to_tensorboard, "mlflow": _to_mlflow}
    try:
        said = ways[target](run) if target in ways else _to_folder(run, Path(target))
    except Exception as error:  # MLflow raises errors of its server and of several libraries
        reason = " ".join(str(error).split())[:300]
        raise OutputError(
            f"The run in {run.path} is finished, but --track {target} did not take it ({reason}); mend that and give "
            "the same command with --resume."
        ) from error
    report.say(said)


def metrics_of(run: RunFolder) -> dict[str, float]:
    """Return every figure of the reported images: ``validation/accuracy``, ``..._low``, ``..._high`` (95 %)."""
    block, found = run.block, {}
    ends = dict(_leaves(block.get("ci95") or {}))
    for name, value in _leaves({key: block[key] for key in block if key == "per_class" or not _is_nested(block[key])}):
        found[f"{run.reported}/{name}"] = value
        for end, which in (("low", 0), ("high", 1)):
            if f"{name}/{which}" in ends:
                found[f"{run.reported}/{name}_{end}"] = ends[f"{name}/{which}"]
    return found


def epochs_of(run: RunFolder) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each epoch of a run, and of a cross-validation those of each fold: ``history/loss``, ``fold 1/loss``."""
    for name, table in run.histories.items():
        for row in table.to_dict("records"):
            values = {f"{name or 'history'}/{key}": value for key, value in _leaves(row) if key != "epoch"}
            yield int(row["epoch"]), values


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the finite numbers in nested mappings and lists, by their path."""
    if isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(inner, f"{path}/{key}" if path else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield path, float(value)


def _to_folder(run: RunFolder, folder: Path) -> str:
    """Copy what is worth keeping to ``folder/NAME-TIME/``, and add a row to ``folder/runs.csv``."""
    name = f"{run.path.resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with folder_atomic(folder / name) as fresh:
        for part in (CONFIG, HISTORY, FIGURES, MODEL):
            there = run.path / part
            if there.is_dir():
                shutil.copytree(there, fresh / part)
            elif there.is_file():
                shutil.copyfile(there, fresh / part)
        found = metrics_of(run)
        write_json(fresh / METRICS, found)
    settings = {key: run.config.get(key, "") for key in ("recipe", "backbone", "seed", "split", "epochs")}
    row: dict[str, Any] = {"run": name, **settings, **{key: found[key] for key in found if "per_class" not in key}}
    _add_row(folder / TABLE, row)
    return f"Tracked in {folder / name}, and as a row of {folder / TABLE}."


def _add_row(table: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a CSV whose columns may be others: of runs with other classes, or of another version."""
    rows: list[Mapping[str, Any]] = []
    if table.exists():
        with table.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    columns = dict.fromkeys(key for each in (*rows, row) for key in each)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    write_atomic(table, text.getvalue())


def _to_tensorboard(run: RunFolder) -> str:
    """Write event files into the RUN."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def text(name: str, content: str) -> Any:
        about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[content.encode()], tensor_shape=shape)
        return Summary.Value(tag=name, metadata=about, tensor=tensor)

    def figure(name: str, path: Path) -> Any:
        with Image.open(path) as picture:
            width, height = picture.size
        shown = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=path.read_bytes())
        return Summary.Value(tag=f"figures/{name}", image=shown)

    folder = run.path / EVENTS
    shutil.rmtree(folder, ignore_errors=True)
    writer = EventFileWriter(str(folder))
    try:

        def write(values: list[Any], step: int = 0) -> None:
            writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

        for epoch, found in epochs_of(run):
            write([Summary.Value(tag=name, simple_value=value) for name, value in found.items()], epoch)
        write([Summary.Value(tag=name, simple_value=value) for name, value in metrics_of(run).items()])
        for name, path in run.figures.items():
            write([figure(name, path)])
        settings = "\n".join(f"    {key} = {value!r}" for key, value in run.config.items())
        models = ", ".join(str(path) for path in run.bundles.values()) or "none"
        write([text("settings", settings), text("model", f"Bundle: {models}")])
    finally:
        writer.close()
    return f"Tracked for TensorBoard in {folder}; look at it with: tensorboard --logdir {run.path.parent}"


def _to_mlflow(run: RunFolder) -> str:
    """Add a run to MLflow's experiment ``dermafuse``: in ``./mlruns``, or where MLFLOW_TRACKING_URI points."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report its use; read when it is imported
    where = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
    if where.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 would rather have a database
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri=where)
    known = client.get_experiment_by_name(_EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(_EXPERIMENT)
    made = client.create_run(experiment, run_name=run.path.resolve().name)
    number, now = made.info.run_id, int(time.time() * 1000)
    try:
        settings = [Param(key, str(value)[:500]) for key, value in run.config.items()]
        figures = [Metric(_plain(key), value, now, 0) for key, value in metrics_of(run).items()]
        for epoch, found in epochs_of(run):
            figures += [Metric(_plain(key), value, now, epoch) for key, value in found.items()]
        for begin in range(0, max(len(settings), len(figures)), _BATCH):
            part = slice(begin, begin + _BATCH)
            client.log_batch(number, metrics=figures[part], params=settings[part])
        for path in (run.path / FIGURES, *run.bundles.values()):
            if path.is_dir():
                place = FIGURES if path.name == FIGURES else "/".join(filter(None, (_fold(run, path), MODEL)))
                client.log_artifacts(number, str(path / MODEL if (path / MODEL).is_dir() else path), place)
        client.set_terminated(number)
    except BaseException:
        client.set_terminated(number, status="FAILED")
        raise
    kept = "" if where.startswith(("file:", "sqlite:")) else ", which MLFLOW_TRACKING_URI names"
    return f"Tracked by MLflow in {where}{kept}, experiment '{_EXPERIMENT}', run {number}."


def _fold(run: RunFolder, path: Path) -> str:
    return "" if path == run.path else path.name


def _plain(key: str) -> str:
    """Return a name as MLflow takes it: letters, digits, ``_ - . /`` and blanks."""
    return "".join(mark if mark.isalnum() or mark in "_-./ " else "_" for mark in key)
