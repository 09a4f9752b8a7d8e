"""Resampling: against an analytic signal, against the direct sum, and its bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bperp.kernels.carrier import CarrierModel, RangePolynomials, build_carrier, carrier_phase
from bperp.kernels.chebyshev import OffsetPolynomial, evaluate_points, offset_domain, zero_offsets
from bperp.kernels.offset_powers import term_degrees
from bperp.kernels.resample import (
    HALO_SAMPLES,
    ResamplePlan,
    SourceWindow,
    plan_resampling,
    resample_burst_exact,
    resample_burst_points,
    resample_burst_tile,
    source_window,
)
from bperp.kernels.taps import design_taps
from bperp.kernels.zero_doppler import RadarGrid

WAVELENGTH_M = 0.05546576
GRID = RadarGrid(0.0, 2.0555563e-3, 7.996111e5, 2.3295621, 1500, 21000)
DOMAIN = offset_domain(1500, 21000, (0.0, 4000.0))
BANDS = {"iw1": (56.5e6, 16), "iw2": (48.3e6, 12), "iw3": (42.79e6, 8)}
AZIMUTH_TAPS = design_taps(486.486, 327.0, 0.70, 8)
EVERYWHERE = (0, 1500, 0, 21000)


def carrier() -> CarrierModel:
    time = np.array([GRID.azimuth_time_interval_s * 750])
    return build_carrier(
        GRID,
        steering_rate_rad_s=np.radians(1.590368784),
        speed_m_s=7590.0,
        radar_frequency_hz=5.405000454e9,
        fm_rate=RangePolynomials(time, np.array([5.33e-3]), np.array([[-2320.0, 4.5e5, -7.9e7]])),
        doppler_centroid=RangePolynomials(
            time, np.array([5.34e-3]), np.array([[-10.0, 1.2e4, -1.8e7]])
        ),
    )


def polynomial(constant: float, sample: float = 0.0, height: float = 0.0) -> OffsetPolynomial:
    """Return constant + sample * (per 21000 samples) + height * (per 4 km), about the centre."""
    coefficients = np.zeros(92)
    degrees = [tuple(row) for row in term_degrees(92)]
    coefficients[degrees.index((0, 0, 0))] = constant
    coefficients[degrees.index((0, 1, 0))] = 0.5 * sample
    coefficients[degrees.index((0, 0, 1))] = 0.5 * height
    return OffsetPolynomial(DOMAIN, coefficients)


@dataclass(frozen=True)
class Case:
    """One resampling: offsets, shifts and swath."""

    azimuth: OffsetPolynomial
    range: OffsetPolynomial
    shifts: tuple[float, float] = (0.0, 0.0)
    swath: str = "iw1"
    near_difference_m: float = 0.0

    def plan(self) -> ResamplePlan:
        bandwidth, taps = BANDS[self.swath]
        source = GRID._replace(near_range_m=GRID.near_range_m + self.near_difference_m)
        return plan_resampling(
            (self.azimuth, self.range),
            self.shifts,
            (AZIMUTH_TAPS, design_taps(64.345e6, bandwidth, 0.75, taps)),
            carrier(),
            GRID,
            source,
            WAVELENGTH_M,
        )

    def positions(
        self, origin: tuple[int, int], height: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return exact source lines, source samples and flattening in turns."""
        line = origin[0] + np.arange(height.shape[0])[:, np.newaxis]
        sample = origin[1] + np.arange(height.shape[1])[np.newaxis, :]
        level = height.astype(np.float64)
        along = evaluate_points(self.azimuth, line, sample, level)
        across = evaluate_points(self.range, line, sample, level)
        farther_m = self.near_difference_m + across * GRID.range_spacing_m
        return (
            line + along + self.shifts[0],
            sample + across + self.shifts[1],
            2.0 * farther_m / WAVELENGTH_M,
        )


# Baseline 150 m: 4.5 samples over the swath and 0.14 sample per km; 2.5e-3 line per km of height.
REAL = Case(polynomial(2.3, 0.1, 0.01), polynomial(-7.4, 4.5, 0.56))
# A kilometre of baseline, where the range taps must be taken pixel by pixel.
EXTREME = Case(polynomial(-1.7, 0.3, 0.05), polynomial(12.1, 20.0, 40.0))


def heights(shape: tuple[int, int], roughness_m: float = 30.0) -> NDArray[np.float32]:
    generator = np.random.default_rng(8)
    trend = 1500.0 + 800.0 * np.sin(np.arange(shape[1]) / 150.0)
    return (trend + roughness_m * generator.normal(size=shape)).astype(np.float32)


