"""A data set from its source to a folder: refused early, fetched part by part, counted at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dermafuse.errors import ConfigError, OutputError
from dermafuse.files import check_writable, sync_folder, write_json
from dermafuse.network.catalogue import DataSet, RemoteFile, Source
from dermafuse.network.download import digest, download, part_of
from dermafuse.network.http import Patience, Web
from dermafuse.network.kaggle import copy_from_kaggle
from dermafuse.network.listings import listed
from dermafuse.network.papers import count, write_papers
from dermafuse.network.unpack import unpack
from dermafuse.progress import Reporter
from dermafuse.temporaries import is_at, try_lock

#: Hidden folder in DATA: part files, what is done, the lock.
STATE: Final = ".dermafuse-fetch"

#: Free space that is left over.
_SPARE: Final = 50_000_000


@dataclass(frozen=True)
class _Job:
    """One data set on its way to one folder."""

    data_set: DataSet
    source: Source
    folder: Path
    report: Reporter

    @property
    def work(self) -> Path:
        """The hidden folder of this data set."""
        return self.folder / STATE / self.data_set.name

    @property
    def finished(self) -> Path:
        """Written last."""
        return self.folder / STATE / f"{self.data_set.name}.json"

    def place(self, file: RemoteFile) -> Path:
        """Where a file, or what its archive holds, comes to lie."""
        return self.folder / (file.into or file.name)

    def mark(self, file: RemoteFile) -> Path:
        """Written when a file is at its place, or is about to be moved there whole."""
        return self.work / f"{file.name}.done"


def fetch(
    data_set: DataSet,
    folder: Path,
    report: Reporter,
    *,
    source: str | None = None,
    accepted: bool = False,
    patience: Patience | None = None,
) -> dict[str, int]:
    """Fetch a data set, or what an interrupted run left to fetch, and return its counts.

    Args:
        data_set: as the catalogue has it.
        folder: DATA; made where missing. Other files in it are not touched.
        report: is told the progress.
        source: where from; the first of the data set's where ``None``.
        accepted: whether its licence is accepted.
        patience: with the network.

    Returns:
        ``images`` and, where a table is counted, ``rows`` and ``lesions``.

    Raises:
        ConfigError: the licence is not accepted, no such source, or a package is missing.
        OutputError: something else lies in the folder, another process fetches into it, or the disk is too small.
        NetworkError: the source cannot be had or is altered.
        DataError: what came has not the counts that the data set has.
    """
    chosen = data_set.source(source)
    if not accepted:
        raise ConfigError(
            f"{data_set.title}. Licence: {data_set.licence} ({data_set.licence_at}); to be cited: {data_set.cite}. "
            "Nothing was fetched: add --accept-licence if you accept."
        )
    job = _Job(data_set, chosen, Path(folder).expanduser().absolute(), report)
    check_writable(job.folder, "choose another --to")
    with _locked(job.folder):
        if job.finished.exists():
            chosen = data_set.source(str(json.loads(job.finished.read_bytes())["source"]))
            report.say(f"{data_set.name} from {chosen.name} is in {job.folder} already; counting what is there.")
        else:
            files = _from_kaggle(job) if chosen.kind == "kaggle" else _from_web(job, patience)
            for note in write_papers(data_set, chosen, files, job.folder):
                report.warn(note)
        counts = count(data_set, chosen, job.folder)
        write_json(job.finished, {"source": chosen.name, "counts": counts})
        shutil.rmtree(job.work, ignore_errors=True)
    if data_set.mind:
        report.warn(data_set.mind)
    return counts


def _from_web(job: _Job, patience: Patience | None) -> list[RemoteFile]:
    web = Web(job.report.say, patience)
    try:
        files = listed(web, job.source)
        job.work.mkdir(parents=True, exist_ok=True)
        if _started(job):
            job.report.say(f"Going on with what is in {job.work}.")
        waiting = [file for file in files if not _is_done(job, file)]
        _check_space(job, waiting)
        total = sum(file.size for file in files)
        with job.report.bar(job.data_set.name, max(total // 1000, 1), "kB") as advance:
            tell = _in_thousands(advance)
            tell(sum(file.size for file in files if file not in waiting))
            for file in waiting:
                _finish(job, file, download(web, file, job.work, tell))
    finally:
        web.close()
    return files


def _started(job: _Job) -> bool:
    """Whether a run began here; one from another source is refused, as its files are not these."""
    note = job.work / "source.json"
    if note.exists():
        with contextlib.suppress(ValueError):
            began = json.loads(note.read_bytes())
            if began != job.source.name:
                raise OutputError(
                    f"{job.folder} holds the beginning of {job.data_set.name} from {began}: go on with --source "
                    f"{began}, or delete {job.work} and what it fetched."
                )
            return True
    write_json(note, job.source.name)
    return False


def _is_done(job: _Job, file: RemoteFile) -> bool:
    """Whether a file is at its place.

    Raises:
        OutputError: something else is there.
    """
    place, mark = job.place(file), job.mark(file)
    if not os.path.lexists(place):
        return False
    if mark.exists():  # the move that follows the mark is one step: what is there is whole
        part_of(file, job.work).unlink(missing_ok=True)
        return True
    if place.is_file() and file.digest and digest(place, file.digest) == file.digest:
        return True
    raise OutputError(f"{place} exists already and is not what this command fetched; choose another --to, or move it.")


def _finish(job: _Job, file: RemoteFile, part: Path) -> None:
    """Put a fetched file, or what it holds, at its place."""
    place = job.place(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.into:
        fresh = job.work / "unpacking" / place.name
        job.report.say(f"Unpacking {file.name}.")
        unpack(part, fresh, file.most)
        write_json(job.mark(file), file.digest)
        fresh.rename(place)
    else:
        write_json(job.mark(file), file.digest)
        part.rename(place)
    sync_folder(place.parent)
    for left in (part, part.with_name(f"{part.name}.json")):
        left.unlink(missing_ok=True)


def _check_space(job: _Job, waiting: list[RemoteFile]) -> None:
    """Refuse before the first byte where the disk is too small: all files unpacked, and the largest archive."""
    parts = {file.name: part_of(file, job.work) for file in waiting}
    here = sum(part.stat().st_size for part in parts.values() if part.exists())
    # Images do not shrink in an archive: it unpacks to about its own size.
    archive = max((file.size for file in waiting if file.into), default=0)
    needed = sum(file.size for file in waiting) + archive - here + _SPARE
    free = shutil.disk_usage(job.folder).free
    if free < needed:
        raise OutputError(
            f"{job.folder} has {free / 1e9:.1f} GB free and {job.data_set.name} needs {needed / 1e9:.1f} GB; "
            "make room, or choose another --to."
        )


def _from_kaggle(job: _Job) -> list[RemoteFile]:
    taken = [job.place(file) for file in job.source.files if os.path.lexists(job.place(file))]
    if taken:
        raise OutputError(f"{taken[0]} exists already; choose another --to, or move it.")
    fresh = job.work / "kaggle"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    copy_from_kaggle(job.source, fresh)
    count(job.data_set, job.source, fresh)
    for file in job.source.files:
        (fresh / (file.into or file.name)).rename(job.place(file))
    return list(job.source.files)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the one right to fetch into a folder.

    Raises:
        OutputError: another process has it.
    """
    path = folder / STATE / "lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as stream:
        if try_lock(stream.fileno()) is False or not is_at(stream.fileno(), path):
            raise OutputError(f"Another dermafuse fetches into {folder}; wait until it has finished.")
        yield


def _in_thousands(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Return a counter of bytes that tells whole kilobytes."""
    state: dict[str, Any] = {"bytes": 0, "told": 0}

    def tell(more: int) -> None:
        state["bytes"] += more
        step = state["bytes"] // 1000 - state["told"]
        if step:
            state["told"] += step
            advance(step)

    return tell
