"""Spatially correlated phase at scatterer candidates, estimated from their neighbours.

Unit phasors of the candidates are collected on a metric grid and smoothed by a Gaussian; what a
candidate (and whoever stands so close that its speckle is correlated) put in is taken out again
before its own value is read, so that pure noise does not look stable. The grid is anchored at
coordinate 0 and every sum runs in the order of the candidates: a tile with a sufficient halo gives
the same bits as the whole scene, provided the candidates come in the same order.

References
----------
51-stamps-algorithms, sections 2.4 and 3.5 (there: nearest cell, CLAP filter, own cell removed).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit

_BLOCK = 4
"""Dates filtered together: 4 complex128 are one cache line."""


class NeighbourFilter(NamedTuple):
    """Scale of the neighbourhood.

    Attributes
    ----------
    cell_m, sigma_m : float
        Edge of a grid cell and standard deviation of the Gaussian (cut at 3 sigma), metres.
    exclusion_m : float
        Neighbours this close do not count (at most ``cell_m``; 0 = only the candidate itself and
        its duplicates): the speckle of adjacent samples is correlated, so they would vouch for
        each other.
    """

    cell_m: float = 50.0
    sigma_m: float = 200.0
    exclusion_m: float = 40.0


_DEFAULT = NeighbourFilter()


class _Grid(NamedTuple):
    """Where candidates lie on the grid, and who shares a cell."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    row_share: NDArray[np.float64]
    column_share: NDArray[np.float64]
    rows: int
    columns: int
    members: NDArray[np.int64]
    first_member: NDArray[np.int64]


def _taps(options: NeighbourFilter) -> NDArray[np.float64]:
    reach = math.ceil(3.0 * options.sigma_m / options.cell_m)
    distance = np.arange(reach + 1) * options.cell_m / options.sigma_m
    taps: NDArray[np.float64] = np.exp(-0.5 * distance**2)
    return taps


def _place(position_m: NDArray[np.float64], cell_m: float) -> _Grid:
    # Cell centres lie at (i + 1/2) * cell whatever the tile. Each candidate is shared between the
    # four nearest centres: that keeps its position, which a plain cell index would round by half
    # a cell and so bias the phase wherever there is a gradient.
    scaled = position_m / cell_m - 0.5
    corner = np.floor(scaled).astype(np.int64)
    share = np.ascontiguousarray((scaled - corner).T)
    corner = np.ascontiguousarray((corner - corner.min(axis=0)).T)
    rows, columns = int(corner[0].max()) + 2, int(corner[1].max()) + 2
    if rows * columns > 2**26:
        raise ValueError(f"{rows} x {columns} cells: positions are too far apart for one call")
    key = corner[0] * columns + corner[1]
    members = np.argsort(key, kind="stable").astype(np.int64)
    first = np.searchsorted(key[members], np.arange(rows * columns + 1)).astype(np.int64)
    return _Grid(corner[0], corner[1], share[0], share[1], rows, columns, members, first)


@njit
def _collect(
    phasor: NDArray[np.complex64],
    baseline: NDArray[np.float32],
    slope: NDArray[np.float64],
    weight: NDArray[np.float64],
    source: NDArray[np.complex64],
) -> None:
    for p in range(phasor.shape[0]):
        for k in range(phasor.shape[1]):
            value = phasor[p, k]
            length = abs(value)
            angle = -slope[p] * baseline[p, k]
            is_used = weight[p] > 0.0 and length > 0.0 and length < np.inf
            if is_used and math.isfinite(angle):
                turn = complex(math.cos(angle), math.sin(angle))
                source[p, k] = weight[p] / length * value * turn
            else:
                source[p, k] = 0.0


@njit
def _deposit(
    source: NDArray[np.complex64], first: int, place: _Grid, grid: NDArray[np.float64]
) -> None:
    last = min(first + _BLOCK, source.shape[1])
    grid[:] = 0.0
    for p in range(source.shape[0]):
        for corner in range(4):
            i, j = corner // 2, corner % 2
            weight = place.row_share[p] if i else 1.0 - place.row_share[p]
            weight *= place.column_share[p] if j else 1.0 - place.column_share[p]
            row = place.row[p] + i
            at = (place.column[p] + j) * 2 * _BLOCK
            for k in range(first, last):
                grid[row, at] += weight * source[p, k].real
                grid[row, at + 1] += weight * source[p, k].imag
                at += 2


