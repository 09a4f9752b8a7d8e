"""The simulated products against physics written down here, independently of the simulator.

Geometry for the expectations comes from the orbit file and the annotation as a reader sees them,
the carrier from ESA's definition of the deramping function. Nothing of the simulator's signal code
is used to predict what it made.
"""

from __future__ import annotations

import hashlib
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
    SimulationOptions,
    implied_velocity_floor,
    simulate_stack,
)
from bperp.flows.simulation_radar import BUILT_IN, geometric_fm_rate, read_template
from bperp.kernels.simulation.orbit import fit_orbit, geodetic_to_ecef, zero_doppler
from bperp.stores.errors import ConfigurationError

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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SimulatedStack:
    return simulate_stack(tmp_path_factory.mktemp("tiny"))


def test_repeat_pass_phase_of_points(bright: SimulatedStack) -> None:
    """Phase at the nearest pixel = -4 pi R / lambda + carrier over the sub-pixel distance."""
    truth = xr.open_zarr(bright.truth, consolidated=False)
    points = geodetic_to_ecef(
        np.radians(truth.latitude_deg.values),
        np.radians(truth.longitude_deg.values),
        truth.height_m.values,
    )
    residual, gain = [], []
    for index, (product, file) in enumerate(zip(bright.products, bright.orbits, strict=True)):
        bursts = read_bursts(product)
        node = bursts[0].first_line_ns
        orbit = read_orbit(file, node)
        expected = np.full(len(points), np.nan + 0j)
        for number, burst in enumerate(bursts):
            chosen = truth.burst_index.values == number
            line, sample, distance = burst.predict(orbit, node, points[chosen])
            line = line + float(truth.azimuth_misregistration_lines[index])
            sample = sample + float(truth.range_misregistration_samples[index])
            top, bottom, left, right = burst.valid
            i, j = np.rint(line).astype(int), np.rint(sample).astype(int)
            good = (i >= top) & (i < bottom) & (j >= left) & (j < right)
            path = distance + (truth.atmosphere_m - truth.displacement_m).values[chosen, index]
            carrier = burst.carrier_hz(line, sample) * (i - line) * burst.line_interval_s
            model = np.exp(2j * np.pi * (carrier - 2.0 * path / burst.wavelength_m))
            value = np.where(good, burst.pixels[np.where(good, i, 0), np.where(good, j, 0)], np.nan)
            expected[chosen] = value * np.conj(model)
        residual.append(expected)
    pair = np.array([residual[0] * np.conj(other) for other in residual[1:]])
    seen = np.isfinite(pair).all(axis=0)
    assert seen.sum() > 50
    phase = np.angle(pair[:, seen])
    assert np.all(np.abs(np.mean(phase, axis=1)) < 0.003)
    assert np.sqrt(np.mean(phase**2)) < 0.01
    del gain


def test_misregistration_moves_the_image(bright: SimulatedStack) -> None:
    """A positive shift of the truth puts the points further down and right: amplitude only."""
    truth = xr.open_zarr(bright.truth, consolidated=False)
    points = geodetic_to_ecef(
        np.radians(truth.latitude_deg.values),
        np.radians(truth.longitude_deg.values),
        truth.height_m.values,
    )
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
    points = geodetic_to_ecef(
        np.radians(truth.latitude_deg.values),
        np.radians(truth.longitude_deg.values),
        truth.height_m.values,
    )
    phase = np.full(truth.displacement_m.shape, np.nan)
    for index, (product, file) in enumerate(zip(stack.products, stack.orbits, strict=True)):
        for number, burst in enumerate(read_bursts(product)):
            chosen = truth.burst_index.values == number
            orbit = read_orbit(file, burst.first_line_ns)
            line, sample, distance = burst.predict(orbit, burst.first_line_ns, points[chosen])
            i, j = np.rint(line).astype(int), np.rint(sample).astype(int)
            good = (i > 30) & (i < 370) & (j > 15) & (j < 230)
            carrier = burst.carrier_hz(line, sample) * (i - line) * burst.line_interval_s
            path = distance - truth.displacement_m.values[chosen, index]
            model = np.exp(2j * np.pi * (carrier - 2.0 * path / burst.wavelength_m))
            value = burst.pixels[np.where(good, i, 100), np.where(good, j, 100)]
            phase[chosen, index] = np.where(good, np.angle(value * np.conj(model)), np.nan)
    phase = phase[np.isfinite(phase).all(axis=1)]
    floor = implied_velocity_floor(truth)
    days = (truth.date.values - truth.date.values[0]) / np.timedelta64(1, "D")
    design = np.stack([np.ones(12), days / 365.25, truth.perpendicular_baseline_m.values], axis=1)
    complete = np.isfinite(phase).all(axis=1)
    phase -= np.angle(np.mean(np.exp(1j * phase), axis=1))[:, None]
    phase = (phase + np.pi) % (2.0 * np.pi) - np.pi
    velocity = np.linalg.lstsq(design, phase.T, rcond=None)[0][1]
    velocity *= truth.attrs["wavelength_m"] / (4.0 * np.pi)
    assert complete.sum() > 200
    assert np.median(np.abs(velocity)) / 0.6745 == pytest.approx(np.median(floor), rel=0.12)


