"""The azimuth carrier: its formula, its derivative, and its sign on real pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bperp.kernels.carrier import (
    CarrierModel,
    RangePolynomials,
    build_carrier,
    carrier_phase,
    carrier_turns,
    doppler_hz,
    total_doppler_hz,
)
from bperp.kernels.zero_doppler import RadarGrid

LIGHT = 299_792_458.0
GRID = RadarGrid(0.25, 2.0555563e-3, 7.996111e5, 2.3295621, 1507, 23055)
MIDDLE_S = 0.25 + 753.0 * 2.0555563e-3
STEERING = np.radians(1.590368784)
FM = RangePolynomials(
    np.array([MIDDLE_S - 0.6, MIDDLE_S + 2.1]),
    np.array([5.33e-3, 5.34e-3]),
    np.array([[-2320.0, 4.5e5, -7.9e7], [-2322.0, 4.51e5, -7.8e7]]),
)
DOPPLER = RangePolynomials(
    np.array([MIDDLE_S - 2.0, MIDDLE_S + 1.0]),
    np.array([5.338e-3, 5.336e-3]),
    np.array([[-10.0, 1.2e4, -1.8e7], [20.0, -3e3, 2e6]]),
)


def model(steering: float = STEERING, **change: RangePolynomials) -> CarrierModel:
    return build_carrier(
        GRID,
        steering_rate_rad_s=steering,
        speed_m_s=7590.0,
        radar_frequency_hz=5.405000454e9,
        fm_rate=change.get("fm_rate", FM),
        doppler_centroid=change.get("doppler_centroid", DOPPLER),
    )


def annotated(polynomials: RangePolynomials, tau: np.ndarray) -> np.ndarray:
    """Interpolate linearly to the middle of the burst, each polynomial about its own time."""
    early, late = polynomials.azimuth_time_s
    weight = (MIDDLE_S - early) / (late - early)
    values = [
        sum(c * (tau - start) ** k for k, c in enumerate(row))
        for start, row in zip(polynomials.range_time_s, polynomials.coefficients, strict=True)
    ]
    return np.asarray((1 - weight) * values[0] + weight * values[1])


def expected_turns(line: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """ESA's definition, written out in double precision."""

    def at(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tau = 2.0 * (GRID.near_range_m + position * GRID.range_spacing_m) / LIGHT
        return annotated(FM, tau), annotated(DOPPLER, tau)

    sweep = 2.0 * 7590.0 * 5.405000454e9 * STEERING / LIGHT
    rate, centroid = at(sample)
    rate_mid, centroid_mid = at(np.array(0.5 * (GRID.samples - 1)))
    total = rate * sweep / (rate - sweep)
    reference = -centroid / rate + centroid_mid / rate_mid
    eta = (line - 753.0) * GRID.azimuth_time_interval_s
    return np.asarray(0.5 * total * (eta - reference) ** 2 + centroid * eta)


def test_formula_to_a_millionth_of_a_turn() -> None:
    line, sample = np.random.default_rng(1).uniform([[0], [0]], [[1506], [23054]], (2, 2000))
    found = carrier_phase(model(), line, sample)
    assert np.abs(found).max() > 1500.0  # TOPS: thousands of turns
    assert np.abs(found - expected_turns(line, sample)).max() < 1e-6


def test_doppler_is_the_derivative_and_sweeps_kilohertz() -> None:
    carrier = model()
    line, sample = np.random.default_rng(2).uniform([[1], [0]], [[1505], [23054]], (2, 200))
    step = 1e-3
    ahead, behind = (carrier_phase(carrier, line + s * step, sample) for s in (1, -1))
    numeric = (ahead - behind) / (2 * step * GRID.azimuth_time_interval_s)
    np.testing.assert_allclose(doppler_hz(carrier, line, sample), numeric, atol=2e-3)
    span = doppler_hz(carrier, 1506.0, 11000.0) - doppler_hz(carrier, 0.0, 11000.0)
    assert 5200.0 < float(span) < 5700.0  # k_t of about 1777 Hz/s over 3.1 s


def test_stripmap_has_the_doppler_centroid_only() -> None:
    carrier = model(0.0)
    tau = 2.0 * (GRID.near_range_m + 5000.0 * GRID.range_spacing_m) / LIGHT
    centroid = float(annotated(DOPPLER, np.array(tau)))
    assert float(doppler_hz(carrier, 10.0, 5000.0)) == pytest.approx(centroid, abs=1e-6)
    assert float(carrier_phase(carrier, 753.0, 5000.0)) == pytest.approx(0.0, abs=1e-9)


def test_polynomials_are_interpolated_in_time_not_taken_from_the_nearest() -> None:
    early = RangePolynomials(*(values[:1] for values in DOPPLER))
    between = doppler_hz(model(0.0), 0.0, 9000.0)
    alone = doppler_hz(model(0.0, doppler_centroid=early), 0.0, 9000.0)
    late = RangePolynomials(*(values[1:] for values in DOPPLER))
    other = doppler_hz(model(0.0, doppler_centroid=late), 0.0, 9000.0)
    weight = 2.0 / 3.0
    np.testing.assert_allclose(between, (1 - weight) * alone + weight * other, atol=1e-6)


def test_beyond_the_last_polynomial_it_holds() -> None:
    moved = DOPPLER._replace(azimuth_time_s=DOPPLER.azimuth_time_s - 10.0)
    late = RangePolynomials(*(values[1:] for values in DOPPLER))
    np.testing.assert_allclose(
        carrier_phase(model(doppler_centroid=moved), 100.0, 200.0),
        carrier_phase(model(doppler_centroid=late), 100.0, 200.0),
    )


def test_python_bodies_equal_compiled_code() -> None:
    carrier = model()
    for function in (carrier_turns, total_doppler_hz):
        compiled = function(carrier, 100.25, 333.75)
        assert function.py_func(carrier, 100.25, 333.75) == pytest.approx(compiled, abs=1e-9)  # type: ignore[attr-defined]


def power_outside_band(image: np.ndarray, interval_s: float) -> float:
    power = np.abs(np.fft.fft(image, axis=0)) ** 2
    outside = np.abs(np.fft.fftfreq(image.shape[0], interval_s)) > 170.0
    return float(power[outside].sum() / power.sum())


@pytest.mark.realdata
def test_deramps_real_pixels(amsterdam: Callable, real_data: Path) -> None:
    scene = amsterdam("20230331")
    image = scene.samples
    carrier = build_carrier(
        scene.grid,
        steering_rate_rad_s=scene.steering_rate_rad_s,
        speed_m_s=float(np.linalg.norm(scene.velocity[11])),
        radar_frequency_hz=scene.radar_frequency_hz,
        fm_rate=RangePolynomials(*scene.fm_rate),
        doppler_centroid=RangePolynomials(*scene.doppler),
    )
    line = scene.first_line + np.arange(image.shape[0])[:, np.newaxis]
    sample = scene.first_sample + np.arange(image.shape[1])
    turns = carrier_phase(carrier, line, sample)
    interval_s = scene.grid.azimuth_time_interval_s
    assert power_outside_band(image, interval_s) == pytest.approx(0.408, abs=0.002)
    deramped = image * np.exp(-2j * np.pi * turns)
    assert power_outside_band(deramped, interval_s) < 0.005
    assert power_outside_band(image * np.exp(2j * np.pi * turns), interval_s) > 0.2
    # The centroid of the spectrum: below 5 Hz of the zero that demodulation promises.
    step = np.angle(np.sum(deramped[1:] * deramped[:-1].conj()))
    assert abs(step / (2 * np.pi * interval_s)) < 5.0
