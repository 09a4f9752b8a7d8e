"""Baselines in StaMPS form from real precise orbits, against geometry and against SNAP."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import fsolve, minimize_scalar

from bperp.stores.stamps import (
    StampsScene,
    StateVectors,
    baseline_from_orbits,
    perpendicular_baseline,
    platform_from_orbit,
)

pytestmark = pytest.mark.realdata

LIGHT = 299_792_458.0
LINES, SAMPLES, LINE_TIME = 1524, 25583, 2.055556299999998e-3
FIRST_SAMPLE_TIME, SAMPLING_HZ = 6.01946798232183e-3, 64_345_238.12571428
BURST_START = 8490 * 86_400 + 21_033.935118  # s since 2000-01-01
SNAP = {"20230106": 107.594849, "20230319": 33.899700}


def _attributes(element: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item["data"]["elems"] for item in element.get("attributes", [])}


def _vectors(image: dict[str, Any]) -> tuple[float, StateVectors]:
    (orbit,) = [e for e in image["elements"] if e["name"] == "Orbit_State_Vectors"]
    rows = [_attributes(element) for element in orbit["elements"]]
    days, seconds, micros = np.array([row["time"] for row in rows], dtype=np.int64).T
    first = float(days[0] * 86_400 + seconds[0]) + micros[0] * 1e-6
    micro = ((days - days[0]) * 86_400 + seconds - seconds[0]) * 1_000_000 + micros - micros[0]
    columns = [
        tuple(tuple(float(row[f"{axis}_{kind}"][0]) for axis in "xyz") for row in rows)
        for kind in ("pos", "vel")
    ]
    return first, StateVectors(tuple(micro / 1e6), *columns)


@pytest.fixture(name="orbits")
def fixture_orbits(real_data: Path) -> dict[str, tuple[float, StateVectors]]:
    root = real_data / "sarxarray-amsterdam"
    if not root.is_dir():
        pytest.skip(f"real data absent: {root}")
    answer = {}
    for folder, date in (("20230331-coreg.znap", "20230106"), ("20230319-coreg.znap", "20230319")):
        text = (root / folder / "SNAP" / "product_metadata.json").read_text()
        parts = {element["name"]: element for element in json.loads(text)}
        answer["20230331"] = _vectors(parts["Abstracted_Metadata"])
        answer[date] = _vectors(parts["Slave_Metadata"]["elements"][0])
    return answer


def _scene(vectors: StateVectors, first_line: float) -> StampsScene:
    platform = platform_from_orbit(vectors, first_line + 0.5 * (LINES - 1) * LINE_TIME)
    return StampsScene(
        reference_date="20230331",
        sensor="SENTINEL-1A",
        lines=LINES,
        samples=SAMPLES,
        first_line_time_ns=1_680_241_833_935_118_000,
        azimuth_time_interval_s=LINE_TIME,
        heading_deg=platform.heading_deg,
        radar_frequency_hz=5.405000454334349e9,
        near_range_m=0.5 * LIGHT * FIRST_SAMPLE_TIME,
        range_pixel_spacing_m=0.5 * LIGHT / SAMPLING_HZ,
        azimuth_pixel_spacing_m=platform.ground_speed_m_s * LINE_TIME,
        sar_to_earth_center_m=platform.sar_to_earth_center_m,
        earth_radius_below_sensor_m=platform.earth_radius_below_sensor_m,
        center_latitude_deg=52.4,
        center_longitude_deg=4.9,
        azimuth_bandwidth_hz=313.0,
    )


class Polynomial:
    """Degree-7 least-squares orbit, a different interpolation from the one under test."""

    def __init__(self, vectors: StateVectors) -> None:
        time, position = np.array(vectors.time_s), np.array(vectors.position_m)
        self.middle = float(time.mean())
        fits = (np.polynomial.Polynomial.fit(time - self.middle, p, 7) for p in position.T)
        self.fits = list(fits)
        assert (
            max(
                np.abs(f(time - self.middle) - p).max()
                for f, p in zip(self.fits, position.T, strict=True)
            )
            < 5e-3
        )

    def position(self, time: float) -> np.ndarray:
        return np.array([fit(time - self.middle) for fit in self.fits])

    def velocity(self, time: float) -> np.ndarray:
        return np.array([fit.deriv()(time - self.middle) for fit in self.fits])


def _target(orbit: Polynomial, time: float, slant: float, height: float) -> np.ndarray:
    sensor, velocity = orbit.position(time), orbit.velocity(time)
    down, along = -sensor / np.linalg.norm(sensor), velocity / np.linalg.norm(velocity)
    start = sensor + slant * (0.78 * down + 0.62 * np.cross(down, along))
    a, b = 6_378_137.0 + height, 6_356_752.314245 + height

    def residual(point: np.ndarray) -> list[float]:
        surface = (point[0] ** 2 + point[1] ** 2) / a**2 + point[2] ** 2 / b**2 - 1.0
        offset = point - sensor
        return [offset @ along, np.linalg.norm(offset) - slant, surface * 3e6]

    return np.asarray(fsolve(residual, start, xtol=1e-13))


def _geometric(reference: Polynomial, secondary: Polynomial, time: float, slant: float) -> float:
    def closest(point: np.ndarray) -> float:
        nodes = np.arange(-11.0, 11.0, 0.25) + secondary.middle
        distances = [np.linalg.norm(point - secondary.position(t)) for t in nodes]
        guess = nodes[int(np.argmin(distances))]
        bounds = (guess - 0.3, guess + 0.3)
        distance = lambda t: float(np.linalg.norm(point - secondary.position(t)))  # noqa: E731
        options = {"xatol": 1e-9}
        return float(
            minimize_scalar(distance, bounds=bounds, method="bounded", options=options).fun
        )

    lower, upper = (_target(reference, time, slant, h) for h in (-500.0, 500.0))
    return -slant * (closest(upper) - closest(lower)) / float(np.linalg.norm(upper - lower))


@pytest.mark.parametrize("date", SNAP)
def test_real_orbits_give_the_geometric_baseline_and_the_one_of_snap(
    orbits: dict[str, tuple[float, StateVectors]], date: str
) -> None:
    epoch, reference = orbits["20230331"]
    first_line = BURST_START - epoch
    scene = _scene(reference, first_line)
    half = 0.5 * (LINES - 1) * LINE_TIME
    baseline = baseline_from_orbits(date, reference, orbits[date][1], first_line + half, half)
    smooth = Polynomial(reference), Polynomial(orbits[date][1])
    for line in (0, LINES - 1):
        for sample in (0, SAMPLES - 1):
            slant = scene.near_range_m + sample * scene.range_pixel_spacing_m
            expected = _geometric(*smooth, first_line + line * LINE_TIME, slant)
            ours = float(
                perpendicular_baseline(scene, baseline, np.float64(line), np.float64(sample))
            )
            assert ours == pytest.approx(expected, abs=0.1)
    center = perpendicular_baseline(scene, baseline, np.float64(LINES / 2), np.float64(SAMPLES / 2))
    # SNAP states one number per pair, without the pixel it belongs to; sign included.
    assert float(center) == pytest.approx(SNAP[date], abs=0.5)
    assert math.hypot(*baseline.tcn_m) < 120.0
