"""Join, resample and mend elevation rasters on one regular latitude-longitude grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from scipy import ndimage, sparse
from scipy.sparse import linalg

from bperp.stores.geotiff import GeoTiff

__all__ = ["HOLE_SAMPLES", "Target", "TargetGrid", "fill_holes", "join_tiles", "plan_grid"]

HOLE_SAMPLES = 32
"""Holes that fit into a square of this edge are filled."""
_METRES_PER_DEGREE = 111_320.0
_SAME_GRID = 1e-2
_NODE_STEP = 16


class TargetGrid(NamedTuple):
    """Centre of sample ``[0, 0]`` and steps in degrees; ``dlat`` is negative (north-up)."""

    lat0: float
    lon0: float
    dlat: float
    dlon: float


@dataclass(frozen=True)
class Target:
    """A window of a target grid."""

    grid: TargetGrid
    rows: int
    columns: int

    @property
    def latitudes(self) -> NDArray[np.float64]:
        """Latitudes of the rows, descending."""
        return self.grid.lat0 + self.grid.dlat * np.arange(self.rows, dtype=np.float64)

    @property
    def longitudes(self) -> NDArray[np.float64]:
        """Longitudes of the columns, ascending; they may exceed 180."""
        return self.grid.lon0 + self.grid.dlon * np.arange(self.columns, dtype=np.float64)


class _Steps(NamedTuple):
    """Origin and steps of a tile in degrees, moved by whole turns towards the window."""

    lat0: float
    lon0: float
    dlat: float
    dlon: float


def _steps(tile: GeoTiff, middle: tuple[float, float]) -> _Steps:
    x0, y0, dx, dy = tile.placement
    if tile.is_geographic:
        turn = 360.0 * round((middle[1] - x0 - 0.5 * tile.columns * dx) / 360.0)
        north = y0 if dy < 0 else y0 + (tile.rows - 1) * dy
        return _Steps(north, x0 + turn, -abs(dy), dx)
    unit = tile.system.axis_info[0].unit_conversion_factor / _METRES_PER_DEGREE
    # Whole fractions of a degree keep the grid the same for every window.
    dlat = 1.0 / round(1.0 / (abs(dy) * unit))
    dlon = 1.0 / max(round(np.cos(np.radians(round(middle[0]))) / (dx * unit)), 1)
    return _Steps(90.0, -180.0, -dlat, dlon)


def plan_grid(
    tiles: tuple[GeoTiff, ...], bounds: tuple[float, float, float, float], margin: int
) -> Target:
    """Choose the samples that cover bounds, on the grid of the finest tile.

    Parameters
    ----------
    tiles : tuple of GeoTiff
        Those that touch the bounds.
    bounds : tuple of float
        South, west, north, east in degrees, east beyond 180 where the window crosses it.
    margin : int
        Extra samples on all sides.

    Returns
    -------
    Target
    """
    south, west, north, east = bounds
    middle = (0.5 * (south + north), 0.5 * (west + east))
    steps = min(
        (_steps(tile, middle) for tile in tiles),
        key=lambda s: (s.dlon * -s.dlat, s.lat0, s.lon0),
    )
    top = int(np.floor((north - steps.lat0) / steps.dlat + 1e-6)) - margin
    bottom = int(np.ceil((south - steps.lat0) / steps.dlat - 1e-6)) + margin
    left = int(np.floor((west - steps.lon0) / steps.dlon + 1e-6)) - margin
    right = int(np.ceil((east - steps.lon0) / steps.dlon - 1e-6)) + margin
    grid = TargetGrid(
        steps.lat0 + top * steps.dlat, steps.lon0 + left * steps.dlon, steps.dlat, steps.dlon
    )
    return Target(grid, bottom - top + 1, right - left + 1)


def join_tiles(
    tiles: tuple[GeoTiff, ...], target: Target
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read all tiles onto a target window.

    Parameters
    ----------
    tiles : tuple of GeoTiff
    target : Target

    Returns
    -------
    heights : ndarray (rows, columns) float32
        NaN where no tile has a value.
    present : ndarray (rows, columns) bool
        Whether a tile lies there.
    """
    shape = (target.rows, target.columns)
    heights, present = np.full(shape, np.nan, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    aligned = [tile for tile in tiles if _offset(tile, target) is not None]
    for tile in aligned:
        _copy_tile(tile, target, heights, present)
    for tile in sorted(set(tiles) - set(aligned), key=lambda tile: tile.label):
        _resample_tile(tile, target, heights, present)
    return heights, present


def _offset(tile: GeoTiff, target: Target) -> tuple[int, int] | None:
    """Return the target's row and column of the tile's first sample if the grids coincide."""
    if not tile.is_geographic:
        return None
    grid = target.grid
    middle = (0.0, grid.lon0 + 0.5 * target.columns * grid.dlon)
    steps = _steps(tile, middle)
    drift = max(
        abs(steps.dlat / grid.dlat - 1.0) * tile.rows,
        abs(steps.dlon / grid.dlon - 1.0) * tile.columns,
    )
    row, column = (steps.lat0 - grid.lat0) / grid.dlat, (steps.lon0 - grid.lon0) / grid.dlon
    error = max(abs(row - round(row)), abs(column - round(column)), drift)
    return (round(row), round(column)) if error < _SAME_GRID else None


def _copy_tile(
    tile: GeoTiff, target: Target, heights: NDArray[np.float32], present: NDArray[np.bool_]
) -> None:
    offset = _offset(tile, target)
    if offset is None:
        raise ValueError("tile must lie on the target grid")
    row0, row1 = max(offset[0], 0), min(offset[0] + tile.rows, target.rows)
    col0, col1 = max(offset[1], 0), min(offset[1] + tile.columns, target.columns)
    if row0 >= row1 or col0 >= col1:
        return
    part = np.s_[row0:row1, col0:col1]
    columns = (col0 - offset[1], col1 - offset[1])
    values = _read_north_up(tile, (row0 - offset[0], row1 - offset[0]), columns)
    heights[part] = np.where(np.isnan(heights[part]), values, heights[part])
    present[part] = True


def _read_north_up(
    tile: GeoTiff, rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.float32]:
    if tile.placement.dy < 0:
        return tile.read(rows, columns)
    return tile.read((tile.rows - rows[1], tile.rows - rows[0]), columns)[::-1]


def _resample_tile(
    tile: GeoTiff, target: Target, heights: NDArray[np.float32], present: NDArray[np.bool_]
) -> None:
    """Interpolate a tile on another grid bilinearly where nothing is present yet."""
    rows, columns = _tile_index(tile, target)
    # Up to half a sample beyond its outer samples a tile is still the one that lies there.
    inside = (rows >= -0.5) & (rows <= tile.rows - 0.5)
    inside &= (columns >= -0.5) & (columns <= tile.columns - 0.5) & ~present
    if not inside.any():
        return
    row, column = rows[inside], columns[inside]
    first = (max(int(row.min()), 0), max(int(column.min()), 0))
    last = (min(int(row.max()) + 2, tile.rows), min(int(column.max()) + 2, tile.columns))
    table = tile.read((first[0], last[0]), (first[1], last[1]))
    values = _bilinear(table, row - first[0], column - first[1])
    heights[inside] = values
    present |= inside


def _bilinear(
    table: NDArray[np.float32], row: NDArray[np.float64], column: NDArray[np.float64]
) -> NDArray[np.float32]:
    row, column = np.clip(row, 0, table.shape[0] - 1), np.clip(column, 0, table.shape[1] - 1)
    top = np.minimum(row.astype(np.intp), max(table.shape[0] - 2, 0))
    left = np.minimum(column.astype(np.intp), max(table.shape[1] - 2, 0))
    bottom = np.minimum(top + 1, table.shape[0] - 1)
    right = np.minimum(left + 1, table.shape[1] - 1)
    down, across = row - top, column - left
    # A void with zero weight must not spoil its neighbour.
    total = np.zeros(row.shape)
    for r, weight_r in ((top, 1 - down), (bottom, down)):
        for c, weight_c in ((left, 1 - across), (right, across)):
            weight = weight_r * weight_c
            total += np.where(weight > 1e-9, table[r, c] * weight, 0.0)
    return total.astype(np.float32)


def _tile_index(tile: GeoTiff, target: Target) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return fractional rows and columns of a tile at all samples of the target."""
    x0, y0, dx, dy = tile.placement
    latitudes, longitudes = target.latitudes, target.longitudes
    if tile.is_geographic:
        turn = 360.0 * round((longitudes.mean() - x0 - 0.5 * tile.columns * dx) / 360.0)
        rows, columns = (latitudes - y0) / dy, (longitudes - turn - x0) / dx
        row, column = np.broadcast_arrays(rows[:, None], columns[None, :])
        return row, column
    # Projections are smooth: 500 m between nodes leave millimetres.
    node_rows = np.arange(0, target.rows - 1 + _NODE_STEP, _NODE_STEP)
    node_columns = np.arange(0, target.columns - 1 + _NODE_STEP, _NODE_STEP)
    transformer = Transformer.from_crs(CRS("EPSG:4326"), tile.system, always_xy=True)
    lat = target.grid.lat0 + target.grid.dlat * node_rows
    lon = target.grid.lon0 + target.grid.dlon * node_columns
    x, y = transformer.transform(*np.meshgrid((lon + 180.0) % 360.0 - 180.0, lat))
    dense_rows = np.arange(target.rows) / _NODE_STEP
    dense_columns = np.arange(target.columns) / _NODE_STEP
    return (
        _spread((y - y0) / dy, dense_rows, dense_columns),
        _spread((x - x0) / dx, dense_rows, dense_columns),
    )


def _spread(
    nodes: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    low_row = np.minimum(rows.astype(np.intp), max(nodes.shape[0] - 2, 0))
    low_column = np.minimum(columns.astype(np.intp), max(nodes.shape[1] - 2, 0))
    high_row = np.minimum(low_row + 1, nodes.shape[0] - 1)
    high_column = np.minimum(low_column + 1, nodes.shape[1] - 1)
    down, across = (rows - low_row)[:, None], columns - low_column
    wide = nodes[low_row] * (1 - down) + nodes[high_row] * down
    out: NDArray[np.float64] = wide[:, low_column] * (1 - across) + wide[:, high_column] * across
    return out


def fill_holes(heights: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Fill small holes (NaN) smoothly from their rims.

    Parameters
    ----------
    heights : ndarray (rows, columns) float32

    Returns
    -------
    filled : ndarray (rows, columns) float32
        Holes that fit into ``HOLE_SAMPLES`` squared are filled; larger ones stay NaN.
    count : int
        Number of samples that were filled.

    Notes
    -----
    The filling solves Laplace's equation within the hole, so it depends on the rim only: windows
    that hold the hole with its rim agree.
    """
    labels, count = ndimage.label(np.isnan(heights))
    filled, total = heights.copy(), 0
    for index, place in enumerate(ndimage.find_objects(labels, count), start=1):
        edges = [part.stop - part.start for part in place]
        touches = any(
            part.start == 0 or part.stop == size
            for part, size in zip(place, heights.shape, strict=True)
        )
        if max(edges) > HOLE_SAMPLES or touches:
            continue
        box = tuple(slice(part.start - 1, part.stop + 1) for part in place)
        hole = labels[box] == index
        filled[box] = np.where(hole, _relax(heights[box], hole), filled[box])
        total += int(hole.sum())
    return filled, total


def _relax(patch: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Solve Laplace's equation in a hole that known samples surround."""
    count = int(hole.sum())
    index = np.full(patch.shape, -1)
    index[hole] = np.arange(count)
    place = np.argwhere(hole)
    matrix = sparse.lil_array((count, count))
    right = np.zeros(count)
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        row, column = (place + step).T
        inside = hole[row, column]
        matrix[np.flatnonzero(inside), index[row, column][inside]] = -1.0
        right += np.where(inside, 0.0, patch[row, column])
    matrix.setdiag(4.0)
    out = patch.copy()
    out[hole] = linalg.spsolve(matrix.tocsc(), right)
    return out
