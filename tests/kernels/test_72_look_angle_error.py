"""The look-angle error fit against a slow transcription of the text, and against theory."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from bperp.kernels.phase_noise import count_trial_wraps, fit_look_angle_error


def slow_fit(x, baseline, trial_wraps):
    """Section 2.2 of the algorithm text, word by word, one candidate."""
    used = np.abs(x) > 0
    x, b = x[used].astype(complex), baseline[used].astype(float)
    span = b.max() - b.min()
    trials = math.ceil(8 * trial_wraps)
    best, start = -1.0, 0.0
    for q in range(-trials, trials + 1):
        coherence = abs(np.sum(x * np.exp(-1j * np.pi / 4 * q * b / span))) / np.sum(abs(x))
        if coherence > best:
            best, start = coherence, np.pi / 4 * q / span
    y = x * np.exp(-1j * start * b)
    e = np.angle(y * np.conj(np.sum(y)))
    slope = start + np.sum(abs(x) ** 2 * b * e) / np.sum(abs(x) ** 2 * b**2)
    y = x * np.exp(-1j * slope * b)
    return slope, np.angle(np.sum(y)), abs(np.sum(y)) / np.sum(abs(y)), used, y


@pytest.mark.parametrize(("dates", "trial_wraps"), [(5, 0.3), (20, 1.0), (31, 2.6)])
def test_equals_the_text(dates, trial_wraps):
    rng = np.random.default_rng(dates)
    baseline = rng.uniform(-120, 90, (200, dates)).astype(np.float32)
    slope = rng.uniform(-1, 1, (200, 1)) * 2 * np.pi * trial_wraps / 210
    noise = rng.uniform(0.1, 2.0, (200, 1)) * rng.standard_normal((200, dates))
    amplitude = rng.uniform(0.5, 2.0, (200, dates))
    x = (amplitude * np.exp(1j * (slope * baseline + 1.0 + noise))).astype(np.complex64)
    x[rng.random(x.shape) < 0.05] = 0.0
    fit = fit_look_angle_error(x, baseline, trial_wraps)
    for p in range(200):
        k, c, gamma, used, residual = slow_fit(x[p], baseline[p], trial_wraps)
        assert fit.look_angle_error[p] == pytest.approx(k, abs=1e-9)
        assert math.remainder(fit.offset[p] - c, 2 * np.pi) == pytest.approx(0.0, abs=1e-6)
        assert fit.gamma[p] == pytest.approx(gamma, abs=1e-9)
        np.testing.assert_allclose(fit.residual[p, used], residual, atol=1e-6)
        assert np.all(fit.residual[p, ~used] == 0.0)


def test_finds_a_dem_error_with_the_right_sign():
    """A height error h has phase -4 pi B h / (lambda R sin(incidence)), so K < 0 for h > 0."""
    wavelength, slant_range, incidence, height = 0.0555, 850e3, 0.67, 12.0
    factor = 4 * np.pi / (wavelength * slant_range * np.sin(incidence))
    baseline = np.linspace(-100, 100, 21, dtype=np.float32)[None]
    x = np.exp(-1j * factor * baseline * height + 0.4j).astype(np.complex64)
    fit = fit_look_angle_error(x, baseline, count_trial_wraps(200.0, 20.0, factor))
    assert -fit.look_angle_error[0] / factor == pytest.approx(height, abs=1e-3)
    assert fit.offset[0] == pytest.approx(0.4, abs=1e-6)
    assert fit.gamma[0] == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(fit.residual, np.exp(0.4j), atol=1e-5)


def test_search_range_is_cycles_over_the_baseline_span():
    assert count_trial_wraps(200.0, 20.0, 2 * np.pi / 4000.0) == pytest.approx(1.0)
    baseline = np.linspace(-100, 100, 41, dtype=np.float32)[None]
    x = np.exp(2j * np.pi * 1.4 * baseline / 200).astype(np.complex64)
    assert fit_look_angle_error(x, baseline, 1.5).gamma[0] > 0.999
    assert fit_look_angle_error(x, baseline, 0.5).gamma[0] < 0.5


@pytest.mark.parametrize("noise_rad", [0.2, 0.5, 0.9])
def test_precision_and_gamma_follow_theory(noise_rad):
    rng = np.random.default_rng(7)
    baseline = np.linspace(-100, 100, 60, dtype=np.float32)
    x = np.exp(1j * noise_rad * rng.standard_normal((4000, 60))).astype(np.complex64)
    fit = fit_look_angle_error(x, np.broadcast_to(baseline, x.shape), 0.5)
    bound = noise_rad / np.sqrt(np.sum((baseline - baseline.mean()) ** 2.0))
    assert np.sqrt(np.mean(fit.look_angle_error**2)) < 1.1 * bound
    assert np.mean(fit.gamma) == pytest.approx(np.exp(-(noise_rad**2) / 2), abs=0.015)


def test_degenerate_candidates_do_not_crash():
    baseline = np.array([[50, 50, 50], [0, 0, 0], [1, 2, 3], [1, np.nan, 3]], np.float32)
    x = np.exp(1j * np.array([[0.3] * 3, [0.3] * 3, [0.0] * 3, [0.1] * 3])).astype(np.complex64)
    x[2] = 0.0
    fit = fit_look_angle_error(x, baseline, 1.0)
    np.testing.assert_allclose(fit.gamma, [1.0, 1.0, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(fit.look_angle_error[:2], 0.0, atol=1e-6)
    assert np.isnan(fit.look_angle_error[2])
    assert np.isnan(fit.offset[2])
    assert fit.residual[3, 1] == 0.0
    empty = fit_look_angle_error(np.zeros((0, 3), np.complex64), np.zeros((0, 3), np.float32), 1.0)
    assert empty.gamma.shape == (0,)
    one = fit_look_angle_error(np.ones((1, 1), np.complex64), np.ones((1, 1), np.float32), 1.0)
    assert one.gamma[0] == 1.0


def test_nan_counts_as_missing():
    baseline = np.linspace(-50, 50, 9, dtype=np.float32)[None]
    x = np.exp(0.01j * baseline).astype(np.complex64)
    holed, voided = x.copy(), x.copy()
    holed[0, 3], voided[0, 3] = np.nan, 0.0
    left, right = (
        fit_look_angle_error(holed, baseline, 1.0),
        fit_look_angle_error(voided, baseline, 1.0),
    )
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_calls_are_refused():
    x = np.ones((2, 3), np.complex64)
    with pytest.raises(ValueError, match="candidate, date"):
        fit_look_angle_error(x, np.ones((2, 4), np.float32), 1.0)
    with pytest.raises(ValueError, match="trial_wraps"):
        fit_look_angle_error(x, np.ones((2, 3), np.float32), -1.0)


@pytest.mark.benchmark
def test_rate():
    rng = np.random.default_rng(0)
    x = np.exp(2j * np.pi * rng.random((20000, 30))).astype(np.complex64)
    baseline = rng.uniform(-100, 100, x.shape).astype(np.float32)
    fit_look_angle_error(x[:1], baseline[:1], 0.5)
    start = time.process_time()
    fit_look_angle_error(x, baseline, 0.5)
    rate = 20000 / (time.process_time() - start)
    print(f"{rate:.0f} candidates of 30 dates per core-second")
    assert rate > 50_000
