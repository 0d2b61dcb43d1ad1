"""The page of ``dermafuse compare``: paired differences, tests, and the images that changed sides as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dermafuse.errors import ImageError
from dermafuse.evaluation.compare import CHANGES, Judged, aligned, changed_images
from dermafuse.evaluation.metric import Place
from dermafuse.evaluation.metric_table import metric_at
from dermafuse.files import folder_atomic, write_atomic, write_json
from dermafuse.progress import Reporter
from dermafuse.report import templates
from dermafuse.report.facts import NONE
from dermafuse.report.gallery import picture
from dermafuse.report.page import records_of_rows
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
    models = []
    for entry in found["compared"]:
        rows = metric_rows(found, entry)
        overall = [row for row in rows if not row[0].startswith(_OF_A_CLASS)]
        models.append(
            {
                "name": entry["name"],
                "overall": overall,
                "by_class": rows[len(overall) :],
                "tests": test_rows(entry),
                "changed": entry["changed"],
                "pictures": _pictures(changed[entry["name"]], paths),
            }
        )
    return templates.render(
        "comparison.html.j2",
        title="Comparison",
        found=found,
        models=models,
        links=[(f"model-{number}", model["name"]) for number, model in enumerate(models, start=1)],
        why=why,
        METRIC_HEADS=METRIC_HEADS,
        TEST_HEADS=TEST_HEADS,
        KINDS=_TITLES,
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


def _pictures(changed: pd.DataFrame, paths: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Return kind of change -> its rows whose image is at hand, with ``picture`` (None: it cannot be read)."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in CHANGES:
        rows = changed[changed["change"] == kind].head(SHOWN).to_dict("records")
        found[kind] = [
            {**{str(key): value for key, value in row.items()}, "picture": _picture(paths[row["image_id"]])}
            for row in rows
            if row["image_id"] in paths
        ]
    return found


def _picture(path: Path) -> tuple[str, tuple[int, int]] | None:
    try:
        return picture(path)
    except ImageError:
        return None
