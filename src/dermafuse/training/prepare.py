"""From records to the rows that train, stop and judge: split, extraction, encoding, and what had to be skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermafuse.data.images import load_image
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.records import Records
from dermafuse.data.splits import Split, leakage, make_split
from dermafuse.errors import ImageError
from dermafuse.progress import Reporter
from dermafuse.runtime.engine import Engine, bounded_map, cpu_count
from dermafuse.training.config import TrainConfig
from dermafuse.training.features.extraction import DIHEDRAL_VIEWS, MOST_RANDOM_VIEWS, extract
from dermafuse.training.features.store import ActivationStore, RowTable
from dermafuse.training.first_look import refuse_too_many_bad
from dermafuse.training.loop.pipeline import MetadataDropout, Rows
from dermafuse.training.loop.sampling import draws_a_row
from dermafuse.training.partition import Plan, extraction_model, front_file, store_key
from dermafuse.training.teacher import soft_targets

#: With fresh random views, every so manieth draw of a row shows it flipped or turned only.
_PLAIN_EVERY: Final = 3


@dataclass(frozen=True)
class Side:
    """One side of the split: its records (readable images only) and the same as arrays."""

    records: Records
    rows: Rows


@dataclass(frozen=True)
class Prepared:
    """All that training needs.

    Attributes:
        train: rows to learn from.
        tuning: training rows held out for early stopping and temperature; ``None``: validation serves.
        validation: rows that are reported.
        encoder: of the metadata, fitted on ``train`` alone.
        dropout: loss of metadata while training, or ``None``.
        leakage: JSON-able account of lesions on both sides.
        skipped: every row left out: image_id, path, reason.
        computed: images that went through the engine now.
        precision: arithmetic of the frozen front.
    """

    train: Side
    tuning: Side | None
    validation: Side
    encoder: MetadataEncoder
    dropout: MetadataDropout | None
    leakage: dict[str, Any]
    skipped: pd.DataFrame
    computed: int

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Who computed the stored activations: ``segment``, ``host``, ``pid``, ``finished``, ``rows``."""
        tables = [side.rows.images for side in (self.train, self.tuning, self.validation) if side is not None]
        found = [dict(each) for table in tables if isinstance(table, RowTable) for each in table.sources]
        return sorted({each["segment"]: each for each in found}.values(), key=lambda each: str(each["segment"]))


def prepare(
    records: Records,
    config: TrainConfig,
    plan: Plan,
    report: Reporter,
    split: Split,
    *,
    tuning: NDArray[np.int64] | None = None,
    encoder: MetadataEncoder | None = None,
) -> Prepared:
    """Run the frozen front over every image that is not in the store yet, and encode the metadata.

    Rows of neither side of ``split`` are left out.

    Args:
        records: the data set.
        config: what is asked.
        plan: where the network is cut.
        report: who is told the progress.
        split: rows to learn from and rows that are reported.
        tuning: of the training rows those to hold out; ``None``: drawn as ``config.tuning_fraction`` says.
        encoder: of the metadata; ``None``: fitted on the rows to learn from.

    Raises:
        DataError: more than ``config.max_bad`` of the rows are unusable.
        OutputError: the disk cannot hold the activations.
    """
    sides = divided(records, config, split, tuning)
    images, readable, computed, bad = _load_images(sides, config, plan, report)
    skipped = pd.concat([records.skipped, bad], ignore_index=True)
    refuse_too_many_bad(skipped, len(records) + len(records.skipped), config.max_bad)
    sides = {name: side.subset(readable[name]) for name, side in sides.items()}
    encoder = encoder or fit_encoder(sides["train"], config)
    number = {code: position for position, code in enumerate(records.classes)}
    made = {
        name: Side(
            side,
            Rows(
                images=images[name],
                meta=encoder.transform(side.table),
                labels=np.array([number[label] for label in side.table["label"]], dtype=np.int64),
                image_size=plan.image_size,
            ),
        )
        for name, side in sides.items()
    }
    train = made["train"]
    targets = soft_targets(train.records, train.rows.labels, sides["validation"], config)
    return Prepared(
        train=replace(train, rows=replace(train.rows, targets=targets)),
        tuning=made.get("tuning"),
        validation=made["validation"],
        encoder=encoder,
        dropout=metadata_dropout(encoder, config),
        leakage=leakage(records, split).to_dict(),
        skipped=skipped,
        computed=computed,
    )


def divided(
    records: Records, config: TrainConfig, split: Split, tuning: NDArray[np.int64] | None = None
) -> dict[str, Records]:
    """Return the rows that learn (``train``), that choose (``tuning``, where there are any) and ``validation``."""
    sides = {"train": records.subset(split.train), "validation": records.subset(split.validation)}
    if tuning is not None:
        sides["train"] = records.subset(np.setdiff1d(split.train, tuning))
        sides["tuning"] = records.subset(tuning)
    elif config.tuning_fraction > 0:
        # By lesion whatever the outer split: rows that choose weights must not show a lesion they trained on.
        inner = make_split(sides["train"], by="lesion", seed=config.seed + 1, fraction=config.tuning_fraction)
        sides["tuning"] = sides["train"].subset(inner.validation)
        sides["train"] = sides["train"].subset(inner.train)
    return sides