def tones(swath: str, count: int = 300) -> tuple[NDArray[np.float64], ...]:
    """Draw frequencies (cycles per pixel) with the power of the processed spectrum."""
    generator = np.random.default_rng(9)

    def draw(fill: float, coefficient: float) -> NDArray[np.float64]:
        unit = generator.uniform(-1, 1, 40 * count)
        power = (coefficient + (1 - coefficient) * np.cos(np.pi * unit)) ** 2
        kept = unit[generator.uniform(0, 1, unit.size) < power][:count]
        return np.asarray(0.5 * fill * kept)

    azimuth = draw(327.0 / 486.486, 0.70)
    across = draw(BANDS[swath][0] / 64.345e6, 0.75)
    return azimuth, across, generator.uniform(0, 2 * np.pi, count)


def signal(
    line: NDArray[np.float64], sample: NDArray[np.float64], swath: str
) -> NDArray[np.complex128]:
    """Return the band-limited signal (2000 digital numbers rms) with its carrier, anywhere."""
    total = np.zeros(np.broadcast_shapes(line.shape, sample.shape), np.complex128)
    azimuth, across, start = tones(swath)
    for f, g, phase in zip(azimuth, across, start, strict=True):
        total += np.exp(1j * (2 * np.pi * (f * line + g * sample) + phase))
    total *= 2000.0 / np.sqrt(azimuth.size)
    return np.asarray(total * np.exp(2j * np.pi * carrier_phase(carrier(), line, sample)))


def window_of(case: Case, origin: tuple[int, int], height: NDArray[np.float32]) -> SourceWindow:
    """Sample the analytic signal on the source pixels that a tile needs."""
    limits = (float(height.min()), float(height.max()))
    rows, columns = source_window(case.plan(), origin, height.shape, limits, (1500, 21000))
    line = np.arange(rows.start, rows.stop, dtype=np.float64)[:, np.newaxis]
    sample = np.arange(columns.start, columns.stop, dtype=np.float64)[np.newaxis, :]
    image = signal(line, sample, case.swath)
    pixels = np.rint(np.stack([image.real, image.imag], axis=-1)).astype(np.int16)
    return SourceWindow(pixels, rows.start, columns.start, EVERYWHERE)


@pytest.mark.parametrize("swath", ["iw1", "iw2", "iw3"])
def test_analytic_signal_with_its_carrier(swath: str) -> None:
    case = replace(REAL, swath=swath)
    origin, height = (180, 6400), heights((32, 512))
    found = resample_burst_tile(
        window_of(case, origin, height), case.plan(), height, origin, (32, 512)
    )
    line, sample, turns = case.positions(origin, height)
    truth = signal(line, sample, swath) * np.exp(2j * np.pi * turns)
    product = found * truth.conj()
    weight = np.abs(product) / np.abs(product).sum()
    phase = np.angle(product)
    assert np.sqrt(np.sum(weight * phase**2)) < 0.01
    assert abs(np.sum(weight * phase)) < 5e-4
    assert abs(np.abs(found).sum() / np.abs(truth).sum() - 1.0) < 1e-3


@pytest.mark.parametrize(
    ("case", "limit"),
    [
        (REAL, 1.5e-3),
        (replace(REAL, shifts=(0.37, -0.21), near_difference_m=11.3), 1.5e-3),
        (EXTREME, 3e-3),
        (replace(EXTREME, swath="iw3"), 3e-3),
    ],
    ids=["real", "shifted", "extreme", "eight-taps"],
)
def test_passes_agree_with_the_direct_sum(case: Case, limit: float) -> None:
    origin, height = (700, 9990), heights((12, 130))
    window = window_of(case, origin, height)
    plan = case.plan()
    found = resample_burst_tile(window, plan, height, origin, height.shape)
    offsets = (case.azimuth, case.range)
    truth = resample_burst_exact(window, plan, offsets, height, origin)
    assert (truth != 0).all()
    error = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    assert error < limit


def test_identity() -> None:
    case = Case(zero_offsets(DOMAIN), zero_offsets(DOMAIN))
    origin, height = (64, 3000), heights((16, 300))
    window = window_of(case, origin, height)
    found = resample_burst_tile(window, case.plan(), height, origin, height.shape)
    rows = slice(origin[0] - window.first_line, origin[0] - window.first_line + 16)
    columns = slice(origin[1] - window.first_sample, origin[1] - window.first_sample + 300)
    truth = window.pixels[rows, columns, 0] + 1j * window.pixels[rows, columns, 1]
    assert np.abs(found - truth).max() / np.abs(truth).max() < 1e-5


