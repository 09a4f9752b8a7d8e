"""Georeferenced TIFF rasters: where the samples are, in which system, and their values.

References
----------
OGC GeoTIFF Standard 1.1 (19-008r4); GDAL tags 42112 and 42113.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from bperp.stores.byte_source import ByteSource, StorageOptions, display_name, open_source
from bperp.stores.errors import ElevationError
from bperp.stores.tiff import TagValue, TiffError, TiffPage, open_page
from bperp.stores.tiff_decode import read_region, sample_dtype

__all__ = ["GeoTiff", "Placement", "open_geotiff"]

_PIXEL_SCALE, _TIE_POINT, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _DOUBLES, _TEXTS, _METADATA, _NODATA = 34735, 34736, 34737, 42112, 42113
_MODEL, _RASTER, _GEODETIC, _ANGLE_UNIT = 1024, 1025, 2048, 2054
_SEMI_MAJOR, _INVERSE_FLATTENING = 2057, 2059
_PROJECTED, _VERTICAL, _VERTICAL_UNIT = 3072, 4096, 4099
_USER_DEFINED, _DEGREE, _METRE = 32767, 9102, 9001
_PIXEL_IS_POINT = 2
_VERTICAL_DATUMS = {5773: "egm96", 3855: "egm2008", 5798: "egm84", 5030: "ellipsoid"}
KeyValue = int | float | str


class Placement(NamedTuple):
    """Centre of the first sample and steps per column and row, in units of the system.

    ``dy`` is negative for north-up rasters.
    """

    x0: float
    y0: float
    dx: float
    dy: float


@dataclass(frozen=True, eq=False)
class GeoTiff:
    """An open single-band raster.

    Parameters
    ----------
    label : str
        File name.
    system : pyproj.CRS
        Horizontal reference system.
    vertical : str or None
        ``ellipsoid``, ``egm96``, ``egm2008``, another name, or None when the file does not say.
    placement : Placement
    nodata : float or None
    rows, columns : int
    """

    label: str
    system: CRS
    vertical: str | None
    placement: Placement
    nodata: float | None
    rows: int
    columns: int
    source: ByteSource
    page: TiffPage

    @property
    def is_geographic(self) -> bool:
        """Whether x is longitude and y latitude, in degrees."""
        return bool(self.system.is_geographic)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Outer edges of the samples: (y low, x low, y high, x high)."""
        x0, y0, dx, dy = self.placement
        x1, y1 = x0 + (self.columns - 0.5) * dx, y0 + (self.rows - 0.5) * dy
        first_x, first_y = x0 - 0.5 * dx, y0 - 0.5 * dy
        return min(first_y, y1), first_x, max(first_y, y1), x1

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float32]:
        """Read a region; samples without value are NaN.

        Parameters
        ----------
        rows, columns : tuple of int
            Start and stop in the raster.

        Returns
        -------
        ndarray (rows, columns) float32

        Raises
        ------
        ElevationError
            E602 when the file is damaged or compressed in a way that is not supported.
        """
        try:
            kind = sample_dtype(self.page)
            values = read_region(
                self.source, self.page, rows, columns, kind, _fill_value(kind, self.nodata)
            )[..., 0]
        except TiffError as error:
            raise _unreadable(self.label, error.found) from error
        floats = values.astype(np.float32)
        if self.nodata is not None and np.isfinite(self.nodata):
            # Nodata of float rasters is written with more digits than float32 holds.
            marker = np.float32(self.nodata) if kind.kind == "f" else self.nodata
            floats[values == marker] = np.nan
        return floats


def _fill_value(kind: np.dtype[np.generic], nodata: float | None) -> float:
    """Return what GDAL means by a segment that is left out of the file."""
    if kind.kind == "f":
        return np.nan if nodata is None else nodata
    limits = np.iinfo(cast("np.dtype[np.integer[Any]]", kind))
    return 0 if nodata is None or not limits.min <= nodata <= limits.max else int(nodata)


def _unreadable(label: str, found: str) -> ElevationError:
    return ElevationError(
        "E602",
        "raster is not readable",
        where=label,
        expected="a GeoTIFF, plain or compressed by deflate, LZW, PackBits or Zstandard",
        found=found[:120],
        remedy="fetch it again, or rewrite it with deflate compression",
    )


def _unplaced(label: str, cause: str, found: str) -> ElevationError:
    return ElevationError(
        "E604",
        cause,
        where=label,
        expected="a north-up raster in a known reference system",
        found=found[:120],
        remedy="warp it to EPSG:4326 and state the vertical datum",
    )


def open_geotiff(url: str, storage_options: StorageOptions = None) -> GeoTiff:
    """Read the structure and the placement of a single-band GeoTIFF.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    storage_options : mapping, optional
        For the fsspec file system.

    Raises
    ------
    ElevationError
        E602 not readable, E604 without usable placement or reference system, E606 scaled values
        or heights in feet.
    """
    label = display_name(url)
    try:
        source = open_source(url, storage_options)
        page = open_page(source)
        sample_dtype(page)
    except (TiffError, FileNotFoundError, IsADirectoryError) as error:
        found = error.found if isinstance(error, TiffError) else "no such file"
        raise _unreadable(label, found) from error
    if page.samples_per_pixel != 1:
        raise _unreadable(label, f"{page.samples_per_pixel} bands")
    keys = _read_keys(page.tags, label)
    system, vertical = _reference_system(keys, label)
    _check_units(keys, page.tags, label)
    return GeoTiff(
        label=label,
        system=system,
        vertical=vertical,
        placement=_place(page.tags, keys, label),
        nodata=_read_nodata(page.tags, label),
        rows=page.length,
        columns=page.width,
        source=source,
        page=page,
    )


