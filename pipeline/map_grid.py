"""The map grid of geocoded products: reference system, spacing, extent.

Cell edges are whole multiples of the spacing, so that neighbouring products share their cells, and
cell ``[0, 0]`` lies in the north-west.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.stores.errors import ConfigurationError
from bperp.stores.projection import Projection, choose_projection, open_projection

__all__ = ["MapGrid", "boxes_on_map", "plan_map_grid"]

Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]
Outline = tuple[NDArray[np.float64], NDArray[np.float64]]

# Spacings that people find on maps; the largest that is not coarser than the pixels is taken.
_ROUND = (1.0, 2.0, 2.5, 4.0, 5.0, 8.0)
_MOST_CELLS = 2**34
_ROUNDING = 1e-6
_MARGIN_M = 100.0


class MapGrid(NamedTuple):
    """A north-up grid; ``column`` and ``row`` count cells from the origin of the system.

    The cell ``[i, j]`` is centred at ``x = (column + j + 0.5) * spacing`` and
    ``y = (row - i - 0.5) * spacing``.
    """

    crs: str
    spacing: float
    column: int
    row: int
    rows: int
    columns: int

    @property
    def projection(self) -> Projection:
        """The reference system, opened."""
        return open_projection(self.crs)

    def x(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the centres of columns ``start`` to ``stop``."""
        return (self.column + np.arange(start, stop, dtype=np.float64) + 0.5) * self.spacing

    def y(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the centres of rows ``start`` to ``stop``, from the north."""
        return (self.row - np.arange(start, stop, dtype=np.float64) - 0.5) * self.spacing

    def meets(self, window: Window, box: Box) -> bool:
        """Tell whether rows and columns ``(top, bottom, left, right)`` touch a box on the map."""
        top, bottom, left, right = window
        return (
            (self.column + left) * self.spacing <= box[2]
            and (self.column + right) * self.spacing >= box[0]
            and (self.row - bottom) * self.spacing <= box[3]
            and (self.row - top) * self.spacing >= box[1]
        )


def boxes_on_map(crs: str, outlines_deg: Sequence[Outline]) -> list[Box]:
    """Return boxes ``(xmin, ymin, xmax, ymax)`` around outlines, with a margin of 100 m.

    Parameters
    ----------
    crs : str
        Reference system of the map.
    outlines_deg : sequence of tuple
        Latitudes and longitudes (n,) in degrees along the edges of each burst.

    Returns
    -------
    list of tuple
        In units of the system; geographic ones all lie on one side of the antimeridian.

    Raises
    ------
    ConfigurationError
        C102 if the system cannot show an outline.
    """
    projection = open_projection(crs)
    margin = _MARGIN_M / projection.metres_per_unit
    boxes: list[Box] = []
    first = 0.0
    for latitude, longitude in outlines_deg:
        x, y = projection.from_geographic(longitude, latitude)
        if not boxes:
            first = float(x[0])
        if projection.is_geographic:
            x = x - 360.0 * np.round((x - first) / 360.0)
        edges = (x.min(), y.min(), x.max(), y.max())
        signs = (-1.0, -1.0, 1.0, 1.0)
        left, low, right, high = (
            float(edge) + sign * margin for edge, sign in zip(edges, signs, strict=True)
        )
        boxes.append((left, low, right, high))
    return boxes


def plan_map_grid(
    options: Mapping[str, Any], outlines_deg: Sequence[Outline], pixel_m: float
) -> MapGrid:
    """Choose the grid of a product.

    Parameters
    ----------
    options : mapping
        ``crs``: "auto" (UTM, or polar stereographic beyond 84 degrees) or what PROJ takes;
        ``spacing``: "auto" or the edge of a cell in units of the system (degrees in geographic
        systems); ``bounds``: "auto" or ``[xmin, ymin, xmax, ymax]`` in the system.
    outlines_deg : sequence of tuple
        Latitudes and longitudes (n,) in degrees along the edges of each burst.
    pixel_m : float, m
        Edge of the radar's pixels on the ground, for the automatic spacing.

    Returns
    -------
    MapGrid
        Extended to whole cells.

    Raises
    ------
    ConfigurationError
        C102 if an option does not fit, or the grid misses the scene or is beyond any use.
    """
    crs = options["crs"]
    if crs == "auto":
        crs = _choose_projection(outlines_deg)
    spacing = options["spacing"]
    if spacing == "auto":
        spacing = _round_down(pixel_m / open_projection(crs).metres_per_unit)
    boxes = boxes_on_map(crs, outlines_deg)
    scene = tuple(choose(box[k] for box in boxes) for k, choose in enumerate((min, min, max, max)))
    wanted = options["bounds"]
    edges = scene if wanted == "auto" else tuple(float(value) for value in wanted)
    _require_sense(edges, scene, float(spacing))
    left, bottom, right, top = (value / spacing for value in edges)
    column, row = math.floor(left + _ROUNDING), math.ceil(top - _ROUNDING)
    rows = row - math.floor(bottom + _ROUNDING)
    columns = math.ceil(right - _ROUNDING) - column
    if rows * columns > _MOST_CELLS:
        raise _refused("spacing", f"at most {_MOST_CELLS} cells", f"{rows} x {columns}")
    return MapGrid(crs, float(spacing), column, row, rows, columns)


def _choose_projection(outlines_deg: Sequence[Outline]) -> str:
    latitude = np.concatenate([outline[0] for outline in outlines_deg])
    longitude = np.concatenate([outline[1] for outline in outlines_deg])
    longitude = longitude - 360.0 * np.round((longitude - longitude[0]) / 360.0)
    middle = 0.5 * (longitude.min() + longitude.max())
    return choose_projection(0.5 * float(latitude.min() + latitude.max()), float(middle))


def _round_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{max(step for step in _ROUND if step * power <= value) * power:.12g}")


def _require_sense(edges: tuple[float, ...], scene: tuple[float, ...], spacing: float) -> None:
    if not (math.isfinite(spacing) and spacing > 0.0):
        raise _refused("spacing", "a positive number", f"{spacing:g}")
    found = ", ".join(f"{value:g}" for value in edges)
    if len(edges) != 4 or not (edges[0] < edges[2] and edges[1] < edges[3]):
        raise _refused("bounds", "xmin, ymin, xmax, ymax in rising order", found)
    apart = edges[0] > scene[2] or edges[2] < scene[0] or edges[1] > scene[3] or edges[3] < scene[1]
    if apart:
        area = ", ".join(f"{value:g}" for value in scene)
        raise _refused("bounds", f"an area that meets the scene ({area})", found)


def _refused(option: str, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        "C102",
        "the map grid cannot be made",
        where=f"geocode.{option}",
        expected=expected,
        found=found,
        remedy="use auto, or values in units of geocode.crs (degrees if it is geographic)",
    )
