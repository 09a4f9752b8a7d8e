"""Burst identifiers: faults B06, B07, B08; node crossings; the agency's own numbers and map."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from bperp.stores import burst_ids
from bperp.stores.errors import ProductError
from bperp.stores.safe import open_safe

_spec = importlib.util.spec_from_file_location(
    "safe_text", Path(__file__).with_name("test_10_safe_text.py")
)
text = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(text)

SECOND = 10**9


@pytest.mark.parametrize(
    ("mission", "absolute", "relative"),
    [
        ("S1A", 50174, 52),  # Morocco 2023, manifest
        ("S1A", 45397, 175),  # manifest
        ("S1B", 26269, 168),  # Alps 2021, manifest
        ("S1C", 1681, 110),  # real product of 2025
        ("S1C", 8018, 147),  # last product before the manoeuvre of June 2026
        ("S1C", 8019, 46),  # after it
        ("S1D", 2389, 73),  # Croatia 2026
        ("S1A", 2674, 152),  # its manifest of 2014 says 154, the ground track says 152
        ("S1A", 73, 1),
        ("S1A", 72, 175),
    ],
)
def test_b08_relative_orbits(mission, absolute, relative):
    assert burst_ids.relative_orbit(mission, absolute) == relative


def test_b08_unknown_mission():
    with pytest.raises(ProductError, match=r"D305 .*S1A, S1B, S1C, S1D; found S1E"):
        burst_ids.relative_orbit("S1E", 100)


def test_numbers_follow_the_published_formula():
    # Middle of an IW2 burst 2444.08 s after the node of relative orbit 52.
    number, fraction = burst_ids.burst_number("IW1", round(2445.228e9), 0, 52)
    assert number == 110431
    assert 0.4 < fraction < 0.6
    slot = (2445.228 + 0.832 + 0.539 + 51 * 12 * 86400 / 175 - 2.299849) / 2.758273
    assert number == 1 + int(slot)
    assert fraction == pytest.approx(slot % 1.0, abs=1e-6)


def test_swaths_of_one_burst_cycle_share_their_number():
    start = 1000 * SECOND
    numbers = {
        burst_ids.burst_number(swath, start + round(delay * SECOND), 0, 10)[0]
        for swath, delay in (("IW1", 0.0), ("IW2", 0.832), ("IW3", 0.832 + 1.078))
    }
    assert len(numbers) == 1


def test_number_does_not_depend_on_which_node_is_annotated():
    period = burst_ids.ORBIT_PERIOD_S
    for orbit in (1, 52, 175):
        near = burst_ids.burst_number("IW2", round(5990.0e9), round(period * 1e9), orbit)
        before = (orbit - 2) % 175 + 1
        assert burst_ids.burst_number("IW2", round(5990.0e9), 0, before)[0] == near[0]


def test_numbers_wrap_at_the_end_of_the_cycle():
    # 10 s after the node that follows relative orbit 175 is 10 s after that of relative orbit 1.
    after = round((burst_ids.ORBIT_PERIOD_S + 10.0) * 1e9)
    late = burst_ids.burst_number("IW1", after, 0, 175)[0]
    assert late == burst_ids.burst_number("IW1", 10 * SECOND, 0, 1)[0] < 10
    assert burst_ids.track_of_burst(1) == 1
    assert burst_ids.track_of_burst(375887) == 175
    tracks = [burst_ids.track_of_burst(number) for number in range(1, 375888, 97)]
    assert tracks == sorted(tracks)


@pytest.mark.parametrize(
    ("start", "stop", "orbits_since_node", "node"),
    [
        (52, 52, 0.4, 52),  # ordinary scenes
        (52, 52, 0.7, 52),
        (175, 175, 1.002, 174),  # node of the orbit before is annotated (2022-10-11)
        (15, 16, 0.999, 15),  # crossing inside the scene (2022-10-24)
        (98, 99, 1.0004, 98),  # starts just before the crossing, middle after it (2020-01-02)
        (174, 175, 0.9995, 174),  # crossing into track 175
        (175, 1, 0.9995, 175),  # crossing into the next cycle
        (175, 1, -0.0002, 1),  # the crossing itself is annotated
        (1, 1, 1.003, 175),
    ],
)
def test_which_orbit_begins_at_the_annotated_node(start, stop, orbits_since_node, node):
    middle = round(orbits_since_node * burst_ids.ORBIT_PERIOD_S * 1e9)
    assert burst_ids.node_relative_orbit(start, stop, middle, 0) == node


def test_identifiers_round_trip():
    assert burst_ids.format_burst_id(110431, "IW1") == "t052_110431_iw1"
    assert burst_ids.parse_burst_id("t052_110431_iw1") == (52, 110431, "IW1")
    for bad in ("t52_110431_iw1", "t052_110431_IW1", "../t052_110431_iw1", "", "t052_1104310_iw1"):
        with pytest.raises(ProductError, match="D304"):
            burst_ids.parse_burst_id(bad)


def test_b07_node_of_a_circular_orbit():
    position, velocity = text.state(60.0)
    nodes = burst_ids.ascending_nodes_ns(60 * SECOND, position, velocity, 200.0)
    assert len(nodes) == 1
    # Within 60 s the flattening of the Earth moves the satellite by 20 m, that is 3 ms.
    assert abs(nodes[0]) < 0.01 * SECOND
    period_s = 2 * np.pi / text.NODE_RATE_RAD_S
    nodes = burst_ids.ascending_nodes_ns(60 * SECOND, position, velocity, 1.2 * period_s)
    assert len(nodes) == 2
    # J2 shortens the nodal period of this orbit by about 4 s against the Kepler period.
    assert (nodes[1] - nodes[0]) * 1e-9 == pytest.approx(period_s, abs=12.0)
    later = burst_ids.ascending_nodes_ns(-30 * SECOND, *text.state(-30.0), 10.0)
    assert len(later) == 1
    assert abs(later[0]) < 0.01 * SECOND


def test_tracks_from_node_longitudes():
    first = burst_ids.NODE_LONGITUDE_DEG
    assert burst_ids.track_of_node(first) == 1
    for track in (2, 15, 52, 154, 175):
        # The Earth turns 12 times while the satellite turns 175 times.
        longitude = (first - (track - 1) * 360.0 * 12 / 175 + 180.0) % 360.0 - 180.0
        assert burst_ids.track_of_node(longitude + 0.02) == track
    assert burst_ids.track_of_node(first + 1.0) is None


def test_node_longitude_of_a_circular_orbit():
    position, velocity = text.state(60.0)
    expected = text.NODE_LONGITUDE_DEG
    found = burst_ids.node_longitude_deg(0, 60 * SECOND, position, velocity)
    assert abs(found - expected) < 0.01


def products(real_data: Path) -> list[Path]:
    return sorted(
        [
            *real_data.glob("s1-reader-safe-orbits/safe/*.zip"),
            *real_data.glob("eo_tools-morocco-2023/S1/*.SAFE"),
            *real_data.glob("single-safes/*/*.SAFE"),
        ]
    )


@pytest.mark.realdata
def test_real_numbers_equal_the_annotated_ones(real_data):
    compared = 0
    for path in products(real_data):
        product = open_safe(str(path))
        for swath, polarization in product.swaths():
            for burst in product.annotation(swath, polarization).bursts:
                if burst.annotated_number is not None:
                    assert burst.computed_number == burst.annotated_number
                    compared += 1
                else:
                    assert burst.burst_id_source == "computed"
    assert compared > 150


@pytest.mark.realdata
def test_real_nodes_are_found_from_the_annotated_vectors(real_data):
    for path in products(real_data):
        product = open_safe(str(path))
        annotation = product.annotation(*product.swaths()[0])
        assert "ascending-node-recomputed" not in annotation.flags
        vectors = annotation.state_vectors
        found = burst_ids.nearest_node_ns(
            annotation.ascending_node_time_ns,
            vectors.time_ns,
            vectors.position_m,
            vectors.velocity_m_s,
        )
        assert abs(found - annotation.ascending_node_time_ns) < 0.05 * SECOND


def centroid(corners: np.ndarray) -> np.ndarray:
    """Return the centre of area of a closed polygon (n, 2)."""
    x, y = (corners - corners[0]).T
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    weights = np.array([((v[:-1] + v[1:]) * cross).sum() for v in (x, y)])
    return corners[0] + weights / (3.0 * cross.sum())


def burst_map(real_data: Path) -> dict[str, np.ndarray]:
    """Return burst id -> longitude and latitude of its footprint's centre."""
    with (real_data / "s1-reader-safe-orbits" / "esa_burst_db_sample.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    pairs = {row["burst_id_jpl"]: re.findall(r"-?[\d.]+ -?[\d.]+", row["geometry"]) for row in rows}
    return {
        burst_id: centroid(np.array([[float(v) for v in pair.split()] for pair in corners]))
        for burst_id, corners in pairs.items()
    }


@pytest.mark.realdata
def test_real_tracks_equal_those_of_the_burst_map(real_data):
    for burst_id in burst_map(real_data):
        _, number, swath = burst_ids.parse_burst_id(burst_id)
        assert burst_ids.format_burst_id(number, swath) == burst_id


@pytest.mark.realdata
def test_real_footprints_lie_where_the_burst_map_has_them(real_data):
    places, compared = burst_map(real_data), 0
    worst = 0.0
    for path in products(real_data):
        product = open_safe(str(path))
        for swath, polarization in product.swaths():
            annotation = product.annotation(swath, polarization)
            grid = annotation.geolocation_grid
            for burst in annotation.bursts:
                if burst.burst_id not in places:
                    continue
                worst = max(worst, distance_km(grid, burst, places[burst.burst_id]))
                compared += 1
    assert compared > 100
    # The neighbouring burst would be 20 km off.
    assert worst < 6.0


def distance_km(grid, burst, place) -> float:
    # Grid rows are burst starts; the mean of two neighbouring rows is the middle of the burst.
    row = int(np.argmin(np.abs(grid.line[:, 0] - burst.first_line)))
    rows = slice(row, min(row + 2, grid.line.shape[0]))
    lon, lat = place
    north_km = 111.2 * (grid.latitude_deg[rows].mean() - lat)
    east_km = 111.2 * np.cos(np.radians(lat)) * (grid.longitude_deg[rows].mean() - lon)
    return float(np.hypot(north_km, east_km))


@pytest.mark.realdata
def test_real_manifest_of_2014_is_overruled_by_the_ground_track(real_data):
    path = next(real_data.glob("s1-reader-safe-orbits/safe/*_20141004T*.zip"))
    product = open_safe(str(path))
    assert product.manifest.relative_orbits == (154, 154)
    assert product.relative_orbit == 152
    assert "relative-orbit-manifest-says:154" in product.flags
    places = burst_map(real_data)
    annotation = product.annotation("IW2", "VV")
    for burst in annotation.bursts:
        assert burst.burst_id.startswith("t152_")
        # The map's sample has the bursts of track 154 that the manifest would lead to: two orbits
        # or 2 x 2147.93 burst cycles later, 2 x 24.69 degrees further west.
        wrong = burst_ids.format_burst_id(burst.computed_number + 4296, "IW2")
        place = places[wrong] + [2 * 360.0 * 12 / 175, 0.0]
        assert distance_km(annotation.geolocation_grid, burst, place) < 8.0
        assert distance_km(annotation.geolocation_grid, burst, places[wrong]) > 1000.0
