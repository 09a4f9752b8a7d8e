"""From a finished root to a StaMPS input tree, strip by strip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bperp.pipeline.burst import BurstImage
from bperp.pipeline.scene import SceneReader
from bperp.pipeline.stack import Placement, Stack
from bperp.pipeline.stage import Source
from bperp.stores.stamps import (
    StampsBaseline,
    StampsScene,
    StampsTree,
    StateVectors,
    baseline_from_orbits,
    platform_from_orbit,
)

STRIP_LINES = 256


def export_stamps(stack: Stack, source: Source, out: Path, *, replace: bool) -> dict[str, Any]:
    """Write the PS input tree of a stack.

    Parameters
    ----------
    stack : Stack
        Dates with holes are left out: StaMPS needs every pixel on every date.
    source : Source
        Reader of the root's products.
    out : Path
        Folder of the tree.
    replace : bool
        Replace an existing tree.

    Returns
    -------
    dict
        ``dates``, ``left_out``, ``lines``, ``samples``, ``nonfinite_samples``.
    """
    complete = [
        date
        for date in stack.dates
        if all((burst, date) in stack.images for burst in stack.burst_ids)
    ]
    secondaries = [date for date in complete if date != stack.reference_date]
    scene = _scene(stack)
    sensors = {
        _compact(date): _sensor(stack.images[stack.burst_ids[0], date]) for date in secondaries
    }
    with StampsTree(
        out, scene, [_compact(date) for date in secondaries], replace=replace, sensors=sensors
    ) as tree:
        for date in secondaries:
            tree.write_baseline(_baseline(stack, date, scene))
        for first in range(0, scene.lines, STRIP_LINES):
            _write_strip(stack, source, tree, first, secondaries)
    return {
        "dates": complete,
        "left_out": [date for date in stack.dates if date not in complete],
        "lines": scene.lines,
        "samples": scene.samples,
        "nonfinite_samples": tree.nonfinite_samples,
    }


def _write_strip(
    stack: Stack, source: Source, tree: StampsTree, first: int, secondaries: list[str]
) -> None:
    reader = SceneReader(source, stack.scene.as_dict())
    stop = min(first + STRIP_LINES, stack.scene.lines)
    window = (first, stop, 0, stack.scene.samples)
    reference = reader.slc(window, stack.reference_date)
    tree.write_rslc_rows(_compact(stack.reference_date), first, reference)
    for date in secondaries:
        secondary = reader.slc(window, date)
        tree.write_rslc_rows(_compact(date), first, secondary)
        tree.write_diff_rows(_compact(date), first, reference * np.conj(secondary))
    tree.write_geometry_rows(
        first,
        reader.geometry(window, "height"),
        reader.geometry(window, "longitude"),
        reader.geometry(window, "latitude"),
    )


def _compact(date: str) -> str:
    return date.replace("-", "")


def _sensor(image: BurstImage) -> str:
    return f"SENTINEL-{image.mission[1:]}"


def _first_burst(stack: Stack) -> Placement:
    """Return the burst whose first line is the first one, or comes first before the scene."""
    return min(stack.scene.placements, key=lambda item: (item.azimuth, item.range))


def _delay_s(stack: Stack) -> float:
    """Return the time from the first line of the first burst to that of the scene."""
    place = _first_burst(stack)
    return -place.azimuth * stack.reference(place.burst_id).azimuth_time_interval_s


def _scene(stack: Stack) -> StampsScene:
    place = _first_burst(stack)
    image = stack.reference(place.burst_id)
    near = image.near_range_m - place.range * image.range_spacing_m
    vectors = _vectors(image, _delay_s(stack))
    center_s = 0.5 * (stack.scene.lines - 1) * image.azimuth_time_interval_s
    platform = platform_from_orbit(vectors, center_s)
    latitude, longitude = scene_center(stack)
    return StampsScene(
        reference_date=_compact(stack.reference_date),
        sensor=_sensor(image),
        lines=stack.scene.lines,
        samples=stack.scene.samples,
        first_line_time_ns=image.first_line_time_ns + round(1e9 * _delay_s(stack)),
        azimuth_time_interval_s=image.azimuth_time_interval_s,
        heading_deg=platform.heading_deg,
        radar_frequency_hz=image.radar_frequency_hz,
        near_range_m=near,
        range_pixel_spacing_m=image.range_spacing_m,
        azimuth_pixel_spacing_m=platform.ground_speed_m_s * image.azimuth_time_interval_s,
        sar_to_earth_center_m=platform.sar_to_earth_center_m,
        earth_radius_below_sensor_m=platform.earth_radius_below_sensor_m,
        center_latitude_deg=latitude,
        center_longitude_deg=longitude,
        azimuth_bandwidth_hz=image.azimuth_bandwidth_hz,
        state_vectors=vectors,
    )


def scene_center(stack: Stack) -> tuple[float, float]:
    """Return latitude and longitude of the scene's centre in degrees, on the ellipsoid."""
    from bperp.pipeline.geometry import burst_bounds

    bounds = np.array([burst_bounds(stack.reference(b), (0.0,)) for b in stack.burst_ids])
    south, west = bounds[:, :2].min(axis=0)
    north, east = bounds[:, 2:].max(axis=0)
    return float(0.5 * (south + north)), float((0.5 * (west + east) + 180) % 360 - 180)


def _vectors(image: BurstImage, delay_s: float) -> StateVectors:
    """Return the orbit with times from ``delay_s`` after the burst's first line."""
    times = tuple(time - delay_s for time in image.orbit.time_s)
    return StateVectors(times, image.orbit.position_m, image.orbit.velocity_m_s)


def _baseline(stack: Stack, date: str, scene: StampsScene) -> StampsBaseline:
    name, delay_s = _first_burst(stack).burst_id, _delay_s(stack)
    return baseline_from_orbits(
        _compact(date),
        _vectors(stack.reference(name), delay_s),
        _vectors(stack.images[name, date], delay_s),
        scene.center_time_s,
        scene.center_time_s,
    )
