"""Bursts at awkward times and places: midnight, a leap second, the node, 180 degrees, the pole.

Everywhere the same is asked: no exception, the identifier that the burst has on any other day, and
positions and offsets that run on from line to line and from burst to burst.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from bperp.kernels.chebyshev import exact_offsets, fit_burst_offsets
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import look_vectors, rdr2geo
from bperp.kernels.orbit import evaluate_orbit
from bperp.kernels.zero_doppler import rdr2geo_at_height
from bperp.pipeline.burst import BurstImage, OrbitArc
from bperp.pipeline.geometry import burst_bounds
from bperp.pipeline.radar import (
    burst_carrier,
    burst_grid,
    burst_orbit,
    line_times_s,
    slant_ranges_m,
)
from bperp.pipeline.stack import Stack, arrange_scene
from bperp.stores.annotation import SwathAnnotation
from bperp.stores.annotation_reader import ProductContext, parse_annotation
from bperp.stores.orbit_files import parse_orbit
from bperp.stores.xml import parse_time_ns

MakeBurst = Callable[..., BurstImage]
SECOND = 10**9
MIDNIGHT = int(np.datetime64("2017-01-01T00:00:00", "ns").astype(np.int64))
"""The end of the day with the last leap second so far."""
LEAP_OFFSET_S = 36
"""TAI - UTC before it."""
FULL = {"lines": 1507, "samples": 23055, "valid": (10, 1490, 100, 22900)}


def load(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "stores" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def text() -> ModuleType:
    """Return the small handwritten products; the times in them can be moved."""
    return load("test_10_safe_text.py")


def annotation(text: ModuleType, **context: int) -> SwathAnnotation:
    return parse_annotation(text.annotation_xml(), "s1a-iw1.xml", ProductContext(**context))


def relative_times(found: SwathAnnotation) -> list[NDArray[np.int64]]:
    """Return all times of an annotation after its first line, in ns."""
    start = found.first_line_time_ns
    return [
        np.array([burst.azimuth_time_ns for burst in found.bursts]) - start,
        np.array([burst.sensing_time_ns for burst in found.bursts]) - start,
        found.fm_rate.azimuth_time_ns - start,
        found.doppler_centroid.azimuth_time_ns - start,
        found.state_vectors.time_ns - start,
    ]


def rotation(axis: str, angle_rad: float) -> NDArray[np.float64]:
    """Return the matrix that turns vectors about an axis."""
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cosine
    matrix[i, j], matrix[j, i] = -sine, sine
    return matrix


def turned(image: BurstImage, matrix: NDArray[np.float64], later_s: float = 0.0) -> BurstImage:
    """Return a burst whose orbit is turned about the Earth's centre and passes later."""

    def rows(vectors: tuple[tuple[float, float, float], ...]) -> tuple:
        return tuple(tuple(float(v) for v in matrix @ np.array(row)) for row in vectors)

    orbit = image.orbit
    arc = OrbitArc(
        orbit.kind,
        tuple(time + later_s for time in orbit.time_s),
        rows(orbit.position_m),
        rows(orbit.velocity_m_s),
    )
    return dataclasses.replace(image, orbit=arc)


