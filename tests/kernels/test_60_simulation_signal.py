"""Impulse response and carrier of the simulator against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.simulation.orbit import (
    fit_orbit,
    geodetic_to_ecef,
    intersect_ellipsoid,
    propagate,
)
from bperp.kernels.simulation.passage import place_orbit
from bperp.kernels.simulation.signal import (
    BurstSignal,
    Targets,
    add_targets,
    build_response,
    carrier_line,
    form_lines,
    quantise,
    steering_doppler_rate,
    transform_length,
)

LINES, SAMPLES = 120, 192
INTERVAL_S, SPACING_M, WAVELENGTH_M = 2.0555563e-3, 2.329562, 0.05546576
RANGE_BAND, AZIMUTH_BAND = (56.5 / 64.345, 0.75), (327.0 * INTERVAL_S, 0.70)
PLACE = np.radians([31.2, -8.6])


@pytest.fixture(scope="module")
def burst():
    time, state = place_orbit(*PLACE, 500.0, 820e3, False)
    times = time + np.arange(-9.0, 9.5, 1.5)
    orbit = fit_orbit(times, propagate(state, time, times))
    steering = steering_doppler_rate(7593.0, 5.405e9, np.radians(1.590368784))
    # A burst far from its middle in Doppler: the carrier must matter.
    rate, offset = carrier_line(
        np.full(SAMPLES, -2320.0), np.full(SAMPLES, -12.0), steering, SAMPLES // 2
    )
    return BurstSignal(
        orbit,
        time - 0.5 * LINES * INTERVAL_S,
        INTERVAL_S,
        820e3 - 0.5 * SAMPLES * SPACING_M,
        SPACING_M,
        WAVELENGTH_M,
        rate,
        offset + 1000.0,
    )


@pytest.fixture(scope="module")
def response():
    return build_response(SAMPLES, RANGE_BAND, AZIMUTH_BAND)


def targets_at(burst, line, sample, amplitude=1.0, path=0.0):
    line, sample = np.atleast_1d(line).astype(float), np.atleast_1d(sample).astype(float)
    time = burst.first_line_s + line * INTERVAL_S
    distance = burst.first_sample_m + sample * SPACING_M
    height = np.full(len(line), 500.0)
    place = intersect_ellipsoid(burst.orbit, time, distance, height, PLACE)
    return Targets(
        geodetic_to_ecef(place[0], place[1], height),
        np.broadcast_to(np.complex64(amplitude), line.shape).copy(),
        np.full(len(line), path, np.float32),
        time + 5e-3,
    )


def render(burst, response, targets):
    shape = (LINES, 2 * transform_length(SAMPLES))
    real, imaginary = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    add_targets(real, imaginary, burst, response, targets)
    return form_lines(real, imaginary, response, SAMPLES)


def windowed(position, bandwidth, coefficient):
    """Inverse Fourier transform of the Hamming window by plain summation, peak one."""
    frequency = (np.arange(4000) + 0.5) / 4000 * bandwidth - 0.5 * bandwidth
    weight = coefficient + (1.0 - coefficient) * np.cos(2.0 * np.pi * frequency / bandwidth)
    value = np.cos(2.0 * np.pi * np.multiply.outer(position, frequency)) @ weight
    return value / weight.sum()


@pytest.mark.parametrize(("line", "sample"), [(60.0, 96.0), (58.27, 95.62), (61.5, 96.499)])
def test_impulse_response(burst, response, line, sample):
    image = render(burst, response, targets_at(burst, line, sample, 1000.0))
    rows, columns = np.arange(LINES), np.arange(SAMPLES)
    nearest = round(line), round(sample)
    across = windowed(columns - sample, *RANGE_BAND)
    down = windowed(rows - line, *AZIMUTH_BAND)
    cut = np.abs(image[nearest[0]])
    expected = 1000.0 * np.abs(across) * abs(down[nearest[0]])
    near = np.abs(columns - sample) < 40  # beyond, the circular transform wraps its sidelobes
    np.testing.assert_allclose(cut[near], expected[near], rtol=6e-3, atol=1.5)
    cut = np.abs(image[:, nearest[1]])
    expected = 1000.0 * np.abs(down) * abs(across[nearest[1]])
    close = np.abs(rows - line) < 2.0
    np.testing.assert_allclose(cut[close], expected[close], atol=25.0)  # tapered sum of 17 lines
    assert not cut[np.abs(rows - line) > 9.0].any()


def test_width_and_sidelobes(burst, response):
    """Widths of the Hamming responses: 1.11 and 1.18 over the bandwidth; sidelobes near -21 dB."""
    fine = np.linspace(-6.0, 6.0, 241)
    lines = np.array(
        [
            np.abs(render(burst, response, targets_at(burst, 60.0 - x, 96.0))[60, 96])
            for x in fine[::4]
        ]
    )
    samples = np.array(
        [np.abs(render(burst, response, targets_at(burst, 60.0, 96.0 - x))[60, 96]) for x in fine]
    )
    for cut, grid, band in ((lines, fine[::4], AZIMUTH_BAND), (samples, fine, RANGE_BAND)):
        assert cut.max() == pytest.approx(1.0, abs=1e-3)
        above = grid[cut > np.sqrt(0.5)]
        ideal = np.linspace(0.0, 2.0, 4001)
        half = ideal[np.argmax(windowed(ideal, *band) < np.sqrt(0.5))]
        assert np.ptp(above) == pytest.approx(2.0 * half, abs=2.5 * (grid[1] - grid[0]))
        first = np.abs(grid) > 1.4 / band[0]
        assert -26.0 < 20.0 * np.log10(cut[first].max()) < -18.0


def test_carrier_turns_at_the_local_doppler(burst, response):
    for line in (30.3, 60.0, 95.7):
        image = render(burst, response, targets_at(burst, line, 96.0, 1000.0))[:, 96]
        rows = np.arange(round(line) - 1, round(line) + 2)  # the main lobe
        steps = np.angle(image[rows[1:]] * np.conj(image[rows[:-1]])) / (2.0 * np.pi * INTERVAL_S)
        eta = (line - 0.5 * LINES) * INTERVAL_S
        expected = burst.carrier_rate_hz_s[96] * eta + burst.carrier_offset_hz[96]
        wrapped = (steps - expected + 0.5 / INTERVAL_S) % (1.0 / INTERVAL_S) - 0.5 / INTERVAL_S
        np.testing.assert_allclose(wrapped, 0.0, atol=0.05)


def test_phase_is_that_of_the_distance(burst, response):
    line, sample = 60.0, np.array([90.0, 97.25])
    for s in sample:
        targets = targets_at(burst, line, s)
        value = render(burst, response, targets)[60, round(s)]
        distance = burst.first_sample_m + s * SPACING_M
        turns = -2.0 * distance / WAVELENGTH_M
        assert abs(np.angle(value * np.exp(-2j * np.pi * turns))) < 2e-3
        longer = render(burst, response, targets._replace(path_m=np.array([1e-3], np.float32)))
        shift = np.angle(longer[60, round(s)] * np.conj(value))
        assert shift == pytest.approx(-4.0 * np.pi * 1e-3 / WAVELENGTH_M, abs=1e-3)


def test_carrier_constants_of_iw1():
    """The beam crosses a target where its Doppler history meets the steering."""
    ks = steering_doppler_rate(7593.0, 5.405000454e9, np.radians(1.590368784))
    assert ks == pytest.approx(7600.0, rel=5e-3)
    ka = np.array([-2331.0, -2320.0, -2300.0])
    doppler = np.array([-30.0, -10.0, 25.0])
    rate, offset = carrier_line(ka, doppler, ks, 1)
    assert rate[1] == pytest.approx(1777.0, rel=5e-3)
    eta = 0.7
    crossing = (doppler + ka * eta) / (ka - ks)  # ka (s - eta) = doppler + ks s
    physical = ka * (crossing - eta)
    difference = rate * eta + offset - physical
    # Equal up to what centring the middle of the range adds: a constant times the local rate.
    np.testing.assert_allclose(difference / rate, difference[1] / rate[1], rtol=1e-9)
    assert offset[1] == pytest.approx(doppler[1])
    assert rate[1] > 0.0  # the centroid rises with azimuth time


def test_speckle_power_and_band(burst, response):
    random = np.random.default_rng(5)
    count = 2 * LINES * SAMPLES
    line = random.uniform(-10.0, LINES + 10.0, count)
    sample = random.uniform(-20.0, SAMPLES + 20.0, count)
    targets = targets_at(burst, line, sample)
    amplitude = random.standard_normal((count, 2), dtype=np.float32).view(np.complex64)[:, 0]
    image = render(burst, response, targets._replace(amplitude=amplitude))
    density = count / ((LINES + 20.0) * (SAMPLES + 40.0))
    power = np.mean(np.abs(image) ** 2)
    assert power == pytest.approx(2.0 * density * response.power, rel=0.03)
    window = np.hanning(SAMPLES)
    spectrum = np.mean(np.abs(np.fft.fft(image * window, axis=1)) ** 2, axis=0)
    frequency = np.abs(np.fft.fftfreq(SAMPLES))
    outside = spectrum[frequency > 0.5 * RANGE_BAND[0] + 0.02].mean()
    inside = spectrum[frequency < 0.5 * RANGE_BAND[0] - 0.02].mean()
    assert outside / inside < 1e-5


def test_targets_beside_the_burst_leave_no_trace(burst, response):
    far = targets_at(burst, [-9.0, LINES + 9.0, 60.0, 60.0], [96.0, 96.0, -40.0, SAMPLES + 45.0])
    far = far._replace(amplitude=np.full(4, 1e6, np.complex64))
    assert np.abs(render(burst, response, far)[:, 20:-20]).max() < 1e4
    assert not render(burst, response, far)[:50].any()


def test_quantise():
    image = np.array([[1.5 + 2.5j, -0.4 + 0.6j], [4e4 - 4e4j, 7.0 + 8.0j]], np.complex64)
    whole = quantise(image, (0, 2, 0, 2))
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole[0], [[2, 2], [0, 1]])
    np.testing.assert_array_equal(whole[1], [[32767, -32767], [7, 8]])
    assert not quantise(image, (1, 2, 0, 1))[0].any()
    assert not quantise(image, (1, 2, 0, 1))[:, 1].any()
