"""Pictures in radar geometry: amplitude, geometry, selection of scatterers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bperp.flows.picture_style import (
    ANGLE_MAP,
    DISPERSION_MAP,
    HEIGHT_MAP,
    INK,
    RadarGrid,
    Raster,
    color_bar,
    color_map,
    counted,
    draw_bars,
    label_radar,
    picture,
    reduce_image,
    robust_limits,
    say_empty,
    show_radar,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DEFAULT_GRID = RadarGrid()


def picture_amplitude(
    path: Path | str,
    amplitude: Raster,
    *,
    title: str = "Mean amplitude",
    note: str = "",
    grid: RadarGrid = _DEFAULT_GRID,
) -> None:
    """Draw an amplitude image in decibels.

    Parameters
    ----------
    path : Path or str
        PNG file.
    amplitude : array of shape (azimuth, range), float
        Amplitude, any scale; 0 and NaN = no data. Large rasters are averaged in power.
    title, note : str
        Heading and second line.
    grid : RadarGrid
        Ground spacing and orientation.
    """
    power, extent = reduce_image(_Squared(amplitude))
    power[power <= 0] = np.nan
    decibel = 10.0 * np.log10(power)
    low, high = robust_limits(decibel, 1.0, 99.5)
    with picture(path, _radar_size(extent, grid), title, note) as figure:
        axes = figure.add_subplot()
        options = {"cmap": color_map("gray"), "vmin": low, "vmax": high}
        image = show_radar(axes, decibel, extent, grid, **options)
        label_radar(axes, grid)
        color_bar(figure, image, axes, "amplitude (dB)", extend="both")
        if not np.isfinite(decibel).any():
            say_empty(axes)


def picture_geometry(
    path: Path | str,
    height_m: Raster,
    incidence_deg: Raster,
    *,
    title: str = "Geometry of the reference date",
    note: str = "",
    grid: RadarGrid = _DEFAULT_GRID,
) -> None:
    """Draw height and incidence angle on the radar grid.

    Parameters
    ----------
    path : Path or str
        PNG file.
    height_m : array of shape (azimuth, range), float
        Ellipsoidal height in m, NaN = none.
    incidence_deg : array of shape (azimuth, range), float
        Incidence angle in degrees.
    title, note : str
        Heading and second line.
    grid : RadarGrid
        Ground spacing and orientation.
    """
    height, extent = reduce_image(height_m)
    incidence, _ = reduce_image(incidence_deg)
    columns = 1 if _width_over_height(extent, grid) > 1.6 else 2
    size = _radar_size(extent, grid, columns=columns, rows=3 - columns)
    with picture(path, size, title, note) as figure:
        panels = figure.subplots(3 - columns, columns, squeeze=False).ravel()
        colors, scale = _shaded(height, _hillshade(height, extent, grid))
        show_radar(panels[0], colors, extent, grid)
        color_bar(figure, scale, panels[0], "ellipsoidal height (m)", extend="both")
        low, high = robust_limits(incidence, 0.0, 100.0)
        options = {"cmap": color_map(ANGLE_MAP), "vmin": low, "vmax": high}
        image = show_radar(panels[1], incidence, extent, grid, **options)
        color_bar(figure, image, panels[1], "incidence angle (°)")
        for number, (axes, name) in enumerate(zip(panels, ("Height", "Incidence"), strict=True)):
            axes.set_title(name)
            label_radar(axes, grid, left=number == 0 or columns == 1)
            if not np.isfinite(height).any():
                say_empty(axes)


def picture_scatterers(
    path: Path | str,
    amplitude_dispersion: Raster,
    threshold: float,
    gamma: ArrayLike | None = None,
    *,
    gamma_threshold: float | None = None,
    title: str = "Selection of scatterers",
    note: str = "",
    grid: RadarGrid = _DEFAULT_GRID,
) -> None:
    """Draw the amplitude dispersion as a map and as a histogram, and phase stability if known.

    Parameters
    ----------
    path : Path or str
        PNG file.
    amplitude_dispersion : array of shape (azimuth, range), float
        Sigma over mean of the amplitude, NaN = no data.
    threshold : float
        Candidates lie below it.
    gamma : array_like of shape (candidate,), optional
        Phase stability (temporal coherence) of the candidates, 0 to 1.
    gamma_threshold : float, optional
        Selected scatterers lie above it.
    title, note : str
        Heading and second line.
    grid : RadarGrid
        Ground spacing and orientation.
    """
    image, extent = reduce_image(amplitude_dispersion)
    low, high = robust_limits(image, 1.0, 99.0)
    histogram, below, valid = _dispersion_histogram(amplitude_dispersion, threshold)
    stability = None if gamma is None else np.asarray(gamma, dtype=float)
    wide = _width_over_height(extent, grid) > 1.6
    count = 1 if stability is None else 2
    with picture(path, _selection_size(extent, grid, wide=wide), title, note) as figure:
        main, panels = _selection_panels(figure, count, wide=wide)
        options = {"cmap": color_map(DISPERSION_MAP), "vmin": low, "vmax": high}
        drawn = show_radar(main, image, extent, grid, **options)
        label_radar(main, grid)
        color_bar(figure, drawn, main, "amplitude dispersion", extend="both")
        draw_bars(
            panels[0], histogram, _DISPERSION_EDGES, _DISPERSION_EDGES[1:] <= threshold + 1e-9
        )
        panels[0].axvline(threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        panels[0].set_xlabel("amplitude dispersion")
        # A share, not a number: the raster may be a thinned one.
        panels[0].set_title(f"{below / max(valid, 1):.1%} below {threshold:g}")
        if stability is not None:
            _draw_gamma(panels[1], stability, gamma_threshold)
        if not valid:
            say_empty(main)


# Parts of the pictures ---------------------------------------------------------------------------


class _Squared:
    """A raster whose slices are squared as they are read, so that no copy of the whole is made."""

    def __init__(self, image: Raster) -> None:
        self._image, self.shape = image, image.shape

    def __getitem__(self, rows: slice) -> NDArray[np.float64]:
        magnitude = np.abs(np.asarray(self._image[rows])).astype(np.float64)
        return np.where(magnitude > 0, magnitude**2, np.nan)


def _width_over_height(extent: tuple[int, int], grid: RadarGrid) -> float:
    return extent[1] / (extent[0] * grid.aspect)


def _radar_size(
    extent: tuple[int, int], grid: RadarGrid, columns: int = 1, rows: int = 1
) -> tuple[float, float]:
    ratio = _width_over_height(extent, grid)
    width = min(8.5, 5.6 * ratio) if columns == 1 else min(5.2, 5.2 * ratio)
    width = max(width, 2.4)
    height = min(max(width / ratio, 1.1), 8.0)
    return columns * (width + 1.6), rows * (height + 0.75) + 0.7


def _hillshade(
    height: NDArray[np.float64], extent: tuple[int, int], grid: RadarGrid
) -> NDArray[np.float64]:
    """Return brightness 0..1 of a surface lit from the upper left."""
    if min(height.shape) < 2:
        return np.full(height.shape, np.nan)
    down = extent[0] * grid.azimuth_spacing_m / height.shape[0]
    across = extent[1] * grid.range_spacing_m / height.shape[1]
    slope_down, slope_across = np.gradient(height, down, across)
    steep = np.hypot(slope_down, slope_across)
    typical = np.nanpercentile(steep, 95) if np.isfinite(steep).any() else 1.0
    gain = 0.8 / max(float(typical), 1e-6)
    light = 0.5 + 0.5 * np.tanh(gain * (slope_down + slope_across))
    return np.asarray(light, dtype=np.float64)


def _shaded(height: NDArray[np.float64], light: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return the colours of a lit surface and the scale for its colour bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(*robust_limits(height, 0.5, 99.5)), color_map(HEIGHT_MAP))
    colors = scale.to_rgba(np.ma.masked_invalid(height))
    # Multiplied, not overlaid: grey on top would wash the colours out.
    colors[..., :3] *= np.where(np.isfinite(light), 0.62 + 0.38 * light, 1.0)[..., None]
    return colors, scale


def _selection_size(extent: tuple[int, int], grid: RadarGrid, *, wide: bool) -> tuple[float, float]:
    width, height = _radar_size(extent, grid)
    if wide:
        return max(width, 9.0), height + 3.2
    height = max(height, 5.0)
    return _map_width(height, extent, grid) + _HISTOGRAM_WIDTH + 2.6, height


def _map_width(height: float, extent: tuple[int, int], grid: RadarGrid) -> float:
    """Return the width of a map on paper of some height, both in inches."""
    return min(_radar_size(extent, grid)[0] - 1.6, height * _width_over_height(extent, grid))


def _selection_panels(figure: Figure, count: int, *, wide: bool) -> tuple[Axes, list[Axes]]:
    """Return axes for the map and for the histograms below (wide images) or beside it."""
    names = [f"histogram {number}" for number in range(count)]
    if wide:
        layout: list[Any] = [["map"] * count, names]
        axes = figure.subplot_mosaic(layout, height_ratios=[3, 2])
    else:
        ratios = [figure.get_figwidth() - _HISTOGRAM_WIDTH - 2.6, _HISTOGRAM_WIDTH]
        layout = [["map", name] for name in names]
        axes = figure.subplot_mosaic(layout, width_ratios=ratios)
    return axes["map"], [axes[name] for name in names]


_HISTOGRAM_WIDTH = 3.8
"""Inches."""
_DISPERSION_EDGES = np.linspace(0.0, 1.0, 51)


def _dispersion_histogram(
    dispersion: Raster, threshold: float
) -> tuple[NDArray[np.float64], int, int]:
    """Return counts per bin, pixels below the threshold and valid pixels, read strip by strip."""
    counts = np.zeros(_DISPERSION_EDGES.size - 1)
    below = valid = 0
    lines, samples = dispersion.shape
    strip = max(1, 4_000_000 // max(samples, 1))
    for first in range(0, lines, strip):
        rows = np.asarray(dispersion[first : first + strip], dtype=np.float64)
        values = rows[np.isfinite(rows)]
        counts += np.histogram(values, _DISPERSION_EDGES)[0]
        below += int(np.count_nonzero(values < threshold))
        valid += values.size
    return counts, below, valid


def _draw_gamma(axes: Axes, gamma: NDArray[np.float64], threshold: float | None) -> None:
    edges = np.linspace(0.0, 1.0, 51)
    finite = gamma[np.isfinite(gamma)]
    chosen = edges[:-1] >= (0.0 if threshold is None else threshold - 1e-9)
    draw_bars(axes, np.histogram(finite, edges)[0], edges, chosen)
    axes.set_xlabel("phase stability")
    title = f"median {np.median(finite):.2f}" if finite.size else "phase stability"
    if threshold is not None:
        selected = int(np.count_nonzero(finite > threshold))
        title = f"{counted(selected, 'scatterer')} above {threshold:g}"
        axes.axvline(threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_title(title)
