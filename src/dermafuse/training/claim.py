"""Whether a run may be written to a folder: asked before TensorFlow is loaded and the data are read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dermafuse.errors import ConfigError, DataError, OutputError, WeightsError
from dermafuse.files import check_output_folder, check_writable, nearest_path, write_atomic, write_json
from dermafuse.parallel import origin
from dermafuse.runs import CONFIG, METRICS
from dermafuse.training.config import TrainConfig, read_toml, to_toml, validated

#: Folder of partial work inside RUN.
CHECKPOINTS: Final = "checkpoints"

_AUDITS: Final = "audits.json"

#: A file in the folder of a run (or of its checkpoints) that is made in parts: whoever comes next goes on.
_PARTS: Final = "parts.json"


def is_finished(out: Path) -> bool:
    """Return whether ``out`` holds a finished run, and not one that is being replaced."""
    return (out / METRICS).is_file() and not (out / CHECKPOINTS).is_dir()


def resumed(out: Path, asked: Mapping[str, Any]) -> TrainConfig | None:
    """Return the configuration of the run that was started in ``out``: what ``--resume`` goes on with.

    Args:
        out: the RUN folder.
        asked: settings that were named now. They must be those of the run; only ``data`` may lie elsewhere.

    Returns:
        ``None`` where the run was stopped before it had written its settings, or where nothing is there yet and
        ``data`` were named: what is asked then starts, so that a script may be run again as it is.

    Raises:
        OutputError: nothing was started there, and no ``data`` were named to start with; or other things are there.
        ConfigError: a setting was named that is not the run's.
    """
    settings = _settings(out)
    if settings is None:
        if (out / CHECKPOINTS).is_dir() or (asked.get("data") and is_free(out)):
            return None
        state = "holds no run" if out.exists() else "does not exist"
        raise OutputError(
            f"{out} {state}, so there is nothing to resume; name --data to start one, or check --out."
            f"{nearest_path(out)}"
        )
    config = validated(read_toml(settings))
    named = validated({**config.model_dump(), **asked})
    for key in asked:
        own, other = getattr(config, key), getattr(named, key)
        if own != other and key != "data" and other != "auto":
            raise ConfigError(
                f"The run in {out} was started with {key}={own}, not {key}={other}; leave {key} out to resume it, or "
                "start again with --overwrite."
            )
    return config.model_copy(update={"data": named.data})


def is_free(out: Path) -> bool:
    """Return whether nothing is at ``out``, or an empty folder."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def resumed_audits(out: Path) -> tuple[str, ...]:
    """Return the audits that the run started in ``out`` was asked for."""
    settings = _settings(out)
    file = None if settings is None else settings.with_name(_AUDITS)
    if file is None or not file.is_file():
        return ()
    try:
        return tuple(str(name) for name in json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); remove it, and name the audits again.") from error


def is_started(out: Path) -> bool:
    """Return whether there is a run in ``out``, finished or not, that has written its settings."""
    return _settings(out) is not None


def in_parts(out: Path) -> bool:
    """Return whether there is an unfinished run in ``out`` that is made in parts, by several processes or machines."""
    return any((folder / _PARTS).is_file() for folder in (out, out / CHECKPOINTS)) and not is_finished(out)


def mark_parts(folder: Path) -> None:
    """Write down that the run in ``folder`` is made in parts."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _PARTS).exists():
        write_json(folder / _PARTS, {"begun": origin()})


def all_parts_are_there(folder: Path) -> None:
    """Forget that the run in ``folder`` was made in parts: it is whole."""
    (folder / _PARTS).unlink(missing_ok=True)


def _settings(out: Path) -> Path | None:
    """Return the settings of the run in ``out``; those of an unfinished one that replaces it come first."""
    return next((path for path in (out / CHECKPOINTS / CONFIG, out / CONFIG) if path.is_file()), None)


@contextlib.contextmanager
def recorded(folder: Path, config: TrainConfig, audits: Sequence[str] = ()) -> Iterator[None]:
    """Keep in ``folder`` what ``--resume`` goes on with, while the block works on the run.

    Settings or data that are refused before anything was trained leave no unfinished run behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CONFIG, to_toml(config))
    if audits:
        write_json(folder / _AUDITS, list(audits))
    try:
        yield
    except (ConfigError, DataError, WeightsError):
        if not any(folder.rglob("*.safetensors")):
            for name in (CONFIG, _AUDITS, _PARTS):
                (folder / name).unlink(missing_ok=True)
            inside = [Path(found) for found, _, _ in os.walk(folder, topdown=False)]
            for place in (*inside, folder.parent):
                with contextlib.suppress(OSError):  # what is not empty stays
                    place.rmdir()
        raise


def check_output(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Return whether ``out`` holds an unfinished run (or cross-validation) that is to be continued or replaced.

    Raises:
        OutputError: a finished run is there and may not be replaced, or an unfinished one and neither
            ``resume`` nor ``overwrite`` says what to do with it, or nothing can be written there.
    """
    # A finished run with checkpoints is being replaced by an unfinished one.
    begun = any(out.glob("fold-*")) or (out / CONFIG).is_file() or (out / _PARTS).is_file()
    folds = begun and not (out / METRICS).exists()
    unfinished = folds or (out / CHECKPOINTS).is_dir()
    if unfinished and not resume and not overwrite:
        raise OutputError(f"{out} holds an unfinished run; add --resume to continue it, or --overwrite to start again.")
    if unfinished:
        check_writable(out.absolute().parent)
        check_writable(out)
    else:
        check_output_folder(out, overwrite=overwrite)
    return unfinished
