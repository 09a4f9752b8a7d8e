"""Point targets of known latitude, longitude and height through geometry, carrier and resampling.

The targets are written down in closed form: a band-limited response about the zero-Doppler time
and range of an analytic orbit (solved here, not by the kernels), at the Doppler frequency that
ESA's definition of the TOPS carrier gives at that time, with the phase ``-4 pi R / lambda``.
Neither the package's simulator nor its geometry takes part in making them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from bperp.kernels.carrier import CarrierModel, RangePolynomials, build_carrier, carrier_phase
from bperp.kernels.chebyshev import fit_burst_offsets
from bperp.kernels.geometry import rdr2geo
from bperp.kernels.orbit import OrbitPolynomial, fit_orbit
from bperp.kernels.resample import (
    ResamplePlan,
    SourceWindow,
    plan_resampling,
    resample_burst_tile,
    source_window,
)
from bperp.kernels.taps import choose_taps, design_taps
from bperp.kernels.zero_doppler import RadarGrid, rdr2geo_at_height

LIGHT = 299_792_458.0
RADAR_HZ = 5.405000454e9
WAVELENGTH_M = LIGHT / RADAR_HZ
SAMPLING_HZ = 64.345238e6
INTERVAL_S = 2.0555563e-3
STEERING = np.radians(1.590368784)
AZIMUTH_BAND, RANGE_BANDS = (327.0, 0.70), {"iw1": (56.5e6, 0.75), "iw3": (42.79e6, 0.75)}
GRID = RadarGrid(0.0, INTERVAL_S, 7.996111e5, 0.5 * LIGHT / SAMPLING_HZ, 1507, 23055)
CYCLE_LINES = 1342
"""Lines from one burst of a swath to the next: they overlap by 165."""
TIMES = np.arange(-60.0, 70.0, 10.0)
FM = (5.33e-3, (-2320.0, 4.5e5, -7.9e7))
DOPPLER = (5.34e-3, (-10.0, 1.2e4, -1.8e7))
AMPLITUDE = 20_000.0

States = Callable[[float | NDArray[np.float64]], tuple[NDArray[np.float64], ...]]


class View(NamedTuple):
    """One burst on one date: analytic orbit and timing."""

    states: States
    grid: RadarGrid

    def middle_s(self) -> float:
        return self.grid.first_line_time_s + 0.5 * (self.grid.lines - 1) * INTERVAL_S

    def speed_m_s(self) -> float:
        return float(np.linalg.norm(self.states(self.middle_s())[1]))

    def carrier(self) -> CarrierModel:
        def series(start: float, terms: tuple[float, ...]) -> RangePolynomials:
            time = np.array([self.middle_s()])
            return RangePolynomials(time, np.array([start]), np.array([terms]))

        return build_carrier(
            self.grid,
            steering_rate_rad_s=float(STEERING),
            speed_m_s=self.speed_m_s(),
            radar_frequency_hz=RADAR_HZ,
            fm_rate=series(*FM),
            doppler_centroid=series(*DOPPLER),
        )

    def doppler_hz(self, line: NDArray[np.float64], sample: NDArray[np.float64]) -> NDArray:
        """Return ESA's total Doppler frequency, written out."""

        def at(place: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            tau = 2.0 * (self.grid.near_range_m + place * self.grid.range_spacing_m) / LIGHT
            rate, centroid = (
                sum(c * (tau - start) ** k for k, c in enumerate(terms))
                for start, terms in (FM, DOPPLER)
            )
            return np.asarray(rate), np.asarray(centroid)

        sweep = 2.0 * self.speed_m_s() * RADAR_HZ * STEERING / LIGHT
        rate, centroid = at(np.asarray(sample))
        middle_rate, middle_centroid = at(np.array(0.5 * (self.grid.samples - 1)))
        total = rate * sweep / (rate - sweep)
        reference = -centroid / rate + middle_centroid / middle_rate
        eta = (line - 0.5 * (self.grid.lines - 1)) * INTERVAL_S
        return np.asarray(total * (eta - reference) + centroid)

    def locate(self, point: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return line, sample and range of a ground point: Newton on the analytic orbit."""
        time = self.middle_s()
        for _ in range(6):
            place, rate, bend = (values[0] for values in self.states(time))
            slope = (point - place) @ bend - rate @ rate
            time -= (point - place) @ rate / slope
        range_m = float(np.linalg.norm(point - self.states(time)[0][0]))
        line = (time - self.grid.first_line_time_s) / INTERVAL_S
        return line, (range_m - self.grid.near_range_m) / self.grid.range_spacing_m, range_m


def ground_point(latitude: float, longitude: float, height: float) -> NDArray[np.float64]:
    """Return ECEF coordinates on WGS84."""
    square = 6.69437999014e-3
    radius = 6378137.0 / np.sqrt(1.0 - square * np.sin(latitude) ** 2)
    level = (radius + height) * np.cos(latitude)
    up = (radius * (1.0 - square) + height) * np.sin(latitude)
    return np.array([level * np.cos(longitude), level * np.sin(longitude), up])


def response(turns: NDArray[np.float64], coefficient: float) -> NDArray[np.float64]:
    """Return the transform of a Hamming window over a unit band, at ``bandwidth * time``."""
    side = 0.5 * (1.0 - coefficient) * (np.sinc(turns - 1.0) + np.sinc(turns + 1.0))
    return np.asarray(np.sinc(turns) + side / coefficient)


def target(
    lines: NDArray[np.float64],
    samples: NDArray[np.float64],
    place: tuple[float, float],
    doppler_hz: float,
    swath: str,
) -> NDArray[np.complex128]:
    """Return a response of unit peak at ``place``, ``(lines, samples)``."""
    late_s = (lines - place[0]) * INTERVAL_S
    along = response(AZIMUTH_BAND[0] * late_s, AZIMUTH_BAND[1])
    band, coefficient = RANGE_BANDS[swath]
    across = response(band * (samples - place[1]) / SAMPLING_HZ, coefficient)
    return np.outer(along * np.exp(2j * np.pi * doppler_hz * late_s), across)


@pytest.fixture(scope="module")
def passes(orbit_states: Callable) -> tuple[list[View], list[View]]:
    """Return two successive bursts of a swath on two dates, 150 m apart."""
    turn = 130.0 / (7.071e6 * np.cos(0.7))
    dates = []
    for change, start, near_m in (
        ({}, 0.0, 0.0),
        ({"turn_rad": turn, "raise_m": 90.0}, 2.37 * INTERVAL_S, 11.0),
    ):

        def states(time: object, change: dict = change) -> tuple[NDArray[np.float64], ...]:
            return orbit_states(np.atleast_1d(time), **change)  # type: ignore[no-any-return]

        dates.append(
            [
                View(
                    states,
                    GRID._replace(
                        first_line_time_s=start + burst * CYCLE_LINES * INTERVAL_S,
                        near_range_m=GRID.near_range_m + near_m,
                    ),
                )
                for burst in range(2)
            ]
        )
    return dates[0], dates[1]


def find_target(
    image: NDArray[np.complex64],
    origin: tuple[int, int],
    guess: tuple[float, float],
    doppler_hz: float,
    swath: str,
) -> tuple[float, float, float]:
    """Return line and sample of the response that fits best, and the phase at the guess."""
    lines = origin[0] + np.arange(image.shape[0], dtype=np.float64)
    samples = origin[1] + np.arange(image.shape[1], dtype=np.float64)

    def product(place: NDArray[np.float64]) -> complex:
        model = target(lines, samples, (place[0], place[1]), doppler_hz, swath)
        return complex(np.vdot(model, image) / np.linalg.norm(model))

    start = np.add(guess, (0.2, -0.2))
    scale = float(np.linalg.norm(image))
    options = {"xatol": 1e-6, "fatol": 1e-12}
    found = minimize(
        lambda place: -abs(product(place)) / scale, start, method="Nelder-Mead", options=options
    )
    return float(found.x[0]), float(found.x[1]), float(np.angle(product(np.array(guess))))


def arcs(passes: tuple[list[View], list[View]]) -> list[OrbitPolynomial]:
    """Return the orbits of both dates as the processor fits them."""
    return [fit_orbit(TIMES, *views[0].states(TIMES)[:2], -1.5, 8.0) for views in passes]


def plan_of(
    here: View,
    there: View,
    orbits: list[OrbitPolynomial],
    heights: tuple[float, float],
    swath: str = "iw1",
) -> ResamplePlan:
    """Return the plan that brings one date onto the other."""
    band, coefficient = RANGE_BANDS[swath]
    taps = (
        design_taps(1.0 / INTERVAL_S, *AZIMUTH_BAND, 8),
        design_taps(SAMPLING_HZ, band, coefficient, choose_taps(band, SAMPLING_HZ)),
    )
    offsets = fit_burst_offsets((orbits[0], here.grid), (orbits[1], there.grid), heights)
    pair = (offsets.azimuth, offsets.range)
    return plan_resampling(
        pair, (0.0, 0.0), taps, there.carrier(), here.grid, there.grid, WAVELENGTH_M
    )


def scene(
    view: View,
    points: NDArray[np.float64],
    lines: tuple[int, int],
    samples: tuple[int, int],
    swath: str = "iw1",
) -> NDArray[np.complex128]:
    """Return what a burst shows of targets, ``(lines, samples)``."""
    image = np.zeros((lines[1] - lines[0], samples[1] - samples[0]), np.complex128)
    for point in points:
        line, sample, range_m = view.locate(point)
        doppler = float(view.doppler_hz(np.array(line), np.array(sample)))
        axes = (np.arange(*lines, dtype=np.float64), np.arange(*samples, dtype=np.float64))
        turn = np.exp(-4j * np.pi * range_m / WAVELENGTH_M)
        image += AMPLITUDE * turn * target(*axes, (line, sample), doppler, swath)
    return image


def source_of(
    view: View,
    points: NDArray[np.float64],
    spans: tuple[slice, slice],
    swath: str = "iw1",
) -> SourceWindow:
    """Return the pixels of a scene as the measurement file holds them."""
    rows, columns = spans
    image = scene(view, points, (rows.start, rows.stop), (columns.start, columns.stop), swath)
    pixels = np.rint(np.stack([image.real, image.imag], axis=-1)).astype(np.int16)
    return SourceWindow(pixels, rows.start, columns.start, (0, GRID.lines, 0, GRID.samples))


CASES = [
    ("iw1", 1400.0, 900.0, 0.0),
    ("iw1", 1425.3, 21900.0, 3000.0),
    ("iw1", 1470.0, 12000.0, 850.0),
    ("iw3", 1390.0, 15000.0, 5500.0),
]


@pytest.mark.parametrize(("swath", "line", "sample", "height"), CASES)
def test_target_of_an_overlap_in_both_bursts(
    passes: tuple[list[View], list[View]], swath: str, line: float, sample: float, height: float
) -> None:
    orbits = arcs(passes)
    # Any place near this pixel will do; what counts is the rounded latitude and longitude.
    rough = rdr2geo_at_height(
        orbits[0],
        np.array([line * INTERVAL_S]),
        np.array([GRID.near_range_m + sample * GRID.range_spacing_m]),
        np.array([height]),
    )
    latitude, longitude = (round(float(angle[0]), 6) for angle in rough)
    point = ground_point(latitude, longitude, height)
    phases = []
    for here, there in zip(*passes, strict=True):
        expected, position = here.locate(point), there.locate(point)
        assert 0 < expected[0] < GRID.lines
        doppler = float(there.doppler_hz(np.array(position[0]), np.array(position[1])))
        assert abs(doppler) > 2000.0
        plan = plan_of(here, there, orbits, (-100.0, 6000.0), swath)
        origin = (round(expected[0]) - 12, (round(expected[1]) - 40) // 32 * 32)
        shape = (24, 96)
        spans = source_window(plan, origin, shape, (height, height), GRID[4:6])
        window = source_of(there, point[np.newaxis], spans, swath)
        found = resample_burst_tile(window, plan, np.full(shape, height, np.float32), origin, shape)
        peak = find_target(found, origin, expected[:2], doppler, swath)
        turned = peak[2] + 4.0 * np.pi * expected[2] / WAVELENGTH_M
        phases.append(float(np.angle(np.exp(1j * turned))))
        print(
            f"{swath}: peak off by {peak[0] - expected[0]:+.1e} line, "
            f"{peak[1] - expected[1]:+.1e} sample, phase by {phases[-1]:+.1e} rad"
        )
        assert abs(peak[0] - expected[0]) < 0.01  # measured up to 5e-4
        assert abs(peak[1] - expected[1]) < 0.01  # measured up to 2e-4
        assert abs(phases[-1]) < 0.01  # measured up to 3e-4
    # 4.9 kHz apart: a shift of 1e-4 line would make 0.006 rad.
    assert abs(phases[0] - phases[1]) < 0.002


def terrain(
    latitude: NDArray[np.float64] | float, longitude: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return heights of 200 to 1800 m in m: waves of 5 to 9 km with slopes up to 20 degrees."""
    north, east = np.asarray(latitude) * 6.37e6, np.asarray(longitude) * 4.9e6
    waves = 500.0 * np.sin(2.0 * np.pi * (east + 0.4 * north) / 9000.0)
    waves += 200.0 * np.sin(2.0 * np.pi * (0.7 * east - north) / 5000.0 + 1.0)
    return np.asarray(1000.0 + waves)


def test_scene_without_motion_has_no_phase(passes: tuple[list[View], list[View]]) -> None:
    """Targets on an elevation model, seen from two orbits: flat and topographic phase go."""
    here, there = passes[0][0], passes[1][0]
    orbits = arcs(passes)
    origin, shape = (700, 9600), (40, 2048)
    lines = np.arange(origin[0], origin[0] + shape[0]) * INTERVAL_S
    ranges = GRID.near_range_m + GRID.range_spacing_m * (origin[1] + np.arange(shape[1]))
    corner = np.meshgrid(lines[[0, -1]], ranges[[0, -1]], [-500.0, 3000.0])
    latitude, longitude = rdr2geo_at_height(orbits[0], *(axis.ravel() for axis in corner))
    # The model: one second of arc, float32, bilinear between its posts.
    step = np.radians(1.0 / 3600.0)
    north, west = latitude.max() + 5 * step, longitude.min() - 5 * step
    rows = north - step * np.arange(int(np.ptp(latitude) / step) + 12)
    columns = west + step * np.arange(int(np.ptp(longitude) / step) + 12)
    heights = terrain(rows[:, np.newaxis], columns).astype(np.float32)
    grid = (float(np.degrees(north)), float(np.degrees(west)), -1.0 / 3600.0, 1.0 / 3600.0)
    latitude, longitude, height, status = rdr2geo(orbits[0], lines, ranges, heights, grid)
    assert (status == 0).all()
    assert np.ptp(height) > 700.0
    # The truth stands on the terrain itself, at rounded places, one every 50 samples.
    generator = np.random.default_rng(12)
    points = []
    for sample in range(60, shape[1] - 60, 50):
        place = generator.integers(12, shape[0] - 12), sample
        angles = [round(float(angle[place]), 6) for angle in (latitude, longitude)]
        points.append(ground_point(*angles, float(terrain(*angles))))
    plan = plan_of(here, there, orbits, (-100.0, 3000.0))
    limits = (float(height.min()), float(height.max()))
    window = source_of(
        there, np.array(points), source_window(plan, origin, shape, limits, GRID[4:6])
    )
    spans = ((origin[0], origin[0] + shape[0]), (origin[1], origin[1] + shape[1]))
    reference = scene(here, np.array(points), *spans)

    def residual_rad(level: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the phase of the interferogram at the targets."""
        secondary = resample_burst_tile(window, plan, level, origin, shape)
        found = []
        for point in points:
            line, sample, _ = here.locate(point)
            top, left = round(line) - 8, round(sample) - 16
            part = (
                slice(top - origin[0], top - origin[0] + 17),
                slice(left - origin[1], left - origin[1] + 33),
            )
            axes = (np.arange(top, top + 17.0), np.arange(left, left + 33.0))
            products = []
            for image, view in ((reference, here), (secondary, there)):
                where = view.locate(point)
                doppler = float(view.doppler_hz(np.array(where[0]), np.array(where[1])))
                model = target(*axes, (line, sample), doppler, "iw1")
                products.append(np.vdot(model, image[part]))
            found.append(np.angle(products[0] * products[1].conj()))
        return np.array(found)

    residual = residual_rad(height)
    rms = float(np.sqrt(np.mean(residual**2)))
    print(f"{residual.size} targets: rms {rms:.4f} rad, mean {residual.mean():+.4f} rad")
    assert rms < 0.01
    # The phase is there to be removed: with the mean height alone it fills the circle.
    assert np.std(residual_rad(np.full_like(height, height.mean()))) > 1.0


@pytest.mark.parametrize("first_line", [0, 720, 1443])
@pytest.mark.parametrize("first_sample", [100, 22800])
def test_spectrum_is_centred_after_deramping(
    passes: tuple[list[View], list[View]], first_line: int, first_sample: int
) -> None:
    view = passes[0][0]
    generator = np.random.default_rng(first_line + first_sample)
    lines = first_line + np.arange(64.0)
    places = np.arange(lines[0] - 12.0, lines[-1] + 12.0, 1.0 / 3.0)
    samples = first_sample + np.arange(192.0)
    doppler = view.doppler_hz(places[:, np.newaxis], samples)
    late_s = (lines[:, np.newaxis] - places) * INTERVAL_S
    along = response(AZIMUTH_BAND[0] * late_s, AZIMUTH_BAND[1])
    size = (places.size, samples.size)
    reflectivity = generator.normal(size=size) + 1j * generator.normal(size=size)
    spin = np.exp(2j * np.pi * late_s[:, :, np.newaxis] * doppler)
    image = np.einsum("lp,lps,ps->ls", along, spin, reflectivity)

    def neighbours(values: NDArray[np.complex128]) -> complex:
        """Return the correlation of successive lines; its phase is the centroid's."""
        return complex(np.sum(values[1:] * values[:-1].conj()) / np.sum(np.abs(values) ** 2))

    turns = carrier_phase(view.carrier(), lines[:, np.newaxis], samples)
    deramped = neighbours(image * np.exp(-2j * np.pi * turns))
    centroid = np.angle(deramped) / (2.0 * np.pi * INTERVAL_S)
    print(f"line {first_line}, sample {first_sample}: centroid {centroid:+.2f} Hz")
    assert abs(centroid) < 5.0
    # The band is 0.67 of the line rate; with the opposite sign the sweep is twice as large and
    # the lines have nothing in common.
    assert abs(deramped) > 0.5
    assert abs(neighbours(image * np.exp(2j * np.pi * turns))) < 0.1