def test_names_and_manifest_agree_with_the_files(tiny: SimulatedStack) -> None:
    assert len(tiny.products) == len(tiny.orbits) == 6
    product = tiny.products[0]
    assert product.name.startswith("S1A_IW_SLC__1SSV_20230105T0637")
    root = etree.parse(product / "manifest.safe").getroot()
    software = root.find(".//{http://www.esa.int/safe/sentinel-1.0}software")
    assert (software.get("name"), software.get("version")) == ("Sentinel-1 IPF", "003.61")
    entries = root.findall(".//dataObject")
    assert len(entries) == 4
    for entry in entries:
        path = product / entry.find(".//fileLocation").get("href")
        content = path.read_bytes()
        assert len(content) == int(entry.find("byteStream").get("size"))
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert digest == entry.findtext(".//checksum")
    orbit = next(root.iter("{http://www.esa.int/safe/sentinel-1.0}relativeOrbitNumber"))
    absolute = next(root.iter("{http://www.esa.int/safe/sentinel-1.0}orbitNumber"))
    assert orbit.text == "52"
    assert (int(absolute.text) - 73) % 175 + 1 == 52


def test_annotation_fields(tiny: SimulatedStack) -> None:
    product = tiny.products[1]
    annotation = next(product.glob("annotation/s1a-iw1-slc-vv-*.xml"))
    root = etree.parse(annotation).getroot()
    bursts = root.findall(".//burst")
    assert [b.findtext("burstId") for b in bursts] == [
        i.split("_")[1].lstrip("0") for i in tiny.burst_ids
    ]
    node = _ns(root.findtext(".//ascendingNodeTime"))
    half = 0.5 * 400 * float(root.findtext(".//azimuthTimeInterval"))
    for burst in bursts:
        middle = (_ns(burst.findtext("azimuthTime")) - node) * 1e-9 + half
        cycles = (middle + 51 * 12 * 86400 / 175 - 2.299849) / 2.758273
        assert int(burst.findtext("burstId")) == int(np.floor(cycles)) + 1
        first = burst.findtext("firstValidSample").split()
        assert len(first) == 400
        assert first[:20] == ["-1"] * 20
        assert first[20] == "12"
        assert first[-17:] == ["-1"] * 17
    size = 400 * 256 * 4
    offsets = [int(b.findtext("byteOffset")) for b in bursts]
    assert offsets[1] - offsets[0] == size
    content = next(product.glob("measurement/*.tiff")).read_bytes()
    assert offsets[1] + size == len(content)
    with tifffile.TiffFile(next(product.glob("measurement/*.tiff"))) as file:
        page = file.pages[0]
        assert file.byteorder == "<"
        assert page.dataoffsets[0] == offsets[0]
        assert page.rowsperstrip == 1
        image = page.asarray()
    raw = np.frombuffer(content, "<i2", offset=offsets[1]).reshape(400, 256, 2)
    np.testing.assert_array_equal(raw[..., 0], image[400:].real)
    assert not raw[:20].any()
    assert not raw[:, :12].any()
    assert not raw[:, -20:].any()
    assert raw[20:-17, 12:-20].any(axis=2).mean() > 0.999


def test_geolocation_grid_and_orbits_agree(tiny: SimulatedStack) -> None:
    product, file = tiny.products[2], tiny.orbits[2]
    root = etree.parse(next(product.glob("annotation/s1a-*.xml"))).getroot()
    epoch = _ns(root.findtext(".//burst/azimuthTime"))
    orbit = read_orbit(file, epoch)
    points = root.findall(".//geolocationGridPoint")
    values = np.array(
        [
            [float(p.findtext(k)) for k in ("latitude", "longitude", "height", "slantRangeTime")]
            for p in points
        ]
    )
    times = np.array([(_ns(p.findtext("azimuthTime")) - epoch) * 1e-9 for p in points])
    ground = geodetic_to_ecef(np.radians(values[:, 0]), np.radians(values[:, 1]), values[:, 2])
    time, distance = zero_doppler(orbit, ground, times)
    assert np.abs(time - times).max() < 1e-8
    assert np.abs(distance - 0.5 * C * values[:, 3]).max() < 1e-6
    # The annotated orbit is a prediction: some centimetres away from the orbit file.
    states, seconds = [], []
    for vector in root.iterfind(".//orbit"):
        seconds.append((_ns(vector.findtext("time")) - epoch) * 1e-9)
        states.append(
            [float(vector.findtext(f"{k}/{a}")) for k in ("position", "velocity") for a in "xyz"]
        )
    near = np.abs(seconds) < 40.0
    predicted = fit_orbit(np.array(seconds)[near], np.array(states)[near])
    other, _ = zero_doppler(predicted, ground, times)
    assert 0.0 < np.abs(other - times).max() * 7000.0 < 0.5


