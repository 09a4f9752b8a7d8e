"""The timing model of a burst: from annotated line and sample to zero-Doppler time and range.

Each correction can be switched, and is to be ADDED to the annotated azimuth time or one-way slant
range. Effects of the path and of the ground enter as tides or as external grids of delays.

Interferometric phase needs none of this except where the geometric range itself changes: the
corrections say where a pixel lies, and serve geolocation and alignment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.carrier import RangePolynomials, doppler_hz
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.orbit import OrbitPolynomial
from bperp.kernels.solid_tide import solid_tide_enu_m
from bperp.kernels.timing import (
    annotated_rate_hz_s,
    bistatic_azimuth_delay_s,
    displacement_corrections,
    doppler_range_shift_m,
    fm_mismatch_azimuth_s,
    true_fm_rate_hz_s,
)
from bperp.kernels.zero_doppler import geo2rdr, rdr2geo_at_height
from bperp.pipeline.burst import SPEED_OF_LIGHT_M_S, BurstImage
from bperp.pipeline.radar import burst_carrier, burst_duration_s, burst_orbit
from bperp.stores.errors import ElevationError, ProductError

__all__ = ["CORRECTIONS", "DelayGrid", "TimingCorrections", "timing_corrections", "timing_offsets"]

CORRECTIONS = ("bistatic", "doppler_range", "fm_mismatch", "solid_tide")
"""Names of the options, in the order in which corrections are recorded."""

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
_EDGE_RAD = 1e-12


@dataclass(frozen=True, eq=False)
class DelayGrid:
    """Delays on a grid of latitude and longitude, e.g. of ionosphere or troposphere, for one pass.

    Parameters
    ----------
    kind : str
        What the delays are, for the record, e.g. ``ionosphere``.
    azimuth_s, range_m : ndarray (rows, columns), float64, s and m, or None
        What the effect has added to the annotated azimuth times and one-way slant ranges: a path
        that takes longer has positive ``range_m``. The negative is the correction.
    latitude_rad, longitude_rad : ndarray (rows,) and (columns,), float64, rad
        Increasing, at least two each.

    Raises
    ------
    ValueError
        If shapes or order are not as said.
    """

    kind: str
    azimuth_s: Array | None
    range_m: Array | None
    latitude_rad: Array
    longitude_rad: Array

    def __post_init__(self) -> None:
        """Check shapes and order."""
        shape = (self.latitude_rad.size, self.longitude_rad.size)
        for name in ("latitude_rad", "longitude_rad"):
            axis = getattr(self, name)
            if axis.ndim != 1 or axis.size < 2 or not (np.diff(axis) > 0.0).all():
                raise ValueError(f"{name} must have two or more increasing values, got {axis!r}")
        for name in ("azimuth_s", "range_m"):
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {values.shape}")

    @property
    def name(self) -> str:
        """Kind and digest of all numbers, e.g. ``ionosphere:5d41402abc4b``."""
        digest = hashlib.sha256()
        for values in (self.azimuth_s, self.range_m, self.latitude_rad, self.longitude_rad):
            filled = np.zeros(0) if values is None else np.ascontiguousarray(values, np.float64)
            digest.update(f"{filled.shape}".encode() + filled.tobytes())
        return f"{self.kind}:{digest.hexdigest()[:12]}"

    def corrections(self, latitude_rad: Array, longitude_rad: Array, where: str) -> Pair:
        """Interpolate the negative delays bilinearly.

        Parameters
        ----------
        latitude_rad, longitude_rad : ndarray (n,), float64, rad
            Ground positions; NaN gives NaN.
        where : str
            What needs them, for the error.

        Returns
        -------
        azimuth_s, range_m : ndarray (n,), float64, s and m
            To be added to annotated times and ranges.

        Raises
        ------
        ElevationError
            E607 if the grid does not reach a position or has no value (NaN) around it.
        """
        middle = 0.5 * (self.longitude_rad[0] + self.longitude_rad[-1])
        turns = np.floor((longitude_rad - middle) / (2.0 * np.pi) + 0.5)
        row, up = _place(self.latitude_rad, latitude_rad)
        column, across = _place(self.longitude_rad, longitude_rad - 2.0 * np.pi * turns)
        parts = []
        for values in (self.azimuth_s, self.range_m):
            table = np.zeros((self.latitude_rad.size, self.longitude_rad.size))
            table = table if values is None else values
            south = (1.0 - across) * table[row, column] + across * table[row, column + 1]
            north = (1.0 - across) * table[row + 1, column] + across * table[row + 1, column + 1]
            parts.append(-((1.0 - up) * south + up * north))
        missing = np.isfinite(latitude_rad) & ~np.isfinite(parts[0] + parts[1])
        if missing.any():
            raise self._not_covered(latitude_rad[missing][0], longitude_rad[missing][0], where)
        return parts[0], parts[1]

    def _not_covered(self, latitude_rad: float, longitude_rad: float, where: str) -> ElevationError:
        south, north = np.degrees(self.latitude_rad[[0, -1]])
        west, east = np.degrees(self.longitude_rad[[0, -1]])
        return ElevationError(
            "E607",
            f"grid of {self.kind} delays does not cover the burst",
            where=where,
            expected=f"a value at lat {np.degrees(latitude_rad):.4f}, "
            f"lon {np.degrees(longitude_rad):.4f}",
            found=f"a grid of lat {south:.4f} to {north:.4f}, lon {west:.4f} to {east:.4f}",
            remedy="give a grid that covers the whole burst without holes, or leave it out",
        )


class TimingCorrections(NamedTuple):
    """What to add to annotated azimuth times (s) and one-way slant ranges (m) of positions.

    ``azimuth_s`` and ``range_m`` (n,) float64 are sums; ``names`` says of what, for the record, and
    ``parts`` holds each of them as ``name -> (azimuth_s, range_m)``.
    """

    azimuth_s: Array
    range_m: Array
    names: tuple[str, ...]
    parts: Mapping[str, Pair]


class _Scene(NamedTuple):
    """Positions of a burst (n,) and the ground there; ``ground_m`` (3, n)."""

    image: BurstImage
    orbit: OrbitPolynomial
    line: Array
    sample: Array
    time_s: Array
    range_time_s: Array
    latitude_rad: Array
    longitude_rad: Array
    ground_m: Array


def timing_corrections(
    image: BurstImage,
    line: Array,
    sample: Array,
    height_m: Array,
    options: Mapping[str, bool],
    grids: Sequence[DelayGrid] = (),
) -> TimingCorrections:
    """Compute the corrections of azimuth time and range at positions of a burst.

    Parameters
    ----------
    image : BurstImage
        The burst.
    line, sample : array_like that broadcast, float64
        Positions relative to the burst's first pixel.
    height_m : array_like that broadcasts, float64, m
        Ellipsoidal heights there.
    options : mapping of str to bool
        Which of ``CORRECTIONS`` to apply; what is absent is off.
    grids : sequence of DelayGrid
        Delays of this pass whose negatives are applied too.

    Returns
    -------
    TimingCorrections
        Arrays in the broadcast shape; NaN where a correction needs the ground and the position
        has none (a NaN height).

    Raises
    ------
    ValueError
        For an option that is not in ``CORRECTIONS``.
    ProductError
        D313 if the annotation lacks what a correction needs.
    ElevationError
        E607 if a grid does not cover the positions.
    """
    unknown = sorted(set(options) - set(CORRECTIONS))
    if unknown:
        raise ValueError(f"options must be of {', '.join(CORRECTIONS)}, got {', '.join(unknown)}")
    rows, columns, heights = np.broadcast_arrays(
        *(np.asarray(item, dtype=np.float64) for item in (line, sample, height_m))
    )
    scene = _scene(image, rows.ravel(), columns.ravel(), heights.ravel())
    parts = {name: _PARTS[name](scene) for name in CORRECTIONS if options.get(name, False)}
    where = f"{image.burst_id} of {image.date}"
    for grid in grids:
        parts[grid.name] = grid.corrections(scene.latitude_rad, scene.longitude_rad, where)
    shaped = {
        name: (azimuth.reshape(rows.shape), distance.reshape(rows.shape))
        for name, (azimuth, distance) in parts.items()
    }
    azimuth_s, range_m = np.zeros(rows.shape), np.zeros(rows.shape)
    for azimuth, distance in shaped.values():
        azimuth_s = azimuth_s + azimuth
        range_m = range_m + distance
    return TimingCorrections(azimuth_s, range_m, tuple(shaped), shaped)


def timing_offsets(
    reference: BurstImage,
    secondary: BurstImage,
    line: Array,
    sample: Array,
    height_m: Array,
    options: Mapping[str, bool],
    grids: tuple[Sequence[DelayGrid], Sequence[DelayGrid]] = ((), ()),
) -> Pair:
    """Compute what the corrections change in the offsets between two images.

    Parameters
    ----------
    reference, secondary : BurstImage
        The same burst on two dates.
    line, sample, height_m : ndarray (n,), float64
        Positions in the reference image and ellipsoidal heights (m), e.g. the nodes of a fit.
    options : mapping of str to bool
        As of ``timing_corrections``; the same for both images.
    grids : tuple of 2 sequences of DelayGrid
        Delays of the reference's and of the secondary's pass.

    Returns
    -------
    azimuth_lines, range_samples : ndarray (n,), float64
        To be added to offsets (secondary minus reference position) that were solved from
        annotated times; zero for one and the same image.

    Raises
    ------
    ValueError, ProductError, ElevationError
        As ``timing_corrections``.

    Notes
    -----
    The reference's position moves by its corrections, the ground there is found in the secondary,
    and that position moves back by the secondary's corrections; the offset without either is
    subtracted. To first order this is (correction of the reference - correction of the secondary)
    in lines or samples.
    """
    first = timing_corrections(reference, line, sample, height_m, options, grids[0])
    moved_line = line + first.azimuth_s / reference.azimuth_time_interval_s
    moved_sample = sample + first.range_m / reference.range_spacing_m
    plain = _other_position(reference, secondary, (line, sample, height_m))
    moved = _other_position(reference, secondary, (moved_line, moved_sample, height_m))
    second = timing_corrections(secondary, *plain, height_m, options, grids[1])
    return (
        moved[0] - plain[0] - second.azimuth_s / secondary.azimuth_time_interval_s,
        moved[1] - plain[1] - second.range_m / secondary.range_spacing_m,
    )


def _place(axis: Array, values: Array) -> tuple[NDArray[np.intp], Array]:
    """Return the node before each value and the fraction beyond it; NaN outside of the axis."""
    node = np.clip(np.searchsorted(axis, values, side="right") - 1, 0, axis.size - 2)
    fraction = (values - axis[node]) / (axis[node + 1] - axis[node])
    inside = (values >= axis[0] - _EDGE_RAD) & (values <= axis[-1] + _EDGE_RAD)
    return node, np.where(inside, fraction, np.nan)


def _scene(image: BurstImage, line: Array, sample: Array, height_m: Array) -> _Scene:
    orbit = burst_orbit(image)
    time_s = line * image.azimuth_time_interval_s
    range_m = image.near_range_m + sample * image.range_spacing_m
    latitude, longitude = rdr2geo_at_height(orbit, time_s, range_m, height_m)
    ground = np.stack(geodetic_to_ecef(latitude, longitude, height_m))
    tau = range_m * (2.0 / SPEED_OF_LIGHT_M_S)
    return _Scene(image, orbit, line, sample, time_s, tau, latitude, longitude, ground)


def _other_position(
    reference: BurstImage, secondary: BurstImage, position: tuple[Array, Array, Array]
) -> Pair:
    """Return line and sample in the secondary of positions and heights in the reference."""
    ground = _scene(reference, *position).ground_m
    middle_s = 0.5 * burst_duration_s(secondary)
    x, y, z = ground
    time_s, range_m = geo2rdr(burst_orbit(secondary), x, y, z, middle_s)
    return (
        time_s / secondary.azimuth_time_interval_s,
        (range_m - secondary.near_range_m) / secondary.range_spacing_m,
    )


def _annotated(image: BurstImage, field: str, correction: str) -> float:
    """Return a field of the annotation, or refuse the correction that needs it."""
    value = getattr(image, field)
    if value is None:
        raise ProductError(
            "D313",
            f"annotation lacks what the {correction} correction needs",
            where=f"{image.burst_id} of {image.date}, {image.product}",
            expected=field,
            found="none",
            remedy=f"take the whole product, with IW2, or switch {correction} off",
        )
    return float(value)


def _bistatic(scene: _Scene) -> Pair:
    image = scene.image
    rank = int(_annotated(image, "rank", "bistatic"))
    middle = 0.0
    # A processor that corrected nothing subtracted nothing; what it does not state, it did.
    if image.bistatic_delay_corrected is not False:
        middle = _annotated(image, "mid_swath_range_time_s", "bistatic")
    azimuth_s = bistatic_azimuth_delay_s(scene.range_time_s, middle, rank, image.pri_s)
    return azimuth_s, np.zeros(azimuth_s.shape)


def _doppler_range(scene: _Scene) -> Pair:
    rate = _annotated(scene.image, "chirp_rate_hz_s", "doppler_range")
    shift = doppler_range_shift_m(_total_doppler_hz(scene), rate)
    return np.zeros(shift.shape), shift


def _fm_mismatch(scene: _Scene) -> Pair:
    image = scene.image
    truth = true_fm_rate_hz_s(scene.orbit, scene.ground_m, scene.time_s, image.wavelength_m)
    polynomials = RangePolynomials(
        np.array(image.fm_rate.azimuth_time_s),
        np.array(image.fm_rate.range_time_s),
        np.array(image.fm_rate.coefficients),
    )
    middle_s = 0.5 * burst_duration_s(image)
    annotated = annotated_rate_hz_s(polynomials, middle_s, scene.range_time_s)
    azimuth_s = fm_mismatch_azimuth_s(_total_doppler_hz(scene), truth, annotated)
    return azimuth_s, np.zeros(azimuth_s.shape)


def _solid_tide(scene: _Scene) -> Pair:
    # One time for the burst: the tide changes by less than 0.1 mm while it is taken.
    seconds = scene.image.first_line_time_ns * 1e-9 + 0.5 * burst_duration_s(scene.image)
    latitude, longitude = scene.latitude_rad, scene.longitude_rad
    east, north, up = solid_tide_enu_m(seconds, latitude, longitude)
    outward = np.cos(latitude) * up - np.sin(latitude) * north
    displacement = np.stack(
        [
            np.cos(longitude) * outward - np.sin(longitude) * east,
            np.sin(longitude) * outward + np.cos(longitude) * east,
            np.sin(latitude) * up + np.cos(latitude) * north,
        ]
    )
    return displacement_corrections(scene.orbit, scene.ground_m, scene.time_s, displacement)


def _total_doppler_hz(scene: _Scene) -> Array:
    return doppler_hz(burst_carrier(scene.image), scene.line, scene.sample)


_PARTS = {
    "bistatic": _bistatic,
    "doppler_range": _doppler_range,
    "fm_mismatch": _fm_mismatch,
    "solid_tide": _solid_tide,
}
