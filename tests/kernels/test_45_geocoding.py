"""Interpolated images: planes, wrapped phases, holes, edges, masks."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.geocoding import interpolate_image


def positions(count: int, low: float, high: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.uniform(low, high, (7, count)), random.uniform(low, high, (7, count))


def test_a_bilinear_function_comes_back_exactly() -> None:
    row, column = np.mgrid[0:40, 0:50].astype(np.float64)
    image = (2.1 + 0.25 * row - 0.5 * column + 0.125 * row * column).astype(np.float32)
    line, sample = positions(200, 0.0, 39.0)
    expected = 2.1 + 0.25 * line - 0.5 * sample + 0.125 * line * sample
    found = interpolate_image(image, line, sample, "bilinear")
    assert found.dtype == np.float32
    assert found.shape == line.shape
    assert np.abs(found - expected).max() < 2e-5
    both = interpolate_image((image - 1j * image).astype(np.complex64), line, sample, "bilinear")
    assert np.abs(both - (1 - 1j) * expected).max() < 4e-5


def test_a_constant_stays_to_the_last_bit() -> None:
    image = np.full((9, 9), 0.1, np.float32)
    line, sample = positions(500, 0.0, 7.99)
    assert (interpolate_image(image, line, sample) == np.float32(0.1)).all()


def test_pixels_come_back_at_their_centres_beside_holes() -> None:
    random = np.random.default_rng(1)
    image = random.normal(size=(12, 15)).astype(np.float32)
    image[random.random(image.shape) < 0.4] = np.nan
    row, column = np.mgrid[0:12, 0:15].astype(np.float64)
    for method in ("bilinear", "nearest"):
        found = interpolate_image(image, row, column, method)  # type: ignore[arg-type]
        assert np.array_equal(found, image, equal_nan=True)


@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_weights_of_missing_neighbours_go_to_the_others(kind: type) -> None:
    image = np.array([[4.0, 8.0], [16.0, np.nan]]).astype(kind)
    if kind is np.complex64:
        image[1, 1] = 0.0  # zero means invalid in complex images
    quarter = np.array([0.25])
    # Weights 9, 3, 3, 1 sixteenths: the last is lost.
    expected = (9 * 4 + 3 * 8 + 3 * 16) / 15
    assert interpolate_image(image, quarter, quarter)[0] == pytest.approx(expected)
    # From exactly half of the weight on there is a value.
    image[0, 1] = np.nan
    half = np.array([0.5, 0.5, 0.5])
    across = np.array([0.0, 0.25, 0.75])
    found = interpolate_image(image, half, across)
    assert found[0] == pytest.approx(10.0)
    assert found[1] == pytest.approx(10.0)
    assert np.isnan(found[2])


def test_edges_hold_for_half_a_pixel() -> None:
    image = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    line = np.array([-0.5, -0.51, 1.5, 1.51, 0.0, np.nan, np.inf, -np.inf, 1e30])
    sample = np.zeros(line.size)
    expected = np.array([1, np.nan, 3, np.nan, 1, np.nan, np.nan, np.nan, np.nan], np.float32)
    assert np.array_equal(interpolate_image(image, line, sample), expected, equal_nan=True)
    assert np.array_equal(
        interpolate_image(image, sample, line)[:5], [1, np.nan, 2, np.nan, 1], equal_nan=True
    )


def test_wrapped_phases_are_interpolated_as_complex_numbers() -> None:
    row, column = np.mgrid[0:60, 0:60].astype(np.float64)
    image = np.exp(1j * (0.9 * row - 0.7 * column)).astype(np.complex64)
    line, sample = positions(300, 0.0, 59.0)
    truth = 0.9 * line - 0.7 * sample
    found = np.angle(interpolate_image(image, line, sample))
    assert np.abs(np.angle(np.exp(1j * (found - truth)))).max() < 0.03
    # What a wrapped phase does under plain interpolation.
    naive = interpolate_image(np.angle(image), line, sample)
    assert np.abs(np.angle(np.exp(1j * (naive - truth)))).max() > 1.0


def test_nearest_takes_the_pixel_in_whose_square_the_position_lies() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4) + 1
    line = np.array([0.49, 0.5, 2.49, 2.5, -0.5, -0.51, np.nan])
    sample = np.array([3.4, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    found = interpolate_image(image, line, sample, "nearest")
    assert found.dtype == np.uint8
    assert found.tolist() == [4, 6, 9, 0, 1, 0, 0]
    flags = interpolate_image(image > 6, line, sample, "nearest")
    assert flags.tolist() == [False, False, True, False, False, False, False]


def test_nearest_returns_only_values_of_the_image() -> None:
    image = np.random.default_rng(2).normal(size=(20, 30)).astype(np.float32)
    line, sample = positions(400, -1.0, 21.0)
    found = interpolate_image(image, line, sample, "nearest")
    known = found[np.isfinite(found)]
    assert np.isin(known, image).all()
    assert 0 < known.size < found.size


def test_windows_and_pieces_give_the_same_bytes() -> None:
    random = np.random.default_rng(8)
    image = random.normal(size=(64, 80)).astype(np.float32)
    image[random.random(image.shape) < 0.1] = np.nan
    phasor = (image + 1j * image[::-1]).astype(np.complex64)
    line, sample = positions(999, 21.0, 40.0)
    for whole in (image, phasor):
        expected = interpolate_image(whole, line, sample)
        window = whole[20:43, 18:44]
        assert np.array_equal(
            interpolate_image(window, line - 20, sample - 18), expected, equal_nan=True
        )
        parts = [interpolate_image(whole, line[:, k::5], sample[:, k::5]) for k in range(5)]
        for k, part in enumerate(parts):
            assert np.array_equal(part, expected[:, k::5], equal_nan=True)


def test_refusals() -> None:
    place = np.zeros(3)
    with pytest.raises(TypeError, match="float64"):
        interpolate_image(np.zeros((2, 2)), place, place)
    with pytest.raises(TypeError, match="nearest"):
        interpolate_image(np.zeros((2, 2), np.uint8), place, place)
    with pytest.raises(ValueError, match="cubic"):
        interpolate_image(np.zeros((2, 2), np.float32), place, place, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one shape"):
        interpolate_image(np.zeros((2, 2), np.float32), place, place[:2])
