"""Sums over windows of two coregistered images: the machinery below interferograms.

Sums run in two steps. Up to ``LINE_BLOCK`` lines are added per sample in float32, which keeps the
inner loop in vector registers; samples then add up in fours and in float64. Plain sums of so few
float32 terms are good to about 1e-6 of the window's power. Sums in a sliding box are formed in
another way, see `bperp.kernels.coherence`.

The five sums are: real and imaginary part of ``reference * conj(secondary)``, power of the
reference, power of the secondary, number of valid pixels. A pixel is invalid where either image is
exactly 0 + 0j (no data) or NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit

__all__ = [
    "Interferogram",
    "allocate",
    "as_floats",
    "check_images",
    "finish",
    "minimum_count",
    "pixel",
    "sum_cross",
    "sum_power",
    "sum_windows",
]

LINE_BLOCK = 16
"""Lines added in float32 before they join the float64 sums."""
STRIP = 1024
"""Samples worked on at a time: five float32 rows of this length stay in the first-level cache."""

_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_FOUR = np.uint64(4)
_ZERO_F4 = np.float32(0.0)
_ONE_F4 = np.float32(1.0)

_RESULT_TYPES = (np.complex64, np.float32, np.int32)

Rows = NDArray[np.float32]
Sums = NDArray[np.float64]
Part = tuple[int, int, int, int, int]
"""First and stop line, first and stop float of the line, range looks."""


class Interferogram(NamedTuple):
    """Averaged interferogram with its coherence.

    Parameters
    ----------
    interferogram : ndarray
        complex64 ``(..., azimuth, range)``: mean of ``reference * conj(secondary)`` over the valid
        pixels of each window; exactly 0 + 0j where the window is invalid.
    coherence : ndarray
        float32 ``(..., azimuth, range)`` in [0, 1]: magnitude of the sample coherence, biased
        upwards at few looks (see `debias_coherence`).
    valid_count : ndarray
        int32 ``(..., azimuth, range)``: valid pixels of each window.
    """

    interferogram: NDArray[np.complex64]
    coherence: NDArray[np.float32]
    valid_count: NDArray[np.int32]


def check_images(reference: NDArray[Any], secondary: NDArray[Any]) -> None:
    """Refuse images that are not complex64 ``(azimuth, range)`` of one shape."""
    if reference.ndim != 2 or reference.shape != secondary.shape:
        raise ValueError(
            "reference and secondary must be (azimuth, range) of one shape, instead got "
            f"{reference.shape} and {secondary.shape}"
        )
    if reference.dtype != np.complex64 or secondary.dtype != np.complex64:
        raise ValueError(f"images must be complex64, got {reference.dtype}, {secondary.dtype}")


def as_floats(image: NDArray[np.complex64]) -> Rows:
    """Return complex samples as float32 ``(..., 2 * range)``, real and imaginary in turn."""
    return np.ascontiguousarray(image).view(np.float32)


def allocate(
    leading: tuple[int, ...],
    shape: tuple[int, ...],
    azimuth_looks: int,
    range_looks: int,
    out: Interferogram | None = None,
) -> Interferogram:
    """Return the empty result for an image of `shape`: `out`, checked, if it is given."""
    if azimuth_looks < 1 or range_looks < 1:
        raise ValueError(f"looks must be at least 1, instead got {azimuth_looks} x {range_looks}")
    size = (*leading, shape[0] // azimuth_looks, shape[1] // range_looks)
    if out is None:
        return Interferogram(
            np.empty(size, np.complex64), np.empty(size, np.float32), np.empty(size, np.int32)
        )
    for name, array, dtype in zip(Interferogram._fields, out, _RESULT_TYPES, strict=True):
        if array.shape != size or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"out.{name} must be contiguous {np.dtype(dtype)} {size}, instead got "
                f"{array.dtype} {array.shape}"
            )
    return out


def minimum_count(pixels: int, fraction: float) -> float:
    """Return the number of valid pixels from which a window counts, at least 1."""
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"minimum_valid_fraction must be in [0, 1], instead got {fraction}")
    return max(1.0, fraction * pixels)


@njit(inline="always")
def pixel(
    a: np.float32, b: np.float32, c: np.float32, d: np.float32
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Return the five terms of one pixel ``(a + jb) * conj(c + jd)``, all zero if it is invalid."""
    # Comparisons with NaN are false: NaN pixels drop out without a test of their own.
    power = np.float32(a * a + b * b)
    other = np.float32(c * c + d * d)
    valid = (power > _ZERO_F4) & (other > _ZERO_F4)
    return (
        np.float32(a * c + b * d) if valid else _ZERO_F4,
        np.float32(b * c - a * d) if valid else _ZERO_F4,
        power if valid else _ZERO_F4,
        other if valid else _ZERO_F4,
        _ONE_F4 if valid else _ZERO_F4,
    )


