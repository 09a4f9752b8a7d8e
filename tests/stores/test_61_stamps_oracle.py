"""Written trees are read here the way StaMPS reads them, and checked against geometry.

The reader below follows the documented rules (token search, grep and field 2, file names from the
end of the path, globs); the geometry is solved with its own Newton iteration on its own orbits.
Nothing of the writer's arithmetic is used.
"""

from __future__ import annotations

import fnmatch
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import fsolve, minimize_scalar

from bperp.stores.stamps import (
    StampsBaseline,
    StampsScene,
    StampsTree,
    StateVectors,
    baseline_from_orbits,
    perpendicular_baseline,
    platform_from_orbit,
)

OMEGA = 7.2921151467e-5
A, B = 6378137.0, 6356752.314245179
LINES, SAMPLES = 4000, 48
LINE_TIME = 2.0555563e-3
NEAR, SPACING = 845_000.25, 1875.125  # coarse samples: a small raster spans a whole swath
EPOCH_NS = 1_692_941_534_123_456_000  # 2023-08-25


# --- orbits and geometry, independent of the package --------------------------------------------


class Orbit:
    """Circular orbit in the Earth-fixed frame."""

    def __init__(self, radius: float, inclination_deg: float, node_deg: float, phase: float):
        self.radius, self.inclination = radius, math.radians(inclination_deg)
        self.node, self.phase = math.radians(node_deg), phase
        self.rate = math.sqrt(3.986004418e14 / radius**3)

    def position(self, time: float) -> np.ndarray:
        u = self.phase + self.rate * time
        x, y = math.cos(u), math.sin(u) * math.cos(self.inclination)
        z = math.sin(u) * math.sin(self.inclination)
        angle = self.node - OMEGA * time
        return self.radius * np.array(
            [
                x * math.cos(angle) - y * math.sin(angle),
                x * math.sin(angle) + y * math.cos(angle),
                z,
            ]
        )

    def velocity(self, time: float) -> np.ndarray:
        return (self.position(time + 0.01) - self.position(time - 0.01)) / 0.02

    def vectors(self, first: float, count: int = 9, shift: float = 0.0) -> StateVectors:
        times = [first + 10.0 * k for k in range(count)]
        return StateVectors(
            tuple(time + shift for time in times),
            tuple(tuple(float(v) for v in self.position(time)) for time in times),
            tuple(tuple(float(v) for v in self.velocity(time)) for time in times),
        )


def target(orbit: Orbit, time: float, slant_range: float, height: float) -> np.ndarray:
    """Point on the right of the track: zero Doppler, given range, given ellipsoidal height."""
    sensor, velocity = orbit.position(time), orbit.velocity(time)
    down = -sensor / np.linalg.norm(sensor)
    along = velocity / np.linalg.norm(velocity)
    right = np.cross(down, along)
    look = math.radians(36.0)
    start = sensor + slant_range * (math.cos(look) * down + math.sin(look) * right)

    def residual(point: np.ndarray) -> list[float]:
        x, y, z = point
        surface = (x * x + y * y) / (A + height) ** 2 + z * z / (B + height) ** 2 - 1.0
        return [
            (point - sensor) @ along,
            np.linalg.norm(point - sensor) - slant_range,
            surface * A / 2.0,
        ]

    return np.asarray(fsolve(residual, start, xtol=1e-13))