@njit
def _smooth(
    grid: NDArray[np.float64], taps: NDArray[np.float64], scratch: NDArray[np.float64]
) -> None:
    # Taps come in the same order for every cell, and a cell outside the tile only leaves out a
    # zero: the result does not depend on the tile, to the last bit.
    rows, width = grid.shape
    reach = taps.size - 1
    scratch[:] = 0.0
    for row in range(rows):
        for other in range(max(row - reach, 0), min(row + reach + 1, rows)):
            tap = taps[abs(other - row)]
            for i in range(np.uint64(width)):
                scratch[row, i] += tap * grid[other, i]
    grid[:] = 0.0
    for row in range(rows):
        for shift in range(-reach, reach + 1):
            tap = taps[abs(shift)]
            step = shift * 2 * _BLOCK
            start, stop = max(-step, 0), min(width - step, width)
            if stop > start:
                target = grid[row, start:stop]
                origin = scratch[row, start + step : stop + step]
                for i in range(np.uint64(stop - start)):
                    target[i] += tap * origin[i]


@njit
def _tap(taps: NDArray[np.float64], distance: int) -> float:
    index = abs(distance)
    return taps[index] if index < taps.size else 0.0


@njit
def _overlap(share: float, other: float, distance: int, taps: NDArray[np.float64]) -> float:
    # Weight, along one axis, with which what one candidate put in comes back at another whose
    # corner lies `distance` cells further.
    return (
        ((1.0 - share) * (1.0 - other) + share * other) * _tap(taps, distance)
        + (1.0 - share) * other * _tap(taps, distance - 1)
        + share * (1.0 - other) * _tap(taps, distance + 1)
    )


