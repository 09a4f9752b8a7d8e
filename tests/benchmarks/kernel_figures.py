"""Throughput of the kernels in Mpx per core-second, each beside plain numpy or scipy.

The cases are those of the goals: full-width lines, an orbit at 693 km, relief of kilometres, noise
of full bandwidth. Results go to memory that is used again, as a worker does after its first tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from measuring import Figure, compared, cpu_seconds, figure, throughput
from scipy import ndimage

from bperp.kernels.carrier import CarrierModel, RangePolynomials, build_carrier, carrier_phase
from bperp.kernels.chebyshev import BurstOffsets, fit_burst_offsets
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import geo2rdr, look_vectors, rdr2geo, rdr2geo_at_height
from bperp.kernels.goldstein import filter_goldstein
from bperp.kernels.interferogram import multilook_interferogram, sliding_coherence
from bperp.kernels.layover import layover_shadow
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit
from bperp.kernels.resample import (
    ResamplePlan,
    SourceWindow,
    plan_resampling,
    resample_burst_tile,
    source_window,
)
from bperp.kernels.spectral_diversity import estimate_azimuth_shift
from bperp.kernels.taps import design_taps
from bperp.kernels.zero_doppler import RadarGrid

GRID = RadarGrid(0.0, 2.0555563e-3, 7.996111e5, 2.3295621, 1507, 23055)
LINES, SAMPLES = 512, 2048
TIME_S = np.arange(LINES) * GRID.azimuth_time_interval_s
RANGE_M = GRID.near_range_m + (8000.0 + np.arange(SAMPLES)) * GRID.range_spacing_m


def _circular(raise_m: float, turn_rad: float) -> OrbitPolynomial:
    """Return a circular orbit at 693 km as a Taylor polynomial about the middle of a burst."""
    radius, rate, tilt, middle = 7.071e6 + raise_m, 1.0618e-3, np.radians(98.18), 0.7
    half_span_s, factor = 40.0, 1.0
    turn = np.array([[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]])
    powers = np.zeros((8, 3))
    for k in range(8):
        cosine, sine = np.cos(middle + 0.5 * np.pi * k), np.sin(middle + 0.5 * np.pi * k)
        flat = np.array([cosine, np.cos(tilt) * sine, np.sin(tilt) * sine])
        flat[:2] = turn @ flat[:2]
        powers[k] = radius * factor * flat
        factor *= rate * half_span_s / (k + 1)
    return OrbitPolynomial(1.5, half_span_s, powers)


ORBIT = _circular(0.0, 0.0)


def _relief(shape: tuple[int, int], scale_px: tuple[float, float], top_m: float) -> np.ndarray:
    """Return smooth random heights of 0 to ``top_m``."""
    field = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), scale_px)
    return ((field - field.min()) / np.ptp(field) * top_m).astype(np.float32)


@lru_cache(maxsize=1)
def _ground() -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return heights at one arc second around the tile, and their grid."""
    corner = np.meshgrid(TIME_S[[0, -1]], RANGE_M[[0, -1]], [-500.0, 4000.0])
    latitude, longitude = rdr2geo_at_height(ORBIT, *(axis.ravel() for axis in corner))
    step = 1.0 / 3600.0
    rows = int(np.degrees(np.ptp(latitude)) / step) + 400
    columns = int(np.degrees(np.ptp(longitude)) / step) + 400
    north, west = np.degrees(latitude.max()) + 200 * step, np.degrees(longitude.min()) - 200 * step
    return _relief((rows, columns), (60, 60), 2500.0), (north, west, -step, step)


@lru_cache(maxsize=1)
def _located() -> tuple[np.ndarray, ...]:
    return rdr2geo(ORBIT, TIME_S, RANGE_M, *_ground())


@figure("zero_doppler")
def zero_doppler() -> Iterator[Figure]:
    """Line and sample of ground points: two Newton steps against the same in numpy."""
    latitude, longitude, height, _ = _located()
    points = geodetic_to_ecef(latitude.ravel(), longitude.ravel(), height.ravel())
    out = (np.empty(height.size), np.empty(height.size))
    ours = cpu_seconds(lambda: geo2rdr(ORBIT, *points, 1.0, out))
    part = tuple(axis[:65536] for axis in points)

    def plain() -> np.ndarray:
        target, time = np.stack(part, axis=1), np.full(part[0].size, 1.0)
        for _ in range(4):
            place, speed, rate = evaluate_orbit(ORBIT, time)
            sight = place - target
            slope = np.sum(sight * rate, axis=1) + np.sum(speed * speed, axis=1)
            time = time - np.sum(sight * speed, axis=1) / slope
        return np.linalg.norm(evaluate_orbit(ORBIT, time)[0] - target, axis=1)

    baseline = (part[0].size, cpu_seconds(plain, 2), "Newton on whole numpy arrays")
    yield from compared("zero_doppler", height.size, ours, baseline)


