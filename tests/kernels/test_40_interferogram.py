"""Multilooked interferograms against plain numpy in float64 and closed forms."""

import numpy as np
import pytest

from bperp.kernels.interferogram import (
    multilook_interferogram,
    multilook_pairs,
    phase_to_displacement,
)

LOOKS = [(1, 1), (1, 4), (4, 20), (5, 15), (3, 7), (17, 3), (40, 1100)]


def speckle(shape, seed, scale=60.0):
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (scale * samples).astype(np.complex64)


def direct(reference, secondary, azimuth_looks, range_looks):
    """Return sums over windows with numpy only: cross, powers, count."""
    valid = (reference != 0) & (secondary != 0)
    r = np.where(valid, reference, 0).astype(np.complex128)
    s = np.where(valid, secondary, 0).astype(np.complex128)
    rows, columns = r.shape[0] // azimuth_looks, r.shape[1] // range_looks

    def blocks(values):
        cut = values[: rows * azimuth_looks, : columns * range_looks]
        return cut.reshape(rows, azimuth_looks, columns, range_looks).sum(axis=(1, 3))

    return blocks(r * s.conj()), blocks(abs(r) ** 2), blocks(abs(s) ** 2), blocks(valid)


@pytest.mark.parametrize("looks", LOOKS)
def test_sums_agree_with_numpy(looks):
    reference, secondary = speckle((83, 2300), 1), speckle((83, 2300), 2)
    secondary += 0.5 * reference
    reference[5:9, 100:160] = 0
    secondary[20:60, :33] = 0
    cross, power, other, count = direct(reference, secondary, *looks)
    result = multilook_interferogram(reference, secondary, *looks, minimum_valid_fraction=0.0)
    assert result.interferogram.dtype == np.complex64
    assert result.coherence.dtype == np.float32
    np.testing.assert_array_equal(result.valid_count, count)
    filled = count > 0
    scale = np.sqrt(power * other)[filled]
    error = abs(result.interferogram[filled] * count[filled] - cross[filled]) / scale
    assert error.max() < 1e-6
    expected = abs(cross[filled]) / scale
    np.testing.assert_allclose(result.coherence[filled], expected, atol=1e-6)
    assert np.isnan(result.coherence[~filled]).all()
    assert (result.interferogram[~filled] == 0).all()


def test_phase_is_reference_minus_secondary():
    # Secondary 1 mm farther: phase of the interferogram +4 pi 1 mm / lambda.
    wavelength_m, farther_m = 0.0555, 1e-3
    reference = speckle((40, 60), 3)
    secondary = reference * np.complex64(np.exp(-4j * np.pi * farther_m / wavelength_m))
    result = multilook_interferogram(reference, secondary.astype(np.complex64), 4, 6)
    expected = 4 * np.pi * farther_m / wavelength_m
    np.testing.assert_allclose(np.angle(result.interferogram), expected, atol=1e-6)
    np.testing.assert_allclose(result.coherence, 1.0, atol=1e-6)
    assert result.coherence.max() <= 1.0


def test_swapping_the_images_conjugates():
    reference, secondary = speckle((20, 45), 4), speckle((20, 45), 5)
    one = multilook_interferogram(reference, secondary, 5, 15)
    two = multilook_interferogram(secondary, reference, 5, 15)
    np.testing.assert_array_equal(one.interferogram, two.interferogram.conj())
    np.testing.assert_array_equal(one.coherence, two.coherence)


def test_self_interferogram_is_the_mean_intensity():
    image = speckle((32, 64), 6)
    result = multilook_interferogram(image, image, 4, 16)
    np.testing.assert_array_equal(result.coherence, 1.0)
    np.testing.assert_array_equal(result.interferogram.imag, 0.0)
    intensity = (abs(image.astype(np.complex128)) ** 2).reshape(8, 4, 4, 16).mean(axis=(1, 3))
    np.testing.assert_allclose(result.interferogram.real, intensity, rtol=1e-6)


def test_single_look_phases_close():
    slc = np.stack([speckle((16, 32), seed) for seed in (7, 8, 9)])
    pairs = np.array([[0, 1], [1, 2], [0, 2]])
    ab, bc, ac = multilook_pairs(slc, pairs, 1, 1).interferogram
    closure = np.angle(ab.astype(np.complex128) * bc * ac.conj())
    assert abs(closure).max() < 1e-5


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_windows_with_too_few_pixels_are_invalid(fraction):
    image = np.ones((4, 20), np.complex64)
    counts = [0, 1, 4, 8, 16]
    for window, count in enumerate(counts):
        block = np.zeros(16, np.complex64)
        block[:count] = 2.0
        image[:, 4 * window : 4 * window + 4] = block.reshape(4, 4)
    result = multilook_interferogram(image, image, 4, 4, fraction, -1.0)
    usable = np.array([c > 0 and c >= 16 * fraction for c in counts])
    np.testing.assert_array_equal(result.valid_count[0], counts)
    np.testing.assert_array_equal(result.coherence[0], np.where(usable, 1.0, -1.0))
    np.testing.assert_array_equal(result.interferogram[0], np.where(usable, 4.0, 0.0))


