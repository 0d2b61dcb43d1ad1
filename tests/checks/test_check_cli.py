"""``dermafuse check`` from the command line: what it prints, as a table and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dermafuse.cli import main
from dermafuse.runtime.bundle.folder import write_bundle
from tiny_bundle import tiny_content


def test_json_holds_the_counts_the_findings_and_what_was_looked_for(
    synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(synthetic), "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    # What scripts written for the first version read.
    assert {"layout", "root", "images", "lesions", "classes", "missing", "skipped", "notes"} <= set(found)
    assert found["unreadable"] == []
    assert found["leakage"]["leaked_images"] > 0
    codes = [entry["code"] for entry in found["findings"]]
    assert "DF001" in codes
    assert set(codes) | set(found["checks_passed"]) == {f"DF{number:03}" for number in range(1, 12)}
    assert "Opening images" in shown.err
    assert "Comparing all images" in shown.err


def test_the_table_names_code_severity_explanation_and_action(
    synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(synthetic)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "SYNTHETIC DATA" in shown
    assert "WARNING DF001 Lesions that an image-level split would share" in shown
    assert "-> Split by lesion" in shown
    assert "Images that cannot be opened: 0." in shown


@pytest.mark.parametrize(("split", "severity"), [("image", "error"), ("lesion", None)])
def test_a_given_split_is_the_one_that_is_judged(
    synthetic: Path, capsys: pytest.CaptureFixture[str], split: str, severity: str | None
) -> None:
    assert main(["check", str(synthetic), "--split", split, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == {"by": split, "seed": 0, "given": True}
    assert {entry["code"]: entry["severity"] for entry in found["findings"]}.get("DF001") == severity
    assert (found["leakage"]["leaked_images"] == 0) == (split == "lesion")


def test_an_unreadable_image_is_reported_in_both_places(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    broken = next(data.rglob("SYN_*.jpg"))
    broken.write_bytes(b"not an image")
    assert main(["check", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["image_id"] for row in found["unreadable"]] == [broken.stem]
    assert "DF006" in {entry["code"] for entry in found["findings"]}


def test_a_model_adds_its_embeddings_and_its_vocabulary_and_croissant_is_written(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "model", tiny_content())
    out = tmp_path / "croissant"
    arguments = ["check", str(synthetic), "--json", "--model", str(tmp_path / "model"), "--croissant", str(out)]
    assert main(arguments) == 0
    found = {entry["code"]: entry for entry in json.loads(capsys.readouterr().out)["findings"]}
    assert "localization" in found["DF007"]["data"]["unknown_words"]  # the tiny model knows four sites
    assert json.loads((out / "croissant.json").read_text(encoding="utf-8"))["name"] == "SYNTHETIC lesions"
    assert (out / "records.csv").exists()