def _doubles(tags: Mapping[int, TagValue], tag: int) -> NDArray[np.float64]:
    value = tags.get(tag)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return np.empty(0)
    return value.astype(np.float64)


def _ascii(tags: Mapping[int, TagValue], tag: int) -> str:
    value = tags.get(tag)
    return value.rstrip(b"\0").decode("ascii", "replace") if isinstance(value, bytes) else ""


def _read_keys(tags: Mapping[int, TagValue], label: str) -> dict[int, KeyValue]:
    directory = tags.get(_KEYS)
    if not isinstance(directory, np.ndarray) or directory.size < 4:
        raise _unplaced(label, "raster has no reference system", "no GeoTIFF keys")
    entries = [int(v) for v in directory.tolist()]
    doubles, texts = _doubles(tags, _DOUBLES), _ascii(tags, _TEXTS)
    keys: dict[int, KeyValue] = {}
    for start in range(4, len(entries) - 3, 4):
        key, place, count, value = entries[start : start + 4]
        if place == 0:
            keys[key] = value
        elif place == _DOUBLES and count == 1 and value < doubles.size:
            keys[key] = float(doubles[value])
        elif place == _TEXTS:
            keys[key] = texts[value : value + count].rstrip("|")
    return keys


def _reference_system(keys: Mapping[int, KeyValue], label: str) -> tuple[CRS, str | None]:
    model = keys.get(_MODEL)
    code = keys.get(_PROJECTED if model == 1 else _GEODETIC, 0)
    is_wgs84 = (
        abs(float(keys.get(_SEMI_MAJOR, 0.0)) - 6378137.0) < 1e-3
        and abs(float(keys.get(_INVERSE_FLATTENING, 0.0)) - 298.257223563) < 1e-6
        if all(isinstance(keys.get(k), float) for k in (_SEMI_MAJOR, _INVERSE_FLATTENING))
        else False
    )
    if code in {0, _USER_DEFINED} and model == 2 and is_wgs84:
        code = 4326
    if model not in {1, 2} or code in {0, _USER_DEFINED}:
        found = f"model {model}, code {code}"
        raise _unplaced(label, "reference system of the raster is not known", found)
    try:
        system = CRS.from_epsg(int(code))
    except (CRSError, ValueError) as error:
        found = f"EPSG:{code}"
        raise _unplaced(label, "reference system of the raster is not known", found) from error
    vertical = _vertical_datum(keys.get(_VERTICAL))
    if system.is_compound:
        # Strictly the vertical part belongs into a key of its own, but writers differ.
        vertical = vertical or _vertical_datum(system.sub_crs_list[1].to_epsg())
        system = system.sub_crs_list[0]
    elif len(system.axis_info) == 3:
        vertical, system = vertical or "ellipsoid", system.to_2d()
    if not (system.is_geographic or system.is_projected):
        raise _unplaced(label, "reference system of the raster is not usable", system.name)
    return system, vertical


def _vertical_datum(code: KeyValue | None) -> str | None:
    if code in {None, 0}:
        return None
    return _VERTICAL_DATUMS.get(cast(int, code), f"EPSG:{code}")


def _check_units(keys: Mapping[int, KeyValue], tags: Mapping[int, TagValue], label: str) -> None:
    if keys.get(_ANGLE_UNIT, _DEGREE) != _DEGREE:
        raise _unplaced(label, "raster is not in degrees", f"unit {keys[_ANGLE_UNIT]}")
    scale = re.search(
        r'role="(scale|offset)"[^>]*>\s*([-+0-9.eE]+)', _ascii(tags, _METADATA)[:100_000]
    )
    neutral = {"scale": "1", "offset": "0"}
    is_scaled = scale is not None and scale[2].rstrip("0").rstrip(".") not in {
        neutral[scale[1]],
        "",
    }
    if keys.get(_VERTICAL_UNIT, _METRE) not in {_METRE, 0} or is_scaled:
        found = f"{scale[1]} {scale[2]}" if scale and is_scaled else f"unit {keys[_VERTICAL_UNIT]}"
        raise ElevationError(
            "E606",
            "raster is not in metres",
            where=label,
            expected="heights in metres without scale factor",
            found=found,
            remedy="convert it to metres",
        )


def _place(tags: Mapping[int, TagValue], keys: Mapping[int, KeyValue], label: str) -> Placement:
    scale, tie = _doubles(tags, _PIXEL_SCALE), _doubles(tags, _TIE_POINT)
    matrix = _doubles(tags, _TRANSFORMATION)
    if scale.size >= 2 and tie.size == 6:
        dx, dy = float(scale[0]), -float(scale[1])
        x0, y0 = float(tie[3] - tie[0] * dx), float(tie[4] - tie[1] * dy)
    elif matrix.size == 16 and matrix[1] == 0.0 and matrix[4] == 0.0:
        dx, dy, x0, y0 = (float(matrix[i]) for i in (0, 5, 3, 7))
    else:
        raise _unplaced(label, "raster is rotated or has no placement", f"{tie.size} tie points")
    if not (dx > 0.0 and dy != 0.0 and np.isfinite([dx, dy, x0, y0]).all()):
        raise _unplaced(label, "raster has an impossible placement", f"steps {dx:g}, {dy:g}")
    # The tie point is a corner of the first pixel unless pixels are points.
    shift = 0.0 if keys.get(_RASTER, 1) == _PIXEL_IS_POINT else 0.5
    return Placement(x0 + shift * dx, y0 + shift * dy, dx, dy)


def _read_nodata(tags: Mapping[int, TagValue], label: str) -> float | None:
    value = _ascii(tags, _NODATA).strip()
    if not value:
        return None
    try:
        return float(value)
    except ValueError as error:
        raise _unreadable(label, f"nodata value {value[:40]!r}") from error
