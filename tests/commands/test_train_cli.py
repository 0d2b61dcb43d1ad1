"""`dermafuse train` as a user meets it: a RUN folder on generated data, and every mistake refused in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermafuse.cli import main
from dermafuse.data.readers import read as reading
from dermafuse.errors import DermafuseError, WeightsError
from dermafuse.progress import Silent
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.training.config import resolve
from dermafuse.training.partition import front_path, plan_network
from report_reading import wrong_numbers
from tiny_run import FAST


def train(data: Path, out: Path, *more: str) -> int:
    return main(["train", "--data", str(data), "--out", str(out), *FAST, *more])


@pytest.fixture(scope="module")
def run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(synthetic, out) == 0
    return out


def metrics_of(out: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((out / "metrics.json").read_text())
    return content


def test_a_run_leaves_the_files_of_the_contract_and_nothing_else(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    wanted = {"config.toml", "metrics.json", "predictions.csv", "history.csv", "report.html", "model"}
    assert names == wanted | {"figures", "weights.safetensors"}
    assert list(run.parent.iterdir()) == [run]


def test_predictions_have_the_columns_of_the_contract_and_agree_with_the_metrics(run: Path) -> None:
    table = pd.read_csv(run / "predictions.csv")
    codes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert list(table.columns) == ["image_id", "lesion_id", "split", "true", "predicted", *(f"p_{c}" for c in codes)]
    np.testing.assert_allclose(table[[f"p_{c}" for c in codes]].sum(axis=1), 1.0, atol=1e-5)
    block = metrics_of(run)["validation"]
    assert isinstance(block, dict)
    assert block["n"] == len(table)
    assert block["accuracy"] == pytest.approx((table["true"] == table["predicted"]).mean())
    assert set(block["per_class"]["mel"]) >= {"precision", "recall", "f1", "specificity", "auroc", "support"}
    assert block["ci95"]["accuracy"][0] <= block["accuracy"] <= block["ci95"]["accuracy"][1]


def test_synthetic_data_and_random_weights_are_announced_wherever_the_numbers_appear(
    run: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(synthetic, tmp_path / "again", "--set", "validation_fraction=0.3") == 0
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, (run / "metrics.json").read_text(), (run / "model/README.md").read_text()):
        assert "SYNTHETIC DATA" in text
        assert "RANDOM WEIGHTS" in text
    metrics = metrics_of(tmp_path / "again")
    codes = ["synthetic_data", "random_weights", "early_stopping_on_validation"]
    assert metrics["announcement_codes"] == codes
    assert len(metrics["announcements"]) == len(codes)  # type: ignore[arg-type]
    assert f"{metrics['seconds']['total']:.1f} s in all" in printed.out  # type: ignore[index]


def test_the_seconds_of_a_run_are_those_of_its_parts_and_the_report_shows_the_same(run: Path) -> None:
    seconds = metrics_of(run)["seconds"]
    assert isinstance(seconds, dict)
    parts = {name: spent for name, spent in seconds.items() if name != "total"}
    assert parts.keys() >= {"read", "extract", "train", "evaluate", "write", "verify", "report"}
    assert seconds["total"] == pytest.approx(sum(parts.values()), abs=0.01)
    assert parts["report"] > 0
    assert wrong_numbers((run / "report.html").read_text(), run)[0] == []


def test_config_toml_repeats_the_run(run: Path, tmp_path: Path) -> None:
    assert main(["train", "--config", str(run / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    assert metrics_of(tmp_path / "again")["validation"] == metrics_of(run)["validation"]
    assert (tmp_path / "again/predictions.csv").read_text() == (run / "predictions.csv").read_text()
    assert tomllib.loads((run / "config.toml").read_text())["backbone"] == "efficientnet_lite0"


def test_cached_and_uncached_training_agree(run: Path, synthetic: Path, tmp_path: Path) -> None:
    cached, plain = tmp_path / "cached", tmp_path / "plain"
    assert train(synthetic, cached, "--set", "precision=f32") == 0
    assert train(synthetic, plain, "--set", "cache=false") == 0
    a, b = (pd.read_csv(out / "predictions.csv").filter(like="p_").to_numpy() for out in (cached, plain))
    # float16 features against float32: the same batches, the same draws, the same course of training.
    np.testing.assert_allclose(a, b, atol=0.01)


def test_the_bundle_predicts_what_training_reported(run: Path, synthetic: Path) -> None:
    import dermafuse

    assert read_bundle(run).classes[0] == "akiec"
    table = pd.read_csv(run / "predictions.csv").head(5)
    records = pd.read_csv(synthetic / "HAM10000_metadata.csv").set_index("image_id")
    predictor = dermafuse.load(run)
    for row in table.itertuples():
        facts = records.loc[row.image_id]
        (path,) = synthetic.glob(f"HAM10000_images_part_*/{row.image_id}.jpg")
        age = None if np.isnan(facts["age"]) else float(facts["age"])
        found = predictor.predict(path, age=age, sex=facts["sex"], localization=facts["localization"])
        assert found.probabilities["nv"] == pytest.approx(row.p_nv, abs=0.02)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--backbone", "efficientnet_b9"], "efficientnet_b"),
        (["--set", "epoch=3"], "Did you mean 'epochs'"),
        (["--unfreeze-from", "block9"], "block"),
        (["--weights", "/nowhere/w.h5"], "/nowhere/w.h5"),
        (["--recipe", "sed"], "Did you mean 'seed'"),
    ],
)
def test_a_mistake_in_the_options_is_one_clear_line(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert train(synthetic, tmp_path / "out", *more) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("dermafuse: ")
    assert says in lines[-1]
    assert not (tmp_path / "out").exists()


def test_an_existing_run_is_refused_unless_overwrite(
    run: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(run, out)
    assert train(synthetic, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert train(synthetic, out, "--overwrite", "--seed", "4") == 0
    assert metrics_of(out)["validation"] != metrics_of(run)["validation"]


def test_overwrite_never_replaces_a_folder_that_is_not_a_run(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"dear")
    assert train(synthetic, tmp_path, "--overwrite") == 2
    assert "not made by dermafuse" in capsys.readouterr().err
    assert (tmp_path / "holiday.jpg").read_bytes() == b"dear"


def test_an_output_that_cannot_be_written_is_told_before_any_work(
    synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(synthetic, Path("/proc/none/run")) == 2
    assert "/proc" in capsys.readouterr().err


@pytest.fixture
def copy(synthetic: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic, tmp_path / "data"))


def some_images(data: Path, count: int) -> list[Path]:
    return sorted(data.glob("HAM10000_images_part_1/*.jpg"))[:count]


def test_broken_images_are_listed_and_the_run_goes_on(copy: Path, tmp_path: Path) -> None:
    missing, truncated, empty, disguised, text = some_images(copy, 5)
    missing.unlink()
    truncated.write_bytes(truncated.read_bytes()[:200])
    empty.write_bytes(b"")
    Image.open(disguised).save(disguised.with_suffix(".png"))
    disguised.with_suffix(".png").replace(disguised)
    text.write_text("hello")
    assert train(copy, tmp_path / "out", "--set", "max_bad=0.1") == 0
    skipped = pd.read_csv(tmp_path / "out/skipped.csv")
    assert set(skipped["image_id"]) == {path.stem for path in (missing, truncated, empty, text)}
    assert skipped["reason"].str.len().min() > 5


def test_too_many_broken_images_stop_the_run(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in some_images(copy, 12):
        path.write_bytes(b"")
    assert train(copy, tmp_path / "out") == 2
    assert "max_bad" in capsys.readouterr().err
    assert not (tmp_path / "out/metrics.json").exists()


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [("dx", "wart", "wart"), ("age", "abc", "abc"), ("age", "450", "450")],
)
def test_a_wrong_value_in_the_table_is_named(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, value: str, says: str
) -> None:
    table = pd.read_csv(copy / "HAM10000_metadata.csv", dtype=str, keep_default_na=False)
    table.loc[3, column] = value
    table.to_csv(copy / "HAM10000_metadata.csv", index=False)
    assert train(copy, tmp_path / "out") == 2
    assert says in capsys.readouterr().err


def test_a_missing_column_is_named(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(copy / "HAM10000_metadata.csv").rename(columns={"dx": "diag"})
    table.to_csv(copy / "HAM10000_metadata.csv", index=False)
    assert train(copy, tmp_path / "out") == 2
    assert "dx" in capsys.readouterr().err


def test_an_empty_folder_and_a_table_without_images_are_refused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert train(tmp_path / "empty", tmp_path / "out") == 2
    assert str(tmp_path / "empty") in capsys.readouterr().err
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        shutil.rmtree(copy / part)
    assert train(copy, tmp_path / "out") == 2
    assert "image" in capsys.readouterr().err


def test_data_without_metadata_trains_on_images_alone(synthetic: Path, tmp_path: Path) -> None:
    table = pd.read_csv(synthetic / "HAM10000_metadata.csv")
    root = tmp_path / "isic"
    (root / "ISIC2018_Task3_Training_Input").mkdir(parents=True)
    (root / "ISIC2018_Task3_Training_GroundTruth").mkdir()
    for path in synthetic.glob("HAM10000_images_part_*/*.jpg"):
        shutil.copy(path, root / "ISIC2018_Task3_Training_Input" / path.name)
    names = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    one_hot = pd.DataFrame({name: (table["dx"] == name.lower()).astype(float) for name in names})
    one_hot.insert(0, "image", table["image_id"])
    one_hot.to_csv(root / "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv", index=False)
    assert train(root, tmp_path / "out") == 0
    assert any("NO METADATA" in text for text in metrics_of(tmp_path / "out")["announcements"])  # type: ignore[union-attr]


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows by one whenever a data set is read."""
    read: list[Path] = []
    scanned = reading.scan

    def scan(root: Path) -> object:
        read.append(root)
        return scanned(root)

    monkeypatch.setattr(reading, "scan", scan)
    return read


