"""Scatterers in the cells of a map: which lie where, what they weigh, their means.

All variables of a cell are means with the same weights, so that a cell describes one scatterer: the
slope of its series is its velocity. The weight is the inverse variance of the velocity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.layout import SCATTERER_CHUNK
from bperp.pipeline.map_grid import MapGrid
from bperp.pipeline.stage import Source
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES

__all__ = [
    "CellMeans",
    "Scatterers",
    "halve",
    "locate_scatterers",
    "read_pieces",
    "round_displacement",
]

SMALLEST_SIGMA_M_YR = 1e-5
"""No velocity is known better; keeps the weights finite."""

UNKNOWN_SIGMA_M_YR = 1.0
"""Of scatterers without one: they count only where there are no others."""

DISPLACEMENT_STEP_M = 2.0**-17
"""Displacements are multiples of this: 0.0076 mm, so errors stay below 0.0039 mm."""

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scatterers:
    """Connected scatterers on a map, in the order of the table.

    ``index`` is the row in the table, ``row`` and ``column`` the cell of the map, ``weight`` the
    inverse variance of the velocity (yr^2 m^-2).
    """

    index: NDArray[np.int64]
    row: NDArray[np.int32]
    column: NDArray[np.int32]
    weight: NDArray[np.float64]

    def within(self, window: Window) -> Scatterers:
        """Return those in a window of the map, with cells counted from its corner."""
        top, bottom, left, right = window
        inside = (self.row >= top) & (self.row < bottom)
        chosen = np.flatnonzero(inside & (self.column >= left) & (self.column < right))
        row, column = self.row[chosen] - top, self.column[chosen] - left
        return Scatterers(self.index[chosen], row, column, self.weight[chosen])


def locate_scatterers(source: Source, grid: MapGrid, count: int) -> Scatterers:
    """Find the cell and the weight of every connected scatterer.

    Parameters
    ----------
    source : Source
        Reader of the running task.
    grid : MapGrid
        The map.
    count : int
        Scatterers in the table.

    Returns
    -------
    Scatterers
        Without those that lie beside the map.
    """
    parts = [_locate(source, grid, rows) for rows in _pieces(count)]
    columns = zip(*parts, strict=True)
    return Scatterers(*(np.concatenate(column) for column in columns))


def read_pieces(
    source: Source, variable: str, scatterers: Scatterers, *rest: slice
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Read the rows of some scatterers, one chunk of the table at a time.

    Parameters
    ----------
    source : Source
        Reader of the running task.
    variable : str
        Column of the table, or table.
    scatterers : Scatterers
        Whose rows.
    *rest : slice
        Window of the second axis of a table.

    Yields
    ------
    chosen : slice
        Which of the scatterers.
    values : ndarray (n,) or (n, k)
        Theirs.
    """
    known = scatterers.index
    bounds = np.searchsorted(known, np.arange(0, known.max(initial=0) + 1, SCATTERER_CHUNK))
    for first, last in zip(bounds, [*bounds[1:], known.size], strict=True):
        if first == last:
            continue
        # Nothing is gained by reading less than what has to be unpacked, but memory.
        rows = slice(int(known[first]), int(known[last - 1]) + 1)
        values = source.read(TIMESERIES, variable, (rows, *rest))
        yield slice(int(first), int(last)), values[known[first:last] - rows.start]


