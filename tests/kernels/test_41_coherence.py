"""Sliding coherence against scipy, and the statistics of the sample coherence."""

import numpy as np
import pytest
from scipy import ndimage, special

from bperp.kernels.interferogram import (
    debias_coherence,
    effective_looks,
    multilook_interferogram,
    sliding_coherence,
)


def speckle(shape, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def box_sum(values, window):
    return ndimage.uniform_filter(values, window, mode="constant") * (window[0] * window[1])


@pytest.mark.parametrize("window", [(1, 1), (5, 15), (3, 1), (1, 9), (9, 71)])
@pytest.mark.parametrize("shape", [(40, 1300), (4, 6), (30, 600)])
def test_sliding_box_agrees_with_scipy(window, shape):
    reference = 50 * speckle(shape, 1)
    secondary = (reference + 50 * speckle(shape, 2)).astype(np.complex64)
    secondary[1:3, 2:5] = 0
    valid = (secondary != 0).astype(float)
    r, s = reference * valid, secondary.astype(np.complex128)
    count = np.rint(box_sum(valid, window))
    power = box_sum(abs(r) ** 2, window) * box_sum(abs(s) ** 2, window)
    product = r * s.conj()
    cross = box_sum(product.real, window) + 1j * box_sum(product.imag, window)
    result = sliding_coherence(reference, secondary, *window, minimum_valid_fraction=0.0)
    np.testing.assert_array_equal(result.valid_count, count)
    filled = count > 0
    expected = abs(cross[filled]) / np.sqrt(power[filled])
    np.testing.assert_allclose(result.coherence[filled], expected, atol=2e-6)
    error = abs(result.interferogram[filled] - cross[filled] / count[filled])
    assert (error / np.sqrt(power[filled])).max() < 1e-6
    assert np.isnan(result.coherence[~filled]).all()


def test_nothing_is_left_behind_by_a_bright_target():
    # A float32 running sum would stay wrong to the end of the line after +80 dB.
    reference = np.ones((31, 1500), np.complex64)
    before = sliding_coherence(reference, reference, 5, 15)
    reference[7, 300] = 1e4
    after = sliding_coherence(reference, reference, 5, 15)
    far = np.ones(reference.shape, bool)
    far[5:10, 293:308] = False
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[far], new[far])


def test_sliding_box_equals_multilook_at_window_centres():
    reference = np.rint(100 * speckle((25, 45), 3).view(np.float32)).view(np.complex64)
    secondary = np.rint(100 * speckle((25, 45), 4).view(np.float32)).view(np.complex64)
    sliding = sliding_coherence(reference, secondary, 5, 15)
    looks = multilook_interferogram(reference, secondary, 5, 15)
    np.testing.assert_allclose(sliding.coherence[2::5, 7::15], looks.coherence, atol=1e-7)


@pytest.mark.parametrize("window", [(5, 15), (1, 3), (9, 21), (21, 71)])
def test_tiles_with_halo_are_bit_identical(window):
    reference, secondary = speckle((90, 2600), 5), speckle((90, 2600), 6)
    secondary[40:44, 1000:1100] = 0
    whole = sliding_coherence(reference, secondary, *window)
    for top, left in [(18, 93), (23, 400), (1, 2)]:
        part = np.s_[top : top + 60, left : left + 2180]
        tile = sliding_coherence(reference[part], secondary[part], *window)
        up, side = window[0] // 2, window[1] // 2
        for large, small in zip(whole, tile, strict=True):
            inner = large[part][up : 60 - up, side : 2180 - side]
            assert inner.tobytes() == small[up : 60 - up, side : 2180 - side].tobytes()


def test_result_can_be_written_into_an_earlier_one():
    reference, secondary = speckle((20, 300), 7), speckle((20, 300), 8)
    fresh = sliding_coherence(reference, secondary, 3, 5)
    earlier = sliding_coherence(secondary, secondary, 3, 5)
    result = sliding_coherence(reference, secondary, 3, 5, out=earlier)
    assert result is earlier
    for one, two in zip(fresh, result, strict=True):
        assert one.tobytes() == two.tobytes()
    with pytest.raises(ValueError, match=r"out\.interferogram"):
        sliding_coherence(reference[:9], secondary[:9], 3, 5, out=earlier)
    wrong = earlier._replace(coherence=earlier.coherence.astype(np.float64))
    with pytest.raises(ValueError, match=r"out\.coherence"):
        sliding_coherence(reference, secondary, 3, 5, out=wrong)