# Two lines at a time halve the traffic of the accumulators (1.3 times faster). The shorter loops
# take an empty second line instead of a function of their own; LLVM hoists that test.


@njit
def _add_line(first: bool, r: Rows, s: Rows, rows: Rows) -> None:
    re, im, pr, ps, n = rows[0], rows[1], rows[2], rows[3], rows[4]
    for i in range(np.uint64(r.size) // _TWO):
        j = _TWO * np.uint64(i)
        x, y, p, q, v = pixel(r[j], r[j + _ONE], s[j], s[j + _ONE])
        if first:
            re[i], im[i], pr[i], ps[i], n[i] = x, y, p, q, v
        else:
            re[i] += x
            im[i] += y
            pr[i] += p
            ps[i] += q
            n[i] += v


@njit
def _add_two_lines(first: bool, r: Rows, s: Rows, r2: Rows, s2: Rows, rows: Rows) -> None:
    re, im, pr, ps, n = rows[0], rows[1], rows[2], rows[3], rows[4]
    for i in range(np.uint64(r.size) // _TWO):
        j = _TWO * np.uint64(i)
        x, y, p, q, v = pixel(r[j], r[j + _ONE], s[j], s[j + _ONE])
        x2, y2, p2, q2, v2 = pixel(r2[j], r2[j + _ONE], s2[j], s2[j + _ONE])
        if first:
            re[i], im[i], pr[i], ps[i], n[i] = x + x2, y + y2, p + p2, q + q2, v + v2
        else:
            re[i] += x + x2
            im[i] += y + y2
            pr[i] += p + p2
            ps[i] += q + q2
            n[i] += v + v2


@njit
def _add_power_lines(first: bool, r: Rows, r2: Rows, rows: Rows) -> None:
    power, n = rows[0], rows[1]
    for i in range(np.uint64(r.size) // _TWO):
        j = _TWO * np.uint64(i)
        p = r[j] * r[j] + r[j + _ONE] * r[j + _ONE]
        v = _ONE_F4 if p > _ZERO_F4 else _ZERO_F4
        if r2.size:
            p2 = r2[j] * r2[j] + r2[j + _ONE] * r2[j + _ONE]
            v += _ONE_F4 if p2 > _ZERO_F4 else _ZERO_F4
            p += p2
        if first:
            power[i], n[i] = p, v
        else:
            power[i] += p
            n[i] += v


@njit
def _add_cross_lines(first: bool, r: Rows, s: Rows, r2: Rows, s2: Rows, rows: Rows) -> None:
    re, im = rows[0], rows[1]
    for i in range(np.uint64(r.size) // _TWO):
        j = _TWO * np.uint64(i)
        k = j + _ONE
        x = r[j] * s[j] + r[k] * s[k]
        y = r[k] * s[j] - r[j] * s[k]
        if r2.size:
            x += r2[j] * s2[j] + r2[k] * s2[k]
            y += r2[k] * s2[j] - r2[j] * s2[k]
        if first:
            re[i], im[i] = x, y
        else:
            re[i] += x
            im[i] += y


@njit
def _add_windows(rows: Rows, quantities: int, part: Part, sums: Sums) -> None:
    looks = np.uint64(part[4])
    windows = np.uint64((part[3] - part[2]) // (2 * part[4]))
    for quantity in range(quantities):
        row, out = rows[quantity], sums[quantity]
        for w in range(windows):
            total = 0.0
            j = np.uint64(w) * looks
            end = j + looks
            while j + _THREE < end:
                total += (row[j] + row[j + _ONE]) + (row[j + _TWO] + row[j + _THREE])
                j += _FOUR
            while j < end:
                total += row[j]
                j += _ONE
            out[w] += total


# The images come whole: slices of two-dimensional arrays would lose their contiguous rows.


@njit
def sum_windows(r: Rows, s: Rows, part: Part, rows: Rows, sums: Sums) -> None:
    """Fill the five sums ``(5, window)`` for one row of windows within a strip."""
    top, bottom, left, right, _ = part
    sums[:] = 0.0
    for start in range(top, bottom, LINE_BLOCK):
        stop = min(bottom, start + LINE_BLOCK)
        for i in range(start, stop, 2):
            first, r1, s1 = i == start, r[i, left:right], s[i, left:right]
            if i + 1 < stop:
                _add_two_lines(first, r1, s1, r[i + 1, left:right], s[i + 1, left:right], rows)
            else:
                _add_line(first, r1, s1, rows)
        _add_windows(rows, 5, part, sums)


@njit
def sum_power(r: Rows, part: Part, rows: Rows, sums: Sums) -> None:
    """Fill power and number of valid pixels ``(2, window)`` of one image."""
    top, bottom, left, right, _ = part
    sums[:] = 0.0
    for start in range(top, bottom, LINE_BLOCK):
        stop = min(bottom, start + LINE_BLOCK)
        for i in range(start, stop, 2):
            k, end = (i + 1, right) if i + 1 < stop else (i, left)
            _add_power_lines(i == start, r[i, left:right], r[k, left:end], rows)
        _add_windows(rows, 2, part, sums)


@njit
def sum_cross(r: Rows, s: Rows, part: Part, rows: Rows, sums: Sums) -> None:
    """Fill real and imaginary part ``(2 of 5, window)``; right where no pixel is invalid."""
    top, bottom, left, right, _ = part
    sums[:] = 0.0
    for start in range(top, bottom, LINE_BLOCK):
        stop = min(bottom, start + LINE_BLOCK)
        for i in range(start, stop, 2):
            k, end = (i + 1, right) if i + 1 < stop else (i, left)
            first, r1, s1 = i == start, r[i, left:right], s[i, left:right]
            _add_cross_lines(first, r1, s1, r[k, left:end], s[k, left:end], rows)
        _add_windows(rows, 2, part, sums)


@njit(error_model="numpy")
def finish(
    sums: Sums | Rows,
    rule: tuple[float, float],
    interferogram: NDArray[np.complex64],
    coherence: NDArray[np.float32],
    valid_count: NDArray[np.int32],
) -> None:
    """Turn sums into the results of one line; `rule` is (fewest pixels, coherence if fewer).

    `sums` may be float32 as well.
    """
    threshold, invalid = rule
    re, im, pr, ps, n = sums[0], sums[1], sums[2], sums[3], sums[4]
    samples = interferogram.view(np.float32)
    # One result at a time: with all in one loop, LLVM gives up on proving that none overlap.
    for w in range(np.uint64(coherence.size)):
        usable = n[w] >= threshold
        x, y = np.float64(re[w]), np.float64(im[w])
        power = np.float64(pr[w]) * np.float64(ps[w]) if usable else 1.0
        # The ratio needs the range of float64; root and reciprocal only the digits of the result.
        magnitude = np.sqrt(np.float32((x * x + y * y) / power))
        coherence[w] = min(magnitude, _ONE_F4) if usable else np.float32(invalid)
    for w in range(np.uint64(coherence.size)):
        scale = np.float64(_ONE_F4 / np.float32(n[w])) if n[w] >= threshold else 0.0
        samples[_TWO * w] = np.float32(re[w] * scale)
        samples[_TWO * w + _ONE] = np.float32(im[w] * scale)
    for w in range(np.uint64(coherence.size)):
        valid_count[w] = np.int32(n[w])
