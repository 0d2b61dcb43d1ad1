"""Extraction and folds in parts: any number of processes, the same bytes."""

import json
from pathlib import Path

import numpy as np
import pytest

from dermafuse.cli import main
from dermafuse.data.synthetic.dataset import write_synthetic
from tiny_run import FAST


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("data") / "small", lesions=70, seed=5)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stored(cache: Path) -> dict:
    """Every row of the one store of a cache by its name, as bytes."""
    from dermafuse.training.features.segments import ROW_ID

    rows = {}
    for index in (cache / "activations").glob("*/*.index"):
        data = index.with_suffix(".f16").read_bytes()
        entries = np.frombuffer(index.read_bytes(), ROW_ID)
        size = len(data) // len(entries)
        for digest, view, slot, _ in entries.tolist():
            rows[digest, view] = data[slot * size : (slot + 1) * size]
    return rows


SETTINGS = [*FAST[:-4], "--epochs", "1", "--set", "image_size=64", "--set", "views=2", "--set", "report=false"]


def test_parts_of_an_extraction_are_the_whole_and_the_training_finds_them(small, cache, tmp_path, capsys):
    asked = ["--data", str(small), *SETTINGS, "--set", "precision=f32"]
    for index in (2, 1):
        assert main(["extract", *asked, "--shard", f"{index}/2"]) == 0
    assert "Part 1/2" in capsys.readouterr().out
    parts = stored(cache)
    assert main(["extract", *asked]) == 0
    assert "0 of them were computed now" in capsys.readouterr().out
    assert main(["train", *asked, "--out", str(tmp_path / "RUN")]) == 0
    network = json.loads((tmp_path / "RUN" / "metrics.json").read_text())["network"]
    assert network["images_computed"] == 0
    assert len(network["activations_from"]) == 2
    assert all(each["host"] and each["pid"] and each["rows"] for each in network["activations_from"])
    assert stored(cache) == parts
    (cache / "activations").rename(tmp_path / "before")
    assert main(["extract", *asked]) == 0
    assert stored(cache) == parts


def test_what_has_no_frozen_part_or_no_data_cannot_be_extracted(small, cache, capsys):
    assert (
        main(["extract", "--data", str(small), "--recipe", "seed", "--weights", "random", "--set", "cache=false"]) == 2
    )
    assert "no frozen part" in capsys.readouterr().err
    assert main(["extract", "--recipe", "seed"]) == 2
    assert "--data" in capsys.readouterr().err


def test_folds_in_parts_joined_are_the_folds_of_one_command(small, own_cache, tmp_path, capsys):
    asked = ["train", "--data", str(small), *SETTINGS, "--folds", "3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*asked, "--out", str(whole)]) == 0
    for index in (2, 1):
        assert main([*asked, "--out", str(parts), "--shard", f"{index}/2"]) == 0
        assert not (parts / "metrics.json").exists()
    assert "Part 1/2: folds 1, 3 of 3" in capsys.readouterr().out
    assert main([*asked, "--out", str(parts), "--shard", "1/2", "--seed", "9"]) == 2
    assert "seed=0" in capsys.readouterr().err
    assert main([*asked, "--out", str(parts)]) == 0
    for name in ("predictions.csv", "fold-1/predictions.csv", "fold-2/weights.safetensors", "fold-3/model/model.bin"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    joint = json.loads((parts / "metrics.json").read_text())
    assert joint["validation"] == json.loads((whole / "metrics.json").read_text())["validation"]
    assert len(joint["computed_by"]) == 3
    assert all(each["host"] and each["pid"] and each["finished"] for each in joint["computed_by"])
    assert not (parts / "parts.json").exists()


def test_one_training_has_no_parts_and_parts_of_others_are_not_overwritten(small, tmp_path, capsys):
    asked = ["train", "--data", str(small), *SETTINGS, "--out", str(tmp_path / "RUN"), "--shard", "1/2"]
    assert main(asked) == 2
    assert "--folds" in capsys.readouterr().err
    assert main([*asked, "--folds", "3", "--overwrite"]) == 2
    assert "others have finished" in capsys.readouterr().err
    assert not (tmp_path / "RUN").exists()
