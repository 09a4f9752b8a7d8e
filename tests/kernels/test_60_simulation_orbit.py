"""Orbit and geometry of the simulator against ESA's own numbers and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from lxml import etree

from bperp.kernels.simulation.orbit import (
    NODAL_PERIOD_S,
    SPEED_OF_LIGHT_M_S,
    evaluate_orbit,
    fit_orbit,
    geodetic_to_ecef,
    intersect_ellipsoid,
    local_axes,
    propagate,
    zero_doppler,
)
from bperp.kernels.simulation.passage import (
    NODE_STATE,
    displace_state,
    perpendicular_baseline,
    place_orbit,
    turn_about_axis,
)

PLACE = (np.radians(31.2), np.radians(-8.6), 500.0)
RANGE_M = 830e3


def _ns(text):
    return np.datetime64(text.removeprefix("UTC="), "ns").astype(np.int64)


def _annotation(path):
    """State vectors and geolocation grid, seconds from the first burst."""
    root = etree.parse(path).getroot()
    epoch = _ns(root.findtext(".//burst/azimuthTime"))
    times, states = [], []
    for v in root.iterfind(".//orbit"):
        times.append((_ns(v.findtext("time")) - epoch) * 1e-9)
        states.append(
            [float(v.findtext(f"{k}/{a}")) for k in ("position", "velocity") for a in "xyz"]
        )
    names = ("slantRangeTime", "latitude", "longitude", "height")
    grid = [
        [(_ns(p.findtext("azimuthTime")) - epoch) * 1e-9, *(float(p.findtext(n)) for n in names)]
        for p in root.iterfind(".//geolocationGridPoint")
    ]
    return np.array(times), np.array(states), np.array(grid)


@pytest.mark.realdata
@pytest.mark.parametrize("date", ["20230904", "20230916"])
def test_reproduces_the_real_geolocation_grid(real_data, date):
    folder = real_data / "eo_tools-morocco-2023" / "S1"
    paths = sorted(folder.glob(f"S1A*1SDV_{date}T*/annotation/s1a-iw*.xml"))
    assert len(paths) == 3
    for path in paths:
        times, states, grid = _annotation(path)
        orbit = fit_orbit(times, states)
        ground = geodetic_to_ecef(np.radians(grid[:, 2]), np.radians(grid[:, 3]), grid[:, 4])
        time, distance = zero_doppler(orbit, ground, grid[:, 0])
        assert np.abs(time - grid[:, 0]).max() < 2.5e-6
        assert np.abs(distance - 0.5 * SPEED_OF_LIGHT_M_S * grid[:, 1]).max() < 3e-4
        start = np.radians([31.0, -9.0])
        place = intersect_ellipsoid(orbit, time, distance, grid[:, 4], start)
        np.testing.assert_allclose(np.degrees(place).T, grid[:, 2:4], atol=1e-9)


@pytest.mark.realdata
def test_follows_a_real_precise_orbit(real_data):
    path = next((real_data / "s1-reader-safe-orbits/orbits").glob("*POEORB*V20220928*.EOF"))
    vectors = etree.parse(path).getroot().findall(".//OSV")[40:61]
    times = np.array([float(_ns(v.findtext("UTC")) % 10**14) * 1e-9 for v in vectors])
    states = np.array(
        [[float(v.findtext(k)) for k in ("X", "Y", "Z", "VX", "VY", "VZ")] for v in vectors]
    )
    carried = propagate(states[10], float(times[10]), times)
    error = np.linalg.norm(carried[:, :3] - states[:, :3], axis=1)
    # What the field beyond J2 does in 100 s: some 1e-4 m/s2.
    assert error.max() < 2.0
    assert error[9:12].max() < 0.02
    # Vectors left out of a fit are met to their noise.
    fitted = fit_orbit(times[::2], states[::2])
    position, velocity, _ = evaluate_orbit(fitted, times[1:-1:2])
    assert np.abs(position - states[1:-1:2, :3]).max() < 5e-3
    assert np.abs(velocity - states[1:-1:2, 3:]).max() < 6e-4


def test_propagation_keeps_the_jacobi_constant():
    states = propagate(NODE_STATE, 0.0, np.linspace(0.0, 3000.0, 7))
    x, y, z, *velocity = states.T
    radius = np.sqrt(x**2 + y**2 + z**2)
    potential = 3.986004418e14 / radius
    potential *= 1 - 1.08262668e-3 * (6378137.0 / radius) ** 2 * (1.5 * (z / radius) ** 2 - 0.5)
    constant = 0.5 * np.sum(np.square(velocity), axis=0) - potential
    constant -= 0.5 * 7.292115e-5**2 * (x**2 + y**2)
    assert np.ptp(constant) / abs(constant[0]) < 1e-12


def test_orbit_is_that_of_sentinel_1():
    states = propagate(NODE_STATE, 0.0, np.array([0.0, 1500.0, NODAL_PERIOD_S]))
    height = np.linalg.norm(states[:, :3], axis=1) - 6371e3
    assert np.all((height > 685e3) & (height < 730e3))
    assert states[2, 2] == pytest.approx(0.0, abs=3000.0)  # back at the node after 98.7 minutes
    west = np.degrees(np.arctan2(states[2, 1], states[2, 0]))
    assert west == pytest.approx(-360.0 * 12.0 / 175.0, abs=0.05)


def _orbits(perpendicular=0.0, parallel=0.0, ascending=False):
    time, state = place_orbit(*PLACE, RANGE_M, ascending)
    target = geodetic_to_ecef(*(np.float64(v) for v in PLACE))
    times = time + np.arange(-12.0, 12.5, 1.5)
    other = displace_state(state, target, perpendicular, parallel)
    reference = fit_orbit(times, propagate(state, time, times))
    return time, state, target, reference, fit_orbit(times, propagate(other, time, times))


@pytest.mark.parametrize("ascending", [False, True])
def test_places_the_orbit_on_the_left_of_the_scene(ascending):
    time, state, target, orbit, _ = _orbits(ascending=ascending)
    found, distance = zero_doppler(orbit, target[None], np.array([time + 0.5]))
    assert found[0] == pytest.approx(time, abs=1e-9)
    assert distance[0] == pytest.approx(RANGE_M, abs=1e-6)
    assert (state[5] > 0.0) == ascending
    right = np.cross(state[3:], state[:3])
    assert (target - state[:3]) @ right > 0.0
    east, north, _ = local_axes(np.float64(PLACE[0]), np.float64(PLACE[1]))
    heading = np.degrees(np.arctan2(state[3:] @ east, state[3:] @ north))
    wanted = -12.0 if ascending else -168.0
    assert heading == pytest.approx(wanted, abs=3.0)


def test_zero_doppler_is_the_shortest_distance():
    time, _, target, orbit, _ = _orbits()
    times = time + np.linspace(-0.01, 0.01, 20001)
    position, _, _ = evaluate_orbit(orbit, times)
    distance = np.linalg.norm(position - target, axis=1)
    found, shortest = zero_doppler(orbit, target[None], np.array([time + 2.0]))
    assert distance.min() == pytest.approx(shortest[0], abs=1e-7)
    assert times[np.argmin(distance)] == pytest.approx(found[0], abs=2e-5)


def test_polynomials_differentiate_themselves():
    time, _, _, orbit, _ = _orbits()
    at = np.array([time - 3.0, time, time + 3.0])
    _, velocity, acceleration = evaluate_orbit(orbit, at)
    early, late = evaluate_orbit(orbit, at - 0.01), evaluate_orbit(orbit, at + 0.01)
    np.testing.assert_allclose((late[0] - early[0]) / 0.02, velocity, atol=1e-5)
    np.testing.assert_allclose((late[1] - early[1]) / 0.02, acceleration, atol=1e-6)


@pytest.mark.parametrize(("perpendicular", "parallel"), [(100.0, 0.0), (-60.0, 40.0), (0.0, 50.0)])
def test_perpendicular_baseline(perpendicular, parallel):
    time, _, target, reference, other = _orbits(perpendicular, parallel)
    measured = perpendicular_baseline(reference, other, target[None], np.array([time]))
    assert measured[0] == pytest.approx(perpendicular, abs=0.02)
    shift = zero_doppler(other, target[None], np.array([time]))[1][0] - RANGE_M
    wanted = -parallel + 0.5 * perpendicular**2 / RANGE_M
    assert shift == pytest.approx(wanted, abs=0.05)


def test_height_makes_less_range_for_a_positive_baseline():
    """phi = 4 pi (R_other - R_reference) / lambda = -4 pi B h / (lambda R sin(incidence))."""
    time, state, target, reference, other = _orbits(perpendicular=80.0)
    both = zero_doppler(reference, target[None], np.array([time]))
    height = PLACE[2] + 30.0
    raised = intersect_ellipsoid(reference, *both, np.array([height]), np.array(PLACE[:2]))
    point = geodetic_to_ecef(raised[0], raised[1], np.array([height]))
    before = zero_doppler(other, target[None], both[0])[1] - both[1]
    after = zero_doppler(other, point, both[0])[1] - both[1]
    _, _, up = local_axes(np.float64(PLACE[0]), np.float64(PLACE[1]))
    cosine = (state[:3] - target) @ up / np.linalg.norm(state[:3] - target)
    expected = -80.0 * 30.0 / (RANGE_M * np.sin(np.arccos(cosine)))
    assert after - before == pytest.approx(expected, rel=2e-3)


def test_parallel_orbits_stay_parallel():
    time, state, target, _, _ = _orbits()
    times = time + np.array([-60.0, 0.0, 60.0])
    displaced = displace_state(state, target, 100.0, 0.0)
    apart = propagate(displaced, time, times)[:, :3] - propagate(state, time, times)[:, :3]
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), 100.0, atol=1.0)


def test_turning_about_the_axis_moves_the_longitude():
    turned = turn_about_axis(NODE_STATE, np.radians(30.0))
    assert np.degrees(np.arctan2(turned[1], turned[0])) == pytest.approx(30.0)
    assert turned[2] == NODE_STATE[2]
    assert np.linalg.norm(turned[3:]) == pytest.approx(np.linalg.norm(NODE_STATE[3:]))


def test_ellipsoid():
    points = geodetic_to_ecef(
        np.radians([0.0, 90.0, 0.0]), np.radians([0.0, 0.0, 90.0]), np.array([0.0, 10.0, 5.0])
    )
    expected = [[6378137.0, 0.0, 0.0], [0.0, 0.0, 6356762.314245], [0.0, 6378142.0, 0.0]]
    np.testing.assert_allclose(points, expected, atol=1e-6)
    axes = np.stack(local_axes(np.float64(0.5), np.float64(-1.0)))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    # East and north are where the position moves with longitude and latitude.
    here = geodetic_to_ecef(*(np.float64(v) for v in (0.5, -1.0, 0.0)))
    moved = geodetic_to_ecef(*(np.float64(v) for v in (0.5, -1.0 + 1e-7, 0.0))) - here
    np.testing.assert_allclose(moved / np.linalg.norm(moved), axes[0], atol=1e-6)
    moved = geodetic_to_ecef(*(np.float64(v) for v in (0.5 + 1e-7, -1.0, 0.0))) - here
    np.testing.assert_allclose(moved / np.linalg.norm(moved), axes[1], atol=1e-6)


def test_unreachable_latitude_is_refused():
    with pytest.raises((ValueError, np.linalg.LinAlgError), match=r"latitude|Singular"):
        place_orbit(np.radians(89.9), 0.0, 0.0, RANGE_M, True)
