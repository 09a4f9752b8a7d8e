"""Azimuth shifts from burst overlaps against signals written down from the definition.

A point target at zero-Doppler time ``eta0`` has in a TOPS burst the signal
``w(eta - eta0) exp(+2 pi j f(eta0) (eta - eta0))``, where ``f(eta0) = kt (eta0 - middle)`` rises
along the burst (kt > 0 for Sentinel-1). Nothing of the package is used to make these signals.
"""

import numpy as np
import pytest

from bperp.kernels.spectral_diversity import (
    combine_shifts,
    estimate_azimuth_shift,
    estimate_block_shifts,
)

INTERVAL_S = 2.0555563e-3
KT_HZ_S = 1777.0
BURST_SPACING_S = 2.7585
BANDWIDTH_HZ = 327.0
DIFFERENCE_HZ = KT_HZ_S * BURST_SPACING_S  # 4.9 kHz


def burst_signal(line, target_line, middle_s, amplitude, late_lines=0.0):
    """Return (line, sample) signals of targets that stand `late_lines` after `target_line`."""
    eta0 = target_line * INTERVAL_S
    doppler = KT_HZ_S * (eta0 - middle_s)
    delay = line[:, None] * INTERVAL_S - (eta0 + late_lines * INTERVAL_S)
    response = np.sinc(BANDWIDTH_HZ * delay) * np.exp(2j * np.pi * doppler * delay)
    return (response @ amplitude).astype(np.complex64)


def complex_noise(rng, shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def physical_overlap(shift_lines, seed=0, lines=120, samples=200):
    """Return the four images of an overlap, burst signals as each date's sensor sees them."""
    rng = np.random.default_rng(seed)
    line = np.arange(lines, dtype=float)
    targets = np.linspace(-10, lines + 10, 3 * lines)
    amplitude = complex_noise(rng, (targets.size, samples))
    scene_phase = np.exp(1j * np.linspace(1, 2, samples))  # deformation: alike in both bursts
    images = []
    for middle_s in (-1.3, -1.3 + BURST_SPACING_S):
        images.append(burst_signal(line, targets, middle_s, amplitude))
        images.append(burst_signal(line, targets, middle_s, amplitude * scene_phase, shift_lines))
    return images, np.full((lines, samples), DIFFERENCE_HZ)


def noisy_overlap(rng, coherence, shift_lines, shape=(100, 3000), difference=DIFFERENCE_HZ):
    """Return independent samples with the phases that `physical_overlap` proves."""
    difference_hz = np.broadcast_to(np.float32(difference), shape)
    images = []
    for doppler in (0.5 * difference_hz, -0.5 * difference_hz):
        reference = complex_noise(rng, shape).astype(np.complex64)
        noise = complex_noise(rng, shape).astype(np.complex64)
        secondary = (
            np.float32(coherence) * reference + np.float32(np.sqrt(1 - coherence**2)) * noise
        )
        turns = -np.float32(INTERVAL_S * shift_lines) * doppler
        images += [reference, secondary * np.exp(np.complex64(2j * np.pi) * turns)]
    return [image.astype(np.complex64) for image in images], difference_hz


@pytest.mark.parametrize("shift_lines", [0.0, 0.0013, -0.0013, 0.02, -0.035])
def test_sign_and_size_from_point_targets(shift_lines):
    images, difference_hz = physical_overlap(shift_lines)
    result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
    assert result.status == "ok"
    # Averaging the sweep of 5 lines changes the phase by less than 1e-5 line.
    assert result.shift_lines == pytest.approx(shift_lines, abs=2e-5)
    assert result.coherence > 0.99


def test_shifting_by_the_estimate_closes_the_loop():
    # Resampling at geometric position + shift: a target 0.01 line late is then in place.
    images, difference_hz = physical_overlap(0.01)
    found = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S).shift_lines
    mended, _ = physical_overlap(0.01 - found)
    residual = estimate_azimuth_shift(*mended, difference_hz, INTERVAL_S).shift_lines
    assert abs(residual) < 2e-6


