"""Velocity and DEM error: geometry, signs, precision, missing and rank-deficient data."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.timeseries import (
    DATES_MISSING,
    NO_DEM_ERROR,
    NO_SIGMA,
    NO_VELOCITY,
    MotionDesign,
    VelocityOptions,
    displacement_from_phase,
    fit_velocity,
    reference_phase,
    select_reference,
)

WAVELENGTH = 0.0555
FACTOR = 4 * np.pi / (WAVELENGTH * 850e3 * np.sin(0.67))


def make_design(size, dates, seed=0):
    rng = np.random.default_rng(seed)
    years = np.sort(rng.uniform(-1.0, 2.0, dates))
    baseline = rng.uniform(-120, 120, dates) + rng.uniform(-2, 2, (size, 1))
    return MotionDesign(years, baseline.astype(np.float32), np.full(size, FACTOR), WAVELENGTH)


def columns_of(design, p=0):
    return np.column_stack(
        (
            np.ones(design.time_years.size),
            -4 * np.pi / WAVELENGTH * design.time_years,
            -design.height_factor[p] * design.perpendicular_baseline_m[p].astype(float),
        )
    )


def test_signs_and_size_from_exact_distances():
    """Sensor, target and ranges in a plane; nothing of the linearised formulae goes in.

    The target rises and subsides along the line of sight; it stands 8 m higher than the DEM, at the
    same range from the reference sensor. Phases are flattened with the DEM position.
    """
    incidence, slant_range, height, velocity = 0.65, 850e3, 8.0, -0.012
    reference = np.zeros(2)
    look = np.array([np.sin(incidence), -np.cos(incidence)])  # across, up
    on_dem = reference + slant_range * look
    # Higher by h on the circle of equal range around the reference sensor.
    turn = height / (slant_range * np.sin(incidence))
    target = slant_range * np.array([np.sin(incidence + turn), -np.cos(incidence + turn)])
    assert target[1] - on_dem[1] == pytest.approx(height, rel=1e-3)
    rng = np.random.default_rng(0)
    years = np.linspace(0.03, 2.0, 30)
    across = np.array([np.cos(incidence), np.sin(incidence)])  # perpendicular to the look
    baseline = rng.uniform(-150, 150, 30)
    sensors = baseline[:, None] * across + rng.uniform(-60, 60, (30, 1)) * look
    moved = target - np.outer(velocity * years, look)  # towards the satellite = against the look
    measured = np.linalg.norm(moved - sensors, axis=1) - slant_range
    flat = np.linalg.norm(on_dem - sensors, axis=1) - slant_range
    phase = 4 * np.pi / WAVELENGTH * (measured - flat)
    factor = 4 * np.pi / (WAVELENGTH * slant_range * np.sin(incidence))
    design = MotionDesign(years, baseline[None].astype(np.float32), np.array([factor]), WAVELENGTH)
    fit = fit_velocity(phase[None], design)
    assert fit.velocity_m_yr[0] == pytest.approx(velocity, abs=2e-5)
    assert fit.dem_error_m[0] == pytest.approx(height, abs=0.01)
    assert fit.temporal_coherence[0] > 0.9999
    still = fit_velocity(phase[None], design, options=VelocityOptions(estimate_dem_error=False))
    assert still.residual_rms_rad[0] > 20 * fit.residual_rms_rad[0]


def test_displacement_towards_the_satellite_is_positive():
    phase = np.array([-4 * np.pi / WAVELENGTH * 0.01], np.float32)  # 10 mm shorter range
    displacement = displacement_from_phase(phase, WAVELENGTH)
    assert displacement[0] == pytest.approx(0.01)
    assert displacement.dtype == np.float32


@pytest.mark.parametrize("weighted", [False, True])
def test_sigma_is_calibrated(weighted):
    rng = np.random.default_rng(1)
    size, dates = 4000, 40
    design = make_design(size, dates)
    velocity, height = rng.normal(0, 0.01, size), rng.normal(0, 8, size)
    sigma = rng.uniform(0.2, 1.2, dates) if weighted else np.full(dates, 0.5)
    phase = (
        rng.normal(0, 1, (size, 1))
        - 4 * np.pi / WAVELENGTH * np.outer(velocity, design.time_years)
        - FACTOR * design.perpendicular_baseline_m * height[:, None]
        + sigma * rng.standard_normal((size, dates))
    )
    fit = fit_velocity(phase, design, sigma**-2.0 if weighted else None)
    z = (fit.velocity_m_yr - velocity) / fit.velocity_sigma_m_yr
    assert abs(z.mean()) < 0.06
    assert z.std() == pytest.approx(1.0, abs=0.07)  # Student t with 37: 1.027
    z = (fit.dem_error_m - height) / fit.dem_error_sigma_m
    assert z.std() == pytest.approx(1.0, abs=0.07)
    weight = np.diag(sigma**-2.0)
    columns = columns_of(design)
    theory = np.linalg.inv(columns.T @ weight @ columns)
    assert np.std(fit.velocity_m_yr - velocity) == pytest.approx(theory[1, 1] ** 0.5, rel=0.06)
    assert np.all(fit.flags == 0)
    if not weighted:
        assert np.mean(fit.residual_rms_rad) == pytest.approx(0.5 * np.sqrt(37 / 40), rel=0.02)
        assert np.mean(fit.temporal_coherence) == pytest.approx(np.exp(-(0.5**2) / 2), abs=0.02)


def test_equals_dense_weighted_least_squares_with_gaps():
    rng = np.random.default_rng(2)
    design = make_design(50, 15)
    phase, weight = rng.normal(0, 3, (50, 15)), rng.uniform(0.2, 3, (50, 15))
    phase[rng.random((50, 15)) < 0.2] = np.nan
    weight[rng.random((50, 15)) < 0.1] = rng.choice([0.0, np.nan])
    fit = fit_velocity(phase, design, weight)
    for p in range(50):
        used = np.isfinite(phase[p]) & (weight[p] > 0)
        columns, root = columns_of(design, p)[used], np.sqrt(weight[p, used])
        expected = np.linalg.lstsq(root[:, None] * columns, root * phase[p, used], rcond=None)[0]
        residual = phase[p, used] - columns @ expected
        variance = np.sum(weight[p, used] * residual**2) / (used.sum() - 3)
        covariance = variance * np.linalg.inv(columns.T @ (root[:, None] ** 2 * columns))
        found = (fit.intercept_rad[p], fit.velocity_m_yr[p], fit.dem_error_m[p])
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(fit.covariance[p], covariance, rtol=1e-6, atol=1e-12)
        assert fit.residual_rms_rad[p] == pytest.approx(np.sqrt(np.mean(residual**2)))
        assert fit.temporal_coherence[p] == pytest.approx(abs(np.mean(np.exp(1j * residual))))
        assert fit.flags[p] == (0 if used.all() else DATES_MISSING)


def test_full_covariance_between_dates():
    rng = np.random.default_rng(3)
    size, dates = 3000, 25
    design = make_design(size, dates)
    lag = np.abs(design.time_years[:, None] - design.time_years)
    covariance = 0.4**2 * np.exp(-lag / 0.5) + 0.1**2 * np.eye(dates)
    noise = rng.standard_normal((size, dates)) @ np.linalg.cholesky(covariance).T
    noise[::3, 4] = np.nan
    options = VelocityOptions(scale_by_residual=False, date_covariance=covariance)
    fit = fit_velocity(noise, design, options=options)
    z = fit.velocity_m_yr / fit.velocity_sigma_m_yr
    assert z.std() == pytest.approx(1.0, abs=0.06)
    naive = fit_velocity(noise, design)
    assert np.std(naive.velocity_m_yr / naive.velocity_sigma_m_yr) > 1.4
    used = np.arange(dates) != 4
    columns, inverse = columns_of(design)[used], np.linalg.inv(covariance[np.ix_(used, used)])
    normal = columns.T @ inverse @ columns
    expected = np.linalg.solve(normal, columns.T @ inverse @ noise[0, used])
    found = (fit.intercept_rad[0], fit.velocity_m_yr[0], fit.dem_error_m[0])
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    np.testing.assert_allclose(fit.covariance[0], np.linalg.inv(normal), rtol=1e-8)


def test_given_weights_can_be_taken_as_they_are():
    design = make_design(1, 12)
    fit = fit_velocity(np.zeros((1, 12)), design, np.full(12, 4.0), VelocityOptions(True, False))
    columns = columns_of(design)
    np.testing.assert_allclose(fit.covariance[0], np.linalg.inv(4.0 * columns.T @ columns))
    scaled = fit_velocity(np.zeros((1, 12)), design, np.full(12, 4.0))
    assert scaled.velocity_sigma_m_yr[0] == 0.0


@pytest.mark.parametrize(
    ("dates", "flags"),
    [
        (1, NO_DEM_ERROR | NO_VELOCITY | NO_SIGMA),
        (2, NO_DEM_ERROR | NO_SIGMA),
        (3, NO_DEM_ERROR),
        (4, 0),
    ],
)
def test_few_dates(dates, flags):
    design = make_design(2, dates)
    phase = np.stack((-4 * np.pi / WAVELENGTH * 0.01 * design.time_years, np.zeros(dates)))
    fit = fit_velocity(phase, design)
    assert np.all(fit.flags == flags)
    assert np.isnan(fit.velocity_m_yr).all() == bool(flags & NO_VELOCITY)
    assert np.isnan(fit.dem_error_m).all() == bool(flags & NO_DEM_ERROR)
    assert np.isnan(fit.velocity_sigma_m_yr).all() == bool(flags & NO_SIGMA)
    if dates > 1:
        np.testing.assert_allclose(fit.velocity_m_yr, [0.01, 0.0], atol=1e-12)


def test_regular_revisit_constant_baseline_and_equal_dates():
    design = make_design(3, 10)._replace(time_years=np.arange(1, 11) * 12 / 365.25)
    baseline = np.repeat(design.perpendicular_baseline_m[:1], 3, axis=0)
    baseline[1] = 55.0
    baseline[2] = 1000.0 * design.time_years  # a trend in time cannot be told from velocity
    design = design._replace(perpendicular_baseline_m=baseline)
    phase = np.repeat(-4 * np.pi / WAVELENGTH * 0.02 * design.time_years[None], 3, axis=0)
    fit = fit_velocity(phase, design)
    np.testing.assert_array_equal(fit.flags, [0, NO_DEM_ERROR, NO_DEM_ERROR])
    np.testing.assert_allclose(fit.velocity_m_yr, 0.02, atol=1e-10)
    same = design._replace(time_years=np.full(10, 0.3))
    fit = fit_velocity(phase, same)
    np.testing.assert_array_equal(fit.flags & NO_VELOCITY, NO_VELOCITY)
    assert np.isnan(fit.velocity_m_yr).all()
    assert np.isfinite(fit.dem_error_m[0])


def test_nothing_valid_and_nobody():
    design = make_design(2, 6)
    phase = np.zeros((2, 6))
    phase[0] = np.nan
    fit = fit_velocity(phase, design)
    assert fit.flags[0] == NO_DEM_ERROR | NO_VELOCITY | NO_SIGMA | DATES_MISSING
    assert np.isnan([field[0] for field in fit[:7]]).all()
    assert fit.velocity_m_yr[1] == 0.0
    assert fit_velocity(np.zeros((0, 6)), make_design(0, 6)).velocity_m_yr.shape == (0,)
    options = VelocityOptions(date_covariance=np.eye(6))
    both = fit_velocity(phase, design, options=options)
    np.testing.assert_array_equal(both.flags, fit.flags)


def test_result_does_not_depend_on_the_chunk():
    rng = np.random.default_rng(4)
    design = make_design(101, 17)
    phase = rng.normal(0, 2, (101, 17))
    phase[rng.random(phase.shape) < 0.05] = np.nan
    for options in (VelocityOptions(), VelocityOptions(date_covariance=np.eye(17) + 0.3)):
        whole = fit_velocity(phase, design, options=options)
        part = design._replace(
            perpendicular_baseline_m=design.perpendicular_baseline_m[33:60],
            height_factor=design.height_factor[33:60],
        )
        for left, right in zip(
            fit_velocity(phase[33:60], part, options=options), whole, strict=True
        ):
            np.testing.assert_array_equal(left, right[33:60])


def test_reference_area_is_the_densest_cluster_of_the_best():
    rng = np.random.default_rng(5)
    scattered = rng.uniform(0, 10_000, (400, 2))
    dense_bad = rng.normal((2000, 2000), 30, (80, 2))
    dense_good = rng.normal((7000, 3000), 40, (40, 2))
    position = np.concatenate((scattered, dense_bad, dense_good))
    quality = np.concatenate((rng.uniform(0.5, 0.8, 400), np.full(80, 0.4), np.full(40, 0.95)))
    chosen = select_reference(position, quality, 150.0)
    assert np.all(chosen >= 480)
    assert chosen.size >= 38
    assert np.all(np.diff(chosen) > 0)
    order = rng.permutation(520)
    np.testing.assert_array_equal(
        np.sort(order[select_reference(position[order], quality[order], 150.0)]), chosen
    )
    quality[480:] = np.nan  # for instance another component of the network
    assert np.all(select_reference(position, quality, 150.0) < 480)


def test_reference_area_of_very_few():
    assert select_reference(np.zeros((0, 2)), np.zeros(0), 100.0).size == 0
    assert select_reference(np.zeros((3, 2)), np.full(3, np.nan), 100.0).size == 0
    np.testing.assert_array_equal(select_reference(np.zeros((1, 2)), np.ones(1), 100.0), [0])
    far = np.array([[0.0, 0.0], [1e4, 0.0], [2e4, 0.0]])
    np.testing.assert_array_equal(select_reference(far, np.array([0.1, 0.5, 0.5]), 9.0, 1.0), [1])
    with pytest.raises(ValueError, match="radius_m"):
        select_reference(far, np.ones(3), 0.0)


def test_reference_phase_of_values_and_of_phasors():
    phase = np.array([[3.0, 1.0, np.nan], [-3.0, 3.0, np.nan], [1.0, 0.0, 2.0]])
    area = np.array([0, 1])
    values = reference_phase(phase, area)
    np.testing.assert_allclose(values[:, :2], phase[:, :2] - [0.0, 2.0])
    assert np.isnan(values[:, 2]).all()
    wrapped = reference_phase(phase, area, is_wrapped=True)  # around pi, not around 0
    np.testing.assert_allclose(wrapped[:, 0], [3.0 - np.pi, np.pi - 3.0, 1.0 - np.pi], atol=1e-12)
    assert np.all((wrapped[:, :2] > -np.pi) & (wrapped[:, :2] <= np.pi))
    weighted = reference_phase(phase, area, np.array([3.0, 1.0]))
    np.testing.assert_allclose(weighted[:, 1], phase[:, 1] - 1.5)
    with pytest.raises(ValueError, match="weights"):
        reference_phase(phase, area, np.ones(3))


def test_wrong_calls_are_refused():
    design = make_design(2, 6)
    with pytest.raises(ValueError, match="does not fit"):
        fit_velocity(np.zeros((2, 5)), design)
    options = VelocityOptions(date_covariance=np.eye(6))
    with pytest.raises(ValueError, match="not both"):
        fit_velocity(np.zeros((2, 6)), design, np.ones(6), options)