def test_source_position_is_index_plus_offset_plus_shift() -> None:
    # A single bright pixel of the source, moved by whole lines and samples.
    case = Case(polynomial(3.0), polynomial(-2.0), shifts=(1.0, 4.0))
    pixels = np.zeros((60, 80, 2), np.int16)
    pixels[30, 40, 0] = 1000
    window = SourceWindow(pixels, 100, 500, EVERYWHERE)
    height = np.zeros((40, 50), np.float32)
    found = resample_burst_tile(window, case.plan(), height, (105, 515), (40, 50))
    peak = np.unravel_index(np.argmax(np.abs(found)), found.shape)
    assert (peak[0] + 105, peak[1] + 515) == (100 + 30 - 3 - 1, 500 + 40 + 2 - 4)
    assert np.abs(found[peak]) == pytest.approx(1000.0, rel=1e-5)


def test_flattening_removes_the_range_difference() -> None:
    # A scatterer's phase is -4 pi R / lambda: farther away by 11.3 m on the secondary date, at the
    # same pixel. The flattened secondary must agree with the reference.
    case = Case(zero_offsets(DOMAIN), zero_offsets(DOMAIN), near_difference_m=11.3)
    line = np.arange(500.0, 560.0)[:, np.newaxis]
    sample = np.arange(2000.0, 2100.0)[np.newaxis, :]
    reference = signal(line, sample, "iw1")
    secondary = reference * np.exp(-4j * np.pi * 11.3 / WAVELENGTH_M)
    pixels = np.rint(np.stack([secondary.real, secondary.imag], axis=-1)).astype(np.int16)
    window = SourceWindow(pixels, 500, 2000, EVERYWHERE)
    height = np.zeros((20, 40), np.float32)
    found = resample_burst_tile(window, case.plan(), height, (520, 2030), (20, 40))
    interferogram = reference[20:40, 30:70] * found.conj()
    assert abs(np.angle(interferogram.sum())) < 1e-3


def test_topography_is_flattened_with_each_pixels_height() -> None:
    case = Case(polynomial(0.0), polynomial(0.0, 0.0, 0.56))
    origin, height = (300, 4000), heights((4, 64))
    flat = replace(case, range=zero_offsets(DOMAIN))
    turns = case.positions(origin, height)[2] - flat.positions(origin, height)[2]
    # 0.14 sample per km is 0.326 m, or 11.8 turns; the sign is that of 4 pi (R_sec - R_ref).
    expected = 2.0 * 0.14e-3 * 2.3295621 * (height.astype(float) - 2000.0) / WAVELENGTH_M
    np.testing.assert_allclose(turns, expected, atol=1e-6)


def test_zero_where_a_tap_leaves_the_valid_rectangle() -> None:
    case = Case(polynomial(0.4), polynomial(0.3))
    pixels = np.full((80, 120, 2), 1000, np.int16)
    window = SourceWindow(pixels, 10, 1000, (25, 70, 1020, 1100))
    height = np.zeros((70, 110), np.float32)
    found = resample_burst_tile(window, case.plan(), height, (15, 1005), (70, 110))
    good = found != 0
    lines = 15 + np.flatnonzero(good.any(axis=1))
    samples = 1005 + np.flatnonzero(good.any(axis=0))
    # Eight azimuth taps reach 3 before and 4 behind, sixteen range taps 7 and 8.
    assert (lines[0], lines[-1]) == (25 + 3, 70 - 1 - 4)
    assert (samples[0], samples[-1]) == (1020 + 7, 1100 - 1 - 8)
    assert good[lines[0] - 15 : lines[-1] - 14, samples[0] - 1005 : samples[-1] - 1004].all()


def test_window_that_is_too_small_counts_as_invalid() -> None:
    case = Case(polynomial(0.0), polynomial(0.0))
    window = SourceWindow(np.full((30, 40, 2), 7, np.int16), 100, 200, EVERYWHERE)
    height = np.zeros((64, 96), np.float32)
    found = resample_burst_tile(window, case.plan(), height, (80, 170), (64, 96))
    lines, samples = np.nonzero(found)
    assert (80 + lines.min(), 80 + lines.max()) == (103, 125)
    assert (170 + samples.min(), 170 + samples.max()) == (207, 231)


