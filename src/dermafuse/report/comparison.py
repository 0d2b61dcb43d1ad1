"""The page of ``dermafuse compare``: paired differences, tests, and the images that changed sides as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dermafuse import diagnoses
from dermafuse.errors import ImageError
from dermafuse.evaluation.compare import CHANGES, Judged, aligned, changed_images
from dermafuse.evaluation.metric_table import Place, metric_at
from dermafuse.files import folder_atomic, write_atomic, write_json
from dermafuse.printable import escape
from dermafuse.progress import Reporter
from dermafuse.report.facts import NONE
from dermafuse.report.gallery import picture
from dermafuse.report.html import card, details, note, section, table
from dermafuse.report.page import records_of_rows
from dermafuse.report.shell import page
from dermafuse.runs import read_config

#: Pictures of each kind of change, those first whose probability of the true class moved most.
SHOWN: Final = 24

_TITLES: Final = {"gained": "Now right", "lost": "No longer right", "other": "Wrong before and after"}


def write_comparison(
    found: Mapping[str, Any],
    judged: Sequence[Judged],
    out: Path,
    *,
    data: Path | None,
    overwrite: bool,
    report: Reporter,
) -> None:
    """Write ``comparison.html``, ``compare.json`` and ``changed-1.csv`` ... (one a compared model) into ``out``.

    Args:
        found: from `evaluation.compare.compare`.
        judged: what it was made of.
        out: the folder to make.
        data: the data set of the rows, for pictures; ``None``: where the first run says it was.
        overwrite: replace ``out``, if dermafuse made it.
        report: who is warned where there are no pictures.

    Raises:
        DataError: ``data`` is named and is not the data set of these rows.
        OutputError: ``out`` cannot be written.
    """
    base, *others = judged
    config = read_config(base.path) if base.path.is_dir() else None
    records, why = records_of_rows(base.rows, data, (config or {}).get("data"))
    if why:
        report.warn(why)
    paths = (
        {} if records is None else dict(zip(records.table["image_id"], map(Path, records.table["path"]), strict=True))
    )
    changed = {other.name: changed_images(base.rows, aligned(base, other)) for other in others}
    with folder_atomic(out, overwrite=overwrite) as folder:
        for number, table_ in enumerate(changed.values(), start=1):
            table_.to_csv(folder / f"changed-{number}.csv", index=False, float_format="%.7g")
        write_atomic(folder / "comparison.html", comparison_page(found, changed, paths, why))
        # Last: a folder with compare.json is a finished comparison.
        write_json(folder / "compare.json", found)


def comparison_page(
    found: Mapping[str, Any], changed: Mapping[str, pd.DataFrame], paths: Mapping[str, Path], why: str
) -> str:
    """Return the page as HTML.

    Args:
        found: from `evaluation.compare.compare`.
        changed: name of a compared model -> its `changed_images`.
        paths: image id -> file; empty where the data are not at hand.
        why: why they are not, for the reader.
    """
    intro = (
        f"Base: {escape(found['base'])}. {found['images']:,} images of {found['lesions']:,} "
        "lesions, the same for all. Differences are the model minus the base."
    )
    parts = [section("how", "How to read this", _how())]
    for number, entry in enumerate(found["compared"], start=1):
        rows = metric_rows(found, entry)
        overall = [row for row in rows if not row[0].startswith(_OF_A_CLASS)]
        body = (
            card(table(METRIC_HEADS, overall), title="Metrics, bootstrap over lesions", wide=True)
            + details("Every class", card(table(METRIC_HEADS, rows[len(overall) :]), wide=True))
            + card(table(TEST_HEADS, test_rows(entry)), title="Tests that take images as independent", wide=True)
        )
        pictures = _pictures(changed[entry["name"]], paths)
        counts = ", ".join(f"{entry['changed'][kind]:,} {_TITLES[kind].lower()}" for kind in CHANGES)
        parts.append(section(f"model-{number}", entry["name"], body, note(escape(counts) + "."), pictures))
    if why:
        parts.append(note(escape(why)))
    return page(
        "Comparison", "Comparison", intro, "".join(parts), f"{escape(diagnoses.DISCLAIMER)} Made by dermafuse compare."
    )


#: Heads of `metric_rows` and `test_rows`.
METRIC_HEADS: Final = ("metric", "base", "model", "difference", "95 % interval", "p", "p (Holm)", "what it shows")
TEST_HEADS: Final = ("test", "difference", "p", "p (Holm)")


_OF_A_CLASS: Final = "per class"


def metric_rows(found: Mapping[str, Any], entry: Mapping[str, Any], place: Place | None = None) -> list[list[str]]:
    """Return one row a metric: name, both values, difference, interval, p values, and what that shows, in words.

    Args:
        found: from `evaluation.compare.compare`.
        entry: one of those compared.
        place: whose metrics are named; ``None``: every one.
    """
    return [
        [
            " ".join(path).replace("_", " "),
            _figure(at(found["base_metrics"], path)),
            _figure(at(entry["metrics"], path)),
            _figure(leaf["difference"], sign=True),
            "" if leaf["low"] is None else f"{leaf['low']:+.3f} to {leaf['high']:+.3f}",
            _chance(leaf["p"]),
            _chance(leaf["p_holm"]),
            _shows(path, leaf),
        ]
        for path, leaf in flat(entry["differences"])
        if place is None or place in metric_at(path).shown
    ]


def test_rows(entry: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a test: McNemar's of the decisions, DeLong's of each class' AUROC."""
    decided = entry["mcnemar"]
    alone = f"{decided['only_b']:,} right only in the model, {decided['only_a']:,} only in the base"
    rows = [["McNemar, exact", alone, _chance(decided["p"]), _chance(decided["p_holm"])]]
    for code, test in entry["delong"].items():
        cells = (_figure(test["difference"], sign=True), _chance(test["p"]), _chance(test["p_holm"]))
        rows.append([f"DeLong, AUROC of {code}", *cells])
    return rows


def flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Return the leaves of a tree of differences with their paths, scalars before classes."""
    found = []
    for key, value in tree.items():
        if "difference" in value:
            found.append(((*path, key), value))
        else:
            found += flat(value, (*path, key))
    return sorted(found, key=lambda entry: len(entry[0])) if not path else found


def _shows(path: tuple[str, ...], leaf: Mapping[str, Any]) -> str:
    if leaf["holds_zero"] is None:
        return "not defined"
    if leaf["holds_zero"]:
        return "interval holds 0: no difference shown"
    return "better" if (leaf["difference"] > 0) == metric_at(path).larger_is_better else "worse"


def at(block: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """Return the value at a path of a metrics block."""
    value: Any = block
    for step in path:
        value = value[step]
    return None if value is None else float(value)


def _figure(value: float | None, *, sign: bool = False) -> str:
    return NONE if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def _chance(p: float | None) -> str:
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _how() -> str:
    return "".join(
        f"<p>{text}</p>"
        for text in (
            "The intervals draw lesions, not images, with replacement, the same for both models (2,000 times). Where "
            "an interval holds 0, these images do not show a difference; that is not proof that there is none.",
            "McNemar's test asks whether the two decide rightly equally often, DeLong's whether a class has the same "
            "AUROC. Both take images as independent, which two images of one lesion are not: their p values are "
            "somewhat too small where lesions have several images.",
            "Many metrics are looked at: about one in twenty without any difference has p below 0.05. Holm's "
            "correction is for the number of models compared (DeLong: models times classes), not for that of metrics.",
        )
    )


def _pictures(changed: pd.DataFrame, paths: Mapping[str, Path]) -> str:
    parts = []
    for kind in CHANGES:
        chosen = changed[changed["change"] == kind].head(SHOWN)
        figures = "".join(_example(dict(row), paths) for row in chosen.to_dict("records"))
        if figures:
            parts.append(card(f'<div class="changed">{figures}</div>', title=_TITLES[kind], wide=True))
    return "".join(parts)


def _example(row: Mapping[Any, Any], paths: Mapping[str, Path]) -> str:
    path = paths.get(row["image_id"])
    if path is None:
        return ""
    try:
        source, (width, height) = picture(path)
    except ImageError:
        return f"<figure><figcaption>{escape(row['image_id'])}: the image cannot be read.</figcaption></figure>"
    words = (
        f"{escape(row['image_id'])}: {escape(row['true'])}; was {escape(row['base'])} ({row['base_p']:.2f} for the "
        f"true class), is {escape(row['other'])} ({row['other_p']:.2f})"
    )
    image = f'<img src="{source}" width="{width}" height="{height}" alt="" loading="lazy">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"