@figure("rdr2geo")
def locate() -> Iterator[Figure]:
    """Ground position of radar pixels on an elevation model, their look vectors, their mask."""
    heights, origin = _ground()
    pixels = LINES * SAMPLES
    seconds = cpu_seconds(lambda: rdr2geo(ORBIT, TIME_S, RANGE_M, heights, origin), 3)
    yield throughput("rdr2geo", pixels, seconds)
    latitude, longitude, height, _ = _located()
    seconds = cpu_seconds(lambda: look_vectors(ORBIT, TIME_S, latitude, longitude, height), 3)
    yield throughput("look_vectors", pixels, seconds)
    seconds = cpu_seconds(lambda: layover_shadow(ORBIT, TIME_S, RANGE_M, heights, origin), 2)
    yield throughput("layover_shadow", pixels, seconds)


@lru_cache(maxsize=1)
def _pair() -> tuple[BurstOffsets, CarrierModel]:
    offsets = fit_burst_offsets((ORBIT, GRID), (_circular(90.0, 2.2e-5), GRID), (0.0, 3000.0))
    time = np.array([1.5])
    carrier = build_carrier(
        GRID,
        steering_rate_rad_s=np.radians(1.590368784),
        speed_m_s=7590.0,
        radar_frequency_hz=5.405000454e9,
        fm_rate=RangePolynomials(time, np.array([5.33e-3]), np.array([[-2320.0, 4.5e5, -7.9e7]])),
        doppler_centroid=RangePolynomials(time, np.array([5.34e-3]), np.array([[-10.0, 1e4, 0.0]])),
    )
    return offsets, carrier


def _plan(bandwidth_hz: float, taps: int) -> ResamplePlan:
    offsets, carrier = _pair()
    tables = (design_taps(486.486, 327.0, 0.70, 8), design_taps(64.345e6, bandwidth_hz, 0.75, taps))
    return plan_resampling(
        (offsets.azimuth, offsets.range), (0.01, -0.02), tables, carrier, GRID, GRID, 0.0555
    )


@figure("resample")
def resample() -> Iterator[Figure]:
    """Deramp, resample, reramp and flatten a tile, against deramp and cubic splines of scipy."""
    height = _relief((LINES, SAMPLES), (10, 30), 1500.0)
    origin = (500, 8192)
    plan = _plan(56.5e6, 16)
    rows, columns = source_window(plan, origin, height.shape, (0.0, 1500.0), (1507, 23055))
    size = (rows.stop - rows.start, columns.stop - columns.start, 2)
    numbers = np.random.default_rng(2).integers(-200, 200, size).astype(np.int16)
    window = SourceWindow(numbers, rows.start, columns.start, (0, 1507, 0, 23055))
    out = np.zeros(height.shape, np.complex64)
    ours = cpu_seconds(
        lambda: resample_burst_tile(window, plan, height, origin, height.shape, out=out), 9
    )
    part = (slice(0, 128), slice(0, 1024))
    pixels = numbers[part].astype(np.float32).view(np.complex64)[..., 0]
    line, sample = np.mgrid[0.0:128.0, 0.0:1024.0]

    def plain() -> np.ndarray:
        model = plan.carrier
        ramp = np.exp(-2j * np.pi * carrier_phase(model, line + 500.0, sample + 8192.0))
        flat, place = (pixels * ramp).astype(np.complex64), (line + 0.3, sample - 0.4)
        moved = ndimage.map_coordinates(flat, place, order=3, prefilter=False)
        back = carrier_phase(model, place[0] + 500.0, place[1] + 8192.0)
        return moved * np.exp(2j * np.pi * back)

    baseline = (pixels.size, cpu_seconds(plain, 2), "numpy deramp and scipy cubic convolution")
    yield from compared("resample", height.size, ours, baseline)
    plan = _plan(42.79e6, 8)
    seconds = cpu_seconds(
        lambda: resample_burst_tile(window, plan, height, origin, height.shape, out=out), 9
    )
    yield throughput("resample_iw3", height.size, seconds, "8 x 8 taps")


