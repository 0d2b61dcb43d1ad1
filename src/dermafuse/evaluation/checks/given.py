"""What a check may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import pandas as pd

from dermafuse.data.records import Records
from dermafuse.data.splits import Split
from dermafuse.data.words import Words
from dermafuse.evaluation.checks.image_facts import ImageFacts
from dermafuse.progress import Reporter, Silent


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


def share(part: int, whole: int) -> str:
    """Return a share as text with one decimal: ``"44.9 %"``."""
    return f"{part / whole:.1%}".replace("%", " %") if whole else "0 %"


def listed(values: Mapping[str, float]) -> str:
    """Return shares by name as text: ``"mel 69 %, nv 30 %"``."""
    return ", ".join(f"{name} {value:.0%}".replace("%", " %") for name, value in values.items())