def locate(
    image: BurstImage, lines: NDArray[np.float64], samples: NDArray[np.float64], height_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitude and longitude, ``(lines, samples)``, in rad."""
    time = lines * image.azimuth_time_interval_s
    distance = image.near_range_m + samples * image.range_spacing_m
    grid = [axis.ravel() for axis in np.meshgrid(time, distance, indexing="ij")]
    found = rdr2geo_at_height(burst_orbit(image), *grid, np.full(grid[0].size, height_m))
    shape = (lines.size, samples.size)
    return found[0].reshape(shape), found[1].reshape(shape)


def assert_continuous(reference: BurstImage, secondary: BurstImage) -> None:
    """Check positions line by line, and the offsets of a pair."""
    lines, samples = np.arange(0.0, reference.lines, 1.0), np.array([0.0, reference.samples - 1.0])
    latitude, longitude = locate(reference, lines, samples, 500.0)
    assert np.isfinite(latitude).all()
    points = np.stack(geodetic_to_ecef(latitude, longitude, np.full(latitude.shape, 500.0)))
    steps = np.linalg.norm(np.diff(points, axis=1), axis=0)
    # Lines lie 14 m apart at S1's speed and ours; from one to the next nothing but curvature
    # changes, 1e-5 m.
    assert 10.0 < steps.min() < steps.max() < 16.0
    assert np.abs(np.diff(points, n=2, axis=1)).max() < 1e-4
    pair = [(burst_orbit(image), burst_grid(image)) for image in (reference, secondary)]
    fit = fit_burst_offsets(pair[0], pair[1], (-100.0, 6000.0))
    assert fit.azimuth_error < 1e-5
    assert fit.range_error < 1e-6
    level = np.full(lines.size, 500.0)
    offsets = exact_offsets(pair[0], pair[1], (lines, np.full(lines.size, 1000.0), level))
    assert np.isfinite(offsets).all()
    assert np.abs(np.diff(offsets, n=2, axis=0)).max() < 1e-7


def pair_of(make: MakeBurst, **changes: object) -> tuple[BurstImage, BurstImage]:
    later = {**changes, "date": "2023-01-13"}
    return make(**FULL, **changes), make(**FULL, **later, west_m=-130.0, up_m=90.0)


def test_midnight_in_a_product(text: ModuleType) -> None:
    plain = annotation(text)
    # The day ends after the sixth line of the first burst.
    text.NODE_NS = MIDNIGHT + 3 * 86400 * SECOND - round((text.SCENE_S + 0.012) * 1e9)
    found = annotation(text)
    day = 86400 * SECOND
    assert found.bursts[0].azimuth_time_ns // day + 1 == found.stop_ns // day
    assert [b.burst_id for b in found.bursts] == [b.burst_id for b in plain.bursts]
    for moved, expected in zip(relative_times(found), relative_times(plain), strict=True):
        assert np.abs(moved - expected).max() <= 1000  # the texts hold microseconds
    assert found.flags == plain.flags


def test_midnight_between_and_within_bursts(make_burst: MakeBurst) -> None:
    start = MIDNIGHT + 5 * 86400 * SECOND - SECOND // 5
    cycle_ns = round(1342 * 2.0555563e-3 * 1e9)
    bursts = [
        make_burst(
            burst_id=f"t001_00000{k + 1}_iw1",
            date="2017-01-05",
            first_line_time_ns=start + k * cycle_ns,
            **FULL,
        )
        for k in range(2)
    ]
    scene = arrange_scene(bursts, (4, 20))
    assert [place.azimuth for place in scene.placements] == [0, 1342]
    images = {(burst.burst_id, burst.date): burst for burst in bursts}
    stack = Stack("2017-01-05", ("2017-01-05",), images, scene)
    assert len(stack.overlaps()) == 1
    assert Stack.from_dict(json.loads(json.dumps(stack.as_dict()))) == stack
    # Nothing in a burst refers to the clock: all is relative to its own first line.
    noon = dataclasses.replace(bursts[0], first_line_time_ns=start + 43200 * SECOND)
    for build in (burst_orbit, burst_carrier):
        for one, other in zip(build(bursts[0]), build(noon), strict=True):
            np.testing.assert_array_equal(one, other)
    assert_continuous(*pair_of(make_burst, first_line_time_ns=start))


@pytest.mark.parametrize(
    ("label", "after_s"),
    [
        ("2016-12-31T23:59:59.999999", -1e-6),
        ("2016-12-31T23:59:60.000000", 0.0),
        ("2016-12-31T23:59:60.500000", 0.5),
        ("2016-12-31T23:59:60.999999", 0.999999),
        ("2017-01-01T00:00:00.000000", 0.0),
    ],
)
def test_labels_of_the_leap_second(label: str, after_s: float) -> None:
    found = parse_time_ns(label)
    assert found is not None
    assert found - MIDNIGHT == round(after_s * 1e9)
    assert parse_time_ns("2016-12-31T23:59:61.000000") is None


def leap_label(true_s: float) -> str:
    """Return the UTC label of a time counted in true seconds from the start of the leap second."""
    if true_s < 0.0:
        return str(np.datetime64(MIDNIGHT + round(true_s * 1e9), "ns"))[:26]
    if true_s < 1.0:
        return f"2016-12-31T23:59:{60.0 + true_s:09.6f}"
    return str(np.datetime64(MIDNIGHT + round((true_s - 1.0) * 1e9), "ns"))[:26]


def leap_orbit_text(text: ModuleType, node_s: float) -> bytes:
    """Return a precise orbit file whose UTC labels pass the leap second; the node is at node_s."""
    orbits = load("test_17_orbits.py")
    vectors = []
    for true_s in range(-200, 210, 10):
        position, velocity = text.state(true_s - node_s)
        tai = orbits.stamp(MIDNIGHT + (true_s + LEAP_OFFSET_S) * SECOND)
        parts = [f'<{a} unit="m">{v:.6f}</{a}>' for a, v in zip("XYZ", position, strict=True)]
        parts += [f'<V{a} unit="m/s">{v:.6f}</V{a}>' for a, v in zip("XYZ", velocity, strict=True)]
        vectors.append(
            f"<OSV><TAI>TAI={tai}</TAI><UTC>UTC={leap_label(true_s)}</UTC>"
            f"<Absolute_Orbit>+14600</Absolute_Orbit>{''.join(parts)}"
            "<Quality>NOMINAL</Quality></OSV>"
        )
    data: bytes = orbits.eof(
        MIDNIGHT - 200 * SECOND, MIDNIGHT + 199 * SECOND, vectors="".join(vectors)
    )
    return data


@pytest.mark.parametrize(
    "true_s",
    [
        -2.9,
        -0.2,
        0.4,
        2.6,
        8.2,
    ],
)
def test_orbit_of_a_burst_around_the_leap_second(
    make_burst: MakeBurst, text: ModuleType, true_s: float
) -> None:
    """Bursts before, across, in and after the second lie where the satellite truly was."""
    node_s = -700.0
    data = leap_orbit_text(text, node_s)
    start_ns = parse_time_ns(leap_label(true_s))
    assert start_ns is not None
    first, last = start_ns - 180 * SECOND, start_ns + 180 * SECOND
    orbit = parse_orbit(data, "leap.EOF", first, last)
    assert orbit.flags == ("leap-second",)
    arc = OrbitArc(
        orbit.kind,
        tuple(float(t) for t in (orbit.time_ns - start_ns) * 1e-9),
        tuple(tuple(float(v) for v in row) for row in orbit.position_m),
        tuple(tuple(float(v) for v in row) for row in orbit.velocity_m_s),
    )
    image = make_burst(**FULL, orbit=arc, first_line_time_ns=start_ns, date="2016-12-31")
    seconds = np.array([0.0, 1.5, 3.0])
    found = evaluate_orbit(burst_orbit(image), seconds)[0]
    truth = np.stack([text.state(true_s - node_s + t)[0] for t in seconds])
    assert np.abs(found - truth).max() < 1e-3  # a second would be 7.6 km
    latitude, _ = locate(image, np.arange(0.0, 1507.0, 100.0), np.array([0.0, 2e4]), 0.0)
    assert (np.abs(np.diff(latitude, n=2, axis=0)) < 1e-6).all()


def test_identifiers_on_the_day_of_the_leap_second(text: ModuleType) -> None:
    plain = annotation(text)
    # The whole product lies before the leap second, its orbit's node too.
    text.NODE_NS = MIDNIGHT - 130 * SECOND
    before = annotation(text)
    assert [b.burst_id for b in before.bursts] == [b.burst_id for b in plain.bursts]
    assert before.flags == plain.flags
    # The node before it, the product after it: labels tell one second less than has passed.
    text.NODE_NS = MIDNIGHT - 30 * SECOND

    def label(seconds: float) -> str:
        return leap_label(seconds - 30.0)

    text.at = label
    after = annotation(text)
    assert after.bursts[0].azimuth_time_ns - text.NODE_NS == (61 - 1) * SECOND
    assert [b.computed_number for b in after.bursts] == [b.annotated_number for b in plain.bursts]
    step = after.bursts[1].azimuth_time_ns - after.bursts[0].azimuth_time_ns
    assert step == pytest.approx(text.CYCLE_S * 1e9, abs=1000)


@pytest.mark.parametrize("scene_s", [-1.112, -0.012, 0.4])
def test_identifier_does_not_change_at_the_node(text: ModuleType, scene_s: float) -> None:
    """The first burst is sensed across the node, lies across it, or comes after it."""
    text.SCENE_S = scene_s
    # The published formula counts on over the node, from the node of relative orbit 52.
    expected = [text.expected_number(scene_s + k * text.CYCLE_S + 1.1) for k in range(2)]
    assert expected[1] == expected[0] + 1
    middle_ns = text.NODE_NS + round((scene_s + 1.4) * 1e9)
    found = annotation(
        text, start_orbit=51 if scene_s < 0 else 52, stop_orbit=52, middle_ns=middle_ns
    )
    assert [burst.computed_number for burst in found.bursts] == expected
    assert [int(burst.burst_id[5:11]) for burst in found.bursts] == expected
    assert found.flags == ()


def test_node_within_a_burst(make_burst: MakeBurst) -> None:
    """The satellite and the ground cross the equator half way through the burst."""
    middle_s = 0.5 * 1506 * 2.0555563e-3
    reference, secondary = (turned(image, np.eye(3), middle_s) for image in pair_of(make_burst))
    place = evaluate_orbit(burst_orbit(reference), line_times_s(reference, 0, 1507)[[0, -1]])[0]
    assert place[0, 2] < 0.0 < place[1, 2]
    latitude, _ = locate(reference, np.array([0.0, 1506.0]), np.array([0.0, 2e4]), 0.0)
    assert (latitude[0] < 0.0).all()
    assert (latitude[1] > 0.0).all()
    south, _, north, _ = burst_bounds(reference)
    assert south < -0.05 < 0.05 < north
    assert_continuous(reference, secondary)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_antimeridian(make_burst: MakeBurst, side: float) -> None:
    here = pair_of(make_burst)
    _, west, _, east = burst_bounds(here[0], (0.0,))
    # The same pair, turned so that 180 degrees passes through the middle of the burst.
    angle = side * math.pi - math.radians(0.5 * (west + east))
    there = tuple(turned(image, rotation("z", angle)) for image in here)
    assert_continuous(*there)
    lines, samples = np.arange(0.0, 1507.0, 150.0), np.arange(0.0, 23055.0, 1000.0)
    plain, found = (locate(image, lines, samples, 300.0) for image in (here[0], there[0]))
    assert (found[1] < -3.0).any()
    assert (found[1] > 3.0).any()
    np.testing.assert_allclose(found[0], plain[0], atol=1e-12)
    turn = np.angle(np.exp(1j * (found[1] - plain[1] - angle)))
    assert np.abs(turn).max() < 1e-12
    # Bounds stay in one piece, beyond 180 degrees, and as wide as anywhere else.
    bounds, expected = burst_bounds(there[0]), burst_bounds(here[0])
    assert bounds[1] < 180.0 < bounds[3]
    assert bounds[3] - bounds[1] == pytest.approx(expected[3] - expected[1], abs=1e-9)
    assert bounds[::2] == pytest.approx(expected[::2], abs=1e-9)
    pairs = [[(burst_orbit(i), burst_grid(i)) for i in pair] for pair in (here, there)]
    nodes = (lines, samples[: lines.size], np.linspace(0.0, 3000.0, lines.size))
    np.testing.assert_allclose(
        exact_offsets(*pairs[1], nodes), exact_offsets(*pairs[0], nodes), atol=1e-7
    )


def test_heights_are_found_across_the_antimeridian(make_burst: MakeBurst) -> None:
    image = make_burst(lines=60, samples=3000, valid=(0, 60, 0, 3000))
    _, west, _, east = burst_bounds(image, (0.0,))
    image = turned(image, rotation("z", math.pi - math.radians(0.5 * (west + east))))
    south, west, north, east = burst_bounds(image)
    step = 1.0 / 1200.0
    rows, columns = int((north - south) / step) + 2, int((east - west) / step) + 2
    # A plane that climbs to the east without a step at 180 degrees: 2 m per cell.
    heights = np.broadcast_to(2.0 * np.arange(columns, dtype=np.float32), (rows, columns))
    latitude, longitude, height, status = rdr2geo(
        burst_orbit(image),
        line_times_s(image, 0, 60),
        slant_ranges_m(image, 0, 3000),
        np.ascontiguousarray(heights),
        (north, west, -step, step),
    )
    assert (status == 0).all()
    beyond = np.where(longitude < 0.0, longitude + 2.0 * np.pi, longitude)
    np.testing.assert_allclose(height, 2.0 * (np.degrees(beyond) - west) / step, atol=2e-3)
    assert np.abs(np.diff(height, n=2, axis=1)).max() < 0.01
    vectors, incidence = look_vectors(
        burst_orbit(image), line_times_s(image, 0, 60), latitude, longitude, height
    )
    assert np.abs(np.diff(vectors, axis=2)).max() < 1e-4
    assert np.isfinite(incidence).all()


@pytest.mark.parametrize(
    ("degrees_along", "tilt_deg"),
    [
        (81.0, 0.0),  # a polar orbit, heading north, the satellite at 81 N
        (90.0, 8.18),  # Sentinel-1 at its northernmost, heading west and looking to the pole
        (86.0, 8.18),
    ],
)
def test_near_the_pole(make_burst: MakeBurst, degrees_along: float, tilt_deg: float) -> None:
    matrix = rotation("x", math.radians(tilt_deg)) @ rotation("y", -math.radians(degrees_along))
    reference, secondary = (turned(image, matrix) for image in pair_of(make_burst))
    place = evaluate_orbit(burst_orbit(reference), 0.0)[0][0]
    assert math.degrees(math.asin(place[2] / np.linalg.norm(place))) > 80.5
    assert_continuous(reference, secondary)
    # The bounds, from which the elevation model is read, hold every pixel at every height.
    south, west, north, east = burst_bounds(reference, (0.0, 3000.0))
    lines, samples = np.linspace(0.0, 1506.0, 31), np.linspace(0.0, 23054.0, 101)
    outside = 0.0
    for height in (0.0, 1500.0, 3000.0):
        latitude, longitude = (np.degrees(v) for v in locate(reference, lines, samples, height))
        longitude = np.where(longitude < west, longitude + 360.0, longitude)
        outside = max(outside, float((latitude - north).max()), float((south - latitude).max()))
        outside = max(outside, float((longitude - east).max()))
    print(f"pixels reach to {latitude.max():.2f} N; beyond the bounds by {outside:+.4f} degrees")
    assert outside <= 0.0
