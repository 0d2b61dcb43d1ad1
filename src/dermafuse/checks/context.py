"""What a check may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt
import pandas as pd

from dermafuse.checks.image_facts import ImageFacts
from dermafuse.data.records import Records
from dermafuse.data.splits import Split
from dermafuse.data.words import Words
from dermafuse.progress import Reporter, Silent

#: Share of unusable rows above which training stops (``max_bad``), unless it is told another.
MAX_BAD: Final = 0.01


@dataclass(frozen=True, eq=False)
class Given:
    """The data as the checks see them.

    Attributes:
        records: the table.
        split: the split in use; ``None``: none was made yet, and an image-level one is tried for what it leaks.
        images: facts of the image files; ``None``: they were not opened, and the checks of images do not run.
        embeddings: (n, c) of any network; they help to find near-duplicates.
        vocabulary: feature -> words that a model knows; ``None``: the words of HAM10000.
        report: who is told the progress of the slow check.
        against_imbalance: a sentence on what the training of the data does for rare classes; empty: no training
            is in sight.
    """

    records: Records
    split: Split | None = None
    images: ImageFacts | None = None
    embeddings: npt.NDArray[Any] | None = None
    vocabulary: Mapping[str, Words] | None = None
    report: Reporter = field(default_factory=Silent)
    against_imbalance: str = ""

    @property
    def table(self) -> pd.DataFrame:
        """The table of the records."""
        return self.records.table

    @property
    def features(self) -> tuple[str, ...]:
        """Clinical features that come with the images."""
        return (*self.records.numeric, *self.records.categorical)


def too_many_unusable(given: Given) -> str:
    """Return a sentence, with a leading blank, where training would stop, else ``""``.

    Rows without an image and images that are broken count together there (``max_bad``).
    """
    broken = 0 if given.images is None else len(given.images.unreadable)
    missing = len(given.records.skipped)
    total = len(given.records) + missing
    if broken + missing <= MAX_BAD * total:
        return ""
    return (
        f" Training will stop: {broken + missing:,} of {total:,} rows ({share(broken + missing, total)}) cannot be "
        f"used ({missing:,} without an image file, {broken:,} broken), more than max_bad = {MAX_BAD:g} allows."
    )


def share(part: int, whole: int) -> str:
    """Return a share as text with one decimal: ``"44.9 %"``."""
    return f"{part / whole:.1%}".replace("%", " %") if whole else "0 %"


def listed(values: Mapping[str, float]) -> str:
    """Return shares by name as text: ``"malignant 69 %, benign 30 %"``."""
    return ", ".join(f"{name} {value:.0%}".replace("%", " %") for name, value in values.items())
