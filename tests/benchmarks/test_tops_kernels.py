"""Throughput of the TOPS kernels, as ratios to plain numpy in the same run.

Ratios are asserted at less than half of what was measured on a quiet machine, so that a lost
vectorisation (a factor of 4 to 10) fails and a busy neighbour does not. Memory is reused, because
fresh pages can cost more than the computation. Run with ``-s`` to see figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bperp.kernels.carrier import RangePolynomials, build_carrier
from bperp.kernels.chebyshev import fit_burst_offsets
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import geo2rdr, look_vectors, rdr2geo, rdr2geo_at_height
from bperp.kernels.orbit import OrbitPolynomial
from bperp.kernels.resample import (
    SourceWindow,
    plan_resampling,
    resample_burst_tile,
    source_window,
)
from bperp.kernels.taps import design_taps
from bperp.kernels.zero_doppler import RadarGrid

pytestmark = pytest.mark.benchmark

GRID = RadarGrid(0.0, 2.0555563e-3, 7.996111e5, 2.3295621, 1507, 23055)
LINES, SAMPLES = 256, 4096


def cpu_seconds(function: Callable[[], object], repeats: int = 5) -> float:
    function()  # compiles
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def report(name: str, seconds: float, pixels: int, baseline_s: float) -> float:
    """Print the figure; return how many times faster than the baseline a pixel is."""
    ratio = baseline_s / (seconds / pixels)
    print(f"\n{name}: {pixels / seconds / 1e6:.1f} Mpx per core-second, {ratio:.1f} x numpy phasor")
    return ratio


@pytest.fixture(scope="module")
def phasor_s() -> float:
    """CPU seconds per pixel of numpy's ``exp(1j x) z``: the yardstick of this machine today."""
    phase = np.linspace(0.0, 1000.0, 256 * 1024)
    pixels = np.ones(phase.size, np.complex64)
    return cpu_seconds(lambda: np.exp(1j * phase) * pixels) / phase.size


def circular(raise_m: float, turn_rad: float) -> OrbitPolynomial:
    """Return a circular orbit at 693 km as a Taylor polynomial about the middle of a burst."""
    radius, rate, tilt, middle = 7.071e6 + raise_m, 1.0618e-3, np.radians(98.18), 0.7
    half_span_s = 40.0
    powers = np.zeros((8, 3))
    factor = 1.0
    for k in range(8):
        cosine, sine = np.cos(middle + 0.5 * np.pi * k), np.sin(middle + 0.5 * np.pi * k)
        flat = np.array([cosine, np.cos(tilt) * sine, np.sin(tilt) * sine])
        turn = np.array(
            [[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]]
        )
        flat[:2] = turn @ flat[:2]
        powers[k] = radius * factor * flat
        factor *= rate * half_span_s / (k + 1)
    return OrbitPolynomial(1.5, half_span_s, powers)


ORBIT = circular(0.0, 0.0)
TIME_S = np.arange(LINES) * GRID.azimuth_time_interval_s
RANGE_M = GRID.near_range_m + (8000.0 + np.arange(SAMPLES)) * GRID.range_spacing_m


@pytest.fixture(scope="module")
def ground() -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Rough heights of 0..2500 m at one arc second around the tile."""
    corner = np.meshgrid(TIME_S[[0, -1]], RANGE_M[[0, -1]], [-500.0, 4000.0])
    latitude, longitude = rdr2geo_at_height(ORBIT, *(axis.ravel() for axis in corner))
    step = 1.0 / 3600.0
    rows = int(np.degrees(np.ptp(latitude)) / step) + 40
    columns = int(np.degrees(np.ptp(longitude)) / step) + 40
    field = gaussian_filter(np.random.default_rng(1).normal(size=(rows, columns)), 60)
    heights = ((field - field.min()) / np.ptp(field) * 2500.0).astype(np.float32)
    north, west = np.degrees(latitude.max()) + 20 * step, np.degrees(longitude.min()) - 20 * step
    return heights, (north, west, -step, step)


def test_geometry(ground: tuple[np.ndarray, tuple[float, ...]], phasor_s: float) -> None:
    heights, origin = ground
    pixels = LINES * SAMPLES

    def locate() -> tuple[np.ndarray, ...]:
        return rdr2geo(ORBIT, TIME_S, RANGE_M, heights, origin)

    seconds = cpu_seconds(locate, 2)
    assert report("rdr2geo over a height grid", seconds, pixels, phasor_s) > 0.15
    latitude, longitude, height, status = locate()
    assert (status == 0).mean() > 0.99
    seconds = cpu_seconds(lambda: look_vectors(ORBIT, TIME_S, latitude, longitude, height), 2)
    assert report("look vectors", seconds, pixels, phasor_s) > 0.2
    points = geodetic_to_ecef(latitude.ravel(), longitude.ravel(), height.ravel())
    out = (np.empty(pixels), np.empty(pixels))
    seconds = cpu_seconds(lambda: geo2rdr(ORBIT, *points, 1.0, out))
    assert report("geo2rdr", seconds, pixels, phasor_s) > 2.0


@pytest.mark.parametrize(
    ("swath", "bandwidth_hz", "taps", "least"),
    [("IW1", 56.5e6, 16, 1.0), ("IW3", 42.79e6, 8, 1.1)],
)
def test_resampling(
    phasor_s: float, swath: str, bandwidth_hz: float, taps: int, least: float
) -> None:
    offsets = fit_burst_offsets((ORBIT, GRID), (circular(90.0, 2.2e-5), GRID), (0.0, 3000.0))
    time = np.array([1.5])
    carrier = build_carrier(
        GRID,
        steering_rate_rad_s=np.radians(1.590368784),
        speed_m_s=7590.0,
        radar_frequency_hz=5.405000454e9,
        fm_rate=RangePolynomials(time, np.array([5.33e-3]), np.array([[-2320.0, 4.5e5, -7.9e7]])),
        doppler_centroid=RangePolynomials(time, np.array([5.34e-3]), np.array([[-10.0, 1e4, 0.0]])),
    )
    tables = (design_taps(486.486, 327.0, 0.70, 8), design_taps(64.345e6, bandwidth_hz, 0.75, taps))
    shifts = (0.01, -0.02)
    plan = plan_resampling(
        (offsets.azimuth, offsets.range), shifts, tables, carrier, GRID, GRID, 0.0555
    )
    generator = np.random.default_rng(2)
    field = gaussian_filter(generator.normal(size=(LINES, SAMPLES)), (10, 30))
    height = ((field - field.min()) / np.ptp(field) * 1500.0).astype(np.float32)
    origin = (500, 8192)
    rows, columns = source_window(plan, origin, height.shape, (0.0, 1500.0), (1507, 23055))
    size = (rows.stop - rows.start, columns.stop - columns.start, 2)
    pixels = generator.integers(-200, 200, size).astype(np.int16)
    window = SourceWindow(pixels, rows.start, columns.start, (0, 1507, 0, 23055))
    out = np.zeros(height.shape, np.complex64)
    seconds = cpu_seconds(
        lambda: resample_burst_tile(window, plan, height, origin, height.shape, out=out)
    )
    ratio = report(f"deramp, resample, reramp, flatten {swath}", seconds, height.size, phasor_s)
    assert ratio > least