def test_even_windows_are_refused():
    image = np.ones((9, 9), np.complex64)
    with pytest.raises(ValueError, match="odd"):
        sliding_coherence(image, image, 4, 3)


def test_coherence_of_noise_follows_the_number_of_looks():
    # E|c| at zero coherence is sqrt(pi / 4L) for many looks.
    for looks in [(4, 5), (7, 7), (8, 10)]:
        result = multilook_interferogram(speckle((560, 700), 7), speckle((560, 700), 8), *looks)
        expected = np.sqrt(np.pi / 4 / (looks[0] * looks[1]))
        assert result.coherence.mean() == pytest.approx(expected, rel=0.02)


def mean_square(coherence, looks):
    """Second moment of the sample coherence: an integral over its density (Touzi 1999)."""
    c, step = np.linspace(0, 1, 20001, retstep=True)
    z = (coherence * c) ** 2
    kernel = special.hyp2f1(1 - looks, 1 - looks, 1, z) * (1 - z) ** (1 - 2 * looks)
    density = 2 * (looks - 1) * (1 - coherence**2) ** looks * c * (1 - c * c) ** (looks - 2)
    return np.sum(density * kernel * c * c) * step


@pytest.mark.parametrize("looks", [8, 20, 60])
@pytest.mark.parametrize("coherence", [0.0, 0.2, 0.5, 0.8, 0.95])
def test_debiased_coherence_recovers_the_truth(coherence, looks):
    biased = np.float32(np.sqrt(mean_square(coherence, looks)))
    recovered = float(debias_coherence(np.array([biased]), looks)[0])
    # At zero the square root turns the integral's last digits into 1e-3.
    assert recovered == pytest.approx(coherence, abs=0.4 / looks**1.5 + 3e-3)
    if coherence in (0.2, 0.5):
        assert abs(recovered - coherence) < 0.3 * abs(biased - coherence)


def test_debiasing_keeps_ends_and_order():
    looks = 12.0
    values = np.linspace(0, 1, 101, dtype=np.float32)
    result = debias_coherence(values, looks)
    assert result.dtype == np.float32
    assert result[-1] == 1.0
    assert (result[values < np.sqrt(1 / looks) - 1e-6] == 0).all()
    assert (np.diff(result) >= 0).all()
    assert (result <= values + 1e-6).all()
    assert np.isnan(debias_coherence(np.array([np.nan], np.float32), looks)).all()
    with pytest.raises(ValueError, match="effective_looks"):
        debias_coherence(values, 0.5)


def test_effective_looks_limits():
    assert effective_looks(1, 1, 1.49, 1.14) == pytest.approx(1.0)
    assert effective_looks(5, 15, 1.0, 1.0) == pytest.approx(75.0)
    # Many samples: the number of resolution cells.
    assert effective_looks(4000, 1, 1.5, 1.0) == pytest.approx(4000 / 1.5, rel=2e-3)
    with pytest.raises(ValueError, match="oversampling"):
        effective_looks(4, 4, 0.9, 1.0)


@pytest.mark.parametrize("weight", [1.0, 0.7])
def test_effective_looks_agree_with_simulated_intensity(weight):
    # Band-limited noise made in the frequency domain; looks = mean^2 / variance of its average.
    samples, oversampling, looks = 4096, 1.49, 6
    frequency = np.fft.fftfreq(samples) * oversampling
    amplitude = weight + (1 - weight) * np.cos(2 * np.pi * frequency)
    amplitude[abs(frequency) > 0.5] = 0.0
    rng = np.random.default_rng(9)
    spectrum = rng.standard_normal((300, samples)) + 1j * rng.standard_normal((300, samples))
    intensity = abs(np.fft.ifft(spectrum * amplitude)) ** 2
    averaged = intensity[:, : samples // looks * looks].reshape(-1, looks).mean(axis=1)
    expected = averaged.mean() ** 2 / averaged.var()
    found = effective_looks(looks, 1, oversampling, 1.0, azimuth_window_coefficient=weight)
    assert found == pytest.approx(expected, rel=0.02)
