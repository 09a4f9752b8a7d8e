"""Resampling of a TOPS burst onto the reference geometry: deramp, interpolate, reramp, flatten.

For every tile the source is deramped once, interpolated in azimuth (taps held over 32 source
samples, over which the azimuth offset changes by less than 1e-3 line) and in range (taps linear in
the offset over 32 output samples, or one by one in rough terrain), and given its carrier back
analytically at the resampled position. Azimuth comes first, because the range offset varies more
with height and is thus taken for each pixel's own line.

Complex rows are kept as interleaved float32 ``re, im, re, im, ...``: all loops run over contiguous
memory. Phases are kept in turns, in float64 until they are wrapped.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.carrier import CarrierModel, carrier_terms
from bperp.kernels.chebyshev import (
    OffsetPolynomial,
    OffsetPowers,
    collapse_line,
    evaluate_points,
    offset_at,
    offset_row,
    to_powers,
)
from bperp.kernels.orbit import FAST
from bperp.kernels.taps import FRACTIONS, TAPS
from bperp.kernels.zero_doppler import RadarGrid

__all__ = [
    "HALO_SAMPLES",
    "ResamplePlan",
    "SourceWindow",
    "plan_resampling",
    "resample_burst_exact",
    "resample_burst_tile",
    "source_window",
]

HALO_SAMPLES = 64
"""Samples of height that ``resample_burst_tile`` can use on either side of its tile."""

_SEGMENT = 32
_BLOCK = 1024
_BEFORE = TAPS // 2 - 1
_AFTER = TAPS // 2
# Over a segment the range taps are linear in the offset; their curvature (below 4 per square
# sample) then costs less than 5e-4 of the amplitude.
_LINEAR = 1.0 / 64.0
_POLYNOMIAL_MARGIN = 2


class SourceWindow(NamedTuple):
    """Part of a burst: ``pixels`` (lines, samples, 2) int16 from ``(first_line, first_sample)``.

    ``valid`` is the burst's valid rectangle ``(first line, stop line, first sample, stop sample)``.
    All positions count from the burst's first pixel.
    """

    pixels: NDArray[np.int16]
    first_line: int
    first_sample: int
    valid: tuple[int, int, int, int]


class ResamplePlan(NamedTuple):
    """Everything about a burst on a date that does not depend on the tile.

    ``flattening`` holds three numbers in turns: ``2 (R_date - R_reference) / lambda`` equals
    ``flattening[0] + flattening[1] * sample + flattening[2] * range offset``. The shifts are added
    to the source position only: they correct timing, not geometry.
    """

    carrier: CarrierModel
    azimuth: OffsetPowers
    range: OffsetPowers
    azimuth_shift_lines: float
    range_shift_samples: float
    azimuth_taps: NDArray[np.float32]
    range_taps: NDArray[np.float32]
    flattening: NDArray[np.float64]


def plan_resampling(
    offsets: tuple[OffsetPolynomial, OffsetPolynomial],
    shifts: tuple[float, float],
    taps: tuple[NDArray[np.float32], NDArray[np.float32]],
    carrier: CarrierModel,
    reference: RadarGrid,
    source: RadarGrid,
    wavelength_m: float,
) -> ResamplePlan:
    """Collect what the resampling of one burst on one date needs.

    Parameters
    ----------
    offsets : tuple of 2 OffsetPolynomial
        Azimuth offset in lines and range offset in samples: source minus reference position.
    shifts : tuple of 2 float
        Constant azimuth (lines) and range (samples) shift from spectral diversity and correlation,
        added to the source position; no part of the flattening.
    taps : tuple of 2 ndarray (2049, 16), float32
        Azimuth and range table from ``design_taps``.
    carrier : CarrierModel
        Carrier of the source.
    reference, source : RadarGrid
        Timing of the two images (only their ranges matter here).
    wavelength_m : float, m
        Radar wavelength.

    Returns
    -------
    ResamplePlan
        Argument of ``resample_burst_tile``.

    Raises
    ------
    ValueError
        If a table of taps has another shape.
    """
    for table in taps:
        if table.shape != (FRACTIONS + 1, TAPS):
            raise ValueError(f"taps must have the shape (2049, 16), got {table.shape}")
    flattening = (2.0 / wavelength_m) * np.array(
        [
            source.near_range_m - reference.near_range_m,
            source.range_spacing_m - reference.range_spacing_m,
            source.range_spacing_m,
        ]
    )
    return ResamplePlan(
        carrier,
        to_powers(offsets[0]),
        to_powers(offsets[1]),
        float(shifts[0]),
        float(shifts[1]),
        np.ascontiguousarray(taps[0], dtype=np.float32),
        np.ascontiguousarray(taps[1], dtype=np.float32),
        flattening,
    )


class _Block(NamedTuple):
    """Buffers of one block of columns.

    ``ring`` holds deramped source rows at the slot ``row & (slots - 1)``; its columns begin at
    ``first_column``, a multiple of 32. ``terms`` (3, columns) is the carrier of every column.
    ``offsets`` (2, block) holds azimuth and range offsets of one line of output; ``mixed``
    (2, 2 block) its range sums: value, and derivative with respect to the offset.
    """

    first_column: int
    ring: NDArray[np.float32]
    line: NDArray[np.float32]
    terms: NDArray[np.float64]
    usable: NDArray[np.bool_]
    height: NDArray[np.float32]
    offsets: NDArray[np.float64]
    mixed: NDArray[np.float32]


@njit(fastmath=FAST, forceinline=True)
def sine_cosine(turns: float) -> tuple[np.float32, np.float32]:
    """Return sine and cosine of a phase in turns, wrapped in float64, to 6e-7.

    Least-squares polynomials in t**2 over half a turn on either side.
    """
    t = np.float32(turns - math.floor(turns + 0.5))
    z = t * t
    sine = np.float32(-12.268859941063905)
    sine = sine * z + np.float32(41.203743633722105)
    sine = sine * z + np.float32(-76.5796878510428)
    sine = sine * z + np.float32(81.59613875538633)
    sine = sine * z + np.float32(-41.34141938561735)
    sine = sine * z + np.float32(6.2831827934070335)
    cosine = np.float32(6.528658160125787)
    cosine = cosine * z + np.float32(-25.967599247625188)
    cosine = cosine * z + np.float32(60.16763095072712)
    cosine = cosine * z + np.float32(-85.45013953085638)
    cosine = cosine * z + np.float32(64.93911745989399)
    cosine = cosine * z + np.float32(-19.739204499453862)
    return sine * t, cosine * z + np.float32(1.0)


@njit(fastmath=FAST)
def _deramp_row(
    pixels: NDArray[np.int16],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    third: NDArray[np.float64],
    eta: float,
    out: NDArray[np.float32],
) -> None:
    """Convert one interleaved source row to float32 and remove its carrier."""
    for i in range(np.uint64(first.size)):
        sine, cosine = sine_cosine(first[i] + eta * (second[i] + eta * third[i]))
        real, imaginary = np.float32(pixels[2 * i]), np.float32(pixels[2 * i + 1])
        out[2 * i] = real * cosine + imaginary * sine
        out[2 * i + 1] = imaginary * cosine - real * sine


@njit(fastmath=FAST)
def _load_row(source: SourceWindow, plan: ResamplePlan, block: _Block, row: int) -> None:
    """Put a deramped source row into the ring; zeros outside the window."""
    target = block.ring[row & (block.ring.shape[0] - 1)]
    line = row - source.first_line
    if line < 0 or line >= source.pixels.shape[0]:
        target[:] = np.float32(0.0)
        return
    columns = block.terms.shape[1]
    skip = max(source.first_sample - block.first_column, 0)
    first = max(block.first_column - source.first_sample, 0)
    count = min(source.pixels.shape[1] // 2 - first, columns - skip)
    if count <= 0:
        return
    eta = (row - plan.carrier.middle_line) * plan.carrier.line_interval_s
    pixels = source.pixels[line, 2 * first : 2 * (first + count)]
    stop = skip + count
    first_term, second_term = block.terms[0, skip:stop], block.terms[1, skip:stop]
    third_term = block.terms[2, skip:stop]
    _deramp_row(pixels, first_term, second_term, third_term, eta, target[2 * skip : 2 * stop])


@njit(fastmath=FAST)
def _mix_rows(
    ring: NDArray[np.float32],
    row: int,
    taps: NDArray[np.float32],
    start: int,
    out: NDArray[np.float32],
    add: bool,
) -> None:
    """Sum four successive rows with their taps over one segment, into ``out`` or added to it."""
    mask = ring.shape[0] - 1
    r0, r1 = np.uint64(row & mask), np.uint64((row + 1) & mask)
    r2, r3 = np.uint64((row + 2) & mask), np.uint64((row + 3) & mask)
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    shift = np.uint64(start)
    if add:
        for i in range(np.uint64(2 * _SEGMENT)):
            m = i + shift
            value = t0 * ring[r0, m] + t1 * ring[r1, m]
            out[m] += value + (t2 * ring[r2, m] + t3 * ring[r3, m])
    else:
        for i in range(np.uint64(2 * _SEGMENT)):
            m = i + shift
            value = t0 * ring[r0, m] + t1 * ring[r1, m]
            out[m] = value + (t2 * ring[r2, m] + t3 * ring[r3, m])


@njit
def _azimuth_line(
    plan: ResamplePlan,
    block: _Block,
    rows: NDArray[np.float64],
    line: int,
    lead: tuple[int, int],
    limits: tuple[int, int, int],
    height: NDArray[np.float32],
) -> None:
    """Interpolate one output line in azimuth, at source columns.

    ``lead`` is the constant part of the range offset and the sample at which ``height`` (one line)
    starts; ``limits`` the valid rows and the reach of the taps.
    """
    first_valid, stop_valid, reach = limits
    for segment in range(block.usable.size):
        middle = block.first_column + segment * _SEGMENT + _SEGMENT // 2
        sample = middle - lead[0]
        place = min(max(sample - lead[1], 0), height.size - 1)
        level = np.float64(height[place])
        if math.isnan(level):
            level = plan.azimuth.domain[2, 0]
        offset = offset_at(plan.azimuth, rows, np.float64(sample), level)
        position = line + offset + plan.azimuth_shift_lines
        base = int(math.floor(position))
        q = int((position - base) * FRACTIONS + 0.5)
        block.usable[segment] = (base - reach + 1 >= first_valid) and (base + reach < stop_valid)
        start = 2 * _SEGMENT * segment
        for k in range(_AFTER - reach, _AFTER + reach, 4):
            taps = plan.azimuth_taps[q, k : k + 4]
            add = k > _AFTER - reach
            _mix_rows(block.ring, base - _BEFORE + k, taps, start, block.line, add)


@njit(fastmath=FAST)
def _mix_samples(
    line: NDArray[np.float32],
    start: int,
    taps: NDArray[np.float32],
    slopes: NDArray[np.float32],
    value: NDArray[np.float32],
    slope: NDArray[np.float32],
) -> None:
    """Add four successive taps, and their derivatives, for one segment of output."""
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    s0, s1, s2, s3 = slopes[0], slopes[1], slopes[2], slopes[3]
    for i in range(np.uint64(value.size)):
        m = i + np.uint64(start)
        x0, x1 = line[m], line[m + np.uint64(2)]
        x2, x3 = line[m + np.uint64(4)], line[m + np.uint64(6)]
        value[i] += (t0 * x0 + t1 * x1) + (t2 * x2 + t3 * x3)
        slope[i] += (s0 * x0 + s1 * x1) + (s2 * x2 + s3 * x3)


@njit(fastmath=FAST)
def _finish_segment(
    plan: ResamplePlan,
    block: _Block,
    place: tuple[int, int, int, int],
    position: tuple[float, float, float],
    out: NDArray[np.float32],
) -> None:
    """Complete one segment: apply the slope, put the carrier back, flatten.

    ``place`` is the first and last index in the block, the source column of the first and the
    burst sample of the block's first pixel; ``position`` the source line minus its offset, the
    offset of the taps and their fraction.
    """
    start, stop, column, first_sample = place
    line, centre, fraction = position
    first, second, third = block.terms[0], block.terms[1], block.terms[2]
    value, slope = block.mixed[0], block.mixed[1]
    azimuth, across = block.offsets[0], block.offsets[1]
    carrier = plan.carrier
    constant, ramp, scale = plan.flattening[0], plan.flattening[1], plan.flattening[2]
    shift = plan.range_shift_samples
    move = np.uint64(column - start)
    one = np.uint64(1)
    for i in range(np.uint64(start), np.uint64(stop)):
        away = across[i] + shift - centre
        part = away + fraction
        c = i + move
        eta = (line + azimuth[i] - carrier.middle_line) * carrier.line_interval_s
        a = first[c] + part * (first[c + one] - first[c])
        b = second[c] + part * (second[c + one] - second[c])
        r = third[c] + part * (third[c + one] - third[c])
        turns = a + eta * (b + eta * r)
        sample = np.float64(first_sample) + np.float64(i)
        turns += constant + ramp * sample + scale * across[i]
        sine, cosine = sine_cosine(turns)
        d = np.float32(away)
        real = value[2 * i] + d * slope[2 * i]
        imaginary = value[2 * i + 1] + d * slope[2 * i + 1]
        out[2 * i] = real * cosine - imaginary * sine
        out[2 * i + 1] = real * sine + imaginary * cosine


@njit
def _finish_pixel(
    plan: ResamplePlan,
    block: _Block,
    index: int,
    place: tuple[int, float],
    out: NDArray[np.float32],
) -> None:
    """Interpolate one pixel with its own taps and complete it (``mixed`` is not used)."""
    first_sample, line = place
    sample = np.float64(first_sample + index)
    across = block.offsets[1, index]
    position = sample + across + plan.range_shift_samples
    base = int(math.floor(position))
    q = int((position - base) * FRACTIONS + 0.5)
    column = base - _BEFORE - block.first_column
    real = imaginary = np.float32(0.0)
    if 0 <= column <= block.terms.shape[1] - TAPS:
        for k in range(TAPS):
            tap = plan.range_taps[q, k]
            real += tap * block.line[2 * (column + k)]
            imaginary += tap * block.line[2 * (column + k) + 1]
    a, b, r = carrier_terms(plan.carrier, position)
    eta = line + block.offsets[0, index] - plan.carrier.middle_line
    eta *= plan.carrier.line_interval_s
    turns = a + eta * (b + eta * r) + plan.flattening[0]
    turns += plan.flattening[1] * sample + plan.flattening[2] * across
    sine, cosine = sine_cosine(turns)
    out[2 * index] = real * cosine - imaginary * sine
    out[2 * index + 1] = real * sine + imaginary * cosine


@njit
def _clear_unusable(
    plan: ResamplePlan,
    block: _Block,
    part: tuple[int, int, int, int],
    limits: tuple[int, int, int],
    height: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Set pixels to zero whose taps leave the valid rectangle or whose height is unknown.

    ``part`` is the range of indices, the burst sample of index 0, and the column difference of
    the taps, or a negative number where every pixel has its own.
    """
    start, stop, first_sample, fixed = part
    first_valid, stop_valid, reach = limits
    last = block.usable.size - 1
    for i in range(start, stop):
        shift = block.offsets[1, i] + plan.range_shift_samples
        base = first_sample + i + (fixed if fixed > -(1 << 30) else int(math.floor(shift)))
        low, high = base - reach + 1, base + reach
        good = low >= first_valid and high < stop_valid and not math.isnan(height[i])
        left = min(max((low - block.first_column) // _SEGMENT, 0), last)
        right = min(max((high - block.first_column) // _SEGMENT, 0), last)
        if not (good and block.usable[left] and block.usable[right]):
            out[2 * i] = np.float32(0.0)
            out[2 * i + 1] = np.float32(0.0)


@njit
def _range_line(
    plan: ResamplePlan,
    slopes: NDArray[np.float32],
    block: _Block,
    place: tuple[int, int, int],
    limits: tuple[int, int, int],
    height: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Interpolate one line in range, segment by segment, and complete it.

    ``place`` is the burst line, the burst sample of the block's first pixel and the block's size.
    """
    line, first_sample, size = place
    reach = limits[2]
    source_line = line + plan.azimuth_shift_lines
    columns = block.terms.shape[1]
    across = block.offsets[1]
    start = 0
    while start < size:
        stop = min(size, start + _SEGMENT - (first_sample + start) % _SEGMENT)
        shift = across[(start + stop) // 2] + plan.range_shift_samples
        base = int(math.floor(shift))
        q = int((shift - base) * FRACTIONS + 0.5)
        fraction = q / FRACTIONS
        spread = 0.0
        for i in range(np.uint64(start), np.uint64(stop)):
            spread = max(spread, abs(across[i] + plan.range_shift_samples - base - fraction))
        column = first_sample + start + base - block.first_column
        first, last = column - _BEFORE, column + (stop - start) + _AFTER
        own = spread > _LINEAR or first < 0 or last >= columns
        if own:
            for i in range(start, stop):
                _finish_pixel(plan, block, i, (first_sample, source_line), out)
        else:
            value, slope = block.mixed[0, 2 * start : 2 * stop], block.mixed[1, 2 * start : 2 * stop]
            value[:] = np.float32(0.0)
            slope[:] = np.float32(0.0)
            for k in range(_AFTER - reach, _AFTER + reach, 4):
                taps, rates = plan.range_taps[q, k : k + 4], slopes[q, k : k + 4]
                _mix_samples(block.line, 2 * (first + k), taps, rates, value, slope)
            _finish_segment(
                plan,
                block,
                (start, stop, column, first_sample),
                (source_line, base + fraction, fraction),
                out,
            )
        fixed = -(1 << 31) if own else base
        _clear_unusable(
            plan, block, (start, stop, first_sample, fixed), limits, height, out
        )
        start = stop


@njit
def _bounds(
    offsets: OffsetPowers, lines: tuple[int, int], samples: tuple[int, int], heights: tuple[float, float]
) -> tuple[float, float]:
    """Return the least and greatest offset of a box, with a margin."""
    rows = np.empty((offsets.powers.shape[0], offsets.powers.shape[2]))
    low, high = math.inf, -math.inf
    for i in range(3):
        collapse_line(offsets, lines[0] + 0.5 * i * (lines[1] - lines[0]), rows)
        for j in range(3):
            sample = samples[0] + 0.5 * j * (samples[1] - samples[0])
            for level in heights:
                value = offset_at(offsets, rows, sample, level)
                low, high = min(low, value), max(high, value)
    return low - _POLYNOMIAL_MARGIN, high + _POLYNOMIAL_MARGIN


@njit
def _make_block(
    plan: ResamplePlan,
    samples: tuple[int, int],
    across: tuple[float, float],
    along: tuple[float, float],
) -> _Block:
    """Allocate the buffers of a block and tabulate the carrier of its columns."""
    low = int(math.floor(samples[0] + across[0])) - TAPS
    high = int(math.ceil(samples[1] + across[1])) + TAPS
    first = (low // _SEGMENT) * _SEGMENT
    columns = ((high - first) // _SEGMENT + 1) * _SEGMENT
    slots = 16
    while slots < along[1] - along[0] + 2 * TAPS:
        slots *= 2
    terms = np.empty((3, columns))
    for i in range(columns):
        a, b, c = carrier_terms(plan.carrier, np.float64(first + i))
        terms[0, i] = a
        terms[1, i] = b
        terms[2, i] = c
    size = samples[1] - samples[0]
    return _Block(
        first,
        np.zeros((slots, 2 * columns), dtype=np.float32),
        np.zeros(2 * columns, dtype=np.float32),
        terms,
        np.zeros(columns // _SEGMENT, dtype=np.bool_),
        np.empty(size, dtype=np.float32),
        np.empty((2, size)),
        np.empty((2, 2 * size), dtype=np.float32),
    )


@njit
def _resample_block(
    source: SourceWindow,
    plan: ResamplePlan,
    slopes: NDArray[np.float32],
    height: NDArray[np.float32],
    area: tuple[int, int, int, int],
    reach: tuple[int, int],
    heights: tuple[float, float],
    out: NDArray[np.float32],
) -> None:
    """Resample all lines of one block of columns.

    ``area`` is the first line, the first and stop sample of the block and the first sample of
    ``height``.
    """
    first_line, start, stop, height_sample = area
    lines = (first_line, first_line + out.shape[0])
    along = _bounds(plan.azimuth, lines, (start, stop), heights)
    across = _bounds(plan.range, lines, (start, stop), heights)
    along = (along[0] + plan.azimuth_shift_lines, along[1] + plan.azimuth_shift_lines)
    across = (across[0] + plan.range_shift_samples, across[1] + plan.range_shift_samples)
    block = _make_block(plan, (start, stop), across, along)
    row_limits = (
        max(source.valid[0], source.first_line),
        min(source.valid[1], source.first_line + source.pixels.shape[0]),
        reach[0],
    )
    column_limits = (
        max(source.valid[2], source.first_sample),
        min(source.valid[3], source.first_sample + source.pixels.shape[1] // 2),
        reach[1],
    )
    azimuth_rows = np.empty((plan.azimuth.powers.shape[0], plan.azimuth.powers.shape[2]))
    range_rows = np.empty((plan.range.powers.shape[0], plan.range.powers.shape[2]))
    collapse_line(plan.range, plan.range.domain[0, 0], range_rows)
    typical = offset_at(plan.range, range_rows, plan.range.domain[1, 0], plan.range.domain[2, 0])
    lead = (int(math.floor(typical + plan.range_shift_samples + 0.5)), height_sample)
    row = int(math.floor(first_line + along[0])) - _BEFORE
    level = np.float32(plan.range.domain[2, 0])
    for i in range(out.shape[0]):
        line = first_line + i
        while row <= math.floor(line + along[1]) + _AFTER:
            _load_row(source, plan, block, row)
            row += 1
        collapse_line(plan.azimuth, np.float64(line), azimuth_rows)
        collapse_line(plan.range, np.float64(line), range_rows)
        _azimuth_line(plan, block, azimuth_rows, line, lead, row_limits, height[i])
        known = height[i, start - height_sample : stop - height_sample]
        for j in range(np.uint64(known.size)):
            block.height[j] = known[j] if known[j] == known[j] else level
        offset_row(
            plan.azimuth, azimuth_rows, np.float64(start), block.height, block.offsets[0]
        )
        offset_row(plan.range, range_rows, np.float64(start), block.height, block.offsets[1])
        _range_line(
            plan, slopes, block, (line, start, stop - start), column_limits, known, out[i]
        )


def _reach(taps: NDArray[np.float32]) -> int:
    """Return half the number of taps in a padded table: 4, 6 or 8."""
    used = np.flatnonzero(np.any(taps != 0.0, axis=0))
    return max(_AFTER - int(used[0]), int(used[-1]) - _BEFORE)


def resample_burst_tile(
    source: SourceWindow,
    plan: ResamplePlan,
    height_m: NDArray[np.float32],
    origin: tuple[int, int],
    shape: tuple[int, int],
    height_first_sample: int | None = None,
) -> NDArray[np.complex64]:
    """Resample a tile of a burst onto the reference geometry.

    Parameters
    ----------
    source : SourceWindow
        Pixels of the source burst that cover the tile (see ``source_window``).
    plan : ResamplePlan
        From ``plan_resampling``.
    height_m : ndarray (lines, columns), float32, m
        Ellipsoidal heights of the tile's lines; NaN where unknown. The columns may exceed the tile
        by up to ``HALO_SAMPLES`` on either side.
    origin, shape : tuple of 2 int
        First line and sample of the tile in the reference burst, and its size.
    height_first_sample : int, optional
        Burst sample of the first column of ``height_m``; by default that of the tile.

    Returns
    -------
    ndarray (lines, samples), complex64
        Coregistered, flattened samples with their carrier, in digital numbers; zero where a tap
        leaves the valid rectangle of the source (or its window), or the height is unknown.

    Raises
    ------
    ValueError
        If shapes disagree.

    Notes
    -----
    ``out = exp(+2 pi j (carrier(y, x) + 2 (R_date - R_reference) / lambda)) *
    sum taps(y, x) source exp(-2 pi j carrier)`` at the source position
    ``y = line + azimuth offset + azimuth shift``, ``x = sample + range offset + range shift``.

    Tiles give identical bytes whatever the tiling, if their edges are multiples of 32 samples (or
    the edge of the burst) and the heights include the halo.
    """
    first_column = origin[1] if height_first_sample is None else height_first_sample
    if height_m.shape[0] != shape[0]:
        raise ValueError(f"height_m must have {shape[0]} lines, got {height_m.shape[0]}")
    if first_column > origin[1] or first_column + height_m.shape[1] < origin[1] + shape[1]:
        raise ValueError("height_m must cover the samples of the tile")
    if source.pixels.ndim != 3 or source.pixels.shape[2] != 2:
        raise ValueError(f"source pixels must be (lines, samples, 2), got {source.pixels.shape}")
    out = np.zeros(shape, dtype=np.complex64)
    known = height_m[np.isfinite(height_m)]
    if known.size == 0 or source.pixels.size == 0:
        return out
    heights = np.ascontiguousarray(height_m, dtype=np.float32)
    extremes = (float(known.min()), float(known.max()))
    slopes = np.gradient(plan.range_taps, axis=0).astype(np.float32) * np.float32(FRACTIONS)
    reach = (_reach(plan.azimuth_taps), _reach(plan.range_taps))
    # Two dimensions only: with a third, of unknown length 2, the compiled loops stay scalar.
    pixels = np.ascontiguousarray(source.pixels).reshape(source.pixels.shape[0], -1)
    window = SourceWindow(pixels, *source[1:])
    view = out.view(np.float32)
    start = origin[1]
    while start < origin[1] + shape[1]:
        stop = min(start + _BLOCK - start % _BLOCK, origin[1] + shape[1])
        columns = slice(2 * (start - origin[1]), 2 * (stop - origin[1]))
        area = (origin[0], start, stop, first_column)
        _resample_block(window, plan, slopes, heights, area, reach, extremes, view[:, columns])
        start = stop
    return out


@njit
def _resample_exact(
    source: SourceWindow,
    plan: ResamplePlan,
    positions: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    reach: tuple[int, int],
    out: NDArray[np.complex128],
) -> None:
    """Sum all products of taps for every position (source line, source sample, flattening)."""
    lines, samples, flattening = positions
    top, bottom, left, right = source.valid
    for i in range(out.size):
        row, column = int(math.floor(lines[i])), int(math.floor(samples[i]))
        p = int((lines[i] - row) * FRACTIONS + 0.5)
        q = int((samples[i] - column) * FRACTIONS + 0.5)
        out[i] = 0.0
        if row - reach[0] + 1 < top or row + reach[0] >= bottom:
            continue
        if column - reach[1] + 1 < left or column + reach[1] >= right:
            continue
        total = 0.0j
        for k in range(TAPS):
            for m in range(TAPS):
                weight = plan.azimuth_taps[p, k] * plan.range_taps[q, m]
                if weight != 0.0:
                    y, x = row - _BEFORE + k, column - _BEFORE + m
                    a, b, c = carrier_terms(plan.carrier, np.float64(x))
                    eta = (y - plan.carrier.middle_line) * plan.carrier.line_interval_s
                    angle = -2.0 * math.pi * (a + eta * (b + eta * c))
                    pixel = source.pixels[y - source.first_line, x - source.first_sample]
                    value = complex(pixel[0], pixel[1])
                    total += weight * value * complex(math.cos(angle), math.sin(angle))
        a, b, c = carrier_terms(plan.carrier, samples[i])
        eta = (lines[i] - plan.carrier.middle_line) * plan.carrier.line_interval_s
        angle = 2.0 * math.pi * (a + eta * (b + eta * c) + flattening[i])
        out[i] = total * complex(math.cos(angle), math.sin(angle))


def resample_burst_exact(
    source: SourceWindow,
    plan: ResamplePlan,
    offsets: tuple[OffsetPolynomial, OffsetPolynomial],
    height_m: NDArray[np.float32],
    origin: tuple[int, int],
) -> NDArray[np.complex128]:
    """Resample a tile pixel by pixel in two dimensions: slow, for tests.

    Parameters are those of ``resample_burst_tile``; ``offsets`` are the polynomials from which the
    plan was made, ``height_m`` covers exactly the tile. The window must hold all taps of pixels
    within the valid rectangle.

    Returns
    -------
    ndarray (lines, samples), complex128
        What ``resample_burst_tile`` approximates.
    """
    line = origin[0] + np.arange(height_m.shape[0], dtype=np.float64)[:, np.newaxis]
    sample = origin[1] + np.arange(height_m.shape[1], dtype=np.float64)[np.newaxis, :]
    azimuth = evaluate_points(offsets[0], line, sample, height_m)
    across = evaluate_points(offsets[1], line, sample, height_m)
    positions = (
        (line + azimuth + plan.azimuth_shift_lines).ravel(),
        (sample + across + plan.range_shift_samples).ravel(),
        (plan.flattening[0] + plan.flattening[1] * sample + plan.flattening[2] * across).ravel(),
    )
    out = np.empty(height_m.shape, dtype=np.complex128)
    reach = (_reach(plan.azimuth_taps), _reach(plan.range_taps))
    _resample_exact(source, plan, positions, reach, out.reshape(-1))
    return out


def source_window(
    plan: ResamplePlan,
    origin: tuple[int, int],
    shape: tuple[int, int],
    height_range: tuple[float, float],
    source_shape: tuple[int, int],
) -> tuple[slice, slice]:
    """Return the source lines and samples that a tile needs, taps included.

    Parameters
    ----------
    plan : ResamplePlan
        From ``plan_resampling``.
    origin, shape : tuple of 2 int
        First line and sample of the tile in the reference burst, and its size.
    height_range : tuple of 2 float, m
        Lowest and highest height of the tile.
    source_shape : tuple of 2 int
        Lines and samples of the source burst.

    Returns
    -------
    tuple of 2 slice
        Lines and samples within the source burst; empty slices where the tile does not meet it.
    """
    lines, samples = ((start, start + size) for start, size in zip(origin, shape, strict=True))
    found = []
    for offsets, shift, span, size in (
        (plan.azimuth, plan.azimuth_shift_lines, lines, source_shape[0]),
        (plan.range, plan.range_shift_samples, samples, source_shape[1]),
    ):
        low, high = _bounds(offsets, lines, samples, height_range)
        start = math.floor(span[0] + low + shift) - TAPS
        stop = math.ceil(span[1] + high + shift) + TAPS
        found.append(slice(min(max(start, 0), size), min(max(stop, 0), size)))
    return found[0], found[1]