def test_doppler_difference_may_vary_over_the_overlap():
    slope = np.linspace(4600, 4900, 3000)[None, :].repeat(100, axis=0)
    images, _ = noisy_overlap(np.random.default_rng(1), 0.9, 0.03, difference=slope)
    result = estimate_azimuth_shift(*images, slope, INTERVAL_S)
    assert result.shift_lines == pytest.approx(0.03, abs=4 * result.sigma_lines)
    wrong = estimate_azimuth_shift(*images, np.full(slope.shape, 4900.0), INTERVAL_S)
    assert abs(wrong.shift_lines - 0.03) > 20 * result.sigma_lines


@pytest.mark.parametrize(("coherence", "trials"), [(0.15, 24), (0.4, 6), (0.85, 6)])
def test_error_at_the_size_of_a_real_overlap(coherence, trials):
    truth = 0.0013
    rng = np.random.default_rng(2)
    results = []
    for _ in range(trials):
        images, difference_hz = noisy_overlap(rng, coherence, truth)
        results.append(estimate_azimuth_shift(*images, difference_hz, INTERVAL_S))
    assert {result.status for result in results} == {"ok"}
    error = np.array([result.shift_lines for result in results]) - truth
    bound = np.sqrt(1 - coherence**2) / coherence / np.sqrt(3e5)  # Cramer-Rao, rad
    bound /= 2 * np.pi * DIFFERENCE_HZ * INTERVAL_S
    sigma = np.array([result.sigma_lines for result in results])
    assert abs(error.mean()) < 1e-4
    assert np.sqrt(np.mean(error**2)) < 2e-4 * 1.3  # 24 trials know their rms to 15 %
    assert sigma.max() < 2.2e-4
    assert np.sqrt(np.mean(sigma**2)) < 1.1 * bound
    assert np.mean([result.coherence for result in results]) == pytest.approx(coherence, abs=0.01)


@pytest.mark.parametrize("coherence", [0.2, 0.85])
def test_sigma_is_calibrated(coherence):
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(150):
        shift = rng.uniform(-0.03, 0.03)
        images, difference_hz = noisy_overlap(rng, coherence, shift, shape=(50, 600))
        result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
        scores.append((result.shift_lines - shift) / result.sigma_lines)
    assert abs(np.mean(scores)) < 4 / np.sqrt(150)
    assert 0.83 < np.std(scores) < 1.17


def test_sigma_is_calibrated_for_oversampled_speckle():
    # Azimuth oversampled 1.5 times as in IW1: adjoining windows share speckle.
    rng = np.random.default_rng(4)
    scores = []
    keep = abs(np.fft.fftfreq(80)) <= 0.5 / 1.5

    def limited(shape):
        spectrum = np.fft.fft(complex_noise(rng, shape), axis=0) * keep[:, None]
        return np.fft.ifft(spectrum, axis=0) * np.sqrt(1.5)

    phase = 2 * np.pi * DIFFERENCE_HZ * INTERVAL_S * 0.004
    for _ in range(150):
        images = []
        for turn in (0.5, -0.5):
            reference, noise = limited((80, 400)), limited((80, 400))
            secondary = (0.5 * reference + np.sqrt(0.75) * noise) * np.exp(-1j * turn * phase)
            images += [reference.astype(np.complex64), secondary.astype(np.complex64)]
        difference_hz = np.full((80, 400), DIFFERENCE_HZ)
        result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
        scores.append((result.shift_lines - 0.004) / result.sigma_lines)
    assert 0.82 < np.std(scores) < 1.18


def test_bright_incoherent_targets_do_not_outvote_the_ground():
    rng = np.random.default_rng(5)
    images, difference_hz = noisy_overlap(rng, 0.6, 0.002, shape=(100, 1500))
    clean = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
    for image in images:
        ships = complex_noise(rng, 40).astype(np.complex64)
        image[rng.integers(0, 100, 40), rng.integers(0, 1500, 40)] = 3000 * ships
    result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
    assert result.shift_lines == pytest.approx(0.002, abs=5 * clean.sigma_lines)


