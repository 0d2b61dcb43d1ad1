"""Shared fixtures: the real data, a small synthetic data set, and a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is not a failure.
settings.register_profile("dermafuse", deadline=None)
settings.load_profile("dermafuse")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """The real HAM10000 in a known layout; the test is skipped, saying so, where it is not on this machine."""
    named = os.environ.get("DERMAFUSE_HAM10000")
    folder = Path(named) if named else Path(__file__).parents[1].parent / "shared" / "ham10000"
    if not (folder / "HAM10000_metadata.csv").exists():
        pytest.skip(f"REAL DATA MISSING: no HAM10000 at {folder}; set DERMAFUSE_HAM10000 to run this test")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that starts empty and is shared by the tests of one session only."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("DERMAFUSE_CACHE")
    os.environ["DERMAFUSE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DERMAFUSE_CACHE"]
    else:
        os.environ["DERMAFUSE_CACHE"] = before


@pytest.fixture(scope="module")
def little_is_enough() -> Iterator[None]:
    """Let everything be fitted on the few tuning lesions of generated data."""
    from dermafuse.evaluation import enough

    with pytest.MonkeyPatch.context() as patch:
        for name in ("TEMPERATURE", "DECISION", "FLAG"):
            patch.setattr(enough, name, 5)
        yield


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set of a few hundred images, Kaggle layout."""
    from dermafuse.data.synthetic.dataset import write_synthetic

    return write_synthetic(tmp_path_factory.mktemp("data") / "synthetic", lesions=130, seed=3)
