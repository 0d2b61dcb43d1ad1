"""Announcements: a stable code beside each text; texts alone, as earlier versions wrote them, are known too."""

import ast
from pathlib import Path

import pytest

import dermafuse
from dermafuse.announcements import Announcement, announced, both_lists
from dermafuse.evaluation.model_findings import model_findings
from dermafuse.labels import HAM10000


def test_codes_and_texts_come_back_as_they_were_said() -> None:
    said = [Announcement.fixed("random_weights").of_model(), Announcement("no_values", "NO VALUES of age.")]
    assert announced(both_lists(said)) == said
    assert both_lists(said)["announcements"][0].startswith("Model RANDOM WEIGHTS: ")


def test_a_file_of_an_earlier_version_has_texts_alone() -> None:
    texts = ["SYNTHETIC DATA: these numbers say nothing about real skin lesions.", "NO IMAGES of df in the data: ..."]
    texts.append("Model RANDOM WEIGHTS: the backbone was not pretrained; for tests only.")
    codes = [each.code for each in announced({"announcements": texts})]
    assert codes == ["synthetic_data", "other", "model_random_weights"]
    assert announced({}) == []


@pytest.mark.parametrize("text", ["SYNTHETIC DATA: reworded.", "Anything else."])
def test_the_code_decides_what_follows_not_the_text(text: str) -> None:
    per_class = {code: {"recall": None, "support": 0} for code in HAM10000.codes}
    block = {"n": 1, "per_class": per_class, "ci95": {}}
    metrics = {"labels": HAM10000.to_json(), "validation": block, "announcements": [text]}
    for code, expected in (("model_synthetic_data", True), ("empty_classes", False)):
        found = model_findings({**metrics, "announcement_codes": [code]}, "validation")
        assert any(each["code"] == "DM004" for each in found) is expected


def test_nothing_in_the_house_looks_for_words_in_an_announcement() -> None:
    loud = (
        "SYNTHETIC",
        "RANDOM W",
        "NO METADATA",
        "NO IMAGES",
        "LESIONS UNKNOWN",
        "Early stopping looked",
        "TRAINED ON",
    )
    for path in Path(dermafuse.__file__).parent.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            asked = []
            if isinstance(node, ast.Compare) and any(isinstance(each, ast.In | ast.Eq) for each in node.ops):
                asked = [node.left, *node.comparators]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                asked = node.args if node.func.attr in ("startswith", "endswith", "find", "search", "match") else []
            words = [each.value for part in asked for each in ast.walk(part) if isinstance(each, ast.Constant)]
            assert not [each for each in words if isinstance(each, str) and each.startswith(loud)], path
