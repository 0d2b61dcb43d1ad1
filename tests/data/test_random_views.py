import numpy as np
import pytest

from dermafuse.data.random_views import VIEW_CHANGES, ViewChange, random_view, shades_of_grey


def picture(side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    lesion = np.hypot(x - 0.45, y - 0.55) < 0.2
    image = np.stack([200 - 40 * x, 150 - 30 * y, 140 + 10 * x], axis=-1)
    image[lesion] = (90, 50, 40)
    return image.astype(np.uint8)


def test_equal_seeds_give_equal_views_and_others_others() -> None:
    image = picture()
    views = [random_view(image, bytes([number])) for number in range(30)]
    for number, seen in enumerate(views):
        assert seen.shape == image.shape
        assert seen.dtype == np.uint8
        np.testing.assert_array_equal(seen, random_view(image, bytes([number])))
    assert len({seen.tobytes() for seen in views}) == len(views)


def test_the_image_itself_is_not_changed() -> None:
    image = picture()
    before = image.copy()
    for number in range(20):
        random_view(image, bytes([number]))
    np.testing.assert_array_equal(image, before)


def test_the_lesion_stays_in_view_and_darker_than_the_skin() -> None:
    image = picture()
    for number in range(60):
        seen = random_view(image, b"lesion" + bytes([number])).astype(float).mean(axis=-1)
        assert seen[16:48, 16:48].min() < 0.75 * np.percentile(seen, 90)


def test_shades_of_grey_takes_a_colour_cast_away() -> None:
    grey = np.random.default_rng(0).integers(60, 200, (32, 32, 1), dtype=np.uint8).repeat(3, axis=-1)
    cast = (grey * np.array([1.0, 0.8, 0.7])).astype(np.uint8)
    neutral = shades_of_grey(cast).astype(float).reshape(-1, 3).mean(axis=0)
    assert neutral.std() < 1.5
    assert cast.reshape(-1, 3).mean(axis=0).std() > 10


def test_shades_of_grey_of_one_colour_is_the_closed_form() -> None:
    image = np.full((4, 4, 3), (120, 60, 30), np.uint8)
    np.testing.assert_array_equal(shades_of_grey(image)[0, 0], [70, 70, 70])  # each channel to the mean light


def test_black_images_stay_black() -> None:
    assert shades_of_grey(np.zeros((8, 8, 3), np.uint8)).max() == 0


@pytest.mark.parametrize("side", [32, 240])
def test_any_square_size_works(side: int) -> None:
    assert random_view(picture(side), b"size").shape == (side, side, 3)


@pytest.mark.parametrize("left_out", VIEW_CHANGES)
def test_leaving_a_change_out_does_not_touch_the_others(left_out: ViewChange) -> None:
    image = picture()
    rest = [change for change in VIEW_CHANGES if change != left_out]
    pairs = [(random_view(image, bytes([n])), random_view(image, bytes([n]), rest)) for n in range(60)]
    same = sum(np.array_equal(full, without) for full, without in pairs)
    assert same == 0 if left_out in ("framing", "colour") else 0 < same < 60
    np.testing.assert_array_equal(random_view(image, b"none", ()), image)
