"""The ground: elevation, ground-fixed coordinates, distributed and persistent scatterers.

Ground coordinates are the line and sample at which the reference orbit sees a point of a surface
of constant ellipsoidal height; they count from a fixed corner of the scene, so they belong to the
ground and not to a date. Random ground is drawn in tiles of these coordinates, each from its own
generator: two bursts or two swaths that overlap see the same scatterers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.simulation.noise import generator
from bperp.kernels.simulation.orbit import (
    ECCENTRICITY_SQUARED,
    SEMI_MAJOR_AXIS_M,
    OrbitPolynomial,
    intersect_ellipsoid,
)

Array = NDArray[np.float64]
Single = NDArray[np.float32]

TILE_LINES = 128
TILE_SAMPLES = 256
_ORDER = 6
_STREAM_TILE = 11
_STREAM_DATE = 12
_STREAM_PERSISTENT = 13


class Raster(NamedTuple):
    """Values on a regular grid: row ``i`` lies at ``first_row + i * row_step``."""

    values: Single
    first_row: float
    row_step: float
    first_column: float
    column_step: float


class Ground(NamedTuple):
    """Ground coordinates of a scene."""

    first_line_s: float
    """Zero-Doppler time of line zero, seconds since the ascending node."""
    line_interval_s: float
    first_sample_m: float
    sample_spacing_m: float
    height_m: float
    """Height of the surface on which lines and samples are counted."""
    lines: int
    samples: int
    latitude: Array
    """(6, 6) coefficients in rad over line and sample, both scaled to -1..1."""
    longitude: Array


class Scatterers(NamedTuple):
    """Points fixed to the ground."""

    line: Single
    sample: Single
    height_m: Single
    position_m: Array
    """(n, 3) Earth-fixed."""


class PersistentScatterers(NamedTuple):
    """Draws of the persistent scatterers; all arrays ``(n,)``."""

    line: Single
    sample: Single
    height_error_m: Array
    velocity_m_yr: Array
    """Own motion on top of the velocity field."""
    signal_to_clutter: Array
    phase_rad: Array


class Field(NamedTuple):
    """Path lengthening of one date over the ground."""

    raster: Raster
    """m, over line and sample."""
    per_height: float
    """m of path per m of height above ``height_m``."""
    height_m: float


def ground_coordinates(
    orbit: OrbitPolynomial,
    corner: tuple[float, float],
    spacing: tuple[float, float],
    shape: tuple[int, int],
    anchor: tuple[float, float, float],
) -> Ground:
    """Map lines and samples of a constant-height surface to latitude and longitude.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Reference orbit.
    corner : (float, float)
        Time (s) and slant range (m) of line and sample zero.
    spacing : (float, float)
        Line interval (s) and sample spacing (m).
    shape : (int, int)
        Lines and samples.
    anchor : (latitude, longitude, height)
        A point of the scene in rad and m; its height is that of the surface.

    Returns
    -------
    Ground
        The mapping is a polynomial and may miss the orbit geometry by some mm: it defines where
        the scatterers are, their image follows from their positions.
    """
    nodes = np.cos(np.pi * (np.arange(12) + 0.5) / 12)
    v, u = (grid.ravel() for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    time = corner[0] + 0.5 * (v + 1.0) * shape[0] * spacing[0]
    distance = corner[1] + 0.5 * (u + 1.0) * shape[1] * spacing[1]
    height = np.full_like(time, anchor[2])
    geodetic = intersect_ellipsoid(orbit, time, distance, height, np.array(anchor[:2]))
    matrix = np.polynomial.polynomial.polyvander2d(v, u, [_ORDER - 1, _ORDER - 1])
    solved = np.linalg.lstsq(matrix, geodetic.T, rcond=None)[0].T.reshape(2, _ORDER, _ORDER)
    return Ground(
        corner[0],
        spacing[0],
        corner[1],
        spacing[1],
        anchor[2],
        shape[0],
        shape[1],
        np.ascontiguousarray(solved[0]),
        np.ascontiguousarray(solved[1]),
    )


@njit(inline="always")
def _polynomial(coefficients: Array, v: float, u: float) -> float:
    total = 0.0
    for i in range(_ORDER - 1, -1, -1):
        row = 0.0
        for j in range(_ORDER - 1, -1, -1):
            row = row * u + coefficients[i, j]
        total = total * v + row
    return total


@njit(inline="always")
def _bilinear(raster: Raster, y: float, x: float) -> float:
    row = (y - raster.first_row) / raster.row_step
    column = (x - raster.first_column) / raster.column_step
    row = min(max(row, 0.0), raster.values.shape[0] - 1.000001)
    column = min(max(column, 0.0), raster.values.shape[1] - 1.000001)
    i, j = int(row), int(column)
    dy, dx = row - i, column - j
    upper = (1.0 - dx) * raster.values[i, j] + dx * raster.values[i, j + 1]
    lower = (1.0 - dx) * raster.values[i + 1, j] + dx * raster.values[i + 1, j + 1]
    return (1.0 - dy) * upper + dy * lower  # type: ignore[no-any-return]


@njit
def interpolate(raster: Raster, y: Array, x: Array) -> Array:
    """Interpolate a raster bilinearly at coordinates ``(n,)``; constant outside its edge."""
    result = np.empty(y.shape[0])
    for i in range(y.shape[0]):
        result[i] = _bilinear(raster, y[i], x[i])
    return result


@njit
def ground_to_geodetic(ground: Ground, line: Array, sample: Array) -> tuple[Array, Array]:
    """Return latitude and longitude in rad, each ``(n,)``, of ground coordinates ``(n,)``."""
    latitude = np.empty(line.shape[0])
    longitude = np.empty(line.shape[0])
    for i in range(line.shape[0]):
        v = 2.0 * line[i] / ground.lines - 1.0
        u = 2.0 * sample[i] / ground.samples - 1.0
        latitude[i] = _polynomial(ground.latitude, v, u)
        longitude[i] = _polynomial(ground.longitude, v, u)
    return latitude, longitude


@njit
def locate(
    ground: Ground, elevation: Raster, line: Single, sample: Single, position_m: Array
) -> Single:
    """Put ground coordinates on the terrain.

    Parameters
    ----------
    ground : Ground
    elevation : Raster
        Ellipsoidal heights in m over latitude and longitude in rad.
    line, sample : (n,) float32
    position_m : (n, 3) float64
        Earth-fixed positions, written.

    Returns
    -------
    (n,) float32
        Terrain heights in m.
    """
    heights = np.empty(line.shape[0], np.float32)
    for i in range(line.shape[0]):
        v = 2.0 * line[i] / ground.lines - 1.0
        u = 2.0 * sample[i] / ground.samples - 1.0
        latitude = _polynomial(ground.latitude, v, u)
        longitude = _polynomial(ground.longitude, v, u)
        height = _bilinear(elevation, latitude, longitude)
        sine, cosine = np.sin(latitude), np.cos(latitude)
        normal = SEMI_MAJOR_AXIS_M / np.sqrt(1.0 - ECCENTRICITY_SQUARED * sine * sine)
        position_m[i, 0] = (normal + height) * cosine * np.cos(longitude)
        position_m[i, 1] = (normal + height) * cosine * np.sin(longitude)
        position_m[i, 2] = (normal * (1.0 - ECCENTRICITY_SQUARED) + height) * sine
        heights[i] = height
    return heights


@njit
def path_over_ground(
    field: Field, line: Single, sample: Single, height_m: Single, path_m: Single
) -> None:
    """Evaluate the path lengthening of one date at scatterers; writes ``path_m`` ``(n,)``."""
    for i in range(line.shape[0]):
        value = _bilinear(field.raster, line[i], sample[i])
        path_m[i] = value + field.per_height * (height_m[i] - field.height_m)


def tiles_within(lines: tuple[float, float], samples: tuple[float, float]) -> list[tuple[int, int]]:
    """List the tiles, in order of lines, that touch a rectangle of ground coordinates."""
    rows = range(int(lines[0] // TILE_LINES), int(lines[1] // TILE_LINES) + 1)
    columns = range(int(samples[0] // TILE_SAMPLES), int(samples[1] // TILE_SAMPLES) + 1)
    return [(row, column) for row in rows for column in columns]


def tile_cells(density: float) -> tuple[int, int]:
    """Return the cells of a tile in azimuth and range for a density per resolution-free pixel."""
    return TILE_LINES, max(1, round(TILE_SAMPLES * density))


def draw_ground(
    seed: int, tiles: list[tuple[int, int]], density: float
) -> tuple[Single, Single, NDArray[np.complex64]]:
    """Draw jittered scatterers of the distributed ground.

    Parameters
    ----------
    seed : int
    tiles : list of (row, column)
    density : float
        Scatterers per pixel.

    Returns
    -------
    line, sample : (n,) float32
        Ground coordinates: one scatterer anywhere in each cell.
    lasting : (n,) complex64
        The part of the reflectivity that never changes, unit variance.
    """
    rows, columns = tile_cells(density)
    count = rows * columns
    line = np.empty((len(tiles), rows, columns), np.float32)
    sample = np.empty_like(line)
    lasting = np.empty((len(tiles), count), np.complex64)
    for k, (row, column) in enumerate(tiles):
        random = generator(seed, _STREAM_TILE, row, column)
        jitter = random.random((2, rows, columns), dtype=np.float32)
        line[k] = row * TILE_LINES + np.arange(rows, dtype=np.float32)[:, None] + jitter[0]
        across = (np.arange(columns, dtype=np.float32) + jitter[1]) * (TILE_SAMPLES / columns)
        sample[k] = column * TILE_SAMPLES + across
        parts = random.standard_normal((count, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
        lasting[k] = parts.view(np.complex64)[:, 0]
    return line.ravel(), sample.ravel(), lasting.ravel()


def draw_innovation(
    seed: int, tiles: list[tuple[int, int]], density: float, date: int, out: Single
) -> None:
    """Draw the change of the distributed ground at a date; writes ``out`` ``(n, 4)``."""
    rows, columns = tile_cells(density)
    count = rows * columns
    for k, (row, column) in enumerate(tiles):
        random = generator(seed, _STREAM_DATE, row, column, date)
        random.standard_normal(dtype=np.float32, out=out[k * count : (k + 1) * count])


def draw_persistent(
    seed: int,
    shape: tuple[int, int],
    cell: tuple[float, float],
    spread: tuple[float, float],
    clutter_db: tuple[float, float, float, float],
) -> PersistentScatterers:
    """Draw one persistent scatterer per cell, kept apart from its neighbours.

    Parameters
    ----------
    seed : int
    shape : (int, int)
        Lines and samples of the ground.
    cell : (float, float)
        Cell size in lines and samples.
    spread : (float, float)
        Standard deviations of the height error (m) and of the own velocity (m/yr).
    clutter_db : (mean, standard deviation, least, most)
        Signal-to-clutter ratio in dB, normal within limits.

    Returns
    -------
    PersistentScatterers
    """
    random = generator(seed, _STREAM_PERSISTENT)
    rows, columns = max(1, int(shape[0] / cell[0])), max(1, int(shape[1] / cell[1]))
    centre = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    jitter = random.uniform(-0.35, 0.35, (2, rows, columns))
    # Every row of cells is turned by its own amount, or the cells would show as stripes.
    turn = random.uniform(0.0, 1.0, (rows, 1))
    line = ((centre[0] + jitter[0]) * cell[0]).ravel().astype(np.float32)
    sample = (((centre[1] + jitter[1] + turn) % columns) * cell[1]).ravel().astype(np.float32)
    count = len(line)
    decibel = np.clip(random.normal(*clutter_db[:2], count), *clutter_db[2:])
    return PersistentScatterers(
        line,
        sample,
        random.normal(0.0, spread[0], count),
        random.normal(0.0, spread[1], count),
        10.0 ** (0.1 * decibel),
        random.uniform(-np.pi, np.pi, count),
    )


def bowl_and_ramp(
    east_m: Array, north_m: Array, bowl: tuple[float, float], ramp_per_m: tuple[float, float]
) -> Any:
    """Return a line-of-sight velocity: a Gaussian bowl plus a plane.

    Parameters
    ----------
    east_m, north_m : (...,) float64
        Position from the centre of the bowl.
    bowl : (float, float)
        Velocity at the centre (m/yr, negative sinks) and standard deviation of the bowl (m).
    ramp_per_m : (float, float)
        Gradient towards east and north in m/yr per m.

    Returns
    -------
    (...,) float64
        m/yr towards the satellite.
    """
    squared = (east_m**2 + north_m**2) / (2.0 * bowl[1] ** 2)
    return bowl[0] * np.exp(-squared) + ramp_per_m[0] * east_m + ramp_per_m[1] * north_m
