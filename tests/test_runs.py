"""A RUN folder is read in one place: what kind it is, and its files as they are asked for."""

import ast
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dermafuse import runs
from dermafuse.errors import DataError
from dermafuse.runs import RunFolder
from tiny_run import copy_run, tiny_run


@pytest.fixture(scope="module")
def run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs") / "run", synthetic)


def changed(run: Path, to: Path, **changes: object) -> Path:
    """Copy a run and replace parts of its metrics; ``None`` takes a part away."""
    metrics = json.loads((copy_run(run, to) / "metrics.json").read_text()) | changes
    (to / "metrics.json").write_text(json.dumps({key: value for key, value in metrics.items() if value is not None}))
    return to


def test_a_run_gives_its_files_as_tables_and_mappings(run: Path, synthetic: Path) -> None:
    opened = RunFolder.open(str(run))
    assert (opened.kind, opened.reported) == ("run", "validation")
    assert opened.block == opened.metrics["validation"]
    assert opened.labels.codes[:2] == ("akiec", "bcc")
    assert opened.config["data"] == opened.data == str(synthetic)
    assert list(opened.history["epoch"]) == [1, 2, 3]
    assert len(opened.predictions) == len(pd.read_csv(run / "predictions.csv"))
    assert len(opened.reported_rows) == opened.block["n"] == len(opened.rows["validation"])
    assert opened.bundle == run / "model"
    assert opened.figures == {}


def test_the_kind_follows_from_the_metrics(run: Path, tmp_path: Path) -> None:
    block = json.loads((run / "metrics.json").read_text())["validation"]
    made = {
        "ensemble": changed(run, tmp_path / "a", members=[{}]),
        "folds": changed(run, tmp_path / "b", folds={}),
        "evaluation": changed(run, tmp_path / "c", validation=None, test=block),
    }
    assert {kind: RunFolder.open(path).kind for kind, path in made.items()} == {kind: kind for kind in made}


def test_a_cross_validation_gives_the_curves_and_models_of_its_folds(run: Path, tmp_path: Path) -> None:
    folder = changed(run, tmp_path / "cv", folds={})
    table = pd.read_csv(folder / "predictions.csv")
    table.assign(fold=[1 + row % 2 for row in range(len(table))]).to_csv(folder / "predictions.csv", index=False)
    for number in (1, 2):
        shutil.copytree(folder / "model", folder / f"fold-{number}" / "model")
        shutil.copy(folder / "history.csv", folder / f"fold-{number}")
    opened = RunFolder.open(folder)
    assert opened.bundles == {1: folder / "fold-1", 2: folder / "fold-2"}
    assert opened.history.groupby("fold")["epoch"].max().to_dict() == {1: 3, 2: 3}
    with pytest.raises(DataError, match="a model a fold"):
        _ = opened.bundle


def test_an_evaluation_names_the_model_that_it_judged(run: Path, tmp_path: Path) -> None:
    block = json.loads((run / "metrics.json").read_text())["validation"]
    folder = changed(run, tmp_path / "out", validation=None, test=block, model={"path": str(run)})
    shutil.rmtree(folder / "model")
    (folder / "config.toml").unlink()
    opened = RunFolder.open(folder)
    assert (opened.bundle, opened.config) == (run / "model", {})
    shutil.move(run, tmp_path / "moved")
    try:
        with pytest.raises(DataError, match="no longer there"):
            _ = RunFolder.open(folder).bundle
    finally:
        shutil.move(tmp_path / "moved", run)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_holds_no_finished_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name):
        RunFolder.open(tmp_path / name)


#: Below `runs`, or too early for it: what --overwrite may replace, what a mistyped path is, the gate of int8.
EXCEPTIONS = {"runs.py", "files.py", "asking.py", "quantize_gate.py"}


def test_no_other_module_names_the_files_of_a_run() -> None:
    names = {runs.CONFIG, runs.METRICS, runs.PREDICTIONS, runs.HISTORY, runs.SKIPPED, runs.PAGE}
    for path in Path(runs.__file__).parent.glob("**/*.py"):
        if path.name not in EXCEPTIONS:
            constants = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            assert not {node.value for node in constants if isinstance(node.value, str)} & names, path