def test_unknown_heights_give_zeros_and_nothing_else() -> None:
    origin, height = (180, 6400), heights((16, 128))
    window = window_of(REAL, origin, height)
    whole = resample_burst_tile(window, REAL.plan(), height, origin, height.shape)
    holes = height.copy()
    holes[5, 17] = np.nan
    holes[:, 90:] = np.nan
    found = resample_burst_tile(window, REAL.plan(), holes, origin, height.shape)
    known = np.isfinite(holes)
    assert not found[~known].any()
    assert np.isfinite(found).all()
    # Segments of 32 samples share the line of their taps: those without a hole keep every byte.
    np.testing.assert_array_equal(found[:, :64][:5], whole[:, :64][:5])
    np.testing.assert_allclose(found[known], whole[known], atol=5.0)
    nothing = np.full_like(height, np.nan)
    assert not resample_burst_tile(window, REAL.plan(), nothing, origin, height.shape).any()


@pytest.mark.parametrize(
    ("case", "roughness_m"),
    [(REAL, 5.0), (REAL, 60.0), (replace(EXTREME, swath="iw3"), 5.0)],
    ids=["smooth", "rough", "extreme"],
)
def test_tiles_give_the_same_bytes(case: Case, roughness_m: float) -> None:
    # Taps hold for 32 samples on smooth ground, 16 on rough, one with a kilometre of baseline.
    origin, shape = (180, 6400), (24, 1344)
    height = heights(shape, roughness_m)
    height[3, 400:470] = np.nan
    limits = (float(np.nanmin(height)), float(np.nanmax(height)))
    rows, columns = source_window(case.plan(), origin, shape, limits, (1500, 21000))
    size = (rows.stop - rows.start, columns.stop - columns.start, 2)
    numbers = np.random.default_rng(6).integers(-2000, 2000, size).astype(np.int16)
    window = SourceWindow(numbers, rows.start, columns.start, EVERYWHERE)
    whole = resample_burst_tile(window, case.plan(), height, origin, shape)
    for top, left, size in ((9, 320, (11, 416)), (0, 1024, (5, 320)), (2, 512, (2, 32))):
        columns = slice(max(left - HALO_SAMPLES, 0), left + size[1] + HALO_SAMPLES)
        halo = height[top : top + size[0], columns]
        part_origin, first = (origin[0] + top, origin[1] + left), origin[1] + columns.start
        limits = (float(np.nanmin(halo)), float(np.nanmax(halo)))
        part = source_window(case.plan(), part_origin, size, limits, (1500, 21000))
        smaller = SourceWindow(
            numbers[
                part[0].start - window.first_line : part[0].stop - window.first_line,
                part[1].start - window.first_sample : part[1].stop - window.first_sample,
            ],
            part[0].start,
            part[1].start,
            EVERYWHERE,
        )
        out = np.empty(size, np.complex64)
        found = resample_burst_tile(smaller, case.plan(), halo, part_origin, size, first, out)
        assert found is out
        np.testing.assert_array_equal(out, whole[top : top + size[0], left : left + size[1]])


@pytest.mark.parametrize("taps", [12, 16])
def test_more_azimuth_taps(taps: int) -> None:
    origin, height = (700, 9990), heights((12, 130))
    window = window_of(REAL, origin, height)
    plan = REAL.plan()._replace(azimuth_taps=design_taps(486.486, 327.0, 0.70, taps))
    found = resample_burst_tile(window, plan, height, origin, height.shape)
    truth = resample_burst_exact(window, plan, (REAL.azimuth, REAL.range), height, origin)
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) < 1.5e-3


def test_points_against_the_analytic_signal() -> None:
    origin, height = (180, 6400), heights((8, 96))
    line, sample, turns = REAL.positions(origin, height)
    found = resample_burst_points(window_of(REAL, origin, height), REAL.plan(), line, sample, turns)
    assert found.dtype == np.complex64
    truth = signal(line, sample, "iw1") * np.exp(2j * np.pi * turns)
    product = found * truth.conj()
    weight = np.abs(product) / np.abs(product).sum()
    assert np.sqrt(np.sum(weight * np.angle(product) ** 2)) < 0.01


