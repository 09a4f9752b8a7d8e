"""Independent sources for the tests of the kernels: an analytic orbit, and bare annotations.

Nothing here computes with the kernels (``RadarGrid`` is a bare tuple), so that the tests do not
compare them with themselves.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lxml import etree
from numpy.typing import NDArray

from bperp.kernels.zero_doppler import RadarGrid

SPEED_OF_LIGHT = 299_792_458.0
EARTH_RATE = 7.292115e-5

States = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def circular_orbit(
    time_s: NDArray[np.float64],
    *,
    radius_m: float = 7_071_000.0,
    raise_m: float = 0.0,
    turn_rad: float = 0.0,
    latitude_rad: float = 0.7,
) -> States:
    """Return position, velocity and acceleration of a circular orbit seen from the turning Earth.

    ``raise_m`` lifts the orbit and ``turn_rad`` turns its plane about the Earth's axis, which
    displaces it sideways; the argument of latitude at time zero is ``latitude_rad``.
    """
    rate = np.sqrt(3.986004418e14 / radius_m**3)
    radius = radius_m + raise_m
    tilt = np.radians(98.18)
    # Complex notation for the turning about z: w = (x + i y) exp(i angle).
    angle = latitude_rad + rate * np.atleast_1d(time_s)
    flat = np.cos(angle) + 1j * np.cos(tilt) * np.sin(angle)
    flat_rate = rate * (-np.sin(angle) + 1j * np.cos(tilt) * np.cos(angle))
    spin = np.exp(1j * (turn_rad - EARTH_RATE * np.atleast_1d(time_s)))
    turned = flat * spin
    turned_rate = (flat_rate - 1j * EARTH_RATE * flat) * spin
    turned_bend = (-(rate**2) * flat - 2j * EARTH_RATE * flat_rate - EARTH_RATE**2 * flat) * spin
    height = np.sin(tilt) * np.sin(angle)
    height_rate = rate * np.sin(tilt) * np.cos(angle)
    position = radius * np.stack([turned.real, turned.imag, height], axis=1)
    velocity = radius * np.stack([turned_rate.real, turned_rate.imag, height_rate], axis=1)
    acceleration = radius * np.stack(
        [turned_bend.real, turned_bend.imag, -(rate**2) * height], axis=1
    )
    return position, velocity, acceleration


@pytest.fixture(scope="session")
def orbit_states() -> Callable[..., States]:
    """Analytic states of a circular orbit (see ``circular_orbit``)."""
    return circular_orbit


@dataclass
class Annotation:
    """Numbers of one annotation file; times in s after the first line of one burst."""

    name: str
    root: etree._Element
    epoch_ns: int
    lines: int
    samples: int
    time_s: NDArray[np.float64] = field(init=False)
    position: NDArray[np.float64] = field(init=False)
    velocity: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        vectors = list(self.root.iter("orbit"))
        self.time_s = np.array([self.seconds(item.findtext("time")) for item in vectors])
        self.position = _vectors(vectors, "position")
        self.velocity = _vectors(vectors, "velocity")

    def seconds(self, text: str | None) -> float:
        """Return a UTC text as seconds after the epoch."""
        return (_nanoseconds(str(text)) - self.epoch_ns) * 1e-9

    def number(self, path: str) -> float:
        """Return the first number at a path."""
        return float(str(self.root.findtext(f".//{path}")))

    @property
    def line_interval_s(self) -> float:
        return self.number("imageInformation/azimuthTimeInterval")

    @property
    def near_range_m(self) -> float:
        return 0.5 * SPEED_OF_LIGHT * self.number("imageInformation/slantRangeTime")

    @property
    def range_spacing_m(self) -> float:
        return 0.5 * SPEED_OF_LIGHT / self.number("productInformation/rangeSamplingRate")

    def polynomials(
        self, item: str, name: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return azimuth times, range times and coefficients of a list of polynomials."""
        found = list(self.root.iter(item))
        rows = [[float(word) for word in str(node.findtext(name)).split()] for node in found]
        return (
            np.array([self.seconds(node.findtext("azimuthTime")) for node in found]),
            np.array([float(str(node.findtext("t0"))) for node in found]),
            np.array(rows),
        )

    def geolocation_grid(self) -> NDArray[np.float64]:
        """Return columns: time, two-way range time, latitude, longitude, height, incidence."""
        names = ("slantRangeTime", "latitude", "longitude", "height", "incidenceAngle")
        return np.array(
            [
                [self.seconds(node.findtext("azimuthTime"))]
                + [float(str(node.findtext(name))) for name in names]
                for node in self.root.iter("geolocationGridPoint")
            ]
        )


def _nanoseconds(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(np.int64))


def _vectors(nodes: list[etree._Element], name: str) -> NDArray[np.float64]:
    return np.array(
        [[float(str(node.findtext(f"{name}/{axis}"))) for axis in "xyz"] for node in nodes]
    )


def _open_annotation(name: str, text: bytes, burst: int) -> Annotation:
    root = etree.fromstring(text)
    start = root.findall(".//burst")[burst].findtext("azimuthTime")
    return Annotation(
        name,
        root,
        _nanoseconds(str(start)),
        int(str(root.findtext(".//linesPerBurst"))),
        int(str(root.findtext(".//samplesPerBurst"))),
    )


