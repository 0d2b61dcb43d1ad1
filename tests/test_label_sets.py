"""Four label sets go the whole way, and no module of the house is touched for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.report.page import make_report
from label_sets import LABEL_SETS, write_label_set
from tiny_run import FAST, tiny_run

UNMARKED = "No class is marked as malignant"


@pytest.mark.parametrize("name", LABEL_SETS)
def test_the_page_of_a_label_set_names_its_classes_and_explains_what_it_cannot_say(name: str, tmp_path: Path) -> None:
    data = write_label_set(name, tmp_path / "data", lesions=70, seed=3)
    labels = read_dataset(data).labels
    run = tiny_run(tmp_path / "RUN", data, model=False, labels=labels.to_json())
    page = make_report(run).read_text(encoding="utf-8")
    assert all(f">{code}" in page for code in labels.codes)
    assert "<of the old>" not in page, "names are escaped"
    assert (UNMARKED in page) == (name == "no_malignant")


@pytest.mark.slow
@pytest.mark.parametrize("name", LABEL_SETS)
def test_a_label_set_is_trained_judged_elsewhere_and_exported(name: str, tmp_path: Path) -> None:
    data = write_label_set(name, tmp_path / "data", lesions=130, seed=1)
    other = write_label_set(name, tmp_path / "other", lesions=80, seed=2)
    run, judged = tmp_path / "RUN", tmp_path / "JUDGED"
    assert main(["train", "--data", str(data), "--out", str(run), *FAST, "--split", "lesion"]) == 0
    assert main(["evaluate", str(run), "--data", str(other), "--out", str(judged)]) == 0
    assert main(["compare", str(run), str(run)]) == 0
    assert main(["export", str(run), "--format", "openvino", "--to", str(tmp_path / "exported")]) == 0
    codes = read_dataset(data).labels.codes
    page = (judged / "report.html").read_text(encoding="utf-8")
    assert all(f">{code}" in page for code in codes)
    assert (UNMARKED in page) == (name == "no_malignant")
