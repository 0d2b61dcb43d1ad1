"""The table of metrics: complete, the only list of them, and all it takes to add one."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_metric_goldens import SETS, made_up_metrics

from dermafuse.commands.compare import tables
from dermafuse.evaluation import metric_table
from dermafuse.evaluation.compare import Judged, compare
from dermafuse.evaluation.metric import CRITICAL, Metric
from dermafuse.evaluation.metric_table import METRICS, metric_at, shown, subgroup_metrics
from dermafuse.evaluation.predictions import Scored
from dermafuse.labels import HAM10000, LabelSet
from dermafuse.report.model_card import model_card
from dermafuse.report.page import Sources, render
from dermafuse.report.summary import summary

SOURCE = Path(__file__).parents[2] / "src" / "dermafuse"

#: Modules that may write several metric keys side by side, and why.
COMPUTES = {
    "evaluation/weighted.py": "computes those of a class and of malignant or not",
    "evaluation/calibration.py": "computes the calibration block",
    "evaluation/operating_points.py": "computes the figures of an operating point, a block of its own",
    "report/summary.py": "shows two figures of an operating point",
    "serving/points.py": "hands on the figures of an operating point",
    "report/model_card.py": "the names that the hub gives to metrics",
    "checks/df002_near_duplicates.py": "judges its own search for near duplicates",
    "exporters/quantize_gate.py": "computes, a floor below, what an int8 model is judged on",
    "training/loop/monitors.py": "computes what early stopping watches",
    "training/config.py": "the words that the setting `monitor` takes",
}


def scalars(block: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from scalars(value, (*path, key))
        elif not isinstance(value, list):
            yield (*path, key)


@pytest.mark.parametrize("labels", SETS.values(), ids=SETS)
def test_the_table_holds_every_scalar_of_the_metrics_block_and_no_other(labels: LabelSet) -> None:
    block = made_up_metrics(labels)[0]["validation"]
    measured = {key: block[key] for key in block["ci95"]}
    found = {path for path in scalars(measured) if path[-1] != "support"}
    listed = {
        tuple(code if step == "{each}" else step for step in metric.path)
        for metric in METRICS
        if metric.fits(labels) and CRITICAL not in metric.path
        for code in labels.codes
    }
    assert found == listed
    assert all(metric_at(path) in METRICS for path in found)


def strings(node: ast.AST) -> set[str]:
    """Return the texts that a literal lists: its own, its keys, and those of the tuples in it."""
    if isinstance(node, ast.Dict):
        parts: list[ast.AST] = [key for key in node.keys if key is not None]
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = [part for each in node.elts for part in (each.elts if isinstance(each, ast.Tuple) else [each])]
    else:
        return set()
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_no_other_module_lists_metrics() -> None:
    words = {text for metric in METRICS for text in (metric.path[-1], metric.key, metric.name, metric.long)}
    words = {text.lower() for text in words}
    listed: dict[str, list[tuple[int, set[str]]]] = {}
    for path in sorted(SOURCE.glob("**/*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = {text for text in strings(node) if text.lower() in words}
            if len(found) > 1:
                listed.setdefault(name, []).append((getattr(node, "lineno", 0), found))
    assert {name: places for name, places in listed.items() if name not in COMPUTES} == {}
    assert COMPUTES.keys() <= listed.keys(), "take out what lists none any more"


def printed(*parts: Any) -> str:
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=200).print(*parts)
    return text.getvalue()


def sections(metrics: Mapping[str, Any], rows: Scored) -> dict[str, str]:
    """Return id -> HTML of the sections of a report without figures."""
    page = render(metrics, rows, {}, None, Sources(None), "run")
    return {part.split('"')[0]: part for part in page.split('<section id="')[1:]}


def test_a_metric_added_to_the_table_is_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dermafuse.training.config import resolve
    from dermafuse.training.cross_validation import joint_metrics

    everywhere = Metric(
        path=("geometric_mean",),
        name="geometric mean of recalls",
        shown=("summary", "tiles", "card", "folds", "compare", "change", "subgroups"),
        of_decisions=lambda counts: np.exp(np.log(np.maximum(counts.recall, 1e-9)).mean(axis=0)),
    )
    of_rows = Metric(
        path=("surprise",),
        name="surprise",
        shown=("calibration",),
        larger_is_better=False,
        of_rows=lambda rows: 1 - rows.probabilities[np.arange(len(rows)), rows.true],
    )
    monkeypatch.setattr(metric_table, "METRICS", (*METRICS, everywhere, of_rows))
    metrics, rows, worse = made_up_metrics(HAM10000)
    block = metrics["validation"]
    recalls = [row["recall"] for row in block["per_class"].values()]
    assert block["geometric_mean"] == pytest.approx(float(np.exp(np.log(recalls).mean())))
    low, high = block["ci95"]["geometric_mean"]
    assert low < block["geometric_mean"] < high

    block["calibration"]["after"]["surprise"] = block["surprise"]
    page = sections(metrics, rows)
    assert "Geometric mean of recalls" in page["verdict"]
    assert "geometric mean of recalls" in model_card(metrics, {})
    assert "geometric mean of recalls" in printed(*summary(block, "run"))
    assert "geometric mean of recalls" in page["subgroups"]
    assert "Surprise" in page["calibration"]

    found = compare([Judged("a", Path("a"), rows), Judged("b", Path("b"), worse)])
    assert "geometric mean" in printed(*tables(found))

    part = {"data": {}, "leakage": {}, "announcements": [], "network": {}, "environment": {}, "seconds": {}}
    part |= {"labels": metrics["labels"], "validation": block}
    sums = {"shared_lesions": 0, "leaked_images": 0, "validation_images": 5, "per_class": {}}
    folders = [tmp_path / name for name in ("fold-1", "fold-2")]
    for folder in folders:
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps({**part, "leakage": sums}))
    table = pd.DataFrame(
        {"image_id": rows.image_id, "lesion_id": rows.lesion_id, "true": np.array(rows.classes)[rows.true]}
    )
    table["predicted"] = np.array(rows.classes)[rows.predicted]
    table[[f"p_{code}" for code in rows.classes]] = rows.probabilities
    joint = joint_metrics(folders, table, resolve("seed"))
    assert joint["folds"]["geometric_mean"]["mean"] == pytest.approx(block["geometric_mean"])


def test_metrics_need_the_classes_that_they_are_about() -> None:
    two = LabelSet.of(("wart", "cancer"), malignant={"cancer"}, critical="cancer")
    assert list(subgroup_metrics(HAM10000))[:2] == ["melanoma_sensitivity", "malignant_sensitivity"]
    assert subgroup_metrics(HAM10000)["melanoma_sensitivity"].path == ("per_class", "mel", "recall")
    assert "critical_sensitivity" in subgroup_metrics(two)
    none = SETS["no_malignant"]
    assert [metric.key for metric in shown("tiles", none)] == [metric.key for metric in shown("tiles")]
    assert not any("malignant" in metric.key or "critical" in metric.key for metric in shown("tiles", none))


def test_every_metric_of_which_less_is_better_says_worse_when_it_grows() -> None:
    smaller = {metric.path[-1] for metric in METRICS if not metric.larger_is_better}
    assert smaller == {"nll", "brier", "ece", "classwise_ece", "overconfidence"}
    assert {metric.path[-1] for metric in METRICS if metric.biased_upward} == {"ece", "classwise_ece"}


def test_a_class_with_a_slash_in_its_code_keeps_its_pointer() -> None:
    odd = LabelSet.of(("a/b", "c~d"), malignant={"a/b"}, critical="a/b")
    tile = next(metric for metric in shown("tiles", odd) if metric.key == "critical_sensitivity")
    assert tile.pointer == "per_class/a~1b/recall"
    metrics, rows, _ = made_up_metrics(odd)
    page = sections(metrics, rows)
    assert "A/b sensitivity" in page["verdict"]
    assert "a/b" in page["classes"]