@njit
def _list_excluded(
    p: int,
    position: NDArray[np.float64],
    radius: float,
    place: _Grid,
    taps: NDArray[np.float64],
    found: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> int:
    count = 0
    for row in range(max(place.row[p] - 1, 0), min(place.row[p] + 2, place.rows)):
        left = max(place.column[p] - 1, 0)
        right = min(place.column[p] + 1, place.columns - 1)
        start = place.first_member[row * place.columns + left]
        stop = place.first_member[row * place.columns + right + 1]
        for index in range(start, stop):
            q = place.members[index]
            down = position[p, 0] - position[q, 0]
            across = position[p, 1] - position[q, 1]
            if down * down + across * across <= radius * radius:
                found[0][count] = q
                found[1][count] = _overlap(
                    place.row_share[p], place.row_share[q], place.row[p] - place.row[q], taps
                ) * _overlap(
                    place.column_share[p],
                    place.column_share[q],
                    place.column[p] - place.column[q],
                    taps,
                )
                count += 1
    return count


@njit
def _read(
    source: NDArray[np.complex64],
    first: int,
    place: _Grid,
    grid: NDArray[np.float64],
    excluded: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    out: NDArray[np.complex64],
) -> None:
    for p in range(source.shape[0]):
        for k in range(first, min(first + _BLOCK, source.shape[1])):
            total = 0.0j
            for corner in range(4):
                i, j = corner // 2, corner % 2
                weight = place.row_share[p] if i else 1.0 - place.row_share[p]
                weight *= place.column_share[p] if j else 1.0 - place.column_share[p]
                row = place.row[p] + i
                at = ((place.column[p] + j) * _BLOCK + k - first) * 2
                total += weight * complex(grid[row, at], grid[row, at + 1])
            removed = 0.0
            for index in range(excluded[0][p], excluded[0][p + 1]):
                value = source[excluded[1][index], k]
                total -= excluded[2][index] * value
                removed += excluded[2][index] * abs(value)
            length = abs(total)
            # What rounding leaves of the removed part must not pass for a neighbour.
            out[p, k] = total / length if length > 1e-9 * removed else 0.0


@njit
def _exclude(
    position: NDArray[np.float64], radius: float, place: _Grid, taps: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    size = position.shape[0]
    start = np.zeros(size + 1, np.int64)
    found = (np.empty(size, np.int64), np.empty(size, np.float64))
    index, weight = np.empty(0, np.int64), np.empty(0, np.float64)
    for turn in range(2):  # count, then fill
        for p in range(size):
            count = _list_excluded(p, position, radius, place, taps, found)
            if turn == 0:
                start[p + 1] = start[p] + count
                continue
            for at in range(count):
                index[start[p] + at] = found[0][at]
                weight[start[p] + at] = found[1][at]
        if turn == 0:
            index, weight = np.empty(start[size], np.int64), np.empty(start[size], np.float64)
    return start, index, weight


def neighbour_reach_m(options: NeighbourFilter) -> float:
    """Return how far, in metres, a candidate can influence the neighbour phase of another.

    Parameters
    ----------
    options : NeighbourFilter
        Scale of the neighbourhood.

    Returns
    -------
    float
        Largest difference in either coordinate, metres.
    """
    return (math.ceil(3.0 * options.sigma_m / options.cell_m) + 2) * options.cell_m


def filter_neighbour_phase(
    phasor: NDArray[np.complex64],
    position_m: NDArray[np.float64],
    perpendicular_baseline_m: NDArray[np.float32],
    look_angle_error: NDArray[np.float64],
    weight: NDArray[np.float64],
    options: NeighbourFilter = _DEFAULT,
) -> NDArray[np.complex64]:
    """Estimate the spatially correlated phase at every candidate, without its own contribution.

    Parameters
    ----------
    phasor : complex64 (n, m)
        Phase of candidate and date; amplitude irrelevant, 0 or NaN = date missing.
    position_m : float64 (n, 2)
        Metric coordinates common to all tiles of the scene, axes in any order.
    perpendicular_baseline_m : float32 (n, m)
        Perpendicular baseline, metres.
    look_angle_error : float64 (n,)
        K, rad per metre of baseline, removed from a candidate's phase before it is collected.
    weight : float64 (n,)
        Weight of a candidate, >= 0; NaN counts as 0.
    options : NeighbourFilter
        Scale of the neighbourhood.

    Returns
    -------
    complex64 (n, m)
        Unit phasors; 0 where a candidate has no neighbour on that date.

    Raises
    ------
    ValueError
        If shapes do not fit, positions are not finite or ``exclusion_m`` exceeds ``cell_m``.

    Notes
    -----
    Scratch memory: 128 bytes per grid cell of the bounding box, whatever the number of dates.
    """
    size, dates = phasor.shape
    if position_m.shape != (size, 2) or perpendicular_baseline_m.shape != (size, dates):
        raise ValueError(
            f"positions {position_m.shape} and baselines {perpendicular_baseline_m.shape} do not "
            f"fit {size} candidates on {dates} dates"
        )
    if not 0.0 <= options.exclusion_m <= options.cell_m:
        raise ValueError(f"exclusion_m must lie in [0, cell_m], instead got {options.exclusion_m}")
    out = np.zeros((size, dates), np.complex64)
    if size == 0:
        return out
    position = np.ascontiguousarray(position_m, np.float64)
    if not np.all(np.isfinite(position)):
        raise ValueError("position_m must be finite")
    source = np.empty((size, dates), np.complex64)
    _collect(
        np.ascontiguousarray(phasor, np.complex64),
        np.ascontiguousarray(perpendicular_baseline_m, np.float32),
        np.ascontiguousarray(look_angle_error, np.float64),
        np.ascontiguousarray(weight, np.float64),
        source,
    )
    place = _place(position, options.cell_m)
    taps = _taps(options)
    excluded = _exclude(position, options.exclusion_m, place, taps)
    grid = np.empty((place.rows, place.columns * 2 * _BLOCK), np.float64)
    scratch = np.empty_like(grid)
    for first in range(0, dates, _BLOCK):
        _deposit(source, first, place, grid)
        _smooth(grid, taps, scratch)
        _read(source, first, place, grid, excluded, out)
    return out
