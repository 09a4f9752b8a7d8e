"""Offset polynomials as data, and their evaluation inside compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.orbit import FAST

__all__ = ["OffsetPolynomial", "OffsetPowers", "term_degrees", "to_powers"]

# Number of terms -> degrees in (line, sample, height) and limit of their sum.
TERM_RULES: dict[int, tuple[tuple[int, int, int], int]] = {
    60: ((3, 4, 3), 6),
    92: ((3, 6, 3), 8),
    129: ((3, 8, 4), 9),
}
SAMPLE_POWERS = 9


class OffsetPolynomial(NamedTuple):
    """A trivariate Chebyshev polynomial.

    ``domain`` (3, 2) float64 holds centre and half width of line, sample and height (m), on which
    the arguments are normalised to [-1, 1]. ``coefficients`` (60, 92 or 129) float64 belong to the
    terms ``T_i(line) T_j(sample) T_k(height)`` in the order of ``term_degrees``.
    """

    domain: NDArray[np.float64]
    coefficients: NDArray[np.float64]


class OffsetPowers(NamedTuple):
    """The same polynomial in powers, laid out for compiled loops.

    ``powers`` (height, line, sample) float64, the last axis padded to 9.
    """

    domain: NDArray[np.float64]
    powers: NDArray[np.float64]


def term_degrees(terms: int) -> NDArray[np.int64]:
    """Return the degrees ``(terms, 3)`` in line, sample and height of every coefficient.

    All combinations up to the degrees of ``TERM_RULES`` whose sum does not exceed the limit, in
    lexicographic order: 112 combinations of (3, 6, 3) with a sum up to 8 make 92.

    Raises
    ------
    ValueError
        If there is no rule with that number of terms.
    """
    if terms not in TERM_RULES:
        raise ValueError(f"terms must be one of {sorted(TERM_RULES)}, got {terms}")
    degrees, limit = TERM_RULES[terms]
    grid = np.indices([degree + 1 for degree in degrees]).reshape(3, -1).T
    return np.asarray(grid[grid.sum(axis=1) <= limit], dtype=np.int64)


def to_powers(polynomial: OffsetPolynomial) -> OffsetPowers:
    """Convert an offset polynomial to powers of the normalised arguments."""
    degrees = term_degrees(polynomial.coefficients.size)
    size = degrees.max(axis=0) + 1
    dense = np.zeros(size)
    dense[degrees[:, 0], degrees[:, 1], degrees[:, 2]] = polynomial.coefficients
    for axis in range(3):
        basis = np.zeros((size[axis], size[axis]))
        for k, unit in enumerate(np.eye(size[axis])):
            row = chebyshev.cheb2poly(unit)
            basis[k, : row.size] = row
        dense = np.moveaxis(np.tensordot(dense, basis, axes=(axis, 0)), -1, axis)
    powers = np.zeros((size[2], size[0], SAMPLE_POWERS))
    powers[:, :, : size[1]] = dense.transpose(2, 0, 1)
    return OffsetPowers(np.ascontiguousarray(polynomial.domain), powers)


@njit(fastmath=FAST)
def collapse_line(offsets: OffsetPowers, line: float, rows: NDArray[np.float64]) -> None:
    """Insert a line: ``rows`` (height, 9) gets the powers in height and sample."""
    powers = offsets.powers
    u = (line - offsets.domain[0, 0]) / offsets.domain[0, 1]
    for k in range(np.uint64(powers.shape[0])):
        for j in range(np.uint64(SAMPLE_POWERS)):
            value = powers[k, np.uint64(3), j] * u + powers[k, np.uint64(2), j]
            value = value * u + powers[k, np.uint64(1), j]
            rows[k, j] = value * u + powers[k, np.uint64(0), j]


@njit(fastmath=FAST, forceinline=True)
def _horner(c: NDArray[np.float64], k: int, u: float) -> float:
    """Evaluate row ``k`` of powers up to the sixth (a loop would not be vectorised outside)."""
    high = ((c[k, 6] * u + c[k, 5]) * u + c[k, 4]) * u + c[k, 3]
    value: float = ((high * u + c[k, 2]) * u + c[k, 1]) * u + c[k, 0]
    return value


@njit(fastmath=FAST)
def offset_row(
    offsets: OffsetPowers,
    rows: NDArray[np.float64],
    first_sample: float,
    step: float,
    height: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    """Evaluate the offsets of evenly spaced samples of one line (``rows`` from collapse_line)."""
    scale, climb = 1.0 / offsets.domain[1, 1], 1.0 / offsets.domain[2, 1]
    start, pace = (first_sample - offsets.domain[1, 0]) * scale, step * scale
    level = offsets.domain[2, 0]
    size = np.uint64(out.size)
    if rows.shape[0] == 4 and not rows[:, 7:].any():
        for i in range(size):
            u = start + pace * np.float64(i)
            w = (np.float64(height[i]) - level) * climb
            value = _horner(rows, 3, u) * w + _horner(rows, 2, u)
            out[i] = (value * w + _horner(rows, 1, u)) * w + _horner(rows, 0, u)
        return
    for i in range(size):
        out[i] = 0.0
    for k in range(rows.shape[0] - 1, -1, -1):
        c7, c8 = rows[k, 7], rows[k, 8]
        for i in range(size):
            u = start + pace * np.float64(i)
            w = (np.float64(height[i]) - level) * climb
            high = ((c8 * u + c7) * u + rows[k, 6]) * u + rows[k, 5]
            high = ((high * u + rows[k, 4]) * u + rows[k, 3]) * u + rows[k, 2]
            out[i] = out[i] * w + (high * u + rows[k, 1]) * u + rows[k, 0]


@njit(fastmath=FAST)
def offset_at(
    offsets: OffsetPowers, rows: NDArray[np.float64], sample: float, height: float
) -> float:
    """Evaluate the offset of one sample of a line (``rows`` from collapse_line)."""
    u = (sample - offsets.domain[1, 0]) / offsets.domain[1, 1]
    w = (height - offsets.domain[2, 0]) / offsets.domain[2, 1]
    total = 0.0
    for k in range(rows.shape[0] - 1, -1, -1):
        value = 0.0
        for j in range(SAMPLE_POWERS - 1, -1, -1):
            value = value * u + rows[k, j]
        total = total * w + value
    return total