def test_a_run_reads_its_data_once_audits_and_report_included(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_reads(monkeypatch)
    assert train(synthetic, tmp_path / "out", "--audit-metadata", "--epochs", "1") == 0
    assert len(read) == 1


def test_a_killed_run_is_refused_then_resumed_to_the_same_result(
    synthetic: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dermafuse.cli", "train", "--data", str(synthetic), "--out", str(out), *FAST]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / "checkpoints").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists()
    assert train(synthetic, out) == 2
    assert "--resume" in capsys.readouterr().err
    assert train(synthetic, out, "--resume") == 0
    assert metrics_of(out)["validation"] == metrics_of(run)["validation"]
    assert not (out / "checkpoints").exists()


def test_fine_tuning_from_a_cut_trains_the_tail_and_reports_its_parameters(synthetic: Path, tmp_path: Path) -> None:
    assert train(synthetic, tmp_path / "out", "--unfreeze-from", "block7", "--set", "views=8", "--epochs", "1") == 0
    network = metrics_of(tmp_path / "out")["network"]
    assert isinstance(network, dict)
    assert network["cut"] == "block7"
    assert network["parameters"]["total"] > network["parameters"]["trainable"] > 600_000


def test_cross_validation_predicts_every_image_once_and_a_script_that_resumes_it_may_start_it(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_reads(monkeypatch)
    again = (synthetic, tmp_path / "cv", "--folds", "2", "--split", "lesion", "--epochs", "1", "--resume")
    assert train(*again) == 0
    assert "nothing to resume, starting" in " ".join(capsys.readouterr().err.split())
    assert len(read) == 1  # by the checks before it, the folds, and the report
    assert train(*again) == 0
    assert "finished already" in " ".join(capsys.readouterr().err.split())
    table = pd.read_csv(tmp_path / "cv/predictions.csv")
    assert table["image_id"].is_unique
    assert len(table) == len(pd.read_csv(synthetic / "HAM10000_metadata.csv"))
    assert table.groupby("lesion_id")["fold"].nunique().max() == 1
    metrics = metrics_of(tmp_path / "cv")
    assert metrics["validation"]["n"] == len(table)  # type: ignore[index]
    assert len(metrics["folds"]["accuracy"]["values"]) == 2  # type: ignore[index]


def folders_of_classes(folder: Path) -> Path:
    """Write 24 pictures as folders: Train and Test with two classes, of which one is green."""
    random = np.random.default_rng(0)
    for n in range(24):
        path = folder / ("Test" if n >= 18 else "Train") / ("nevus" if n % 2 else "melanoma") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 90, (64, 64, 3), dtype=np.uint8)
        pixels[..., 1] += np.uint8(120 * (n % 2))
        Image.fromarray(pixels).save(path)
    return folder


def test_folders_train_through_init_and_the_test_part_is_never_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders_of_classes(tmp_path / "data")
    assert main(["init", str(data)]) == 0
    assert train(data, tmp_path / "run", "--set", "report=false") == 0
    assert "Left out of training: 6 of the test part" in capsys.readouterr().err
    found = metrics_of(tmp_path / "run")["data"]
    assert isinstance(found, dict)
    assert (found["images"], found["train"] + found["validation"]) == (18, 18)
    judged = {int(name) for name in pd.read_csv(tmp_path / "run/predictions.csv")["image_id"]}
    assert judged < set(range(18))


def test_given_folds_are_those_of_the_cross_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders_of_classes(tmp_path / "data")
    table = "".join(f"{n},{'nevus' if n % 2 else 'melanoma'},{'test' if n >= 18 else n // 2 % 3}\n" for n in range(24))
    (data / "table.csv").write_text("image,label,fold\n" + table)
    (data / "dermafuse.toml").write_text(
        'table = "table.csv"\nimage = "image"\nlabel = "label"\nfold = "fold"\nclasses = ["melanoma", "nevus"]\n'
    )
    assert train(data, tmp_path / "wrong", "--folds", "5") == 2
    assert "gives 3 fold(s) (0, 1, 2), not 5" in capsys.readouterr().err
    assert train(data, tmp_path / "run", "--folds", "3", "--set", "report=false", "--epochs", "1") == 0
    for fold in range(3):
        rows = pd.read_csv(tmp_path / f"run/fold-{fold + 1}/predictions.csv")
        assert sorted(rows["image_id"]) == [n for n in range(18) if n // 2 % 3 == fold]


UNREADABLE = """
import sys
import dermafuse.training.start as start
from dermafuse.cli import main
from dermafuse.data.readers import read as reading
def never(*_, **__):
    raise AssertionError("the data were read, or TensorFlow was loaded, before the refusal")
start.read_training_data = start.load_tensorflow = never
status = main(sys.argv[1:])
assert "tensorflow" not in sys.modules
raise SystemExit(status)
"""


@pytest.mark.parametrize(
    ("options", "environment", "word"),
    [
        (["--out", "{tmp}/file/RUN"], {}, "Cannot write to"),
        (["--out", "{tmp}/file"], {}, "is a file"),
        (["--out", "{tmp}/theirs"], {}, "exists already"),
        (["--out", "{tmp}/\udcff"], {}, "UTF-8"),
        (["--out", "{tmp}/half"], {}, "unfinished"),
        (["--out", "{tmp}/RUN"], {"DERMAFUSE_CACHE": "{tmp}/file/cache"}, "DERMAFUSE_CACHE"),
        (["--out", "{tmp}/RUN"], {"DERMAFUSE_CACHE": "/proc/cache"}, "DERMAFUSE_CACHE"),
        (["--out", "{tmp}/RUN", "--weights", "{tmp}/nothing.h5"], {}, "nothing.h5"),
        (
            ["--out", "{tmp}/RUN", "--backbone", "efficientnet_b1"],
            {"https_proxy": "http://127.0.0.1:9"},
            "could not be",
        ),
    ],
)
def test_a_wrong_folder_or_missing_weights_are_refused_before_data_and_tensorflow(
    synthetic: Path, tmp_path: Path, options: list[str], environment: dict[str, str], word: str
) -> None:
    (tmp_path / "file").touch()
    for folder in ("theirs", "half/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "theirs" / "metrics.json").touch()
    own = {"DERMAFUSE_CACHE": str(tmp_path / "cache"), "KERAS_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    own |= {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    command = [sys.executable, "-c", UNREADABLE, "train", "--recipe", "seed", "--data", str(synthetic)]
    command += [option.format(tmp=tmp_path) for option in options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert word in done.stderr


def test_a_warm_run_needs_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dermafuse.training import start

    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    config = resolve("seed", options={"data": "x", "backbone": "efficientnet_b1", "precision": "f32"})
    with pytest.raises(WeightsError):
        start._check_weights(config)
    front = front_path(plan_network(config))
    front.parent.mkdir()
    front.touch()
    start._check_weights(config)


def test_the_demo_says_at_once_that_tensorflow_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dermafuse.training import start
    from dermafuse.training.demo import run_demo

    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        "dermafuse.training.demo.write_synthetic", lambda *_, **__: pytest.fail("data were drawn first")
    )
    with pytest.raises(DermafuseError, match=r"dermafuse\[train\]"):
        run_demo(tmp_path / "RUN", seed=0, report=Silent())
    assert list(tmp_path.iterdir()) == []
