"""Neighbour phase and phase noise: dense-matrix oracle, pure noise, planted scatterers, tiles."""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest

from bperp.kernels.phase_noise import (
    NeighbourFilter,
    PhaseNoiseOptions,
    estimate_phase_noise,
    filter_neighbour_phase,
    gamma_threshold,
    phase_noise_halo_m,
    random_phase_gamma,
    weigh_by_gamma,
)

DATES = 20
BASELINE = np.random.default_rng(99).uniform(-100, 100, DATES)


@functools.cache
def random_counts():
    return random_phase_gamma(BASELINE, 0.5, 100_000, seed=1)


def unit(phase):
    return np.exp(1j * phase).astype(np.complex64)


def baselines(size, dates=DATES):
    return np.broadcast_to(BASELINE[:dates], (size, dates)).astype(np.float32)


def pure_noise(size, density_km2, seed):
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, 1000 * np.sqrt(size / density_km2), (size, 2))
    phasor = unit(2 * np.pi * rng.random((size, DATES)))
    return phasor, position, rng.uniform(0.2, 0.4, size).astype(np.float32)


def scene(size, density_km2, stable_share, seed):
    """Return stable scatterers and noise over a smooth field of several radians, and the truth."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, 1000 * np.sqrt(size / density_km2), (size, 2))
    is_stable = rng.random(size) < stable_share
    phase = np.zeros((size, DATES))
    for date in range(DATES):
        for _ in range(4):
            wave = 2 * np.pi / 12000 * rng.standard_normal(2)
            phase[:, date] += 2.0 * np.cos(position @ wave + rng.uniform(0, 2 * np.pi))
    slope = rng.uniform(-0.007, 0.007, size)
    phase += slope[:, None] * BASELINE + 0.4 * rng.standard_normal((size, DATES))
    phase += 0.4 * rng.standard_normal((size, 1))
    phase = np.where(is_stable[:, None], phase, 2 * np.pi * rng.random((size, DATES)))
    dispersion = np.where(is_stable, rng.uniform(0.1, 0.35, size), rng.uniform(0.25, 0.4, size))
    return unit(phase), position, dispersion.astype(np.float32), is_stable, slope


def dense_neighbour_phase(phasor, position, weight, options):
    """Cloud in cell, Gaussian, bilinear reading, without whoever is too close: as matrices."""
    cells = [np.arange(-40, 80), np.arange(-40, 80)]
    axis = []
    for dimension in range(2):
        centre = (cells[dimension] + 0.5) * options.cell_m
        offset = np.abs(position[:, dimension, None] - centre) / options.cell_m
        share = np.maximum(1.0 - offset, 0.0)
        lag = np.abs(cells[dimension][:, None] - cells[dimension]) * options.cell_m
        reach = np.ceil(3 * options.sigma_m / options.cell_m) * options.cell_m
        gauss = np.where(lag <= reach, np.exp(-0.5 * (lag / options.sigma_m) ** 2), 0.0)
        axis.append(share @ gauss @ share.T)
    matrix = axis[0] * axis[1]
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    matrix[distance <= options.exclusion_m] = 0.0
    total = matrix @ (weight[:, None] * phasor.astype(complex))
    return total / np.abs(total)


@pytest.mark.parametrize("exclusion_m", [0.0, 30.0, 50.0])
def test_neighbour_phase_equals_dense_matrices(exclusion_m):
    rng = np.random.default_rng(1)
    position = rng.uniform(-500, 900, (300, 2))
    phasor = unit(2 * np.pi * rng.random((300, 7)))
    weight = rng.uniform(0.1, 5.0, 300)
    slope = rng.uniform(-0.02, 0.02, 300)
    baseline = baselines(300, 7)
    options = NeighbourFilter(50.0, 120.0, exclusion_m)
    result = filter_neighbour_phase(phasor, position, baseline, slope, weight, options)
    turned = phasor * np.exp(-1j * slope[:, None] * baseline)
    expected = dense_neighbour_phase(turned, position, weight, options)
    np.testing.assert_allclose(result, expected, atol=2e-4)
    assert np.median(np.abs(result - expected)) < 1e-6


def test_neighbour_phase_follows_a_gradient_without_bias():
    """One cycle per kilometre: half a cell of rounding would show as 0.16 rad."""
    rng = np.random.default_rng(2)
    position = rng.uniform(0, 4000, (8000, 2))
    phase = 2 * np.pi / 1000 * position[:, :1]
    size = position.shape[0]
    result = filter_neighbour_phase(
        unit(phase), position, baselines(size, 1), np.zeros(size), np.ones(size)
    )
    inside = np.all((position > 700) & (position < 3300), axis=1)
    error = np.angle(result * np.conj(unit(phase)))[inside, 0]
    assert abs(error.mean()) < 0.02
    assert error.std() < 0.1
    assert abs(np.polyfit(position[inside, 0] % 50.0, error, 1)[0] * 50.0) < 0.03


def test_a_candidate_without_neighbours_is_not_judged():
    position = np.array([[0.0, 0.0], [5000.0, 5000.0], [5010.0, 5000.0], [5010.0, 5000.0]])
    phasor = unit(np.ones((4, DATES)))
    neighbour = filter_neighbour_phase(phasor, position, baselines(4), np.zeros(4), np.ones(4))
    assert np.all(neighbour == 0.0)
    result = estimate_phase_noise(phasor, position, baselines(4), np.full(4, 0.2, np.float32))
    assert np.all(result.gamma == 0.0)
    assert np.all(np.isnan(result.look_angle_error))


def test_a_missing_date_is_not_judged_and_does_not_spread():
    phasor, position, dispersion, is_stable, _ = scene(2000, 500, 0.5, 3)
    holed = phasor.copy()
    holed[10, 4], holed[11, 5] = 0.0, np.nan
    full = estimate_phase_noise(phasor, position, baselines(2000), dispersion)
    result = estimate_phase_noise(holed, position, baselines(2000), dispersion)
    assert np.all(result.gamma[[10, 11]] == 0.0)
    rest = np.setdiff1d(np.flatnonzero(is_stable), [10, 11])
    assert np.max(np.abs(result.gamma[rest] - full.gamma[rest])) < 0.1
    assert np.all(np.isfinite(result.residual))


@pytest.mark.parametrize(("iterations", "tolerance"), [(1, 0.015), (3, 0.03)])
def test_pure_noise_has_the_gamma_of_random_phases(iterations, tolerance):
    phasor, position, dispersion = pure_noise(20000, 500, 4)
    options = PhaseNoiseOptions(0.5, iterations)
    gamma = estimate_phase_noise(phasor, position, baselines(20000), dispersion, options).gamma
    counts = random_counts()
    edges = np.arange(1, 101) / 100
    for share in (0.25, 0.5, 0.9, 0.99):
        expected = np.interp(share, np.cumsum(counts) / counts.sum(), edges)
        assert np.quantile(gamma, share) == pytest.approx(expected, rel=tolerance)
    if iterations == 1:  # exactly independent: also the shape has to agree
        found = np.histogram(gamma, 100, (0, 1))[0]
        scaled = counts * (found.sum() / counts.sum())
        used = scaled > 20
        squares = np.sum((found - scaled)[used] ** 2 / (scaled[used] * (1 + 0.2)))
        assert squares < used.sum() + 4 * np.sqrt(2 * used.sum())


def test_correlated_speckle_next_door_does_not_vouch():
    """Every noise candidate has a twin 15 m away: two samples of one resolution cell."""
    phasor, position, dispersion = pure_noise(2000, 20, 5)
    shifted = position + np.array([15.0, 0.0])
    twins = np.concatenate((phasor, phasor)), np.concatenate((position, shifted))
    both = np.concatenate((dispersion, dispersion))
    medians = []
    for exclusion in (40.0, 0.0):
        options = PhaseNoiseOptions(0.5, 1, NeighbourFilter(exclusion_m=exclusion))
        gamma = estimate_phase_noise(*twins, baselines(4000), both, options).gamma
        medians.append(np.median(gamma[gamma > 0]))
    counts = random_counts()
    expected = np.interp(0.5, np.cumsum(counts) / counts.sum(), np.arange(1, 101) / 100)
    assert medians[0] == pytest.approx(expected, rel=0.02)
    assert medians[1] > 1.2 * expected


def test_stable_scatterers_are_found_with_the_requested_share_of_noise():
    phasor, position, dispersion, is_stable, slope = scene(12000, 400, 0.3, 6)
    options = PhaseNoiseOptions(0.5)
    result = estimate_phase_noise(phasor, position, baselines(12000), dispersion, options)
    counts = random_counts()
    for percent in (1.0, 5.0):
        accepted = result.gamma > gamma_threshold(result.gamma, counts, percent)
        assert 100 * np.mean(~is_stable[accepted]) < 1.25 * percent + 0.2
        assert np.mean(accepted[is_stable]) > 0.95
    inside = np.all((position > 600) & (position < position.max() - 600), axis=1)
    found = is_stable & inside
    error = result.look_angle_error[found] - slope[found]
    theory = 0.4 / np.sqrt(np.sum((BASELINE - BASELINE.mean()) ** 2))
    assert np.sqrt(np.mean(error**2)) < 1.15 * theory


def test_result_does_not_depend_on_the_tile():
    phasor, position, dispersion, _, _ = scene(12000, 150, 0.3, 7)
    options = PhaseNoiseOptions(0.5, 2, NeighbourFilter(50.0, 100.0, 40.0))
    whole = estimate_phase_noise(phasor, position, baselines(12000), dispersion, options)
    low, high = np.array([3000.0, 3500.0]), np.array([5200.0, 5333.0])
    core = np.all((position >= low) & (position < high), axis=1)
    matches = []
    for halo in (phase_noise_halo_m(options), 0.3 * phase_noise_halo_m(options)):
        inside = np.all((position >= low - halo) & (position < high + halo), axis=1)
        assert 100 < inside.sum() < 10000
        part = estimate_phase_noise(
            phasor[inside],
            position[inside],
            baselines(int(inside.sum())),
            dispersion[inside],
            options,
        )
        pairs = zip(part, whole, strict=True)
        matches.append(all(np.array_equal(a[core[inside]], b[core]) for a, b in pairs))
    assert matches == [True, False]


def test_weights_rise_with_gamma():
    gamma = np.linspace(0.0, 1.0, 101)
    weight = weigh_by_gamma(gamma, 20, 0.5)
    assert weight[0] == 0.0
    assert np.all(np.diff(weight) >= 0.0)
    assert weight[30] < 0.05
    assert weight[80] > 0.9


def test_random_gamma_without_baselines_is_rayleigh():
    """Without a slope gamma is the mean resultant of m uniform phases: mean sqrt(pi / (4 m))."""
    counts = random_phase_gamma(np.zeros(50), 1.0, 40_000, seed=3)
    centres = (np.arange(100) + 0.5) / 100
    assert counts.sum() == 40_000
    assert counts @ centres / 40_000 == pytest.approx(np.sqrt(np.pi / 200), rel=0.02)
    np.testing.assert_array_equal(counts, random_phase_gamma(np.zeros(50), 1.0, 40_000, seed=3))
    assert np.any(counts != random_phase_gamma(np.zeros(50), 1.0, 40_000, seed=4))


def test_threshold_counts_the_expected_noise():
    noise = np.zeros(100, np.int64)
    noise[10:50] = 1000  # uniform between 0.1 and 0.5
    rng = np.random.default_rng(8)
    gamma = np.concatenate((rng.uniform(0.1, 0.5, 40_000), rng.uniform(0.6, 1.0, 10_000)))
    # Above g there are 100 000 (0.5 - g) noise candidates beside the 10 000: 10 % from 0.489 on.
    assert gamma_threshold(gamma, noise, 10.0) == pytest.approx(0.49)
    assert gamma_threshold(gamma, noise, 100.0, 5000.0) == pytest.approx(0.46, abs=0.011)
    assert gamma_threshold(gamma, noise, 0.0) == pytest.approx(0.5)
    assert gamma_threshold(np.zeros(5), noise, 1.0) == 1.0
    assert gamma_threshold(rng.uniform(0.1, 0.5, 40_000), noise, 1.0) >= 0.49
    with pytest.raises(ValueError, match="random_histogram"):
        gamma_threshold(gamma, np.zeros(100, np.int64), 1.0)


def test_empty_tile():
    result = estimate_phase_noise(
        np.zeros((0, 5), np.complex64), np.zeros((0, 2)), baselines(0, 5), np.zeros(0, np.float32)
    )
    assert result.gamma.shape == (0,)
    assert result.residual.shape == (0, 5)


def test_wrong_calls_are_refused():
    phasor, position, dispersion = pure_noise(10, 100, 9)
    options = PhaseNoiseOptions(neighbours=NeighbourFilter(exclusion_m=60.0))
    with pytest.raises(ValueError, match="exclusion_m"):
        estimate_phase_noise(phasor, position, baselines(10), dispersion, options)
    with pytest.raises(ValueError, match="amplitude dispersion"):
        estimate_phase_noise(phasor, position, baselines(10), dispersion[:5])
    with pytest.raises(ValueError, match="do not fit"):
        estimate_phase_noise(phasor, position[:5], baselines(10), dispersion)
    with pytest.raises(ValueError, match="finite"):
        estimate_phase_noise(phasor, position * np.nan, baselines(10), dispersion)
    with pytest.raises(ValueError, match="too far apart"):
        estimate_phase_noise(phasor, position * 1e9, baselines(10), dispersion)


@pytest.mark.benchmark
def test_rate():
    phasor, position, dispersion, _, _ = scene(20000, 1000, 0.3, 10)
    options = PhaseNoiseOptions(0.5)
    estimate_phase_noise(phasor[:50], position[:50], baselines(50), dispersion[:50], options)
    start = time.process_time()
    estimate_phase_noise(phasor, position, baselines(20000), dispersion, options)
    rate = 20000 / (time.process_time() - start)
    print(f"{rate:.0f} candidates of {DATES} dates, 3 iterations, per core-second")
    assert rate > 10_000
