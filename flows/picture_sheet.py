"""Contact sheet of interferograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.picture_style import (
    COHERENCE_MAP,
    PHASE_MAP,
    RadarGrid,
    color_bar,
    color_map,
    picture,
    reduce_image,
    show_radar,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT_GRID = RadarGrid()
SHEET_PIXELS_PER_INCH = 100
"""Tiles of a contact sheet are averaged to this: calmer phases and a smaller file."""


def picture_interferograms(
    path: Path | str,
    phase: NDArray[Any],
    coherence: NDArray[Any] | None,
    labels: Sequence[str],
    *,
    title: str = "Interferograms",
    note: str = "",
    grid: RadarGrid = _DEFAULT_GRID,
    maximum_pairs: int = 24,
) -> None:
    """Draw a contact sheet of wrapped phases, each with its coherence.

    Parameters
    ----------
    path : Path or str
        PNG file.
    phase : array of shape (pair, azimuth, range), float
        Wrapped phase of reference * conj(secondary) in rad, NaN = no data.
    coherence : array of shape (pair, azimuth, range), float, optional
        Coherence magnitude, 0 to 1; also the weight when large rasters are averaged.
    labels : sequence of str, length pair
        Short text per pair, e.g. its dates.
    title, note : str
        Heading and second line.
    grid : RadarGrid
        Ground spacing and orientation.
    maximum_pairs : int
        More pairs are thinned out evenly, and the note says so.
    """
    pairs = len(labels)
    chosen = np.unique(np.linspace(0, pairs - 1, min(pairs, maximum_pairs)).round().astype(int))
    if len(chosen) < pairs:
        note = f"{note}  ({len(chosen)} of {pairs} pairs shown)".strip()
    per_pair = 1 if coherence is None else 2
    shape = phase.shape[1:]
    note = "  ·  ".join(filter(None, [note, _ground_size(shape, grid)]))
    across, tile = _contact_sheet(len(chosen), per_pair, shape, grid)
    down = math.ceil(len(chosen) / across)
    size = (across * per_pair * tile[0] + 1.0, down * (tile[1] + 0.32) + 1.25)
    with picture(path, (max(size[0], 6.5), max(size[1], 3.0)), title, note) as figure:
        panels = figure.subplots(down, across * per_pair, squeeze=False)
        pixels = max(120, int(SHEET_PIXELS_PER_INCH * max(tile)))
        images: list[Any] = []
        longest = max((len(label) for label in labels), default=1)
        font = min(8.5, max(5.0, 72.0 * tile[0] * per_pair / (0.56 * max(longest, 1))))
        for place, pair in enumerate(chosen):
            row, column = divmod(place, across)
            axes = panels[row, column * per_pair : (column + 1) * per_pair]
            weight = None if coherence is None else coherence[pair]
            images = _draw_pair(axes, phase[pair], weight, grid, pixels)
            axes[0].set_title(labels[pair], fontsize=font, fontweight="normal", pad=3)
        for axes in panels.ravel():
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        for axes in panels.ravel()[len(chosen) * per_pair :]:
            axes.set_visible(False)
        _sheet_bars(figure, panels, images)


# Parts of the pictures ---------------------------------------------------------------------------


def _ground_size(shape: tuple[int, ...], grid: RadarGrid) -> str:
    """Return how much ground a tile without axes shows."""
    along, across = grid.size_km((shape[0], shape[1]))
    if grid.ascending is None:
        return f"each {across:.3g} km wide, {along:.3g} km high"
    return f"each {across:.3g} km in range, {along:.3g} km in azimuth"


def _contact_sheet(
    pairs: int, per_pair: int, shape: tuple[int, ...], grid: RadarGrid
) -> tuple[int, tuple[float, float]]:
    """Return pairs per row and the size of one tile in inches."""
    ratio = shape[1] / (shape[0] * grid.aspect)
    best, best_score = 1, math.inf
    for across in range(1, pairs + 1):
        down = math.ceil(pairs / across)
        page = across * per_pair * ratio / (down * 1.15)
        # A page of the right shape is worth little if much of it stays empty.
        score = abs(math.log(page / 1.5)) + 1.5 * (across * down - pairs) / pairs
        if score < best_score:
            best, best_score = across, score
    width = min(max(10.0 / (best * per_pair), 1.1), 4.6)
    width = min(width, 4.2 * ratio)
    return best, (width, width / ratio)


def _draw_pair(
    axes: Any,
    phase: NDArray[Any],
    coherence: NDArray[Any] | None,
    grid: RadarGrid,
    pixels: int,
) -> list[Any]:
    angle = np.asarray(phase, dtype=np.float64)
    weight = np.ones(()) if coherence is None else np.asarray(coherence, dtype=np.float64)
    # Averaging phasors, not angles; a weight of zero would leave an angle without a meaning.
    weight = np.where(np.isfinite(angle) & np.isfinite(weight), np.maximum(weight, 1e-6), np.nan)
    phasor, extent = reduce_image(weight * np.exp(1j * angle), pixels)
    options = {"cmap": color_map(PHASE_MAP), "vmin": -math.pi, "vmax": math.pi}
    images = [show_radar(axes[0], np.angle(phasor), extent, grid, **options)]
    if coherence is not None:
        reduced, extent = reduce_image(np.asarray(coherence), pixels)
        options = {"cmap": color_map(COHERENCE_MAP), "vmin": 0.0, "vmax": 1.0}
        images.append(show_radar(axes[1], reduced, extent, grid, **options))
    return images


def _sheet_bars(figure: Figure, panels: Any, images: list[Any]) -> None:
    """Put one colour bar per kind of tile below the sheet, side by side."""
    columns = panels.shape[1]
    halves = [slice(0, columns)] if len(images) == 1 else [slice(0, 1), slice(1, columns)]
    if len(images) > 1 and columns > 2:
        halves = [slice(0, columns // 2), slice(columns // 2, columns)]
    settings: dict[str, Any] = {"location": "bottom", "shrink": 0.6, "aspect": 26, "pad": 0.03}
    for image, columns_below, name in zip(
        images, halves, ("phase (rad)", "coherence"), strict=False
    ):
        below = list(panels[:, columns_below].ravel())
        bar = color_bar(figure, image, below, name, **settings)
        if name.startswith("phase"):
            bar.set_ticks([-math.pi, 0.0, math.pi], labels=["−π", "0", "π"])
