"""The compiled loops of resampling: one block of columns, line by line.

See ``resample`` for the method. Complex rows are kept as interleaved float32 ``re, im, re, im``:
all hot loops run over contiguous rows, with unsigned indices, and keep their pixels independent of
one another, so that a pixel's bytes do not depend on its place in a block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.carrier import CarrierModel, carrier_terms
from bperp.kernels.offset_powers import OffsetPowers, collapse_line, offset_at, offset_row
from bperp.kernels.orbit import FAST
from bperp.kernels.resample_rows import (
    deramp_row,
    mix_rows,
    mix_samples_8,
    mix_samples_16,
    sine_cosine,
    store_spread,
)
from bperp.kernels.taps import FRACTIONS, TAPS

__all__ = ["ResamplePlan", "SourceWindow", "offset_bounds", "resample_block"]

SEGMENT = 32
_PART = 8
BEFORE = TAPS // 2 - 1
AFTER = TAPS // 2
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


class _Block(NamedTuple):
    """Buffers of one block of columns, for one line of output at a time.

    ``ring`` holds deramped source rows at the slot ``row & (slots - 1)``; its columns begin at
    ``first_column``, a multiple of 32. ``terms`` (3, columns) is the carrier of every column.
    ``line`` is the sum over azimuth, ``usable`` says of each 32 columns whether all its rows are
    valid, ``level`` and ``place`` are their heights and azimuth offsets.
    ``offsets`` (2, block) holds azimuth and range offsets of the output pixels, ``base`` the
    integer part of their source position, ``away`` its distance from where the range taps are
    exact, ``mixed`` (2, 2 block) the sum over range and its derivative with respect to ``away``.
    """

    first_column: int
    ring: NDArray[np.float32]
    terms: NDArray[np.float64]
    line: NDArray[np.float32]
    usable: NDArray[np.bool_]
    level: NDArray[np.float32]
    place: NDArray[np.float64]
    height: NDArray[np.float32]
    offsets: NDArray[np.float64]
    base: NDArray[np.int64]
    away: NDArray[np.float32]
    mixed: NDArray[np.float32]


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
    deramp_row(pixels, first_term, second_term, third_term, eta, target[2 * skip : 2 * stop])


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
    middle = block.first_column + SEGMENT // 2 - lead[0]
    count = block.usable.size
    for segment in range(count):
        sample = middle + segment * SEGMENT - lead[1]
        level = height[min(max(sample, 0), height.size - 1)]
        unknown = math.isnan(level)
        block.level[segment] = np.float32(plan.azimuth.domain[2, 0]) if unknown else level
    offset_row(
        plan.azimuth, rows, np.float64(middle), np.float64(SEGMENT), block.level, block.place
    )
    start = 0
    while start < count:
        position = line + plan.azimuth_shift_lines + block.place[start]
        base = math.floor(position)
        q = int((position - base) * FRACTIONS + 0.5)
        stop = start
        while stop < count:
            # Neighbours with the same taps are summed in one go.
            position = line + plan.azimuth_shift_lines + block.place[stop]
            if math.floor(position) != base:
                break
            if int((position - base) * FRACTIONS + 0.5) != q:
                break
            block.usable[stop] = (base - reach + 1 >= first_valid) and (base + reach < stop_valid)
            stop += 1
        span = (2 * SEGMENT * start, 2 * SEGMENT * stop)
        for k in range(AFTER - reach, AFTER + reach, 4):
            add = k > AFTER - reach
            row = base - BEFORE + k
            mix_rows(block.ring, row, plan.azimuth_taps, (q, k), span, block.line, add)
        start = stop


@njit
def _mix_pixel(plan: ResamplePlan, block: _Block, index: int, first_sample: int) -> None:
    """Interpolate one pixel in range with its own taps."""
    shift = block.offsets[1, index] + plan.range_shift_samples
    base = math.floor(shift)
    q = int((shift - base) * FRACTIONS + 0.5)
    column = first_sample + index + base - BEFORE - block.first_column
    real = imaginary = np.float32(0.0)
    if 0 <= column <= block.terms.shape[1] - TAPS:
        for k in range(TAPS):
            tap = plan.range_taps[q, k]
            real += tap * block.line[2 * (column + k)]
            imaginary += tap * block.line[2 * (column + k) + 1]
    block.mixed[0, 2 * index] = real
    block.mixed[0, 2 * index + 1] = imaginary
    block.mixed[1, 2 * index] = np.float32(0.0)
    block.mixed[1, 2 * index + 1] = np.float32(0.0)
    block.base[index] = base
    block.away[index] = np.float32(0.0)


@njit(forceinline=True)
def _range_segment(
    plan: ResamplePlan,
    slopes: NDArray[np.float32],
    block: _Block,
    first_sample: int,
    reach: int,
    span: tuple[int, int],
) -> bool:
    """Interpolate a segment with taps linear in the offset; refuse if the offsets differ much."""
    start, stop = span
    shift = block.offsets[1, (start + stop) // 2] + plan.range_shift_samples
    base = math.floor(shift)
    q = int((shift - base) * FRACTIONS + 0.5)
    exact = base + q / FRACTIONS - plan.range_shift_samples
    spread = store_spread(block.offsets, exact, span, block.away)
    column = first_sample + start + base - BEFORE - block.first_column
    if spread > _LINEAR or column < 0 or column + stop - start + TAPS > block.terms.shape[1]:
        return False
    for i in range(np.uint64(start), np.uint64(stop)):
        block.base[i] = base
    tables, pixels = (plan.range_taps, slopes), (2 * start, 2 * stop)
    if reach > 4:
        mix_samples_16(block.line, 2 * column, tables, q, pixels, block.mixed)
    else:
        mix_samples_8(block.line, 2 * column, tables, q, pixels, block.mixed)
    return True


@njit
def _range_line(
    plan: ResamplePlan,
    slopes: NDArray[np.float32],
    block: _Block,
    first_sample: int,
    limits: tuple[int, int, int],
) -> bool:
    """Interpolate one line in range, segment by segment; say whether all taps are valid.

    ``limits`` are the valid columns and the reach of the taps. A segment is 32 samples, in rough
    terrain 8, and where that does not do every pixel gets its own taps.
    """
    first_valid, stop_valid, reach = limits
    size = block.away.size
    clean = True
    start = 0
    while start < size:
        stop = min(size, start + SEGMENT - (first_sample + start) % SEGMENT)
        first = start
        if not _range_segment(plan, slopes, block, first_sample, reach, (start, stop)):
            clean = False
            while start < stop:
                part = min(stop, start + _PART - (first_sample + start) % _PART)
                if not _range_segment(plan, slopes, block, first_sample, reach, (start, part)):
                    for i in range(start, part):
                        _mix_pixel(plan, block, i, first_sample)
                start = part
        low = first_sample + first + block.base[first] - reach
        high = first_sample + stop + block.base[stop - 1] + reach
        clean &= low >= first_valid and high < stop_valid
        start = stop
    return clean


@njit(fastmath=FAST)
def _finish_line(
    plan: ResamplePlan,
    block: _Block,
    line: int,
    first_sample: int,
    out: NDArray[np.float32],
) -> None:
    """Apply the slopes, put the carrier back and flatten."""
    value, slope, away = block.mixed[0], block.mixed[1], block.away
    azimuth, across = block.offsets[0], block.offsets[1]
    carrier = plan.carrier
    position = line + plan.azimuth_shift_lines - carrier.middle_line
    constant, ramp, scale = plan.flattening[0], plan.flattening[1], plan.flattening[2]
    for i in range(np.uint64(away.size)):
        sample = np.float64(first_sample) + np.float64(i)
        a, b, c = carrier_terms(carrier, sample + across[i] + plan.range_shift_samples)
        eta = (position + azimuth[i]) * carrier.line_interval_s
        turns = a + eta * (b + eta * c)
        turns += constant + ramp * sample + scale * across[i]
        sine, cosine = sine_cosine(turns)
        real = value[2 * i] + away[i] * slope[2 * i]
        imaginary = value[2 * i + 1] + away[i] * slope[2 * i + 1]
        out[2 * i] = real * cosine - imaginary * sine
        out[2 * i + 1] = real * sine + imaginary * cosine


@njit
def _clear_line(
    block: _Block,
    first_sample: int,
    limits: tuple[int, int, int],
    height: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Set pixels to zero whose taps leave the valid rectangle or whose height is unknown."""
    first_valid, stop_valid, reach = limits
    last = block.usable.size - 1
    for i in range(height.size):
        base = first_sample + i + block.base[i]
        low, high = base - reach + 1, base + reach
        good = low >= first_valid and high < stop_valid and not math.isnan(height[i])
        left = min(max((low - block.first_column) // SEGMENT, 0), last)
        right = min(max((high - block.first_column) // SEGMENT, 0), last)
        if not (good and block.usable[left] and block.usable[right]):
            out[2 * i] = np.float32(0.0)
            out[2 * i + 1] = np.float32(0.0)


@njit
def offset_bounds(
    offsets: OffsetPowers,
    lines: tuple[int, int],
    samples: tuple[int, int],
    heights: tuple[float, float],
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
    low = math.floor(samples[0] + across[0]) - TAPS
    high = math.ceil(samples[1] + across[1]) + TAPS
    first = (low // SEGMENT) * SEGMENT
    columns = ((high - first) // SEGMENT + 1) * SEGMENT
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
    segments = columns // SEGMENT
    return _Block(
        first,
        np.zeros((slots, 2 * columns), dtype=np.float32),
        terms,
        np.zeros(2 * columns, dtype=np.float32),
        np.zeros(segments, dtype=np.bool_),
        np.empty(segments, dtype=np.float32),
        np.empty(segments),
        np.empty(size, dtype=np.float32),
        np.empty((2, size)),
        np.empty(size, dtype=np.int64),
        np.empty(size, dtype=np.float32),
        np.empty((2, 2 * size), dtype=np.float32),
    )


@njit
def resample_block(
    source: SourceWindow,
    plan: ResamplePlan,
    slopes: NDArray[np.float32],
    height: NDArray[np.float32],
    area: tuple[int, int, int, int, int],
    reach: tuple[int, int],
    heights: tuple[float, float],
    out: NDArray[np.float32],
) -> None:
    """Resample all lines of one block of columns.

    ``area`` is the first line, the first and stop sample of the block, the first sample of
    ``height`` and that of ``out``.
    """
    first_line, start, stop, height_sample, out_sample = area
    lines = (first_line, first_line + out.shape[0])
    low, high = offset_bounds(plan.azimuth, lines, (start, stop), heights)
    low, high = low + plan.azimuth_shift_lines, high + plan.azimuth_shift_lines
    left, right = offset_bounds(plan.range, lines, (start, stop), heights)
    left, right = left + plan.range_shift_samples, right + plan.range_shift_samples
    block = _make_block(plan, (start, stop), (left, right), (low, high))
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
    lead = (math.floor(typical + plan.range_shift_samples + 0.5), height_sample)
    row = math.floor(first_line + low) - BEFORE
    level = np.float32(plan.range.domain[2, 0])
    for i in range(out.shape[0]):
        line = first_line + i
        while row <= math.floor(line + high) + AFTER:
            _load_row(source, plan, block, row)
            row += 1
        collapse_line(plan.azimuth, np.float64(line), azimuth_rows)
        collapse_line(plan.range, np.float64(line), range_rows)
        _azimuth_line(plan, block, azimuth_rows, line, lead, row_limits, height[i])
        known = height[i, start - height_sample : stop - height_sample]
        whole = True
        for j in range(np.uint64(known.size)):
            fine = known[j] == known[j]
            block.height[j] = known[j] if fine else level
            whole &= fine
        across, along = block.offsets[1], block.offsets[0]
        offset_row(plan.azimuth, azimuth_rows, np.float64(start), 1.0, block.height, along)
        offset_row(plan.range, range_rows, np.float64(start), 1.0, block.height, across)
        clean = _range_line(plan, slopes, block, start, column_limits)
        # A contiguous row: with ``out`` sliced before, the stride would be unknown, and slow.
        pixels = out[i, 2 * (start - out_sample) : 2 * (stop - out_sample)]
        _finish_line(plan, block, line, start, pixels)
        if not (whole and clean and block.usable.all()):
            _clear_line(block, start, column_limits, known, pixels)
