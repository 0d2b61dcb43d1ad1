import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dermafuse.training.loop.sampling import class_draws, draws_a_row, epoch_rows

counts = st.lists(st.integers(0, 400), min_size=1, max_size=8).filter(lambda each: sum(each) > 0)


@given(counts, st.floats(0, 1))
def test_an_epoch_has_as_many_draws_as_rows_and_only_of_classes_that_have_rows(each: list[int], power: float) -> None:
    draws = class_draws(np.array(each), power)
    assert draws.sum() == sum(each)
    assert (draws >= 0).all()
    assert (draws[np.array(each) == 0] == 0).all()


def test_power_goes_from_classes_as_they_come_over_the_square_root_to_equally_often() -> None:
    each = np.array([900, 100])
    np.testing.assert_array_equal(class_draws(each, 0.0), [900, 100])
    np.testing.assert_array_equal(class_draws(each, 0.5), [750, 250])
    np.testing.assert_array_equal(class_draws(each, 1.0), [500, 500])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0, 1), st.integers(1, 5))
def test_over_the_epochs_no_row_comes_twice_before_every_row_of_its_class_came_once(
    label: list[int], power: float, epochs: int
) -> None:
    labels = np.array(label)
    drawn = [epoch_rows(labels, power, seed=3, epoch=epoch) for epoch in range(epochs)]
    assert all(len(rows) == len(labels) for rows, _ in drawn)
    times = np.bincount(np.concatenate([rows for rows, _ in drawn]), minlength=len(labels))
    for number in np.unique(labels):
        mine = times[labels == number]
        assert mine.max() - mine.min() <= 1
        assert mine.max() == draws_a_row(labels, power, epochs)[labels == number].max()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0, 1))
def test_rounds_count_how_often_a_row_was_drawn_before(label: list[int], power: float) -> None:
    labels = np.array(label)
    drawn = [epoch_rows(labels, power, seed=3, epoch=epoch) for epoch in range(4)]
    rows, rounds = (np.concatenate(each) for each in zip(*drawn, strict=True))
    for row in np.unique(rows):
        np.testing.assert_array_equal(np.sort(rounds[rows == row]), np.arange((rows == row).sum()))


def test_the_order_is_fixed_by_seed_and_epoch() -> None:
    labels = np.repeat([0, 1, 2], [50, 8, 2])
    first, rounds = epoch_rows(labels, 0.5, seed=1, epoch=0)
    again = epoch_rows(labels, 0.5, seed=1, epoch=0)
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(rounds, again[1])
    assert not np.array_equal(first, epoch_rows(labels, 0.5, seed=1, epoch=1)[0])
    assert not np.array_equal(first, epoch_rows(labels, 0.5, seed=2, epoch=0)[0])
