"""What --resume and --overwrite do with what they find; the runs themselves: tests/commands/test_train_cli.py."""

from pathlib import Path

import pytest

from dermafuse import progress
from dermafuse.errors import ConfigError, DataError, OutputError
from dermafuse.training.claim import check_output, is_finished, recorded, resumed, resumed_audits
from dermafuse.training.config import asked, resolve, to_toml


def started(folder: Path, **options: object) -> Path:
    """Leave what a killed run leaves: its settings among its checkpoints."""
    config = resolve("seed", options={"data": "/data", **options})
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "config.toml").write_text(to_toml(config))
    return folder


def test_a_run_is_resumed_with_the_settings_that_it_was_started_with(tmp_path: Path) -> None:
    run = started(tmp_path / "RUN", epochs=7, backbone="efficientnet_lite0", split="lesion")
    config = resumed(run, {})
    assert config is not None
    assert (config.recipe, config.epochs, config.backbone, config.split) == ("seed", 7, "efficientnet_lite0", "lesion")


def test_a_setting_that_is_not_the_runs_is_refused_by_name(tmp_path: Path) -> None:
    run = started(tmp_path / "RUN", epochs=7)
    assert resumed(run, asked(options={"epochs": 7}, assignments=["precision=auto"])) is not None
    with pytest.raises(ConfigError, match=r"started with epochs=7, not epochs=8.*--overwrite"):
        resumed(run, asked(assignments=["epochs=8"]))
    with pytest.raises(ConfigError, match="recipe=seed, not recipe=standard"):
        resumed(run, asked("standard"))


def test_data_that_were_moved_may_be_named_again(tmp_path: Path) -> None:
    config = resumed(started(tmp_path / "RUN"), {"data": "/moved"})
    assert config is not None
    assert config.data == "/moved"


def test_where_nothing_was_started_there_is_nothing_to_resume(tmp_path: Path) -> None:
    started(tmp_path / "standard")
    with pytest.raises(OutputError, match=r"standart does not exist, so there is nothing to resume.*'.*standard'"):
        resumed(tmp_path / "standart", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="holds no run"):
        resumed(tmp_path / "empty", {})


def test_a_script_that_resumes_starts_where_nothing_is_there_yet_and_takes_nothing_elses_place(tmp_path: Path) -> None:
    assert resumed(tmp_path / "NEW", {"data": "/data"}) is None
    (tmp_path / "empty").mkdir()
    assert resumed(tmp_path / "empty", {"data": "/data"}) is None
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").touch()
    with pytest.raises(OutputError, match="holds no run"):
        resumed(tmp_path / "holiday", {"data": "/data"})


def test_a_run_killed_before_it_wrote_its_settings_takes_those_named_now(tmp_path: Path) -> None:
    (tmp_path / "RUN" / "checkpoints").mkdir(parents=True)
    assert resumed(tmp_path / "RUN", {}) is None


def test_a_finished_run_that_is_being_replaced_is_unfinished(tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    run.mkdir()
    (run / "metrics.json").write_text("{}")
    assert is_finished(run)
    started(run)
    assert not is_finished(run)
    with pytest.raises(OutputError, match="--resume"):
        check_output(run, resume=False, overwrite=False)
    assert check_output(run, resume=True, overwrite=False)
    assert check_output(run, resume=False, overwrite=True)


def test_the_audits_that_were_asked_for_are_resumed_too(tmp_path: Path) -> None:
    with recorded(tmp_path / "RUN/checkpoints", resolve("seed"), ["leakage"]):
        pass
    assert resumed_audits(tmp_path / "RUN") == ("leakage",)
    assert resumed_audits(started(tmp_path / "without")) == ()


@pytest.mark.parametrize("inside", ["checkpoints", "."])
def test_what_was_refused_before_anything_was_trained_leaves_no_unfinished_run(inside: str, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    (run / inside / "fold-1" / "checkpoints").mkdir(parents=True)
    with pytest.raises(DataError), recorded(run / inside, resolve("seed"), ["metadata"]):
        raise DataError("too many bad rows")
    assert not run.exists()


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), OutputError("disk full")])
def test_a_run_that_was_stopped_is_there_to_be_resumed(stopped: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(stopped)), recorded(tmp_path / "RUN/checkpoints", resolve("seed", options={"epochs": 4})):
        raise stopped
    config = resumed(tmp_path / "RUN", {})
    assert config is not None
    assert config.epochs == 4


def test_what_was_trained_outlives_a_refusal(tmp_path: Path) -> None:
    started(tmp_path / "RUN")
    (tmp_path / "RUN/checkpoints/epoch-1.safetensors").touch()
    with pytest.raises(DataError), recorded(tmp_path / "RUN/checkpoints", resolve("seed")):
        raise DataError("no metadata to audit")
    assert resumed(tmp_path / "RUN", {}) is not None


def test_a_cross_validation_killed_before_its_first_fold_is_resumed_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(to_toml(resolve("seed", options={"data": "/data", "folds": 3})))
    with pytest.raises(OutputError, match="--resume"):
        check_output(tmp_path, resume=False, overwrite=False)
    assert check_output(tmp_path, resume=True, overwrite=False)
    assert check_output(tmp_path, resume=False, overwrite=True)


def test_a_single_run_replaces_an_unfinished_cross_validation(tmp_path: Path) -> None:
    from dermafuse.training.experiment import claim_output

    (tmp_path / "RUN/fold-1").mkdir(parents=True)
    assert claim_output(tmp_path / "RUN", resume=False, overwrite=True) == tmp_path / "RUN/checkpoints"


def test_python_callers_cannot_resume_with_other_settings_either(tmp_path: Path) -> None:
    from dermafuse.training.start import train

    run = started(tmp_path / "RUN", epochs=7)
    with pytest.raises(ConfigError, match="epochs=7, not epochs=8"):
        train(
            resolve("seed", options={"data": "/data", "epochs": 8}),
            run,
            resume=True,
            overwrite=False,
            report=progress.Silent(),
        )


def test_what_was_done_before_does_not_count_in_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 5.0)
    with progress.Terminal().bar("Training", 1000, "steps") as advance:
        now[0] = 1.0
        advance(900)  # from the checkpoint
        now[0] = 11.0
        advance(20)  # in ten seconds
        now[0] = 12.0
    said = capsys.readouterr().err
    assert "920/1,000, 2.0 steps/s, 40 s left" in said
    assert "920 steps in 12.0 s (2.0 steps/s)" in said