def _speckle(lines: int, samples: int, count: int = 2) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.standard_normal((count, lines, 2 * samples), np.float32).view(np.complex64)


def _plain_box(reference: np.ndarray, secondary: np.ndarray) -> np.ndarray:
    cross = reference * secondary.conj()
    parts = (cross.real, cross.imag, abs(reference) ** 2, abs(secondary) ** 2)
    re, im, power, other = (ndimage.uniform_filter(part, (5, 15)) for part in parts)
    return np.hypot(re, im) / np.sqrt(power * other)


@figure("interferogram_box")
def interferogram_box() -> Iterator[Figure]:
    """Averaged interferogram and coherence in a sliding box of 5 x 15, against scipy's box."""
    reference, secondary = _speckle(1500, 4096)
    out = sliding_coherence(reference, secondary, 5, 15)
    ours = cpu_seconds(lambda: sliding_coherence(reference, secondary, 5, 15, out=out))
    part = reference[:256], secondary[:256]
    baseline = (part[0].size, cpu_seconds(lambda: _plain_box(*part), 2), "scipy uniform_filter")
    yield from compared("interferogram_box", reference.size, ours, baseline)


@figure("interferogram_multilook")
def interferogram_multilook() -> Iterator[Figure]:
    """Multilooked interferogram and coherence of 4 x 20 looks, against numpy."""
    reference, secondary = _speckle(1500, 20000)
    ours = cpu_seconds(lambda: multilook_interferogram(reference, secondary, 4, 20))
    part = reference[:256], secondary[:256]

    def looks(values: np.ndarray) -> np.ndarray:
        return values.reshape(64, 4, 1000, 20).mean(axis=(1, 3))

    def plain() -> np.ndarray:
        cross = looks(part[0] * part[1].conj())
        return abs(cross) / np.sqrt(looks(abs(part[0]) ** 2) * looks(abs(part[1]) ** 2))

    baseline = (part[0].size, cpu_seconds(plain, 2), "numpy mean over blocks")
    yield from compared("interferogram_multilook", reference.size, ours, baseline)


@figure("goldstein")
def goldstein() -> Iterator[Figure]:
    """Adaptive filter, patches of 32 with half overlap, against numpy's FFT patch by patch."""
    image = _speckle(1024, 2048, 1)[0]
    ours = cpu_seconds(lambda: filter_goldstein(image, 0.5, window=32, overlap=0.5), 3)
    part = image[:256, :256]

    def plain() -> np.ndarray:
        result = np.zeros_like(part)
        weight = np.outer(*[1.0 - abs(np.linspace(-1, 1, 32))] * 2)
        for line in range(0, 225, 16):
            for sample in range(0, 225, 16):
                patch = (slice(line, line + 32), slice(sample, sample + 32))
                spectrum = np.fft.fft2(part[patch])
                power = ndimage.uniform_filter(abs(spectrum), 3, mode="wrap") ** 0.5
                result[patch] += weight * np.fft.ifft2(spectrum * power)
        return result

    baseline = (part.size, cpu_seconds(plain, 2), "numpy FFT patch by patch")
    yield from compared("goldstein", image.size, ours, baseline)


@figure("esd_std")
def esd_std() -> Iterator[Figure]:
    """Scatter of the azimuth shift of an overlap of 100 x 3000 pixels at coherence 0.15."""
    generator = np.random.default_rng(5)
    difference_hz = np.full((100, 3000), 4900.0)
    shared, own = np.sqrt(np.float32(0.15)), np.sqrt(np.float32(0.85))
    shifts, sigmas = [], []
    for _ in range(60):
        samples = generator.standard_normal((6, 100, 6000), np.float32).view(np.complex64)
        common, other = samples[:2], samples[2:]
        images = []
        for k in range(2):
            for noise in other[2 * k : 2 * k + 2]:
                images.append(shared * common[k] + own * noise)
        found = estimate_azimuth_shift(*images, difference_hz, GRID.azimuth_time_interval_s)
        shifts.append(found.shift_lines)
        sigmas.append(found.sigma_lines)
    yield Figure("esd_std", float(np.std(shifts)), "line", "60 draws, coherence 0.15")
    yield Figure("esd_z_std", float(np.std(np.array(shifts) / np.array(sigmas))), "1")
