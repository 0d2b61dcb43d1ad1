"""The drawings: their numbers are right, and both ways of writing them hold what was drawn."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from dermafuse.diagnoses import CODES
from dermafuse.evaluation.calibration import calibration_report
from dermafuse.evaluation.metric_table import metric_at
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.operating_points import operating_points
from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.subgroups import subgroup_report
from dermafuse.labels import HAM10000
from dermafuse.report.figures.canvas import INKS, Box, Canvas, Dot, Label, Line, theme_style
from dermafuse.report.figures.curves import corners, learning, precision_recall, rates, reliability, roc
from dermafuse.report.figures.make import Figure, make_figures, write_figures
from dermafuse.report.figures.paint import paint, png
from dermafuse.report.figures.plot import Frame, thin, ticks
from dermafuse.report.figures.tables import confusion, forest, malignant_points
from tiny_run import tiny_probabilities

LABELS = np.random.default_rng(5).integers(0, 7, 240)


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
    for position, code in enumerate(CODES):
        part = drawn[1][drawn[1]["label"] == code]
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
    part = drawn[1][drawn[1]["label"] == "mel"]
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
    canvas, table = confusion(block, CODES, "validation")
    labels = {
        shape.attributes["data-metric"]: shape.text
        for shape in canvas.shapes
        if isinstance(shape, Label) and "data-metric" in shape.attributes
    }
    matrix = block["confusion_matrix"]
    assert len(labels) == 49
    for row in range(7):
        for column in range(7):
            assert labels[f"/validation/confusion_matrix/{row}/{column}"] == f"{matrix[row][column]:,}"  # type: ignore[index]
    assert table["count"].sum() == len(rows)
    np.testing.assert_allclose(table.groupby("true")["share_of_true"].sum(), 1.0)


def test_reliability_is_drawn_before_and_after_the_temperature() -> None:
    rows = some_rows()
    block = block_of(rows)
    block["calibration"]["before"] = block["calibration"]["after"]  # type: ignore[index]
    drawn = reliability(block)
    assert drawn is not None
    assert set(drawn[1]["stage"]) == {"before", "after"}
    only = reliability(block, "mel")
    assert only is not None
    assert set(only[1]["stage"]) == {"after"}
    assert only[1]["n"].sum() == len(rows)
    assert reliability({"calibration": None}) is None


def test_the_forest_marks_withheld_cells_and_keeps_their_numbers_out() -> None:
    rows = some_rows()
    sex = np.where(np.arange(len(rows)) < 9, "rare", "common")
    block = block_of(rows)
    block["subgroups"] = subgroup_report(rows.true, rows.probabilities, None, CODES, {"sex": sex}, replicates=60)
    drawn = forest(block, metric_at(("accuracy",)))
    assert drawn is not None
    texts = [shape.text for shape in drawn[0].shapes if isinstance(shape, Label)]
    assert any("withheld" in text for text in texts)
    table = drawn[1].set_index("value")
    assert np.isnan(table.loc["rare", "accuracy"])
    inside = sex == "common"
    expected = (rows.predicted == rows.true)[inside].mean()
    assert table.loc["common", "accuracy"] == pytest.approx(expected)
    assert sum(isinstance(shape, Dot) for shape in drawn[0].shapes) == 1


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
    texts = [shape.text for shape in drawn[0].shapes if isinstance(shape, Label)]
    assert [text for text in texts if text in ages] == ["<30", "30-49", "50-69", "unknown"]
    assert "Localization" not in texts
    assert "back" not in texts
    block["subgroups"] = {"localization": {"back": small}}
    assert forest(block, metric_at(("accuracy",))) is None


def test_precision_recall_curves_of_rare_classes_have_a_band() -> None:
    rows = some_rows()
    few = np.flatnonzero(rows.true == CODES.index("df"))[29:]
    rows = rows.take(np.setdiff1d(np.arange(len(rows)), few))
    block = block_of(rows)
    drawn = precision_recall(rows, block)
    assert drawn is not None
    rare = {code for code, row in block["per_class"].items() if row["support"] < 30}
    assert "df" in rare
    assert {shape.series for shape in drawn[0].shapes if isinstance(shape, Box)} == rare
    for code, part in drawn[1].groupby("label"):
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
    assert "operating" not in drawn[0].title


def test_operating_points_lie_on_the_drawn_curve() -> None:
    rows, other = some_rows(), some_rows(np.random.default_rng(8).integers(0, 7, 200), seed=9)
    block = block_of(rows)
    block["operating_points"] = operating_points(
        other.true, other.probabilities, rows.true, rows.probabilities, None, CODES, replicates=60
    )
    drawn = malignant_points(rows, block)
    assert drawn is not None
    table = drawn[1]
    bad = np.isin(np.array(CODES)[rows.true], ["akiec", "bcc", "mel"])
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
    assert len(drawn[1]) == 1  # no held-out loss: nothing is made up
    folds = learning({"fold 1": history, "fold 2": history}, loss=False)
    assert folds is not None
    assert set(folds[1]["fold"]) == {"fold 1", "fold 2"}
    assert learning({}, loss=True) is None


def test_figures_have_frame_and_plot_and_are_written_three_times(tmp_path: Path) -> None:
    rows = some_rows()
    figures = make_figures({"validation": block_of(rows)}, {"validation": rows}, {})
    paths = write_figures(tmp_path / "figures", figures)
    assert len(paths) == 3 * len(figures)
    figure = figures["confusion"]
    assert isinstance(figure, Figure)
    assert len(figure.frame()) == 49
    assert figure.plot().startswith("<svg")
    assert pd.read_csv(tmp_path / "figures" / "confusion.csv")["count"].tolist() == figure.frame()["count"].tolist()


def test_a_class_without_rows_does_not_stop_the_figures() -> None:
    rows = some_rows(np.where(LABELS == 3, 5, LABELS))
    drawn = roc(rows, block_of(rows))
    assert drawn is not None
    assert "df" not in set(drawn[1]["label"])
    assert "confusion" in make_figures({"test": block_of(rows)}, {"test": rows}, {})


def test_svg_is_well_formed_and_escapes_what_it_is_given() -> None:
    evil = "<script>&\"'"
    canvas = Canvas(100, 50, evil)
    canvas.add(
        Label(5, 5, evil, series=evil, attributes={"data-metric": evil}),
        Box(1, 1, 5, 5, "c0", tip=evil),
        Line([(0, 0), (1, 1)], "ink", tip=evil, series=evil),
    )
    for standalone in (True, False):
        text = canvas.svg(standalone=standalone)
        root = ElementTree.fromstring(text)
        assert root.attrib["aria-label"] == evil
        assert "<script>" not in text
    assert {f".f-{name}" in theme_style() for name in INKS} == {True}


def test_the_painted_picture_has_the_inks_where_they_were_drawn() -> None:
    canvas = Canvas(60, 40, "test")
    canvas.add(
        Box(10, 10, 10, 10, "bad"),
        Line([(30, 5), (30, 35)], "accent", 4),
        Line([(40, 20), (58, 20)], "ink", 2, dash=4),
        Dot(50, 32, 4, "c2"),
    )
    image = paint(canvas, 2)
    assert image.size == (120, 80)
    colours = {name: tuple(int(INKS[name][0][i : i + 2], 16) for i in (1, 3, 5)) for name in INKS}
    assert image.getpixel((30, 30)) == colours["bad"]
    assert image.getpixel((60, 40)) == colours["accent"]
    assert image.getpixel((100, 64)) == colours["c2"]
    dashes = [image.getpixel((x, 40)) for x in range(82, 114)]
    assert colours["paper"] in dashes
    assert colours["ink"] in dashes
    with Image.open(io.BytesIO(png(canvas))) as painted:
        assert painted.size == (120, 80)


def test_upright_text_is_painted_along_the_axis() -> None:
    canvas = Canvas(40, 100, "test")
    canvas.add(Label(10, 50, "sensitivity", size=10, ink="ink", anchor="middle", upwards=True))
    dark = np.asarray(paint(canvas, 2).convert("L")) < 128
    rows, columns = np.nonzero(dark)
    assert len(rows) > 20
    assert np.ptp(rows) > 3 * np.ptp(columns)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_rising_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found == sorted(set(found))
    assert len(found) <= 12
    assert all(low - 1e-6 * span - 1e-9 <= tick <= low + span * (1 + 1e-6) + 1e-9 for tick in found)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=50))
def test_thinning_keeps_the_ends(points: list[tuple[float, float]]) -> None:
    kept = thin(points, 2.0)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert set(kept) <= set(points)


def test_a_frame_keeps_points_outside_its_range_at_its_edge() -> None:
    frame = Frame(10, 20, 100, 50, (0, 1), (0, 1))
    assert frame.place(0.5, 0.5) == (60, 45)
    assert frame.place(2, -1) == (110, 70)
