"""The compiled loops of resampling: one block of columns, line by line.

See ``resample`` for the method and ``resample_rows`` for the innermost loops. Everything happens
in segments of 32 samples at fixed places of the burst, so that a pixel's bytes do not depend on
its place in a block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.offset_powers import SAMPLE_POWERS, collapse_line, offset_at
from bperp.kernels.resample_rows import (
    HALF,
    SEGMENT,
    STRIDE,
    UNDONE,
    mix_line,
    mix_pixel,
)
from bperp.kernels.resample_source import (
    ResamplePlan,
    SourceRows,
    SourceWindow,
    azimuth_line,
    load_row,
    make_source,
    offset_bounds,
)
from bperp.kernels.segment_series import SERIES, collapse_carrier, expand_line, frame_of, is_large
from bperp.kernels.taps import FRACTIONS, TAPS

__all__ = ["ResamplePlan", "SourceWindow", "offset_bounds", "resample_block"]

BEFORE = TAPS // 2 - 1
AFTER = TAPS // 2
_FARTHEST = 1e9
BLOCK = 2048
"""Samples of a block, 64 segments at most: its source rows stay in the second-level cache."""


class _Target(NamedTuple):
    """Buffers of a block on the side of the output, in whole segments from ``first_sample``.

    ``height`` and ``missing`` are those of all pixels, ``level`` the reference heights of the
    segments and ``holes`` whether one of their heights is unknown. ``middle`` is the range offset
    of the segments' middles, ``series`` what ``expand_line`` returns, ``shifts`` (2, pixels) range
    offset relative to ``middle`` and phase, ``bases`` what ``mix_line`` returns. ``pixels`` are
    the finished ones, interleaved.
    """

    first_sample: int
    height: NDArray[np.float32]
    missing: NDArray[np.bool_]
    level: NDArray[np.float32]
    holes: NDArray[np.bool_]
    middle: NDArray[np.float64]
    series: NDArray[np.float32]
    shifts: NDArray[np.float32]
    bases: NDArray[np.int64]
    pixels: NDArray[np.float32]


@njit
def _take_heights(
    target: _Target, height: NDArray[np.float32], place: tuple[int, int], unknown: np.float32
) -> bool:
    """Copy a line of heights, repeat its ends, and fill unknown ones; say whether there are any.

    ``place`` is the line, and the sample of the target's first pixel within it.
    """
    write, levels, (line, first) = target.height, target.level, place
    size, last = write.size, height.shape[1] - 1
    start, stop = min(max(-first, 0), size), max(min(height.shape[1] - first, size), 0)
    for i in range(start):
        write[i] = height[line, 0]
    for i in range(stop, size):
        write[i] = height[line, last]
    known = not (math.isnan(height[line, 0]) or math.isnan(height[line, last]))
    row, a, b = np.uint64(line), np.uint64(start), np.uint64(first + start)
    for i in range(np.uint64(max(stop - start, 0))):
        value = height[row, b + i]
        write[a + i] = value
        known &= not math.isnan(value)
    if not known:
        for s in range(levels.size):
            _fill_heights(target, s, unknown)
    for s in range(levels.size):
        levels[s] = write[s * SEGMENT + SEGMENT // 2]
    return not known


@njit
def _fill_heights(target: _Target, segment: int, unknown: np.float32) -> None:
    """Replace the unknown heights of a segment by its first known one."""
    start = segment * SEGMENT
    substitute = unknown
    for i in range(start, start + SEGMENT):
        if not math.isnan(target.height[i]):
            substitute = target.height[i]
            break
    target.holes[segment] = False
    for i in range(start, start + SEGMENT):
        target.missing[i] = math.isnan(target.height[i])
        if target.missing[i]:
            target.height[i] = substitute
            target.holes[segment] = True


@njit
def _clear_pixels(
    source: SourceRows,
    target: _Target,
    span: tuple[int, int],
    base: int,
    limits: tuple[int, int, int],
    holes: bool,
) -> None:
    """Set pixels to zero whose taps leave the valid rectangle or whose height is unknown."""
    first_valid, stop_valid, reach = limits
    last = source.usable.size - 1
    for i in range(span[0], span[1]):
        low = target.first_sample + i + base - reach + 1
        high = low + 2 * reach - 1
        left = min(max((low - source.first_column) // SEGMENT, 0), last)
        right = min(max((high - source.first_column) // SEGMENT, 0), last)
        good = low >= first_valid and high < stop_valid
        good &= source.usable[left] and source.usable[right]
        if not good or (holes and target.missing[i]):
            target.pixels[2 * i] = np.float32(0.0)
            target.pixels[2 * i + 1] = np.float32(0.0)


@njit
def _mix_singly(
    plan: ResamplePlan,
    source: SourceRows,
    target: _Target,
    start: int,
    limits: tuple[int, int, int],
    holes: bool,
) -> None:
    """Interpolate half a segment in range, every pixel with its own taps."""
    centre = target.middle[start // SEGMENT] + plan.range_shift_samples
    for i in range(start, start + HALF):
        shift = centre + target.shifts[0, i]
        if not abs(shift) < _FARTHEST:
            target.pixels[2 * i : 2 * i + 2] = np.float32(0.0)
            continue
        base = math.floor(shift)
        q = int((shift - base) * FRACTIONS + 0.5)
        column = target.first_sample + i + base - BEFORE - source.first_column
        column = min(max(column, 0), source.lines.shape[1] - TAPS)
        mix_pixel(source.lines, column, plan.range_taps, q, target.shifts[1, i], i, target.pixels)
        _clear_pixels(source, target, (i, i + 1), base, limits, holes)


@njit
def _range_line(
    plan: ResamplePlan,
    table: NDArray[np.float32],
    source: SourceRows,
    target: _Target,
    limits: tuple[int, int, int],
    whole: bool,
    holes: bool,
) -> None:
    """Interpolate one line in range and turn its phase; set pixels without data to zero.

    ``limits`` are the valid columns and the reach of the taps; ``whole`` says that all rows are
    valid, ``holes`` that some heights are unknown.
    """
    first_valid, stop_valid, reach = limits
    undone = mix_line(
        (target.height, target.level), (target.middle, target.series, target.shifts),
        (table, reach, plan.range_shift_samples), source.lines,
        target.first_sample - BEFORE - source.first_column, target.bases, target.pixels,
    )  # fmt: skip
    low, high = target.bases.min(), target.bases.max()
    inside = target.first_sample + low - reach + 1 >= first_valid
    inside &= target.first_sample + target.height.size - 1 + high + reach < stop_valid
    if undone == 0 and whole and inside and not holes:
        return
    for half in range(target.bases.size):
        base, start = target.bases[half], half * HALF
        hole = holes and target.holes[start // SEGMENT]
        if base == UNDONE:
            _mix_singly(plan, source, target, start, limits, hole)
            continue
        first = target.first_sample + start + base
        inside = first - reach + 1 >= first_valid and first + HALF - 1 + reach < stop_valid
        if hole or not (whole and inside):
            _clear_pixels(source, target, (start, start + HALF), base, limits, hole)


@njit
def _make_target(start: int, stop: int) -> _Target:
    """Allocate the buffers of the output of a block."""
    first = start - start % SEGMENT
    segments = (stop - first + SEGMENT - 1) // SEGMENT
    size = segments * SEGMENT
    return _Target(
        first,
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.bool_),
        np.empty(segments, dtype=np.float32),
        np.empty(segments, dtype=np.bool_),
        np.empty(segments),
        np.empty(SERIES * STRIDE, dtype=np.float32),
        np.empty((2, size), dtype=np.float32),
        np.empty(size // HALF, dtype=np.int64),
        np.empty(2 * size, dtype=np.float32),
    )


@njit
def _copy_pixels(
    pixels: NDArray[np.float32], first: int, out: NDArray[np.float32], span: tuple[int, int, int]
) -> None:
    """Copy the finished pixels from ``first`` on to a line and span of the output."""
    line, a, b = np.uint64(span[0]), np.uint64(2 * first), np.uint64(2 * span[1])
    for i in range(np.uint64(2 * (span[2] - span[1]))):
        out[line, b + i] = pixels[a + i]


@njit
def resample_block(
    source: SourceWindow,
    plan: ResamplePlan,
    table: NDArray[np.float32],
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
    first = start - start % SEGMENT
    rows_at_once = int(math.ceil(high) - math.floor(low)) + 2 * reach[0] + 2
    target = _make_target(start, stop)
    buffers = make_source(plan, (first, first + target.height.size), (left, right), rows_at_once)
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
    rows = (
        np.empty((plan.azimuth.powers.shape[0], SAMPLE_POWERS)),
        np.empty((plan.range.powers.shape[0], SAMPLE_POWERS)),
        np.zeros((3, SAMPLE_POWERS)),
    )
    collapse_line(plan.range, plan.range.domain[0, 0], rows[1])
    typical = offset_at(plan.range, rows[1], plan.range.domain[1, 0], plan.range.domain[2, 0])
    lead = (math.floor(typical + plan.range_shift_samples + 0.5), height_sample)
    phase = (
        plan.carrier.center_sample, plan.carrier.half_samples, plan.range_shift_samples,
        plan.flattening[0], plan.flattening[1], plan.flattening[2],
    )  # fmt: skip
    frames = (frame_of(plan.azimuth), frame_of(plan.range))
    large = is_large(plan.azimuth) or is_large(plan.range)
    unknown = np.float32(plan.range.domain[2, 0])
    row = math.floor(first_line + low) - reach[0] + 1
    for i in range(out.shape[0]):
        line = first_line + i
        while row <= math.floor(line + high) + reach[0]:
            load_row(source, plan, buffers, row)
            row += 1
        collapse_line(plan.azimuth, np.float64(line), rows[0])
        collapse_line(plan.range, np.float64(line), rows[1])
        collapse_carrier(plan.carrier, line + plan.azimuth_shift_lines, rows[2])
        whole = azimuth_line(plan, buffers, rows[0], (line, i), lead, row_limits, height)
        holes = _take_heights(target, height, (i, first - height_sample), unknown)
        middles = (np.float64(first + SEGMENT // 2), target.level)
        expand_line(rows, frames, phase, middles, large, (target.middle, target.series))
        _range_line(plan, table, buffers, target, column_limits, whole, holes)
        _copy_pixels(target.pixels, start - first, out, (i, start - out_sample, stop - out_sample))