def test_coherent_parts_count_more():
    # Half of the ground at coherence 0.93, half at 0.5: information adds up, 93 % of it is here.
    rng = np.random.default_rng(12)
    errors, sigmas = [], []
    for _ in range(40):
        halves = [noisy_overlap(rng, value, 0.0, shape=(50, 600))[0] for value in (0.93, 0.5)]
        images = [np.concatenate(pair, axis=1) for pair in zip(*halves, strict=True)]
        difference_hz = np.full((50, 1200), DIFFERENCE_HZ)
        result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
        errors.append(result.shift_lines)
        sigmas.append(result.sigma_lines)
    information = sum(value**2 / (1 - value**2) for value in (0.93, 0.5)) * 50 * 600
    bound = information**-0.5 / (2 * np.pi * DIFFERENCE_HZ * INTERVAL_S)
    # Weights in proportion to the coherence would lose a factor of 1.45.
    assert np.sqrt(np.mean(np.square(sigmas))) < 1.2 * bound
    assert 0.75 < np.std(np.divide(errors, sigmas)) < 1.25


def test_blocks_follow_a_shift_that_varies_along_range():
    truth = np.repeat([-2e-3, -1e-3, 1e-3, 2e-3], 400)
    parts = [
        noisy_overlap(np.random.default_rng(13 + index), 0.6, value, shape=(60, 400))[0]
        for index, value in enumerate(truth[::400])
    ]
    images = tuple(np.concatenate(group, axis=1) for group in zip(*parts, strict=True))
    difference_hz = np.full((60, 1600), DIFFERENCE_HZ)
    result = estimate_block_shifts(images, difference_hz, INTERVAL_S, 4, looks=(5, 16))
    np.testing.assert_allclose(result.centre_sample, [199.5, 599.5, 999.5, 1399.5])
    error = (result.shift_lines - truth[::400]) / result.sigma_lines
    assert np.abs(error).max() < 4
    bound = np.sqrt(1 - 0.36) / 0.6 / np.sqrt(60 * 400) / (2 * np.pi * DIFFERENCE_HZ * INTERVAL_S)
    np.testing.assert_allclose(result.sigma_lines, bound, rtol=0.3)
    assert result.whole == estimate_azimuth_shift(*images, difference_hz, INTERVAL_S, looks=(5, 16))
    assert abs(result.whole.shift_lines) < 5 * result.whole.sigma_lines


def test_blocks_without_significance_have_no_sigma():
    images, difference_hz = noisy_overlap(np.random.default_rng(17), 0.5, 1e-3, shape=(60, 1500))
    noise = complex_noise(np.random.default_rng(18), (60, 500)).astype(np.complex64)
    images[1][:, 500:1000] = noise
    images[3][:, 1000:] = 0
    result = estimate_block_shifts(tuple(images), difference_hz, INTERVAL_S, 3)
    assert np.isfinite(result.sigma_lines).tolist() == [True, False, False]
    assert result.shift_lines[0] == pytest.approx(1e-3, abs=5 * result.sigma_lines[0])
    assert (result.shift_lines[1:] == 0).all()
    many = estimate_block_shifts(tuple(images), difference_hz, INTERVAL_S, 500)
    assert np.isinf(many.sigma_lines).all()
    empty = tuple(np.zeros((60, 0), np.complex64) for _ in range(4))
    nothing = estimate_block_shifts(empty, np.zeros((60, 0)), INTERVAL_S, 2)
    assert nothing.whole.status == "no-overlap"
    assert nothing.sigma_lines.tolist() == [np.inf, np.inf]


def test_noise_gives_no_shift():
    rng = np.random.default_rng(6)
    for _ in range(20):
        images, difference_hz = noisy_overlap(rng, 0.0, 0.0, shape=(60, 900))
        result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
        assert result.status == "no-coherence"
        assert (result.shift_lines, result.sigma_lines) == (0.0, np.inf)


@pytest.mark.parametrize("shape", [(0, 3000), (100, 0), (5, 15), (3, 4), (100, 3000)])
def test_without_data_there_is_no_shift(shape):
    empty = np.zeros(shape, np.complex64)
    result = estimate_azimuth_shift(
        empty, empty, empty, empty, np.full(shape, DIFFERENCE_HZ), INTERVAL_S
    )
    assert result.status == "no-overlap"
    assert (result.shift_lines, result.sigma_lines) == (0.0, np.inf)