def test_nan_counts_as_missing():
    reference, secondary = speckle((8, 8), 10), speckle((8, 8), 11)
    holes = reference.copy()
    holes[3, 2] = 0
    reference[3, 2] = complex(np.nan, 1.0)
    with_nan = multilook_interferogram(reference, secondary, 8, 8)
    with_zero = multilook_interferogram(holes, secondary, 8, 8)
    for got, expected in zip(with_nan, with_zero, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_bright_target_does_not_spoil_its_neighbours():
    reference = speckle((64, 3000), 12)
    secondary = (0.7 * reference + speckle((64, 3000), 13)).astype(np.complex64)
    before = multilook_interferogram(reference, secondary, 4, 20)
    reference[10, 1000] = secondary[10, 1000] = 60 * 10**4.0  # +80 dB
    after = multilook_interferogram(reference, secondary, 4, 20)
    for old, new in zip(before, after, strict=True):
        differs = old != new
        differs[2, 50] = False
        assert not differs.any()


def test_tiling_along_windows_changes_no_bit():
    reference, secondary = speckle((36, 4000), 14), speckle((36, 4000), 15)
    secondary[:9] = 0
    whole = multilook_interferogram(reference, secondary, 6, 20)
    part = multilook_interferogram(reference[12:, 620:3220], secondary[12:, 620:3220], 6, 20)
    for large, small in zip(whole, part, strict=True):
        np.testing.assert_array_equal(large[2:, 31:161], small)


@pytest.mark.parametrize("looks", [(1, 1), (4, 20), (17, 3), (33, 5)])
def test_pairs_are_the_single_interferograms_bit_by_bit(looks):
    slc = np.stack([speckle((70, 1500), seed) for seed in range(20, 24)])
    slc[0, :7] = 0
    slc[2, 30:41, 200:777] = 0
    slc[3, 50, 3] = complex(np.nan, np.nan)
    pairs = np.array([[0, 1], [1, 0], [2, 3], [0, 3], [1, 3], [2, 2]], dtype=np.int16)
    stack = multilook_pairs(slc, pairs, *looks)
    for i, (first, second) in enumerate(pairs):
        single = multilook_interferogram(slc[first], slc[second], *looks)
        for got, expected in zip(stack, single, strict=True):
            np.testing.assert_array_equal(got[i], expected)


def test_no_pairs_and_images_smaller_than_a_window():
    slc = np.ones((2, 3, 5), np.complex64)
    assert multilook_pairs(slc, np.empty((0, 2), int), 1, 1).coherence.shape == (0, 3, 5)
    assert multilook_interferogram(slc[0], slc[1], 4, 2).coherence.shape == (0, 2)


def test_strided_input_is_accepted():
    image = speckle((20, 40), 30)
    turned = np.asfortranarray(image)
    one = multilook_interferogram(image[::2, ::2], image[::2, ::2], 2, 2)
    two = multilook_interferogram(turned[::2, ::2], turned[::2, ::2], 2, 2)
    np.testing.assert_array_equal(one.interferogram, two.interferogram)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secondary": np.ones((4, 5), np.complex64)}, "one shape"),
        ({"secondary": np.ones((4, 4), np.complex128)}, "complex64"),
        ({"azimuth_looks": 0}, "looks"),
        ({"minimum_valid_fraction": 1.5}, "minimum_valid_fraction"),
    ],
)
def test_nonsense_is_refused(changes, words):
    image = np.ones((4, 4), np.complex64)
    arguments = {"reference": image, "secondary": image, "azimuth_looks": 2, "range_looks": 2}
    with pytest.raises(ValueError, match=words):
        multilook_interferogram(**(arguments | changes))


@pytest.mark.parametrize("pairs", [[[0, 3]], [[-1, 0]], [[0, 1, 2]]])
def test_pairs_outside_the_stack_are_refused(pairs):
    with pytest.raises(ValueError, match="pair_index"):
        multilook_pairs(np.ones((3, 4, 4), np.complex64), np.array(pairs), 2, 2)


def test_earlier_results_can_be_written_into():
    reference, secondary = speckle((20, 300), 31), speckle((20, 300), 32)
    fresh = multilook_interferogram(reference, secondary, 4, 20)
    earlier = multilook_interferogram(secondary, secondary, 4, 20)
    result = multilook_interferogram(reference, secondary, 4, 20, out=earlier)
    assert result is earlier
    for one, two in zip(fresh, result, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match=r"out\.interferogram"):
        multilook_interferogram(reference, secondary, 4, 10, out=earlier)


def test_ground_that_comes_nearer_is_displaced_towards_the_satellite():
    # 3 mm nearer on the secondary's date: ranges are given, phases follow from -4 pi R / lambda.
    wavelength_m, nearer_m, range_m = 0.05546576, 3e-3, 850_000.0
    one = np.exp(-4j * np.pi * (range_m / wavelength_m))
    two = np.exp(-4j * np.pi * ((range_m - nearer_m) / wavelength_m))
    reference = np.full((4, 4), one, np.complex64)
    secondary = np.full((4, 4), two, np.complex64)
    result = multilook_interferogram(reference, secondary, 2, 2)
    phase = np.angle(result.interferogram)
    displacement = phase_to_displacement(phase, wavelength_m)
    assert displacement.dtype == np.float32
    np.testing.assert_allclose(displacement, nearer_m, rtol=1e-4)
    # One fringe is half a wavelength, and NaN stays.
    fringe = phase_to_displacement(np.array([-2 * np.pi, np.nan], np.float32), wavelength_m)
    assert fringe[0] == pytest.approx(wavelength_m / 2, rel=1e-6)
    assert np.isnan(fringe[1])
    with pytest.raises(ValueError, match="wavelength_m"):
        phase_to_displacement(phase, -0.05)
    with pytest.raises(ValueError, match="phase_rad"):
        phase_to_displacement(phase.astype(np.float64), wavelength_m)
