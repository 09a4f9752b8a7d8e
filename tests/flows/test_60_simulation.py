"""The simulated products against physics written down here, independently of the simulator.

Geometry for the expectations comes from the orbit file and the annotation as a reader sees them,
the carrier from ESA's definition of the deramping function. Nothing of the simulator's signal code
is used to predict what it made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
from lxml import etree

from bperp.flows.simulation import (
    PRESETS,
    SimulatedStack,
    implied_velocity_floor,
    simulate_stack,
)
from bperp.kernels.simulation.orbit import fit_orbit, geodetic_to_ecef, zero_doppler

C = 299_792_458.0

QUIET = replace(
    PRESETS["tiny"],
    date_count=2,
    turbulence_rms_m=0.0,
    stratified_std_per_km=0.0,
    bowl_velocity_m_yr=0.0,
    ramp_m_yr_per_km=(0.0, 0.0),
    own_velocity_std_m_yr=0.0,
    baselines_m=(0.0, 0.0),
    burst_sync_std_lines=0.0,
    burst_jitter_lines=0,
    azimuth_misregistration_lines=(0.0, 0.0),
    range_misregistration_samples=(0.0, 0.0),
    doppler_noise_hz=0.0,
    coherence_initial=1.0,
    coherence_long_term=1.0,
    signal_to_noise_db=60.0,
    persistent_per_km2=0.05,
    signal_to_clutter_db=(3.0, 0.0),
)


@dataclass
class Burst:
    """One burst as any reader of the format sees it."""

    pixels: np.ndarray
    first_line_ns: int
    line_interval_s: float
    slant_range_time_s: float
    sampling_rate_hz: float
    wavelength_m: float
    valid: tuple[int, int, int, int]
    rate: np.ndarray
    reference_s: np.ndarray
    doppler: np.ndarray

    def carrier_hz(self, line: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """Total Doppler centroid: ESA's ``kt (eta - eta_ref) + f_dc``."""
        eta = (line - 0.5 * len(self.pixels)) * self.line_interval_s
        s = np.clip(np.rint(sample).astype(int), 0, len(self.rate) - 1)
        return self.rate[s] * (eta - self.reference_s[s]) + self.doppler[s]

    def predict(self, orbit, node, points):
        """Zero-Doppler line, sample and range from the orbit file and the annotation."""
        start = (self.first_line_ns - node) * 1e-9
        time, distance = zero_doppler(orbit, points, np.full(len(points), start + 0.4))
        line = (time - start) / self.line_interval_s
        sample = (2 * distance / C - self.slant_range_time_s) * self.sampling_rate_hz
        return line, sample, distance


def _ns(text: str) -> int:
    return int(np.datetime64(text.removeprefix("UTC="), "ns").astype(np.int64))


def read_orbit(path: Path, epoch_ns: int):
    """Fit the vectors of an orbit file near an epoch (seconds from it)."""
    times, states = [], []
    for vector in etree.parse(path).getroot().iter("OSV"):
        seconds = (_ns(vector.findtext("UTC")) - epoch_ns) * 1e-9
        if abs(seconds) < 60.0:
            times.append(seconds)
            states.append([float(vector.findtext(k)) for k in ("X", "Y", "Z", "VX", "VY", "VZ")])
    return fit_orbit(np.array(times), np.array(states), order=11)


def _polynomial(node, tag, tau):
    coefficients = [float(c) for c in node.findtext(tag).split()]
    return np.polynomial.polynomial.polyval(tau - float(node.findtext("t0")), coefficients)


