"""Map projections: the reference systems of geocoded products, through PROJ.

Coordinates are in the order x (easting, longitude), y (northing, latitude) whatever the axis order
of the reference system; geographic positions are WGS84 longitude and latitude in degrees.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from bperp.stores.errors import ConfigurationError

__all__ = ["Projection", "choose_projection", "open_projection"]

_GEOGRAPHIC = "EPSG:4326"
_METRES_PER_DEGREE = 111_195.0
_UTM_LATITUDE_DEG = 84.0


def choose_projection(latitude_deg: float, longitude_deg: float) -> str:
    """Return the reference system in which a scene around a place is mapped by default.

    Parameters
    ----------
    latitude_deg, longitude_deg : float
        Centre of the scene.

    Returns
    -------
    str
        The UTM zone of the place on WGS84 (without the exceptions of Norway and Svalbard), or
        polar stereographic (EPSG:3413 or EPSG:3031) beyond 84 degrees.
    """
    if abs(latitude_deg) > _UTM_LATITUDE_DEG:
        return "EPSG:3413" if latitude_deg > 0 else "EPSG:3031"
    zone = int((longitude_deg + 180.0) % 360.0 // 6.0) + 1
    return f"EPSG:{(32600 if latitude_deg >= 0 else 32700) + zone}"


@lru_cache(maxsize=8)
def open_projection(text: str) -> Projection:
    """Return the projection that a text stands for, opened once.

    Parameters
    ----------
    text : str
        Anything PROJ takes for a reference system: ``EPSG:32633``, WKT, ...

    Raises
    ------
    ConfigurationError
        C102 if it is unknown, neither projected nor geographic in degrees, or more than 2-D.
    """
    try:
        system = CRS.from_user_input(text)
    except CRSError as error:
        raise _refused(text, "a reference system that PROJ knows", str(error)) from error
    degrees = system.is_geographic and system.axis_info[0].unit_name.startswith("degree")
    if len(system.axis_info) != 2 or not (system.is_projected or degrees):
        raise _refused(text, "a projected or geographic (degrees) 2-D system", system.type_name)
    try:
        return Projection(system, text)
    except ProjError as error:
        raise _refused(text, "a system with a way from WGS84", str(error)) from error


class Projection:
    """Between map coordinates and WGS84.

    Parameters
    ----------
    system : pyproj.CRS
        Two-dimensional, projected or geographic.
    text : str
        How the user named it.

    Attributes
    ----------
    is_geographic : bool
        Coordinates are longitude and latitude in degrees.
    epsg : int or None
        Code of the system if PROJ is sure about it.
    metres_per_unit : float
        About the length of one unit of the coordinates (degrees: along a meridian).
    """

    def __init__(self, system: CRS, text: str) -> None:
        self._system, self._text = system, text
        self._forth = Transformer.from_crs(
            _GEOGRAPHIC, system, always_xy=True, allow_ballpark=False
        )
        self._back = Transformer.from_crs(system, _GEOGRAPHIC, always_xy=True, allow_ballpark=False)
        self.is_geographic = bool(system.is_geographic)
        self.epsg: int | None = system.to_epsg()
        unit = system.axis_info[0]
        self.metres_per_unit = (
            _METRES_PER_DEGREE if self.is_geographic else float(unit.unit_conversion_factor)
        )
        self._unit_name = str(unit.unit_name)

    def to_geographic(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return longitudes and latitudes in degrees, NaN where the projection ends.

        Parameters
        ----------
        x, y : ndarray, any shape, float64
            Map coordinates in units of the system.
        """
        longitude, latitude = self._back.transform(x, y)
        lost = ~(np.isfinite(longitude) & np.isfinite(latitude))
        return np.where(lost, np.nan, longitude), np.where(lost, np.nan, latitude)

    def from_geographic(
        self, longitude_deg: NDArray[np.float64], latitude_deg: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return map coordinates of longitudes and latitudes in degrees.

        Raises
        ------
        ConfigurationError
            C102 if a position lies beyond what the projection can show.
        """
        x, y = self._forth.transform(longitude_deg, latitude_deg)
        lost = ~(np.isfinite(x) & np.isfinite(y))
        if lost.any():
            place = (float(latitude_deg[lost][0]), float(longitude_deg[lost][0]))
            found = "latitude {:.3f}, longitude {:.3f}".format(*place)
            raise _refused(self._text, "a system whose area holds the scene", found)
        return x, y

    def grid_mapping(self, left: float, top: float, spacing: float) -> dict[str, Any]:
        """Return the CF attributes of the system and of a north-up grid in it.

        Parameters
        ----------
        left, top : float
            Outer corner of the first cell, in units of the system.
        spacing : float
            Edge of a cell.

        Returns
        -------
        dict
            What xarray, rioxarray and GDAL look for in a variable ``spatial_ref``.
        """
        found = self._system.to_cf()
        record = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
        }
        transform = " ".join(repr(float(v)) for v in (left, spacing, 0, top, 0, -spacing))
        return {**record, "spatial_ref": record["crs_wkt"], "GeoTransform": transform}

    def axis_attributes(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the CF attributes of the coordinates x and y of cell centres."""
        if self.is_geographic:
            return (
                {"axis": "X", "standard_name": "longitude", "units": "degrees_east"},
                {"axis": "Y", "standard_name": "latitude", "units": "degrees_north"},
            )
        units = "m" if self._unit_name in {"metre", "meter"} else self._unit_name
        return (
            {"axis": "X", "standard_name": "projection_x_coordinate", "units": units},
            {"axis": "Y", "standard_name": "projection_y_coordinate", "units": units},
        )


def _refused(text: str, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        "C102",
        f"the reference system {text[:60]!r} cannot be used",
        where="geocode.crs",
        expected=expected,
        found=found[:200],
        remedy="give auto, or another system such as EPSG:32633",
    )
