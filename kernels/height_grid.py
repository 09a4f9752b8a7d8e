"""A grid of heights in index units, for compiled loops."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.orbit import FAST


class Heights(NamedTuple):
    """Height grid in index units: ``row = (latitude - latitude_rad) * rows_per_rad``."""

    values: NDArray[np.float32]
    latitude_rad: float
    longitude_rad: float
    rows_per_rad: float
    columns_per_rad: float
    cubic: bool


@njit
def _keys(fraction: float) -> tuple[float, float, float, float]:
    """Return Keys' cubic convolution weights (a = -1/2)."""
    t = fraction
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


@njit
def cubic_height(values: NDArray[np.float32], row: float, column: float) -> float:
    """Interpolate by cubic convolution; the outermost rows and columns are repeated."""
    top, left = math.floor(row), math.floor(column)
    down = _keys(row - top)
    across = _keys(column - left)
    total = 0.0
    for k in range(4):
        r = min(max(int(top) - 1 + k, 0), values.shape[0] - 1)
        line = 0.0
        for m in range(4):
            c = min(max(int(left) - 1 + m, 0), values.shape[1] - 1)
            line += across[m] * values[r, c]
        total += down[k] * line
    return total


@njit(fastmath=FAST, forceinline=True)
def height_at(values: NDArray[np.float32], row: float, column: float) -> tuple[float, float, float]:
    """Return the bilinear height and its gradient (per row, per column), clamped to the grid."""
    last_row, last_column = values.shape[0] - 2, values.shape[1] - 2
    row = max(0.0, min(row, last_row + 1.0))
    column = max(0.0, min(column, last_column + 1.0))
    top, left = min(np.int64(row), last_row), min(np.int64(column), last_column)
    down, across = row - top, column - left
    r, c = np.uint64(top), np.uint64(left)
    under, beside = np.uint64(top + 1), np.uint64(left + 1)
    upper_left, upper_right = np.float64(values[r, c]), np.float64(values[r, beside])
    lower_left, lower_right = np.float64(values[under, c]), np.float64(values[under, beside])
    upper = upper_left + across * (upper_right - upper_left)
    lower = lower_left + across * (lower_right - lower_left)
    per_column = upper_right - upper_left
    per_column += down * (lower_right - lower_left - per_column)
    return upper + down * (lower - upper), lower - upper, per_column


@njit
def shift_origin(heights: Heights, latitude: float, longitude: float) -> Heights:
    """Express the grid relative to a reference position, on the near side of the antimeridian."""
    middle = heights.longitude_rad + 0.5 * (heights.values.shape[1] - 1) / heights.columns_per_rad
    turn = middle - longitude
    turn -= 2.0 * math.pi * math.floor(turn / (2.0 * math.pi) + 0.5)
    return Heights(
        heights.values,
        heights.latitude_rad - latitude,
        turn + heights.longitude_rad - middle,
        heights.rows_per_rad,
        heights.columns_per_rad,
        heights.cubic,
    )
