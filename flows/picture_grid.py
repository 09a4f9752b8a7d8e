"""Maps of a published cube: velocity and displacement in the cells of a map grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.picture_maps import VELOCITY_LABEL
from bperp.flows.picture_style import (
    VELOCITY_MAP,
    color_bar,
    color_map,
    counted,
    picture,
    say_empty,
    symmetric_limit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISPLACEMENT_LABEL = "displacement (mm)\n− away from satellite      towards satellite +"


def picture_published(
    path: Path | str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    velocity_mm_yr: NDArray[Any],
    displacement_mm: NDArray[Any],
    *,
    latest: str,
    is_geographic: bool = False,
    title: str = "Velocity and displacement on the map",
    note: str = "",
) -> None:
    """Draw velocity and displacement in the cells of a map, north up.

    Parameters
    ----------
    path : Path or str
        PNG file.
    x, y : array of shape (column,), (row,)
        Cell centres, equally spaced, y falling; m, or degrees of longitude and latitude.
    velocity_mm_yr, displacement_mm : array of shape (row, column)
        Positive towards the satellite, NaN = none.
    latest : str
        Date of the displacement.
    is_geographic : bool
        x and y are degrees.
    title, note : str
        Heading and second line; number and size of the filled cells are added.
    """
    filled = int(np.count_nonzero(np.isfinite(velocity_mm_yr)))
    size = f"of {x[1] - x[0]:g} {'degrees' if is_geographic else 'm'}" if len(x) > 1 else ""
    note = "  ·  ".join(filter(None, [note, f"{counted(filled, 'cell')} {size}".strip()]))
    panels = (
        (velocity_mm_yr, "Velocity", VELOCITY_LABEL),
        (displacement_mm, f"Displacement to {latest}", DISPLACEMENT_LABEL),
    )
    width, height = _panel_size(x, y, is_geographic=is_geographic)
    with picture(path, (2 * (width + 1.6), height + 1.5), title, note) as figure:
        axes = figure.subplots(1, 2)
        for number, (values, heading, label) in enumerate(panels):
            drawn = _draw(axes[number], x, y, values, is_geographic=is_geographic)
            axes[number].set_title(heading)
            color_bar(figure, drawn, axes[number], label, extend="both")
            if not filled:
                say_empty(axes[number])
        axes[1].tick_params(labelleft=False)
        axes[0].set_ylabel("latitude (°)" if is_geographic else "northing (km)")


def _draw(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    values: NDArray[Any],
    *,
    is_geographic: bool,
) -> Any:
    from matplotlib.ticker import MaxNLocator

    limit, unit = symmetric_limit(values), 1.0 if is_geographic else 1e-3
    west, east, south, north = (unit * edge for edge in _edges(x, y))
    image = axes.imshow(
        values,
        extent=(west, east, south, north),
        cmap=color_map(VELOCITY_MAP),
        vmin=-limit,
        vmax=limit,
        aspect=_stretch(y, is_geographic=is_geographic),
    )
    narrow = (east - west) < 0.5 * (north - south)
    axes.xaxis.set_major_locator(MaxNLocator(2 if narrow else 4, steps=[1, 2, 5, 10]))
    axes.set_xlabel("longitude (°)" if is_geographic else "easting (km)")
    return image


def _edges(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return west, east, south, north of the outer edges of the cells."""
    halves = [0.5 * (abs(float(c[1] - c[0])) if len(c) > 1 else 1.0) for c in (x, y)]
    return (
        float(x[0]) - halves[0],
        float(x[-1]) + halves[0],
        float(y[-1]) - halves[1],
        float(y[0]) + halves[1],
    )


def _stretch(y: NDArray[np.float64], *, is_geographic: bool) -> float:
    """Return how much longer a unit of y is drawn than one of x."""
    return 1.0 / math.cos(math.radians(float(y.mean()))) if is_geographic else 1.0


def _panel_size(
    x: NDArray[np.float64], y: NDArray[np.float64], *, is_geographic: bool
) -> tuple[float, float]:
    """Return width and height of a panel in inches."""
    west, east, south, north = _edges(x, y)
    ratio = (east - west) / ((north - south) * _stretch(y, is_geographic=is_geographic))
    return (5.4, max(5.4 / ratio, 1.5)) if ratio > 1 else (max(6.0 * ratio, 1.2), 6.0)
