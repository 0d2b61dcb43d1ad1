"""DF006: image files that cannot be used."""

from __future__ import annotations

from typing import Final

from dermafuse.checks.context import Given, share, too_many_unusable
from dermafuse.checks.findings import Finding
from dermafuse.errors import examples

CODE: Final = "DF006"
TITLE: Final = "Image files that cannot be read"


def check(given: Given) -> Finding | None:
    """Return the images that cannot be decoded."""
    if given.images is None or not given.images.unreadable:
        return None
    bad = given.images.unreadable
    rows = [
        {"image_id": given.table["image_id"][row], "path": given.table["path"][row], "reason": reason}
        for row, reason in sorted(bad.items())
    ]
    n = len(given.records)
    return Finding(
        CODE,
        TITLE,
        "error" if (stop := too_many_unusable(given)) else "warning",
        f"{len(bad):,} of {n:,} images ({share(len(bad), n)}) cannot be used: "
        f"{examples([row['reason'].rstrip('.') for row in rows], limit=2)}.{stop}",
        "Download these files again, or take their rows out of the table.",
        {"images": rows},
    )
