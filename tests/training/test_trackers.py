"""--track: what a tracker is handed of a finished run, and that it stays on this machine."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermafuse.api.train import train_as_asked
from dermafuse.cli import main
from dermafuse.errors import ConfigError, OutputError
from dermafuse.progress import Silent
from dermafuse.runs import RunFolder
from dermafuse.training import trackers
from tiny_run import copy_run, tiny_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> Path:
    run = tiny_run(tmp_path_factory.mktemp("tracked") / "RUN", synthetic)
    (run / "figures").mkdir()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(run / "figures" / "roc.png")
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    return RunFolder.open(copy_run(finished, tmp_path / "runs" / "RUN"))


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_figures_are_handed_over_with_the_ends_of_their_intervals(run: RunFolder) -> None:
    found = trackers.metrics_of(run)
    assert found["validation/accuracy"] == pytest.approx(run.block["accuracy"])
    low, high = run.block["ci95"]["accuracy"]
    assert (found["validation/accuracy_low"], found["validation/accuracy_high"]) == pytest.approx((low, high))
    assert any(name.startswith("validation/per_class/mel/") for name in found)
    assert not any(image in str(found) for image in run.predictions["image_id"].astype(str))


def test_a_folder_gets_each_run_and_a_table_of_all(run: RunFolder, tmp_path: Path, monkeypatch: object) -> None:
    told = Told()
    trackers.track(run, str(tmp_path / "kept"), told)
    (tmp_path / "kept" / "runs.csv").write_text("run,other\nearlier,1\n")
    shutil.move(next((tmp_path / "kept").glob("RUN-*")), tmp_path / "kept" / "first")
    trackers.track(run, str(tmp_path / "kept"), told)
    (kept,) = (tmp_path / "kept").glob("RUN-*")
    assert {path.name for path in kept.iterdir()} == {"config.toml", "history.csv", "metrics.json", "figures", "model"}
    with (tmp_path / "kept" / "runs.csv").open(newline="") as stream:
        earlier, row = csv.DictReader(stream)
    assert (earlier["run"], earlier["other"]) == ("earlier", "1")
    assert row["run"] == kept.name
    assert float(row["validation/accuracy"]) == pytest.approx(run.block["accuracy"])
    assert str(kept) in told.lines[-1]


def test_tensorboard_reads_epochs_metrics_figures_and_settings(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # its readers would load it for nothing
    told = Told()
    trackers.track(run, "tensorboard", told)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert (tags["images"], sorted(tags["tensors"])) == (["figures/roc"], ["model", "settings"])
    assert [event.step for event in events.Scalars("history/loss")] == run.history["epoch"].tolist()
    assert events.Scalars("validation/accuracy")[0].value == pytest.approx(run.block["accuracy"], abs=1e-6)
    assert "tensorboard --logdir" in told.lines[-1]


def test_mlflow_keeps_a_run_in_a_local_store_and_connects_to_nobody(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    asked: list[object] = []

    def never(*words: object) -> None:
        asked.append(words)
        raise OSError("this test is offline")

    monkeypatch.setattr(socket.socket, "connect", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    told = Told()
    trackers.track(run, "mlflow", told)
    assert asked == []
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("dermafuse")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert (kept.info.status, kept.info.run_name) == ("FINISHED", "RUN")
    assert kept.data.params == {key: str(value) for key, value in run.config.items()}
    assert kept.data.metrics["validation/accuracy"] == pytest.approx(run.block["accuracy"])
    assert kept.data.metrics["validation/accuracy_low"] == pytest.approx(run.block["ci95"]["accuracy"][0])
    assert {item.path for item in client.list_artifacts(kept.info.run_id)} == {"figures", "model"}
    assert "model/manifest.json" in {item.path for item in client.list_artifacts(kept.info.run_id, "model")}
    steps = [point.step for point in client.get_metric_history(kept.info.run_id, "history/loss")]
    assert steps == run.history["epoch"].tolist()


def test_a_tracker_that_cannot_be_used_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "nowhere", "--out", "o", "--track", "mlfow"]) == 2
    assert "Did you mean 'mlflow'?" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        trackers.check_tracker(str(tmp_path / "file" / "deeper"))
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"dermafuse\[track\]"):
        trackers.check_tracker("mlflow")
    trackers.check_tracker("./mlfow")


def test_a_tracker_that_fails_leaves_the_run_whole_and_is_told_again_by_resume(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(run: RunFolder) -> str:
        raise RuntimeError("the server is away")

    monkeypatch.setattr(trackers, "_to_mlflow", fails)
    with pytest.raises(OutputError, match=r"RUN is finished, but --track mlflow .* \(the server is away\).*--resume"):
        trackers.track(run, "mlflow", Silent())
    told = Told()
    monkeypatch.setattr(trackers, "_to_mlflow", lambda run: "taken")
    named = {"options": {"data": run.config["data"]}}
    train_as_asked(run.path, named, audits=[], resume=True, overwrite=False, report=told, track="mlflow")
    assert told.lines[-1] == "taken"
