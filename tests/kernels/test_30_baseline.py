"""Baselines: closed form, two definitions against each other, and SNAP's values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bperp.kernels.baseline import perpendicular_baseline, tcn_baseline
from bperp.kernels.chebyshev import BurstOffsets, fit_burst_offsets
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import look_vectors, rdr2geo_at_height
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit, fit_orbit
from bperp.kernels.zero_doppler import RadarGrid

TIMES = np.arange(-60.0, 70.0, 10.0)
GRID = RadarGrid(0.0, 2.0555563e-3, 7.996111e5, 2.3295621, 1507, 23055)


def straight(place: tuple[float, float, float], drift: float = 0.0) -> OrbitPolynomial:
    """Return a flight along x; z is up (the Earth's centre lies far below), y to the left."""
    powers = np.zeros((8, 3))
    powers[0] = place
    powers[1] = [7500.0, drift, 0.0]
    return OrbitPolynomial(0.0, 1.0, powers)


@pytest.mark.parametrize("right", [True, False])
def test_straight_flights(right: bool) -> None:
    # 30 m to the right (-y), 40 m up, and 7.5 m (1 ms) ahead, drifting apart by 0.2 m/s.
    reference = straight((0.0, 0.0, 7e6))
    secondary = straight((7.5, -30.0, 7e6 + 40.0), -0.2)
    baseline, rate = tcn_baseline(reference, secondary, 0.0, 0.3, right=right)
    side = 1.0 if right else -1.0
    np.testing.assert_allclose(baseline, [0.0, side * (30.0 - 0.2e-3), -40.0], atol=2e-4)
    np.testing.assert_allclose(rate, [0.0, side * 0.2, 0.0], atol=1e-4)


def look_angle(orbit: OrbitPolynomial, time_s: float, point: np.ndarray) -> float:
    place = evaluate_orbit(orbit, time_s)[0][0]
    sight = point - place
    cosine = -sight @ place / np.linalg.norm(sight) / np.linalg.norm(place)
    return float(np.arccos(cosine))


def both_definitions(
    pair: tuple[tuple[OrbitPolynomial, RadarGrid], tuple[OrbitPolynomial, RadarGrid]],
    offsets: BurstOffsets,
    pixel: tuple[float, float, float],
) -> tuple[float, float]:
    """Return the perpendicular baseline from the vector and from the derivative."""
    line, sample, height = pixel
    (orbit, grid), (other, other_grid) = pair
    time_s = grid.first_line_time_s + line * grid.azimuth_time_interval_s
    guess = other_grid.first_line_time_s + line * grid.azimuth_time_interval_s
    vector, _ = tcn_baseline(orbit, other, time_s, guess)
    range_m = np.array([grid.near_range_m + sample * grid.range_spacing_m])
    level = np.array([height])
    latitude, longitude = rdr2geo_at_height(orbit, np.array([time_s]), range_m, level)
    point = np.concatenate(geodetic_to_ecef(latitude, longitude, level))
    look = look_angle(orbit, time_s, point)
    _, incidence = look_vectors(
        orbit,
        np.array([time_s]),
        latitude[np.newaxis],
        longitude[np.newaxis],
        level[np.newaxis].astype(np.float32),
    )
    derivative = perpendicular_baseline(
        offsets.range,
        (grid, other_grid),
        np.array(line),
        np.array(sample),
        np.array(height),
        incidence[0].astype(np.float64),
    )
    return float(vector[1] * np.cos(look) - vector[2] * np.sin(look)), float(derivative[0])


@pytest.mark.parametrize(("sideways_m", "up_m"), [(150.0, 0.0), (0.0, 120.0), (-80.0, 60.0)])
def test_definitions_agree_and_have_the_sign_of_stamps(
    orbit_states: Callable, sideways_m: float, up_m: float
) -> None:
    turn = sideways_m / (7.071e6 * np.cos(0.7))
    first = fit_orbit(TIMES, *orbit_states(TIMES)[:2], -1.5, 4.6)
    second = fit_orbit(TIMES, *orbit_states(TIMES, turn_rad=turn, raise_m=up_m)[:2], -1.5, 4.6)
    pair = (first, GRID), (second, GRID)
    offsets = fit_burst_offsets(*pair, (0.0, 1000.0))
    vector, derivative = both_definitions(pair, offsets, (750.0, 11000.0, 300.0))
    assert vector == pytest.approx(derivative, abs=0.1)
    # Ascending flight to the north-west looks east: a turn to the east goes to the look side, and
    # both that and a lift make the baseline grow.
    look = 0.55
    rough = 0.97 * sideways_m * np.cos(look) + up_m * np.sin(look)
    assert derivative == pytest.approx(rough, abs=0.1 * (abs(sideways_m) + abs(up_m)))


def test_height_phase_follows_from_the_baseline(orbit_states: Callable) -> None:
    # phi = +4 pi (R_sec - R_ref) / lambda changes with height by -4 pi B / (lambda R sin(inc)).
    turn = 200.0 / (7.071e6 * np.cos(0.7))
    first = fit_orbit(TIMES, *orbit_states(TIMES)[:2], -1.5, 4.6)
    second = fit_orbit(TIMES, *orbit_states(TIMES, turn_rad=turn)[:2], -1.5, 4.6)
    offsets = fit_burst_offsets((first, GRID), (second, GRID), (0.0, 1000.0))
    _, baseline = both_definitions(((first, GRID), (second, GRID)), offsets, (750.0, 11000.0, 0.0))
    range_m = GRID.near_range_m + 11000.0 * GRID.range_spacing_m
    time_s = 750.0 * GRID.azimuth_time_interval_s
    levels = np.array([0.0, 10.0])
    latitude, longitude = rdr2geo_at_height(first, np.full(2, time_s), np.full(2, range_m), levels)
    points = np.stack(geodetic_to_ecef(latitude, longitude, levels), axis=1)
    # Distance to the second orbit: the nearest of many positions, to second order.
    times = time_s + np.linspace(-0.05, 0.05, 2001)
    track = orbit_states(times, turn_rad=turn)[0]
    distance = [np.linalg.norm(track - point, axis=1).min() for point in points]
    _, incidence = look_vectors(
        first, np.array([time_s]), latitude[:1, np.newaxis], longitude[:1, np.newaxis],
        np.zeros((1, 1), np.float32),
    )  # fmt: skip
    expected = -10.0 * baseline / (range_m * np.sin(float(incidence[0, 0])))
    assert distance[1] - distance[0] == pytest.approx(expected, rel=2e-3)


@pytest.mark.realdata
@pytest.mark.parametrize(("date", "expected"), [("19Mar2023", 33.8997), ("06Jan2023", 107.5948)])
def test_agrees_with_snap_over_amsterdam(amsterdam: Callable, date: str, expected: float) -> None:
    # SNAP's sign is ours: positive for a secondary to the look side or above. Its value is that of
    # some point of the product; across the swath it varies by 0.3 m.
    scene = amsterdam("20230319" if date == "19Mar2023" else "20230331")
    reference = fit_orbit(scene.time_s, scene.position, scene.velocity, -0.5, 3.7)
    times, position, velocity = scene.secondaries[date]
    secondary = fit_orbit(times, position, velocity, times[2], times[-3])
    middle_s = 0.5 * scene.grid.lines * scene.grid.azimuth_time_interval_s
    # The secondary's timing does not matter here; its burst is put abeam of the reference's.
    place = evaluate_orbit(reference, middle_s)[0][0]
    dense = np.linspace(times[2], times[-3], 20001)
    nearest = dense[np.argmin(np.linalg.norm(evaluate_orbit(secondary, dense)[0] - place, axis=1))]
    shifted = scene.grid._replace(first_line_time_s=float(nearest) - middle_s)
    pair = (reference, scene.grid), (secondary, shifted)
    offsets = fit_burst_offsets(*pair, (-50.0, 200.0))
    vector, derivative = both_definitions(pair, offsets, (954.0, 9347.0, 45.0))
    assert derivative == pytest.approx(expected, abs=0.3)
    assert vector == pytest.approx(derivative, abs=0.1)


@pytest.mark.realdata
def test_morocco_pair(annotations: Callable) -> None:
    found = []
    for swath in ("iw1", "iw2", "iw3"):
        pair = []
        for date in ("20230904", "20230916"):
            product = annotations(f"{swath}-slc-vv-{date}", 4)[0]
            grid = RadarGrid(
                0.0, product.line_interval_s, product.near_range_m, product.range_spacing_m,
                product.lines, product.samples,
            )  # fmt: skip
            orbit = fit_orbit(product.time_s, product.position, product.velocity, -1.0, 4.2)
            pair.append((orbit, grid))
        offsets = fit_burst_offsets(pair[0], pair[1], (0.0, 3000.0))
        both = both_definitions((pair[0], pair[1]), offsets, (750.0, 11000.0, 500.0))
        assert both[0] == pytest.approx(both[1], abs=0.1)
        found.append(both[1])
    assert found == pytest.approx([29.0, 29.0, 29.0], abs=2.0)
    assert found[0] < found[1] < found[2]  # the look angle grows, the baseline points down
