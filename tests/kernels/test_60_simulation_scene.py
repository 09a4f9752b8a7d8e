"""Ground, decorrelation, atmosphere and the phase-level stack of the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.simulation import (
    Decorrelation,
    PhaseStackOptions,
    coherence_matrix,
    simulate_phases,
)
from bperp.kernels.simulation.noise import (
    evolve_field,
    field_weights,
    generator,
    power_law_surface,
)
from bperp.kernels.simulation.orbit import fit_orbit, geodetic_to_ecef, propagate
from bperp.kernels.simulation.passage import place_orbit
from bperp.kernels.simulation.scene import (
    Field,
    Raster,
    bowl_and_ramp,
    draw_ground,
    draw_innovation,
    draw_persistent,
    ground_coordinates,
    ground_to_geodetic,
    interpolate,
    locate,
    path_over_ground,
    tiles_within,
)

MODEL = Decorrelation(0.8, 0.2, 30.0, 0.5, 200.0, 10.0)
DAYS = np.array([0.0, 12.0, 36.0, 180.0])
SEASON = (DAYS + 5.0) % 365.25


def plane(shape, a, b, c, first=(0.0, 0.0), step=(1.0, 1.0)):
    rows = first[0] + step[0] * np.arange(shape[0])[:, None]
    columns = first[1] + step[1] * np.arange(shape[1])[None, :]
    values = (a + b * rows + c * columns).astype(np.float32)
    return Raster(values, first[0], step[0], first[1], step[1])


def test_coherence_matrix_is_the_model():
    matrix = coherence_matrix(MODEL, DAYS, SEASON)
    share = [(1 - 0.5 * 0.5 * (1 + np.cos(2 * np.pi * (d - 200) / 365.25))) / 1.1 for d in SEASON]
    expected = np.sqrt(share[0] * share[2]) * (0.2 + 0.6 * np.exp(-36.0 / 30.0))
    assert matrix[0, 2] == pytest.approx(expected)
    np.testing.assert_array_equal(np.diagonal(matrix), 1.0)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > 0.0


def test_field_has_that_coherence():
    random = np.random.default_rng(3)
    count = 60_000
    scale = 7.0
    lasting = random.standard_normal((count, 2), dtype=np.float32).view(np.complex64)[:, 0]
    lasting *= np.float32(np.sqrt(0.5))
    fading, amplitude = np.zeros_like(lasting), np.empty_like(lasting)
    fields = []
    for weights in field_weights(MODEL, DAYS, SEASON, scale):
        innovation = random.standard_normal((count, 4), dtype=np.float32)
        evolve_field(fading, lasting, innovation, weights, amplitude)
        fields.append(amplitude.copy())
    covariance = np.array(fields) @ np.array(fields).conj().T / (count * scale**2)
    np.testing.assert_allclose(covariance, coherence_matrix(MODEL, DAYS, SEASON), atol=0.02)
    # Python body and compiled kernel agree.
    copies = [x[:50].copy() for x in (fading, lasting, innovation)]
    again, compiled = np.empty(50, np.complex64), np.empty(50, np.complex64)
    evolve_field.py_func(copies[0].copy(), copies[1], copies[2], weights, again)
    evolve_field(copies[0].copy(), copies[1], copies[2], weights, compiled)
    np.testing.assert_allclose(again, compiled, rtol=1e-4, atol=1e-4)


def test_power_law_surface_has_its_structure_function():
    """A spectrum k^-8/3 means mean squared differences growing as distance^(2/3)."""
    squared = np.zeros(2)
    for seed in range(12):
        surface = power_law_surface((200, 150), (10.0, 20.0), 8 / 3, 0.0, generator(seed))
        assert surface.std() == pytest.approx(1.0)
        squared += [np.mean((surface[s:] - surface[:-s]) ** 2) for s in (8, 32)]
    assert np.log(squared[1] / squared[0]) / np.log(4.0) == pytest.approx(2 / 3, abs=0.12)
    smooth = power_law_surface((100, 100), (30.0, 30.0), 4.0, 200.0, generator(1))
    assert np.abs(np.diff(smooth, axis=0)).max() < 0.2


def test_generators_are_keyed():
    assert generator(1, 2, 3).random() == generator(1, 2, 3).random()
    assert generator(1, 2, 3).random() != generator(1, 3, 2).random()
    assert generator(1, -1).random() != generator(1, 1).random()


def test_two_windows_see_the_same_ground():
    one, two = (
        tiles_within((0.0, 200.0), (0.0, 300.0)),
        tiles_within((128.0, 400.0), (256.0, 500.0)),
    )
    shared = sorted(set(one) & set(two))
    assert shared
    first, second = draw_ground(9, one, 1.0), draw_ground(9, two, 1.0)
    count = len(first[0]) // len(one)
    for tile in shared:
        a, b = one.index(tile), two.index(tile)
        for x, y in zip(first, second, strict=True):
            np.testing.assert_array_equal(
                x[a * count : (a + 1) * count], y[b * count : (b + 1) * count]
            )
    for tile, number in zip(one, range(len(one)), strict=True):
        line = first[0][number * count : (number + 1) * count]
        cells, occupied = np.unique(np.floor(line), return_counts=True)
        assert cells.min() >= tile[0] * len(cells)
        assert len(set(occupied)) == 1  # one scatterer per cell


def test_innovations_belong_to_tile_and_date():
    tiles = [(0, 0), (0, 1)]
    count = len(draw_ground(9, tiles, 1.0)[0])
    both, alone = np.empty((count, 4), np.float32), np.empty((count // 2, 4), np.float32)
    draw_innovation(9, tiles, 1.0, 4, both)
    draw_innovation(9, tiles[1:], 1.0, 4, alone)
    np.testing.assert_array_equal(both[count // 2 :], alone)
    draw_innovation(9, tiles[1:], 1.0, 5, alone)
    assert not np.array_equal(both[count // 2 :], alone)
    assert both.std() == pytest.approx(1.0, abs=0.01)


def _ground():
    place = np.radians([31.2, -8.6])
    time, state = place_orbit(*place, 500.0, 820e3, False)
    times = time + np.arange(-9.0, 9.5, 1.5)
    orbit = fit_orbit(times, propagate(state, time, times))
    return ground_coordinates(
        orbit, (time - 0.5, 819e3), (2.0555563e-3, 2.329562), (486, 858), (*place, 500.0)
    ), place


def test_ground_coordinates():
    ground, place = _ground()
    latitude, longitude = ground_to_geodetic(
        ground, np.array([0.5 / 2.0555563e-3]), np.array([1000.0 / 2.329562])
    )
    np.testing.assert_allclose([latitude[0], longitude[0]], place, atol=1e-9)
    line, sample = np.array([10.0, 11.0, 10.0]), np.array([20.0, 20.0, 21.0])
    points = geodetic_to_ecef(*ground_to_geodetic(ground, line, sample), np.full(3, 500.0))
    steps = np.linalg.norm(points[1:] - points[0], axis=1)
    assert steps[0] == pytest.approx(14.0, abs=0.3)
    assert 3.5 < steps[1] < 5.5  # slant spacing over the sine of the incidence angle
    # Descending and looking right: increasing range is westwards, increasing time southwards.
    latitude, longitude = ground_to_geodetic(ground, line, sample)
    assert longitude[2] < longitude[0]
    assert latitude[1] < latitude[0]


def test_scatterers_stand_on_the_terrain():
    ground, place = _ground()
    elevation = plane((40, 40), 300.0, 2e4, -1e4, tuple(place - 0.01), (5e-4, 5e-4))
    line = np.array([50.0, 240.25, 400.0], np.float32)
    sample = np.array([30.5, 420.0, 800.0], np.float32)
    position = np.empty((3, 3))
    heights = locate(ground, elevation, line, sample, position)
    latitude, longitude = ground_to_geodetic(ground, line.astype(float), sample.astype(float))
    np.testing.assert_allclose(heights, 300.0 + 2e4 * latitude - 1e4 * longitude, atol=2e-3)
    expected = geodetic_to_ecef(latitude, longitude, interpolate(elevation, latitude, longitude))
    np.testing.assert_allclose(position, expected, atol=1e-6)


def test_interpolation_and_path():
    raster = plane((6, 9), 1.0, 0.25, -0.5, (0.0, 0.0), (8.0, 24.0))
    y, x = np.array([0.0, 13.0, 40.0, 100.0]), np.array([0.0, 100.5, 192.0, 500.0])
    inside = 1.0 + 0.25 * np.minimum(y, 40.0) - 0.5 * np.minimum(x, 192.0)
    np.testing.assert_allclose(interpolate(raster, y, x), inside, atol=1e-4)
    path = np.empty(4, np.float32)
    single = [v.astype(np.float32) for v in (y, x, np.array([700.0, 500.0, 400.0, 0.0]))]
    path_over_ground(Field(raster, 2e-3, 500.0), *single, path)
    np.testing.assert_allclose(path, inside + 2e-3 * (single[2] - 500.0), atol=1e-4)


def test_persistent_scatterers_keep_apart():
    drawn = draw_persistent(4, (2000, 1500), (20.0, 60.0), (5.0, 1e-3), (17.0, 5.0, 3.0, 30.0))
    assert len(drawn.line) == 100 * 25
    decibel = 10.0 * np.log10(drawn.signal_to_clutter)
    assert decibel.min() >= 3.0
    assert decibel.max() <= 30.0
    assert np.median(decibel) == pytest.approx(17.0, abs=0.5)
    assert drawn.height_error_m.std() == pytest.approx(5.0, rel=0.05)
    places = np.stack([drawn.line / 20.0, drawn.sample / 60.0])
    assert np.diff(places[0].reshape(100, 25), axis=0).min() > 0.29
    along = np.sort(places[1].reshape(100, 25), axis=1)
    assert np.diff(along, axis=1).min() > 0.29
    # No stripes: scatterers fall everywhere within the cells.
    assert np.histogram(places[1] % 1.0, 10)[0].min() > 150


def test_bowl_sinks_in_the_middle():
    east = np.array([0.0, 1000.0, 0.0])
    north = np.array([0.0, 0.0, 2000.0])
    velocity = bowl_and_ramp(east, north, (-0.01, 1000.0), (1e-6, 2e-6))
    expected = [-0.01, -0.01 * np.exp(-0.5) + 1e-3, -0.01 * np.exp(-2.0) + 4e-3]
    np.testing.assert_allclose(velocity, expected)


def test_phase_stack_is_the_closed_form():
    options = PhaseStackOptions(scatterers=300, noise_std_rad=(0.0, 0.0), reference=5, seed=8)
    stack = simulate_phases(options)
    assert stack.phase.shape == (300, 30)
    assert stack.phase.dtype == np.complex64
    np.testing.assert_allclose(np.abs(stack.phase), 1.0, atol=1e-6)
    np.testing.assert_array_equal(stack.perpendicular_baseline_m[:, 5], 0.0)
    np.testing.assert_array_equal(stack.displacement_m[:, 5], 0.0)
    years = (stack.days[10] - stack.days[5]) / 365.25
    np.testing.assert_allclose(stack.displacement_m[:, 10], stack.velocity_los_m_yr * years)
    # Range of SLC k: minus displacement, plus delay, minus B h / (R sin): then -4 pi R / lambda.
    lever = stack.dem_error_m / (stack.slant_range_m * np.sin(stack.incidence_rad))
    distance = -stack.displacement_m + stack.atmosphere_m
    distance -= stack.perpendicular_baseline_m * lever[:, None]
    pair = stack.phase[:, 5] * np.conj(stack.phase[:, 10])
    expected = 4 * np.pi / stack.wavelength_m * (distance[:, 10] - distance[:, 5])
    np.testing.assert_allclose(np.angle(pair * np.exp(-1j * expected)), 0.0, atol=1e-5)


def test_phase_stack_noise_and_seed():
    stack = simulate_phases(PhaseStackOptions(scatterers=500, seed=2))
    again = simulate_phases(PhaseStackOptions(scatterers=500, seed=2))
    np.testing.assert_array_equal(stack.phase, again.phase)
    ratio = stack.noise_rad.std(axis=1) / stack.noise_std_rad
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.03)
    assert stack.atmosphere_m.std() == pytest.approx(0.0007, rel=0.15)
    assert np.median(np.abs(stack.perpendicular_baseline_m)) < 150.0
