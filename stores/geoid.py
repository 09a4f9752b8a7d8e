"""Geoid undulation over a regular latitude-longitude grid, from a given grid or from PROJ's.

Without a grid PROJ returns heights unchanged and raises nothing, even with ``only_best``; only
``allow_ballpark=False`` refuses. So does this module: a geoid that is not there is error E603.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from bperp.stores.byte_source import ByteSource, StorageOptions, display_name, open_source
from bperp.stores.errors import ElevationError
from bperp.stores.geotiff import GeoTiff, Placement, open_geotiff

__all__ = ["Geoid", "interpolate_separably", "open_geoid"]

_SYSTEMS = {"egm96": "EPSG:4326+5773", "egm2008": "EPSG:4326+3855"}
_LARGEST_M = 110.0
_PROJ_STEP_DEG = 1 / 60


class Geoid(Protocol):
    """Height of the geoid above the ellipsoid."""

    @property
    def label(self) -> str:
        """Name for messages."""

    def undulation_m(
        self, latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return (rows, columns) float32 undulation at regular latitudes and longitudes.

        ``latitude_deg`` (rows,) descends and ``longitude_deg`` (columns,) ascends; longitudes
        beyond 180 are allowed.
        """


def _absent(label: str, cause: str, found: str) -> ElevationError:
    return ElevationError(
        "E603",
        cause,
        where=label,
        expected="a geoid grid, so that heights can be made ellipsoidal",
        found=found[:120],
        remedy="give dem.geoid a GeoTIFF or GTX grid, or install PROJ's grid",
    )


class _Grid(NamedTuple):
    placement: Placement
    rows: int
    columns: int


class _Raster(Protocol):
    """A raster of undulations that can be read by rows."""

    @property
    def label(self) -> str:
        """File name."""

    def read_rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return all columns of some rows."""


@dataclass(frozen=True)
class _TiffRaster:
    raster: GeoTiff

    @property
    def label(self) -> str:
        return self.raster.label

    def read_rows(self, start: int, stop: int) -> NDArray[np.float32]:
        return self.raster.read((start, stop), (0, self.raster.columns))


@dataclass(frozen=True)
class _GtxRaster:
    """PROJ's GTX format: big-endian header and float32 rows from the south."""

    label: str
    source: ByteSource
    grid: _Grid

    def read_rows(self, start: int, stop: int) -> NDArray[np.float32]:
        width = self.grid.columns * 4
        data = self.source.read(40 + start * width, 40 + stop * width)
        if len(data) != (stop - start) * width:
            raise _absent(self.label, "geoid grid is truncated", f"{self.source.size} bytes")
        values = np.frombuffer(data, dtype=">f4").astype(np.float32)
        values[values == np.float32(-88.8888)] = np.nan
        return values.reshape(-1, self.grid.columns)


