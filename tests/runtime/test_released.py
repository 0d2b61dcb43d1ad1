"""The model that comes with dermafuse: small, loaded by default, with an honest card."""

import re
from pathlib import Path

import pytest

import dermafuse
from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.labels import HAM10000
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.released import released_bundle


def test_it_is_small_and_whole() -> None:
    folder = released_bundle()
    assert folder.name == "ham10000-lite1"
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 12_000_000
    bundle = read_bundle(folder)  # verifies every hash
    assert bundle.classes == HAM10000.codes
    assert bundle.prediction_set is not None
    assert bundle.ood is not None


def test_its_card_says_what_it_was_trained_and_judged_on_and_what_it_is_not_for() -> None:
    card = (released_bundle() / "README.md").read_text(encoding="utf-8")
    for words in ("Trained on all lesions", "5 models", "esearch use only", "CC BY-NC", "200x150"):
        assert words in card, words
    assert re.search(r"balanced accuracy \| 0\.\d{3} \| 0\.\d{3} to 0\.\d{3}", card)  # with its interval


def test_it_is_used_where_no_model_is_named(synthetic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(read_dataset(synthetic).table["path"].iloc[0])
    assert dermafuse.load().predict(image).label in HAM10000.codes
    assert main(["predict", image]) == 0
    assert "not a medical device" in capsys.readouterr().err
