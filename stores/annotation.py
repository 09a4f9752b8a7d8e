"""Sentinel-1 SLC annotation of one swath and polarization, as typed arrays.

Times are int64 nanoseconds UTC since 1970: float64 seconds since 1970 resolve 2.4e-7 s, which is
1e-4 line. The reading itself is in ``bperp.stores.annotation_reader``.

References
----------
Sentinel-1 Product Specification, S1-RS-MDA-52-7441, issue 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bperp.stores.errors import ProductError

__all__ = [
    "Burst",
    "GeolocationGrid",
    "PolynomialList",
    "StateVectors",
    "SwathAnnotation",
    "largest_rectangle",
]


@dataclass(frozen=True, eq=False)
class PolynomialList:
    """Polynomials in two-way range time, one per azimuth time.

    ``value = sum_k coefficients[i, k] * (tau - range_time_s[i]) ** k`` at ``azimuth_time_ns[i]``.

    Parameters
    ----------
    azimuth_time_ns : ndarray (n,) int64
        Zero-Doppler times, UTC ns since 1970, ascending.
    range_time_s : ndarray (n,) float64
        Origin of each polynomial, two-way range time in s.
    coefficients : ndarray (n, k) float64
        Lowest power first, in Hz (Doppler centroid) or Hz/s (FM rate) per power of a second.
    """

    azimuth_time_ns: NDArray[np.int64]
    range_time_s: NDArray[np.float64]
    coefficients: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StateVectors:
    """Earth-fixed state vectors: ``time_ns`` (n,), ``position_m`` and ``velocity_m_s`` (n, 3)."""

    time_ns: NDArray[np.int64]
    position_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GeolocationGrid:
    """The agency's own geolocation, all arrays (azimuth, range) = (rows, columns).

    ``line`` and ``pixel`` are int64 in the image (not in a burst); heights are ellipsoidal.
    """

    azimuth_time_ns: NDArray[np.int64]
    slant_range_time_s: NDArray[np.float64]
    line: NDArray[np.int64]
    pixel: NDArray[np.int64]
    latitude_deg: NDArray[np.float64]
    longitude_deg: NDArray[np.float64]
    height_m: NDArray[np.float64]
    incidence_deg: NDArray[np.float64]
    elevation_deg: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Burst:
    """One burst of a swath, or the whole image of a mode without bursts.

    Parameters
    ----------
    index : int
        Position in the product, from 0.
    first_line, lines, samples : int
        Place in the measurement file.
    burst_id : str
        ESA identifier such as ``t052_110431_iw1``; empty for modes that have none.
    burst_id_source : str
        ``annotation``, ``computed`` or ``none``.
    annotated_number, computed_number : int or None
        ESA burst number from the file and from time since the ascending node.
    azimuth_time_ns, sensing_time_ns : int
        Zero-Doppler and sensing time of the first line, UTC ns since 1970.
    azimuth_anx_time_s : float
        Zero-Doppler time since the annotated ascending node, s.
    byte_offset : int
        Of the first line in the measurement file, as annotated.
    first_valid_sample, last_valid_sample : ndarray (lines,) int32
        -1 in lines without valid samples.
    where : str
        File, for error messages.
    """

    index: int
    first_line: int
    lines: int
    samples: int
    burst_id: str
    burst_id_source: str
    annotated_number: int | None
    computed_number: int | None
    azimuth_time_ns: int
    sensing_time_ns: int
    azimuth_anx_time_s: float
    byte_offset: int
    first_valid_sample: NDArray[np.int32]
    last_valid_sample: NDArray[np.int32]
    where: str

    def valid_rectangle(self) -> tuple[int, int, int, int]:
        """Return the largest rectangle that is valid in all its lines.

        Returns
        -------
        first_line, stop_line, first_sample, stop_sample : int
            Within the burst; the stops are exclusive.

        Raises
        ------
        ProductError
            D307 when the annotated limits are no limits. It is raised here and not while reading,
            so that one bad burst does not take the swath with it.
        """
        first, last = self.first_valid_sample, self.last_valid_sample
        if first.size != self.lines or last.size != self.lines:
            raise self._invalid(f"{self.lines} lines", f"{first.size} and {last.size} values")
        valid = first >= 0
        if not np.array_equal(valid, last >= 0) or (first[valid] > last[valid]).any():
            raise self._invalid("first <= last, or both -1", "first beyond last valid sample")
        if not valid.any():
            raise self._invalid("a valid line", "none")
        if int(last.max()) >= self.samples:
            raise self._invalid(f"at most sample {self.samples - 1}", f"{int(last.max())}")
        return largest_rectangle(first, last)

    def _invalid(self, expected: str, found: str) -> ProductError:
        return ProductError(
            "D307",
            f"valid samples of burst {self.index} are not usable",
            where=self.where,
            expected=expected,
            found=found,
            remedy="leave this burst out on this date",
        )


def largest_rectangle(
    first: NDArray[np.int32], last: NDArray[np.int32]
) -> tuple[int, int, int, int]:
    """Find the rectangle of largest area within per-line sample limits.

    Parameters
    ----------
    first, last : ndarray (lines,) int32
        First and last valid sample of each line, inclusive; -1 where a line has none.

    Returns
    -------
    first_line, stop_line, first_sample, stop_sample : int
        Stops exclusive; (0, 0, 0, 0) when no line is valid.
    """
    changes = np.flatnonzero((np.diff(first) != 0) | (np.diff(last) != 0)) + 1
    starts = np.concatenate(([0], changes)).astype(np.int64)
    stops = np.concatenate((changes, [first.size])).astype(np.int64)
    best, area = (0, 0, 0, 0), 0
    # Limits change a few times per burst only, so runs of equal lines are tried pairwise.
    for run in range(starts.size):
        low = np.maximum.accumulate(first[starts[run:]])
        high = np.minimum.accumulate(last[starts[run:]])
        reachable = np.logical_and.accumulate(first[starts[run:]] >= 0)
        widths = np.where(reachable, np.maximum(high.astype(np.int64) - low + 1, 0), 0)
        areas = widths * (stops[run:] - starts[run])
        end = int(np.argmax(areas))
        if areas[end] > area:
            area = int(areas[end])
            best = (int(starts[run]), int(stops[run + end]), int(low[end]), int(high[end]) + 1)
    return best


@dataclass(frozen=True, eq=False)
class SwathAnnotation:
    """What the annotation of one swath and polarization says.

    Angles that stay in degrees carry the suffix; ``azimuth_steering_rate_rad_s`` is zero for
    stripmap. ``doppler_centroid_data`` is estimated from data, ``doppler_centroid_geometry`` from
    attitude; ``doppler_centroid_method`` says which of them the processor used.
    ``ascending_node_time_ns`` is as annotated unless a flag says that it was recomputed.
    ``flags`` records every fallback.
    """

    where: str
    product_name: str
    mission: str
    mode: str
    swath: str
    polarization: str
    ipf_version: str
    absolute_orbit: int
    relative_orbit: int
    orbit_direction: str
    start_ns: int
    stop_ns: int
    ascending_node_time_ns: int
    lines_per_burst: int
    samples_per_burst: int
    number_of_lines: int
    number_of_samples: int
    first_line_time_ns: int
    azimuth_time_interval_s: float
    range_sampling_rate_hz: float
    slant_range_time_s: float
    radar_frequency_hz: float
    azimuth_steering_rate_rad_s: float
    prf_hz: float
    rank: int
    chirp_rate_hz_s: float
    platform_heading_deg: float
    range_pixel_spacing_m: float
    azimuth_pixel_spacing_m: float
    incidence_mid_swath_deg: float
    range_bandwidth_hz: float
    range_window_type: str
    range_window_coefficient: float
    azimuth_bandwidth_hz: float
    azimuth_window_type: str
    azimuth_window_coefficient: float
    doppler_centroid_method: str
    bistatic_delay_corrected: bool | None
    fm_rate: PolynomialList
    doppler_centroid_data: PolynomialList
    doppler_centroid_geometry: PolynomialList
    state_vectors: StateVectors
    geolocation_grid: GeolocationGrid
    bursts: tuple[Burst, ...]
    flags: tuple[str, ...] = ()

    @property
    def doppler_centroid(self) -> PolynomialList:
        """The Doppler centroid that the processor used."""
        if self.doppler_centroid_method.lower().startswith("data"):
            return self.doppler_centroid_data
        return self.doppler_centroid_geometry

    @property
    def has_bursts(self) -> bool:
        """Whether the mode scans in bursts (False for stripmap and wave)."""
        return self.mode in {"IW", "EW"}