class CellMeans:
    """Weighted means of scatterers in the cells of a window, added up piece by piece.

    Parameters
    ----------
    scatterers : Scatterers
        With cells counted from the corner of the window.
    shape : tuple of int
        Rows and columns of the window.
    layers : int
        Number of variables or dates, each with its own gaps.

    Notes
    -----
    Scatterers are added one after the other, in the order of the table: a cell's mean does not
    depend on the window, nor on which other dates are taken along.
    """

    def __init__(self, scatterers: Scatterers, shape: tuple[int, int], layers: int = 1) -> None:
        self._cell = scatterers.row.astype(np.int64) * shape[1] + scatterers.column
        self._weight = scatterers.weight
        self._shape = (layers, *shape)
        self._sum = np.zeros((layers, shape[0] * shape[1]))
        self._total = np.zeros((layers, shape[0] * shape[1]))

    def add(self, chosen: slice, values: NDArray[Any]) -> None:
        """Add the values (n,) or (n, layers) of some scatterers; NaN is left out."""
        cells, weights = self._cell[chosen], self._weight[chosen]
        columns = values[:, np.newaxis] if values.ndim == 1 else values
        for layer, column in enumerate(columns.T):
            known = np.flatnonzero(np.isfinite(column))
            weight, cell = weights[known], cells[known]
            np.add.at(self._sum[layer], cell, weight * column[known])
            np.add.at(self._total[layer], cell, weight)

    def means(self) -> NDArray[np.float32]:
        """Return the means, ``(layers, rows, columns)``, NaN where nothing was added."""
        means = np.full(self._shape, np.nan, np.float32)
        for layer, (total, weight) in enumerate(zip(self._sum, self._total, strict=True)):
            filled = np.flatnonzero(weight)
            means[layer].reshape(-1)[filled] = total[filled] / weight[filled]
        return means


def round_displacement(displacement_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to multiples of ``DISPLACEMENT_STEP_M``: the idle bits pack well.

    Parameters
    ----------
    displacement_m : ndarray, float32, m
        Magnitudes below 64 m stay exact multiples. Changed in place.
    """
    np.multiply(displacement_m, np.float32(1.0 / DISPLACEMENT_STEP_M), out=displacement_m)
    np.rint(displacement_m, out=displacement_m)
    np.multiply(displacement_m, np.float32(DISPLACEMENT_STEP_M), out=displacement_m)
    # Adding zero turns -0.0 into 0.0.
    np.add(displacement_m, np.float32(0.0), out=displacement_m)
    return displacement_m


def halve(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the finite cells of every two by two, NaN where there is none."""
    rows, columns = (-(-size // 2) for size in image.shape)
    even = np.full((2 * rows, 2 * columns), np.nan)
    even[: image.shape[0], : image.shape[1]] = image
    blocks = even.reshape(rows, 2, columns, 2)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    means = np.full((rows, columns), np.nan, np.float32)
    np.divide(total, count, out=means, where=count > 0, casting="same_kind")
    return means


def _pieces(count: int) -> Iterator[slice]:
    for start in range(0, count, SCATTERER_CHUNK):
        yield slice(start, min(start + SCATTERER_CHUNK, count))


def _locate(
    source: Source, grid: MapGrid, rows: slice
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    columns: Mapping[str, NDArray[np.float64]] = {
        name: np.asarray(source.read(TIMESERIES, name, (rows,)), np.float64)
        for name in ("longitude", "latitude", "velocity_los", "velocity_sigma")
    }
    # What is not connected to the reference area has neither velocity nor displacement.
    connected = np.flatnonzero(np.isfinite(columns["velocity_los"]))
    longitude, latitude, _, sigma = (values[connected] for values in columns.values())
    x, y = grid.projection.from_geographic(longitude, latitude)
    if grid.projection.is_geographic:
        middle = (grid.column + 0.5 * grid.columns) * grid.spacing
        x = x + 360.0 * np.round((middle - x) / 360.0)
    column = np.floor(x / grid.spacing) - grid.column
    row = grid.row - 1 - np.floor(y / grid.spacing)
    inside = (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
    known = np.where(np.isfinite(sigma), sigma, UNKNOWN_SIGMA_M_YR)
    weight = np.maximum(known, SMALLEST_SIGMA_M_YR) ** -2.0
    return (
        connected[inside] + rows.start,
        row[inside].astype(np.int32),
        column[inside].astype(np.int32),
        weight[inside],
    )