@pytest.fixture(scope="session")
def annotations(real_data: Path) -> Callable[[str, int], list[Annotation]]:
    """Open the annotation files whose name contains a text, from folders and zip files."""

    def find(part: str, burst: int = 0) -> list[Annotation]:
        found = []
        for path in sorted(real_data.glob("**/annotation/*.xml")):
            if part in path.name:
                found.append(_open_annotation(path.name, path.read_bytes(), burst))
        for archive in sorted(real_data.glob("**/safe/*.zip")):
            with zipfile.ZipFile(archive) as members:
                for name in sorted(members.namelist()):
                    if re.search(r"annotation/s1[^/]*\.xml$", name) and part in name:
                        short = name.rsplit("/", 1)[1]
                        found.append(_open_annotation(short, members.read(name), burst))
        return found

    return find


@dataclass
class AmsterdamScene:
    """Real pixels of one date (84 x 338) and their metadata; times after the burst's first line."""

    samples: NDArray[np.complex128]
    grid: RadarGrid
    first_line: int
    first_sample: int
    time_s: NDArray[np.float64]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    steering_rate_rad_s: float
    radar_frequency_hz: float
    fm_rate: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    doppler: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    secondaries: dict[str, States]
    """Time, position and velocity of the orbits of the other dates, each with its own epoch."""
    folder: Path

    def band(self, name: str) -> NDArray[np.float64]:
        """Return another band of the same date."""
        return _band(self.folder, name)


_AMSTERDAM_START = "2023-03-31T05:50:33.935118"


def _band(folder: Path, name: str) -> NDArray[np.float64]:
    """Read a zarr v2 array of one chunk, not compressed, big-endian."""
    return np.fromfile(folder / name / "0.0", ">f4").reshape(84, 338).astype(np.float64)


def _element(node: Any, *names: str) -> Any:
    for name in names:
        items = node if isinstance(node, list) else node["elements"]
        node = next(item for item in items if item["name"] == name)
    return node


def _value(node: Any, name: str) -> Any:
    value = next(item for item in node["attributes"] if item["name"] == name)["data"]["elems"]
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _snap_nanoseconds(days: int, seconds: int, microseconds: int) -> int:
    """Convert SNAP's days since 2000, seconds and microseconds."""
    return ((10957 + days) * 86400 + seconds) * 1_000_000_000 + microseconds * 1000


def _snap_orbit(node: Any, epoch_ns: int | None) -> States:
    vectors = node["elements"]
    times = np.array([_snap_nanoseconds(*_value(item, "time")) for item in vectors])
    epoch = times[times.size // 2] if epoch_ns is None else epoch_ns
    position = np.array([[_value(item, f"{k}_pos") for k in "xyz"] for item in vectors])
    velocity = np.array([[_value(item, f"{k}_vel") for k in "xyz"] for item in vectors])
    return (times - epoch) * 1e-9, position, velocity


def _snap_polynomials(
    node: Any, name: str, epoch_ns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    times, starts, rows = [], [], []
    for item in node["elements"]:
        time = _value(item, "azimuthTime")
        is_text = isinstance(time, str)
        stamp = _nanoseconds(time) if is_text else _snap_nanoseconds(*time)
        times.append((stamp - epoch_ns) * 1e-9)
        starts.append(float(_value(item, "t0")))
        rows.append([float(word) for word in str(_value(_element(item, name), name)).split()])
    return np.array(times), np.array(starts), np.array(rows)


@pytest.fixture(scope="session")
def amsterdam(real_data: Path) -> Callable[[str], AmsterdamScene]:
    """Open the real Sentinel-1 IW3 pixels of one date over Amsterdam."""

    def open_scene(date: str) -> AmsterdamScene:
        folder = real_data / "sarxarray-amsterdam" / f"{date}-coreg.znap"
        mother = real_data / "sarxarray-amsterdam" / "20230331-coreg.znap"
        text = (mother / "SNAP" / "product_metadata.json").read_text()
        own = json.loads((folder / "SNAP" / "product_metadata.json").read_text())
        root = json.loads(text)
        start = _nanoseconds(_AMSTERDAM_START)
        product = _element(
            _element(root, "Original_Product_Metadata", "annotation")["elements"][0], "product"
        )
        general = _element(product, "generalAnnotation")
        info = _element(general, "productInformation")
        near = 0.5 * SPEED_OF_LIGHT * 6.01946798232183e-3
        spacing = 0.5 * SPEED_OF_LIGHT / 64345238.12571428
        label = next(p.name[2:] for p in folder.iterdir() if p.name.startswith("i_"))
        time_s, position, velocity = _snap_orbit(
            _element(root, "Abstracted_Metadata", "Orbit_State_Vectors"), start
        )
        secondaries = {
            item["name"].rsplit("_", 1)[1]: _snap_orbit(_element(item, "Orbit_State_Vectors"), None)
            for tree in (root, own)
            for item in _element(tree, "Slave_Metadata")["elements"]
        }
        doppler = _element(product, "dopplerCentroid", "dcEstimateList")
        return AmsterdamScene(
            _band(folder, f"i_{label}") + 1j * _band(folder, f"q_{label}"),
            RadarGrid(0.0, 2.0555562999999998e-3, near, spacing, 1524, 25583),
            912,
            9178,
            time_s,
            position,
            velocity,
            np.radians(float(_value(info, "azimuthSteeringRate"))),
            float(_value(info, "radarFrequency")),
            _snap_polynomials(
                _element(general, "azimuthFmRateList"), "azimuthFmRatePolynomial", start
            ),
            _snap_polynomials(doppler, "dataDcPolynomial", start),
            secondaries,
            folder,
        )

    return open_scene
