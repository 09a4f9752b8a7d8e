"""The orbit polynomial against an analytic orbit and against real state vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lxml import etree

from bperp.kernels.orbit import evaluate_orbit, fit_orbit, interpolate_orbit, orbit_state

TIMES = np.arange(-60.0, 70.0, 10.0)


def test_repeats_a_circular_orbit(orbit_states: Callable) -> None:
    position, velocity, _ = orbit_states(TIMES)
    orbit = fit_orbit(TIMES, position, velocity, -0.5, 3.6)
    query = np.linspace(-0.5, 3.6, 40)
    truth = orbit_states(query)
    found = evaluate_orbit(orbit, query)
    assert np.abs(found[0] - truth[0]).max() < 1e-6
    assert np.abs(found[1] - truth[1]).max() < 1e-7
    assert np.abs(found[2] - truth[2]).max() < 1e-7


def test_derivatives_belong_to_the_same_polynomial(orbit_states: Callable) -> None:
    position, velocity, _ = orbit_states(TIMES)
    orbit = fit_orbit(TIMES, position, velocity, 0.0, 3.0)
    step = 1e-2
    before, _, _ = evaluate_orbit(orbit, 1.0 - step)
    middle, rate, bend = evaluate_orbit(orbit, 1.0)
    after, _, _ = evaluate_orbit(orbit, 1.0 + step)
    np.testing.assert_allclose((after - before) / (2 * step), rate, atol=1e-5)
    np.testing.assert_allclose((after - 2 * middle + before) / step**2, bend, atol=1e-4)


def test_ignores_noise_of_single_velocities(orbit_states: Callable) -> None:
    # Some precise orbit files have velocities off by 10 mm/s at positions good to 0.1 mm.
    generator = np.random.default_rng(3)
    position, velocity, _ = orbit_states(TIMES)
    noisy = velocity + generator.normal(0.0, 0.01, velocity.shape)
    query = np.linspace(0.0, 3.0, 20)
    truth = orbit_states(query)
    found = evaluate_orbit(fit_orbit(TIMES, position, noisy, 0.0, 3.0), query)
    hermite = interpolate_orbit(TIMES, position, noisy, query)
    assert np.abs(found[0] - truth[0]).max() < 2e-3
    assert np.abs(found[1] - truth[1]).max() < 1e-3
    assert np.abs(hermite[1] - truth[1]).max() > 3 * np.abs(found[1] - truth[1]).max()


def test_hermite_passes_through_its_vectors(orbit_states: Callable) -> None:
    position, velocity, _ = orbit_states(TIMES)
    place, rate = interpolate_orbit(TIMES, position, velocity, TIMES)
    np.testing.assert_allclose(place, position, atol=1e-8)
    np.testing.assert_allclose(rate, velocity, atol=1e-8)
    query = np.array([-57.0, 1.234, 58.0])
    truth = orbit_states(query)
    place, rate = interpolate_orbit(TIMES, position, velocity, query)
    np.testing.assert_allclose(place, truth[0], atol=1e-7)
    np.testing.assert_allclose(rate, truth[1], atol=1e-7)


def test_python_body_equals_compiled_code(orbit_states: Callable) -> None:
    position, velocity, _ = orbit_states(TIMES)
    orbit = fit_orbit(TIMES, position, velocity, 0.0, 3.0)
    compiled = orbit_state(orbit, 1.5)
    np.testing.assert_allclose(orbit_state.py_func(orbit, 1.5), compiled, atol=1e-8)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("count", "start", "stop", "message"),
    [(3, 0.0, 1.0, "at least 4"), (13, -70.0, 0.0, "cover"), (13, 2.0, 1.0, "asked for")],
)
def test_refuses_what_it_cannot_fit(
    orbit_states: Callable, count: int, start: float, stop: float, message: str
) -> None:
    times = TIMES[:count]
    position, velocity, _ = orbit_states(times)
    with pytest.raises(ValueError, match=message):
        fit_orbit(times, position, velocity, start, stop)
    with pytest.raises(ValueError, match="must lie within"):
        interpolate_orbit(TIMES, *orbit_states(TIMES)[:2], np.array([71.0]))


def precise_orbits(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    found = []
    for path in sorted(folder.glob("**/*OEORB*.EOF")):
        vectors = list(etree.parse(str(path)).iter("OSV"))
        times = np.array(
            [np.datetime64(str(v.findtext("UTC"))[4:], "ns").astype(np.int64) for v in vectors]
        )
        position = np.array([[float(str(v.findtext(k))) for k in "XYZ"] for v in vectors])
        velocity = np.array([[float(str(v.findtext(f"V{k}"))) for k in "XYZ"] for v in vectors])
        found.append((path.name, (times - times[times.size // 2]) * 1e-9, position, velocity))
    return found


@pytest.mark.realdata
def test_finds_left_out_vectors_of_real_orbits(real_data: Path) -> None:
    # Every second vector is left out, so that the gaps are twice those of real use. The velocities
    # of the file of 2022-10-11 are themselves noisy (10 mm/s), hence no bound on its velocity.
    orbits = precise_orbits(real_data)
    assert len(orbits) >= 5
    for name, times, position, velocity in orbits:
        middle = times.size // 2
        kept = np.arange(middle % 2, times.size, 2)
        query = np.array([middle - 1, middle + 1])
        orbit = fit_orbit(
            times[kept], position[kept], velocity[kept], times[middle - 2], times[middle + 2]
        )
        found = evaluate_orbit(orbit, times[query])
        error = np.abs(found[0] - position[query]).max()
        hermite = interpolate_orbit(times[kept], position[kept], velocity[kept], times[query])
        assert error < 5e-3, name
        assert error < max(np.abs(hermite[0] - position[query]).max(), 2e-4), name
        if "20221010" not in name:
            assert np.abs(found[1] - velocity[query]).max() < 6e-4, name
