"""Independent sources for the tests of the kernels: an analytic orbit, and bare annotations.

Nothing here calls the kernels, so that the tests do not compare them with themselves.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from numpy.typing import NDArray

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
