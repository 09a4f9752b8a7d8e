"""Lines of sight: the triangle satellite - point - Earth's centre, and ESA's incidence angles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import look_vectors, rdr2geo_at_height
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit, fit_orbit


def test_satellite_straight_above_and_to_the_east() -> None:
    # The satellite stands over (latitude 0, longitude 0); points west of it see it in the east.
    powers = np.zeros((8, 3))
    powers[0, 0] = 7e6
    powers[1, 2] = 1.0
    orbit = OrbitPolynomial(0.0, 1.0, powers)
    longitude = np.array([[0.0, -0.05]])
    vectors, incidence = look_vectors(
        orbit, np.zeros(1), np.zeros((1, 2)), longitude, np.zeros((1, 2), np.float32)
    )
    np.testing.assert_allclose(vectors[:, 0, 0], [0.0, 0.0, 1.0], atol=1e-6)
    x = 7e6 * np.cos(0.05) - 6_378_137.0
    y = 7e6 * np.sin(0.05)
    np.testing.assert_allclose(vectors[:, 0, 1], np.array([y, 0.0, x]) / np.hypot(x, y), atol=1e-6)
    assert incidence[0, 1] == pytest.approx(np.arctan2(y, x), abs=1e-6)


def test_walks_from_the_ground_to_the_satellite(orbit_states: Callable) -> None:
    times = np.arange(-60.0, 70.0, 10.0)
    orbit = fit_orbit(times, *orbit_states(times)[:2], 0.0, 3.0)
    time_s = np.array([0.2, 1.4])
    range_m = np.array([8.2e5, 9e5, 9.6e5])
    grid = np.meshgrid(time_s, range_m, indexing="ij")
    height = np.full((2, 3), 700.0, np.float32)
    latitude, longitude = (
        axis.reshape(2, 3)
        for axis in rdr2geo_at_height(orbit, grid[0].ravel(), grid[1].ravel(), np.full(6, 700.0))
    )
    vectors, incidence = look_vectors(orbit, time_s, latitude, longitude, height)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1.0, atol=1e-6)
    # Step 1000 m along the vector in latitude, longitude and height: the range shrinks by that.
    step = 1000.0 * vectors.astype(np.float64)
    ground = np.stack(geodetic_to_ecef(latitude, longitude, height.astype(np.float64)), axis=-1)
    east = np.stack([-np.sin(longitude), np.cos(longitude), np.zeros_like(longitude)], axis=-1)
    up = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude),
         np.sin(latitude)], axis=-1,
    )  # fmt: skip
    north = np.cross(up, east)
    axes = (east, north, up)
    moved = ground + sum(step[k][..., np.newaxis] * axis for k, axis in enumerate(axes))
    place, _, _ = orbit_states(time_s)
    left = np.linalg.norm(moved - place[:, np.newaxis], axis=-1)
    np.testing.assert_allclose(grid[1] - left, 1000.0, atol=1e-3)
    assert (np.abs(np.cos(incidence) - vectors[2]) < 1e-6).all()


def test_directions_anywhere_on_earth(orbit_states: Callable) -> None:
    # Against numpy's own trigonometry, also where the satellite is below the horizon.
    times = np.arange(-60.0, 70.0, 10.0)
    orbit = fit_orbit(times, *orbit_states(times)[:2], 0.0, 3.0)
    generator = np.random.default_rng(7)
    latitude = np.arcsin(generator.uniform(-1.0, 1.0, (3, 400)))
    longitude = generator.uniform(-np.pi, np.pi, (3, 400))
    latitude[0, :4] = np.pi / 2, -np.pi / 2, 0.0, 1e-9
    longitude[0, :4] = np.pi, -np.pi, np.pi / 2, 0.0
    height = generator.uniform(-400.0, 8800.0, (3, 400)).astype(np.float32)
    time_s = np.array([0.1, 1.5, 2.9])
    vectors, incidence = look_vectors(orbit, time_s, latitude, longitude, height)
    place, _, _ = evaluate_orbit(orbit, time_s)
    ground = np.stack(geodetic_to_ecef(latitude, longitude, height.astype(np.float64)), axis=-1)
    sight = place[:, np.newaxis] - ground
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
    zero = np.zeros_like(longitude)
    east = np.stack([-np.sin(longitude), np.cos(longitude), zero], axis=-1)
    up = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude),
         np.sin(latitude)], axis=-1,
    )  # fmt: skip
    for found, axis in zip(vectors, (east, np.cross(up, east), up), strict=True):
        assert np.abs(found - np.sum(sight * axis, axis=-1)).max() < 1.5e-7
    expected = np.arccos(np.sum(sight * up, axis=-1))
    assert (expected > np.pi / 2).any()
    assert np.abs(incidence - expected).max() < 3e-7


def test_unknown_positions_stay_unknown() -> None:
    orbit = OrbitPolynomial(0.0, 1.0, np.eye(8, 3) * 7e6)
    nothing = np.full((1, 2), np.nan)
    vectors, incidence = look_vectors(
        orbit, np.zeros(1), nothing, nothing, nothing.astype(np.float32)
    )
    assert np.isnan(vectors).all()
    assert np.isnan(incidence).all()


@pytest.mark.realdata
def test_incidence_agrees_with_the_annotation(annotations: Callable) -> None:
    # ESA's incidence angle is measured from the geocentric radius (to 4e-9 degrees), ours from the
    # normal of the ellipsoid: up to 0.04 degrees apart. The vectors are turned accordingly.
    products = annotations("slc-vv-20230916") + annotations("slc-vv-20220929")
    assert len(products) >= 4
    for product in products:
        grid = product.geolocation_grid()
        start, stop = grid[:, 0].min(), grid[:, 0].max()
        orbit = fit_orbit(product.time_s, product.position, product.velocity, start, stop)
        latitude, longitude = np.radians(grid[:, 2:3]), np.radians(grid[:, 3:4])
        height = grid[:, 4:5].astype(np.float32)
        vectors, incidence = look_vectors(orbit, grid[:, 0].copy(), latitude, longitude, height)
        ground = np.stack(geodetic_to_ecef(latitude, longitude, grid[:, 4:5]))
        radius = np.linalg.norm(ground, axis=0)
        geocentric = np.arcsin(ground[2] / radius)
        tilt = latitude - geocentric
        cosine = vectors[2] * np.cos(tilt) - vectors[1] * np.sin(tilt)
        found = np.degrees(np.arccos(cosine))[:, 0]
        np.testing.assert_allclose(found, grid[:, 5], atol=2e-5)
        assert np.abs(np.degrees(incidence[:, 0]) - grid[:, 5]).max() < 0.05