def fit_encoder(records: Records, config: TrainConfig) -> MetadataEncoder:
    """Return the metadata encoder of these training rows."""
    return MetadataEncoder.fit(
        records.table,
        numeric=records.numeric,
        categorical=records.categorical,
        missing_indicators=config.missing_indicators,
        values=records.values,
    )


def training_views(config: TrainConfig, labels: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int64]]:
    """Return which views training draws from.

    Args:
        config: what is asked.
        labels: int64 (n,), of the training rows.

    Returns:
        views: numbers of views as ``extract`` takes them, in the order in which a row shows them.
        counts: int64 (n,), how many of them, from the first on, each row has.
    """
    if config.random_views != "fresh":
        views = [*range(config.views), *range(DIHEDRAL_VIEWS, DIHEDRAL_VIEWS + config.random_views)]
        return views, np.full(len(labels), len(views))
    # Of rare classes each row is drawn more often. Flips and turns take every third place and begin again when they
    # are used up: were the rows of rare classes seen in random views only, a random view would speak for a rare class.
    draws = draws_a_row(labels, config.sampling_power, config.epochs)
    counts = np.minimum(draws, MOST_RANDOM_VIEWS * _PLAIN_EVERY // (_PLAIN_EVERY - 1))
    random = iter(range(DIHEDRAL_VIEWS, DIHEDRAL_VIEWS + MOST_RANDOM_VIEWS))
    return [
        next(random) if place % _PLAIN_EVERY else place // _PLAIN_EVERY % config.views
        for place in range(int(counts.max(initial=0)))
    ], counts


def views_of(name: str, side: Records, config: TrainConfig) -> tuple[list[int], NDArray[np.int64]]:
    """Return the views that a side of `divided` is seen in, and how many of them each row has, as `training_views`."""
    if name != "train":
        return [0], np.ones(len(side), np.int64)
    return training_views(config, pd.Categorical(side.table["label"], categories=side.classes).codes.astype(np.int64))


def metadata_dropout(encoder: MetadataEncoder, config: TrainConfig) -> MetadataDropout | None:
    """Return the random loss of metadata that the configuration asks for, ``None`` for none."""
    if not encoder.width or (config.metadata_dropout == 0 and config.field_dropout == 0):
        return None
    owned = np.zeros((len(encoder.fields), encoder.width), np.float32)
    for row, columns in zip(owned, encoder.fields.values(), strict=True):
        row[columns] = 1.0
    return MetadataDropout(encoder.absent(), owned, config.metadata_dropout, config.field_dropout)


def _load_images(
    sides: dict[str, Records], config: TrainConfig, plan: Plan, report: Reporter
) -> tuple[dict[str, Any], dict[str, NDArray[np.int64]], int, pd.DataFrame]:
    """Return per side what the pipeline reads and which rows are readable; and images computed; and the bad rows."""
    images: dict[str, Any] = {}
    readable: dict[str, NDArray[np.int64]] = {}
    bad_rows: list[dict[str, str]] = []
    computed = 0
    store = ActivationStore(store_key(plan)) if plan.cached else None
    if store is not None and not len(store) and store.outdated.is_dir():
        report.say(
            f"{store.outdated} is of an earlier version, whose rows have no checksums: they are computed again "
            "(dermafuse cache --prune deletes what is not in use)."
        )
    engine: Engine | None = None

    def make_engine() -> Engine:
        nonlocal engine
        if engine is None:
            engine = Engine(extraction_model(front_file(plan, config, report)), precision=plan.precision)
        return engine

    for name, side in sides.items():
        paths = [Path(path) for path in side.table["path"]]
        if store is None:
            with report.bar(f"Checking the {name} images", len(paths), "images") as advance:
                readable[name], bad = readable_images(paths, plan.image_size, advance)
            images[name] = [paths[position] for position in readable[name]]
        else:
            views, counts = views_of(name, side, config)
            with report.bar(f"Frozen part of {plan.backbone.name}, {name}", len(paths), "images") as advance:
                found = extract(
                    paths,
                    store,
                    make_engine,
                    image_size=plan.image_size,
                    views=views,
                    counts=counts,
                    changes=config.view_changes,
                    progress=advance,
                    say=report.say,
                )
            if found.repaired:
                report.warn(f"{found.repaired:,} stored activations were damaged; they were computed again.")
            readable[name], bad = found.good, found.bad
            images[name], computed = found.table, computed + found.computed
        for position, reason in sorted(bad.items()):
            row = side.table.iloc[position]
            bad_rows.append({"image_id": row["image_id"], "path": row["path"], "reason": reason})
    return images, readable, computed, pd.DataFrame(bad_rows, columns=["image_id", "path", "reason"])


def readable_images(
    paths: Sequence[Path], size: int, advance: Any = lambda done: None
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Decode every image once; return the positions that can be read, and position -> reason for the others."""
    bad: dict[int, str] = {}

    def check(position: int) -> None:
        try:
            load_image(paths[position], size)
        except ImageError as error:
            bad[position] = str(error)

    for done in bounded_map(range(len(paths)), check, workers=cpu_count()):
        advance(done)
    good = [position for position in range(len(paths)) if position not in bad]
    return np.array(good, dtype=np.int64), bad
