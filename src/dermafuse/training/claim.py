"""Whether a run may be written to a folder: asked before TensorFlow is loaded and the data are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dermafuse.errors import ConfigError, OutputError
from dermafuse.files import check_output_folder, check_writable, nearest_path
from dermafuse.training.config import TrainConfig, read_toml, validated

#: Folder of partial work inside RUN.
CHECKPOINTS: Final = "checkpoints"


def is_finished(out: Path) -> bool:
    """Return whether ``out`` holds a finished run, and not one that is being replaced."""
    return (out / "metrics.json").is_file() and not (out / CHECKPOINTS).is_dir()


def resumed(out: Path, asked: Mapping[str, Any]) -> TrainConfig | None:
    """Return the configuration of the run that was started in ``out``: what ``--resume`` goes on with.

    Args:
        out: the RUN folder.
        asked: settings that were named now. They must be those of the run; only ``data`` may lie elsewhere.

    Returns:
        ``None`` where the run was stopped before it had written its settings.

    Raises:
        OutputError: nothing was started there.
        ConfigError: a setting was named that is not the run's.
    """
    started = [path for path in (out / CHECKPOINTS / "config.toml", out / "config.toml") if path.is_file()]
    if not started:
        if (out / CHECKPOINTS).is_dir():
            return None
        state = "holds no run" if out.exists() else "does not exist"
        raise OutputError(
            f"{out} {state}, so there is nothing to resume; leave out --resume to start one, or check --out."
            f"{nearest_path(out)}"
        )
    config = validated(read_toml(started[0]))
    named = validated({**config.model_dump(), **asked})
    for key in asked:
        own, other = getattr(config, key), getattr(named, key)
        if own != other and key != "data" and (key, other) != ("precision", "auto"):
            raise ConfigError(
                f"The run in {out} was started with {key}={own}, not {key}={other}; leave {key} out to resume it, or "
                "start again with --overwrite."
            )
    return config.model_copy(update={"data": named.data})


def check_output(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Return whether ``out`` holds an unfinished run (or cross-validation) that is to be continued or replaced.

    Raises:
        OutputError: a finished run is there and may not be replaced, or an unfinished one and neither
            ``resume`` nor ``overwrite`` says what to do with it, or nothing can be written there.
    """
    # A finished run with checkpoints is being replaced by an unfinished one.
    folds = any(out.glob("fold-*")) and not (out / "metrics.json").exists()
    unfinished = folds or (out / CHECKPOINTS).is_dir()
    if unfinished and not resume and not overwrite:
        raise OutputError(f"{out} holds an unfinished run; add --resume to continue it, or --overwrite to start again.")
    if unfinished:
        check_writable(out.absolute().parent)
        check_writable(out)
    else:
        check_output_folder(out, overwrite=overwrite)
    return unfinished
