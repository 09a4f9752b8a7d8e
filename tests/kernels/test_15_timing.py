"""Timing corrections: signals and events that are simulated from first principles, and real data.

Nothing here trusts a formula of the module: what the instrument and the processor do is repeated
in small, and the correction must undo it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bperp.kernels.carrier import RangePolynomials
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.orbit import OrbitPolynomial, fit_orbit
from bperp.kernels.timing import (
    annotated_rate_hz_s,
    bistatic_azimuth_delay_s,
    displacement_corrections,
    doppler_range_shift_m,
    fm_mismatch_azimuth_s,
    true_fm_rate_hz_s,
)
from bperp.kernels.zero_doppler import geo2rdr, rdr2geo_at_height

C_M_S = 299_792_458.0
WAVELENGTH_M = C_M_S / 5.405000454334349e9


def peak(signal: np.ndarray, interval: float, oversampling: int = 64) -> float:
    """Place the peak of a band-limited signal (n,) to a small part of a sample."""
    coarse = int(np.argmax(np.abs(signal)))
    spectrum = np.fft.fft(signal)
    frequency = np.fft.fftfreq(signal.size)
    fine = coarse + np.arange(-2 * oversampling, 2 * oversampling + 1) / oversampling
    power = np.abs(np.exp(2j * np.pi * np.outer(fine, frequency)) @ spectrum)
    k = int(np.argmax(power))
    before, top, after = power[k - 1 : k + 2]
    vertex = 0.5 * (before - after) / (before - 2 * top + after)
    return float((fine[k] + vertex / oversampling) * interval)


@pytest.fixture(scope="module")
def orbit(orbit_states: Callable) -> OrbitPolynomial:
    times = np.arange(-60.0, 61.0, 10.0)
    position, velocity, _ = orbit_states(times)
    return fit_orbit(times, position, velocity, -4.0, 4.0)


@pytest.mark.parametrize(("prf_hz", "tau_s"), [(1717.129, 5.5e-3), (1685.817, 6.2e-3)])
def test_bistatic_delay_undoes_what_instrument_and_processor_do(prf_hz: float, tau_s: float):
    # A pulse leaves with the k-th interval; its echo is dated by the interval in which it comes.
    start_s, pri_s, mid_s = 7.0, 1.0 / prf_hz, 5.8527e-3
    taus = tau_s + np.linspace(-1e-4, 1e-4, 5)
    arrival = start_s + taus
    rank = int((arrival[0] - start_s) // pri_s)
    dated = start_s + ((arrival - start_s) // pri_s) * pri_s
    annotated = dated - 0.5 * mid_s
    satellite = start_s + 0.5 * taus  # half way between transmission and reception
    corrected = annotated + bistatic_azimuth_delay_s(taus, mid_s, rank, pri_s)
    np.testing.assert_allclose(corrected, satellite, rtol=0, atol=1e-12)


@pytest.mark.parametrize("doppler_hz", [2700.0, -1500.0])
def test_doppler_range_shift_corrects_a_compressed_chirp(doppler_hz: float):
    rate, length_s, sampling_hz, count = 1.07823e12, 52.4e-6, 128e6, 16384
    time_s = np.arange(count) / sampling_hz
    tau_s = 40.3e-6 + 0.5 * length_s

    def chirp(t: np.ndarray) -> np.ndarray:
        return np.where(np.abs(t) <= 0.5 * length_s, np.exp(1j * np.pi * rate * t**2), 0.0)

    echo = chirp(time_s - tau_s) * np.exp(2j * np.pi * doppler_hz * time_s)
    centre = 60e-6
    replica = chirp(time_s - centre)
    compressed = np.fft.ifft(np.fft.fft(echo) * np.conj(np.fft.fft(replica)))
    measured_s = peak(np.roll(compressed, count // 2), 1 / sampling_hz)
    measured_s += centre - (count // 2) / sampling_hz
    shift_s = float(doppler_range_shift_m(doppler_hz, rate)) * 2 / C_M_S
    assert abs(measured_s - tau_s) > 1e-9  # there is something to correct
    assert measured_s + shift_s == pytest.approx(tau_s, abs=2e-11)
    assert abs(shift_s) == pytest.approx(abs(doppler_hz) / rate, rel=1e-12)


@pytest.mark.parametrize(
    ("doppler_hz", "error_hz_s"), [(2300.0, 0.5), (-2300.0, 0.5), (1500, -2.0)]
)
def test_fm_mismatch_corrects_a_focused_target(doppler_hz: float, error_hz_s: float):
    truth, annotated = -2300.0, -2300.0 + error_hz_s
    sampling_hz, count, zero_s = 8000.0, 32768, 2.0
    time_s = np.arange(count) / sampling_hz
    frequency_hz = truth * (time_s - zero_s)
    band = np.abs(frequency_hz - doppler_hz) < 160.0
    target = np.where(band, np.exp(1j * np.pi * truth * (time_s - zero_s) ** 2), 0.0)
    bins = np.fft.fftfreq(count, 1 / sampling_hz)
    focused = np.fft.ifft(np.fft.fft(target) * np.exp(1j * np.pi * bins**2 / annotated))
    measured_s = peak(focused, 1 / sampling_hz)
    rates = np.array([truth]), np.array([annotated])
    correction_s = float(fm_mismatch_azimuth_s(np.array([doppler_hz]), *rates)[0])
    assert abs(measured_s - zero_s) > 1e-4
    assert measured_s + correction_s == pytest.approx(zero_s, abs=1e-6)


def test_fm_rate_is_the_curvature_of_range(orbit: OrbitPolynomial, orbit_states: Callable):
    times, ranges = np.array([-1.0, 0.0, 1.2]), np.array([8.1e5, 8.8e5, 9.4e5])
    latitude, longitude = rdr2geo_at_height(orbit, times, ranges, np.full(3, 500.0))
    ground = np.stack(geodetic_to_ecef(latitude, longitude, np.full(3, 500.0)))
    rate = true_fm_rate_hz_s(orbit, ground, times, WAVELENGTH_M)
    step = 0.05
    around = [
        np.linalg.norm(orbit_states(times + k * step)[0] - ground.T, axis=1) for k in (-1, 0, 1)
    ]
    curvature = (around[0] - 2 * around[1] + around[2]) / step**2
    np.testing.assert_allclose(rate, -2 / WAVELENGTH_M * curvature, rtol=2e-6)


def test_annotated_rates_are_linear_in_time_about_their_own_origin():
    polynomials = RangePolynomials(
        np.array([3.0, 1.0]),  # in any order
        np.array([5.1e-3, 5.0e-3]),
        np.array([[-2300.0, 1e5], [-2200.0, 2e5]]),
    )
    tau = np.array([5.2e-3, 5.4e-3])
    late, early = -2300 + 1e5 * (tau - 5.1e-3), -2200 + 2e5 * (tau - 5.0e-3)
    np.testing.assert_allclose(
        annotated_rate_hz_s(polynomials, 1.5, tau), 0.75 * early + 0.25 * late, rtol=1e-14
    )
    np.testing.assert_allclose(annotated_rate_hz_s(polynomials, 9.0, tau), late, rtol=1e-14)
    np.testing.assert_allclose(annotated_rate_hz_s(polynomials, 0.0, tau), early, rtol=1e-14)


def test_displaced_ground_is_measured_where_geometry_says(orbit: OrbitPolynomial):
    rng = np.random.default_rng(4)
    times, ranges = rng.uniform(-1, 1, 20), rng.uniform(8e5, 9.5e5, 20)
    latitude, longitude = rdr2geo_at_height(orbit, times, ranges, np.zeros(20))
    ground = np.stack(geodetic_to_ecef(latitude, longitude, np.zeros(20)))
    displacement = rng.normal(0, 0.3, (3, 20))
    measured_s, measured_m = geo2rdr(orbit, *np.ascontiguousarray(ground + displacement), 0.0)
    azimuth_s, range_m = displacement_corrections(orbit, ground, times, displacement)
    np.testing.assert_allclose(measured_s + azimuth_s, times, rtol=0, atol=2e-10)
    np.testing.assert_allclose(measured_m + range_m, ranges, rtol=0, atol=1e-6)


def test_ground_that_rises_is_measured_too_near(orbit: OrbitPolynomial):
    latitude, longitude = rdr2geo_at_height(orbit, np.zeros(1), np.full(1, 9e5), np.zeros(1))
    ground = np.stack(geodetic_to_ecef(latitude, longitude, np.zeros(1)))
    up = ground / np.linalg.norm(ground)
    _, range_m = displacement_corrections(orbit, ground, np.zeros(1), 0.1 * up)
    assert 0.06 < range_m[0] < 0.1  # what is missing must be added


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("part", "burst", "height_m", "tolerance"),
    [
        # Rome's first burst is sea, where the processor took the height zero. What remains is
        # that a parabola in range does not hold the rate exactly.
        ("s1a-iw1-slc-vv-20220104t170558", 0, 0.0, 1e-5),
        # Morocco: the heights (one per burst) that the processor's rates stand for are some
        # hundred metres from these.
        ("s1a-iw1-slc-vv-20230904", 0, 350.0, 3e-5),
        ("s1a-iw2-slc-vv-20230904", 0, 350.0, 3e-5),
        ("s1a-iw3-slc-vv-20230904", 0, 350.0, 3e-5),
    ],
)
def test_annotated_rates_are_those_of_the_geometry(
    annotations: Callable, part: str, burst: int, height_m: float, tolerance: float
):
    (file,) = annotations(part, burst)
    orbit = fit_orbit(file.time_s, file.position, file.velocity, -2.0, 5.0)
    middle_s = 0.5 * file.lines * file.line_interval_s
    times = np.full(3, middle_s)
    # The far end is left out: the parabola misses the rate by 2e-5 there.
    ranges = file.near_range_m + np.array([0.05, 0.3, 0.6]) * file.samples * file.range_spacing_m
    heights = np.full(3, height_m)
    latitude, longitude = rdr2geo_at_height(orbit, times, ranges, heights)
    ground = np.stack(geodetic_to_ecef(latitude, longitude, heights))
    rate = true_fm_rate_hz_s(orbit, ground, times, WAVELENGTH_M)
    polynomials = RangePolynomials(*file.polynomials("azimuthFmRate", "azimuthFmRatePolynomial"))
    annotated = annotated_rate_hz_s(polynomials, middle_s, 2 * ranges / C_M_S)
    np.testing.assert_allclose(rate, annotated, rtol=tolerance)
