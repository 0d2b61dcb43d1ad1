"""Filling an activation store in shards, on any machine that sees the images and the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dermafuse.data.random_views import ViewChange
from dermafuse.errors import ConfigError
from dermafuse.runtime.engine import Engine
from dermafuse.training.features.extraction import Ask, compute_rows, digest_files, views_by_digest
from dermafuse.training.features.store import ActivationStore, StoreKey
from dermafuse.training.partition import extraction_model

#: So many images of a shard are looked for before it is computed.
_LOOK_AT: Final = 16


@dataclass(frozen=True)
class ImageShard:
    """Some images: their files, and how many of the job's views, from the first on, each is seen in."""

    paths: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ShardDone:
    """What became of a shard.

    Attributes:
        images: how many it has.
        computed: of them went through the engine now; the others were in the store.
        bad: path -> reason for those that cannot be read.
        repaired: stored rows that were damaged and were computed again.
    """

    images: int
    computed: int
    bad: dict[str, str]
    repaired: int


@dataclass(frozen=True)
class ExtractionJob:
    """Running the frozen part of a network over images, as plain values: see `dermafuse.parallel.Job`.

    Attributes:
        key: what the rows are.
        stores: folder of all stores, as every machine sees it.
        front: the converted frozen part (``.xml``), likewise.
        precision: of the engine.
        image_size: side in pixels.
        views: numbers of views, as ``extraction.extract`` takes them.
        changes: what random views change.
    """

    key: StoreKey
    stores: str
    front: str
    precision: Literal["f32", "bf16"]
    image_size: int
    views: tuple[int, ...]
    changes: tuple[ViewChange, ...]

    def start(self, threads: int) -> Callable[[ImageShard], ShardDone]:
        """Open the store and compile the engine (at the first shard that needs it); return what does a shard.

        Raises:
            ConfigError: this machine does not see the cache, or its CPU cannot compute in that precision.
        """
        _check_in_sight([Path(self.front)], "set DERMAFUSE_CACHE to a folder on a disk that all machines share")
        store = ActivationStore(self.key, Path(self.stores))
        # One segment for all shards: every segment that a training reads costs it time in every batch.
        writer = store.writer()
        engines: list[Engine] = []

        def work(shard: ImageShard) -> ShardDone:
            paths = [Path(path) for path in shard.paths]
            _check_in_sight(paths[:_LOOK_AT], "have its folder on a disk that all machines share")
            digests, bad = digest_files(paths)
            wanted = views_by_digest(digests, self.views, shard.counts)
            repaired = store.check(wanted)
            missing = set(store.missing(wanted))
            first = {digest: place for place, digest in reversed(list(enumerate(digests))) if digest in missing}
            unreadable: dict[bytes, str] = {}
            if first:
                with store.filling(lambda text: None, beside_others=True):
                    store.check_space(sum(len(set(wanted[digest])) for digest in first))
                    engines[:] = engines or [
                        Engine(extraction_model(Path(self.front)), precision=self.precision, threads=threads)
                    ]
                    ask = Ask(paths, wanted, self.image_size, self.changes)
                    compute_rows(ask, first, store, engines[0], unreadable, writer)
                    writer.commit()
            bad |= {place: unreadable[digest] for place, digest in enumerate(digests) if digest in unreadable}
            reasons = {shard.paths[place]: reason for place, reason in sorted(bad.items())}
            return ShardDone(len(paths), len(first) - len(unreadable), reasons, repaired)

        return work


def _check_in_sight(paths: Sequence[Path], advice: str) -> None:
    """Refuse to call files missing that were seen where the command was given."""
    if paths and not any(path.exists() for path in paths):
        raise ConfigError(f"{paths[0]} cannot be seen on this machine; {advice}.")
