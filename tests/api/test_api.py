"""`import dermafuse as df`: the public names, their examples, and a notebook's way through all of it."""

from __future__ import annotations

import doctest
import inspect
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dermafuse as df
from dermafuse.api.reporting import reporter
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.progress import SILENT

SMALL = {"backbone": "efficientnet_lite0", "weights": "random", "image_size": 64, "epochs": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_synthetic(tmp_path_factory.mktemp("api") / "data", lesions=70, seed=5))


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> df.Run:
    out = tmp_path_factory.mktemp("api-run") / "RUN"
    return df.train(df.read_dataset(data), out=out, recipe="seed", progress=False, **SMALL)


@pytest.fixture(scope="module")
def judged(run: df.Run, data: str, tmp_path_factory: pytest.TempPathFactory) -> df.Run:
    return run.evaluate(data, out=tmp_path_factory.mktemp("api-judged") / "JUDGED", progress=False)


def image_of(data: str) -> str:
    return str(df.read_dataset(data).table["path"].iloc[0])


@pytest.fixture
def matplotlib() -> Iterator[None]:
    """Without a screen; the test is skipped where the extra `plot` is not installed."""
    pytest.importorskip("matplotlib", reason="the extra `plot` (also in `dev`) is not installed").use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


# --- the names


def test_importing_loads_nothing_heavy_and_the_map_is_whole() -> None:
    code = (
        "import sys, dermafuse as df\n"
        "heavy = ('tensorflow', 'keras', 'openvino', 'pandas', 'numpy', 'sklearn', 'matplotlib', 'logging')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "print(sorted(set(df.__all__) - set(dir(df))))\n"
        "print([name for name in df.__all__ if not hasattr(df, name)], 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["[]", "[]", "[] False"]


def test_editors_and_types_see_every_name() -> None:
    source = inspect.getsource(df)
    typed = source[source.index("if TYPE_CHECKING:") : source.index("__all__ =")]
    assert [name for name in df.__all__ if name != "__version__" and name not in typed] == []
    assert {name for names in df._HOMES.values() for name in names} == set(df.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="predikt"):
        df.predikt  # noqa: B018


PUBLIC = [name for name in df.__all__ if not name.endswith("Error") and name != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_of_public_names_run(name: str, run: df.Run, data: str, tmp_path: Path) -> None:
    examples_run(getattr(df, name), name, run, data, tmp_path)


@pytest.mark.usefixtures("matplotlib")
def test_examples_of_figures_run(run: df.Run, data: str, tmp_path: Path) -> None:
    from dermafuse.api.plots import Plots

    examples_run(Plots, "Plots", run, data, tmp_path)


def examples_run(found: object, name: str, run: df.Run, data: str, tmp_path: Path) -> None:
    given = {"run": str(run.path), "data": data, "image": image_of(data), "folder": tmp_path}
    tests = [test for test in doctest.DocTestFinder().find(found, name, globs=given) if test.examples]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for test in tests:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    assert sum(len(test.examples) for test in tests) > 1, f"{name} has no example that runs"


# --- a notebook


@pytest.mark.usefixtures("matplotlib")
def test_a_notebooks_way_from_data_to_cross_validation(run: df.Run, data: str) -> None:
    from sklearn.base import clone
    from sklearn.model_selection import GroupKFold, cross_val_score

    records = df.read_dataset(data)
    assert "<td>nv</td>" in records._repr_html_()
    assert f"{len(records):,} images" in df.check(records, progress=False)._repr_html_()
    assert run.kind == "run"  # `run` is what df.train gave for these records
    assert run.metrics["validation"]["n"] == len(run.predictions)
    assert "accuracy" in run._repr_html_()
    assert run.plot.confusion_matrix.frame()["count"].sum() == run.block["n"]
    assert run.plot.roc().get_xlabel()
    assert run.plot.learning("loss").get_xlabel() == "epoch"
    model = df.load(run.path)
    answer = model.predict(image_of(data), age=55, sex="male")
    assert answer.label in run.labels.codes
    explained = model.explain(image_of(data), age=55, sex="male", target="mel")
    assert explained.target == "mel"
    assert "mel" in explained._repr_html_()
    assert answer.label in answer._repr_html_()
    assert "accuracy" in df.compare(run, run)._repr_html_()
    X, y, groups = table_of(data)
    classifier = df.DermafuseClassifier(image="path", recipe="seed", settings=SMALL)
    assert clone(classifier).get_params() == classifier.get_params()
    scores = cross_val_score(classifier, X, y, groups=groups, cv=GroupKFold(2), scoring="roc_auc", error_score="raise")
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize(
    ("name", "choice", "file"),
    [
        ("confusion_matrix", None, "confusion"),
        ("roc", None, "roc"),
        ("precision_recall", None, "precision_recall"),
        ("reliability", None, "reliability"),
        ("reliability", "mel", "reliability_melanoma"),
        ("operating_points", None, "malignant_roc"),
        ("score_histogram", None, "malignant_scores"),
        ("subgroups", "accuracy", "subgroups_accuracy"),
        ("learning", "loss", "learning_loss"),
        ("learning", None, "learning_metrics"),
    ],
)
def test_figures_hold_the_numbers_of_the_reports_figures(
    run: df.Run, judged: df.Run, name: str, choice: str | None, file: str, tmp_path: Path
) -> None:
    whose = run if name == "learning" else judged  # which has enough rows for subgroups
    display = getattr(whose.plot, name)
    written = (whose.path / "figures" / f"{file}.csv").read_text()
    assert display.frame(choice).to_csv(index=False, float_format="%.8g") == written
    axes = display(choice)
    assert axes.get_title()
    axes.figure.savefig(tmp_path / "figure.png", dpi=40)
    size = axes.figure.get_size_inches().tolist()
    assert display(choice, ax=axes) is axes
    assert axes.figure.get_size_inches().tolist() == size
    assert display._repr_html_().startswith("<svg")
    with pytest.raises(df.DataError, match="holds no numbers for this figure"):
        judged.plot.learning()


def test_a_figure_that_the_run_cannot_give_says_why(run: df.Run) -> None:
    with pytest.raises(df.ConfigError, match="Did you mean 'accuracy'"):
        run.plot.subgroups("acuracy")
    with pytest.raises(df.DataError, match="too few images or cases to give balanced_accuracy"):
        run.plot.subgroups("balanced_accuracy")
    with pytest.raises(df.ConfigError, match="There is one ROC curve"):
        run.plot.roc("mel")


def test_the_explainer_is_compiled_once_for_a_predictor(
    run: df.Run, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermafuse.runtime.explain import explainer as explain

    made: list[object] = []
    engine = explain.Engine
    monkeypatch.setattr(explain, "Engine", lambda *args, **more: made.append(args) or engine(*args, **more))
    model = df.load(run.path)
    first = model.explain(image_of(data), what_if=False)
    second = model.explain(image_of(data), what_if=False)
    assert len(made) == 1
    np.testing.assert_array_equal(first.cam, second.cam)


def test_shown_results_are_escaped(run: df.Run) -> None:
    from dermafuse import notebook

    shown = notebook.table(("<b>",), [("<script>",), (None,), (0.12345,)], title="<i>", notes=["<u>"])
    assert not any(tag in shown for tag in ("<script>", "<i>", "<u>", "<th><b>"))
    assert "0.123" in shown
    assert "accuracy" in run._repr_html_()
    assert "SYNTHETIC DATA" in run._repr_html_()


def test_comparing_a_run_with_itself_and_writing_it(run: df.Run, tmp_path: Path) -> None:
    found = df.compare(run, run.path)
    assert found.frame()["difference"].fillna(0).eq(0).all()
    assert "accuracy" in found._repr_html_()
    assert found.write(tmp_path / "out", progress=False).is_file()
    with pytest.raises(df.ConfigError, match="no compared model 2"):
        found.changed(2)


def test_a_run_repeats_from_its_own_settings_and_none_means_nothing(run: df.Run, tmp_path: Path) -> None:
    again = df.train(out=tmp_path / "AGAIN", progress=False, **{**run.config, "report": False})
    assert again.metrics["validation"] == run.metrics["validation"]
    with pytest.raises(df.ConfigError, match="epoch"):
        df.train(run.config["data"], out=tmp_path / "X", progress=False, epoch=3)
    with pytest.raises(df.ConfigError, match="epochs='none'"):
        df.train(run.config["data"], out=tmp_path / "X", progress=False, epochs=None)


def test_records_that_were_changed_are_not_trained_on_silently(data: str, tmp_path: Path) -> None:
    half = df.read_dataset(data).subset(range(40))
    with pytest.raises(df.DataError, match="subset"):
        df.train(half, out=tmp_path / "RUN", progress=False)


def test_progress_goes_to_logging_and_warnings_are_never_lost(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dermafuse"):
        reporter(False).say("reading")
        reporter(SILENT).warn("SYNTHETIC DATA")
    assert [(entry.levelname, entry.getMessage()) for entry in caplog.records] == [
        ("INFO", "reading"),
        ("WARNING", "SYNTHETIC DATA"),
    ]


# --- scikit-learn


def table_of(data: str) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Return X, y and groups of the generated data, two classes as numbers."""
    records = df.read_dataset(data).table
    X = records[["path", "age", "sex", "localization"]].assign(itches=records["age"].gt(50))
    return X, records["label"].eq("nv").astype(int), records["lesion_id"]


def test_the_estimator_can_be_handed_to_other_processes() -> None:
    model = df.DermafuseClassifier(image="path", recipe="seed", settings=SMALL)
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()


def test_the_estimator_learns_from_features_and_keeps_lesions_together(data: str, tmp_path: Path) -> None:
    X, y, groups = table_of(data)
    model = df.DermafuseClassifier(image="path", recipe="seed", settings=SMALL, malignant=["0"], out=tmp_path / "out")
    model.fit(X, y, groups)
    assert set(model.predictor_.fields) == {"age", "sex", "localization", "itches"}
    assert model.run_.path == tmp_path / "out" / "run"
    assert model.run_.metrics["leakage"]["lesions_known"]
    assert model.run_.metrics["leakage"]["leaked_images"] == 0
    probabilities = model.predict_proba(X[:5])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    assert set(model.predict(X[:5])) <= {0, 1}
    row = X.iloc[0]
    alone = model.predictor_.predict(
        row["path"],
        age=None if pd.isna(row["age"]) else row["age"],
        sex=row["sex"],
        localization=row["localization"],
        itches=str(row["itches"]),
    )
    np.testing.assert_allclose(probabilities[0], list(alone.probabilities.values()), atol=1e-6)


def test_the_estimator_refuses_labels_that_teach_nothing_and_answers_only_when_fitted(data: str) -> None:
    from sklearn.exceptions import NotFittedError

    X, y, _ = table_of(data)
    for labels, says in ((y.astype(object).where(y.index > 0), "without a label"), (y * 0, "of one class")):
        with pytest.raises(df.DataError, match=says):
            df.DermafuseClassifier(image="path").fit(X, labels)
    with pytest.raises(NotFittedError):
        df.DermafuseClassifier(image="path").predict(X)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda X: X.drop(columns="path"), "no column 'path'"),
        (lambda X: X.to_numpy(), "give a DataFrame"),
        (lambda X: X.assign(path=None), "without an image path"),
        (lambda X: X[:10], "X has 10 rows"),
    ],
)
def test_the_estimator_refuses_what_is_no_such_table(data: str, change: object, says: str) -> None:
    X, y, _ = table_of(data)
    with pytest.raises(df.DataError, match=says):
        df.DermafuseClassifier(image="path").fit(change(X), y)  # type: ignore[operator]


def test_the_estimator_never_writes_into_a_folder_of_someone_elses(data: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("mine")
    X, y, _ = table_of(data)
    with pytest.raises(df.OutputError, match="not made by"):
        df.DermafuseClassifier(image="path", out=tmp_path).fit(X, y)
    assert (tmp_path / "data" / "table.csv").read_text() == "mine"
