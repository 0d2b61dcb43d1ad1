"""The report: what it says, where it says it from, and that it is one page that loads nothing."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import DataError, OutputError
from dermafuse.evaluation.calibration import calibration_report
from dermafuse.evaluation.derived_metrics import class_codes, enriched
from dermafuse.evaluation.metrics import block_of
from dermafuse.evaluation.model_findings import model_findings, worst_findings
from dermafuse.evaluation.prediction_rows import read_rows, rows_of_table
from dermafuse.evaluation.predictions import Scored
from dermafuse.labels import LabelSet
from dermafuse.report.checklists import STATES, filled_checklists
from dermafuse.report.facts import Facts
from dermafuse.report.gallery import choose_examples, choose_missed
from dermafuse.report.page import Sources, make_report, render, threshold_grid
from dermafuse.runs import read_metrics
from dermafuse.runtime.explain.explainer import FROZEN_HEATMAP
from report_reading import Listener, wrong_numbers
from tiny_run import copy_run, predictions_table, tiny_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs") / "run", synthetic)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return make_report(run).read_text(encoding="utf-8")


def test_every_number_in_the_page_equals_metrics_json_or_predictions_csv(run: Path, page: str) -> None:
    wrong, read = wrong_numbers(page, run)
    assert wrong == []
    assert read > 800  # every section is tagged, not just some


def test_the_check_of_the_numbers_notices_a_changed_number(run: Path, page: str) -> None:
    accuracy = f"{json.loads((run / 'metrics.json').read_text())['validation']['accuracy']:.3f}"
    before = f'data-metric="/validation/accuracy" data-format=".3f">{accuracy}<'
    assert before in page
    wrong, _ = wrong_numbers(page.replace(before, before.replace(accuracy, "0.999")), run)
    assert wrong
    assert all("/validation/accuracy" in text for text in wrong)


def test_headline_numbers_are_in_the_verdict_with_their_intervals_and_the_disclaimer(page: str) -> None:
    verdict = page[page.index('<section id="verdict"') : page.index('<section id="classes"')]
    assert "Research use only" in verdict
    assert 'data-metric="/validation/per_class/mel/recall"' in verdict
    for pointer in ("accuracy", "balanced_accuracy", "weighted_f1", "macro_f1", "macro_auroc"):
        assert f'data-metric="/validation/{pointer}"' in verdict
        assert f'data-metric="/validation/ci95/{pointer}/0"' in verdict
    assert verdict.count("<li>") == 3  # the three most serious findings
    assert "SYNTHETIC DATA" in verdict


def test_the_first_screen_says_what_is_missed_in_words_and_what_costs_nothing(run: Path, page: str) -> None:
    block = read_metrics(run)["validation"]
    verdict = page[page.index('<section id="verdict"') : page.index('<section id="classes"')]
    said = " ".join(html.unescape(re.sub(r"<[^>]+>", "", verdict)).split())
    row = block["per_class"]["mel"]
    missed = row["support"] - round(row["recall"] * row["support"])
    assert f"{missed} of {row['support']} melanoma images are called something else" in said
    counts = np.array(block["confusion_matrix"])
    benign = [position for position, code in enumerate(block["per_class"]) if code not in ("akiec", "bcc", "mel")]
    ill = [position for position in range(len(counts)) if position not in benign]
    assert f"{counts[np.ix_(ill, benign)].sum()} of {counts[ill].sum()} malignant images are called benign" in said
    assert "sensitivity for malignant" in said
    assert 'data-metric="/validation/net_benefit/model"' in verdict
    assert 'data-metric="/validation/baselines/majority/accuracy"' in verdict
    assert 'data-metric="/validation/calibration_line/ci95/slope/0"' in verdict
    rows = read_rows(run / "predictions.csv", list(block["per_class"]))["validation"]
    assert verdict.count("data:image/jpeg") == len(choose_missed(rows))


def test_terms_are_explained_to_mouse_and_keyboard(page: str) -> None:
    terms = re.findall(r"<abbr ([^>]*)>", page)
    assert len(terms) > 20
    assert all('tabindex="0"' in term and re.search('title="[^"]{10,}"', term) for term in terms)
    assert 'title="Share of the images of the class that are named so (recall)."' in page


def test_where_nobody_named_malignant_classes_the_first_screen_asks_for_them_and_claims_nothing() -> None:
    metrics, rows = made_up_block(LabelSet.of(("wart", "eczema", "acne")))
    page = render(metrics, rows, {}, None, Sources(None), "run")
    verdict = page[page.index('<section id="verdict"') : page.index('<section id="classes"')]
    assert "No class is marked as malignant" in verdict
    assert "the named class" in verdict
    assert "benign" not in verdict
    assert "biops" not in verdict
    only = LabelSet.of(("wart", "cancer"), malignant=(), critical="cancer")
    metrics, rows = made_up_block(only)
    page = render(metrics, rows, {}, None, Sources(None), "run")
    verdict = page[page.index('<section id="verdict"') : page.index('<section id="classes"')]
    assert "cancer images are called something else" in verdict
    assert "benign" not in verdict


def made_up_block(labels: LabelSet) -> tuple[dict[str, object], Scored]:
    rng = np.random.default_rng(0)
    true = np.arange(90) % len(labels)
    probabilities = rng.dirichlet(np.ones(len(labels)), 90) * 0.75 + np.eye(len(labels))[true] * 0.25
    names = np.array([f"i{number}" for number in range(90)], dtype=object)
    rows = Scored(labels, names, names, true, probabilities.argmax(axis=1), probabilities, np.zeros(90, np.int64))
    metrics = {"dermafuse": "1", "labels": labels.to_json(), "validation": block_of(rows), "data": {}}
    return enriched(metrics, {"validation": rows}, None), rows


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_on_a_phone_nothing_is_cut_and_the_keyboard_reads_a_term(run: Path, page: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    metrics = read_metrics(run)
    metrics["validation"]["baselines"]["metadata"] = metrics["validation"]["baselines"]["majority"]
    rows = read_rows(run / "predictions.csv", class_codes(metrics))["validation"]
    page = render(metrics, rows, {}, None, Sources(None), "run")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        tab.goto((tmp_path / "page.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        outside = """() => [...document.querySelectorAll(".verdict *")].filter((part) =>
            part.getBoundingClientRect().right > innerWidth).length"""
        assert tab.evaluate(outside) == 0
        term = tab.locator("#verdict abbr").first
        term.focus()
        assert tab.locator("#tip").inner_text() == term.get_attribute("aria-description")
        browser.close()


def test_the_page_loads_nothing_and_forbids_loading(page: str) -> None:
    assert "default-src 'none'" in page
    assert "<link" not in page
    assert "@import" not in page
    assert not re.findall(r'(?:src|href|action|poster)\s*=\s*"(?!data:image/jpeg;base64,|#)', page)
    assert not re.findall(r"url\(", page)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()


def test_all_parts_are_there_and_the_contents_link_to_them(page: str) -> None:
    parts = (
        "verdict",
        "classes",
        "operating",
        "calibration",
        "subgroups",
        "examples",
        "training",
        "findings",
        "data",
        "configuration",
        "checklists",
        "numbers",
        "cite",
    )
    for name in parts:
        assert page.count(f'<section id="{name}"') == 1
        assert f'<a href="#{name}">' in page


def test_examples_show_image_and_heatmap_of_the_right_rows(run: Path, page: str) -> None:
    rows = read_rows(run / "predictions.csv", class_codes(read_metrics(run)))["validation"]
    right, wrong = choose_examples(rows)
    wanted = [row for part in (right, wrong) for listed in part.values() for row in listed]
    missed = choose_missed(rows)
    assert missed
    assert page.count("data:image/jpeg;base64,") == 2 * len(wanted) + len(missed)
    for row in wanted:
        assert f'alt="{rows.image_id[row]}"' in page


def test_pictures_of_the_examples_keep_their_place_free(page: str) -> None:
    pictures = re.findall(r"<img [^>]*>", page)
    assert pictures
    for found in pictures:
        width, height = (re.search(rf' {side}="(\d+)"', found) for side in ("width", "height"))
        assert width
        assert height
        data = base64.b64decode(re.search(r"base64,([^\"]+)", found)[1])  # type: ignore[index]
        assert Image.open(io.BytesIO(data)).size == (int(width[1]), int(height[1]))


def test_heatmaps_of_a_frozen_network_come_with_a_caution(synthetic: Path, tmp_path: Path, page: str) -> None:
    network = {"backbone": "tiny", "weights": "random", "image_size": 32, "parameters": {"total": 1, "trainable": 1}}
    frozen = tiny_run(tmp_path / "frozen", synthetic, network={**network, "frozen": True})
    assert FROZEN_HEATMAP in make_report(frozen).read_text(encoding="utf-8")
    assert FROZEN_HEATMAP not in page
    before = Facts({"validation": {}, "network": {"cut": "pooled"}}, "validation")
    assert before.frozen(None)  # runs that do not say it in so many words
    assert Facts({"validation": {}, "network": {"cut": "image"}}, "validation").frozen({"unfreeze_from": "none"})
    assert not Facts({"validation": {}, "network": {"cut": "block4"}}, "validation").frozen({"unfreeze_from": "block4"})
    assert Facts({"test": {}, "model": {"info": {"frozen": True}}}, "test").frozen(None)


def test_crosses_and_subgroups_are_spoken_of_only_where_there_are_some(synthetic: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", synthetic, tuning=False, model=False)
    path = make_report(run)
    text = path.read_text(encoding="utf-8")
    assert "Crosses" not in text
    assert "operating points chosen on other rows" not in text
    metrics = json.loads((run / "metrics.json").read_text())
    small = {"n": 5, "lesions": 5, "withheld": True}
    metrics["validation"]["subgroups"] = {"sex": {"male": small, "female": small}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = make_report(run).read_text(encoding="utf-8")
    part = text[text.index('<section id="subgroups"') : text.index('<section id="examples"')]
    assert "No group has enough images for a number" in part
    assert 'class="tabs"' not in part


def test_examples_are_the_most_confident_and_one_a_lesion() -> None:
    table = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "lesion_id": ["1", "1", "2", "3", "4", "5"],
            "split": "validation",
            "true": ["x", "x", "x", "x", "x", "y"],
            "predicted": ["x", "x", "x", "y", "y", "y"],
            "p_x": [0.9, 0.95, 0.6, 0.1, 0.4, 0.3],
            "p_y": [0.1, 0.05, 0.4, 0.9, 0.6, 0.7],
        }
    )
    right, wrong = choose_examples(rows_of_table(table, ("x", "y"))["validation"], each=2)
    assert right == {"x": [1, 2], "y": [5]}
    assert wrong == {"x": [3, 4], "y": []}


def test_figures_are_written_as_svg_png_and_csv(run: Path, page: str) -> None:
    from PIL import Image

    names = {path.stem for path in (run / "figures").iterdir()}
    assert {"confusion", "roc", "precision_recall", "reliability", "malignant_roc", "learning_loss"} <= names
    for name in names:
        ElementTree.fromstring((run / "figures" / f"{name}.svg").read_text(encoding="utf-8"))
        with Image.open(io.BytesIO((run / "figures" / f"{name}.png").read_bytes())) as image:
            assert image.width >= 800
        assert len(pd.read_csv(run / "figures" / f"{name}.csv")) > 0


def test_a_second_report_changes_nothing(run: Path, page: str, tmp_path: Path) -> None:
    before = (run / "metrics.json").read_bytes()
    assert make_report(run).read_text(encoding="utf-8") == page
    assert (run / "metrics.json").read_bytes() == before


def test_metrics_json_gains_what_the_page_shows_and_keeps_what_it_had(
    synthetic: Path, tmp_path: Path, run: Path, page: str
) -> None:
    plain = json.loads((tiny_run(tmp_path / "plain", synthetic, model=False) / "metrics.json").read_text())
    full = read_metrics(run)
    added = {"calibration", "operating_points", "subgroups", "lesions", "notes"}
    added |= {"missed", "net_benefit", "calibration_line", "baselines"}
    assert full["validation"].keys() - plain["validation"].keys() == added
    assert {key: full["validation"][key] for key in plain["validation"]} == plain["validation"]
    assert full.keys() - plain.keys() == {"model_findings"}


def test_small_subgroups_are_shown_as_withheld(run: Path, page: str) -> None:
    cells = [cell for column in read_metrics(run)["validation"]["subgroups"].values() for cell in column.values()]
    assert any(cell["withheld"] for cell in cells)
    assert page.count('<span class="none">withheld</span>') == 8 * sum(cell["withheld"] for cell in cells)


def test_without_the_data_set_the_page_says_what_is_missing(synthetic: Path, tmp_path: Path) -> None:
    here = tiny_run(tmp_path / "run", synthetic, model=False)
    (here / "config.toml").write_text('data = "/nowhere/at/all"\n')
    listener = Listener()
    text = make_report(here, report=listener).read_text(encoding="utf-8")
    assert "/nowhere/at/all" in listener.warned[0]
    assert "--data" in text[text.index('id="examples"') :]
    assert wrong_numbers(text, here)[0] == []
    # Named later, the data set fills the gaps.
    text = make_report(here, data=synthetic).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") > 0
    assert "no heatmaps" in text
    assert read_metrics(here)["validation"]["subgroups"]


def test_a_page_with_images_is_not_replaced_by_one_without(synthetic: Path, tmp_path: Path) -> None:
    data = shutil.copytree(synthetic, tmp_path / "data")
    here = tiny_run(tmp_path / "run", data, model=False)
    page = make_report(here)
    full = page.read_text(encoding="utf-8")
    shutil.rmtree(data)
    with pytest.raises(OutputError, match=r"shows images.*--data"):
        make_report(here)
    assert page.read_text(encoding="utf-8") == full
    page.rename(tmp_path / "kept.html")
    assert "data:image/" not in make_report(here).read_text(encoding="utf-8")


def test_a_data_set_that_is_not_the_runs_is_refused(run: Path, tmp_path: Path, synthetic: Path) -> None:
    from dermafuse.data.synthetic.dataset import write_synthetic

    other = write_synthetic(tmp_path / "other", lesions=20, seed=9)
    with pytest.raises(DataError, match=r"lacks .* of the predicted images|another diagnosis"):
        make_report(copy_run(run, tmp_path / "run"), data=other)


def test_masks_that_are_not_there_are_refused_as_such(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mask folder .*nomasks does not exist"):
        make_report(run, masks=tmp_path / "nomasks")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        make_report(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"metrics\.json is missing"):
        make_report(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(DataError, match="does not hold metrics"):
        make_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="neither a validation nor a test block"):
        make_report(tmp_path)


def test_predictions_that_do_not_fit_the_metrics_are_refused(run: Path, tmp_path: Path) -> None:
    here = copy_run(run, tmp_path / "run")
    table = pd.read_csv(here / "predictions.csv")
    table.iloc[:-3].to_csv(here / "predictions.csv", index=False)
    with pytest.raises(DataError, match=r"predictions\.csv holds .* rows"):
        make_report(here)
    table.drop(columns="p_mel").to_csv(here / "predictions.csv", index=False)
    with pytest.raises(DataError, match="p_mel"):
        make_report(here)


def test_texts_from_files_cannot_become_markup(synthetic: Path, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x>"
    finding = {"code": "DF001", "title": evil, "severity": "error", "explanation": evil, "action": evil, "data": {}}
    here = tiny_run(tmp_path / "a<b>", synthetic, model=False, announcements=[evil], findings=[finding], recipe=evil)
    text = make_report(here).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("<script>") == 1
    assert wrong_numbers(text, here)[0] == []


def test_findings_of_the_data_checks_come_first_where_they_are_more_serious(synthetic: Path, tmp_path: Path) -> None:
    finding = {
        "code": "DF006",
        "title": "Unreadable files",
        "severity": "error",
        "explanation": "3 files cannot be read.",
        "action": "Replace them.",
        "data": {"files": 3},
    }
    here = tiny_run(tmp_path / "run", synthetic, model=False, findings=[finding])
    text = make_report(here).read_text(encoding="utf-8")
    verdict = text[text.index('<section id="verdict"') : text.index('<section id="classes"')]
    assert "Unreadable files" in verdict
    assert "DF006" in text
    assert "Data checks were not part of this run" not in text


def test_a_leaking_split_is_an_error_unless_the_data_check_says_so_already(synthetic: Path, tmp_path: Path) -> None:
    here = tiny_run(tmp_path / "run", synthetic, by="image", model=False)
    metrics = read_metrics(here)
    assert metrics["leakage"]["share"] > 0.05
    found = {entry["code"]: entry for entry in model_findings(metrics, "validation")}
    assert found["DM002"]["severity"] == "error"
    metrics["model_findings"] = list(found.values())
    both = ("DM002", "DF001")
    metrics["findings"] = [{**found["DM002"], "code": "DF001"}]
    assert [entry["code"] for entry in worst_findings(metrics) if entry["code"] in both] == ["DF001"]
    # A data check that only warns of another split says less: the error stays.
    metrics["findings"][0]["severity"] = "warning"
    assert [entry["code"] for entry in worst_findings(metrics) if entry["code"] in both] == ["DM002", "DF001"]


def test_the_verdict_says_that_lesions_were_in_training_and_images_chose_the_epoch(
    synthetic: Path, tmp_path: Path
) -> None:
    leaking = make_report(tiny_run(tmp_path / "leaking", synthetic, by="image", tuning=False, model=False))
    said = re.sub(r"<[^>]+>", "", verdict_of(leaking))
    leak = json.loads((leaking.parent / "metrics.json").read_text())["leakage"]
    assert "held out of training" not in said
    assert f"while other photographs of {leak['shared_lesions']:,} of these lesions were" in said
    assert "The same images chose the epoch that was kept." in said
    clean = re.sub(r"<[^>]+>", "", verdict_of(make_report(tiny_run(tmp_path / "clean", synthetic, model=False))))
    assert "held out of training" in clean
    assert "chose the epoch" not in clean


def verdict_of(path: Path) -> str:
    page = path.read_text(encoding="utf-8")
    return page[page.index('id="verdict"') : page.index('id="classes"')]


def test_missed_melanomas_are_reported_with_the_right_counts() -> None:
    block = {
        "n": 30,
        "per_class": {
            "mel": {"support": 10, "recall": 0.6},
            "nv": {"support": 20, "recall": 0.9},
            "bcc": {"support": 0, "recall": None},
        },
        "confusion_matrix": [[6, 3, 1], [2, 18, 0], [0, 0, 0]],
    }
    found = {entry["code"]: entry for entry in model_findings({"validation": block}, "validation")}
    assert found["DM006"]["data"] == {"missed": 4, "called_benign": 3}
    assert found["DM006"]["severity"] == "error"
    assert found["DM013"]["data"] == {"classes": ["bcc"]}
    assert [entry["severity"] for entry in found.values()] == sorted(
        (entry["severity"] for entry in found.values()), key=["error", "warning", "info"].index
    )


def test_calibration_before_the_temperature_is_that_of_the_raw_logits() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (300, 3))
    true = rng.integers(0, 3, 300)
    scaled, raw = (np.exp(logits / t) / np.exp(logits / t).sum(axis=1, keepdims=True) for t in (2.0, 1.0))
    table = pd.DataFrame(scaled, columns=["p_a", "p_b", "p_c"]).assign(
        image_id=[str(i) for i in range(300)],
        lesion_id="",
        split="validation",
        true=np.array(["a", "b", "c"])[true],
        predicted=np.array(["a", "b", "c"])[scaled.argmax(axis=1)],
    )
    rows = rows_of_table(table, ("a", "b", "c"))
    from dermafuse.evaluation.metrics import evaluate_predictions

    block = evaluate_predictions(true, scaled, ("a", "b", "c"))
    full = enriched({"validation": block, "training": {"temperature": 2.0}}, rows, None)["validation"]
    expected = calibration_report(true, raw, ("a", "b", "c"))
    for name in ("ece", "nll", "brier", "overconfidence"):
        assert full["calibration"]["before"][name] == pytest.approx(expected[name], abs=1e-9)
    assert full["lesions"] == 300  # without ids each image is its own lesion
    assert full["subgroups"] is None
    assert "--data" in full["notes"]["subgroups"]
    assert full["operating_points"] is None


def test_operating_points_are_chosen_on_tuning_rows_only(synthetic: Path, tmp_path: Path, run: Path, page: str) -> None:
    block = read_metrics(run)["validation"]
    rows = read_rows(run / "predictions.csv", class_codes(read_metrics(run)))
    assert {point["chosen_on"]["n"] for point in block["operating_points"]} == {len(rows["tuning"])}
    here = tiny_run(tmp_path / "run", synthetic, tuning=False, model=False)
    text = make_report(here).read_text(encoding="utf-8")
    assert read_metrics(here)["validation"]["operating_points"] is None
    assert "Operating points: not available" in text
    assert "tuning_fraction above 0" in text


def test_the_threshold_explorer_holds_the_counts_of_each_threshold() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 50, 400) / 50, rng.random(400) < 0.3
    grid = threshold_grid(score, positive, size=30)
    assert [level for level, *_ in grid] == sorted({level for level, *_ in grid})
    assert len(grid) == 30
    for level, hits, alarms in grid:
        assert hits == int((positive & (score >= level)).sum())
        assert alarms == int((~positive & (score >= level)).sum())


def test_a_cross_validation_shows_its_folds(synthetic: Path, tmp_path: Path) -> None:
    records = read_dataset(synthetic)
    here = tiny_run(tmp_path / "run", synthetic, tuning=False, model=False)
    (here / "history.csv").unlink()
    for fold in (1, 2):
        tiny_run(here / f"fold-{fold}", synthetic)
    table = predictions_table(records, "validation", seed=5).assign(fold=np.arange(len(records)) % 2 + 1)
    table.to_csv(here / "predictions.csv", index=False)
    own = rows_of_table(table, records.classes)["validation"]
    assert set(own.fold.tolist()) == {1, 2}
    from dermafuse.evaluation.metrics import evaluate_predictions

    metrics = read_metrics(here)
    metrics["validation"] = evaluate_predictions(own.true, own.probabilities, own.classes)
    metrics["folds"] = {"accuracy": {"mean": 0.5, "standard_deviation": 0.1, "values": [0.4, 0.6]}}
    del metrics["training"]
    (here / "metrics.json").write_text(json.dumps(metrics))
    text = make_report(here).read_text(encoding="utf-8")
    assert "Cross-validation" in text
    assert "fold 2" in text
    assert 'alt="Grad-CAM for' in text
    assert wrong_numbers(text, here)[0] == []


def test_coverage_flags_heatmap_quality_and_passed_checks_are_shown_where_they_are_known(
    synthetic: Path, tmp_path: Path
) -> None:
    here = tiny_run(tmp_path / "run", synthetic, model=False, findings=[], checks_passed={"DF004": "Imbalance"})
    metrics = read_metrics(here)
    per_class = {"mel": {"n": 12, "coverage": 0.875, "expected": [0.7, 1.0], "mean_size": 2.25}}
    metrics["validation"] |= {
        "prediction_sets": {
            "target": 0.9,
            "coverage": 0.91,
            "mean_size": 1.7,
            "single_share": 0.4,
            "empty_share": 0.0,
            "per_class": per_class,
        },
        "out_of_distribution": {"method": "energy", "auroc": 0.987, "flagged": 4},
        "explanation_quality": {
            "n": 9,
            "lesion_area": 0.25,
            **{
                m: {k: {"value": 0.5, "ci95": [0.4, 0.6]} for k in ("model", "centre", "random")}
                for m in ("energy", "pointing")
            },
        },
    }
    (here / "metrics.json").write_text(json.dumps(metrics))
    text = make_report(here).read_text(encoding="utf-8")
    assert wrong_numbers(text, here)[0] == []
    assert 'data-metric="/validation/prediction_sets/per_class/mel/coverage" data-format=".3f">0.875<' in text
    assert "expected range" in text
    assert 'data-metric="/validation/out_of_distribution/auroc"' in text
    assert 'data-metric="/validation/explanation_quality/energy/centre/value"' in text
    assert "Checks that found nothing" in text
    assert "(DF004)" in text


def test_paired_comparisons_are_shown_wherever_they_stand(synthetic: Path, tmp_path: Path) -> None:
    effect = {"accuracy": {"difference": 0.031, "low": 0.01, "high": 0.05, "p": 0.002}}
    here = tiny_run(tmp_path / "run", synthetic, model=False, leakage_effect={"image_minus_lesion": effect})
    text = make_report(here).read_text(encoding="utf-8")
    assert "leakage_effect / image_minus_lesion / accuracy" in text
    assert "+0.031" in text


def test_checklist_items_have_an_answer_for_a_run_that_knows_nothing() -> None:
    for filled in filled_checklists(Facts({"test": {"n": 5, "per_class": {}}}, "test")):
        assert {entry.state for entry in filled.entries} <= set(STATES)
        numbers = [entry.number for entry in filled.entries]
        assert len(set(numbers)) == len(numbers)


def test_checklists_are_complete_and_never_claim_what_is_not_there(run: Path, page: str) -> None:
    lists = filled_checklists(Facts(read_metrics(run), "validation"))
    filled = {each.name: each.entries for each in lists}
    assert [entry.number for entry in filled["CLEAR Derm"]] == [str(number) for number in range(1, 26)]
    assert {re.sub(r"\D", "", entry.number) for entry in filled["TRIPOD+AI"]} == {str(n) for n in range(1, 28)}
    states = {entry.number: entry.state for entry in filled["CLEAR Derm"]}
    assert states["8"] == "missing"  # skin tone
    assert states["12"] == "missing"  # external test set
    text = " ".join(entry.template for entries in filled.values() for entry in entries)
    assert "HAM10000" not in text  # the data are generated
    assert page.count('<span class="state') == 25 + 52


def test_pointers_escape_slashes_and_tildes() -> None:
    facts = Facts({"validation": {"sub/groups": {"a~b": [1.5]}}}, "validation")
    assert facts.get("@/sub~1groups/a~0b/0") == 1.5
    assert facts.show("@/missing", ".3f") == '<span class="none">–</span>'
    assert facts.text("x {@/sub~1groups/a~0b/0:.2f} y") == "x 1.50 y"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_pages_script_works_in_a_real_browser(page: str, run: Path, tmp_path: Path) -> None:
    probe = """<script>
    const errors = []; addEventListener("error", (e) => errors.push(e.message));
    addEventListener("load", () => {
      const read = (key) => document.querySelector(`.explorer [data-read=${key}]`).textContent;
      const table = document.querySelector("#per-class");
      const images = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.order));
      const before = [read("threshold"), read("sensitivity")];
      const slider = document.querySelector(".explorer [name=threshold]");
      slider.value = slider.max; slider.dispatchEvent(new Event("input"));
      [...table.querySelectorAll("th button")].find((b) => b.textContent === "images").click();
      const falling = images();
      const theme = document.querySelector(".theme"); theme.click();
      const filter = document.querySelector("input[name=filter]");
      filter.value = "/leakage/shared_lesions"; filter.dispatchEvent(new Event("input"));
      const shown = [...document.querySelectorAll(".numbers tbody tr")].filter((row) => !row.hidden).length;
      const wide = document.documentElement.scrollWidth > innerWidth;
      const told = { errors, before, after: [read("threshold"), read("sensitivity")], falling, shown, wide,
        theme: document.documentElement.dataset.theme };
      const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify(told);
      document.body.append(out);
    });</script>"""
    file = tmp_path / "page.html"
    file.write_text(page.replace("<head>", f"<head>{probe}", 1), encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,900",
            "--virtual-time-budget=3000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    told = json.loads(match[1])
    assert told["errors"] == []
    assert told["before"] != told["after"]
    assert float(told["before"][1].rstrip("%")) >= 90
    assert told["falling"] == sorted(told["falling"], reverse=True)
    assert told["theme"] in ("light", "dark")
    assert told["shown"] == 1
    assert told["wide"] is False  # nothing sticks out sideways


@pytest.mark.ham10000
def test_the_report_of_the_real_data_is_small(ham10000: Path, tmp_path: Path) -> None:
    here = tiny_run(tmp_path / "run", ham10000)
    made = make_report(here)
    assert made.stat().st_size < 5_000_000
    wrong, read = wrong_numbers(made.read_text(encoding="utf-8"), here)
    assert wrong == []
    assert read > 1500
    assert read_metrics(here)["validation"]["n"] > 1900
