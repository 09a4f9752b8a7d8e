"""Row operations of resampling: the innermost loops, each over contiguous memory.

Complex rows are interleaved float32 ``re, im, re, im``. Indices are unsigned, slices are left to
the callers that work on whole lines (a slice costs two atomic operations on a reference count),
and nothing is reassociated: the bytes of a pixel do not depend on its place in a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.orbit import FAST


@njit(fastmath=FAST, forceinline=True)
def sine_cosine(turns: float) -> tuple[np.float32, np.float32]:
    """Return sine and cosine of a phase in turns, wrapped in float64, to 6e-7.

    Least-squares polynomials in t**2 over half a turn on either side.
    """
    t = np.float32(turns - np.floor(turns + 0.5))
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


@njit(fastmath=FAST, forceinline=True)
def mix_rows(
    ring: NDArray[np.float32],
    row: int,
    taps: NDArray[np.float32],
    place: tuple[int, int],
    span: tuple[int, int],
    out: NDArray[np.float32],
    add: bool,
) -> None:
    """Sum four successive rows over a span, into ``out`` or added to it.

    ``place`` is the row of the table of taps and its first column. Whole arrays and indices are
    passed, here and below: a slice costs two atomic operations on a reference count.
    """
    mask = ring.shape[0] - 1
    r0, r1 = np.uint64(row & mask), np.uint64((row + 1) & mask)
    r2, r3 = np.uint64((row + 2) & mask), np.uint64((row + 3) & mask)
    q, k = place
    t0, t1, t2, t3 = taps[q, k], taps[q, k + 1], taps[q, k + 2], taps[q, k + 3]
    if add:
        for i in range(np.uint64(span[0]), np.uint64(span[1])):
            value = t0 * ring[r0, i] + t1 * ring[r1, i]
            out[i] += value + (t2 * ring[r2, i] + t3 * ring[r3, i])
    else:
        for i in range(np.uint64(span[0]), np.uint64(span[1])):
            value = t0 * ring[r0, i] + t1 * ring[r1, i]
            out[i] = value + (t2 * ring[r2, i] + t3 * ring[r3, i])


@njit(fastmath=FAST, forceinline=True)
def mix_samples_16(
    line: NDArray[np.float32],
    first: int,
    tables: tuple[NDArray[np.float32], NDArray[np.float32]],
    q: int,
    span: tuple[int, int],
    out: NDArray[np.float32],
) -> None:
    """Sum 16 taps, and their derivatives, over a segment of output."""
    taps, slopes = tables
    t0, t1, t2, t3 = taps[q, 0], taps[q, 1], taps[q, 2], taps[q, 3]
    t4, t5, t6, t7 = taps[q, 4], taps[q, 5], taps[q, 6], taps[q, 7]
    t8, t9, t10, t11 = taps[q, 8], taps[q, 9], taps[q, 10], taps[q, 11]
    t12, t13, t14, t15 = taps[q, 12], taps[q, 13], taps[q, 14], taps[q, 15]
    s0, s1, s2, s3 = slopes[q, 0], slopes[q, 1], slopes[q, 2], slopes[q, 3]
    s4, s5, s6, s7 = slopes[q, 4], slopes[q, 5], slopes[q, 6], slopes[q, 7]
    s8, s9, s10, s11 = slopes[q, 8], slopes[q, 9], slopes[q, 10], slopes[q, 11]
    s12, s13, s14, s15 = slopes[q, 12], slopes[q, 13], slopes[q, 14], slopes[q, 15]
    zero, one = np.uint64(0), np.uint64(1)
    start, source = np.uint64(span[0]), np.uint64(first)
    for i in range(np.uint64(span[1] - span[0])):
        n = source + i
        x0, x1 = line[n + np.uint64(0)], line[n + np.uint64(2)]
        x2, x3 = line[n + np.uint64(4)], line[n + np.uint64(6)]
        x4, x5 = line[n + np.uint64(8)], line[n + np.uint64(10)]
        x6, x7 = line[n + np.uint64(12)], line[n + np.uint64(14)]
        x8, x9 = line[n + np.uint64(16)], line[n + np.uint64(18)]
        x10, x11 = line[n + np.uint64(20)], line[n + np.uint64(22)]
        x12, x13 = line[n + np.uint64(24)], line[n + np.uint64(26)]
        x14, x15 = line[n + np.uint64(28)], line[n + np.uint64(30)]
        value = (t0 * x0 + t1 * x1) + (t2 * x2 + t3 * x3)
        value += (t4 * x4 + t5 * x5) + (t6 * x6 + t7 * x7)
        value += (t8 * x8 + t9 * x9) + (t10 * x10 + t11 * x11)
        value += (t12 * x12 + t13 * x13) + (t14 * x14 + t15 * x15)
        slope = (s0 * x0 + s1 * x1) + (s2 * x2 + s3 * x3)
        slope += (s4 * x4 + s5 * x5) + (s6 * x6 + s7 * x7)
        slope += (s8 * x8 + s9 * x9) + (s10 * x10 + s11 * x11)
        slope += (s12 * x12 + s13 * x13) + (s14 * x14 + s15 * x15)
        m = start + i
        out[zero, m] = value
        out[one, m] = slope


@njit(fastmath=FAST, forceinline=True)
def mix_samples_8(
    line: NDArray[np.float32],
    first: int,
    tables: tuple[NDArray[np.float32], NDArray[np.float32]],
    q: int,
    span: tuple[int, int],
    out: NDArray[np.float32],
) -> None:
    """Sum the 8 middle taps, and their derivatives, over a segment of output."""
    taps, slopes = tables
    t4, t5, t6, t7 = taps[q, 4], taps[q, 5], taps[q, 6], taps[q, 7]
    t8, t9, t10, t11 = taps[q, 8], taps[q, 9], taps[q, 10], taps[q, 11]
    s4, s5, s6, s7 = slopes[q, 4], slopes[q, 5], slopes[q, 6], slopes[q, 7]
    s8, s9, s10, s11 = slopes[q, 8], slopes[q, 9], slopes[q, 10], slopes[q, 11]
    zero, one = np.uint64(0), np.uint64(1)
    start, source = np.uint64(span[0]), np.uint64(first)
    for i in range(np.uint64(span[1] - span[0])):
        n = source + i
        x4, x5 = line[n + np.uint64(8)], line[n + np.uint64(10)]
        x6, x7 = line[n + np.uint64(12)], line[n + np.uint64(14)]
        x8, x9 = line[n + np.uint64(16)], line[n + np.uint64(18)]
        x10, x11 = line[n + np.uint64(20)], line[n + np.uint64(22)]
        value = (t4 * x4 + t5 * x5) + (t6 * x6 + t7 * x7)
        value += (t8 * x8 + t9 * x9) + (t10 * x10 + t11 * x11)
        slope = (s4 * x4 + s5 * x5) + (s6 * x6 + s7 * x7)
        slope += (s8 * x8 + s9 * x9) + (s10 * x10 + s11 * x11)
        m = start + i
        out[zero, m] = value
        out[one, m] = slope


@njit(fastmath={"contract", "nnan", "nsz"}, forceinline=True)
def store_spread(
    offsets: NDArray[np.float64], shift: float, span: tuple[int, int], away: NDArray[np.float32]
) -> np.float32:
    """Store the range offsets minus ``shift``; return the greatest magnitude (none is NaN)."""
    across = np.uint64(1)
    greatest = np.float32(0.0)
    for i in range(np.uint64(span[0]), np.uint64(span[1])):
        away[i] = np.float32(offsets[across, i] - shift)
        greatest = max(greatest, abs(away[i]))
    return greatest
