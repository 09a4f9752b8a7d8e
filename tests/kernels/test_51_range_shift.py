"""Range shifts of speckle and targets written down from the range spectrum of Sentinel-1.

The impulse response of a Hamming spectrum of width B is
``a sinc(Bx) + (1 - a)/2 (sinc(Bx - 1) + sinc(Bx + 1))``: targets are put at positions between the
samples by this formula, speckle is filtered noise.
"""

import numpy as np
import pytest

from bperp.kernels.range_shift import RangeShift, estimate_range_shift

BAND = 56.5 / 64.345  # IW1
COEFFICIENT = 0.75
PAD = 64


def hamming_spectrum(length):
    frequency = np.fft.fftfreq(length)
    weight = COEFFICIENT + (1 - COEFFICIENT) * np.cos(2 * np.pi * frequency / BAND)
    return np.where(abs(frequency) <= BAND / 2, weight, 0)


def impulse_response(x):
    side = np.sinc(BAND * x - 1) + np.sinc(BAND * x + 1)
    return COEFFICIENT * np.sinc(BAND * x) + 0.5 * (1 - COEFFICIENT) * side


def complex_noise(rng, shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def speckle(rng, shape, azimuth_oversampling=1.0):
    """Return band-limited speckle of power 1 and its range spectrum, padded on both sides."""
    lines, samples = shape[0], shape[1] + 2 * PAD
    spectrum = np.fft.fft(complex_noise(rng, (lines, samples)), axis=1) * hamming_spectrum(samples)
    if azimuth_oversampling > 1:
        outside = abs(np.fft.fftfreq(lines)) > 0.5 / azimuth_oversampling
        doppler = np.fft.fft(spectrum, axis=0)
        doppler[outside] = 0
        spectrum = np.fft.ifft(doppler, axis=0)
    power = np.mean(abs(np.fft.ifft(spectrum, axis=1)) ** 2)
    return spectrum / np.sqrt(power)


def image(spectrum, shift=0.0):
    delay = np.exp(-2j * np.pi * np.fft.fftfreq(spectrum.shape[1]) * shift)
    return np.fft.ifft(spectrum * delay, axis=1)[:, PAD:-PAD]


def carrier(shape):
    """Return an azimuth carrier that both images have, and what flattening leaves of fringes."""
    chirp = np.exp(1j * np.pi * 2e-3 * np.arange(shape[0]) ** 2)[:, None]
    return chirp, chirp * np.exp(-1j * np.linspace(0, 12, shape[1]))


def speckle_pair(rng, coherence, shift, shape=(100, 3000), azimuth_oversampling=1.0):
    common = speckle(rng, shape, azimuth_oversampling)
    noise = speckle(rng, shape, azimuth_oversampling)
    later = coherence * common + np.sqrt(1 - coherence**2) * noise
    ours, theirs = carrier(shape)
    pair = image(common) * ours, image(later, shift) * theirs
    return [part.astype(np.complex64) for part in pair]


def add_targets(rng, pair, shift, count, ratio_db):
    """Put targets of one amplitude, `shift` samples later in the second image, between samples."""
    lines, samples = pair[0].shape
    ours, theirs = carrier(pair[0].shape)
    x = np.arange(samples, dtype=float)
    for line in rng.integers(0, lines, count):
        place = rng.uniform(0, samples)
        value = 10 ** (ratio_db / 20) * np.exp(2j * np.pi * rng.random()) / impulse_response(0)
        pair[0][line] += ours[line] * value * impulse_response(x - place)
        pair[1][line] += theirs[line] * value * impulse_response(x - place - shift)
    return pair


def smallest_error(coherence, pixels):
    """Return the Cramer-Rao bound for independent pixels of a band of constant coherence."""
    noise = np.sqrt(1 - coherence**2) / (coherence * np.sqrt(2 * pixels * BAND))
    return noise / (2 * np.pi * BAND / np.sqrt(12))


@pytest.mark.parametrize("shift", [0.0, 0.013, -0.37, 0.5, 1.94])
def test_sign_and_size_from_point_targets(shift):
    # Speckle as the sum of targets anywhere between the samples, each line with its own.
    rng = np.random.default_rng(0)
    place = np.linspace(-40, 740, 2500)[:, None]
    amplitude = complex_noise(rng, (64, place.size))
    x = np.arange(700.0)
    reference = amplitude @ impulse_response(x - place)
    secondary = amplitude @ impulse_response(x - place - shift)
    ours, theirs = carrier(reference.shape)
    result = estimate_range_shift(
        (reference * ours).astype(np.complex64), (secondary * theirs).astype(np.complex64)
    )
    assert result.status == "ok"
    assert result.shift_samples == pytest.approx(shift, abs=3e-4)
    assert result.coherence > 0.99


@pytest.mark.parametrize(("coherence", "trials"), [(0.3, 6), (0.85, 3)])
def test_error_at_the_size_of_an_overlap(coherence, trials):
    rng = np.random.default_rng(1)
    results = [estimate_range_shift(*speckle_pair(rng, coherence, 0.013)) for _ in range(trials)]
    assert {result.status for result in results} == {"ok"}
    bound = smallest_error(coherence, 3e5)
    error = np.array([result.shift_samples for result in results]) - 0.013
    sigma = np.array([result.sigma_samples for result in results])
    # Within what so many trials know of their mean and scatter.
    assert abs(error.mean()) < 3 * bound / np.sqrt(trials)
    assert np.sqrt(np.mean(error**2)) < bound * (1.1 + 2 / np.sqrt(2 * trials))
    assert 0.8 * bound < np.sqrt(np.mean(sigma**2)) < 1.25 * bound
    found = np.mean([result.coherence for result in results])
    assert found == pytest.approx(coherence, abs=0.02)


@pytest.mark.parametrize("shift", [0.013, -0.4])
def test_there_is_no_bias(shift):
    # Whole-line shifts: patches of 64 samples would pull 0.003 towards a whole sample.
    rng = np.random.default_rng(2)
    error = [
        estimate_range_shift(*speckle_pair(rng, 0.97, shift, (64, 1500))).shift_samples - shift
        for _ in range(6)
    ]
    assert abs(np.mean(error)) < 3e-4


@pytest.mark.parametrize("azimuth_oversampling", [1.0, 1.5])
def test_sigma_is_calibrated(azimuth_oversampling):
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(40):
        shift = rng.uniform(-0.6, 0.6)
        pair = speckle_pair(rng, 0.5, shift, (48, 450), azimuth_oversampling)
        result = estimate_range_shift(*pair)
        scores.append((result.shift_samples - shift) / result.sigma_samples)
    assert abs(np.mean(scores)) < 4 / np.sqrt(40)
    assert 0.8 < np.std(scores) < 1.25


def test_few_bright_targets_do_where_the_ground_is_incoherent():
    rng = np.random.default_rng(4)
    scores, errors = [], []
    for _ in range(10):
        pair = speckle_pair(rng, 0.0, 0.0, (100, 1000))
        result = estimate_range_shift(*add_targets(rng, pair, 0.2, 40, 28.0))
        assert result.status == "ok"
        errors.append(result.shift_samples - 0.2)
        scores.append(errors[-1] / result.sigma_samples)
    # 40 targets of 28 dB: 1 / (2 pi B / sqrt(12) sqrt(2 * 40 * 631)) = 0.003 at best.
    assert np.sqrt(np.mean(np.square(errors))) < 9e-3
    assert np.sqrt(np.mean(np.square(scores))) < 1.6


def test_moving_ships_do_not_outvote_the_ground():
    rng = np.random.default_rng(5)
    pair = speckle_pair(rng, 0.5, 0.013, (100, 1500))
    clean = estimate_range_shift(*pair)
    result = estimate_range_shift(*add_targets(rng, pair, 0.7, 8, 35.0))
    assert result.status == "ok"
    assert result.shift_samples == pytest.approx(0.013, abs=5 * clean.sigma_samples)


def test_noise_gives_no_shift():
    rng = np.random.default_rng(6)
    for _ in range(100):
        pair = [complex_noise(rng, (32, 600)).astype(np.complex64) for _ in range(2)]
        result = estimate_range_shift(*pair)
        assert result == RangeShift(0.0, np.inf, result.patches, 0.0, "no-coherence")


@pytest.mark.parametrize("shift", [2.4, -3.0, 7.0])
def test_shift_beyond_the_search_is_not_reported(shift):
    rng = np.random.default_rng(7)
    result = estimate_range_shift(*speckle_pair(rng, 0.7, shift, (48, 600)))
    assert result[:2] == (0.0, np.inf)
    assert result.status == ("beyond-search" if abs(shift) < 7 else result.status)
    if abs(shift) < 3:
        pair = speckle_pair(rng, 0.7, shift, (48, 600))
        wider = estimate_range_shift(*pair, max_shift_samples=4.0)
        assert wider.shift_samples == pytest.approx(shift, abs=5 * wider.sigma_samples)


def test_missing_parts_are_left_out():
    rng = np.random.default_rng(8)
    pair = speckle_pair(rng, 0.8, 0.25, (64, 1500))
    pair[0][:, :400] = 0
    pair[1][10:20] = np.nan
    pair[1][:, 1200:] = 0
    result = estimate_range_shift(*pair)
    assert result.status == "ok"
    assert result.shift_samples == pytest.approx(0.25, abs=5 * result.sigma_samples)
    assert result.sigma_samples < 2.5 * smallest_error(0.8, 54 * 800)


@pytest.mark.parametrize("shape", [(0, 3000), (100, 0), (4, 16), (100, 900)])
def test_without_data_there_is_no_shift(shape):
    empty = np.zeros(shape, np.complex64)
    assert estimate_range_shift(empty, empty) == RangeShift(0.0, np.inf, 0, 0.0, "no-data")


def test_large_windows_are_searched_in_part_and_measured_whole():
    rng = np.random.default_rng(9)
    pair = speckle_pair(rng, 0.6, -1.21, (320, 3200))
    result = estimate_range_shift(*pair)
    assert result.shift_samples == pytest.approx(-1.21, abs=4 * result.sigma_samples)
    assert result.sigma_samples < 1.2 * smallest_error(0.6, 320 * 3200)
    # Coherence in the last lines only, where the search does not look at first.
    rng = np.random.default_rng(10)
    for part in pair:
        part[:288] = complex_noise(rng, (288, 3200))
    late = estimate_range_shift(*pair)
    assert late.shift_samples == pytest.approx(-1.21, abs=4 * late.sigma_samples)


def test_nonsense_is_refused():
    part = np.ones((40, 400), np.complex64)
    with pytest.raises(ValueError, match="one shape"):
        estimate_range_shift(part, part[1:])
    with pytest.raises(ValueError, match="complex64"):
        estimate_range_shift(part, part.astype(np.complex128))
    with pytest.raises(ValueError, match="positive"):
        estimate_range_shift(part, part, max_shift_samples=0.0)
    with pytest.raises(ValueError, match="positive"):
        estimate_range_shift(part, part, looks=(0, 16))
