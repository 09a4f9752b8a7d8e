"""Maps of velocity in longitude and latitude."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bperp.flows.picture_style import (
    INK,
    LINES,
    PALE,
    SIGMA_MAP,
    VELOCITY_MAP,
    color_bar,
    color_map,
    counted,
    picture,
    robust_limits,
    say_empty,
    signed,
    symmetric_limit,
    thin_points,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VELOCITY_LABEL = "line-of-sight velocity (mm/yr)\n− away from satellite      towards satellite +"


@dataclass(frozen=True)
class GriddedMap:
    """Values on a regular grid of longitude and latitude.

    Parameters
    ----------
    longitude_deg : array of shape (column,)
        Ascending or descending, equally spaced.
    latitude_deg : array of shape (row,)
        Likewise.
    values : array of shape (row, column)
        NaN = none.
    """

    longitude_deg: NDArray[Any]
    latitude_deg: NDArray[Any]
    values: NDArray[Any]

    def at(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return bilinearly interpolated values at points, NaN outside the grid."""
        column = _fraction(self.longitude_deg, lon)
        row = _fraction(self.latitude_deg, lat)
        rows, columns = self.values.shape
        # A little tolerance: the last node may come out at 29.999999999.
        inside = (np.abs(row - 0.5 * (rows - 1)) <= 0.5 * (rows - 1) + 1e-6) & (
            np.abs(column - 0.5 * (columns - 1)) <= 0.5 * (columns - 1) + 1e-6
        )
        row = np.clip(np.where(inside, row, 0.0), 0, rows - 1)
        column = np.clip(np.where(inside, column, 0.0), 0, columns - 1)
        i = np.minimum(row.astype(int), max(rows - 2, 0))
        j = np.minimum(column.astype(int), max(columns - 2, 0))
        u, v = row - i, column - j
        k, m = np.minimum(i + 1, rows - 1), np.minimum(j + 1, columns - 1)
        values = np.asarray(self.values, dtype=np.float64)
        upper = values[i, j] * (1 - v) + values[i, m] * v
        lower = values[k, j] * (1 - v) + values[k, m] * v
        return np.where(inside, upper * (1 - u) + lower * u, np.nan)


def picture_velocity_map(
    path: Path | str,
    lon: ArrayLike,
    lat: ArrayLike,
    velocity_mm_yr: ArrayLike,
    sigma_mm_yr: ArrayLike | None = None,
    *,
    reference_point: tuple[float, float] | None = None,
    background_height: GriddedMap | None = None,
    limit_mm_yr: float | None = None,
    title: str = "Line-of-sight velocity",
    note: str = "",
) -> None:
    """Draw scatterers coloured by velocity, and by its standard deviation if given.

    Parameters
    ----------
    path : Path or str
        PNG file.
    lon, lat : array_like of shape (scatterer,)
        Degrees.
    velocity_mm_yr, sigma_mm_yr : array_like of shape (scatterer,)
        Positive towards the satellite; standard deviation; mm/yr; NaN = not drawn.
    reference_point : (float, float), optional
        Longitude and latitude of zero velocity, drawn as a star.
    background_height : GriddedMap, optional
        Heights in m for a grey relief below the points.
    limit_mm_yr : float, optional
        End of the colour bar; the default holds 99 % of the points.
    title, note : str
        Heading and second line; the number of scatterers is added to the note.
    """
    points = _Points(lon, lat, velocity_mm_yr)
    limit = limit_mm_yr or symmetric_limit(points.value)
    panels = 1 if sigma_mm_yr is None else 2
    note = "  ·  ".join(filter(None, [note, counted(points.value.size, "scatterer")]))
    width, height = points.panel_size(5.4 if panels == 2 else 7.0)
    with picture(path, (panels * (width + 1.5), height + 1.5), title, note) as figure:
        axes = figure.subplots(1, panels, squeeze=False).ravel()
        _draw_map(axes[0], points, background_height)
        scale = {"cmap": color_map(VELOCITY_MAP), "vmin": -limit, "vmax": limit}
        drawn = _scatter(axes[0], points, points.value, width * height, **scale)
        color_bar(figure, drawn, axes[0], VELOCITY_LABEL, extend="both")
        _mark_reference(axes[0], reference_point)
        if sigma_mm_yr is not None:
            sigma = points.same(sigma_mm_yr)
            _draw_map(axes[1], points, background_height, left=False)
            low, high = robust_limits(sigma, 1.0, 99.0)
            scale = {"cmap": color_map(SIGMA_MAP), "vmin": max(low, 0.0), "vmax": high}
            drawn = _scatter(axes[1], points, sigma, width * height, **scale)
            color_bar(
                figure, drawn, axes[1], "standard deviation of velocity (mm/yr)", extend="both"
            )
            _mark_reference(axes[1], reference_point)


