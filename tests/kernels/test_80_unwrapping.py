"""Spatial unwrapping of a network: deforming field, wrong arcs, components, degenerate networks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bperp.kernels.arcs import MotionDesign, build_arcs, estimate_arcs
from bperp.kernels.unwrapping import NetworkOptions, unwrap_network

WAVELENGTH = 0.0555
DATES = 20
TURN = 2 * np.pi


def wrap(phase):
    return np.angle(np.exp(1j * phase))


def bowl(size, seed, extent_m=4000.0, noise_rad=0.3):
    """Subsidence bowl of 60 mm/yr: several cycles between its centre and its edge."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, extent_m, (size, 2))
    years = np.linspace(0, 1.5, DATES + 1)[1:]
    radius = np.linalg.norm(position - extent_m / 2, axis=1)
    velocity = -0.06 * np.exp(-0.5 * (radius / (extent_m / 6)) ** 2)
    phase = -4 * np.pi / WAVELENGTH * np.outer(velocity, years)
    return position, years, phase + noise_rad * rng.standard_normal((size, DATES))


def arc_truth(phase, arcs):
    return phase[arcs[:, 1]] - phase[arcs[:, 0]]


def error_cycles(result, phase):
    """Cycles off the truth, after the free number of cycles of each component and date."""
    cycles = np.round((result.phase - phase) / TURN)
    for label in range(1, result.component.max(initial=0) + 1):
        inside = result.component == label
        cycles[inside] -= np.median(cycles[inside], axis=0)
    return cycles


def assert_congruent(result, wrapped):
    inside = np.isfinite(result.phase)
    cycles = (result.phase - wrapped)[inside] / TURN
    np.testing.assert_allclose(cycles, np.round(cycles), atol=1e-9)


def test_deforming_field_from_wrapped_phases_to_unwrapped():
    """The whole way: wrapped phasors, periodogram arcs, network."""
    position, years, phase = bowl(1500, 0)
    factor = 4 * np.pi / (WAVELENGTH * 850e3 * np.sin(0.67))
    rng = np.random.default_rng(1)
    baseline = np.repeat(rng.uniform(-100, 100, (1, DATES)), 1500, axis=0)
    phase -= factor * baseline * rng.normal(0, 5, (1500, 1))
    arcs = build_arcs(position, 1000.0)
    design = MotionDesign(years, baseline.astype(np.float32), np.full(1500, factor), WAVELENGTH)
    estimates = estimate_arcs(np.exp(1j * phase).astype(np.complex64), arcs, design)
    wrapped = wrap(phase)
    result = unwrap_network(wrapped, arcs, estimates.unwrapped_phase, estimates.temporal_coherence)
    assert np.ptp(phase[:, -1]) > 3 * TURN
    assert np.all(result.component == 1)
    assert np.mean(error_cycles(result, phase) != 0) < 1e-3
    assert_congruent(result, wrapped)
    assert result.corrected_share < 0.01


@pytest.mark.parametrize(("wrong_share", "limit"), [(0.01, 5e-4), (0.05, 5e-3)])
def test_arcs_that_are_wrong_on_all_dates(wrong_share, limit):
    rng = np.random.default_rng(2)
    position, _, phase = bowl(1200, 3)
    arcs = build_arcs(position)
    wrong = rng.random(arcs.shape[0]) < wrong_share
    cycles = rng.choice((-3, -2, -1, 1, 2, 3), (arcs.shape[0], DATES)) * wrong[:, None]
    unwrapped = arc_truth(phase, arcs) + TURN * cycles
    coherence = rng.uniform(0.7, 0.95, arcs.shape[0])
    result = unwrap_network(wrap(phase), arcs, unwrapped, coherence)
    assert np.mean(error_cycles(result, phase) != 0) < limit
    # Left over are scatterers most of whose arcs are wrong: by the arcs, no worse than the truth.
    weight = 1.0 / np.maximum(-2.0 * np.log(coherence), 0.1)
    misfit = np.round((unwrapped - arc_truth(result.phase, arcs)) / TURN)
    assert np.all(weight @ np.abs(misfit) <= 1.01 * weight @ np.abs(cycles))
    found = result.inconsistent_dates > DATES // 2
    assert np.mean(found[wrong]) > 0.97
    assert np.mean(found[~wrong]) < 0.005
    assert result.corrected_share == pytest.approx(np.mean(cycles != 0), rel=0.1)


