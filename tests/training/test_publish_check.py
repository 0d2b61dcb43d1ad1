import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import BundleError
from dermafuse.evaluation.robustness import queries
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.predictor import Predictor
from dermafuse.training.publish_check import ROWS, TOLERANCES, check_published
from tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture(scope="module")
def judged(bundle: Path, synthetic: Path) -> tuple[Records, np.ndarray]:
    records = read_dataset(synthetic)
    records = records.subset(np.arange(2 * ROWS))
    predictor = Predictor(read_bundle(bundle), precision="f32")
    fields = [name for name in predictor.fields if name in records.table.columns]
    answers = [list(answer.probabilities.values()) for answer in predictor.stream(queries(records, fields))]
    return records, np.array(answers)


def test_a_bundle_that_answers_as_judged_is_published(bundle: Path, judged: tuple[Records, np.ndarray]) -> None:
    found = check_published(bundle, *judged, "f32").block
    assert found["rows"] == ROWS
    assert found["largest_difference"] < 1e-5


def test_one_row_that_is_answered_otherwise_refuses_the_bundle(
    bundle: Path, judged: tuple[Records, np.ndarray]
) -> None:
    records, probabilities = judged
    other = probabilities.copy()
    other[0, :2] += (2 * TOLERANCES["f32"][0], -2 * TOLERANCES["f32"][0])
    with pytest.raises(BundleError, match=f"worst: {records.table['image_id'][0]}"):
        check_published(bundle, records, other, "f32")


def test_a_small_difference_everywhere_refuses_it_too(bundle: Path, judged: tuple[Records, np.ndarray]) -> None:
    records, probabilities = judged
    step = 1.5 * TOLERANCES["f32"][1]
    assert step < TOLERANCES["f32"][0]
    other = probabilities + np.where(np.arange(probabilities.shape[1]) == 0, step, 0.0)
    with pytest.raises(BundleError, match="Not published"):
        check_published(bundle, records, other, "f32")


def test_a_run_whose_bundle_answers_otherwise_is_not_published(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written is spoiled, what was judged stays as it is."""
    from dermafuse.training import experiment, run_folder
    from tiny_run import FAST

    made = run_folder.bundle_content

    def damaged(*args: object) -> object:
        return dataclasses.replace(made(*args), temperature=5.0)

    monkeypatch.setattr(run_folder, "bundle_content", damaged)
    out = tmp_path / "RUN"
    assert main(["train", "--data", str(synthetic), "--out", str(out), *FAST]) == 2
    assert "Not published" in capsys.readouterr().err
    assert not (out / "metrics.json").exists()
    assert not (out / "model").exists()
    monkeypatch.undo()
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert (out / "metrics.json").exists()
    assert experiment.CHECKPOINTS not in [path.name for path in out.iterdir()]