def closest_range(orbit: Orbit, point: np.ndarray, guess: float) -> float:
    found = minimize_scalar(
        lambda time: np.linalg.norm(point - orbit.position(time)),
        bounds=(guess - 3.0, guess + 3.0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.fun)


def geometric_baseline(reference: Orbit, secondary: Orbit, line: float, sample: float) -> float:
    """-R dR_secondary / ds for a target lifted along the circle of constant reference range."""
    time = line * LINE_TIME
    slant_range = NEAR + sample * SPACING
    lower = target(reference, time, slant_range, -400.0)
    upper = target(reference, time, slant_range, 400.0)
    change = closest_range(secondary, upper, time) - closest_range(secondary, lower, time)
    return -slant_range * change / float(np.linalg.norm(upper - lower))


REFERENCE = Orbit(7_071_000.0, 98.18, 25.0, math.radians(133.0))
SECONDARIES = {
    "20230813": Orbit(7_071_090.0, 98.18, 25.0009, math.radians(133.0) + 4e-5),
    "20230906": Orbit(7_070_940.0, 98.1806, 24.9988, math.radians(133.0) - 2e-5),
}


def scene() -> StampsScene:
    vectors = REFERENCE.vectors(-30.0)
    center = 0.5 * (LINES - 1) * LINE_TIME
    platform = platform_from_orbit(vectors, center)
    return StampsScene(
        reference_date="20230825",
        sensor="SENTINEL-1A",
        lines=LINES,
        samples=SAMPLES,
        first_line_time_ns=EPOCH_NS,
        azimuth_time_interval_s=LINE_TIME,
        heading_deg=platform.heading_deg,
        radar_frequency_hz=5.40500045433435e9,
        near_range_m=NEAR,
        range_pixel_spacing_m=SPACING,
        azimuth_pixel_spacing_m=platform.ground_speed_m_s * LINE_TIME,
        sar_to_earth_center_m=platform.sar_to_earth_center_m,
        earth_radius_below_sensor_m=platform.earth_radius_below_sensor_m,
        center_latitude_deg=46.0,
        center_longitude_deg=10.0,
        azimuth_bandwidth_hz=313.0,
        state_vectors=vectors,
    )


def baselines() -> dict[str, StampsBaseline]:
    half = 0.5 * (LINES - 1) * LINE_TIME
    return {
        # The secondary's clock is another one: only its geometry may matter.
        date: baseline_from_orbits(
            date, REFERENCE.vectors(-30.0), orbit.vectors(-33.0, shift=77.25), half, half
        )
        for date, orbit in SECONDARIES.items()
    }


# --- the reader's side ---------------------------------------------------------------------------


def read_parameter(path: Path, key: str, count: int = 1) -> list[str]:
    tokens = path.read_text().split()
    hits = [index for index, token in enumerate(tokens) if token.startswith(key)]
    assert len(hits) == 1, f"{key} must match exactly one word of {path.name}, got {len(hits)}"
    return tokens[hits[0] + 1 : hits[0] + 1 + count]


def grep_field_2(path: Path, word: str) -> str:
    lines = [line for line in path.read_text().split("\n") if word in line]
    assert len(lines) == 1
    return lines[0].split()[1]


def listing(root: Path, folder: str, name: str) -> list[str]:
    """Sorted like ``ls``; ``folder`` and ``name`` are shell patterns."""
    return sorted(
        str(entry)
        for sub in root.iterdir()
        if fnmatch.fnmatchcase(sub.name, folder)
        for entry in sub.iterdir()
        if fnmatch.fnmatchcase(entry.name, name)
    )


def stamps_bperp(root: Path, reference: str, line: float, sample: float) -> dict[str, float]:
    (parameters,) = map(Path, listing(root, "*slc", f"{reference}.*slc.par"))
    names = ("range_pixel_spacing", "near_range_slc", "sar_to_earth_center", "prf")
    spacing, near, sensor, prf = (float(read_parameter(parameters, n)[0]) for n in names)
    earth = float(read_parameter(parameters, "earth_radius_below_sensor")[0])
    lines = int(read_parameter(parameters, "azimuth_lines")[0])
    paths = listing(root, "diff0", "*.diff")
    assert len({len(path) for path in paths}) == 1
    answer = {}
    for path in paths:
        base = Path(path.replace(".diff", ".base"))
        tcn = [float(v) for v in read_parameter(base, "initial_baseline(TCN)", 3)]
        rate = [float(v) for v in read_parameter(base, "initial_baseline_rate", 3)]
        slant = near + sample * spacing
        look = math.acos((sensor**2 + slant**2 - earth**2) / (2 * sensor * slant))
        seconds = (line - (lines / 2 - 0.5)) / prf
        c, n = tcn[1] + rate[1] * seconds, tcn[2] + rate[2] * seconds
        tail = path[-22:]
        assert tail[:8] == reference
        assert tail[8] == "_"
        assert tail[17:] == ".diff"
        answer[tail[9:17]] = c * math.cos(look) - n * math.sin(look)
    return answer


@pytest.fixture(scope="module", name="tree")
def fixture_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stamps") / "INSAR_20230825"
    zeros = np.zeros((500, SAMPLES), dtype=np.complex64)
    plain = np.zeros((500, SAMPLES), dtype=np.float32)
    with StampsTree(root, scene(), list(SECONDARIES)) as writer:
        for first in range(0, LINES, 500):
            for date in ("20230825", *SECONDARIES):
                writer.write_rslc_rows(date, first, zeros)
            for date in SECONDARIES:
                writer.write_diff_rows(date, first, zeros)
            writer.write_geometry_rows(first, plain, plain, plain)
        for baseline in baselines().values():
            writer.write_baseline(baseline)
    return root


PIXELS = [(i, j) for i in (0, LINES // 2, LINES - 1) for j in (0, SAMPLES // 2, SAMPLES - 1)]


@pytest.mark.parametrize(("line", "sample"), PIXELS)
def test_perpendicular_baseline_that_stamps_computes_is_the_geometric_one(
    tree: Path, line: int, sample: int
) -> None:
    computed = stamps_bperp(tree, "20230825", line, sample)
    assert list(computed) == ["20230813", "20230906"]
    for date, orbit in SECONDARIES.items():
        expected = geometric_baseline(REFERENCE, orbit, line, sample)
        length = np.linalg.norm(orbit.position(0.0) - REFERENCE.position(0.0))
        assert length > 75.0
        # 1e-3 of the baseline: the sphere below the sensor is not the ellipsoid at the target.
        assert abs(computed[date] - expected) < 0.12


def test_sign_of_the_normal_component_and_the_rate_matter_in_this_geometry(tree: Path) -> None:
    """The oracle above would notice a baseline with N up (as SNAP writes) or without rate."""
    base = tree / "diff0" / "20230825_20230813.base"
    _, cross, normal = (float(v) for v in read_parameter(base, "initial_baseline(TCN)", 3))
    rate = float(read_parameter(base, "initial_baseline_rate", 3)[1])
    assert normal < -85.0, "the secondary is 90 m higher and N points down"
    assert cross < -80.0, "the secondary is to the left (east) of a descending track"
    assert abs(2.0 * normal * math.sin(0.6)) > 90.0
    assert abs(rate) * 0.5 * LINES * LINE_TIME > 0.3


def test_along_track_baseline_is_removed_by_comparing_positions_not_times(tree: Path) -> None:
    for base in listing(tree, "diff0", "*.base"):
        along = float(read_parameter(Path(base), "initial_baseline(TCN)", 3)[0])
        assert abs(along) < 1e-3


def test_python_side_formula_equals_the_text_that_was_written(tree: Path) -> None:
    line, sample = 1234, 37
    computed = stamps_bperp(tree, "20230825", line, sample)
    for date, baseline in baselines().items():
        ours = perpendicular_baseline(scene(), baseline, np.float64(line), np.float64(sample))
        assert float(ours) == pytest.approx(computed[date], abs=1e-5)


def test_every_key_of_step_one_has_exactly_one_word_and_the_right_number(tree: Path) -> None:
    (path,) = map(Path, listing(tree, "*slc", "20230825.*slc.par"))
    assert grep_field_2(path, "azimuth_lines") == str(LINES)
    assert grep_field_2(path, "range_samples") == str(SAMPLES)
    assert grep_field_2(path, "image_format") == "FCOMPLEX"
    assert read_parameter(path, "sensor:") == ["SENTINEL-1A"]
    numbers = {
        "heading:": (194.489, 1e-2),  # descending
        "radar_frequency:": (5.40500045433435e9, 1e-3),
        "range_pixel_spacing": (SPACING, 1e-9),
        "near_range_slc": (NEAR, 1e-6),
        "center_range_slc": (NEAR + 0.5 * (SAMPLES - 1) * SPACING, 1e-5),
        "sar_to_earth_center": (7_071_000.0, 1e-3),
        "prf": (1.0 / LINE_TIME, 1e-9),
    }
    for key, (expected, tolerance) in numbers.items():
        (value,) = read_parameter(path, key)
        assert float(value) == pytest.approx(expected, abs=tolerance), key


def test_earth_radius_uses_the_latitude_in_radians(tree: Path) -> None:
    (path,) = map(Path, listing(tree, "*slc", "20230825.*slc.par"))
    x, y, z = REFERENCE.position(0.5 * (LINES - 1) * LINE_TIME)
    # Where the straight line from the Earth's centre to the sensor meets the ellipsoid.
    scale = 1.0 / math.sqrt((x * x + y * y) / A**2 + z * z / B**2)
    expected = scale * math.sqrt(x * x + y * y + z * z)
    assert float(read_parameter(path, "earth_radius_below_sensor")[0]) == pytest.approx(
        expected, abs=1e-3
    )


def test_heading_is_the_direction_in_which_the_ground_track_moves(tree: Path) -> None:
    (path,) = map(Path, listing(tree, "*slc", "20230825.*slc.par"))
    center = 0.5 * (LINES - 1) * LINE_TIME

    def ground(time: float) -> tuple[float, float]:
        x, y, z = REFERENCE.position(time)
        latitude = math.atan2(z, math.hypot(x, y))
        for _ in range(20):  # geodetic latitude by iteration
            e2 = 1.0 - (B / A) ** 2
            curvature = A / math.sqrt(1.0 - e2 * math.sin(latitude) ** 2)
            latitude = math.atan2(z + e2 * curvature * math.sin(latitude), math.hypot(x, y))
        return latitude, math.atan2(y, x)

    # A point straight below the sensor at orbital height: displacements scale with the radii.
    (lat0, lon0), (lat1, lon1) = ground(center - 0.05), ground(center + 0.05)
    e2 = 1.0 - (B / A) ** 2
    root = math.sqrt(1.0 - e2 * math.sin(lat0) ** 2)
    height = 7_071_000.0 - float(read_parameter(path, "earth_radius_below_sensor")[0])
    meridian = A * (1.0 - e2) / root**3 + height
    parallel = (A / root + height) * math.cos(lat0)
    heading = math.degrees(math.atan2((lon1 - lon0) * parallel, (lat1 - lat0) * meridian)) % 360.0
    assert float(read_parameter(path, "heading:")[0]) == pytest.approx(heading, abs=2e-3)


def test_globs_of_the_loader_find_exactly_what_they_should(tree: Path) -> None:
    assert len(listing(tree, "*slc", "20230825.*slc.par")) == 1
    images = [Path(path).name for path in listing(tree, "*slc", "*.*slc")]
    assert images == ["20230813.rslc", "20230825.rslc", "20230906.rslc"]
    pairs = [Path(path).name for path in listing(tree, "diff0", "*.diff")]
    assert pairs == ["20230825_20230813.diff", "20230825_20230906.diff"]
    assert len(listing(tree, "geo", "*dem.rdc")) == 1
    assert [Path(p).name for p in listing(tree, "geo", "*.lon")] == ["20230825.lon"]
    assert [Path(p).name for p in listing(tree, "geo", "*.lat")] == ["20230825.lat"]
    assert [Path(p).name for p in listing(tree, "geo", "*.diff_par")] == ["20230825.diff_par"]


def test_state_vectors_in_the_parameter_file_are_the_orbit(tree: Path) -> None:
    path = tree / "rslc" / "20230825.rslc.par"
    first = float(read_parameter(path, "time_of_first_state_vector")[0])
    step = float(read_parameter(path, "state_vector_interval")[0])
    start = float(read_parameter(path, "start_time")[0])
    assert start == pytest.approx(EPOCH_NS % (86_400 * 10**9) / 1e9, abs=1e-6)
    position = [float(v) for v in read_parameter(path, "state_vector_position_5", 3)]
    expected = REFERENCE.position(first + 4 * step - start)
    assert np.linalg.norm(np.array(position) - expected) < 1e-3