def test_arcs_that_are_wrong_on_single_dates():
    rng = np.random.default_rng(4)
    position, _, phase = bowl(1200, 5)
    arcs = build_arcs(position)
    cycles = rng.choice((-1, 1), (arcs.shape[0], DATES)) * (
        rng.random((arcs.shape[0], DATES)) < 0.02
    )
    unwrapped = arc_truth(phase, arcs) + TURN * cycles
    result = unwrap_network(wrap(phase), arcs, unwrapped, np.full(arcs.shape[0], 0.9))
    plain = unwrap_network(
        wrap(phase), arcs, unwrapped, np.full(arcs.shape[0], 0.9), NetworkOptions(0.6, 3, 0, 0)
    )
    assert np.mean(error_cycles(result, phase) != 0) < 5e-4
    assert np.mean(error_cycles(result, phase) != 0) <= np.mean(error_cycles(plain, phase) != 0)


def test_consistent_arcs_are_integrated_exactly_whatever_the_weights():
    rng = np.random.default_rng(6)
    position, _, phase = bowl(500, 7, noise_rad=3.0)
    arcs = build_arcs(position)
    coherence = rng.uniform(0.61, 1.0, arcs.shape[0])
    result = unwrap_network(wrap(phase), arcs, arc_truth(phase, arcs), coherence)
    assert np.all(error_cycles(result, phase) == 0)
    assert result.corrected_share == 0.0
    assert np.all(result.inconsistent_dates == 0)


def test_components_are_kept_apart_and_numbered_by_size():
    left, _, phase_left = bowl(300, 8)
    right, _, phase_right = bowl(200, 9)
    position = np.concatenate(
        (right + np.array([9e3, 0.0]), left, [[50e3, 0.0], [51e3, 0.0], [90e3, 0.0]])
    )
    phase = np.concatenate((phase_right, phase_left, np.zeros((3, DATES))))
    arcs = build_arcs(position, 2000.0)
    result = unwrap_network(wrap(phase), arcs, arc_truth(phase, arcs), np.full(arcs.shape[0], 0.9))
    np.testing.assert_array_equal(result.component, [2] * 200 + [1] * 300 + [0] * 3)
    assert np.all(error_cycles(result, phase)[:500] == 0)
    assert np.isnan(result.phase[500:]).all()
    pair = unwrap_network(
        wrap(phase),
        arcs,
        arc_truth(phase, arcs),
        np.full(arcs.shape[0], 0.9),
        NetworkOptions(0.6, 2),
    )
    np.testing.assert_array_equal(pair.component[500:], [3, 3, 0])


def test_incoherent_arcs_are_dropped():
    position, _, phase = bowl(400, 10)
    arcs = build_arcs(position)
    across = (position[arcs[:, 0], 0] < 2000) != (position[arcs[:, 1], 0] < 2000)
    coherence = np.where(across, 0.3, 0.9)
    coherence[np.flatnonzero(across)[0]] = np.nan
    spoilt = arc_truth(phase, arcs) + TURN * 5 * across[:, None]
    result = unwrap_network(wrap(phase), arcs, spoilt, coherence)
    assert set(np.unique(result.component)) <= {0, 1, 2}
    assert np.all(result.inconsistent_dates[across] == -1)
    sides = np.sign(position[:, 0] - 2000)
    used = result.component > 0
    assert np.unique(np.column_stack((sides, result.component))[used], axis=0).shape[0] == 2
    assert np.all(error_cycles(result, phase)[used] == 0)


def test_missing_dates_void_only_themselves():
    position, _, phase = bowl(400, 11)
    arcs = build_arcs(position)
    holed = phase.copy()
    holed[17, 3] = np.nan
    holed[position[:, 1] < 1500, 8] = np.nan
    result = unwrap_network(wrap(holed), arcs, arc_truth(holed, arcs), np.full(arcs.shape[0], 0.9))
    np.testing.assert_array_equal(np.isnan(result.phase), np.isnan(holed))
    filled = np.where(np.isnan(holed), np.nan, np.round((result.phase - phase) / TURN))
    spread = np.nanmax(filled, axis=0) - np.nanmin(filled, axis=0)
    assert np.all(spread == 0)