def picture_velocity_truth(
    path: Path | str,
    lon: ArrayLike,
    lat: ArrayLike,
    estimate_mm_yr: ArrayLike,
    truth_mm_yr: ArrayLike | GriddedMap,
    *,
    reference_point: tuple[float, float] | None = None,
    limit_mm_yr: float | None = None,
    title: str = "Estimated and true velocity",
    note: str = "",
) -> None:
    """Draw estimate and truth side by side, and the histogram of their difference.

    Parameters
    ----------
    path : Path or str
        PNG file.
    lon, lat : array_like of shape (scatterer,)
        Degrees.
    estimate_mm_yr : array_like of shape (scatterer,)
        Positive towards the satellite, mm/yr.
    truth_mm_yr : array_like of shape (scatterer,) or GriddedMap
        Truth at the scatterers, or a map of it that is interpolated bilinearly.
    reference_point : (float, float), optional
        Longitude and latitude of zero velocity, drawn as a star.
    limit_mm_yr : float, optional
        End of the colour bar.
    title, note : str
        Heading and second line; bias and RMSE are in the title of the histogram.
    """
    points = _Points(lon, lat, estimate_mm_yr)
    if isinstance(truth_mm_yr, GriddedMap):
        truth = truth_mm_yr.at(points.lon, points.lat)
    else:
        truth = points.same(truth_mm_yr)
    limit = limit_mm_yr or symmetric_limit(np.concatenate([points.value, truth]))
    scale = {"cmap": color_map(VELOCITY_MAP), "vmin": -limit, "vmax": limit}
    width, height = points.panel_size(4.2)
    height = max(height, 2.8)
    note = "  ·  ".join(filter(None, [note, counted(points.value.size, "scatterer")]))
    with picture(path, (2 * width + 5.2, height + 1.5), title, note) as figure:
        axes = figure.subplots(1, 3, width_ratios=[width, width, 3.0])
        _draw_map(axes[0], points, None)
        drawn = _scatter(axes[0], points, points.value, width * height, **scale)
        axes[0].set_title("Estimate")
        _draw_map(axes[1], points, None, left=False)
        if isinstance(truth_mm_yr, GriddedMap):
            _mesh(axes[1], truth_mm_yr, **scale)
        else:
            _scatter(axes[1], points, truth, width * height, **scale)
        axes[1].set_title("Truth")
        for panel in axes[:2]:
            _mark_reference(panel, reference_point)
        color_bar(figure, drawn, [axes[0], axes[1]], VELOCITY_LABEL, extend="both")
        _difference_histogram(axes[2], points.value - truth)
        axes[2].set_box_aspect(height / 3.0)


# Parts of the pictures ---------------------------------------------------------------------------


