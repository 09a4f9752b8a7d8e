"""Row operations of resampling: the innermost loops, each over contiguous memory.

A complex row is kept as two rows of float32, real and imaginary part: no loop moves lanes about
except those that read the source and write the result. The loops run over segments of 32 samples,
or halves, at fixed places of the burst: the compiler knows their length, there are no remainders,
and the bytes of a pixel do not depend on its place in a tile. A half is one vector: nothing is
hoisted out of its loop, so that the taps are broadcast from memory instead of being spilled
(measured twice as fast as loops of 32). Indices are unsigned, slices are avoided (a slice costs
two atomic operations on a reference count), and nothing is reassociated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.orbit import FAST
from bperp.kernels.taps import FRACTIONS, TAPS

SEGMENT = 32
"""Samples over which phases and offsets are series, and azimuth taps constant."""
HALF = 16
"""Samples over which range taps are linear in the offset."""
STRIDE = 64
"""Distance of the terms of the series of a line: fixed, without which no loop is vectorised."""

# Extremes are sought among whole steps, as the compiler does not vectorise those of floats.
_STEPS = np.float32(2**18)
_MOST = np.int32(2**31 - 1)
UNDONE = -(2**62)
"""Mark of half segments that ``mix_line`` leaves to ``mix_pixel``."""
# Over half a segment the range taps are linear in the offset; their curvature (below 4 per square
# sample) then costs less than 5e-4 of the amplitude.
_SPREAD = np.float32(2.0 / 64.0)
# Positions in a segment, counted from its middle pixel.
_PLACES = np.arange(SEGMENT, dtype=np.float32) - np.float32(SEGMENT // 2)


@njit(fastmath=FAST, forceinline=True)
def sine_cosine(turns: np.float32) -> tuple[np.float32, np.float32]:
    """Return sine and cosine of a phase in turns to 6e-7, and the rounding of ``turns``.

    Least-squares polynomials in t**2 over half a turn on either side.
    """
    t = turns - np.floor(turns + np.float32(0.5))
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
def deramp_row(
    numbers: NDArray[np.int16],
    carrier: NDArray[np.float64],
    eta: float,
    phase: NDArray[np.float32],
    ring: NDArray[np.float32],
    slot: int,
) -> None:
    """Convert interleaved source samples to rows ``slot`` (real) and ``slot + 1`` of the ring.

    ``carrier`` (9, segments) holds value, slope and half the curvature of the carrier's three
    terms in the middle of every segment; ``phase`` (3, segments) is memory for their sums.
    """
    for s in range(np.uint64(carrier.shape[1])):
        for k in range(np.uint64(3)):
            a, b, c = carrier[k, s], carrier[k + np.uint64(3), s], carrier[k + np.uint64(6), s]
            turns = a + eta * (b + eta * c)
            # The phase is wrapped in float64; its change over a segment is a small number.
            phase[k, s] = np.float32(turns - np.floor(turns + 0.5) if k == 0 else turns)
    real, imaginary = np.uint64(slot), np.uint64(slot + 1)
    for s in range(np.uint64(carrier.shape[1])):
        anchor, slope, bend = phase[np.uint64(0), s], phase[np.uint64(1), s], phase[np.uint64(2), s]
        start = s * np.uint64(SEGMENT)
        for i in range(np.uint64(SEGMENT)):
            x, n = _PLACES[i], start + i
            sine, cosine = sine_cosine(anchor + x * (slope + x * bend))
            first = np.float32(numbers[np.uint64(2) * n])
            second = np.float32(numbers[np.uint64(2) * n + np.uint64(1)])
            ring[real, n] = first * cosine + second * sine
            ring[imaginary, n] = second * cosine - first * sine


@njit(fastmath=FAST, forceinline=True)
def _mix_rows(
    ring: NDArray[np.float32],
    slot: int,
    taps: tuple[NDArray[np.float32], int, int],
    span: tuple[int, int],
    target: tuple[NDArray[np.float32], int],
    add: bool,
) -> None:
    """Sum every other of 16 rows of the ring from ``slot`` on, into a row of the target.

    ``taps`` are the table, its row and its first column.
    """
    table, q, k = taps
    t0, t1, t2, t3 = table[q, k], table[q, k + 1], table[q, k + 2], table[q, k + 3]
    t4, t5, t6, t7 = table[q, k + 4], table[q, k + 5], table[q, k + 6], table[q, k + 7]
    mask, out, row = ring.shape[0] - 1, target[0], np.uint64(target[1])
    r0, r1 = np.uint64(slot & mask), np.uint64((slot + 2) & mask)
    r2, r3 = np.uint64((slot + 4) & mask), np.uint64((slot + 6) & mask)
    r4, r5 = np.uint64((slot + 8) & mask), np.uint64((slot + 10) & mask)
    r6, r7 = np.uint64((slot + 12) & mask), np.uint64((slot + 14) & mask)
    for i in range(np.uint64(SEGMENT * span[0]), np.uint64(SEGMENT * span[1])):
        value = t0 * ring[r0, i] + t1 * ring[r1, i]
        value = value + t2 * ring[r2, i] + t3 * ring[r3, i]
        other = t4 * ring[r4, i] + t5 * ring[r5, i]
        other = other + t6 * ring[r6, i] + t7 * ring[r7, i]
        value += other
        if add:
            value += out[row, i]
        out[row, i] = value


@njit
def mix_span(
    ring: NDArray[np.float32],
    base: int,
    taps: tuple[NDArray[np.float32], int, int],
    span: tuple[int, int],
    out: NDArray[np.float32],
) -> None:
    """Interpolate a span of segments in azimuth, at the source row ``base`` and a fraction.

    ``taps`` are the table, its row for the fraction and its reach; real and imaginary parts of the
    source rows take turns in the ring.
    """
    table, q, reach = taps
    for part in range(2):
        if reach > 4:
            slot = 2 * (base - TAPS // 2 + 1) + part
            _mix_rows(ring, slot, (table, q, 0), span, (out, part), False)
            _mix_rows(ring, slot + TAPS, (table, q, TAPS // 2), span, (out, part), True)
        else:
            slot = 2 * (base - TAPS // 4 + 1) + part
            _mix_rows(ring, slot, (table, q, TAPS // 4), span, (out, part), False)


@njit(forceinline=True)
def term(k: int, segment: int | np.uint64) -> np.uint64:
    """Return the place of a term of a segment's series."""
    return np.uint64(k * STRIDE) + np.uint64(segment)


