"""What the stages need to know of one burst on one date, as plain JSON-serialisable data.

Times are float64 seconds relative to the zero-Doppler time of the burst's first line
(``first_line_time_ns``, integer UTC nanoseconds since 1970): seconds of the day or of the epoch in
float64 would cost 1e-4 line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SPEED_OF_LIGHT_M_S = 299_792_458.0


@dataclass(frozen=True)
class PolynomialList:
    """Polynomials in two-way range time, one per azimuth time.

    ``value = sum_k coefficients[i][k] * (tau - range_time_s[i]) ** k`` at ``azimuth_time_s[i]``.
    """

    azimuth_time_s: tuple[float, ...]
    range_time_s: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class OrbitArc:
    """ECEF state vectors around a burst: times in s, positions in m, velocities in m/s."""

    kind: str
    time_s: tuple[float, ...]
    position_m: tuple[tuple[float, float, float], ...]
    velocity_m_s: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class BurstImage:
    """One burst on one date: where its pixels are and how they were taken."""

    burst_id: str
    swath: str
    date: str
    mission: str
    polarization: str
    product: str
    member: str
    first_line: int
    """Line of the measurement file at which the burst starts."""
    lines: int
    samples: int
    valid: tuple[int, int, int, int]
    """Valid rectangle ``(first line, stop line, first sample, stop sample)`` within the burst."""
    first_line_time_ns: int
    azimuth_time_interval_s: float
    slant_range_time_s: float
    """Two-way time of the first sample."""
    range_sampling_rate_hz: float
    radar_frequency_hz: float
    azimuth_steering_rate_rad_s: float
    """Zero for stripmap."""
    prf_hz: float
    range_bandwidth_hz: float
    range_window_coefficient: float
    azimuth_bandwidth_hz: float
    azimuth_window_coefficient: float
    doppler_centroid: PolynomialList
    fm_rate: PolynomialList
    orbit: OrbitArc
    ipf_version: str
    content_id: str = ""
    """Digest of the product's checksums and sizes: a replaced product is another input."""
    url: str = ""
    """Where the product lies; no part of what it is."""
    flags: tuple[str, ...] = ()
    """Recorded fallbacks, e.g. ``restituted-orbit``."""
    # What only the corrections of timing need is None in records from before there were any.
    rank: int | None = None
    """Whole pulse intervals between a transmission and its echo window."""
    chirp_rate_hz_s: float | None = None
    """Rate of the transmitted chirp."""
    mid_swath_range_time_s: float | None = None
    """Two-way time of the middle of IW2 (EW3); None if the product lacks that swath."""
    bistatic_delay_corrected: bool | None = None
    """Whether the processor subtracted half of ``mid_swath_range_time_s`` from all its times."""

    @property
    def wavelength_m(self) -> float:
        """Radar wavelength in m."""
        return SPEED_OF_LIGHT_M_S / self.radar_frequency_hz

    @property
    def pri_s(self) -> float:
        """Pulse repetition interval in s."""
        return 1.0 / self.prf_hz

    @property
    def near_range_m(self) -> float:
        """One-way slant range of the first sample in m."""
        return 0.5 * SPEED_OF_LIGHT_M_S * self.slant_range_time_s

    @property
    def range_spacing_m(self) -> float:
        """Slant range sample spacing in m."""
        return 0.5 * SPEED_OF_LIGHT_M_S / self.range_sampling_rate_hz

    def as_dict(self) -> dict[str, Any]:
        """Return nested dictionaries and lists that ``from_dict`` restores."""
        return asdict(self)

    def as_parameters(self) -> dict[str, Any]:
        """Return ``as_dict`` without the place of the product, for the identity of tasks."""
        return {name: value for name, value in self.as_dict().items() if name != "url"}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BurstImage:
        """Restore a burst from ``as_dict`` or from its JSON text."""
        fields = dict(record)
        for name in ("doppler_centroid", "fm_rate"):
            fields[name] = PolynomialList(**_tuples(fields[name]))
        fields["orbit"] = OrbitArc(**_tuples(fields["orbit"]))
        fields["valid"] = tuple(fields["valid"])
        fields["flags"] = tuple(fields["flags"])
        return cls(**fields)


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    def freeze(value: Any) -> Any:
        return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value

    return {name: freeze(value) for name, value in record.items()}
