"""Files to stored activations: decode on threads, infer in the engine, append to the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dermafuse.data.images import load_image, view
from dermafuse.data.random_views import VIEW_CHANGES, ViewChange, random_view
from dermafuse.errors import ImageError
from dermafuse.runtime.engine import Engine, bounded_map, cpu_count
from dermafuse.training.features.segments import SegmentWriter
from dermafuse.training.features.store import ActivationStore, RowTable, content_digest

#: Views numbered below this are flips and quarter turns, the others random.
DIHEDRAL_VIEWS: Final = 8

#: So many random views an image can have: the number of a view is kept in a byte.
MOST_RANDOM_VIEWS: Final = 240

#: Called with how many more images are done.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Extraction:
    """What extraction leaves.

    Attributes:
        table: one row per entry of ``good``, all views.
        good: int64 positions in the list of paths whose image could be read, ascending.
        bad: position -> reason, for the others.
        computed: how many images went through the engine now (the others were in the store).
        repaired: rows of the store that were damaged, and were computed again.
    """

    table: RowTable
    good: NDArray[np.int64]
    bad: dict[int, str]
    computed: int
    repaired: int = 0


def digest_files(paths: Sequence[Path]) -> tuple[list[bytes | None], dict[int, str]]:
    """Hash the content of every file.

    Returns:
        A digest a path (``None`` where the file could not be read), and position -> reason for those.
    """
    digests: list[bytes | None] = [None] * len(paths)
    bad: dict[int, str] = {}

    def digest(chunk: range) -> None:
        for position in chunk:
            try:
                digests[position] = content_digest(Path(paths[position]).read_bytes())
            except OSError as error:
                bad[position] = f"cannot be read: {error.strerror}"

    chunks = [range(start, min(start + 256, len(paths))) for start in range(0, len(paths), 256)]
    for _ in bounded_map(chunks, digest, workers=cpu_count()):
        pass
    return digests, bad


def extract(
    paths: Sequence[Path],
    store: ActivationStore,
    make_engine: Callable[[], Engine],
    *,
    image_size: int,
    views: Sequence[int] = (0,),
    counts: NDArray[np.int64] | None = None,
    changes: Sequence[ViewChange] = VIEW_CHANGES,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
    beside_others: bool = False,
) -> Extraction:
    """Make sure that every readable image has its rows in the store, and return access to them.

    Only what the store lacks, or holds damaged, is computed; ``make_engine`` is not called where it lacks nothing, and
    of several processes that want the same rows one computes them. Memory is
    bounded by the number of threads, whatever the number of files. A killed or interrupted call keeps all
    rows committed so far.

    Args:
        paths: image files, one an entry; files of equal content share rows.
        store: where rows are kept; its key must describe the engine's network.
        make_engine: compiles the front: uint8 (1, s, s, 3) to (1, \\*shape).
        image_size: side s in pixels.
        views: by number: 0 is the image as it is, 1 to 7 its other flips and quarter turns (``data/images.py``), 8 to
            255 random views (``data/random_views.py``), drawn from the content of the file and the number.
        counts: int64 (paths,), how many of ``views``, from the first on, each path gets; ``None``: all.
        changes: what random views change; the store's key must say so too.
        progress: told how many more images are done (those in the store count at once).
        say: told a line where another process fills the store and this one waits for it.
        beside_others: these files are a part of an extraction whose other parts may be computed at the same time.

    Raises:
        OutputError: the disk cannot hold the rows.
    """
    digests, bad = digest_files(paths)
    if counts is None:
        counts = np.full(len(paths), len(views), np.int64)
    wanted = views_by_digest(digests, views, counts.tolist())
    damaged = store.check(wanted)
    unreadable: dict[bytes, str] = {}
    computed = 0
    if store.missing(wanted):
        with store.filling(say, beside_others=beside_others):
            store.refresh()  # what another process has computed meanwhile
            damaged += store.check(wanted)
            missing = set(store.missing(wanted))
            first: dict[bytes, int] = {}
            for position, digest in enumerate(digests):
                if digest in missing:
                    first.setdefault(digest, position)
            if progress is not None:
                progress(len(paths) - len(first))
            if first:
                store.check_space(sum(len(set(wanted[digest])) for digest in first))
                ask = Ask(paths, wanted, image_size, changes)
                with store.writer() as writer:
                    compute_rows(ask, first, store, make_engine(), unreadable, writer, progress)
            computed = len(first) - len(unreadable)
    elif progress is not None:
        progress(len(paths))
    for position, digest in enumerate(digests):
        if digest in unreadable:
            bad[position] = unreadable[digest]
    good = np.array([position for position in range(len(paths)) if position not in bad], dtype=np.int64)
    usable = [digest for position in good if (digest := digests[position]) is not None]
    return Extraction(store.rows(usable, views, counts[good]), good, bad, computed, damaged)


def views_by_digest(
    digests: Sequence[bytes | None], views: Sequence[int], counts: Sequence[int]
) -> dict[bytes, Sequence[int]]:
    """Return which views each content is seen in: of equal files the longest list (lists differ in length only)."""
    wanted: dict[bytes, Sequence[int]] = {}
    for digest, count in zip(digests, counts, strict=True):
        if digest is not None and count > len(wanted.get(digest, ())):
            wanted[digest] = views[:count]
    return wanted


@dataclass(frozen=True)
class Ask:
    """What is to be computed: images, the views of each digest, the side in pixels, what random views change."""

    paths: Sequence[Path]
    wanted: Mapping[bytes, Sequence[int]]
    image_size: int
    changes: Sequence[ViewChange]


def compute_rows(
    ask: Ask,
    first: Mapping[bytes, int],
    store: ActivationStore,
    engine: Engine,
    unreadable: dict[bytes, str],
    writer: SegmentWriter,
    progress: Progress | None = None,
) -> None:
    """Add the rows that lack of each digest in ``first``; ``unreadable`` takes the images that cannot be read."""

    def compute(entry: tuple[bytes, int]) -> None:
        digest, position = entry
        try:
            image = load_image(ask.paths[position], ask.image_size)
        except ImageError as error:
            unreadable[digest] = str(error)
            return
        for number in dict.fromkeys(ask.wanted[digest]):
            if (digest, number) in store:
                continue
            (rows, *_) = engine.infer(_seen(image, digest, number, ask.changes)[np.newaxis])
            writer.add(digest, number, rows[0])

    engine.map_threads(first.items(), compute, on_done=progress)


def _seen(image: NDArray[Any], digest: bytes, number: int, changes: Sequence[ViewChange]) -> NDArray[Any]:
    """Return view ``number`` of an image whose file has this digest."""
    if number < DIHEDRAL_VIEWS:
        return np.ascontiguousarray(view(image, number))
    return random_view(image, digest + bytes([number]), changes)
