"""Heights where zero-Doppler arcs meet a height grid: Newton's iteration for many pixels at once.

A step for a chunk of pixels consists of three loops: where are the cells, what are their corners,
how far to go. Only the second, which collects heights from all over the grid, is not vectorised.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.height_grid import Heights, cubic_height, height_at
from bperp.kernels.orbit import FAST
from bperp.kernels.range_arcs import (
    HEIGHT_NODES,
    HIGHEST_M,
    LOWEST_M,
    MIDDLE_M,
    PER_METRE,
    expand_arcs,
)

# The iteration starts near the solution and sees the arc as a parabola in height, good to 1 mm over
# _NEAR_M.
_NEAR_M = 200.0
_STEPS_TOGETHER = 3
_QUICK_STEPS = 4
_NEWTON_STEPS = 10
_BISECTIONS = 40
_CONVERGED_M = 5e-4


class SearchBuffers(NamedTuple):
    """Buffers of a chunk: the parabolas of its arcs, start height, rise and step, grid cells."""

    north: NDArray[np.float64]
    east: NDArray[np.float64]
    solution: NDArray[np.float64]
    cells: NDArray[np.int32]
    fractions: NDArray[np.float64]
    corners: NDArray[np.float32]


@njit(fastmath=FAST)
def _misfit(
    heights: Heights,
    latitudes: NDArray[np.float64],
    longitudes: NDArray[np.float64],
    i: int,
    height: float,
) -> tuple[float, float]:
    """Return grid height minus height on the arc, and its derivative with respect to height."""
    w = (height - MIDDLE_M) * PER_METRE
    north, east = latitudes[HEIGHT_NODES - 1, i], longitudes[HEIGHT_NODES - 1, i]
    northward = eastward = 0.0
    for k in range(HEIGHT_NODES - 2, -1, -1):
        northward, eastward = northward * w + north, eastward * w + east
        north, east = north * w + latitudes[k, i], east * w + longitudes[k, i]
    row = (north - heights.latitude_rad) * heights.rows_per_rad
    column = (east - heights.longitude_rad) * heights.columns_per_rad
    value, per_row, per_column = height_at(heights.values, row, column)
    if heights.cubic:
        value = cubic_height(heights.values, row, column)
    slope = per_row * northward * heights.rows_per_rad
    slope += per_column * eastward * heights.columns_per_rad
    return value - height, slope * PER_METRE - 1.0


@njit
def solve_fully(
    heights: Heights,
    latitudes: NDArray[np.float64],
    longitudes: NDArray[np.float64],
    i: int,
    height: float,
) -> float:
    """Return the height at which arc ``i`` meets the grid; NaN at a void."""
    for _ in range(_NEWTON_STEPS):
        error, slope = _misfit(heights, latitudes, longitudes, i, height)
        # A slope towards the radar makes the derivative small, layover changes its sign.
        step = -error / min(slope, -0.25)
        height = min(max(height + step, LOWEST_M), HIGHEST_M)
        if not abs(step) > _CONVERGED_M:  # NaN leaves too
            return height
    low, high = LOWEST_M, HIGHEST_M
    for _ in range(_BISECTIONS):
        height = 0.5 * (low + high)
        error, _ = _misfit(heights, latitudes, longitudes, i, height)
        if math.isnan(error):
            return error
        if error > 0.0:
            low = height
        else:
            high = height
    return height


@njit(fastmath=FAST)
def _find_cells(
    arcs: tuple[NDArray[np.float64], NDArray[np.float64]],
    rise: NDArray[np.float64],
    last: tuple[int, int],
    cells: NDArray[np.int32],
    fractions: NDArray[np.float64],
) -> None:
    """Find the cells of the grid, and the places in them, at a rise above the start heights.

    ``arcs`` (3, chunk) are parabolas in index units; ``last`` the row and column of the last cell.
    """
    north, east = arcs
    row0, row1, row2 = north[0], north[1], north[2]
    column0, column1, column2 = east[0], east[1], east[2]
    tops, lefts, downs, acrosses = cells[0], cells[1], fractions[0], fractions[1]
    bottom, right = last[0] + 1.0, last[1] + 1.0
    for i in range(np.uint64(rise.size)):
        # A rise that is NaN would have no cell; it stays NaN in the step, whatever cell it gets.
        d = rise[i] if rise[i] == rise[i] else 0.0
        row = row0[i] + d * (row1[i] + d * row2[i])
        column = column0[i] + d * (column1[i] + d * column2[i])
        row = max(0.0, min(row, bottom))
        column = max(0.0, min(column, right))
        top = np.int32(min(row, bottom - 1.0))
        left = np.int32(min(column, right - 1.0))
        tops[i], lefts[i] = top, left
        downs[i], acrosses[i] = row - top, column - left


@njit
def _fetch_corners(
    values: NDArray[np.float32], cells: NDArray[np.int32], corners: NDArray[np.float32]
) -> None:
    """Collect the four heights around each cell: the one loop that is not vectorised."""
    tops, lefts = cells[0], cells[1]
    upper_left, upper_right, lower_left, lower_right = (
        corners[0],
        corners[1],
        corners[2],
        corners[3],
    )
    one = np.uint64(1)
    for i in range(np.uint64(tops.size)):
        r, c = np.uint64(tops[i]), np.uint64(lefts[i])
        upper_left[i], upper_right[i] = values[r, c], values[r, c + one]
        lower_left[i], lower_right[i] = values[r + one, c], values[r + one, c + one]


@njit(error_model="numpy", fastmath=FAST)
def _take_step(
    arcs: tuple[NDArray[np.float64], NDArray[np.float64]],
    corners: NDArray[np.float32],
    fractions: NDArray[np.float64],
    solution: NDArray[np.float64],
) -> None:
    """Make one Newton step for a whole chunk; ``solution`` holds start height, rise, last step."""
    row1, column1 = arcs[0][1], arcs[1][1]
    upper_left, upper_right, lower_left, lower_right = (
        corners[0],
        corners[1],
        corners[2],
        corners[3],
    )
    downs, acrosses = fractions[0], fractions[1]
    start, rise, step = solution[0], solution[1], solution[2]
    for i in range(np.uint64(start.size)):
        a, b = np.float64(upper_left[i]), np.float64(upper_right[i])
        c, d = np.float64(lower_left[i]), np.float64(lower_right[i])
        upper, lower = a + acrosses[i] * (b - a), c + acrosses[i] * (d - c)
        per_column = b - a + downs[i] * (d - c - (b - a))
        per_row = lower - upper
        value = upper + downs[i] * per_row
        slope = per_row * row1[i] + per_column * column1[i]
        change = (value - start[i] - rise[i]) / max(1.0 - slope, 0.25)
        step[i] = change
        rise[i] += change


@njit(fastmath=FAST)
def _take_heights(solution: NDArray[np.float64], height_m: NDArray[np.float32]) -> int:
    """Store the heights of a chunk and count the pixels whose height stands."""
    start, rise, step = solution[0], solution[1], solution[2]
    good = 0
    for i in range(np.uint64(height_m.size)):
        height_m[i] = np.float32(start[i] + rise[i])
        good += (abs(step[i]) < _CONVERGED_M) & (abs(rise[i]) < _NEAR_M)
    return good


@njit(fastmath=FAST)
def _finish_quickly(
    values: NDArray[np.float32],
    cubic: bool,
    arcs: tuple[NDArray[np.float64], NDArray[np.float64]],
    solution: NDArray[np.float64],
    i: int,
) -> bool:
    """Go on with the parabolas of one pixel until its height stands; say whether it does."""
    north, east = arcs
    start, d = solution[0, i], solution[1, i]
    step = solution[2, i]
    for _ in range(_QUICK_STEPS):
        if not abs(step) >= _CONVERGED_M:  # NaN leaves too
            break
        row = north[0, i] + d * (north[1, i] + d * north[2, i])
        column = east[0, i] + d * (east[1, i] + d * east[2, i])
        value, per_row, per_column = height_at(values, row, column)
        if cubic:
            value = cubic_height(values, row, column)
        slope = per_row * north[1, i] + per_column * east[1, i]
        step = (value - start - d) / max(1.0 - slope, 0.25)
        d += step
    solution[1, i] = d
    return bool(abs(step) < _CONVERGED_M and abs(d) < _NEAR_M)


@njit
def solve_chunk(
    heights: Heights,
    arcs: tuple[NDArray[np.float64], NDArray[np.float64]],
    scratch: SearchBuffers,
    height_m: NDArray[np.float32],
) -> None:
    """Find the heights of a chunk of one line, starting from ``scratch.solution[0]``.

    Three steps are made for all pixels at once. Those that have not converged go on alone: how many
    steps a pixel takes depends on nothing but the pixel.
    """
    values, cubic, solution = heights.values, heights.cubic, scratch.solution
    parabolas = (scratch.north, scratch.east)
    start, rise, step = solution[0], solution[1], solution[2]
    expand_arcs(arcs[0], start, heights.latitude_rad, heights.rows_per_rad, scratch.north)
    expand_arcs(arcs[1], start, heights.longitude_rad, heights.columns_per_rad, scratch.east)
    rise[:] = 0.0
    if cubic:
        step[:] = math.inf
    else:
        last = (values.shape[0] - 2, values.shape[1] - 2)
        for _ in range(_STEPS_TOGETHER):
            _find_cells(parabolas, rise, last, scratch.cells, scratch.fractions)
            _fetch_corners(values, scratch.cells, scratch.corners)
            _take_step(parabolas, scratch.corners, scratch.fractions, solution)
    if _take_heights(solution, height_m) == height_m.size:
        return
    for i in range(height_m.size):
        if abs(step[i]) < _CONVERGED_M and abs(rise[i]) < _NEAR_M:
            continue
        if _finish_quickly(values, cubic, parabolas, solution, i):
            height_m[i] = start[i] + rise[i]
        else:
            height_m[i] = solve_fully(heights, arcs[0], arcs[1], i, 0.0)
