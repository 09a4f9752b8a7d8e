"""Fourier transforms of 16, 32 and 64 points, one patch per vector lane.

Libraries transform one row after another and shuffle values within vector registers. Here the
same element of sixteen patches lies side by side, so that every operation is one plain vector
operation whatever the length, and nothing is shuffled.

A *column* holds sixteen transforms as ``2 * points * LANES`` float32: the real parts of element 0
of all patches, of element 1, ..., then the imaginary parts likewise. The passes are those of
Stockham, radix 4 with a last one of radix 2 for 32 points: they move data between two columns and
leave frequencies in natural order.

Results do not depend on the lane: all lanes go through the same instructions.

References
----------
.. [1] Van Loan, "Computational frameworks for the fast Fourier transform", SIAM, 1992, section 1.7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit

__all__ = ["LANES", "POINTS", "transform", "transform_back", "turning_factors"]

LANES = 16
"""Patches in a batch: two registers of AVX2, one of AVX-512."""
POINTS = (16, 32, 64)
"""Lengths that can be transformed."""

_LANES = np.uint64(LANES)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)

Floats = NDArray[np.float32]


def turning_factors(points: int) -> Floats:
    """Return the factors that all passes of a transform take theirs from.

    Parameters
    ----------
    points : {16, 32, 64}
        Length of the transform.

    Returns
    -------
    ndarray
        float32 ``(2 * points,)``: real and imaginary part of ``exp(-2 pi i k / points)`` in turn.

    Raises
    ------
    ValueError
        If `points` is none of these.
    """
    if points not in POINTS:
        raise ValueError(f"points must be one of {POINTS}, instead got {points}")
    turn = np.exp(-2j * np.pi * np.arange(points) / points)
    return np.asarray(turn.astype(np.complex64).view(np.float32))


# `points`, `span` and `inverse` are constants of the caller: LLVM must know how far apart the
# streams of a loop are to be sure that they do not overlap. Exchanging real and imaginary parts
# before and after a transform inverts it.


@njit(inline="always")
def _four(
    source: Floats,
    first: np.uint64,
    target: Floats,
    start: np.uint64,
    plan: tuple[int, int, bool],
    factors: Floats,
) -> None:
    points, span, inverse = plan
    half, quarter = np.uint64(points) * _LANES, np.uint64(points // 4) * _LANES
    width = np.uint64(span) * _LANES
    re = half if inverse else _ZERO
    im = _ZERO if inverse else half
    for j in range(np.uint64(points // (4 * span))):
        t = _TWO * np.uint64(j) * np.uint64(span)
        c1, s1 = factors[t], factors[t + _ONE]
        c2, s2 = factors[_TWO * t], factors[_TWO * t + _ONE]
        c3, s3 = factors[_TWO * t + t], factors[_TWO * t + t + _ONE]
        a = first + np.uint64(j) * width
        d = start + np.uint64(j) * np.uint64(4) * width
        for lane in range(width):
            p = a + lane + re
            q = a + lane + im
            r = d + lane + re
            s = d + lane + im
            x0, x1, x2, x3 = (
                source[p],
                source[p + quarter],
                source[p + _TWO * quarter],
                source[p + np.uint64(3) * quarter],
            )
            y0, y1, y2, y3 = (
                source[q],
                source[q + quarter],
                source[q + _TWO * quarter],
                source[q + np.uint64(3) * quarter],
            )
            ar, ai, br, bi = x0 + x2, y0 + y2, x0 - x2, y0 - y2
            cr, ci, dr, di = x1 + x3, y1 + y3, x1 - x3, y1 - y3
            ur, ui = br + di, bi - dr
            vr, vi = ar - cr, ai - ci
            wr, wi = br - di, bi + dr
            target[r], target[s] = ar + cr, ai + ci
            target[r + width], target[s + width] = ur * c1 - ui * s1, ur * s1 + ui * c1
            target[r + _TWO * width] = vr * c2 - vi * s2
            target[s + _TWO * width] = vr * s2 + vi * c2
            target[r + np.uint64(3) * width] = wr * c3 - wi * s3
            target[s + np.uint64(3) * width] = wr * s3 + wi * c3


@njit(inline="always")
def _two(source: Floats, first: np.uint64, target: Floats, start: np.uint64, points: int) -> None:
    middle, half = np.uint64(points // 2) * _LANES, np.uint64(points) * _LANES
    for lane in range(middle):
        a, b = first + lane, start + lane
        x0, x1 = source[a], source[a + middle]
        y0, y1 = source[a + half], source[a + half + middle]
        target[b], target[b + middle] = x0 + x1, x0 - x1
        target[b + half], target[b + half + middle] = y0 + y1, y0 - y1


@njit(inline="always")
def _passes(
    source: Floats,
    first: np.uint64,
    target: Floats,
    start: np.uint64,
    points: int,
    inverse: bool,
    work: tuple[Floats, Floats, Floats],
) -> None:
    one, two, factors = work
    if points == 16:
        _four(source, first, one, _ZERO, (16, 1, inverse), factors)
        _four(one, _ZERO, target, start, (16, 4, inverse), factors)
    elif points == 32:
        _four(source, first, one, _ZERO, (32, 1, inverse), factors)
        _four(one, _ZERO, two, _ZERO, (32, 4, inverse), factors)
        _two(two, _ZERO, target, start, 32)
    else:
        _four(source, first, one, _ZERO, (64, 1, inverse), factors)
        _four(one, _ZERO, two, _ZERO, (64, 4, inverse), factors)
        _four(two, _ZERO, target, start, (64, 16, inverse), factors)


@njit
def transform(
    source: Floats,
    first: np.uint64,
    target: Floats,
    start: np.uint64,
    points: int,
    work: tuple[Floats, Floats, Floats],
) -> None:
    """Transform the column at float `first` of `source` into that at `start` of `target`.

    `work` is two columns of scratch and the turning factors. Exponent ``-2 pi i``, unscaled; source
    and target may be the same column.
    """
    _passes(source, first, target, start, points, False, work)


@njit
def transform_back(
    source: Floats,
    first: np.uint64,
    target: Floats,
    start: np.uint64,
    points: int,
    work: tuple[Floats, Floats, Floats],
) -> None:
    """Do as `transform` with the exponent ``+2 pi i``, unscaled as well."""
    _passes(source, first, target, start, points, True, work)
