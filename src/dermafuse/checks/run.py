"""All checks of a data set: which ran, which found nothing, and what the others found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy.typing as npt

from dermafuse.checks import (
    df001_shared_lesions,
    df002_near_duplicates,
    df003_label_leaks,
    df004_imbalance,
    df005_missing_metadata,
    df006_unreadable,
    df007_vocabulary,
    df008_identical_files,
    df009_tiny_classes,
    df010_conflicting_labels,
    df011_missing_files,
)
from dermafuse.checks.context import Given
from dermafuse.checks.findings import Finding, ranked
from dermafuse.checks.image_facts import ImageFacts
from dermafuse.data.records import Records
from dermafuse.data.splits import Split
from dermafuse.data.words import Words
from dermafuse.progress import Reporter, Silent

#: The checks by their codes. A code is never given to another check.
CHECKS: Final[Mapping[str, ModuleType]] = {
    module.CODE: module
    for module in (
        df001_shared_lesions,
        df002_near_duplicates,
        df003_label_leaks,
        df004_imbalance,
        df005_missing_metadata,
        df006_unreadable,
        df007_vocabulary,
        df008_identical_files,
        df009_tiny_classes,
        df010_conflicting_labels,
        df011_missing_files,
    )
}

#: Checks that need the images to have been opened.
NEED_IMAGES: Final = frozenset({"DF002", "DF006", "DF008"})


@dataclass(frozen=True)
class Checked:
    """The outcome of the checks.

    Attributes:
        findings: the most serious first.
        passed: code -> title of the checks that found nothing.
        left_out: code -> title of the checks that could not run, because images were not opened.
    """

    findings: tuple[Finding, ...]
    passed: Mapping[str, str]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: ``findings``, ``checks_passed``, ``checks_left_out``."""
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "checks_passed": dict(self.passed),
            "checks_left_out": dict(self.left_out),
        }


def check_data(
    records: Records,
    *,
    split: Split | None = None,
    images: ImageFacts | None = None,
    embeddings: npt.NDArray[Any] | None = None,
    vocabulary: Mapping[str, Words] | None = None,
    report: Reporter | None = None,
    against_imbalance: str = "",
) -> Checked:
    """Run every check.

    Args:
        records: the data.
        split: the split in use; ``None``: what an image-level split would leak is reported.
        images: from `dermafuse.evaluation.image_facts.read_images`; ``None``: checks that need them are left
            out. With them, the search for near-duplicates takes about 30 s for 10,000 images on 2 CPUs.
        embeddings: (n, c) of any network, one row an image.
        vocabulary: feature -> words that a model knows (`MetadataEncoder.words`); ``None``: those of
            HAM10000.
        report: who is told the progress.
        against_imbalance: a sentence on what the training does for rare classes, where one is in sight
            (`dermafuse.training.recipes.against_imbalance`).
    """
    given = Given(records, split, images, embeddings, vocabulary, report or Silent(), against_imbalance)
    findings: list[Finding] = []
    passed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for code, module in CHECKS.items():
        if images is None and code in NEED_IMAGES:
            left_out[code] = module.TITLE
            continue
        finding = module.check(given)
        if finding is None:
            passed[code] = module.TITLE
        else:
            findings.append(finding)
    return Checked(tuple(ranked(findings)), passed, left_out)