@njit(fastmath=FAST, forceinline=True)
def expand_segment(
    series: NDArray[np.float32],
    segment: int,
    heights: tuple[NDArray[np.float32], NDArray[np.float32]],
    shifts: NDArray[np.float32],
) -> tuple[np.float32, np.float32]:
    """Evaluate range offset and phase of the pixels of a segment from their series.

    ``heights`` are those of all pixels and of the segments' references (none is NaN); row 0 of
    ``shifts`` gets offsets relative to the segment's own, row 1 phases in turns. Returns the least
    and the greatest offset.
    """
    s = np.uint64(segment)
    start = s * np.uint64(SEGMENT)
    level = heights[1][s]
    r01, r02, r10 = series[s], series[term(1, s)], series[term(2, s)]
    r11, r20, r30 = series[term(3, s)], series[term(4, s)], series[term(5, s)]
    t00, t01, t02 = series[term(6, s)], series[term(7, s)], series[term(8, s)]
    t10, t11, t12 = series[term(9, s)], series[term(10, s)], series[term(11, s)]
    t20, t21, t30 = series[term(12, s)], series[term(13, s)], series[term(14, s)]
    low, high = _MOST, -_MOST
    for i in range(np.uint64(SEGMENT)):
        n, x = start + i, _PLACES[i]
        d = heights[0][n] - level
        shift = x * (r01 + x * r02) + d * (r10 + x * r11 + d * (r20 + d * r30))
        steps = np.int32(shift * _STEPS)
        low, high = np.int32(min(low, steps)), np.int32(max(high, steps))
        shifts[np.uint64(0), n] = shift
        first = t10 + x * (t11 + x * t12)
        turns = x * (t01 + x * t02) + d * (first + d * (t20 + x * t21 + d * t30))
        shifts[np.uint64(1), n] = t00 + turns
    return np.float32(low) / _STEPS, np.float32(high) / _STEPS


