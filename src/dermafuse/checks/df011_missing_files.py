"""DF011: rows of the table that have no image file."""

from __future__ import annotations

from typing import Final

from dermafuse.checks.context import Given, share, too_many_unusable
from dermafuse.checks.findings import Finding
from dermafuse.errors import examples

CODE: Final = "DF011"
TITLE: Final = "Rows without an image file"


def check(given: Given) -> Finding | None:
    """Return the rows that could not be used because their image is not there."""
    skipped = given.records.skipped
    if not len(skipped):
        return None
    total = len(given.records) + len(skipped)
    ids = [str(name) for name in skipped["image_id"]]
    return Finding(
        CODE,
        TITLE,
        "error" if (stop := too_many_unusable(given)) else "warning",
        f"{len(ids):,} of {total:,} rows of the table ({share(len(ids), total)}) could not be used, mostly because "
        f"their image file is not there ({examples(ids)}).{stop}",
        "Complete the download: a part of the images may be missing.",
        {"image_ids": ids[:100], "rows": len(ids)},
    )