def read_bursts(product: Path, swath: str = "iw1") -> list[Burst]:
    """Read the bursts of a product with lxml and tifffile only."""
    root = etree.parse(next(product.glob(f"annotation/s1a-{swath}-*.xml"))).getroot()
    image = tifffile.imread(next(product.glob(f"measurement/s1a-{swath}-*.tiff")))
    number = {
        k: float(root.findtext(f".//{k}"))
        for k in (
            "azimuthTimeInterval",
            "slantRangeTime",
            "rangeSamplingRate",
            "radarFrequency",
            "azimuthSteeringRate",
            "linesPerBurst",
        )
    }
    count = int(number["linesPerBurst"])
    tau = number["slantRangeTime"] + np.arange(image.shape[1]) / number["rangeSamplingRate"]
    velocity = [
        np.linalg.norm([float(o.findtext(f"velocity/{a}")) for a in "xyz"])
        for o in root.iterfind(".//orbit")
    ]
    speed = velocity[len(velocity) // 2]
    steering = np.radians(number["azimuthSteeringRate"])
    ks = 2.0 * speed * number["radarFrequency"] * steering / C
    bursts = []
    for index, burst in enumerate(root.iterfind(".//burst")):
        ka = _polynomial(
            root.findall(".//azimuthFmRate")[index + 1], "azimuthFmRatePolynomial", tau
        )
        dc = _polynomial(root.findall(".//dcEstimate")[index + 1], "dataDcPolynomial", tau)
        eta_c = -dc / ka
        first = np.array(burst.findtext("firstValidSample").split(), dtype=int)
        last = np.array(burst.findtext("lastValidSample").split(), dtype=int)
        lines = np.flatnonzero(first >= 0)
        bursts.append(
            Burst(
                image[index * count : (index + 1) * count],
                _ns(burst.findtext("azimuthTime")),
                number["azimuthTimeInterval"],
                number["slantRangeTime"],
                number["rangeSamplingRate"],
                C / number["radarFrequency"],
                (lines[0], lines[-1] + 1, first.max(), last.max() + 1),
                ka * ks / (ka - ks),
                eta_c - eta_c[len(tau) // 2],
                dc,
            )
        )
    return bursts


def _inside(burst: Burst, pixels: np.ndarray) -> np.ndarray:
    top, bottom, left, right = burst.valid
    return pixels[top:bottom, left:right]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> SimulatedStack:
    """Two dates of the same ground from the same place, the second 0.02 lines misregistered."""
    options = replace(QUIET, azimuth_misregistration_lines=(0.0, 0.02))
    return simulate_stack(tmp_path_factory.mktemp("quiet"), options)


@pytest.fixture(scope="module")
def bright(tmp_path_factory) -> SimulatedStack:
    """Bright points over weak clutter: everything that moves phase is on."""
    options = replace(
        PRESETS["tiny"],
        date_count=4,
        clutter_amplitude=10.0,
        persistent_per_km2=10.0,
        signal_to_clutter_db=(46.0, 1.0),
        signal_to_clutter_limits_db=(40.0, 50.0),
        doppler_noise_hz=0.0,
        bowl_velocity_m_yr=-0.1,
        azimuth_misregistration_lines=(0.0, 0.31, -0.2, 0.02),
        range_misregistration_samples=(0.0, -0.15, 0.4, 0.02),
    )
    return simulate_stack(tmp_path_factory.mktemp("bright"), options)


def ground_points(truth: xr.Dataset) -> np.ndarray:
    """Earth-fixed positions of the true scatterers."""
    return geodetic_to_ecef(
        np.radians(truth.latitude_deg.values),
        np.radians(truth.longitude_deg.values),
        truth.height_m.values,
    )


def point_signals(stack: SimulatedStack, truth: xr.Dataset, path_m: np.ndarray) -> np.ndarray:
    """Nearest pixels of the points times the conjugate of their expected phasor; NaN outside.

    Expected: -4 pi (R + path) / lambda, and the carrier over the sub-pixel distance.
    """
    points = ground_points(truth)
    signals = np.full(path_m.shape, np.nan + 0j)
    for index, (product, file) in enumerate(zip(stack.products, stack.orbits, strict=True)):
        bursts = read_bursts(product)
        epoch = bursts[0].first_line_ns
        orbit = read_orbit(file, epoch)
        for number, burst in enumerate(bursts):
            chosen = truth.burst_index.values == number
            line, sample, distance = burst.predict(orbit, epoch, points[chosen])
            line = line + float(truth.azimuth_misregistration_lines[index])
            sample = sample + float(truth.range_misregistration_samples[index])
            top, bottom, left, right = burst.valid
            i, j = np.rint(line).astype(int), np.rint(sample).astype(int)
            good = (i >= top) & (i < bottom) & (j >= left) & (j < right)
            carrier = burst.carrier_hz(line, sample) * (i - line) * burst.line_interval_s
            way = distance + path_m[chosen, index]
            model = np.exp(2j * np.pi * (carrier - 2.0 * way / burst.wavelength_m))
            value = burst.pixels[np.where(good, i, 0), np.where(good, j, 0)] * np.conj(model)
            signals[chosen, index] = np.where(good, value, np.nan)
    return signals


def test_repeat_pass_phase_of_points(bright: SimulatedStack) -> None:
    truth = xr.open_zarr(bright.truth, consolidated=False).load()
    signals = point_signals(bright, truth, (truth.atmosphere_m - truth.displacement_m).values)
    signals = signals[np.isfinite(signals).all(axis=1)]
    phase = np.angle(signals[:, :1] * np.conj(signals[:, 1:]))
    assert len(phase) > 50
    assert np.all(np.abs(np.mean(phase, axis=0)) < 0.003)
    assert np.sqrt(np.mean(phase**2)) < 0.01
    # The test can fail: without the displacement the phases are far off.
    still = point_signals(bright, truth, truth.atmosphere_m.values)
    still = still[np.isfinite(still).all(axis=1)]
    assert np.std(np.angle(still[:, 0] * np.conj(still[:, 3]))) > 0.1


def test_misregistration_moves_the_image(bright: SimulatedStack) -> None:
    """A positive shift of the truth puts the points further down and right: amplitude only."""
    truth = xr.open_zarr(bright.truth, consolidated=False)
    points = ground_points(truth)
    for index in (1, 2):
        burst = read_bursts(bright.products[index])[0]
        orbit = read_orbit(bright.orbits[index], burst.first_line_ns)
        chosen = points[truth.burst_index.values == 0]
        line, sample, _ = burst.predict(orbit, burst.first_line_ns, chosen)
        i, j = np.rint(line).astype(int), np.rint(sample).astype(int)
        top, bottom, left, right = burst.valid
        good = (i > top + 4) & (i < bottom - 5) & (j > left + 4) & (j < right - 5)
        power = np.abs(burst.pixels) ** 2
        shifts = []
        for a, b, y, x in zip(i[good], j[good], line[good], sample[good], strict=True):
            window = power[a - 2 : a + 3, b - 2 : b + 3].astype(float)
            down = _peak(window[:, 2]) + a - y
            right_ = _peak(window[2, :]) + b - x
            shifts.append((down, right_))
        measured = np.median(shifts, axis=0)
        wanted = (
            float(truth.azimuth_misregistration_lines[index]),
            float(truth.range_misregistration_samples[index]),
        )
        np.testing.assert_allclose(measured, wanted, atol=0.05)


def _peak(values: np.ndarray) -> float:
    """Vertex of the parabola through log power around the middle."""
    low, mid, high = np.log(values[1:4])
    return 0.5 * (low - high) / (low - 2.0 * mid + high)


def test_zero_baseline_pair_has_zero_phase(tmp_path: Path) -> None:
    stack = simulate_stack(tmp_path, QUIET)
    first, second = (read_bursts(product) for product in stack.products)
    for a, b in zip(first, second, strict=True):
        pair = _inside(a, a.pixels) * np.conj(_inside(b, b.pixels))
        assert abs(np.angle(pair.sum())) < 1e-3
        coherence = np.abs(pair.sum()) / np.sqrt(
            np.sum(np.abs(_inside(a, a.pixels)) ** 2) * np.sum(np.abs(_inside(b, b.pixels)) ** 2)
        )
        # The Doppler centroid differs by some Hz between dates, which costs a little.
        assert coherence > 0.998


def test_overlap_double_difference_is_the_injected_shift(quiet: SimulatedStack) -> None:
    first, second = (read_bursts(product) for product in quiet.products)
    step = first[1].first_line_ns - first[0].first_line_ns
    lines = round(step * 1e-9 / first[0].line_interval_s)
    upper = [burst[0].pixels[lines:] for burst in (first, second)]
    lower = [burst[1].pixels[: len(upper[0])] for burst in (first, second)]
    cross = (upper[0] * np.conj(upper[1])) * np.conj(lower[0] * np.conj(lower[1]))
    rows = np.flatnonzero(np.abs(cross).sum(axis=1))
    middle = np.array([rows.mean()])
    assert len(rows) == 80
    sample = np.array([cross.shape[1] / 2])
    separation = first[0].carrier_hz(middle + lines, sample) - first[1].carrier_hz(middle, sample)
    expected = 2.0 * np.pi * separation[0] * first[0].line_interval_s * 0.02
    measured = np.angle(cross.sum())
    assert separation[0] > 900.0
    assert measured == pytest.approx(expected, rel=0.01)


def test_bursts_see_independent_speckle(quiet: SimulatedStack) -> None:
    """The looks of two bursts on one piece of ground are a kilohertz apart."""
    upper, lower = read_bursts(quiet.products[0])
    lines = round((lower.first_line_ns - upper.first_line_ns) * 1e-9 / upper.line_interval_s)
    a, b = upper.pixels[lines:], lower.pixels[: len(upper.pixels) - lines]
    both = (np.abs(a) > 0) & (np.abs(b) > 0)
    norm = np.sqrt(np.sum(np.abs(a[both]) ** 2) * np.sum(np.abs(b[both]) ** 2))
    assert np.abs(np.sum(a[both] * np.conj(b[both]))) / norm < 0.03


def test_spectrum_is_centred_after_esa_deramp(quiet: SimulatedStack) -> None:
    for burst in read_bursts(quiet.products[1]):
        top, bottom, left, right = burst.valid
        eta = (np.arange(len(burst.pixels)) - 0.5 * len(burst.pixels)) * burst.line_interval_s
        turns = 0.5 * burst.rate * (eta[:, None] - burst.reference_s) ** 2
        turns = turns + burst.doppler * eta[:, None]
        deramped = burst.pixels * np.exp(-2j * np.pi * turns)
        for chosen, wanted in ((deramped, True), (burst.pixels, False)):
            spectrum = np.abs(np.fft.fft(chosen[top:bottom, left:right], axis=0)) ** 2
            power = spectrum.sum(axis=1)
            frequency = np.fft.fftfreq(len(power), burst.line_interval_s)
            angle = 2.0 * np.pi * frequency * burst.line_interval_s
            centroid = np.angle(np.sum(power * np.exp(1j * angle)))
            centroid /= 2.0 * np.pi * burst.line_interval_s
            outside = power[np.abs(frequency) > 185.0].sum() / power.sum()
            if wanted:
                assert abs(centroid) < 3.0
                assert outside < 0.01
            else:
                assert outside > 0.15  # without deramp the spectrum is smeared over all


def test_field_has_the_injected_coherence(tmp_path: Path) -> None:
    options = replace(
        QUIET,
        date_count=3,
        baselines_m=(0.0, 0.0, 0.0),
        azimuth_misregistration_lines=(),
        azimuth_misregistration_std_lines=0.0,
        range_misregistration_samples=(),
        range_misregistration_std_samples=0.0,
        coherence_initial=0.8,
        coherence_long_term=0.2,
        coherence_decay_days=20.0,
        signal_to_noise_db=10.0,
    )
    stack = simulate_stack(tmp_path, options)
    truth = xr.open_zarr(stack.truth, consolidated=False)
    images = np.array(
        [
            np.concatenate([_inside(b, b.pixels).ravel() for b in read_bursts(product)])
            for product in stack.products
        ]
    )
    covariance = images @ images.conj().T / images.shape[1]
    power = np.diagonal(covariance).real
    coherence = covariance / np.sqrt(power[:, None] * power[None, :])
    expected = (0.2 + 0.6 * np.exp(-12.0 / 20.0)) / 1.1
    assert float(truth.coherence[0, 1]) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(coherence, truth.coherence.values, atol=0.02)
    # Mean power: flat ground; slopes and the edges of the terrain move it by a few percent.
    assert np.sqrt(power.mean()) == pytest.approx(options.clutter_amplitude, rel=0.05)


def test_velocities_scatter_as_the_noise_implies(tmp_path: Path) -> None:
    options = replace(
        PRESETS["tiny"],
        date_count=12,
        repeat_days=60,
        persistent_per_km2=100.0,
        signal_to_clutter_db=(18.0, 3.0),
        signal_to_clutter_limits_db=(12.0, 26.0),
        coherence_long_term=0.3,
        turbulence_rms_m=0.0,
        stratified_std_per_km=0.0,
        azimuth_misregistration_std_lines=0.0,
        range_misregistration_std_samples=0.0,
    )
    stack = simulate_stack(tmp_path, options)
    truth = xr.open_zarr(stack.truth, consolidated=False).load()
    signals = point_signals(stack, truth, -truth.displacement_m.values)
    phase = np.angle(signals[np.isfinite(signals).all(axis=1)])
    floor = implied_velocity_floor(truth)
    days = (truth.date.values - truth.date.values[0]) / np.timedelta64(1, "D")
    design = np.stack([np.ones(12), days / 365.25, truth.perpendicular_baseline_m.values], axis=1)
    phase -= np.angle(np.mean(np.exp(1j * phase), axis=1))[:, None]
    phase = (phase + np.pi) % (2.0 * np.pi) - np.pi
    velocity = np.linalg.lstsq(design, phase.T, rcond=None)[0][1]
    velocity *= truth.attrs["wavelength_m"] / (4.0 * np.pi)
    assert len(phase) > 200
    assert np.median(np.abs(velocity)) / 0.6745 == pytest.approx(np.median(floor), rel=0.12)