def test_missing_parts_of_either_burst_are_left_out():
    rng = np.random.default_rng(7)
    images, difference_hz = noisy_overlap(rng, 0.7, -0.004)
    images[0][:30] = 0
    images[3][:, 1000:2000] = 0
    result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
    assert result.status == "ok"
    assert result.shift_lines == pytest.approx(-0.004, abs=4 * result.sigma_lines)
    shape = (100 // result.looks[0], 3000 // result.looks[1])
    assert result.windows < 0.55 * shape[0] * shape[1]


def test_shift_near_half_a_cycle_is_ambiguous():
    period = 1 / (DIFFERENCE_HZ * INTERVAL_S)
    images, difference_hz = noisy_overlap(np.random.default_rng(8), 0.8, 0.48 * period)
    result = estimate_azimuth_shift(*images, difference_hz, INTERVAL_S)
    assert result.ambiguous


def test_alias_is_found_out_where_the_difference_varies():
    # 0.07 line looks like -0.03, but only at one Doppler difference.
    slope = np.linspace(4500, 5300, 3000)[None, :].repeat(100, axis=0)
    images, _ = noisy_overlap(np.random.default_rng(9), 0.8, 0.07, difference=slope)
    assert estimate_azimuth_shift(*images, slope, INTERVAL_S).ambiguous
    images, _ = noisy_overlap(np.random.default_rng(9), 0.8, -0.03, difference=slope)
    assert not estimate_azimuth_shift(*images, slope, INTERVAL_S).ambiguous


def test_nonsense_is_refused():
    image = np.ones((10, 20), np.complex64)
    difference = np.full((10, 20), DIFFERENCE_HZ)
    with pytest.raises(ValueError, match="shape"):
        estimate_azimuth_shift(image, image, image[1:], image, difference, INTERVAL_S)
    with pytest.raises(ValueError, match="positive"):
        estimate_azimuth_shift(image, image, image, image, difference, 0.0)
    with pytest.raises(ValueError, match="positive"):
        estimate_azimuth_shift(*[image] * 4, difference, INTERVAL_S, max_shift_lines=-1.0)
    with pytest.raises(ValueError, match="blocks"):
        estimate_block_shifts((image,) * 4, difference, INTERVAL_S, 0)
    with pytest.raises(ValueError, match="positive"):
        combine_shifts(np.array([1.0]), np.array([0.0]))


def test_combination_is_the_weighted_mean_without_outliers():
    shifts, sigmas = np.array([1e-3, 1.2e-3, 0.9e-3]), np.array([1e-4, 2e-4, 1e-4])
    weight = 1 / sigmas**2
    mean, sigma, chi2, used = combine_shifts(shifts, sigmas, tuning=10.0)
    assert mean == pytest.approx(np.sum(weight * shifts) / weight.sum(), abs=1e-12)
    assert sigma == pytest.approx(weight.sum() ** -0.5)
    assert chi2 == pytest.approx(np.sum(weight * (shifts - mean) ** 2) / 2)
    assert used == 3


def test_combination_survives_an_outlier_and_tells_of_it():
    rng = np.random.default_rng(10)
    sigmas = np.full(20, 1e-4)
    shifts = 5e-4 + sigmas * rng.standard_normal(20)
    clean = combine_shifts(shifts, sigmas)
    shifts[3] = 0.04
    result = combine_shifts(shifts, sigmas)
    assert abs(result.shift_lines - clean.shift_lines) < 1.5e-4 / np.sqrt(20) * 3
    assert clean.chi2 < 2 < 1000 < result.chi2


def test_combined_sigma_is_calibrated():
    rng = np.random.default_rng(11)
    scores = []
    for _ in range(400):
        sigmas = rng.uniform(1e-4, 1e-3, 8)
        result = combine_shifts(sigmas * rng.standard_normal(8), sigmas)
        scores.append(result.shift_lines / result.sigma_lines)
    assert 0.9 < np.std(scores) < 1.2


def test_overlaps_without_sigma_do_not_count():
    assert combine_shifts(np.zeros(0), np.zeros(0))[:2] == (0.0, np.inf)
    result = combine_shifts(np.array([0.0, 3e-3, np.nan]), np.array([np.inf, 1e-4, 1e-4]))
    assert result[:2] == (pytest.approx(3e-3), pytest.approx(1e-4))
    assert np.isnan(result.chi2)
    assert result.used == 1