def test_orbit_file_looks_like_a_precise_orbit(tiny: SimulatedStack) -> None:
    path = tiny.orbits[0]
    root = etree.parse(path).getroot()
    assert root.findtext(".//File_Name") == path.stem
    assert root.findtext(".//Mission") == "Sentinel-1A"
    vectors = root.findall(".//OSV")
    assert len(vectors) == int(root.find(".//List_of_OSVs").get("count")) == 123
    times = [_ns(v.findtext("UTC")) for v in vectors]
    assert set(np.diff(times)) == {10_000_000_000}
    tai = int(np.datetime64(vectors[0].findtext("TAI")[4:], "ns").astype(np.int64))
    assert tai - times[0] == 37_000_000_000
    assert root.findtext(".//Validity_Start") == vectors[0].findtext("UTC")[:23]


def test_elevation_file(tiny: SimulatedStack) -> None:
    with tifffile.TiffFile(tiny.elevation) as file:
        page = file.pages[0]
        heights, keys = page.asarray(), page.geotiff_tags
    assert heights.dtype == np.float32
    assert keys["GeographicTypeGeoKey"] == 4979
    assert int(keys["GTRasterTypeGeoKey"]) == 2
    assert heights.min() == pytest.approx(400.0)
    assert heights.max() == pytest.approx(700.0)
    truth = xr.open_zarr(tiny.truth, consolidated=False)
    west, north = keys["ModelTiepoint"][3:5]
    row = (north - truth.latitude_deg.values) * 3600.0
    column = (truth.longitude_deg.values - west) * 3600.0
    i, j = row.astype(int), column.astype(int)
    y, x = row - i, column - j
    terrain = (1 - y) * ((1 - x) * heights[i, j] + x * heights[i, j + 1]) + y * (
        (1 - x) * heights[i + 1, j] + x * heights[i + 1, j + 1]
    )
    np.testing.assert_allclose(terrain + truth.dem_error_m, truth.height_m, atol=1e-3)


def test_old_products_have_the_old_syntax(tmp_path: Path) -> None:
    options = replace(PRESETS["tiny"], date_count=1, ipf_version="002.36", archive=True)
    stack = simulate_stack(tmp_path, options)
    import zipfile

    assert stack.products[0].suffix == ".zip"
    with zipfile.ZipFile(stack.products[0]) as package:
        name = next(n for n in package.namelist() if "/annotation/s1a" in n)
        assert name.startswith(stack.products[0].stem + ".SAFE/")
        root = etree.fromstring(package.read(name))
    assert root.find(".//burstId") is None
    assert root.find(".//azimuthFmRatePolynomial") is None
    assert -2400.0 < float(root.findtext(".//azimuthFmRate/c0")) < -2200.0


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_bytes_do_not_depend_on_workers_or_later_dates(tmp_path: Path) -> None:
    options = replace(PRESETS["tiny"], date_count=2, samples=128)
    simulate_stack(tmp_path / "one", replace(options, workers=1))
    simulate_stack(tmp_path / "two", replace(options, workers=2))
    simulate_stack(tmp_path / "longer", replace(options, date_count=3))
    one = _digests(tmp_path / "one")
    assert one == _digests(tmp_path / "two")
    longer = _digests(tmp_path / "longer")
    early = {k: v for k, v in one.items() if not k.startswith("truth.zarr")}
    assert early == {k: v for k, v in longer.items() if k in early}
    assert len(early) == 2 * 5 + 2 + 1