class _Points:
    """Scatterers with a finite place and value, thinned for drawing by ``order``."""

    def __init__(self, lon: ArrayLike, lat: ArrayLike, value: ArrayLike) -> None:
        columns = [np.asarray(column, dtype=np.float64).ravel() for column in (lon, lat, value)]
        self._good = np.isfinite(columns).all(axis=0)
        self.lon, self.lat, self.value = (column[self._good] for column in columns)
        self.order = thin_points(self.value.size)

    def same(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return another column for the same scatterers."""
        return np.asarray(values, dtype=np.float64).ravel()[self._good]

    def box(self) -> tuple[float, float, float, float]:
        """Return west, east, south, north of a map that is neither tiny nor a thin strip."""
        if not self.lon.size:
            return 0.0, 1.0, 0.0, 1.0
        x, y = (0.5 * float(c.min() + c.max()) for c in (self.lon, self.lat))
        shrink = math.cos(math.radians(y))
        width, height = (1.06 * float(np.ptp(c)) for c in (self.lon * shrink, self.lat))
        smallest = max(0.005, 0.4 * max(width, height))
        width, height = max(width, smallest) / shrink, max(height, smallest)
        return x - 0.5 * width, x + 0.5 * width, y - 0.5 * height, y + 0.5 * height

    def panel_size(self, largest: float) -> tuple[float, float]:
        """Return the width and height of a map of these points in inches."""
        west, east, south, north = self.box()
        ratio = (east - west) * math.cos(math.radians(0.5 * (south + north))) / (north - south)
        return (largest, largest / ratio) if ratio > 1 else (largest * ratio, largest)


def _fraction(nodes: NDArray[Any], places: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(nodes) < 2:
        return np.where(places == nodes[0], 0.0, np.nan)
    step = (float(nodes[-1]) - float(nodes[0])) / (len(nodes) - 1)
    return np.asarray((places - float(nodes[0])) / step, dtype=np.float64)


def _draw_map(
    axes: Axes,
    points: _Points,
    background: GriddedMap | None,
    *,
    left: bool = True,
) -> None:
    west, east, south, north = points.box()
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(1.0 / math.cos(math.radians(0.5 * (south + north))))
    axes.set_facecolor("#d4d7da")
    if background is not None:
        _mesh(axes, _relief(background), cmap="gray", vmin=-3.0, vmax=1.2)
    _degree_ticks(axes)
    if not left:
        axes.tick_params(labelleft=False)
    _scale_bar(axes, west, east, south, north)
    if not points.value.size:
        say_empty(axes)


def _scatter(
    axes: Axes, points: _Points, values: NDArray[np.float64], area_in: float, **options: Any
) -> Any:
    order = points.order
    # Markers cover most of the map; between a dot of 1 pt and a disc of 6 pt.
    size = float(np.clip(0.8 * area_in * 72.0**2 / max(order.size, 1), 1.2, 36.0))
    return axes.scatter(
        points.lon[order],
        points.lat[order],
        c=values[order],
        s=size,
        linewidths=0,
        rasterized=True,
        zorder=3,
        **options,
    )


def _mesh(axes: Axes, grid: GriddedMap, **options: Any) -> None:
    lon, lat = np.asarray(grid.longitude_deg, float), np.asarray(grid.latitude_deg, float)
    stride = max(1, math.ceil(max(grid.values.shape) / 1400))
    values = np.ma.masked_invalid(np.asarray(grid.values)[::stride, ::stride])
    mesh = axes.pcolormesh(
        lon[::stride], lat[::stride], values, shading="nearest", rasterized=True, **options
    )
    mesh.set_zorder(1)


def _relief(height: GriddedMap) -> GriddedMap:
    lat, lon = np.asarray(height.latitude_deg, float), np.asarray(height.longitude_deg, float)
    metres = 111_320.0
    scale = metres * math.cos(math.radians(float(lat.mean())))
    values = np.asarray(height.values, dtype=np.float64)
    north, east = np.gradient(values, lat * metres, lon * scale)
    steep = np.hypot(north, east)
    typical = float(np.nanpercentile(steep, 95)) if np.isfinite(steep).any() else 1.0
    light = np.tanh((east - north) * 0.8 / max(typical, 1e-6))
    return GriddedMap(lon, lat, 0.5 + 0.5 * light)


def _degree_ticks(axes: Axes) -> None:
    """Put round degrees on both axes, so few longitudes that their labels stay apart."""
    from matplotlib.ticker import Formatter, Locator, MaxNLocator

    class Longitudes(Locator):
        # Chosen when drawn: only then is the width of the panel known.
        def __call__(self) -> Any:
            return _longitudes(axes.get_xlim(), axes.bbox.width / axes.figure.dpi)

    class Degrees(Formatter):
        def __init__(self, letters: str) -> None:
            self.letters = letters

        def __call__(self, x: float, pos: int | None = None) -> str:
            return _degree_texts(np.array([x]), self.letters)[0]

        def format_ticks(self, values: Any) -> list[str]:
            return _degree_texts(np.asarray(values), self.letters)

    axes.xaxis.set_major_locator(Longitudes())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(Degrees("EW"))
    axes.yaxis.set_major_formatter(Degrees("NS"))


def _longitudes(limits: tuple[float, float], width_in: float) -> NDArray[np.float64]:
    """Return round longitudes within limits whose labels do not touch."""
    from matplotlib.ticker import MaxNLocator

    west, east = limits
    for count in (4, 3, 2, 1):
        ticks = np.asarray(MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(west, east))
        ticks = ticks[(ticks >= west) & (ticks <= east)]
        longest = max(map(len, _degree_texts(ticks, "EW")), default=0)
        spacing = np.diff(ticks, append=np.inf).min(initial=np.inf) / (east - west) * width_in
        # About 0.07 inch per character, and a gap.
        if ticks.size and spacing >= 0.07 * (longest + 1.5):
            return ticks
    # One number, near the middle.
    digits = max(0, 1 - math.floor(math.log10(east - west)))
    return np.array([round(0.5 * (west + east), digits)])


def _degree_texts(degrees: NDArray[np.float64], letters: str) -> list[str]:
    """Return labels with as many decimals as any of them needs."""
    exact = (d for d in range(8) if np.allclose(np.round(degrees, d), degrees, rtol=0, atol=1e-7))
    digits = next(exact, 8)
    return [f"{abs(x):.{digits}f}°{letters[0] if x >= 0 else letters[1]}" for x in degrees]


def _scale_bar(axes: Axes, west: float, east: float, south: float, north: float) -> None:
    latitude = math.radians(south + 0.06 * (north - south))
    width_km = (east - west) * 111.32 * math.cos(latitude)
    step = 10.0 ** math.floor(math.log10(0.3 * width_km))
    length_km = next(step * f for f in (5, 2, 1) if step * f <= 0.3 * width_km)
    length = length_km / (111.32 * math.cos(latitude))
    x, y = west + 0.04 * (east - west), south + 0.045 * (north - south)
    options: dict[str, Any] = {"solid_capstyle": "butt", "zorder": 6}
    axes.plot([x, x + length], [y, y], color="white", linewidth=4.5, **options)
    axes.plot([x, x + length], [y, y], color=INK, linewidth=2.2, **options)
    name = f"{length_km:g} km" if length_km >= 1 else f"{1000 * length_km:g} m"
    text = axes.annotate(
        name, (x + 0.5 * length, y), xytext=(0, 4), textcoords="offset points", ha="center"
    )
    _outline(text)


def _outline(text: Any) -> None:
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    text.set_zorder(7)
    text.set_fontsize(8.5)


def _mark_reference(axes: Axes, place: tuple[float, float] | None) -> None:
    if place is None:
        return
    options: dict[str, Any] = {"markersize": 13, "markeredgecolor": "white", "markeredgewidth": 1.1}
    axes.plot([place[0]], [place[1]], marker="*", color=INK, linestyle="none", zorder=8, **options)
    text = axes.annotate("reference", place, xytext=(7, 6), textcoords="offset points")
    _outline(text)


def _difference_histogram(axes: Axes, difference: NDArray[np.float64]) -> None:
    good = difference[np.isfinite(difference)]
    axes.set_xlabel("estimate − truth (mm/yr)")
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not good.size:
        axes.set_title("Difference")
        say_empty(axes)
        return
    bias, rmse = float(good.mean()), float(np.sqrt(np.mean(good**2)))
    limit = symmetric_limit(good, 99.5)
    counts, edges = np.histogram(np.clip(good, -limit, limit), np.linspace(-limit, limit, 61))
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=LINES[0])
    axes.axvline(0.0, color=PALE, linewidth=0.9)
    axes.axvline(bias, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set_xlim(-limit, limit)
    axes.set_title(f"Difference\nbias {signed(bias)} · RMSE {rmse:.2f} mm/yr")
