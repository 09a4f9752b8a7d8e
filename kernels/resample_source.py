"""The side of the source in resampling: deramped rows and their sum over azimuth, per line.

See ``resample`` for the method and ``resample_rows`` for the innermost loops.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.carrier import CarrierModel
from bperp.kernels.offset_powers import OffsetPowers, collapse_line, offset_at, offset_row
from bperp.kernels.resample_rows import SEGMENT, deramp_row, mix_span
from bperp.kernels.segment_series import tabulate_carrier
from bperp.kernels.taps import FRACTIONS, TAPS

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


class SourceRows(NamedTuple):
    """Buffers of a block on the side of the source; columns begin at a multiple of 32.

    ``ring`` holds deramped rows (zeros at first: shorter sets of taps are padded with zeros, which
    must not meet NaN), the real part of ``row`` at ``2 * row`` modulo its size and the imaginary
    part behind it; ``numbers`` is one row before that, ``carrier`` and ``phase`` belong to
    ``deramp_row``. ``lines`` (2, columns) is the sum over azimuth of the running line, of which
    every segment has a height, an azimuth offset, and a mark whether all its rows are valid.
    """

    first_column: int
    ring: NDArray[np.float32]
    numbers: NDArray[np.int16]
    carrier: NDArray[np.float64]
    phase: NDArray[np.float32]
    lines: NDArray[np.float32]
    level: NDArray[np.float32]
    place: NDArray[np.float64]
    usable: NDArray[np.bool_]


@njit
def load_row(source: SourceWindow, plan: ResamplePlan, block: SourceRows, row: int) -> None:
    """Put a deramped source row into the ring; zeros outside the window."""
    slot = (2 * row) & (block.ring.shape[0] - 1)
    line = row - source.first_line
    if line < 0 or line >= source.pixels.shape[0]:
        block.ring[slot : slot + 2] = np.float32(0.0)
        return
    skip = max(source.first_sample - block.first_column, 0)
    first = max(block.first_column - source.first_sample, 0)
    count = min(source.pixels.shape[1] // 2 - first, block.numbers.size // 2 - skip)
    read, write = source.pixels[line], block.numbers
    a, b = np.uint64(2 * first), np.uint64(2 * skip)
    for i in range(np.uint64(2 * max(count, 0))):
        write[b + i] = read[a + i]
    eta = (row - plan.carrier.middle_line) * plan.carrier.line_interval_s
    deramp_row(block.numbers, block.carrier, eta, block.phase, block.ring, slot)


@njit
def azimuth_line(
    plan: ResamplePlan,
    block: SourceRows,
    rows: NDArray[np.float64],
    place: tuple[int, int],
    lead: tuple[int, int],
    limits: tuple[int, int, int],
    height: NDArray[np.float32],
) -> bool:
    """Interpolate one output line in azimuth, at source columns; say whether all rows are valid.

    ``place`` is the line of the burst and that of ``height``, ``lead`` the constant part of the
    range offset and the first sample of ``height``, ``limits`` the valid rows and the reach of the
    taps.
    """
    first_valid, stop_valid, reach = limits
    middle = block.first_column + SEGMENT // 2 - lead[0]
    (line, index), levels, offsets, usable = place, block.level, block.place, block.usable
    # Taken out of the tuples once: every access counts references, which is slow.
    ring, lines, table = block.ring, block.lines, plan.azimuth_taps
    last, unknown = height.shape[1] - 1, np.float32(plan.azimuth.domain[2, 0])
    for segment in range(levels.size):
        sample = middle + segment * SEGMENT - lead[1]
        level = height[index, min(max(sample, 0), last)]
        levels[segment] = unknown if math.isnan(level) else level
    offset_row(plan.azimuth, rows, np.float64(middle), np.float64(SEGMENT), levels, offsets)
    nominal = line + plan.azimuth_shift_lines
    whole = True
    start = 0
    while start < offsets.size:
        base = math.floor(nominal + offsets[start])
        q = int((nominal + offsets[start] - base) * FRACTIONS + 0.5)
        good = (base - reach + 1 >= first_valid) and (base + reach < stop_valid)
        whole &= good
        usable[start] = good
        stop = start + 1
        while stop < offsets.size:
            # Neighbours with the same taps are summed in one go.
            fraction = nominal + offsets[stop] - base
            if not 0.0 <= fraction < 1.0 or int(fraction * FRACTIONS + 0.5) != q:
                break
            usable[stop] = good
            stop += 1
        mix_span(ring, base, (table, q, reach), (start, stop), lines)
        start = stop
    return whole


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
def make_source(
    plan: ResamplePlan,
    samples: tuple[int, int],
    across: tuple[float, float],
    rows: int,
) -> SourceRows:
    """Allocate the buffers of the source and tabulate the carrier of its columns."""
    low = math.floor(samples[0] + across[0]) - TAPS
    high = math.ceil(samples[1] + across[1]) + TAPS
    first = (low // SEGMENT) * SEGMENT
    segments = (high - first) // SEGMENT + 1
    columns = segments * SEGMENT
    slots = 16
    while slots < rows:
        slots *= 2
    carrier = np.empty((9, segments))
    tabulate_carrier(plan.carrier, first, carrier)
    return SourceRows(
        first,
        np.zeros((2 * slots, columns), dtype=np.float32),
        np.zeros(2 * columns, dtype=np.int16),
        carrier,
        np.empty((3, segments), dtype=np.float32),
        np.empty((2, columns), dtype=np.float32),
        np.empty(segments, dtype=np.float32),
        np.empty(segments),
        np.empty(segments, dtype=np.bool_),
    )