def test_swaths_and_long_bursts(tmp_path: Path) -> None:
    """Three long bursts on the real beam cycle, two swaths that share a strip of ground."""
    options = replace(
        QUIET,
        date_count=1,
        baselines_m=(0.0,),
        azimuth_misregistration_lines=(0.0,),
        range_misregistration_samples=(0.0,),
        swaths=("IW1", "IW2"),
        bursts_per_swath=3,
        lines_per_burst=1420,
        samples=160,
        relief_m=50.0,
    )
    stack = simulate_stack(tmp_path, options)
    numbers = [int(name.split("_")[1]) for name in stack.burst_ids]
    assert numbers[1] - numbers[0] == numbers[2] - numbers[1] == 1
    assert numbers[:3] == numbers[3:]
    near, far = (read_bursts(stack.products[0], swath)[0] for swath in ("iw1", "iw2"))
    shift = (far.slant_range_time_s - near.slant_range_time_s) * near.sampling_rate_hz
    assert shift == pytest.approx(160 - 132, abs=1e-3)
    # Ground seen by both: amplitude images agree although Doppler and bandwidth differ.
    lines = round((far.first_line_ns - near.first_line_ns) * 1e-9 / near.line_interval_s)
    assert lines > 0
    a = near.pixels[lines + 40 : lines + 900, 40:140]
    b = far.pixels[40:900, 40 - round(shift) : 140 - round(shift)]
    blocks = [np.abs(x[:860].reshape(43, 20, 10, 10)) ** 2 for x in (a, b)]
    means = [x.mean(axis=(1, 3)).ravel() for x in blocks]
    assert np.abs(np.diff(np.mean(means, axis=1))) < 0.1 * np.mean(means)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"bursts_per_swath": 3}, "bursts_per_swath"),
        ({"swaths": ("IW2", "IW1")}, "swaths"),
        ({"baselines_m": (0.0,)}, "baselines_m"),
        ({"coherence_long_term": 0.9}, "coherence_long_term"),
        ({"mission": "S1E"}, "mission"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, change: dict, where: str) -> None:
    with pytest.raises(ConfigurationError, match=f"C102 {where}"):
        simulate_stack(tmp_path, replace(PRESETS["tiny"], **change))
    assert not list(tmp_path.iterdir())


def test_ascending_orbit(tmp_path: Path) -> None:
    options = SimulationOptions(
        date_count=1, orbit_direction="ascending", track=117, centre_deg=(41.9, 12.5), samples=128
    )
    stack = simulate_stack(tmp_path, options)
    root = etree.parse(next(stack.products[0].glob("annotation/s1a-*.xml"))).getroot()
    assert root.findtext(".//pass") == "Ascending"
    assert -15.0 < float(root.findtext(".//platformHeading")) < -8.0
    longitudes = [float(p.text) for p in root.iterfind(".//geolocationGridPoint/longitude")]
    assert longitudes[0] < longitudes[20]  # looks to the right: east
    truth = xr.open_zarr(stack.truth, consolidated=False)
    np.testing.assert_allclose(truth.attrs["centre_deg"], (41.9, 12.5), atol=0.1)


@pytest.mark.realdata
def test_template_takes_over_the_real_passage(tmp_path: Path, real_data: Path) -> None:
    template = next((real_data / "eo_tools-morocco-2023" / "S1").glob("*20230904T*.SAFE"))
    radar = read_template(template, "VV")
    assert radar.passage is not None
    assert (radar.passage.track, radar.passage.orbit_direction) == (52, "descending")
    for name, constants in radar.swaths.items():
        assert constants.delay_s == pytest.approx(BUILT_IN.swaths[name].delay_s, abs=0.02)
    options = replace(
        PRESETS["tiny"], date_count=1, template=template, lines_per_burst=1507, samples=96
    )
    stack = simulate_stack(tmp_path, options)
    assert stack.burst_ids == ("t052_110435_iw1", "t052_110436_iw1")
    root = etree.parse(next(stack.products[0].glob("annotation/s1a-*.xml"))).getroot()
    real = etree.parse(next(template.glob("annotation/s1a-iw1-*.xml"))).getroot()
    simulated, measured = (
        [
            [float(p.findtext(k)) for k in ("latitude", "longitude")]
            for p in r.iterfind(".//geolocationGridPoint")
        ]
        for r in (root, real)
    )
    low, high = np.min(measured, axis=0), np.max(measured, axis=0)
    assert np.all((simulated > low) & (simulated < high))


@pytest.mark.realdata
def test_fm_rate_from_the_orbit_is_the_annotated_one(real_data: Path) -> None:
    template = next((real_data / "eo_tools-morocco-2023" / "S1").glob("*20230904T*.SAFE"))
    radar = read_template(template, "VV")
    assert radar.passage is not None
    root = etree.parse(next(template.glob("annotation/s1a-iw1-*.xml"))).getroot()
    node = _ns(root.findtext(".//ascendingNodeTime"))
    times, states = [], []
    for vector in root.iterfind(".//orbit"):
        times.append((_ns(vector.findtext("time")) - node) * 1e-9)
        states.append(
            [float(vector.findtext(f"{k}/{a}")) for k in ("position", "velocity") for a in "xyz"]
        )
    orbit = fit_orbit(np.array(times), np.array(states))
    for name, constants in radar.swaths.items():
        delay = constants.slant_range_time_s + np.linspace(0.0, 3.6e-4, 5)
        place = tuple(np.radians([31.0, -8.9])) + (400.0,)
        derived = geometric_fm_rate(
            orbit, radar.passage.middle_s, radar.wavelength_m, constants, place
        )
        assert constants.fm_rate is not None, name
        np.testing.assert_allclose(derived.at(delay), constants.fm_rate.at(delay), rtol=1e-3)
