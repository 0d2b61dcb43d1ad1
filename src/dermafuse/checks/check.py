"""``dermafuse check``: what is in a data set, what is wrong with it, what would leak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dermafuse.checks.image_facts import ImageFacts, read_images
from dermafuse.checks.run import check_data
from dermafuse.data.images import load_image
from dermafuse.data.readers.given_split import given_split
from dermafuse.data.records import Records, summarize
from dermafuse.data.splits import By, leakage, make_split
from dermafuse.errors import DataError
from dermafuse.progress import Reporter

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.console import RenderableType

    from dermafuse.runtime.bundle.folder import Bundle

_STYLES: Final = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}


def check_records(
    records: Records,
    report: Reporter,
    *,
    split: By | None = None,
    seed: int = 0,
    model: Path | None = None,
    against_imbalance: str = "",
) -> dict[str, Any]:
    """Open every image and run all checks.

    Args:
        records: of any layout, labelled or not.
        report: who is told the progress.
        split: judge the 80/20 split that training makes; ``None``: what an image-level one would leak.
        seed: of the split.
        model: RUN folder or bundle, whose embeddings help to find near-duplicates and whose vocabulary counts.
        against_imbalance: what the training that would follow does for rare classes, a sentence.

    Returns:
        ``summarize(records)`` with ``unreadable`` (list of image_id, path, reason), ``leakage`` (of the split, or
        of the image-level one; ``None`` where the data are too few to split), ``split`` (by and seed),
        ``findings`` (see `dermafuse.evaluation.findings.Finding.to_dict`; the most serious first),
        ``checks_passed`` and ``checks_left_out`` (code -> title); with ``model``, which it was (``model``).

    Raises:
        DataError: the split that was asked for cannot be made. BundleError: the model cannot be used.
    """
    found = summarize(records)
    bundle = None
    if model is not None:
        from dermafuse.runtime.bundle.folder import read_bundle
        from dermafuse.runtime.released import model_facts

        bundle = read_bundle(model)
        found["model"] = model_facts(bundle)
    # What the data give is what training uses, whatever --split says.
    given = given_split(records)
    used = given or (None if split is None else make_split(records, by=split, seed=seed))
    with report.bar("Opening images", len(records), "images") as advance:
        images = read_images(records, advance)
    found["unreadable"] = [
        {"image_id": records.table["image_id"][row], "path": records.table["path"][row], "reason": reason}
        for row, reason in sorted(images.unreadable.items())
    ]
    try:
        leaks = leakage(records, used or make_split(records, by="image", seed=seed))
        found["leakage"] = leaks.to_dict()
    except DataError as error:
        found["leakage"] = None
        found["notes"].append(f"No split could be made: {error}")
    by = split or "image" if given is None else "the data's own column"
    found["split"] = {"by": by, "seed": seed, "given": used is not None}
    checked = check_data(
        records,
        split=used,
        images=images,
        embeddings=None if bundle is None else _embeddings(bundle, records, images, report),
        vocabulary=None if bundle is None else bundle.encoder.words,
        report=report,
        against_imbalance=against_imbalance,
    )
    return {**found, **checked.to_dict()}


def _embeddings(bundle: Bundle, records: Records, images: ImageFacts, report: Reporter) -> npt.NDArray[np.float32]:
    """Return the (first) network's embeddings, (n, c); 0 where an image cannot be read."""
    from dermafuse.runtime.batch.ordered import ordered_map
    from dermafuse.runtime.engine import Engine
    from dermafuse.runtime.network import EMBEDDING, check_network, inference_model

    network = check_network(bundle.models[0], len(bundle.classes), bundle.encoder.width, str(bundle.path))
    engine = Engine(inference_model(bundle.models[0], (EMBEDDING,)))
    blank = (bundle.encoder.absent()[np.newaxis],) if network.takes_metadata else ()
    rows = np.flatnonzero(images.readable)
    paths = records.table["path"].to_numpy()

    def look(row: int) -> npt.NDArray[np.float32]:
        vector: npt.NDArray[np.float32] = engine.infer(load_image(paths[row], bundle.image_size)[np.newaxis], *blank)[0]
        return np.array(vector[0])

    embeddings = np.zeros((len(records), network.channels), dtype=np.float32)
    with report.bar("Embeddings", len(rows), "images") as advance:
        found = ordered_map(rows.tolist(), look, workers=engine.streams + 2)
        for row, vector in zip(rows, found, strict=True):
            embeddings[row] = vector
            advance(1)
    return embeddings


def describe(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return what ``check_records`` found as rich tables and texts."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = f"{found['root']} ({found['layout']}): {found['images']:,} images of {found['lesions']:,} {found['group']}s"
    classes = Table(title=title, title_justify="left")
    for name in ("class", "images", f"{found['group']}s", "share"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for code, row in found["classes"].items():
        classes.add_row(code, f"{row['images']:,}", f"{row['lesions']:,}", f"{row['share']:.1%}")
    parts: list[RenderableType] = [classes]
    if found["synthetic"]:
        parts.append(Text("SYNTHETIC DATA: these images are generated.", style="bold"))
    parts += [Text(text) for text in _facts(found)]
    for entry in found["findings"]:
        head = Text.assemble((f"{entry['severity'].upper():8}", _STYLES[entry["severity"]]), f"{entry['code']}  ")
        parts.append(Text())
        parts.append(head.append(entry["title"], style="bold"))
        parts.append(Padding(Text(entry["explanation"]), (0, 0, 0, 8)))
        parts.append(Padding(Text(f"-> {entry['action']}"), (0, 0, 0, 8)))
        parts += [Padding(Text(line, style="dim"), (0, 0, 0, 8)) for line in _details(entry)]
    if found["checks_passed"]:
        listed = "; ".join(f"{code} {title[0].lower()}{title[1:]}" for code, title in found["checks_passed"].items())
        parts += [Text(), Text(f"Looked for and not found: {listed}.", style="dim")]
    return parts


def _facts(found: Mapping[str, Any]) -> list[str]:
    missing = ", ".join(f"{name} {count:,}" for name, count in found["missing"].items()) or "no metadata columns"
    facts = [
        f"Metadata missing or unknown: {missing}. Rows that cannot be used: {found['skipped']:,}. "
        f"Images that cannot be opened: {len(found['unreadable']):,}."
    ]
    if "model" in found:
        from dermafuse.runtime.released import which_model

        facts.append(which_model(found["model"]))
    leaks = found["leakage"]
    if found["split"]["given"] and leaks is not None and leaks["lesions_known"]:
        facts.append(
            f"Split by {found['split']['by']}, seed {found['split']['seed']}: {leaks['leaked_images']:,} of "
            f"{leaks['validation_images']:,} validation images show a {found['group']} that is in training too."
        )
    return [*facts, *found["notes"]]


def _details(entry: Mapping[str, Any], limit: int = 5) -> list[str]:
    """Return lines with the first examples of a finding that has pairs to look at."""
    if entry["code"] != "DF002":
        return []
    pairs = sorted(entry["data"]["listed"], key=lambda pair: (not pair["record_agrees"], -pair["fit"]))
    lines = [
        f"{' and '.join(pair['images'])}: fit {pair['fit']:.2f}, "
        + ("records agree" if pair["record_agrees"] else f"records differ ({', '.join(map(str, pair['labels']))})")
        for pair in pairs[:limit]
    ]
    more = entry["data"]["pairs"] - len(lines)
    return [*lines, *([f"... and {more:,} more (--json lists them)"] if more > 0 else [])]