def test_a_date_that_falls_apart_keeps_its_largest_part():
    chain = np.column_stack((np.arange(9), np.arange(1, 10)))
    phase = np.arange(10.0)[:, None] * np.array([1.0, 2.0])
    arc_phase = arc_truth(phase, chain)
    arc_phase[6, 1] = np.nan
    result = unwrap_network(wrap(phase), chain, arc_phase, np.ones(9))
    assert np.isfinite(result.phase[:, 0]).all()
    np.testing.assert_array_equal(np.isfinite(result.phase[:, 1]), [True] * 7 + [False] * 3)
    np.testing.assert_allclose(np.diff(result.phase[:7, 1]), 2.0)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_tiny_networks(size):
    position = np.arange(2.0 * size).reshape(size, 2)
    phase = np.linspace(0, 9, size * DATES).reshape(size, DATES)
    arcs = build_arcs(position)
    result = unwrap_network(wrap(phase), arcs, arc_truth(phase, arcs), np.ones(arcs.shape[0]))
    assert result.phase.shape == (size, DATES)
    if size == 3:
        np.testing.assert_allclose(result.phase - result.phase[:1], phase - phase[:1], atol=1e-9)
    else:
        assert np.all(result.component == 0)
        assert np.isnan(result.phase).all()


def test_duplicates_and_a_repeated_arc():
    phase = np.array([[0.1], [0.2], [7.0], [0.1]])
    arcs = np.array([[0, 1], [1, 2], [1, 2], [0, 3]])
    result = unwrap_network(wrap(phase), arcs, arc_truth(phase, arcs), np.ones(4))
    np.testing.assert_allclose(result.phase - result.phase[0], phase - phase[0], atol=1e-9)


def test_order_of_arcs_and_split_of_dates_do_not_matter():
    rng = np.random.default_rng(12)
    position, _, phase = bowl(600, 13)
    arcs = build_arcs(position)
    cycles = rng.choice((-1, 1), (arcs.shape[0], DATES)) * (
        rng.random((arcs.shape[0], DATES)) < 0.005
    )
    unwrapped = arc_truth(phase, arcs) + TURN * cycles
    coherence = rng.uniform(0.7, 0.9, arcs.shape[0])
    result = unwrap_network(wrap(phase), arcs, unwrapped, coherence)
    again = unwrap_network(wrap(phase), arcs, unwrapped, coherence)
    np.testing.assert_array_equal(result.phase, again.phase)
    order = rng.permutation(arcs.shape[0])
    other = unwrap_network(wrap(phase), arcs[order], unwrapped[order], coherence[order])
    np.testing.assert_array_equal(result.phase, other.phase)


def test_wrong_calls_are_refused():
    phase = np.zeros((3, 2))
    with pytest.raises(ValueError, match="do not fit"):
        unwrap_network(phase, np.array([[0, 1]]), np.zeros((1, 3)), np.ones(1))
    with pytest.raises(ValueError, match="outside"):
        unwrap_network(phase, np.array([[0, 3]]), np.zeros((1, 2)), np.ones(1))


@pytest.mark.benchmark
def test_rate():
    rng = np.random.default_rng(14)
    position, _, phase = bowl(5000, 15)
    arcs = build_arcs(position)
    wrong = rng.random(arcs.shape[0]) < 0.01
    unwrapped = (
        arc_truth(phase, arcs) + TURN * rng.integers(-2, 3, (arcs.shape[0], DATES)) * wrong[:, None]
    )
    start = time.process_time()
    unwrap_network(wrap(phase), arcs, unwrapped, np.full(arcs.shape[0], 0.9))
    rate = arcs.shape[0] * DATES / (time.process_time() - start)
    print(f"{rate:.0f} arcs*dates per core-second with 1 % wrong arcs")
    assert rate > 50_000
