"""Real stripmap pixels: ISCE's resampling of an ENVISAT image, and ISCE's geometry of it.

What the golden files are, found by experiment and asserted below:

- ``warped_envisat.slc`` is the image at ``(line + azimuth offset, sample + range offset)`` with its
  Doppler carrier put back at that position, and it is **not** flattened: the factor
  ``exp(+4 pi j offset spacing / lambda)`` that our resampler applies is taken out here.
- ISCE interpolates with a sinc of 8 taps under a Hann window. The image fills 83 % of the range
  band, where that kernel loses 5 % of the power: exact band-limited interpolation agrees with the
  golden result at coherence 0.9974 only, and so does every better kernel. With ISCE's own taps in
  place of ours the two agree at 0.999999 in the middle of the image and at 0.99999 over all lines:
  ISCE demodulates all range taps of a pixel by one Doppler frequency, we each by its own.
- ``topo`` was computed at the image's Doppler centroid (276 to 304 Hz), 213 to 229 lines before
  zero Doppler. Here zero-Doppler time t and range R are carried over by the range history
  ``r^2 = R^2 + V^2 (time - t)^2`` with ``V^2 = |v|^2 - (x - p).a``.
- ``hdg`` is the direction from the ground to the satellite, anticlockwise from north, in degrees;
  ``inc`` is measured from the normal of the ellipsoid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bperp.kernels.carrier import CarrierModel, RangePolynomials, build_carrier
from bperp.kernels.chebyshev import (
    OffsetPolynomial,
    evaluate_offsets,
    fit_offset_polynomials,
    offset_domain,
)
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import geo2rdr, look_vectors, rdr2geo_at_height
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit, fit_orbit
from bperp.kernels.resample import (
    SourceWindow,
    plan_resampling,
    resample_burst_exact,
    resample_burst_tile,
)
from bperp.kernels.taps import TAPS, design_taps
from bperp.kernels.zero_doppler import RadarGrid

pytestmark = pytest.mark.realdata

LIGHT = 299_792_458.0
SIZE = 500
SCALE = 300.0
"""From the file's numbers (root mean square 5, at most 88) to int16."""
INNER = (slice(20, -20), slice(20, -20))
"""Without the edges, as in ISCE's own comparison."""
BAND = slice(150, 290)
"""Lines for the slow direct sum; the offsets vary with the sample only."""
RANGE_BANDWIDTH_HZ = 16e6
# Read off the spectrum: the processed bandwidth in the file (629 Hz) is less than half of it.
AZIMUTH_BANDWIDTH_HZ = 1310.0
Taps = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass
class Envisat:
    """The image and its golden companions; times in s after the first line."""

    samples: NDArray[np.complex64]
    golden: NDArray[np.complex64]
    azimuth_offset: NDArray[np.float32]
    range_offset: NDArray[np.float32]
    grid: RadarGrid
    wavelength_m: float
    orbit_time_s: NDArray[np.float64]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    doppler_range_m: NDArray[np.float64]
    doppler_hz: NDArray[np.float64]
    topo: dict[str, NDArray[np.float64]]

    @property
    def prf_hz(self) -> float:
        return 1.0 / self.grid.azimuth_time_interval_s

    def centroid_hz(self, range_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the annotated Doppler centroid; it does not change in azimuth."""
        return np.interp(range_m, self.doppler_range_m, self.doppler_hz)

    def orbit(self) -> OrbitPolynomial:
        return fit_orbit(self.orbit_time_s, self.position, self.velocity, -1.0, 1.5)

    def carrier(self) -> CarrierModel:
        two_way_s = 2.0 * self.doppler_range_m / LIGHT
        near = (self.doppler_range_m > 826e3) & (self.doppler_range_m < 832e3)
        start = float(two_way_s[near].mean())
        series = np.polynomial.polynomial.polyfit(
            (two_way_s[near] - start) * 1e6, self.doppler_hz[near], 3
        ) * 1e6 ** np.arange(4)
        time, place = np.zeros(1), np.array([start])
        return build_carrier(
            self.grid,
            steering_rate_rad_s=0.0,
            speed_m_s=7550.0,
            radar_frequency_hz=LIGHT / self.wavelength_m,
            fm_rate=RangePolynomials(time, place, np.array([[-2170.0]])),
            doppler_centroid=RangePolynomials(time, place, series[np.newaxis]),
        )


@pytest.fixture(scope="module")
def scene(real_data: Path) -> Envisat:
    h5py = pytest.importorskip("h5py")
    folder = real_data / "isce3-envisat"
    if not folder.is_dir():
        pytest.skip(f"real product not found: {folder}")

    def raster(name: str, kind: str) -> NDArray[np.generic]:
        return np.fromfile(folder / name, kind).reshape(SIZE, SIZE)

    with h5py.File(folder / "envisat.h5") as file:
        product = file["science/LSAR/SLC"]
        swath, orbit = product["swaths/frequencyA"], product["metadata/orbit"]
        start = product["swaths/zeroDopplerTime"][0]
        parameters = product["metadata/processingInformation/parameters"]
        return Envisat(
            swath["HH"][()],
            raster("warped_envisat.slc", "<c8"),  # type: ignore[arg-type]
            raster("offsets/azimuth.off", "<f4"),  # type: ignore[arg-type]
            raster("offsets/range.off", "<f4"),  # type: ignore[arg-type]
            RadarGrid(
                0.0,
                float(product["swaths/zeroDopplerTimeSpacing"][()]),
                float(swath["slantRange"][0]),
                float(swath["slantRangeSpacing"][()]),
                SIZE,
                SIZE,
            ),
            LIGHT / float(swath["processedCenterFrequency"][()]),
            orbit["time"][()] - start,
            orbit["position"][()],
            orbit["velocity"][()],
            parameters["slantRange"][()],
            parameters["frequencyA/dopplerCentroid"][0],
            {
                name: raster(f"topo/{name}.rdr", kind).astype(np.float64)
                for name, kind in
                (("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("inc", "<f4"), ("hdg", "<f4"))
            },
        )  # fmt: skip


@pytest.fixture(scope="module")
def offsets(scene: Envisat) -> tuple[OffsetPolynomial, OffsetPolynomial]:
    """Fit our polynomials to the offset rasters; height plays no part."""
    line, sample, height = (
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(0, SIZE, 61), np.arange(0, SIZE, 4), [-80.0, -30.0, 30.0, 80.0], indexing="ij"
        )
    )
    values = np.stack([scene.azimuth_offset[line, sample], scene.range_offset[line, sample]], 1)
    azimuth, across = fit_offset_polynomials(
        line.astype(float),
        sample.astype(float),
        height,
        values.astype(np.float64),
        offset_domain(SIZE, SIZE, (-100.0, 100.0)),
    )
    return azimuth, across


def hann_sinc(taps: int = 8) -> NDArray[np.float32]:
    """Tabulate ISCE's kernel: a sinc under a Hann window, every row of unit sum."""
    distance = np.arange(TAPS) - (TAPS // 2 - 1) - (np.arange(2049) / 2048)[:, np.newaxis]
    window = np.where(np.abs(distance) < taps / 2, np.cos(np.pi * distance / taps) ** 2, 0.0)
    table = np.sinc(distance) * window
    return np.asarray(table / table.sum(axis=1, keepdims=True), dtype=np.float32)


def matched(scene: Envisat) -> Taps:
    range_hz = 0.5 * LIGHT / scene.grid.range_spacing_m
    return (
        design_taps(scene.prf_hz, AZIMUTH_BANDWIDTH_HZ, 0.75, 16),
        design_taps(range_hz, RANGE_BANDWIDTH_HZ, 1.0, 16),
    )


def resampled(
    scene: Envisat,
    offsets: tuple[OffsetPolynomial, OffsetPolynomial],
    taps: Taps,
    *,
    direct: bool = False,
    flattened: bool = False,
) -> NDArray[np.complex128]:
    """Resample the image by the offsets, in the file's numbers, by default not flattened.

    ``direct`` sums all taps in two dimensions, for the lines of ``BAND`` only.
    """
    grid = scene.grid
    plan = plan_resampling(
        offsets, (0.0, 0.0), taps, scene.carrier(), grid, grid, scene.wavelength_m
    )
    parts = np.stack([scene.samples.real, scene.samples.imag], axis=-1)
    # The first three columns of the image are empty.
    window = SourceWindow(np.rint(SCALE * parts).astype(np.int16), 0, 0, (0, SIZE, 3, SIZE))
    lines = BAND if direct else slice(0, SIZE)
    height = np.zeros((lines.stop - lines.start, SIZE), np.float32)
    origin = (lines.start, 0)
    image = (
        resample_burst_exact(window, plan, offsets, height, origin)
        if direct
        else resample_burst_tile(window, plan, height, origin, height.shape)
    )
    farther_m = scene.range_offset[lines].astype(np.float64) * grid.range_spacing_m
    turns = 0.0 if flattened else 2.0 * farther_m / scene.wavelength_m
    return np.asarray(image * np.exp(-2j * np.pi * turns) / SCALE)


def band_limited(scene: Envisat) -> NDArray[np.complex128]:
    """Interpolate by discrete Fourier transform, which knows no taps at all.

    The offsets depend on the sample only, so that range and azimuth separate.
    """
    sample, line = np.arange(float(SIZE)), np.arange(float(SIZE))[:, np.newaxis]
    grid = scene.grid
    position = sample + scene.range_offset[0]
    along = scene.azimuth_offset[0].astype(np.float64)
    interval_s = grid.azimuth_time_interval_s

    def turns(where: NDArray[np.float64], lines: NDArray[np.float64]) -> NDArray[np.float64]:
        centroid = scene.centroid_hz(grid.near_range_m + where * grid.range_spacing_m)
        return centroid * (lines - 0.5 * (SIZE - 1)) * interval_s

    frequency = np.fft.fftfreq(SIZE)
    spectrum = np.fft.fft(scene.samples * np.exp(-2j * np.pi * turns(sample, line)), axis=1)
    image = spectrum @ np.exp(2j * np.pi * np.outer(frequency, position)) / SIZE
    shift = np.exp(2j * np.pi * frequency[:, np.newaxis] * along)
    image = np.fft.ifft(np.fft.fft(image, axis=0) * shift, axis=0)
    return np.asarray(image * np.exp(2j * np.pi * turns(position, line + along)))


def compare(first: NDArray[np.generic], second: NDArray[np.generic]) -> tuple[float, float]:
    """Return coherence and mean phase difference away from the edges."""
    one, two = first[INNER].astype(np.complex128), second[INNER].astype(np.complex128)
    cross = np.vdot(two, one)
    return float(np.abs(cross) / np.linalg.norm(one) / np.linalg.norm(two)), float(np.angle(cross))


def test_polynomials_follow_the_offset_rasters(
    scene: Envisat, offsets: tuple[OffsetPolynomial, OffsetPolynomial]
) -> None:
    height = np.zeros((SIZE, SIZE), np.float32)
    assert np.ptp(scene.range_offset) > 0.9
    assert np.ptp(scene.azimuth_offset) > 1.7
    # Measured 1e-7: the rounding of float32.
    for polynomial, truth in zip(offsets, (scene.azimuth_offset, scene.range_offset), strict=True):
        assert np.abs(evaluate_offsets(polynomial, 0, 0, height) - truth).max() < 5e-7


def test_golden_resampling_with_the_taps_of_isce(
    scene: Envisat, offsets: tuple[OffsetPolynomial, OffsetPolynomial]
) -> None:
    hann = (hann_sinc(), hann_sinc())
    direct = resampled(scene, offsets, hann, direct=True)
    coherence, phase = compare(scene.golden[BAND], direct)
    assert coherence > 0.99999  # measured 0.999999
    assert abs(phase) < 1e-3  # measured 1.4e-4
    # ISCE's own criterion is the mean complex difference; the mean amplitude is 4.
    mean_error = (direct - scene.golden[BAND])[INNER].mean()
    print(f"coherence {coherence:.6f}, phase {phase:+.1e} rad, mean difference {mean_error:.1e}")
    assert abs(mean_error) < 2e-5  # measured 7e-6 here, 1.1e-6 over all lines
    tile = resampled(scene, offsets, hann)
    coherence, phase = compare(scene.golden, tile)
    # The fast path holds azimuth taps over 32 samples, over which this azimuth offset (up to
    # 7e-3 line per sample, thirty times what two orbits of Sentinel-1 give) changes by 0.2 line.
    assert coherence > 0.9992  # measured 0.99936
    assert abs(phase) < 1e-3  # measured 3e-5
    gentle = slice(20, 84)
    slope = np.abs(np.gradient(scene.azimuth_offset[0]))[gentle].max()
    part, truth = tile[20:-20, gentle], scene.golden[20:-20, gentle]
    cross = np.abs(np.vdot(truth, part)) / np.linalg.norm(truth) / np.linalg.norm(part)
    print(f"slope {slope:.1e} line per sample: coherence of the fast path {cross:.6f}")
    assert cross > 0.9999  # measured 0.999934 at 1.4e-3


def test_golden_keeps_the_carrier_and_the_range_phase(
    scene: Envisat, offsets: tuple[OffsetPolynomial, OffsetPolynomial]
) -> None:
    taps = (hann_sinc(), hann_sinc())
    # Flattened, with either sign, it would turn by 1700 rad across the image.
    assert compare(scene.golden, resampled(scene, offsets, taps, flattened=True))[0] < 0.2
    image = resampled(scene, offsets, taps)
    farther_m = scene.range_offset.astype(np.float64) * scene.grid.range_spacing_m
    opposite = image * np.exp(-4j * np.pi * farther_m / scene.wavelength_m)
    assert compare(scene.golden, opposite)[0] < 0.2
    # The carrier of the resampled line, not of the line it is put on: 1.2 lines at 290 Hz.
    moved = 2j * np.pi * 290.0 * scene.azimuth_offset / scene.prf_hz
    assert compare(scene.golden, image * np.exp(-moved))[0] < 0.9
    # Without the carrier, or with the opposite one, the spectrum does not fit the kernel.
    for factor, limit in ((0.0, 0.99), (-1.0, 0.9)):  # measured 0.982 and 0.780
        wrong = replace(scene, doppler_hz=factor * scene.doppler_hz)
        found = compare(scene.golden[BAND], resampled(wrong, offsets, taps, direct=True))[0]
        print(f"carrier times {factor:+.0f}: coherence {found:.4f}")
        assert found < limit


def test_matched_taps_are_nearer_to_the_band_limited_truth(
    scene: Envisat, offsets: tuple[OffsetPolynomial, OffsetPolynomial]
) -> None:
    truth = band_limited(scene)
    golden, _ = compare(truth, scene.golden)
    ours, phase = compare(truth[BAND], resampled(scene, offsets, matched(scene), direct=True))
    tile, tile_phase = compare(truth, resampled(scene, offsets, matched(scene)))
    print(f"coherence with the truth: ISCE {golden:.6f}, ours {ours:.6f}, fast path {tile:.6f}")
    assert golden < 0.998  # measured 0.99736
    assert ours > 0.9999  # measured 0.99997
    assert tile > 0.9992  # measured 0.99934
    assert abs(phase) < 1e-3
    assert abs(tile_phase) < 1e-3
    # As decorrelation ISCE's kernel costs fifty times as much.
    assert 1.0 - golden > 30.0 * (1.0 - ours)


def speeds(
    orbit: OrbitPolynomial, time_s: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``V^2`` of the range history about zero Doppler."""
    place, rate, bend = evaluate_orbit(orbit, time_s)
    return np.asarray(np.sum(rate**2, axis=1) - np.sum((points - place) * bend, axis=1))


def test_golden_points_return_to_their_pixels(scene: Envisat) -> None:
    grid, orbit = scene.grid, scene.orbit()
    some = np.arange(0, SIZE, 10)
    pick = np.ix_(some, some)
    latitude, longitude = np.radians(scene.topo["y"][pick]), np.radians(scene.topo["x"][pick])
    height = scene.topo["z"][pick].ravel()
    x, y, z = geodetic_to_ecef(latitude.ravel(), longitude.ravel(), height)
    time_s, range_m = geo2rdr(orbit, x, y, z, 0.3)
    squared = speeds(orbit, time_s, np.stack([x, y, z], axis=1))
    line_s = np.repeat(some, some.size) * grid.azimuth_time_interval_s
    sample_m = grid.near_range_m + np.tile(some, some.size) * grid.range_spacing_m
    before_s = scene.centroid_hz(sample_m) * 0.5 * scene.wavelength_m * sample_m / squared
    assert 210 < before_s.min() * scene.prf_hz < before_s.max() * scene.prf_hz < 232
    lines = (time_s - before_s - line_s) / grid.azimuth_time_interval_s
    samples = (np.sqrt(range_m**2 + squared * (line_s - time_s) ** 2) - sample_m) / (
        grid.range_spacing_m
    )
    print(f"line {np.abs(lines).max():.1e}, sample {np.abs(samples).max():.1e}")
    assert np.abs(lines).max() < 1e-3  # measured 5.2e-4: 2 mm, 0.3 microseconds
    assert np.abs(samples).max() < 1e-5  # measured 6.5e-6: 50 micrometres
    # And back: our pixel on the ground, at the golden height.
    zero_s = line_s + before_s
    zero_m = np.sqrt(sample_m**2 - squared * before_s**2)
    found = rdr2geo_at_height(orbit, zero_s, zero_m, height)
    north_m = (found[0] - latitude.ravel()) * 6.37e6
    east_m = (found[1] - longitude.ravel()) * 6.37e6 * np.cos(latitude.ravel())
    assert np.hypot(north_m, east_m).max() < 4e-3  # measured 2.1 mm


def test_incidence_and_direction_of_the_golden_points(scene: Envisat) -> None:
    time_s = np.arange(SIZE) * scene.grid.azimuth_time_interval_s
    # The satellite at the time of the line, as ISCE takes it, is that of the image's Doppler.
    vectors, incidence = look_vectors(
        scene.orbit(),
        time_s,
        np.radians(scene.topo["y"]),
        np.radians(scene.topo["x"]),
        scene.topo["z"].astype(np.float32),
    )
    np.testing.assert_allclose(np.degrees(incidence), scene.topo["inc"], atol=1e-5)
    direction = np.degrees(np.arctan2(-vectors[0], vectors[1]))
    np.testing.assert_allclose(direction, scene.topo["hdg"], atol=3e-5)
