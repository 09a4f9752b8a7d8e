"""Radar pixels on a height grid: consistency, accuracy, layover, edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import geo2rdr, rdr2geo, rdr2geo_at_height
from bperp.kernels.orbit import OrbitPolynomial, fit_orbit
from bperp.kernels.terrain import DEM_OUTSIDE, DEM_VOID, GOOD

TIMES = np.arange(-60.0, 70.0, 10.0)
LINE_S = 2.0555563e-3
PIXEL_M = 2.3295621
AZIMUTH_S = np.arange(0.0, 60.0) * LINE_S
RANGE_M = 8.4e5 + np.arange(3000.0) * PIXEL_M


@pytest.fixture(scope="module")
def orbit(orbit_states: Callable) -> OrbitPolynomial:
    return fit_orbit(TIMES, *orbit_states(TIMES)[:2], -1.0, 4.0)


def grid_around(
    orbit: OrbitPolynomial, step_deg: float = 1e-3
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float, float]]:
    """Return north-up latitudes and longitudes (deg) around the scene, and the origin."""
    corners = np.meshgrid(AZIMUTH_S[[0, -1]], RANGE_M[[0, -1]], [-500.0, 9000.0])
    latitude, longitude = rdr2geo_at_height(orbit, *(axis.ravel() for axis in corners))
    # Ascending far from the antimeridian here; the antimeridian has its own test.
    north, south = np.degrees(latitude.max()) + 0.03, np.degrees(latitude.min()) - 0.03
    west, east = np.degrees(longitude.min()) - 0.03, np.degrees(longitude.max()) + 0.03
    latitudes = np.arange(north, south, -step_deg)
    longitudes = np.arange(west, east, step_deg)
    return latitudes, longitudes, (north, west, -step_deg, step_deg)


def rough_heights(shape: tuple[int, int], relief_m: float) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(5).normal(size=shape), 12)
    field = (field - field.min()) / np.ptp(field)
    return (field * relief_m).astype(np.float32)


def test_flat_grid_gives_points_of_that_height(orbit: OrbitPolynomial) -> None:
    latitudes, longitudes, origin = grid_around(orbit, 0.01)
    heights = np.full((latitudes.size, longitudes.size), 1234.5, np.float32)
    latitude, longitude, height, status = rdr2geo(orbit, AZIMUTH_S[:5], RANGE_M, heights, origin)
    assert (status == GOOD).all()
    assert (height == np.float32(1234.5)).all()
    time_s, range_m = np.meshgrid(AZIMUTH_S[:5], RANGE_M, indexing="ij")
    exact = rdr2geo_at_height(orbit, time_s.ravel(), range_m.ravel(), np.full(time_s.size, 1234.5))
    assert np.abs(latitude.ravel() - exact[0]).max() * 6.4e6 < 2e-8
    assert np.abs(longitude.ravel() - exact[1]).max() * 6.4e6 < 2e-8


@pytest.mark.parametrize("latitude_rad", [0.7, 1.5, 1.57])
def test_exact_in_all_periods_up_to_high_latitudes(
    orbit_states: Callable, latitude_rad: float
) -> None:
    # Arcs are solved at nodes of periods of half a second; 1.57 is the northernmost point.
    position, velocity, _ = orbit_states(TIMES, latitude_rad=latitude_rad)
    orbit = fit_orbit(TIMES, position, velocity, -1.0, 4.0)
    time_s, range_m = np.array([-0.8, -0.001, 0.0, 0.49, 0.51, 3.9]), RANGE_M[::300]
    grid = np.meshgrid(time_s, range_m, indexing="ij")
    level = np.full(grid[0].size, 4321.0)
    exact = rdr2geo_at_height(orbit, grid[0].ravel(), grid[1].ravel(), level)
    heights = np.full((1800, 3600), 4321.0, np.float32)
    origin = (89.95, -179.95, -0.1, 0.1)
    latitude, longitude, _, status = rdr2geo(orbit, time_s, range_m, heights, origin)
    assert (status == GOOD).all()
    found = np.stack(geodetic_to_ecef(latitude.ravel(), longitude.ravel(), level))
    expected = np.stack(geodetic_to_ecef(*exact, level))
    assert np.linalg.norm(found - expected, axis=0).max() < 2e-8


@pytest.mark.parametrize("cubic", [False, True])
def test_round_trip_and_height_on_rough_ground(orbit: OrbitPolynomial, cubic: bool) -> None:
    latitudes, longitudes, origin = grid_around(orbit)
    heights = rough_heights((latitudes.size, longitudes.size), 2500.0)
    latitude, longitude, height, status = rdr2geo(
        orbit, AZIMUTH_S, RANGE_M, heights, origin, cubic=cubic
    )
    assert (status == GOOD).all()
    points = geodetic_to_ecef(latitude.ravel(), longitude.ravel(), height.ravel())
    time_s, range_m = geo2rdr(orbit, *points, 0.1)
    time_s, range_m = time_s.reshape(latitude.shape), range_m.reshape(latitude.shape)
    assert np.abs(time_s - AZIMUTH_S[:, np.newaxis]).max() / LINE_S < 1e-8
    assert np.abs(range_m - RANGE_M).max() / PIXEL_M < 1e-8
    if not cubic:
        rows = (np.degrees(latitude) - origin[0]) / origin[2]
        columns = (np.degrees(longitude) - origin[1]) / origin[3]
        expected = bilinear(heights, rows, columns)
        assert np.abs(expected - height).max() < 1e-3


def bilinear(heights: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    r, c = rows.astype(int), columns.astype(int)
    values = heights.astype(np.float64)
    down, across = rows - r, columns - c
    upper = values[r, c] * (1 - across) + values[r, c + 1] * across
    lower = values[r + 1, c] * (1 - across) + values[r + 1, c + 1] * across
    return np.asarray(upper * (1 - down) + lower * down)


def test_cubic_convolution_repeats_a_parabola(orbit: OrbitPolynomial) -> None:
    latitudes, longitudes, origin = grid_around(orbit, 0.005)

    def surface(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        a, b = latitude - latitudes.mean(), longitude - longitudes.mean()
        return np.asarray(500.0 + 8e3 * a**2 - 6e3 * b**2 + 3e3 * a * b)

    heights = surface(latitudes[:, np.newaxis], longitudes).astype(np.float32)
    latitude, longitude, height, status = rdr2geo(
        orbit, AZIMUTH_S[:5], RANGE_M, heights, origin, cubic=True
    )
    assert (status == GOOD).all()
    expected = surface(np.degrees(latitude), np.degrees(longitude))
    assert np.abs(expected - height).max() < 2e-3


def test_layover_is_solved_and_repeatable(orbit: OrbitPolynomial) -> None:
    # Steps of 1500 m within 300 m of ground: up to five solutions for one range.
    latitudes, longitudes, origin = grid_around(orbit)
    wave = 750.0 * (1.0 + np.sign(np.sin(2 * np.pi * longitudes / 0.03)))
    heights = np.broadcast_to(wave, (latitudes.size, longitudes.size)).astype(np.float32)
    results = [rdr2geo(orbit, AZIMUTH_S[:8], RANGE_M, heights, origin) for _ in range(2)]
    latitude, longitude, height, status = results[0]
    assert (status == GOOD).all()
    rows = (np.degrees(latitude) - origin[0]) / origin[2]
    columns = (np.degrees(longitude) - origin[1]) / origin[3]
    assert np.abs(bilinear(heights, rows, columns) - height).max() < 0.02  # walls of 85 degrees
    np.testing.assert_array_equal(height, results[1][2])


def test_tiles_give_the_same_bytes(orbit: OrbitPolynomial) -> None:
    latitudes, longitudes, origin = grid_around(orbit)
    heights = rough_heights((latitudes.size, longitudes.size), 2500.0)
    whole = rdr2geo(orbit, AZIMUTH_S, RANGE_M, heights, origin)
    part = rdr2geo(orbit, AZIMUTH_S[17:31], RANGE_M[701:2222], heights, origin)
    for first, second in zip(whole, part, strict=True):
        np.testing.assert_array_equal(first[17:31, 701:2222], second)


def test_lines_of_several_periods_give_the_same_bytes(orbit: OrbitPolynomial) -> None:
    latitudes, longitudes, origin = grid_around(orbit)
    heights = rough_heights((latitudes.size, longitudes.size), 2500.0)
    time_s = np.arange(-5, 5) * 0.01  # the middle one begins a new period
    whole = rdr2geo(orbit, time_s, RANGE_M[:500], heights, origin)
    for start, stop in ((0, 3), (3, 7), (7, 10)):
        part = rdr2geo(orbit, time_s[start:stop], RANGE_M[:500], heights, origin)
        for first, second in zip(whole, part, strict=True):
            np.testing.assert_array_equal(first[start:stop], second)
    assert np.abs(np.diff(whole[0], n=2, axis=0)).max() * 6.4e6 < 5.0


@pytest.mark.parametrize("step_deg", [1e-3, 2e-4])
def test_steep_ground_converges(orbit: OrbitPolynomial, step_deg: float) -> None:
    # White noise from node to node: few pixels converge in the steps that all make together.
    latitudes, longitudes, origin = grid_around(orbit, step_deg)
    shape = (latitudes.size, longitudes.size)
    heights = np.random.default_rng(8).uniform(0.0, 30.0, shape).astype(np.float32)
    latitude, longitude, height, status = rdr2geo(
        orbit, AZIMUTH_S[:4], RANGE_M[:1500], heights, origin
    )
    assert (status == GOOD).all()
    rows = (np.degrees(latitude) - origin[0]) / origin[2]
    columns = (np.degrees(longitude) - origin[1]) / origin[3]
    assert np.abs(bilinear(heights, rows, columns) - height).max() < 2e-3


def test_outside_and_void_are_told_apart(orbit: OrbitPolynomial) -> None:
    latitudes, longitudes, origin = grid_around(orbit)
    heights = np.full((latitudes.size, longitudes.size), 100.0, np.float32)
    middle = longitudes.size // 2
    cut = rdr2geo(orbit, AZIMUTH_S[:3], RANGE_M, heights[:, :middle].copy(), origin)
    inside = np.isfinite(cut[0])
    assert set(np.unique(cut[3])) == {GOOD, DEM_OUTSIDE}
    np.testing.assert_array_equal(inside, cut[3] == GOOD)
    assert np.degrees(cut[1][inside]).max() <= longitudes[middle - 1] + 1e-12
    heights[:, middle:] = np.nan
    void = rdr2geo(orbit, AZIMUTH_S[:3], RANGE_M, heights, origin)
    assert set(np.unique(void[3])) == {GOOD, DEM_VOID}
    assert np.isnan(void[2][void[3] == DEM_VOID]).all()
    np.testing.assert_array_equal(void[3] == GOOD, inside)


@pytest.mark.parametrize("turn", [-np.pi, np.pi])
def test_antimeridian(orbit_states: Callable, orbit: OrbitPolynomial, turn: float) -> None:
    latitudes, longitudes, origin = grid_around(orbit, 0.01)
    heights = rough_heights((latitudes.size, longitudes.size), 500.0)
    plain = rdr2geo(orbit, AZIMUTH_S[:3], RANGE_M, heights, origin)
    # The whole scene, turned so that it straddles 180 degrees; the grid's longitudes exceed 180
    # or fall below -180.
    shift = np.sign(turn) * np.pi - np.radians(longitudes.mean())
    turned = fit_orbit(TIMES, *orbit_states(TIMES, turn_rad=shift)[:2], -1.0, 4.0)
    moved = (origin[0], origin[1] + np.degrees(shift), origin[2], origin[3])
    _, longitude, height, status = rdr2geo(turned, AZIMUTH_S[:3], RANGE_M, heights, moved)
    assert (status == GOOD).all()
    np.testing.assert_allclose(height, plain[2], atol=1e-3)
    assert (np.abs(longitude) <= np.pi).all()
    assert longitude.min() < -3.0
    assert longitude.max() > 3.0
    gap = np.angle(np.exp(1j * (longitude - shift - plain[1])))
    assert np.abs(gap).max() * 6.4e6 < 1e-3


def test_refuses_nonsense(orbit: OrbitPolynomial) -> None:
    heights = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="at least 2"):
        rdr2geo(orbit, AZIMUTH_S, RANGE_M, heights[:1], (0.0, 0.0, -1.0, 1.0))
    with pytest.raises(ValueError, match="increase"):
        rdr2geo(orbit, AZIMUTH_S, RANGE_M[::-1], heights, (0.0, 0.0, -1.0, 1.0))
