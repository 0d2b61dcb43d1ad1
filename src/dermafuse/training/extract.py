"""``dermafuse extract``: fill the activation store for a training, whole or in parts; training then finds it full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from dermafuse.data.records import Records
from dermafuse.errors import ConfigError, examples
from dermafuse.parallel import Part, Runner
from dermafuse.progress import Reporter
from dermafuse.runtime.engine import Engine
from dermafuse.training.config import TrainConfig
from dermafuse.training.features.extraction import extract
from dermafuse.training.features.job import ExtractionJob, ImageShard
from dermafuse.training.features.store import ActivationStore, stores_folder
from dermafuse.training.partition import Plan, extraction_model, front_file, front_path, plan_network, store_key
from dermafuse.training.parts import trainings_of
from dermafuse.training.prepare import divided, views_of
from dermafuse.training.tensorflow_setup import load_tensorflow

#: Images are divided into about so many shards, of no fewer and no more images than this.
_SHARDS: Final = 256
_FEWEST, _MOST = 8, 256


@dataclass
class Extracted:
    """What an extraction left.

    Attributes:
        images: of the part, once for each network that they are computed for.
        computed: of them went through the engine now.
        bad: path -> reason of the images that cannot be read; the training lists them in ``skipped.csv``.
        stores: folders that hold the rows.
    """

    images: int = 0
    computed: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    stores: list[Path] = field(default_factory=list)


@dataclass
class _Wanted:
    """What a frozen part is asked: the views, and how many of them, from the first on, each file is seen in."""

    config: TrainConfig
    plan: Plan
    views: tuple[int, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def shards(self) -> list[ImageShard]:
        """Return all files in shards; the same wherever the data are read."""
        files = list(self.counts.items())
        size = min(max(-(-len(files) // _SHARDS), _FEWEST), _MOST)
        parts = [files[start : start + size] for start in range(0, len(files), size)]
        return [ImageShard(tuple(path for path, _ in part), tuple(count for _, count in part)) for part in parts]


def extract_features(
    config: TrainConfig, records: Records, report: Reporter, *, part: Part | None = None, runner: Runner | None = None
) -> Extracted:
    """Run the frozen part of every network that ``config`` trains over its images, as far as the store lacks them.

    Args:
        config: of the training.
        records: its data.
        report: who is told the progress.
        part: of the shards; ``None``: all.
        runner: computes shards elsewhere (`dermafuse.cluster`); ``None``: here.

    Raises:
        ConfigError: the training has no frozen part.
        OutputError: the disk cannot hold the rows.
    """
    done = Extracted()
    for wanted in _wanted(config, records):
        shards = [shard for number, shard in enumerate(wanted.shards()) if part is None or part.has(number)]
        total = sum(len(shard.paths) for shard in shards)
        done.images += total
        which = f", part {part}" if part else ""
        with report.bar(f"Frozen part of {wanted.plan.backbone.name}{which}", total, "images") as advance:
            if runner is not None:
                _elsewhere(wanted, shards, runner, advance, report, done)
            elif shards:
                _here(wanted, shards, advance, report, done, beside_others=part is not None)
        done.stores.append(ActivationStore(store_key(wanted.plan)).folder)
    if done.bad:
        report.warn(f"{len(done.bad):,} images cannot be read ({examples(done.bad)}); the training leaves them out.")
    return done


def _wanted(config: TrainConfig, records: Records) -> list[_Wanted]:
    found: dict[str, _Wanted] = {}
    for own, split, tuning in trainings_of(config, records):
        plan = plan_network(own)
        if not plan.cached:
            raise ConfigError(
                "This training has no frozen part (cache=false, or unfreeze_from=all): nothing to extract."
            )
        wanted = found.setdefault(store_key(plan).digest, _Wanted(own, plan))
        for name, side in divided(records, own, split, tuning).items():
            views, counts = views_of(name, side, own)
            if len(views) > len(wanted.views):  # lists differ in their length only
                wanted.views = tuple(views)
            for path, count in zip(side.table["path"], counts.tolist(), strict=True):
                wanted.counts[path] = max(count, wanted.counts.get(path, 0))
    for each in found.values():  # whatever order the folds came in
        each.counts = dict(sorted(each.counts.items()))
    return list(found.values())


def _here(
    wanted: _Wanted, shards: list[ImageShard], advance: Any, report: Reporter, done: Extracted, *, beside_others: bool
) -> None:
    plan = wanted.plan
    paths = [Path(path) for shard in shards for path in shard.paths]
    found = extract(
        paths,
        ActivationStore(store_key(plan)),
        lambda: Engine(extraction_model(_front(wanted, report)), precision=plan.precision),
        image_size=plan.image_size,
        views=wanted.views,
        counts=np.array([count for shard in shards for count in shard.counts], np.int64),
        changes=wanted.config.view_changes,
        progress=advance,
        say=report.say,
        beside_others=beside_others,
    )
    done.computed += found.computed
    done.bad |= {str(paths[place]): reason for place, reason in found.bad.items()}
    _tell_repaired(found.repaired, report)


def _elsewhere(
    wanted: _Wanted, shards: list[ImageShard], runner: Runner, advance: Any, report: Reporter, done: Extracted
) -> None:
    plan = wanted.plan
    for _ in runner(FrontJob(wanted.config.model_dump()), [(0, None)]):  # once, before many want it
        pass
    job = ExtractionJob(
        store_key(plan),
        str(stores_folder().absolute()),
        str(front_path(plan).absolute()),
        plan.precision,
        plan.image_size,
        wanted.views,
        wanted.config.view_changes,
    )
    repaired = 0
    for _, shard in runner(job, enumerate(shards)):
        advance(shard.images)
        done.computed += shard.computed
        done.bad |= shard.bad
        repaired += shard.repaired
    _tell_repaired(repaired, report)


@dataclass(frozen=True)
class FrontJob:
    """Converting the frozen part of a network into the cache: see `dermafuse.parallel.Job`."""

    settings: dict[str, Any]

    def start(self, threads: int) -> Callable[[None], str]:
        """Return what converts it where it is not there yet."""
        config = TrainConfig.model_validate(self.settings)
        return lambda nothing: str(_front(_Wanted(config, plan_network(config))))


def _front(wanted: _Wanted, report: Reporter | None = None) -> Path:
    if not front_path(wanted.plan).exists():
        load_tensorflow()
    return front_file(wanted.plan, wanted.config, *([report] if report else []))


def _tell_repaired(count: int, report: Reporter) -> None:
    if count:
        report.warn(f"{count:,} stored activations were damaged; they were computed again.")
