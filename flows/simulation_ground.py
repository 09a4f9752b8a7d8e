"""Ground of a simulated stack: terrain, motion, atmosphere, persistent scatterers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.flows.simulation_options import SimulationOptions
from bperp.kernels.simulation.noise import generator, power_law_surface
from bperp.kernels.simulation.orbit import SEMI_MAJOR_AXIS_M, geodetic_to_ecef
from bperp.kernels.simulation.scene import (
    Ground,
    PersistentScatterers,
    Raster,
    bowl_and_ramp,
    draw_persistent,
    ground_to_geodetic,
)

Array = NDArray[np.float64]
Anchor = tuple[float, float, float]
"""Scene centre: latitude (rad), longitude (rad), ellipsoidal height (m)."""

FIELD_STEP = (8, 24)
"""Lines and samples between the nodes of smooth fields, about 110 m by 100 m."""
_STREAM_TERRAIN = 22
_STREAM_ATMOSPHERE = 23
_LINE_M = 13.98


def velocity_at(
    options: SimulationOptions, anchor: Anchor, latitude_rad: Array, longitude_rad: Array
) -> Array:
    """Return the line-of-sight velocity of the ground in m/yr, towards the satellite."""
    east = (longitude_rad - anchor[1]) * SEMI_MAJOR_AXIS_M * np.cos(anchor[0])
    north = (latitude_rad - anchor[0]) * SEMI_MAJOR_AXIS_M
    ramp = (options.ramp_m_yr_per_km[0] * 1e-3, options.ramp_m_yr_per_km[1] * 1e-3)
    bowl = (options.bowl_velocity_m_yr, options.bowl_radius_m)
    return np.asarray(bowl_and_ramp(east, north, bowl, ramp))


def velocity_field(options: SimulationOptions, ground: Ground, anchor: Anchor) -> Raster:
    """Return the velocity of the distributed ground over lines and samples, m/yr."""
    rows, columns = _field_grid(ground)
    line, sample = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    velocity = velocity_at(options, anchor, *ground_to_geodetic(ground, line, sample))
    return _raster(velocity.reshape(len(rows), len(columns)))


def turbulence(options: SimulationOptions, ground: Ground, date: int) -> Raster:
    """Return the turbulent delay of a date over lines and samples, m."""
    rows, columns = _field_grid(ground)
    spacing = (FIELD_STEP[0] * _LINE_M, FIELD_STEP[1] * ground_spacing(ground))
    random = generator(options.seed, _STREAM_ATMOSPHERE, date)
    surface = power_law_surface((len(rows), len(columns)), spacing, 8.0 / 3.0, 0.0, random)
    return _raster(options.turbulence_rms_m * surface)


def _field_grid(ground: Ground) -> tuple[Array, Array]:
    rows = np.arange(0, ground.lines + FIELD_STEP[0], FIELD_STEP[0], dtype=np.float64)
    columns = np.arange(0, ground.samples + FIELD_STEP[1], FIELD_STEP[1], dtype=np.float64)
    return rows, columns


def _raster(values: Array) -> Raster:
    single = values.astype(np.float32)
    return Raster(single, 0.0, float(FIELD_STEP[0]), 0.0, float(FIELD_STEP[1]))


def ground_spacing(ground: Ground) -> float:
    """Return the distance of neighbouring samples on the ground at the scene centre, m."""
    line = np.full(2, 0.5 * ground.lines)
    sample = 0.5 * ground.samples + np.array([-50.0, 50.0])
    latitude, longitude = ground_to_geodetic(ground, line, sample)
    ends = geodetic_to_ecef(latitude, longitude, np.full(2, ground.height_m))
    return float(np.linalg.norm(ends[1] - ends[0])) / 100.0


def terrain(options: SimulationOptions, ground: Ground, anchor: Anchor) -> Raster:
    """Draw the elevation model around the ground, over latitude and longitude in rad."""
    step = options.dem_posting_deg
    edge, zero, one = np.linspace(0.0, 1.0, 20), np.zeros(20), np.ones(20)
    line = np.concatenate([zero, one, edge, edge]) * ground.lines
    sample = np.concatenate([edge, edge, zero, one]) * ground.samples
    latitude, longitude = (np.degrees(v) for v in ground_to_geodetic(ground, line, sample))
    margin = float(np.degrees(options.dem_margin_m / SEMI_MAJOR_AXIS_M))
    wide = margin / float(np.cos(anchor[0]))
    top = int(np.ceil((latitude.max() + margin) / step))
    bottom = int(np.floor((latitude.min() - margin) / step))
    left = int(np.floor((longitude.min() - wide) / step))
    right = int(np.ceil((longitude.max() + wide) / step))
    radians = float(np.radians(step))
    metres = radians * SEMI_MAJOR_AXIS_M
    surface = power_law_surface(
        (top - bottom + 1, right - left + 1),
        (metres, metres * float(np.cos(anchor[0]))),
        options.relief_exponent,
        options.relief_smoothing_m,
        generator(options.seed, _STREAM_TERRAIN),
    )
    surface -= surface.min()
    heights = options.base_height_m + options.relief_m * surface / surface.max()
    return Raster(heights.astype(np.float32), top * radians, -radians, left * radians, radians)


def persistent_scatterers(options: SimulationOptions, ground: Ground) -> PersistentScatterers:
    """Draw the persistent scatterers of the ground."""
    side = 1000.0 / float(np.sqrt(options.persistent_per_km2))
    return draw_persistent(
        options.seed,
        (ground.lines, ground.samples),
        (side / _LINE_M, side / ground_spacing(ground)),
        (options.dem_error_std_m, options.own_velocity_std_m_yr),
        (*options.signal_to_clutter_db, *options.signal_to_clutter_limits_db),
    )
