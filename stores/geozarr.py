"""GeoZarr attributes: where the pixels of a group lie on the Earth, for readers that look for it.

Three Zarr conventions in their published version 0.1 (``proj``, ``spatial``, ``multiscales``),
beside CF and not instead of it. They stand at the group and hold for the arrays directly in it,
because the arrays of a group share one grid. Where there is an overview, ``spatial:transform`` and
``spatial:shape`` stand at its levels only, so that nobody takes one level's for another's.

References
----------
https://github.com/zarr-conventions/proj/blob/v0.1/README.md,
https://github.com/zarr-conventions/spatial/blob/v0.1/README.md,
https://github.com/zarr-conventions/multiscales/blob/v0.1/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["GridPlace", "grid_attributes", "multiscale_attributes"]

_VERSION = "v0.1"
_CONVENTIONS = {
    "proj": (
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "Coordinate reference system information for geospatial data",
    ),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": (
        "d35379db-88df-4056-af3a-620245f8e347",
        "Multiscale layout of zarr datasets",
    ),
}
"""Name to UUID and the description that the schema asks for."""


class GridPlace(NamedTuple):
    """A north-up grid on a map.

    Attributes
    ----------
    left, top : float
        Outer corner of the first cell, in units of the reference system.
    spacing : float
        Edge of a cell.
    shape : tuple of int
        Rows and columns.
    wkt2 : str
        The reference system.
    epsg : int or None
        Its code, if it has one.
    """

    left: float
    top: float
    spacing: float
    shape: tuple[int, int]
    wkt2: str
    epsg: int | None

    @property
    def transform(self) -> list[float]:
        """Affine coefficients from column and row of a corner to x and y."""
        return [self.spacing, 0.0, self.left, 0.0, -self.spacing, self.top]

    def halved(self, times: int) -> GridPlace:
        """Return the grid of an overview, each cell of which holds two by two, so many times."""
        rows, columns = (-(-size // 2**times) for size in self.shape)
        return self._replace(spacing=self.spacing * 2**times, shape=(rows, columns))


def grid_attributes(place: GridPlace) -> dict[str, Any]:
    """Return the attributes of a group whose arrays lie on one grid."""
    return {
        "zarr_conventions": _registry("proj", "spatial"),
        **_system(place),
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": _box(place),
        "spatial:transform_type": "affine",
        "spatial:transform": place.transform,
        "spatial:shape": list(place.shape),
        "spatial:registration": "pixel",
    }


def multiscale_attributes(places: Sequence[GridPlace], resampling_method: str) -> dict[str, Any]:
    """Return the attributes of a group whose members ``0``, ``1``, ... are levels of an overview.

    Parameters
    ----------
    places : sequence of GridPlace
        Finest level first, each made of the one before by joining two by two cells.
    resampling_method : str
        How, in the words of the convention.
    """
    return {
        "zarr_conventions": _registry("multiscales", "proj", "spatial"),
        "multiscales": {
            "layout": [_level(level, place) for level, place in enumerate(places)],
            "resampling_method": resampling_method,
        },
        **_system(places[0]),
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": _box(places[0]),
    }


def _level(level: int, place: GridPlace) -> dict[str, Any]:
    # The centre of cell [0, 0] of a level lies at [0.5, 0.5] of the level before.
    relative: Mapping[str, Any] = {"transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]}}
    if level > 0:
        transform = {"scale": [2.0, 2.0], "translation": [0.5, 0.5]}
        relative = {"derived_from": str(level - 1), "transform": transform}
    return {
        "asset": str(level),
        **relative,
        "spatial:shape": list(place.shape),
        "spatial:transform": place.transform,
    }


def _registry(*names: str) -> list[dict[str, str]]:
    raw = "https://raw.githubusercontent.com/zarr-conventions"
    pages = "https://github.com/zarr-conventions"
    return [
        {
            "name": name,
            "uuid": _CONVENTIONS[name][0],
            "schema_url": f"{raw}/{name}/refs/tags/{_VERSION}/schema.json",
            "spec_url": f"{pages}/{name}/blob/{_VERSION}/README.md",
            "description": _CONVENTIONS[name][1],
        }
        for name in names
    ]


def _system(place: GridPlace) -> dict[str, str]:
    code = {} if place.epsg is None else {"proj:code": f"EPSG:{place.epsg}"}
    return {**code, "proj:wkt2": place.wkt2}


def _box(place: GridPlace) -> list[float]:
    height, width = (size * place.spacing for size in place.shape)
    return [place.left, place.top - height, place.left + width, place.top]