def test_points_are_those_of_the_tile() -> None:
    case = replace(REAL, shifts=(0.37, -0.21), near_difference_m=11.3)
    origin, height = (700, 9990), heights((12, 130))
    window, plan = window_of(case, origin, height), case.plan()
    positions = case.positions(origin, height)
    found = resample_burst_points(window, plan, *positions)
    exact = resample_burst_exact(window, plan, (case.azimuth, case.range), height, origin)
    np.testing.assert_allclose(found, exact, atol=1e-3)
    assert (found != 0).all()


def test_points_without_data_are_zero() -> None:
    origin, height = (180, 6400), heights((6, 64))
    window, plan = window_of(REAL, origin, height), REAL.plan()
    line, sample, turns = REAL.positions(origin, height)
    whole = resample_burst_points(window, plan, line, sample, turns)
    line, sample, turns = line.copy(), sample.copy(), turns.copy()
    line[0, 3] = sample[1, 4] = turns[2, 5] = np.nan
    line[3, 6], sample[4, 7] = 1e12, -np.inf
    found = resample_burst_points(window, plan, line, sample, turns)
    gone = (np.array([0, 1, 2, 3, 4]), np.array([3, 4, 5, 6, 7]))
    assert not found[gone].any()
    whole[gone] = 0.0
    np.testing.assert_array_equal(found, whole)
    nothing = np.full_like(line, np.nan)
    assert not resample_burst_points(window, plan, nothing, sample, turns).any()
    with pytest.raises(ValueError, match="one shape"):
        resample_burst_points(window, plan, line, sample, turns[:-1])


def test_points_keep_to_the_valid_rectangle() -> None:
    pixels = np.full((80, 120, 2), 1000, np.int16)
    window = SourceWindow(pixels, 10, 1000, (25, 70, 1020, 1100))
    line, sample = np.meshgrid(np.arange(10, 90) + 0.4, np.arange(1000, 1120) + 0.3, indexing="ij")
    found = resample_burst_points(window, REAL.plan(), line, sample, np.zeros(line.shape))
    lines, samples = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (10 + lines[0], 10 + lines[-1]) == (25 + 3, 70 - 1 - 4)
    assert (1000 + samples[0], 1000 + samples[-1]) == (1020 + 7, 1100 - 1 - 8)


def test_source_window_holds_all_taps_and_stays_in_the_burst() -> None:
    height = heights((32, 512))
    limits = (float(height.min()), float(height.max()))
    for case in (REAL, EXTREME):
        rows, columns = source_window(case.plan(), (180, 6400), (32, 512), limits, (1500, 21000))
        line, sample, _ = case.positions((180, 6400), height)
        assert rows.start <= line.min() - 8
        assert rows.stop >= line.max() + 9
        assert columns.start <= sample.min() - 8
        assert columns.stop >= sample.max() + 9
        assert columns.stop - columns.start < 512 + 64 + sample.max() - sample.min() - 511
    rows, columns = source_window(REAL.plan(), (0, 20990), (4, 10), limits, (1500, 21000))
    assert rows.start == 0
    assert columns.stop == 21000
    far = replace(REAL, range=polynomial(30000.0))
    _, columns = source_window(far.plan(), (0, 0), (4, 10), limits, (1500, 21000))
    assert columns.start >= columns.stop


def test_tile_beyond_the_source_is_empty() -> None:
    far = replace(REAL, range=polynomial(30000.0))
    window = SourceWindow(np.zeros((0, 0, 2), np.int16), 0, 0, EVERYWHERE)
    height = heights((4, 40))
    assert not resample_burst_tile(window, far.plan(), height, (0, 0), (4, 40)).any()


def test_refuses_wrong_shapes() -> None:
    window = SourceWindow(np.zeros((9, 9, 2), np.int16), 0, 0, EVERYWHERE)
    height = np.zeros((4, 40), np.float32)
    with pytest.raises(ValueError, match="lines"):
        resample_burst_tile(window, REAL.plan(), height, (0, 0), (5, 40))
    with pytest.raises(ValueError, match="cover"):
        resample_burst_tile(window, REAL.plan(), height, (0, 0), (4, 41))
    flat = SourceWindow(np.zeros((9, 18), np.int16), 0, 0, EVERYWHERE)
    with pytest.raises(ValueError, match="pixels"):
        resample_burst_tile(flat, REAL.plan(), height, (0, 0), (4, 40))
    with pytest.raises(ValueError, match="2049"):
        plan_resampling(
            (REAL.azimuth, REAL.range), (0.0, 0.0), (AZIMUTH_TAPS[:5], AZIMUTH_TAPS),
            carrier(), GRID, GRID, WAVELENGTH_M,
        )  # fmt: skip
