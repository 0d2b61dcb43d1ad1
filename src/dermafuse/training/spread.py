"""Folds and members as tasks that any machine can do: they leave finished RUN folders, which training then joins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.errors import ConfigError
from dermafuse.files import replace_folder, write_atomic
from dermafuse.parallel import Runner
from dermafuse.progress import Reporter, Silent
from dermafuse.runs import CONFIG, METRICS
from dermafuse.temporaries import temporary_folder
from dermafuse.training.claim import CHECKPOINTS, mark_parts
from dermafuse.training.config import TrainConfig, to_toml
from dermafuse.training.first_look import choose_split
from dermafuse.training.parts import members_of


@dataclass(frozen=True)
class TrainJob:
    """Training one fold or member, as plain values: see `dermafuse.parallel.Job`.

    Attributes:
        settings: of the whole training.
        out: its folder, as every machine sees it.
        threads: of one operation of TensorFlow, as where the command was given: it changes the order of sums.
    """

    settings: dict[str, Any]
    out: str
    threads: int

    def start(self, threads: int) -> Callable[[int], tuple[str, list[str]]]:
        """Load TensorFlow and read the data; return what trains fold or member ``number`` (from 0).

        It gives back the name of the folder, and what must not be overlooked.

        Raises:
            ConfigError: this machine does not see the folder.
        """
        from dermafuse.training.tensorflow_setup import load_tensorflow

        config, out = TrainConfig.model_validate(self.settings), Path(self.out)
        if not (_parts_folder(config, out)).is_dir():
            raise ConfigError(f"{out} cannot be seen on this machine; have it on a disk that all machines share.")
        load_tensorflow(threads=self.threads)
        records = read_training_data(Path(config.data))

        def work(number: int) -> tuple[str, list[str]]:
            heard = _Warnings()
            return _train_number(config, out, number, records, heard).name, heard.texts

        return work


def begin_parts(config: TrainConfig, out: Path, *, overwrite: bool) -> None:
    """Make the folder of a training in parts, in the place of what is to be overwritten."""
    if overwrite and out.exists():
        with temporary_folder(out) as empty:
            replace_folder(empty, out)
    folder = _parts_folder(config, out)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        write_atomic(folder / CONFIG, to_toml(config))  # first: whoever sees the mark goes on with these settings
    mark_parts(folder)


def train_elsewhere(
    config: TrainConfig, out: Path, records: Records, runner: Runner, report: Reporter, *, threads: int
) -> None:
    """Have all folds, or all members of an ensemble, that are not finished trained by ``runner``."""
    names = _names(config, out, records)
    said: set[str] = set()  # most is said of every fold
    missing = [number for number, folder in enumerate(names) if not (folder / METRICS).is_file()]
    what = "folds" if config.folds else "members"
    with report.bar(f"Training {len(names)} {what}", len(names), what) as advance:
        advance(len(names) - len(missing))
        job = TrainJob(config.model_dump(), str(out.absolute()), threads)
        for _, (name, warnings) in runner(job, ((number, number) for number in missing)):
            advance(1)
            for text in warnings:
                if text not in said:
                    report.warn(f"{name}: {text}")
                    said.add(text)


def _parts_folder(config: TrainConfig, out: Path) -> Path:
    return out if config.folds else out / CHECKPOINTS


def _names(config: TrainConfig, out: Path, records: Records) -> list[Path]:
    if config.folds:
        return [out / f"fold-{number}" for number in range(1, config.folds + 1)]
    split = choose_split(records, config, None)
    return [out / CHECKPOINTS / "members" / each.name for each in members_of(config, records, split)]


class _Warnings(Silent):
    """Keeps what must not be overlooked, for where the command was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        """Keep the line."""
        self.texts.append(text)


def _train_number(config: TrainConfig, out: Path, number: int, records: Records, report: Reporter) -> Path:
    if config.folds:
        from dermafuse.training.cross_validation import train_fold

        folder = out / f"fold-{number + 1}"
        if not (folder / METRICS).is_file():
            train_fold(config, folder, number, records, report)
        return folder
    from dermafuse.training.ensemble import train_member

    split = choose_split(records, config, None)
    member = list(members_of(config, records, split))[number]
    folder = out / CHECKPOINTS / "members" / member.name
    if not (folder / METRICS).is_file():
        train_member(member, folder, records, split, config, report)
    return folder
