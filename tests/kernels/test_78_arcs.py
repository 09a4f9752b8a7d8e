"""Delaunay arcs and the motion difference along them, against closed-form phases."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bperp.kernels.arcs import ArcSearch, MotionDesign, build_arcs, estimate_arcs

WAVELENGTH = 0.0555
FACTOR = 4 * np.pi / (WAVELENGTH * 850e3 * np.sin(0.67))


def make_design(size, dates, years, seed=0):
    rng = np.random.default_rng(seed)
    time_years = np.linspace(0.0, years, dates + 1)[1:]
    baseline = rng.uniform(-100, 100, dates) + rng.uniform(-0.5, 0.5, (size, 1))
    return MotionDesign(time_years, baseline.astype(np.float32), np.full(size, FACTOR), WAVELENGTH)


def phase_of(velocity, height, design):
    """Motion towards the satellite shortens the range; phase = 4 pi (R_sec - R_ref) / lambda."""
    shorter = np.outer(velocity, design.time_years)
    return (
        4 * np.pi * -shorter / WAVELENGTH
        - FACTOR * design.perpendicular_baseline_m * np.reshape(height, (-1, 1))
    )


def test_noise_free_differences_are_exact_and_signed():
    design = make_design(2, 25, 1.5)
    phase = phase_of([0.003, -0.042], [4.0, -9.0], design)
    phasor = np.exp(1j * (phase + np.array([[0.2], [1.9]]))).astype(np.complex64)
    result = estimate_arcs(phasor, np.array([[0, 1], [1, 0]]), design)
    # Baselines of the two ends differ by up to 1 m, which the mean height turns into 0.1 mm/yr.
    np.testing.assert_allclose(result.velocity_m_yr, [-0.045, 0.045], atol=2e-4)
    np.testing.assert_allclose(result.dem_error_m, [-13.0, 13.0], atol=0.1)
    assert np.all(result.temporal_coherence > 0.9999)
    difference = phase[1] - phase[0] + 1.7
    np.testing.assert_allclose(result.unwrapped_phase[0], difference, atol=1e-4)
    np.testing.assert_allclose(result.unwrapped_phase[1], -difference, atol=1e-4)
    assert np.ptp(difference) > 4 * np.pi  # several cycles: wrapped phases alone would not do


@pytest.mark.parametrize(("dates", "years"), [(15, 0.6), (30, 1.0), (60, 3.0)])
def test_precision_follows_theory(dates, years):
    rng = np.random.default_rng(dates)
    size = 1500
    design = make_design(2 * size, dates, years)
    design = design._replace(
        perpendicular_baseline_m=np.repeat(design.perpendicular_baseline_m[:1], 2 * size, axis=0)
    )
    velocity, height = rng.uniform(-0.01, 0.01, 2 * size), rng.uniform(-12, 12, 2 * size)
    phase = phase_of(velocity, height, design) + 0.3 * rng.standard_normal((2 * size, dates))
    arcs = np.arange(2 * size).reshape(size, 2)
    result = estimate_arcs(np.exp(1j * phase).astype(np.complex64), arcs, design)
    columns = np.column_stack(
        (
            np.ones(dates),
            -4 * np.pi / WAVELENGTH * design.time_years,
            -FACTOR * design.perpendicular_baseline_m[0].astype(float),
        )
    )
    covariance = 2 * 0.3**2 * np.linalg.inv(columns.T @ columns)
    velocity_z = (result.velocity_m_yr - (velocity[1::2] - velocity[::2])) / covariance[1, 1] ** 0.5
    height_z = (result.dem_error_m - (height[1::2] - height[::2])) / covariance[2, 2] ** 0.5
    for z in (velocity_z, height_z):
        assert np.std(z[np.abs(z) < 6]) == pytest.approx(1.0, abs=0.1)
        assert np.mean(np.abs(z) > 6) < 0.01
    assert np.mean(result.temporal_coherence) == pytest.approx(np.exp(-(0.3**2)), abs=0.02)
    cycles = (result.unwrapped_phase - (phase[1::2] - phase[::2])) / (2 * np.pi)
    off = np.round(cycles) != np.round(np.median(cycles, axis=1, keepdims=True))
    assert np.mean(off) < 1e-3


def test_unwrapped_phase_is_congruent_with_the_phasors():
    rng = np.random.default_rng(3)
    design = make_design(50, 12, 0.5)
    phasor = np.exp(2j * np.pi * rng.random((50, 12))).astype(np.complex64)
    arcs = build_arcs(rng.uniform(0, 100, (50, 2)))
    result = estimate_arcs(phasor, arcs, design)
    product = phasor[arcs[:, 1]] * np.conj(phasor[arcs[:, 0]])
    np.testing.assert_allclose(np.exp(1j * result.unwrapped_phase), product, atol=2e-5)
    assert np.median(result.temporal_coherence) < 0.75


def test_result_does_not_depend_on_the_other_arcs():
    rng = np.random.default_rng(4)
    design = make_design(200, 20, 1.0)
    phasor = np.exp(1j * rng.standard_normal((200, 20))).astype(np.complex64)
    arcs = build_arcs(rng.uniform(0, 1000, (200, 2)))
    whole = estimate_arcs(phasor, arcs, design)
    part = estimate_arcs(phasor, arcs[37:61], design)
    for left, right in zip(part, whole, strict=True):
        np.testing.assert_array_equal(left, right[37:61])


@pytest.mark.parametrize("case", ["same baseline", "same date", "both", "baseline follows time"])
def test_columns_that_do_not_vary_are_left_out(case):
    design = make_design(2, 20, 1.0)
    velocity, height = 0.01, 5.0
    if case in ("same baseline", "both"):
        design = design._replace(perpendicular_baseline_m=np.full((2, 20), 70.0, np.float32))
        height = 0.0
    if case in ("same date", "both"):
        design = design._replace(time_years=np.full(20, 0.7))
        velocity = 0.0
    if case == "baseline follows time":
        slanted = np.repeat((-80 + 160 * design.time_years)[None], 2, axis=0)
        design = design._replace(perpendicular_baseline_m=slanted.astype(np.float32))
        height = 0.0
    phase = phase_of([0.0, velocity], [0.0, height], design)
    result = estimate_arcs(np.exp(1j * phase).astype(np.complex64), np.array([[0, 1]]), design)
    assert result.velocity_m_yr[0] == pytest.approx(velocity, abs=2e-4)
    assert result.dem_error_m[0] == pytest.approx(height, abs=0.1)
    assert result.temporal_coherence[0] > 0.999


@pytest.mark.parametrize("dates", [1, 2, 3, 4, 5])
def test_few_dates_do_not_pass_for_coherence(dates):
    rng = np.random.default_rng(5)
    design = make_design(400, dates, 0.3)
    phasor = np.exp(2j * np.pi * rng.random((400, dates))).astype(np.complex64)
    result = estimate_arcs(phasor, np.arange(400).reshape(200, 2), design)
    assert np.all(np.isfinite(result.unwrapped_phase))
    assert np.mean(result.temporal_coherence > 0.999) < 0.1
    if dates == 1:
        assert np.all(result.temporal_coherence == 0.0)


def test_missing_dates():
    design = make_design(3, 20, 1.0)
    phase = phase_of([0.0, 0.01, 0.0], [0.0, 3.0, 0.0], design)
    phasor = np.exp(1j * phase).astype(np.complex64)
    phasor[1, 4], phasor[0, 7], phasor[2] = np.nan, 0.0, 0.0
    result = estimate_arcs(phasor, np.array([[0, 1], [0, 2]]), design)
    assert result.velocity_m_yr[0] == pytest.approx(0.01, abs=2e-4)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.unwrapped_phase[0])), [4, 7])
    assert np.isnan(result.unwrapped_phase[1]).all()
    assert result.temporal_coherence[1] == 0.0


def test_delaunay_edges_of_a_known_figure():
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0], [5.0, 4.0]])
    expected = [[0, 1], [0, 3], [0, 4], [1, 2], [1, 4], [2, 3], [2, 4], [3, 4]]
    np.testing.assert_array_equal(build_arcs(square), expected)
    np.testing.assert_array_equal(build_arcs(square, 6.5), [[0, 4], [1, 4]])
    np.testing.assert_array_equal(build_arcs(square + 4e6), expected)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.zeros((1, 2)), np.zeros((0, 2))),
        (np.array([[0.0, 0.0], [3.0, 4.0]]), [[0, 1]]),
        (np.array([[0.0, 0.0], [9.0, 9.0], [5.0, 5.0]]), [[0, 2], [1, 2]]),
        (np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), [[0, 1], [0, 2], [1, 2]]),
        (np.zeros((3, 2)), [[0, 1], [0, 2]]),
        (np.array([[0.0, 1.0], [5.0, 1.0], [0.0, 1.0], [9.0, 1.0]]), [[0, 1], [0, 2], [1, 3]]),
    ],
)
def test_few_collinear_and_coinciding_points(position, expected):
    np.testing.assert_array_equal(build_arcs(position), expected)


def test_duplicates_hang_on_their_twin():
    rng = np.random.default_rng(6)
    position = rng.uniform(0, 100, (40, 2))
    arcs = build_arcs(np.concatenate((position, position[:5])))
    for twin in range(5):
        np.testing.assert_array_equal(arcs[arcs[:, 1] == 40 + twin], [[twin, 40 + twin]])


def test_grid_points_far_from_the_origin_are_all_connected():
    line, sample = np.meshgrid(np.arange(30), np.arange(30), indexing="ij")
    position = np.column_stack((line.ravel() * 14.0 + 5.2e6, sample.ravel() * 3.7 + 4e5))
    arcs = build_arcs(position)
    assert np.all(np.bincount(arcs.ravel(), minlength=900) >= 2)
    assert np.all(arcs[:, 0] < arcs[:, 1])


def test_wrong_calls_are_refused():
    design = make_design(4, 5, 1.0)
    phasor = np.ones((4, 5), np.complex64)
    with pytest.raises(ValueError, match="outside"):
        estimate_arcs(phasor, np.array([[0, 4]]), design)
    with pytest.raises(ValueError, match="does not fit"):
        estimate_arcs(phasor[:, :4], np.array([[0, 1]]), design)
    with pytest.raises(ValueError, match="positive"):
        estimate_arcs(phasor, np.array([[0, 1]]), design, ArcSearch(0.0, 10.0))
    with pytest.raises(ValueError, match="finite"):
        build_arcs(np.array([[0.0, np.nan]]))


@pytest.mark.benchmark
@pytest.mark.parametrize(("dates", "years"), [(12, 0.4), (30, 1.0)])
def test_rate(dates, years):
    rng = np.random.default_rng(7)
    design = make_design(3000, dates, years)
    phase = phase_of(rng.normal(0, 0.004, 3000), rng.normal(0, 8, 3000), design)
    phasor = np.exp(1j * (phase + 0.4 * rng.standard_normal(phase.shape))).astype(np.complex64)
    arcs = build_arcs(rng.uniform(0, 3000, (3000, 2)))
    estimate_arcs(phasor, arcs[:2], design)
    start = time.process_time()
    estimate_arcs(phasor, arcs, design)
    rate = arcs.shape[0] / (time.process_time() - start)
    print(f"{rate:.0f} arcs of {dates} dates per core-second")
    assert rate > 20_000
