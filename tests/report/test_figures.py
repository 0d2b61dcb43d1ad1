"""The drawings: their numbers are right, and both ways of writing them hold what was drawn."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from dermafuse.evaluation.calibration import calibration_report
from dermafuse.evaluation.metric_table import metric_at
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.operating_points import operating_points
from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.subgroups import subgroup_report
from dermafuse.labels import HAM10000
from dermafuse.report.figures.curves import learning, precision_recall, reliability, roc
from dermafuse.report.figures.figure import Figure
from dermafuse.report.figures.inks import INKS, dot, legend, mark, said, theme_style
from dermafuse.report.figures.make import make_figures, write_figures
from dermafuse.report.figures.rates import corners, rates
from dermafuse.report.figures.tables import confusion, forest, malignant_points
from tiny_run import tiny_probabilities

LABELS = np.random.default_rng(5).integers(0, 7, 240)


def texts_of(figure: Figure) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(figure.svg()).iter() if part.tag.endswith("}text")]


def some_rows(labels: np.ndarray = LABELS, seed: int = 1) -> Scored:
    probabilities = tiny_probabilities(labels, 7, seed=seed, skill=1.5)
    names = np.array([f"i{number}" for number in range(len(labels))], dtype=object)
    return Scored(
        HAM10000, names, names, labels, probabilities.argmax(axis=1), probabilities, np.zeros(len(labels), np.int64)
    )


def block_of(rows: Scored) -> dict[str, object]:
    block = evaluate_predictions(rows.true, rows.probabilities, rows.classes)
    block["calibration"] = {"after": calibration_report(rows.true, rows.probabilities, rows.classes), "before": None}
    return block


def test_the_roc_table_gives_scikit_learns_auroc_for_every_class() -> None:
    rows = some_rows()
    drawn = roc(rows, block_of(rows))
    assert drawn is not None
    for position, code in enumerate(HAM10000.codes):
        part = drawn.table[drawn.table["label"] == code]
        expected = roc_auc_score(rows.true == position, rows.probabilities[:, position])
        assert auc(part["one_minus_specificity"], part["sensitivity"]) == pytest.approx(expected, abs=1e-12)


def test_the_precision_recall_table_holds_every_turn_that_average_precision_needs() -> None:
    rows = some_rows()
    positive, score = rows.true == 4, rows.probabilities[:, 4]
    table = rates(score, positive).iloc[1:]
    recall = table["true_positives"] / positive.sum()
    precision = table["true_positives"] / (table["true_positives"] + table["false_positives"])
    ap = float((np.diff(np.append(0, recall)) * precision).sum())
    assert ap == pytest.approx(average_precision_score(positive, score), abs=1e-12)
    drawn = precision_recall(rows, block_of(rows))
    assert drawn is not None
    part = drawn.table[drawn.table["label"] == "mel"]
    pairs = set(zip(recall.round(9), precision.round(9), strict=True))
    assert set(zip(part["recall"].round(9), part["precision"].round(9), strict=True)) <= pairs


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=80).filter(
        lambda rows: len({positive for _, positive in rows}) == 2
    )
)
def test_rates_agree_with_scikit_learn_also_with_ties(rows: list[tuple[int, bool]]) -> None:
    score, positive = (np.array(column) for column in zip(*rows, strict=True))
    table = rates(score / 12, positive)
    x, y, _ = roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(table["false_positives"] / (~positive).sum(), x)
    np.testing.assert_allclose(table["true_positives"] / positive.sum(), y)
    kept = corners(table)
    assert auc(kept["false_positives"], kept["true_positives"]) == pytest.approx(
        auc(table["false_positives"], table["true_positives"])
    )


def test_the_confusion_drawing_shows_every_count_where_it_belongs() -> None:
    rows = some_rows()
    block = block_of(rows)
    figure = confusion(block, HAM10000.codes, "validation")
    labels = {
        part.attrib["data-metric"]: part.text
        for part in ElementTree.fromstring(figure.svg()).iter()
        if "data-metric" in part.attrib
    }
    matrix = block["confusion_matrix"]
    assert len(labels) == 49
    for row in range(7):
        for column in range(7):
            assert labels[f"/validation/confusion_matrix/{row}/{column}"] == f"{matrix[row][column]:,}"  # type: ignore[index]
    assert figure.table["count"].sum() == len(rows)
    np.testing.assert_allclose(figure.table.groupby("true")["share_of_true"].sum(), 1.0)


def test_reliability_is_drawn_before_and_after_the_temperature() -> None:
    rows = some_rows()
    block = block_of(rows)
    block["calibration"]["before"] = block["calibration"]["after"]  # type: ignore[index]
    drawn = reliability(block)
    assert drawn is not None
    assert set(drawn.table["stage"]) == {"before", "after"}
    only = reliability(block, "mel")
    assert only is not None
    assert set(only.table["stage"]) == {"after"}
    assert only.table["n"].sum() == len(rows)
    assert reliability({"calibration": None}) is None


def test_the_forest_marks_withheld_cells_and_keeps_their_numbers_out() -> None:
    rows = some_rows()
    sex = np.where(np.arange(len(rows)) < 9, "rare", "common")
    block = block_of(rows)
    block["subgroups"] = subgroup_report(
        rows.true, rows.probabilities, None, HAM10000.codes, {"sex": sex}, replicates=60
    )
    drawn = forest(block, metric_at(("accuracy",)))
    assert drawn is not None
    texts = texts_of(drawn)
    assert any("withheld" in text for text in texts)
    table = drawn.table.set_index("value")
    assert np.isnan(table.loc["rare", "accuracy"])
    inside = sex == "common"
    expected = (rows.predicted == rows.true)[inside].mean()
    assert table.loc["common", "accuracy"] == pytest.approx(expected)
    assert drawn.svg().count("data-tip") == 1


def test_the_forest_draws_ages_in_order_and_leaves_out_columns_without_a_number() -> None:
    rows = some_rows()
    block = block_of(rows)
    entry = {"value": 0.5, "ci95": [0.3, 0.7], "gap": 0.1, "gap_ci95": [-0.1, 0.3]}
    cell = {"n": 40, "lesions": 40, "withheld": False, "metrics": {"accuracy": entry}}
    small = {"n": 5, "lesions": 5, "withheld": True}
    ages = {"50-69": {**cell, "n": 90}, "<30": cell, "unknown": small, "30-49": {**cell, "n": 60}}  # as runs of before
    block["subgroups"] = {"age": ages, "localization": {"back": small, "face": small}}
    drawn = forest(block, metric_at(("accuracy",)))
    assert drawn is not None
    texts = texts_of(drawn)
    assert [text for text in texts if text in ages] == ["<30", "30-49", "50-69", "unknown"]
    assert "Localization" not in texts
    assert "back" not in texts
    block["subgroups"] = {"localization": {"back": small}}
    assert forest(block, metric_at(("accuracy",))) is None


def test_precision_recall_curves_of_rare_classes_have_a_band() -> None:
    rows = some_rows()
    few = np.flatnonzero(rows.true == HAM10000.codes.index("df"))[29:]
    rows = rows.take(np.setdiff1d(np.arange(len(rows)), few))
    block = block_of(rows)
    drawn = precision_recall(rows, block)
    assert drawn is not None
    rare = {code for code, row in block["per_class"].items() if row["support"] < 30}
    assert "df" in rare
    bands = [part for part in drawn.svg().split("<g ") if 'fill-opacity="0.11"' in part]
    assert {re.search('data-series="(.*?)"', part)[1] for part in bands} == rare  # type: ignore[index]
    for code, part in drawn.table.groupby("label"):
        assert part["low"].notna().all() == (code in rare)
        if code in rare:
            assert (part["low"] <= part["high"]).all()
            inside = (part["low"] - 1e-9 <= part["precision"]) & (part["precision"] <= part["high"] + 1e-9)
            assert inside.mean() > 0.8  # a pointwise band of the same rows
            assert (part["high"] - part["low"]).mean() > 0.05


def test_the_roc_drawing_speaks_of_operating_points_only_where_there_are_some() -> None:
    rows = some_rows()
    block = block_of(rows)
    block["operating_points"] = None
    drawn = malignant_points(rows, block)
    assert drawn is not None
    assert "operating" not in drawn.title


def test_operating_points_lie_on_the_drawn_curve() -> None:
    rows, other = some_rows(), some_rows(np.random.default_rng(8).integers(0, 7, 200), seed=9)
    block = block_of(rows)
    block["operating_points"] = operating_points(
        other.true, other.probabilities, rows.true, rows.probabilities, None, HAM10000.codes, replicates=60
    )
    drawn = malignant_points(rows, block)
    assert drawn is not None
    table = drawn.table
    bad = np.isin(np.array(HAM10000.codes)[rows.true], ["akiec", "bcc", "mel"])
    score = rows.probabilities[:, [0, 1, 4]].sum(axis=1)
    points = table[(table["kind"] != "curve") & (table["target"] == "malignant")]
    assert len(points) == 3
    for point in points.itertuples():
        assert point.sensitivity == pytest.approx((score[bad] >= point.threshold).mean())
        assert point.one_minus_specificity == pytest.approx((score[~bad] >= point.threshold).mean())


def test_learning_curves_of_folds_and_of_one_epoch_are_drawn() -> None:
    history = pd.DataFrame({"epoch": [1], "loss": [1.0], "val_loss": [np.nan], "val_accuracy": [0.4]})
    drawn = learning({"": history}, loss=True)
    assert drawn is not None
    assert len(drawn.table) == 1  # no held-out loss: nothing is made up
    folds = learning({"fold 1": history, "fold 2": history}, loss=False)
    assert folds is not None
    assert set(folds.table["fold"]) == {"fold 1", "fold 2"}
    assert learning({}, loss=True) is None


def test_figures_have_frame_and_plot_and_are_written_three_times(tmp_path: Path) -> None:
    rows = some_rows()
    figures = make_figures({"validation": block_of(rows)}, {"validation": rows}, {})
    paths = write_figures(tmp_path / "figures", figures)
    assert len(paths) == 3 * len(figures)
    figure = figures["confusion"]
    assert isinstance(figure, Figure)
    assert len(figure.frame()) == 49
    assert figure.svg().startswith("<svg")
    assert pd.read_csv(tmp_path / "figures" / "confusion.csv")["count"].tolist() == figure.frame()["count"].tolist()


def test_a_class_without_rows_does_not_stop_the_figures() -> None:
    rows = some_rows(np.where(LABELS == 3, 5, LABELS))
    drawn = roc(rows, block_of(rows))
    assert drawn is not None
    assert "df" not in set(drawn.table["label"])
    assert "confusion" in make_figures({"test": block_of(rows)}, {"test": rows}, {})


def drawing(title: str, draw: Callable[[Axes, pd.DataFrame], None], name: str = "test") -> Figure:
    return Figure(name, title, pd.DataFrame(), draw, (60, 40), (0, 0, 0, 0))


def test_svg_is_well_formed_and_escapes_what_it_is_given() -> None:
    evil = "<script>&\"'$x_1$\x1b"

    def draw(ax: Axes, table: pd.DataFrame) -> None:
        (line,) = ax.plot([0, 1], [0, 1], label=said(evil))
        mark(line, series=evil, tip=evil, data_metric=evil)
        legend(ax, [evil])

    figure = drawing(evil, draw)
    for standalone in (True, False):
        text = figure.svg(standalone=standalone)
        root = ElementTree.fromstring(text)
        assert root.attrib["aria-label"] == evil.replace("\x1b", "\\x1b")
        assert "<script>" not in text
        assert texts_of(figure)[-1] == evil.replace("\x1b", "\\x1b")  # and no formula
        marked = [part for part in root.iter() if "data-metric" in part.attrib]
        assert [part.attrib["data-tip"] for part in marked] == [evil.replace("\x1b", "\\x1b")]


def test_the_page_can_recolour_every_ink_and_nothing_in_a_drawing_resists() -> None:
    rows = some_rows()
    block = block_of(rows)
    assert {f".f-{name}" in theme_style() for name in INKS} == {True}
    for figure in make_figures({"test": block}, {"test": rows}, {}).values():
        text = figure.svg(standalone=False)
        assert "style=" not in text
        assert "<style" not in text
        coloured = re.findall(r'<[^>]*(?:fill|stroke)="(#[0-9a-f]{6})"[^>]*>', text)
        assert coloured
        assert set(coloured) <= {light for light, _ in INKS.values()}
        assert all("class=" in shape for shape in re.findall(r'<[^>]*(?:fill|stroke)="#[0-9a-f]{6}"[^>]*>', text))


def test_two_figures_of_a_page_share_no_id() -> None:
    rows = some_rows()
    figures = make_figures({"test": block_of(rows)}, {"test": rows}, {})
    identities = [found for figure in figures.values() for found in re.findall(r' id="(.*?)"', figure.svg())]
    used = {found for figure in figures.values() for found in re.findall(r'(?:href="#|url\(#)(.*?)["\)]', figure.svg())}
    assert len(identities) == len(set(identities))
    assert used <= set(identities)


def test_the_png_has_the_inks_where_they_were_drawn_whatever_the_users_matplotlib_is_set_to() -> None:
    def draw(ax: Axes, table: pd.DataFrame) -> None:
        ax.set(xlim=(0, 60), ylim=(40, 0))
        ax.axis("off")
        ax.barh(15, 10, 10, 10, color=INKS["bad"][0])
        dot(ax, 50, 32, "c2")

    with matplotlib.rc_context({"lines.marker": "x", "figure.dpi": 30, "text.usetex": True}):
        content = drawing("test", draw).png()
    with Image.open(io.BytesIO(content)) as painted:
        image = painted.convert("RGB")
    assert image.size == (120, 80)
    colours = {name: tuple(int(INKS[name][0][i : i + 2], 16) for i in (1, 3, 5)) for name in INKS}
    assert image.getpixel((30, 30)) == colours["bad"]
    assert image.getpixel((100, 64)) == colours["c2"]
    assert image.getpixel((5, 5)) == colours["paper"]


def test_a_figure_is_the_same_to_the_byte_whenever_it_is_drawn() -> None:
    rows = some_rows()
    first, again = (roc(rows, block_of(rows)) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.svg() == again.svg()
    assert first.png() == again.png()
