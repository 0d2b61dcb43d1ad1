"""Heatmaps over images: enlarged without the edges of their few cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermafuse.runtime.explain.overlay import smooth


@given(h=st.integers(1, 9), w=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_enlarged_heatmap_keeps_its_range_and_peak(h: int, w: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((h, w))
    found = smooth(values, (60, 80))
    assert found.shape == (60, 80)
    assert found.min() >= 0.0
    assert found.max() == pytest.approx(values.max())
    assert not smooth(np.zeros((h, w)), (60, 80)).any()


def test_one_hot_cell_is_round_and_in_its_place() -> None:
    values = np.zeros((7, 7))
    values[2, 4] = 1.0
    found = smooth(values, (140, 140))
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert (abs(y - 49.5), abs(x - 89.5)) <= (1, 1)
    # As far along the axes as along the diagonals: a bilinear cone is a third lower there.
    step = round(20 / 2**0.5)
    assert found[y + step, x + step] == pytest.approx(found[y + 20, x], abs=0.05)
    # Without kinks: the slope never jumps.
    assert np.abs(np.diff(found[y], 2)).max() < 0.02
