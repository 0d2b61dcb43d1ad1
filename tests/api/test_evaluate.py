"""``dermafuse evaluate``: any labelled set, the same block, and an honest word on what the model has met."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dermafuse
from dermafuse.api import evaluate
from dermafuse.api.evaluate import evaluate_bundle
from dermafuse.commands.evaluate import show_evaluation
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.errors import BundleError, DataError, OutputError
from dermafuse.evaluation.derived_metrics import class_codes
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.overlap import find_overlap
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.evaluation.unseen import measure_unseen
from dermafuse.report.page import make_report
from dermafuse.runs import find_run
from dermafuse.runtime.bundle.folder import PredictionSets
from report_reading import Listener, wrong_numbers
from tiny_bundle import tiny_bundle
from tiny_run import copy_run, tiny_run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data of another seed than the session's: same ids, other images."""
    return write_synthetic(tmp_path_factory.mktemp("other") / "data", lesions=60, seed=11)


@pytest.fixture(scope="module")
def done(bundle: Path, synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "test"
    evaluate_bundle(bundle, synthetic, out, report=Listener())
    return out


def test_the_block_is_that_of_the_predictions_that_were_written(done: Path, synthetic: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    rows = read_rows(done / "predictions.csv", class_codes(metrics))["test"]
    expected = evaluate_predictions(rows.true, rows.probabilities, rows.classes, predicted=rows.predicted)
    assert {key: metrics["test"][key] for key in expected} == expected
    assert metrics["test"]["ci95"]["accuracy"][0] < expected["accuracy"] < metrics["test"]["ci95"]["accuracy"][1]
    assert metrics["data"]["test"] == len(rows) == len(read_dataset(synthetic))


def test_predictions_are_in_the_order_of_the_data_and_are_those_of_the_predictor(
    done: Path, bundle: Path, synthetic: Path
) -> None:
    from dermafuse.runtime.bundle.folder import read_bundle
    from dermafuse.runtime.predictor import Predictor

    records = read_dataset(synthetic)
    table = pd.read_csv(done / "predictions.csv")
    assert table["image_id"].tolist() == records.table["image_id"].tolist()
    assert table["true"].tolist() == records.table["label"].tolist()
    predictor = Predictor(read_bundle(bundle))
    for position in (0, 17, len(table) - 1):
        row = records.table.iloc[position]
        known = {name: row[name] for name in ("age", "sex", "localization") if not pd.isna(row[name])}
        said = predictor.predict(row["path"], **known)
        assert table["predicted"][position] == said.label
        for code, share in said.probabilities.items():
            assert table[f"p_{code}"][position] == pytest.approx(share, abs=1e-4)


def test_the_folder_has_a_report_whose_numbers_are_right_and_that_can_be_made_again(done: Path, tmp_path: Path) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    wrong, read = wrong_numbers(page, done)
    assert wrong == []
    assert read > 500
    assert "data:image/jpeg" in page
    again = copy_run(done, tmp_path / done.name)
    assert make_report(again).read_text(encoding="utf-8") == page


def test_announcements_say_synthetic_and_that_a_bundle_alone_knows_nothing(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    assert any("SYNTHETIC DATA" in text for text in metrics["announcements"])
    assert metrics["overlap"]["known"] is False
    assert metrics["overlap"]["trained_images"] is None
    assert any(entry["code"] == "DM001" for entry in metrics["model_findings"])
    page = (done / "report.html").read_text(encoding="utf-8")
    assert "is not known" in page[page.index('id="verdict"') : page.index('id="classes"')]
    assert "that the model did not learn from" not in page


def test_prediction_sets_and_flags_are_judged(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    table = pd.read_csv(done / "predictions.csv", keep_default_na=False)
    held = [true in said.split("|") for true, said in zip(table["true"], table["prediction_set"], strict=True)]
    block = metrics["test"]["prediction_sets"]
    assert block["coverage"] == pytest.approx(np.mean(held))
    assert block["target"] == 0.9
    mel = table["true"] == "mel"
    assert block["per_class"]["mel"]["coverage"] == pytest.approx(np.mean(np.array(held)[mel]))
    flagged = metrics["test"]["out_of_distribution"]
    assert flagged["flagged"] == (table["out_of_distribution"].astype(str) == "True").sum()


def test_the_decision_of_the_bundle_counts_not_the_largest_probability(synthetic: Path, tmp_path: Path) -> None:
    always_mel = tiny_bundle(tmp_path / "model", offsets=(0.0, 0.0, 0.0, 0.0, 50.0, 0.0, 0.0))
    metrics = evaluate_bundle(always_mel, synthetic, tmp_path / "out")
    assert metrics["test"]["per_class"]["mel"]["recall"] == 1.0
    assert metrics["test"]["per_class"]["nv"]["recall"] == 0.0


def test_eight_views_are_those_of_predict(bundle: Path, synthetic: Path, tmp_path: Path) -> None:
    metrics = evaluate_bundle(bundle, synthetic, tmp_path / "out", views=8)
    assert metrics["model"]["views"] == 8
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    row = read_dataset(synthetic).table.iloc[3]
    known = {name: row[name] for name in ("age", "sex", "localization") if not pd.isna(row[name])}
    model = dermafuse.load(bundle)
    averaged, plain = (model.predict(row["path"], views=views, **known).probabilities["mel"] for views in (8, 1))
    assert table["p_mel"][3] == pytest.approx(averaged, abs=1e-4)
    assert abs(plain - averaged) > 1e-3


@pytest.fixture(scope="module")
def met(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Listener]:
    """A run evaluated on the very data that it was made from: the run, the evaluation, what was said."""
    folder, listener = tmp_path_factory.mktemp("met"), Listener()
    run = tiny_run(folder / "run", synthetic)
    evaluate_bundle(run, synthetic, folder / "out", report=listener)
    return run, folder / "out", listener


def test_images_that_the_model_trained_on_are_counted_and_told_apart(
    synthetic: Path, met: tuple[Path, Path, Listener]
) -> None:
    run, out, listener = met
    metrics = json.loads((out / "metrics.json").read_text())
    rows = read_rows(run / "predictions.csv", class_codes(metrics))
    held = len(rows["validation"]) + len(rows["tuning"])
    total = len(read_dataset(synthetic))
    assert metrics["overlap"]["trained_images"] == metrics["overlap"]["trained_lesion_images"] == total - held
    assert metrics["overlap"]["validation_images"] == len(rows["validation"])
    assert metrics["overlap"]["tuning_images"] == len(rows["tuning"])
    assert any("TRAINED ON" in text for text in listener.warned)
    assert metrics["overlap"]["chose_images"] == len(rows["tuning"])
    assert metrics["test_unseen"]["n"] == metrics["overlap"]["unseen_images"] == len(rows["validation"])
    assert metrics["test"]["operating_points"] is None
    assert "in this test set" in metrics["test"]["notes"]["operating_points"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'data-metric="/test_unseen/accuracy"' in page
    assert wrong_numbers(page, out)[0] == []


def test_every_row_says_whether_the_model_learned_from_it_was_chosen_by_it_or_never_saw_it(
    met: tuple[Path, Path, Listener],
) -> None:
    run, out, _ = met
    metrics = json.loads((out / "metrics.json").read_text())
    rows = read_rows(run / "predictions.csv", class_codes(metrics))
    table = pd.read_csv(out / "predictions.csv").set_index("image_id")
    assert set(table.loc[rows["validation"].image_id, "role"]) == {"unseen"}
    assert set(table.loc[rows["tuning"].image_id, "role"]) == {"chose"}
    rest = table.drop([*rows["validation"].image_id, *rows["tuning"].image_id])
    assert set(rest["role"]) == {"learned from"}
    own = table[table["role"] == "unseen"]
    assert metrics["test_unseen"]["accuracy"] == pytest.approx((own["true"] == own["predicted"]).mean())
    assert metrics["test_unseen"]["lesions"] == own["lesion_id"].nunique()


def test_the_unseen_images_come_first_in_the_terminal_and_in_the_verdict(
    met: tuple[Path, Path, Listener], capsys: pytest.CaptureFixture[str]
) -> None:
    out = met[1]
    metrics = json.loads((out / "metrics.json").read_text())
    show_evaluation(metrics, out)
    said = " ".join(capsys.readouterr().out.split())
    unseen, everything = (metrics[name]["n"] for name in ("test_unseen", "test"))
    assert said.index(f"the {unseen:,} images that are unseen") < said.index(f"all {everything:,} images")
    page = (out / "report.html").read_text(encoding="utf-8")
    verdict = page[page.index('id="verdict"') : page.index('id="classes"')]
    assert verdict.index("/test_unseen/accuracy") < verdict.index("/test/accuracy")
    assert 'class="value"><span data-metric="/test_unseen/' in verdict
    assert 'class="value"><span data-metric="/test/' not in verdict


def test_validation_rows_that_stopped_the_training_are_not_unseen(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic, tuning=False)
    metrics = evaluate_bundle(run, synthetic, tmp_path / "out")
    overlap = metrics["overlap"]
    assert (overlap["chose_images"], overlap["unseen_images"]) == (overlap["validation_images"], 0)
    assert "test_unseen" not in metrics
    assert metrics["test"]["notes"]["unseen"].startswith("None is unseen")
    assert "None is unseen" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    last = {**json.loads((run / "metrics.json").read_text())["training"], "monitor": "last"}
    untouched = tiny_run(tmp_path / "last", synthetic, tuning=False, model=False, training=last)
    records = read_dataset(synthetic)
    found = find_overlap(untouched, records, records.classes)
    assert found.chose.sum() == 0
    assert found.unseen.sum() == overlap["validation_images"]


def test_what_one_member_of_an_ensemble_holds_out_the_others_learned_from(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic, model=False, members=[{"backbone": "tiny"}])
    records = read_dataset(synthetic)
    found = find_overlap(run, records, records.classes)
    assert found.trained.sum() == len(records) - found.validation.sum()
    assert found.chose.sum() == 0
    assert (found.unseen == found.validation).all()


def test_a_test_set_that_only_chose_the_model_is_told_so(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    rows = read_rows(run / "predictions.csv", class_codes(json.loads((run / "metrics.json").read_text())))
    records = read_dataset(synthetic)
    held = {*rows["tuning"].image_id, *rows["validation"].image_id}
    part = records.subset(records.table["image_id"].isin(held).to_numpy(bool))
    found = find_overlap(run, part, part.classes)
    assert not found.trained_lesions.any()
    metrics = {"overlap": found.to_dict(), "test": {"n": len(part)}, "announcements": []}
    everything = read_rows(run / "predictions.csv", records.classes)["validation"]
    measure_unseen(metrics, everything.take(np.arange(10)), 0)
    assert metrics["announcements"][0].startswith("CHOSEN BY: of ")
    assert "Only 10 unseen" in metrics["test"]["notes"]["unseen"]


def test_lesions_split_over_both_sides_count_as_met(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic, by="image", tuning=False, model=False)
    records = read_dataset(synthetic)
    overlap = find_overlap(run, records, records.classes)
    leaked = json.loads((run / "metrics.json").read_text())["leakage"]["leaked_images"]
    assert leaked > 0
    assert overlap.trained_lesions.sum() - overlap.trained.sum() == leaked


def test_generated_data_of_another_seed_is_not_taken_for_the_training_set(
    synthetic: Path, other_data: Path, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    listener = Listener()
    metrics = evaluate_bundle(run, other_data, tmp_path / "out", report=listener)
    assert metrics["overlap"]["known"] is True
    assert metrics["overlap"]["trained_images"] == 0
    assert not any("TRAINED ON" in text for text in listener.warned)
    assert "test_unseen" not in metrics
    assert "that the model did not learn from" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    # Thresholds come from the run's own tuning rows.
    tuning = read_rows(run / "predictions.csv", class_codes(metrics))["tuning"]
    assert {point["chosen_on"]["n"] for point in metrics["test"]["operating_points"]} == {len(tuning)}


def test_what_a_run_was_trained_on_is_unknown_without_its_data(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic, model=False)
    (run / "config.toml").write_text('data = "/no/such/folder"\n')
    records = read_dataset(synthetic)
    overlap = find_overlap(run, records, records.classes)
    assert not overlap.known
    assert "/no/such/folder" in overlap.basis
    assert overlap.validation.sum() > 0  # this much the run itself knows
    assert overlap.to_dict()["trained_images"] is None


def test_the_bundle_inside_a_run_is_known_to_belong_to_it(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    assert find_run(run) == run
    assert find_run(run / "model") is not None
    assert find_run(tiny_bundle(tmp_path / "alone")) is None


def test_a_set_without_metadata_is_evaluated_and_says_so(bundle: Path, synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "isic"
    images, truth = data / "ISIC2018_Task3_Test_Input", data / "ISIC2018_Task3_Test_GroundTruth"
    images.mkdir(parents=True)
    truth.mkdir()
    records = read_dataset(synthetic)
    columns = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    with (truth / "ISIC2018_Task3_Test_GroundTruth.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *columns])
        for row in records.table.iloc[:60].itertuples():
            shutil.copy(row.path, images / f"{row.image_id}.jpg")
            writer.writerow([row.image_id, *(float(name.lower() == row.label) for name in columns)])
    metrics = evaluate_bundle(bundle, data, tmp_path / "out")
    assert metrics["data"]["has_metadata"] is False
    assert metrics["test"]["n"] == 60
    assert any("NO METADATA" in text for text in metrics["announcements"])
    assert any("LESIONS UNKNOWN" in text for text in metrics["announcements"])
    assert metrics["test"]["subgroups"] is None


def test_unreadable_images_are_listed_and_too_many_stop_the_work(bundle: Path, synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    for path in sorted(data.rglob("*.jpg"))[:3]:
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"3 of .* rows are unusable .*--max-bad"):
        evaluate_bundle(bundle, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    metrics = evaluate_bundle(bundle, data, tmp_path / "out", max_bad=0.05)
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv")
    assert len(skipped) == metrics["data"]["skipped"] == 3
    assert skipped["reason"].str.len().min() > 10
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == metrics["test"]["n"] == metrics["data"]["test"]


def test_diagnoses_that_the_model_lacks_are_refused_by_name(synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "own"
    shutil.copytree(synthetic, data)
    table = pd.read_csv(data / "HAM10000_metadata.csv")
    table.loc[:4, "dx"] = "wart"
    table.to_csv(data / "table.csv", index=False)
    (data / "dermafuse.toml").write_text(
        'table = "table.csv"\nimage = "image_id"\nlabel = "dx"\n'
        'classes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "wart"]\n'
    )
    with pytest.raises(DataError, match=r"wart.*does not tell apart"):
        evaluate_bundle(tiny_bundle(tmp_path / "model"), data, tmp_path / "out")


def test_an_existing_folder_is_kept_unless_overwritten_and_inputs_are_never_replaced(
    bundle: Path, synthetic: Path, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path / "run", synthetic)
    before = (run / "metrics.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        evaluate_bundle(run, synthetic, run)
    with pytest.raises(OutputError, match="holds the model"):
        evaluate_bundle(run, synthetic, run, overwrite=True)
    with pytest.raises(OutputError, match="lies in the data folder"):
        evaluate_bundle(run, synthetic, synthetic / "out")
    assert (run / "metrics.json").read_bytes() == before
    with pytest.raises(BundleError, match="does not exist"):
        evaluate_bundle(tmp_path / "nothing", synthetic, tmp_path / "out")


def test_data_that_are_not_there_are_the_first_cause(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"nodata does not exist"):
        evaluate_bundle(bundle, Path("nodata"), Path("out"))


def test_a_failure_while_writing_leaves_nothing_behind(
    bundle: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "write_report", fail)
    with pytest.raises(KeyboardInterrupt):
        evaluate_bundle(bundle, synthetic, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_words_that_the_model_never_saw_are_counted(synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    table = pd.read_csv(data / "HAM10000_metadata.csv")
    table["localization"] = "elbow"
    table.to_csv(data / "HAM10000_metadata.csv", index=False)
    metrics = evaluate_bundle(tiny_bundle(tmp_path / "model"), data, tmp_path / "out")
    said = [text for text in metrics["announcements"] if "localization" in text]
    assert said == [f"Values of localization that the model never saw in {len(table):,} rows: taken as unknown."]


def test_an_ensemble_has_no_single_temperature_to_take_back(synthetic: Path, tmp_path: Path) -> None:
    pair = tiny_bundle(
        tmp_path / "model", members=2, prediction_set=PredictionSets(coverage=0.8, minimum_probability=[0.0] * 7)
    )
    metrics = evaluate_bundle(pair, synthetic, tmp_path / "out")
    assert metrics["test"]["calibration"]["before"] is None
    assert metrics["test"]["prediction_sets"]["coverage"] == 1.0