@njit(fastmath=FAST)
def extremes(shifts: NDArray[np.float32], start: int) -> tuple[np.float32, np.float32]:
    """Return the least and the greatest offset of half a segment."""
    low, high = _MOST, -_MOST
    for i in range(np.uint64(HALF)):
        steps = np.int32(shifts[np.uint64(0), np.uint64(start) + i] * _STEPS)
        low, high = np.int32(min(low, steps)), np.int32(max(high, steps))
    return np.float32(low) / _STEPS, np.float32(high) / _STEPS


@njit(fastmath=FAST, forceinline=True)
def _sum8(
    rows: NDArray[np.float32],
    row: int,
    place: np.uint64,
    taps: tuple[NDArray[np.float32], np.int64, int],
) -> np.float32:
    """Return the sum of eight successive samples times taps of a table, at its row and column.

    The taps are loaded here, within the loop over pixels, though they do not depend on it: loaded
    before, they would occupy the vector units with broadcasts from registers.
    """
    p, n, table = np.uint64(row), place, taps[0]
    q, k = np.uint64(taps[1]), np.uint64(taps[2])
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    five, six, seven = np.uint64(5), np.uint64(6), np.uint64(7)
    total: np.float32 = table[q, k] * rows[p, n] + table[q, k + one] * rows[p, n + one]
    total = total + table[q, k + two] * rows[p, n + two]
    total = total + table[q, k + three] * rows[p, n + three]
    total = total + table[q, k + four] * rows[p, n + four]
    total = total + table[q, k + five] * rows[p, n + five]
    total = total + table[q, k + six] * rows[p, n + six]
    total += table[q, k + seven] * rows[p, n + seven]
    return total


@njit(fastmath=FAST, forceinline=True)
def mix_samples_16(
    lines: NDArray[np.float32],
    column: np.int64,
    table: NDArray[np.float32],
    taps: tuple[np.int64, np.float32],
    shifts: NDArray[np.float32],
    start: int,
    out: NDArray[np.float32],
) -> None:
    """Interpolate half a segment with 16 taps that are linear in the offset, and turn its phase.

    ``table`` holds taps and, 16 columns on, their slopes; ``taps`` is its row and the offset at
    which that is exact.
    """
    q, exact = taps
    source, target, eight = np.uint64(column), np.uint64(start), np.uint64(8)
    for i in range(np.uint64(HALF)):
        n, m = source + i, target + i
        away = shifts[np.uint64(0), m] - exact
        real = _sum8(lines, 0, n, (table, q, 0)) + _sum8(lines, 0, n + eight, (table, q, 8))
        slope = _sum8(lines, 0, n, (table, q, 16)) + _sum8(lines, 0, n + eight, (table, q, 24))
        real += away * slope
        imaginary = _sum8(lines, 1, n, (table, q, 0)) + _sum8(lines, 1, n + eight, (table, q, 8))
        slope = _sum8(lines, 1, n, (table, q, 16)) + _sum8(lines, 1, n + eight, (table, q, 24))
        imaginary += away * slope
        sine, cosine = sine_cosine(shifts[np.uint64(1), m])
        out[np.uint64(2) * m] = real * cosine - imaginary * sine
        out[np.uint64(2) * m + np.uint64(1)] = real * sine + imaginary * cosine


