"""``dermafuse check``: what is in a data set, what is wrong with it, what would leak."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dermafuse.data.images import load_image
from dermafuse.data.readers import read_dataset
from dermafuse.data.records import summarize
from dermafuse.data.splits import leakage, make_split
from dermafuse.errors import DataError, ImageError
from dermafuse.progress import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Decoding at this size finds every broken file; the size itself does not matter.
_SIZE: Final = 64


def check_dataset(root: Path, report: Reporter) -> dict[str, Any]:
    """Read the table, open every image, and measure the leakage of an image-level split.

    Returns:
        ``summarize(records)`` with ``unreadable`` (list of image_id, path, reason) and ``leakage`` (of the
        image-level 80/20 split of seed 0; ``None`` where the data are too few to split).

    Raises:
        DataError: the data set cannot be read at all.
    """
    records = read_dataset(root)
    found = summarize(records)
    table = records.table

    def broken(path: str) -> str | None:
        try:
            load_image(path, _SIZE)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool, report.bar("Opening images", len(table), "images") as advance:
        reasons = []
        for reason in pool.map(broken, table["path"], chunksize=1):
            reasons.append(reason)
            advance(1)
    found["unreadable"] = [
        {"image_id": row.image_id, "path": row.path, "reason": reason}
        for row, reason in zip(table.itertuples(), reasons, strict=True)
        if reason is not None
    ]
    try:
        found["leakage"] = leakage(records, make_split(records, by="image", seed=0)).to_dict()
    except DataError as error:
        found["leakage"] = None
        found["notes"].append(f"No split could be made: {error}")
    return found


def describe(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return what ``check_dataset`` found as rich tables and texts."""
    from rich.table import Table

    title = f"{found['root']} ({found['layout']}): {found['images']:,} images of {found['lesions']:,} lesions"
    classes = Table(title=title, title_justify="left")
    for name in ("class", "images", "lesions", "share"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for code, row in found["classes"].items():
        classes.add_row(code, f"{row['images']:,}", f"{row['lesions']:,}", f"{row['share']:.1%}")
    texts: list[str] = []
    if found["synthetic"]:
        texts.append("SYNTHETIC DATA: these images are generated.")
    missing = ", ".join(f"{name} {count:,}" for name, count in found["missing"].items()) or "no metadata columns"
    texts.append(f"Missing metadata: {missing}.")
    texts.append(f"Rows that cannot be used: {found['skipped']:,}.")
    texts.append(f"Images that cannot be opened: {len(found['unreadable']):,}.")
    texts += [f"  {row['reason']}" for row in found["unreadable"][:5]]
    leak = found["leakage"]
    if leak is not None and leak["lesions_known"]:
        texts.append(
            f"Leakage: an image-level 80/20 split puts {leak['share']:.1%} of its validation images beside another "
            "image of the same lesion in training; train with --split lesion."
        )
        parts = (f"{code} {row['share']:.0%}" for code, row in leak["per_class"].items())
        texts.append(f"  by class: {', '.join(parts)}")
    texts += list(found["notes"])
    return [classes, *texts]