@dataclass(frozen=True)
class GridGeoid:
    """Undulation from a grid file, bilinear as in PROJ."""

    raster: _Raster
    grid: _Grid

    @property
    def label(self) -> str:
        """File name."""
        return self.raster.label

    def undulation_m(
        self, latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return undulation (rows, columns) float32 (E603 outside the grid)."""
        x0, y0, dx, dy = self.grid.placement
        rows = (latitude_deg - y0) / dy
        turn = 360.0 * np.floor((longitude_deg[0] - (x0 - 0.5 * dx)) / 360.0)
        columns = (longitude_deg - turn - x0) / dx
        is_global = abs(self.grid.columns * dx - 360.0) < 1.5 * dx
        first, last = self._reach(rows, self.grid.rows)
        table = self.raster.read_rows(first, last)
        if is_global:
            # Two turns, so that a window across the seam of the grid stays in one piece.
            once = table[:, : round(360.0 / dx)]
            table = np.concatenate((once, once, once[:, :1]), axis=1)
        else:
            self._reach(columns, self.grid.columns)
        out = interpolate_separably(table, rows - first, columns)
        return _checked(out, self.label)

    def _reach(self, index: NDArray[np.float64], count: int) -> tuple[int, int]:
        low, high = float(index.min()), float(index.max())
        if low < -0.5 - 1e-6 or high > count - 0.5 + 1e-6:
            found = f"index {low:.1f} to {high:.1f} of {count}"
            raise _absent(self.label, "geoid grid does not cover the window", found)
        return max(int(low), 0), min(int(high) + 2, count)


@dataclass(frozen=True)
class ProjGeoid:
    """Undulation from a grid of the PROJ installation, sampled every arc minute."""

    label: str
    transformer: Transformer

    def undulation_m(
        self, latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return undulation (rows, columns) float32 (E603 where the grid has none)."""
        north, south = latitude_deg[0], latitude_deg[-1]
        west, east = longitude_deg[0], longitude_deg[-1]
        rows = int(np.ceil((north - south) / _PROJ_STEP_DEG)) + 2
        columns = int(np.ceil((east - west) / _PROJ_STEP_DEG)) + 2
        latitudes, longitudes = np.linspace(north, south, rows), np.linspace(west, east, columns)
        x, y = np.meshgrid((longitudes + 180.0) % 360.0 - 180.0, latitudes)
        table = np.asarray(self.transformer.transform(x, y, np.zeros_like(x))[2])
        row = np.interp(-latitude_deg, -latitudes, np.arange(rows, dtype=np.float64))
        column = np.interp(longitude_deg, longitudes, np.arange(columns, dtype=np.float64))
        out = interpolate_separably(table.astype(np.float32), row, column)
        return _checked(out, self.label)


def _checked(undulation: NDArray[np.float32], label: str) -> NDArray[np.float32]:
    largest = float(np.max(np.abs(undulation)))
    if not largest <= _LARGEST_M:
        raise _absent(label, "geoid grid has impossible undulations", f"{largest:g} m")
    return undulation


def interpolate_separably(
    table: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Interpolate a table bilinearly at fractional rows (m,) and columns (n,): (m, n) float32.

    Beyond the outer samples the outer value holds.
    """
    low_row, weight_row = _neighbours(rows, table.shape[0])
    low_column, weight_column = _neighbours(columns, table.shape[1])
    high_row = np.minimum(low_row + 1, table.shape[0] - 1)
    high_column = np.minimum(low_column + 1, table.shape[1] - 1)
    wide = table[low_row] * (1 - weight_row)[:, None] + table[high_row] * weight_row[:, None]
    out: NDArray[np.float32] = (
        wide[:, low_column] * (1 - weight_column) + wide[:, high_column] * weight_column
    ).astype(np.float32)
    return out


def _neighbours(
    index: NDArray[np.float64], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    clipped = np.clip(index, 0, count - 1)
    low = np.minimum(clipped.astype(np.intp), max(count - 2, 0))
    return low, clipped - low


def open_geoid(datum: str, url: str | None = None, storage_options: StorageOptions = None) -> Geoid:
    """Open the geoid of a vertical datum.

    Parameters
    ----------
    datum : {"egm96", "egm2008"}
    url : str, optional
        GeoTIFF or GTX grid of that geoid; default: the grid of the PROJ installation.
    storage_options : mapping, optional
        For the fsspec file system.

    Raises
    ------
    ElevationError
        E603 when there is no usable grid.
    """
    if url is not None:
        return _open_grid(url, storage_options)
    if datum not in _SYSTEMS:
        raise _absent(datum, "no geoid grid is known for this datum", datum)
    try:
        transformer = Transformer.from_crs(
            CRS(_SYSTEMS[datum]), CRS("EPSG:4979"), always_xy=True, allow_ballpark=False
        )
        probe = transformer.transform(0.0, 0.0, 0.0)[2]
    except ProjError as error:
        raise _absent(datum, "PROJ has no geoid grid for this datum", str(error)) from error
    if not 0.1 < abs(probe) < _LARGEST_M:
        # 17 m at 0 N 0 E: zero is the no-op that is to be kept out.
        raise _absent(datum, "PROJ has no geoid grid for this datum", f"{probe} m at 0 N 0 E")
    return ProjGeoid(f"PROJ {datum}", transformer)


def _open_grid(url: str, storage_options: StorageOptions) -> Geoid:
    label = display_name(url)
    if label.lower().endswith(".gtx"):
        return _open_gtx(url, label, storage_options)
    try:
        raster = open_geotiff(url, storage_options)
    except ElevationError as error:
        found = f"{error.cause}: {error.found}"
        raise _absent(label, "geoid grid is not usable", found) from error
    if not raster.is_geographic:
        raise _absent(label, "geoid grid is not in degrees", raster.system.name)
    grid = _Grid(raster.placement, raster.rows, raster.columns)
    return GridGeoid(_TiffRaster(raster), grid)


def _open_gtx(url: str, label: str, storage_options: StorageOptions) -> Geoid:
    try:
        source = open_source(url, storage_options)
        head = struct.unpack(">4d2i", source.read(0, 40))
    except (FileNotFoundError, struct.error) as error:
        raise _absent(label, "geoid grid is not usable", str(error)) from error
    y0, x0, dy, dx, rows, columns = head
    fits = min(rows, columns) > 1 and source.size == 40 + rows * columns * 4
    if not fits or not (dx > 0 and dy > 0 and np.isfinite([x0, y0]).all()):
        raise _absent(label, "geoid grid is not usable", f"{source.size} bytes, {rows} x {columns}")
    grid = _Grid(Placement(x0, y0, dx, dy), rows, columns)
    return GridGeoid(_GtxRaster(label, source, grid), grid)