@njit(fastmath=FAST, forceinline=True)
def mix_samples_8(
    lines: NDArray[np.float32],
    column: np.int64,
    table: NDArray[np.float32],
    taps: tuple[np.int64, np.float32],
    shifts: NDArray[np.float32],
    start: int,
    out: NDArray[np.float32],
) -> None:
    """Do the same with the 8 middle taps."""
    q, exact = taps
    source, target = np.uint64(column + 4), np.uint64(start)
    for i in range(np.uint64(HALF)):
        n, m = source + i, target + i
        away = shifts[np.uint64(0), m] - exact
        real = _sum8(lines, 0, n, (table, q, 4))
        real += away * _sum8(lines, 0, n, (table, q, 20))
        imaginary = _sum8(lines, 1, n, (table, q, 4))
        imaginary += away * _sum8(lines, 1, n, (table, q, 20))
        sine, cosine = sine_cosine(shifts[np.uint64(1), m])
        out[np.uint64(2) * m] = real * cosine - imaginary * sine
        out[np.uint64(2) * m + np.uint64(1)] = real * sine + imaginary * cosine


@njit(fastmath=FAST)
def mix_pixel(
    lines: NDArray[np.float32],
    column: int,
    taps: NDArray[np.float32],
    q: int,
    turns: np.float32,
    index: int,
    out: NDArray[np.float32],
) -> None:
    """Interpolate one pixel with taps of its own, and turn its phase."""
    real = imaginary = np.float32(0.0)
    n = np.uint64(column)
    for k in range(np.uint64(TAPS)):
        real += taps[q, k] * lines[np.uint64(0), n + k]
        imaginary += taps[q, k] * lines[np.uint64(1), n + k]
    sine, cosine = sine_cosine(turns)
    out[2 * index] = real * cosine - imaginary * sine
    out[2 * index + 1] = real * sine + imaginary * cosine


@njit(forceinline=True)
def _choose_row(
    bounds: tuple[np.float32, np.float32], middle: float, shift: float
) -> tuple[np.int64, np.int64, np.float32]:
    """Return whole samples, row of the table, and the offset where that is exact.

    The row is that of the middle between the bounds; ``middle`` is the segment's own range offset,
    to which bounds and result are relative, ``shift`` is added to it.
    """
    position = middle + 0.5 * (np.float64(bounds[0]) + np.float64(bounds[1])) + shift
    base = np.int64(np.floor(position))
    q = np.int64((position - base) * FRACTIONS + 0.5)
    return base, q, np.float32(base + q / FRACTIONS - shift - middle)


@njit
def mix_line(
    heights: tuple[NDArray[np.float32], NDArray[np.float32]],
    expansion: tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]],
    taps: tuple[NDArray[np.float32], int, float],
    lines: NDArray[np.float32],
    first_column: int,
    bases: NDArray[np.int64],
    out: NDArray[np.float32],
) -> int:
    """Interpolate a line in range and turn its phase; return how many halves were left out.

    ``heights`` and ``expansion`` are those of ``expand_segment``, the latter with the segments' own
    range offsets before. ``taps`` are the table, its reach and the range shift, ``first_column``
    the column of ``lines`` where the taps of the first pixel begin for an offset of zero. ``bases``
    gets the whole samples of every half, or ``UNDONE`` where its offsets differ too much.
    """
    middles, series, shifts = expansion
    table, reach, shift = taps
    last = lines.shape[1] - HALF - TAPS
    undone = 0
    for segment in range(middles.size):
        low, high = expand_segment(series, segment, heights, shifts)
        alike = high - low <= _SPREAD
        base, q, exact = _choose_row((low, high), middles[segment], shift)
        for half in range(2 * segment, 2 * segment + 2):
            start = half * HALF
            if not alike:
                low, high = extremes(shifts, start)
                base, q, exact = _choose_row((low, high), middles[segment], shift)
            column = first_column + start + base
            if high - low > _SPREAD or not 0 <= column <= last:
                bases[half] = UNDONE
                undone += 1
                continue
            bases[half] = base
            if reach > 4:
                mix_samples_16(lines, column, table, (q, exact), shifts, start, out)
            else:
                mix_samples_8(lines, column, table, (q, exact), shifts, start, out)
    return undone
