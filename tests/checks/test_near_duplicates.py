"""The search for pictures of one lesion, on generated lesions whose pairs are known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from dermafuse.checks import neighbours
from dermafuse.checks.fingerprints import CORNER, Fingerprints, fit, to_grey, zoom_matrix
from dermafuse.checks.image_facts import read_images
from dermafuse.checks.near_duplicates import DEFAULT_THRESHOLD, find_near_duplicates
from dermafuse.data.images import load_image, view
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import DataError
from dermafuse.progress import Silent


def textures(n: int, seed: int = 0) -> np.ndarray:
    """Pictures with coarse and fine structure, (n, 64, 64) uint8."""
    rng = np.random.default_rng(seed)
    coarse = [Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((64, 64), 3) for _ in range(n)]
    fine = [Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).resize((64, 64), 3) for _ in range(n)]
    return np.stack([np.asarray(a) // 2 + np.asarray(b) // 2 for a, b in zip(coarse, fine, strict=True)])


def zoomed(image: np.ndarray, zoom: float) -> np.ndarray:
    matrix = zoom_matrix(zoom)
    return np.rint(matrix @ image.astype(np.float32) @ matrix.T).astype(np.uint8)


def missed_pairs(grey: np.ndarray, **given: object) -> list[tuple[int, int]]:
    found = find_near_duplicates(grey, np.arange(len(grey)), **given)  # type: ignore[arg-type]
    return [(int(a), int(b)) for a, b in zip(found.first[found.missed], found.second[found.missed], strict=True)]


@pytest.mark.parametrize("number", range(8))
def test_a_turned_or_flipped_copy_is_found(number: int) -> None:
    grey = textures(30)
    grey[20] = view(grey[4], number)
    assert missed_pairs(grey) == [(4, 20)]


@pytest.mark.parametrize("zoom", [1.1, 1.3, 1.7])
def test_an_enlarged_copy_with_another_brightness_is_found(zoom: float) -> None:
    grey = textures(30)
    grey[20] = np.clip(zoomed(grey[4], zoom) * 0.8 + 30, 0, 255).astype(np.uint8)
    assert missed_pairs(grey) == [(4, 20)]


def test_different_pictures_are_no_pairs() -> None:
    assert missed_pairs(textures(60)) == []


def test_fingerprints_of_turned_images_are_those_that_the_turned_images_have() -> None:
    grey = textures(12)
    prints = Fingerprints(grey)
    for number in range(8):
        turned = np.stack([view(image, number) for image in grey])
        both = Fingerprints(np.concatenate([grey, turned]))
        own = Fingerprints(grey)._corner(1.0)
        assert prints.turned(number).shape == (12, CORNER * CORNER - 1)
        # Whitened over other sets, the vectors differ a little; their directions are the same.
        again = both.vectors[12:]
        assert np.einsum("ij,ij->i", prints.turned(number), again).min() > 0.98
        assert own.shape == (12, CORNER, CORNER)


def test_a_picture_fits_itself_and_no_other() -> None:
    grey = textures(8).astype(np.float32)
    assert fit(grey, grey, np.ones(8)).min() > 0.99
    assert fit(grey, np.roll(grey, 1, axis=0), np.ones(8)).max() < 0.6


def test_the_detector_is_judged_on_the_lesions_that_did_not_choose_its_threshold() -> None:
    rng = np.random.default_rng(0)
    base = textures(200)
    again = np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)
    again[::2] = textures(100, seed=9)  # every other lesion looks different the second time
    found = find_near_duplicates(np.concatenate([base, again]), np.tile([f"L{i}" for i in range(200)], 2))
    quality = found.validation
    assert quality is not None
    assert quality.chosen
    assert found.threshold != DEFAULT_THRESHOLD
    assert quality.precision == 1.0
    assert quality.true_pairs == quality.lesions
    assert quality.recall == pytest.approx(0.5, abs=0.12)
    assert not found.missed.any()


def test_without_shared_lesions_the_default_threshold_serves_and_nothing_is_claimed() -> None:
    found = find_near_duplicates(textures(20), np.arange(20))
    assert found.threshold == DEFAULT_THRESHOLD
    assert found.validation is None


def test_embeddings_bring_candidates_that_fingerprints_overlook() -> None:
    grey = textures(40)
    grey[30] = np.roll(grey[4], 14, axis=1)  # moved so far that the coarse shapes differ
    embeddings = np.random.default_rng(0).normal(size=(40, 16))
    embeddings[30] = embeddings[4] + 0.01
    with_them = find_near_duplicates(grey, np.arange(40), embeddings=embeddings)
    assert (4, 30) in zip(with_them.first.tolist(), with_them.second.tolist(), strict=True)


def test_many_images_are_looked_for_in_lists_and_what_that_overlooks_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    base = textures(400)
    grey = np.concatenate([base, np.clip(base[:200] + rng.normal(0, 6, (200, 64, 64)), 0, 255).astype(np.uint8)])
    exact = find_near_duplicates(grey, np.arange(600))
    assert (exact.search.engine, exact.search.recall) == ("exact", 1.0)
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 100)
    fast = find_near_duplicates(grey, np.arange(600))
    assert fast.search.engine == "faiss"
    assert fast.search.sampled == 256
    known = set(zip(exact.first[exact.missed].tolist(), exact.second[exact.missed].tolist(), strict=True))
    found = set(zip(fast.first[fast.missed].tolist(), fast.second[fast.missed].tolist(), strict=True))
    assert len(known) == 200
    assert len(found & known) >= 0.98 * len(known)
    # The stated recall is that of all candidates, these among them.
    pairs = [set(zip(each.first.tolist(), each.second.tolist(), strict=True)) for each in (exact, fast)]
    assert fast.search.recall == pytest.approx(len(pairs[0] & pairs[1]) / len(pairs[0]), abs=0.03)


def test_without_faiss_the_exact_search_goes_on_and_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listening(Silent):
        said: ClassVar[list[str]] = []

        def warn(self, text: str) -> None:
            self.said.append(text)

    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 20)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(neighbours.importlib.util, "find_spec", lambda name: None)
    grey = textures(30)
    grey[20] = view(grey[4], 3)
    found = find_near_duplicates(grey, np.arange(30), report=Listening())
    assert found.search.engine == "exact"
    assert found.first[found.missed].tolist() == [4]
    assert len(Listening.said) == 1
    assert "minutes; pip install 'dermafuse[check-large]'" in Listening.said[0]


def test_a_thousand_copies_of_a_placeholder_hide_no_other_pair() -> None:
    grey = np.concatenate([textures(40), np.repeat(textures(1, seed=5), 1000, axis=0)])
    grey[30] = view(grey[4], 5)
    found = missed_pairs(grey)
    assert (4, 30) in found
    assert len(found) == 1 + 999  # each copy with the first


def test_arrays_of_another_form_are_refused() -> None:
    with pytest.raises(DataError, match="one id an image"):
        find_near_duplicates(textures(4), [1, 2])
    with pytest.raises(DataError, match="embeddings have shape"):
        find_near_duplicates(textures(4), np.arange(4), embeddings=np.ones(4))


def test_broken_files_are_told_apart_from_good_ones(synthetic: Path) -> None:
    records = read_dataset(synthetic)
    table = records.table.iloc[:6].reset_index(drop=True)
    few = records.subset(np.arange(6))
    few.table.loc[2, "path"] = str(synthetic / "nowhere.jpg")
    done: list[int] = []
    facts = read_images(few, done.append)
    assert set(facts.unreadable) == {2}
    assert "nowhere.jpg does not exist" in facts.unreadable[2]
    assert facts.readable.tolist() == [True, True, False, True, True, True]
    assert sum(done) == 6
    assert facts.sizes[0].tolist() == [200, 150]
    assert facts.sizes[2].tolist() == [0, 0]
    assert np.array_equal(facts.grey[0], to_grey(load_image(table["path"][0], 64)))


@pytest.mark.ham10000
def test_on_ham10000_most_pairs_found_are_of_one_lesion(ham10000: Path) -> None:
    records = read_dataset(ham10000)
    shared = records.table["lesion_id"].duplicated(keep=False).to_numpy()
    few = records.subset(np.flatnonzero(shared)[:1200])
    found = find_near_duplicates(read_images(few).grey, few.table["lesion_id"].to_numpy())
    assert found.validation is not None
    assert found.validation.precision is not None
    assert found.validation.recall is not None
    assert found.validation.precision > 0.85
    assert found.validation.recall > 0.15
