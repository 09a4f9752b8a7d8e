"""Elevation models: ellipsoidal heights on a regular latitude-longitude grid.

The vertical datum is never guessed: it comes from the file or from the user, the two must agree,
and orthometric heights without a geoid grid are refused.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import fsspec
import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from bperp.stores.byte_source import StorageOptions, display_name
from bperp.stores.elevation_grid import (
    HOLE_SAMPLES,
    Target,
    TargetGrid,
    fill_holes,
    join_tiles,
    plan_grid,
)
from bperp.stores.errors import ElevationError
from bperp.stores.geoid import Geoid, open_geoid
from bperp.stores.geotiff import GeoTiff, open_geotiff

__all__ = ["ElevationModel", "ElevationPatch", "TargetGrid"]

VerticalDatum = Literal["auto", "ellipsoid", "egm96", "egm2008"]
Absent = Literal["error", "sea", "mask"]
Bounds = tuple[float, float, float, float]
_LOWEST_M, _HIGHEST_M = -1000.0, 9200.0
_COVERAGE_NODES = 129
_FILE_LIMIT = 10_000


@dataclass(frozen=True, eq=False)
class ElevationPatch:
    """Heights of a window and what was done to them.

    Parameters
    ----------
    heights_m : ndarray (rows, columns) float32
        Ellipsoidal heights, north-up; NaN where there is none.
    grid : TargetGrid
        ``(lat0, lon0, dlat, dlon)`` in degrees: centre of sample [0, 0] and steps.
    filled_samples, void_samples, absent_samples : int
        Small holes that were filled; larger holes; samples where no tile lies.
    sources : tuple of str
        Files read, and the geoid.
    """

    heights_m: NDArray[np.float32]
    grid: TargetGrid
    filled_samples: int
    void_samples: int
    absent_samples: int
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ElevationModel:
    """One elevation file, or tiles that are joined; see ``open``."""

    tiles: tuple[GeoTiff, ...]
    datum: str
    geoid: Geoid | None
    absent: Absent = "error"
    voids: Literal["mask", "sea"] = "mask"

    @classmethod
    def open(
        cls,
        url: str | Sequence[str],
        vertical_datum: VerticalDatum = "auto",
        geoid: str | None = None,
        *,
        absent: Absent = "error",
        voids: Literal["mask", "sea"] = "mask",
        storage_options: StorageOptions = None,
    ) -> ElevationModel:
        """Open GeoTIFF elevations.

        Parameters
        ----------
        url : str or sequence of str
            A file, a folder of ``.tif`` files, or several of them; paths or fsspec URLs.
        vertical_datum : {"auto", "ellipsoid", "egm96", "egm2008"}
            Surface that the heights refer to; auto: as stated in the files.
        geoid : str, optional
            Geoid grid (GeoTIFF or GTX) for EGM heights; default: PROJ's own grid.
        absent : {"error", "sea", "mask"}
            Where no tile lies: refuse; sea level (height 0 above the geoid); or NaN.
        voids : {"mask", "sea"}
            Holes larger than 32 samples: NaN, or sea level. Smaller ones are filled.
        storage_options : mapping, optional
            For the fsspec file systems.

        Raises
        ------
        ElevationError
            E602 unreadable, E603 no geoid, E604 reference system or datum unknown or in conflict,
            E606 not in metres.
        """
        urls = _expand([url] if isinstance(url, str) else list(url), storage_options)
        tiles = tuple(open_geotiff(item, storage_options) for item in urls)
        datum = _resolve_datum(tiles, vertical_datum)
        is_geoid_needed = datum != "ellipsoid" or "sea" in {absent, voids}
        surface = None
        if is_geoid_needed:
            sea_level = "egm2008" if datum == "ellipsoid" else datum
            surface = open_geoid(sea_level, geoid, storage_options)
        return cls(tiles, datum, surface, absent, voids)

    def covers(self, bounds: Bounds) -> bool:
        """Tell whether tiles lie everywhere within (south, west, north, east) in degrees."""
        return self._uncovered(_checked_bounds(bounds)) is None

    def require(self, bounds: Bounds) -> None:
        """Raise unless ``covers`` holds: E605 for one file, E601 for tiles."""
        missing = self._uncovered(_checked_bounds(bounds))
        if missing is None:
            return
        is_single = len(self.tiles) == 1
        south, west, north, east = _checked_bounds(bounds)
        raise ElevationError(
            "E605" if is_single else "E601",
            "elevation model does not cover the area" if is_single else "elevation tile is missing",
            where=self.tiles[0].label if is_single else f"{len(self.tiles)} tiles",
            expected=f"lat {south:.4f} to {north:.4f}, lon {west:.4f} to {east:.4f}",
            found=f"nothing at lat {missing[0]:.4f}, lon {missing[1]:.4f}",
            remedy="give a larger elevation model; say absent: sea only where there is sea",
        )

    def window(
        self, south: float, west: float, north: float, east: float
    ) -> tuple[NDArray[np.float32], TargetGrid]:
        """Return ellipsoidal heights that cover bounds; see ``read``.

        Returns
        -------
        heights : ndarray (rows, columns) float32
            Metres above the ellipsoid, north-up, NaN = unknown.
        grid : TargetGrid
            ``(lat0, lon0, dlat, dlon)`` in degrees; sample [i, j] lies at ``lat0 + i * dlat``,
            ``lon0 + j * dlon``; ``dlat`` is negative.
        """
        patch = self.read(south, west, north, east)
        return patch.heights_m, patch.grid

    def read(self, south: float, west: float, north: float, east: float) -> ElevationPatch:
        """Read ellipsoidal heights that cover bounds.

        Parameters
        ----------
        south, west, north, east : float
            Degrees. A window across the antimeridian has ``east < west`` or ``east > 180``.

        Returns
        -------
        ElevationPatch
            On the grid of the finest tile; other tiles are interpolated bilinearly.

        Raises
        ------
        ElevationError
            E601 or E605 not covered, E602 damaged, E603 outside the geoid grid, E606 implausible.
        """
        bounds = _checked_bounds((south, west, north, east))
        if self.absent == "error":
            self.require(bounds)
        tiles = tuple(t for t in self.tiles if _touches(t, bounds, 1.0)) or self.tiles[:1]
        # The margin holds any small hole that reaches into the window, together with its rim.
        margin = HOLE_SAMPLES + 2
        target = plan_grid(tiles, bounds, margin)
        heights, present = join_tiles(tiles, target)
        filled, _ = fill_holes(heights)
        inner = np.s_[margin:-margin, margin:-margin]
        count = int((np.isnan(heights[inner]) & ~np.isnan(filled[inner])).sum())
        heights, present, target = _trim(filled[inner], present[inner], target, margin)
        _check_plausible(heights, tiles)
        unknown = np.isnan(heights)
        self._to_ellipsoid(heights, present, target)
        return ElevationPatch(
            heights_m=heights,
            grid=target.grid,
            filled_samples=count,
            void_samples=int((unknown & present).sum()),
            absent_samples=int((~present).sum()),
            sources=(*(t.label for t in tiles), *([self.geoid.label] if self.geoid else [])),
        )

    def _to_ellipsoid(
        self, heights: NDArray[np.float32], present: NDArray[np.bool_], target: Target
    ) -> None:
        """Set sea level where it was asked for and refer heights to the ellipsoid, in place."""
        if self.geoid is None:
            return
        undulation = self.geoid.undulation_m(target.latitudes, target.longitudes)
        unknown = np.isnan(heights)
        if self.datum != "ellipsoid":
            heights += undulation
        sea = np.zeros_like(unknown)
        if self.absent == "sea":
            sea |= unknown & ~present
        if self.voids == "sea":
            sea |= unknown & present
        heights[sea] = undulation[sea]

    def _uncovered(self, bounds: Bounds) -> tuple[float, float] | None:
        """Return a position without tile, or None."""
        south, west, north, east = bounds
        lat, lon = np.meshgrid(
            np.linspace(south, north, _COVERAGE_NODES),
            np.linspace(west, east, _COVERAGE_NODES),
            indexing="ij",
        )
        covered = np.zeros(lat.shape, dtype=np.bool_)
        for tile in self.tiles:
            if _touches(tile, bounds, 1.0):
                covered |= _inside(tile, lat, lon)
        if covered.all():
            return None
        first = np.argwhere(~covered)[0]
        return float(lat[tuple(first)]), float(lon[tuple(first)])


def _expand(urls: list[str], storage_options: StorageOptions) -> list[str]:
    found: list[str] = []
    for url in urls:
        filesystem, path = fsspec.url_to_fs(url, **(storage_options or {}))
        if not filesystem.isdir(path):
            found.append(url)
            continue
        names = sorted(filesystem.find(path))
        tiffs = [n for n in names if posixpath.splitext(n)[1].lower() in {".tif", ".tiff"}]
        found.extend(filesystem.unstrip_protocol(name) for name in tiffs)
    if not 0 < len(found) <= _FILE_LIMIT:
        raise ElevationError(
            "E602",
            "no elevation files" if not found else "too many elevation files",
            where=display_name(urls[0]) if urls else "dem",
            expected=f"1 to {_FILE_LIMIT} GeoTIFF files",
            found=str(len(found)),
            remedy="correct the path of the elevation model",
        )
    return found


def _resolve_datum(tiles: tuple[GeoTiff, ...], declared: VerticalDatum) -> str:
    stated = {tile.vertical for tile in tiles} - {None}
    labels = tiles[0].label if len(tiles) == 1 else f"{len(tiles)} tiles"
    found = ", ".join(sorted(str(item) for item in stated)) or "nothing"
    datum = declared if declared != "auto" else (next(iter(stated)) if len(stated) == 1 else None)
    known = {"ellipsoid", "egm96", "egm2008"}
    silent = declared == "auto" and any(tile.vertical is None for tile in tiles)
    if datum in known and stated <= {datum} and not silent:
        return str(datum)
    causes = {
        True: "vertical datum of the elevation model is not stated",
        False: "vertical datum of the elevation model is in conflict or not supported",
    }
    raise ElevationError(
        "E604",
        causes[silent and len(stated) < 2],
        where=labels,
        expected=declared if declared != "auto" else "a stated ellipsoid, egm96 or egm2008",
        found=f"{found} in the file",
        remedy="set dem.vertical_datum to what the heights refer to",
    )


def _checked_bounds(bounds: Bounds) -> Bounds:
    south, west, north, east = (float(value) for value in bounds)
    if east < west:
        east += 360.0
    good = -90.0 <= south < north <= 90.0 and 0.0 < east - west <= 360.0
    if not (good and -360.0 <= west <= 360.0):
        found = f"south {south:g}, west {west:g}, north {north:g}, east {east:g}"
        message = f"bounds must be (south, west, north, east) in degrees, instead got {found}"
        raise ValueError(message)
    return south, west, north, east


def _touches(tile: GeoTiff, bounds: Bounds, slack_deg: float) -> bool:
    south, west, north, east = bounds
    if not tile.is_geographic:
        return True
    low, left, high, right = tile.bounds
    turn = 360.0 * round((0.5 * (west + east) - 0.5 * (left + right)) / 360.0)
    return (
        low - slack_deg <= north
        and high + slack_deg >= south
        and left + turn - slack_deg <= east
        and right + turn + slack_deg >= west
    )


def _inside(tile: GeoTiff, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, left, high, right = tile.bounds
    if tile.is_geographic:
        x, y = lon - 360.0 * np.round((lon - 0.5 * (left + right)) / 360.0), lat
    else:
        transformer = Transformer.from_crs("EPSG:4326", tile.system, always_xy=True)
        x, y = transformer.transform((lon + 180.0) % 360.0 - 180.0, lat)
    slack = 1e-6 * tile.placement.dx
    inside: NDArray[np.bool_] = (
        (x >= left - slack) & (x <= right + slack) & (y >= low - slack) & (y <= high + slack)
    )
    return inside


def _trim(
    heights: NDArray[np.float32], present: NDArray[np.bool_], target: Target, margin: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Target]:
    """Leave out the margin, and the outer rows and columns where no tile lies at all."""
    rows, columns = np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))
    top, bottom = (int(rows[0]), int(rows[-1])) if rows.size else (0, present.shape[0] - 1)
    left, right = (int(columns[0]), int(columns[-1])) if columns.size else (0, present.shape[1] - 1)
    # Half a sample only: what absent="sea" or "mask" adds on purpose stays.
    top, left = (top if top <= 1 else 0), (left if left <= 1 else 0)
    bottom = bottom if bottom >= present.shape[0] - 2 else present.shape[0] - 1
    right = right if right >= present.shape[1] - 2 else present.shape[1] - 1
    part = np.s_[top : bottom + 1, left : right + 1]
    grid = target.grid
    inner = TargetGrid(
        grid.lat0 + (margin + top) * grid.dlat,
        grid.lon0 + (margin + left) * grid.dlon,
        grid.dlat,
        grid.dlon,
    )
    kept = heights[part].copy()
    return kept, present[part], Target(inner, *kept.shape)


def _check_plausible(heights: NDArray[np.float32], tiles: tuple[GeoTiff, ...]) -> None:
    finite = heights[np.isfinite(heights)]
    if not finite.size or (finite.min() >= _LOWEST_M and finite.max() <= _HIGHEST_M):
        return
    raise ElevationError(
        "E606",
        "elevation model has implausible heights",
        where=", ".join(tile.label for tile in tiles[:3]),
        expected=f"metres within {_LOWEST_M:g} to {_HIGHEST_M:g}, and a nodata value for voids",
        found=f"{finite.min():g} to {finite.max():g}",
        remedy="convert it to metres and state its nodata value",
    )
