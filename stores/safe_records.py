"""What a Sentinel-1 product is written from: plain records, times in UTC nanoseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ProductRecord:
    """One acquisition: what the names, the headers and the manifest share."""

    mission: str
    polarization: str
    absolute_orbit: int
    relative_orbit: int
    orbit_direction: str
    data_take_id: int
    start_ns: int
    stop_ns: int
    ascending_node_ns: int
    ipf_version: str
    """``003.61``; a version below 002.43 writes the old polynomial syntax, noise list and no
    burst identifiers."""
    footprint_deg: tuple[tuple[float, float], ...] = ()
    """Corners ``(latitude, longitude)``."""

    @property
    def has_old_syntax(self) -> bool:
        """Whether the product looks like those of IPF 2.36 and before."""
        return self.ipf_version < "002.43"

    @property
    def has_burst_ids(self) -> bool:
        """Whether ``burstId`` elements are written (IPF 3.40 and later)."""
        return self.ipf_version >= "003.40"


@dataclass(frozen=True)
class BurstRecord:
    """One burst of a swath."""

    azimuth_time_ns: int
    sensing_time_ns: int
    byte_offset: int
    burst_id: int
    absolute_burst_id: int
    valid: tuple[int, int, int, int]
    """(first line, stop line, first sample, stop sample)"""


@dataclass(frozen=True)
class PolynomialRecord:
    """Polynomial in two-way range time minus ``range_time_s``."""

    azimuth_time_ns: int
    range_time_s: float
    coefficients: tuple[float, ...]
    geometry_coefficients: tuple[float, ...] = ()
    """Of Doppler estimates only."""


@dataclass(frozen=True)
class GridPoint:
    """One point of the geolocation grid; angles in degrees."""

    azimuth_time_ns: int
    slant_range_time_s: float
    line: int
    pixel: int
    latitude: float
    longitude: float
    height: float
    incidence_angle: float
    elevation_angle: float


@dataclass(frozen=True)
class SwathRecord:
    """One image of a product: a swath in one polarization."""

    product: ProductRecord
    swath: str
    image_number: int
    lines_per_burst: int
    samples: int
    line_interval_s: float
    slant_range_time_s: float
    range_sampling_rate_hz: float
    radar_frequency_hz: float
    steering_rate_deg_s: float
    pri_s: float
    rank: int
    pulse_length_s: float
    pulse_rate_hz_s: float
    window_start_s: float
    range_band: tuple[float, float]
    """Bandwidth in Hz and Hamming coefficient."""
    azimuth_band: tuple[float, float]
    heading_deg: float
    noise_power: float
    """Digital numbers squared."""
    bursts: tuple[BurstRecord, ...]
    fm_rates: tuple[PolynomialRecord, ...]
    doppler: tuple[PolynomialRecord, ...]
    orbit_times_ns: NDArray[np.int64]
    orbit_states: Array
    """(n, 6) m, m/s"""
    grid: tuple[GridPoint, ...] = field(default=())

    @property
    def lines(self) -> int:
        """Lines of the measurement file."""
        return self.lines_per_burst * len(self.bursts)

    @property
    def start_ns(self) -> int:
        """Zero-Doppler time of the first line."""
        return self.bursts[0].azimuth_time_ns

    @property
    def stop_ns(self) -> int:
        """Zero-Doppler time of the last line."""
        duration = (self.lines_per_burst - 1) * self.line_interval_s
        return self.bursts[-1].azimuth_time_ns + round(duration * 1e6) * 1000


def stamp(time_ns: int, unit: str = "us") -> str:
    """Format a time as in the products, ``2023-09-04T06:37:31.072288``."""
    text = np.datetime_as_string(np.datetime64(time_ns, "ns"), unit=unit)  # type: ignore[call-overload]
    return str(text)


def compact_stamp(time_ns: int) -> str:
    """Format a time as in file names, ``20230904T063731``."""
    return stamp(time_ns, "s").replace("-", "").replace(":", "")


def image_name(swath: SwathRecord) -> str:
    """Return the stem shared by the files of one image, e.g. ``s1a-iw1-slc-vv-...-004``."""
    product = swath.product
    return (
        f"{product.mission}-{swath.swath}-slc-{product.polarization}-"
        f"{compact_stamp(swath.start_ns)}-{compact_stamp(swath.stop_ns)}-"
        f"{product.absolute_orbit:06d}-{product.data_take_id:06x}-{swath.image_number:03d}"
    ).lower()


def image_files(folder: Path, swath: SwathRecord) -> dict[str, Path]:
    """Return the paths of annotation, calibration, noise and measurement within a product."""
    name = image_name(swath)
    return {
        "annotation": folder / "annotation" / f"{name}.xml",
        "noise": folder / "annotation" / "calibration" / f"noise-{name}.xml",
        "calibration": folder / "annotation" / "calibration" / f"calibration-{name}.xml",
        "measurement": folder / "measurement" / f"{name}.tiff",
    }
