"""Where the pixels of one burst and date are relative to the reference date.

Orbits and annotated times give the offsets of a ground point as polynomials in line, sample and
height. What they leave (an error of the orbit or of a time stamp) are shifts: one number per date
in azimuth, one per date and swath in range, kept apart from the polynomials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.baseline import perpendicular_baseline
from bperp.kernels.chebyshev import (
    OffsetPolynomial,
    fit_burst_offsets,
    fit_offset_polynomials,
    offset_nodes,
)
from bperp.kernels.geometry import look_vectors
from bperp.kernels.zero_doppler import rdr2geo_at_height
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.radar import burst_grid, burst_orbit
from bperp.pipeline.stage import Source
from bperp.pipeline.timing import timing_offsets

RANGE_TOLERANCE_SAMPLES = 1e-6
"""Largest misfit of the range polynomial (5e-4 rad) at positions that took no part in the fit. One
in azimuth is harmless: the carrier is put back where the pixel was taken."""

Surface = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Azimuth shift in lines as a function of line and sample of the burst."""


def product(burst_id: str) -> str:
    """Return the name of the product that holds the registration of a burst."""
    return f"bursts/{burst_id}/alignment"


@dataclass(frozen=True)
class Offsets:
    """Position of a burst's points on one date, minus line and sample on the reference date.

    ``azimuth_shift`` (lines) and ``range_shift`` (samples) are added to the position only, not to
    the flattening. Where not ``is_exact``, the range has to be solved pixel by pixel.
    """

    azimuth: OffsetPolynomial
    range: OffsetPolynomial
    azimuth_shift: float
    range_shift: float
    is_exact: bool


@dataclass(frozen=True)
class Registration:
    """Offsets of a burst on one date: secondary minus reference position.

    ``errors`` are the largest misfits (lines, samples) at held-out positions, ``range_timing`` is
    what the timing corrections add to the range position in samples (not to the phase).
    """

    reference: BurstImage
    secondary: BurstImage
    azimuth: OffsetPolynomial
    range: OffsetPolynomial
    errors: tuple[float, float]
    range_timing: float

    @property
    def is_exact(self) -> bool:
        """Whether the range polynomial repeats the geometry to 1e-6 sample."""
        return self.errors[1] <= RANGE_TOLERANCE_SAMPLES

    @property
    def offsets(self) -> Offsets:
        """What the geometry alone says, before any measured shift."""
        return Offsets(self.azimuth, self.range, 0.0, self.range_timing, self.is_exact)


def register_burst(
    reference: BurstImage,
    secondary: BurstImage,
    height_range_m: tuple[float, float],
    timing: Mapping[str, bool],
    surface: Surface | None = None,
) -> Registration:
    """Fit the offsets of a burst from orbits, time stamps and timing corrections.

    Parameters
    ----------
    reference, secondary : BurstImage
        The same burst on two dates.
    height_range_m : tuple of 2 float, m
        Lowest and highest ellipsoidal height of the scene.
    timing : mapping of str to bool
        Corrections to apply, see ``bperp.pipeline.timing``.
    surface : callable, optional
        Smooth azimuth shift (lines) to be added, e.g. of the ionosphere.

    Returns
    -------
    Registration
    """
    range_timing: list[float] = []

    def correct(positions: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
        line, sample, height = positions
        added = np.zeros((line.size, 2))
        if any(timing.values()):
            azimuth, across = timing_offsets(reference, secondary, line, sample, height, timing)
            added[:, 0] += azimuth
            range_timing.append(float(np.mean(across)))
        if surface is not None:
            added[:, 0] += surface(line, sample)
        return added

    fit = fit_burst_offsets(
        (burst_orbit(reference), burst_grid(reference)),
        (burst_orbit(secondary), burst_grid(secondary)),
        height_range_m,
        correction=correct,
    )
    return Registration(
        reference,
        secondary,
        fit.azimuth,
        fit.range,
        (fit.azimuth_error, fit.range_error),
        range_timing[0] if range_timing else 0.0,
    )


def fit_baseline(registration: Registration) -> OffsetPolynomial:
    """Return the perpendicular baseline (m) of a burst as a polynomial in line, sample, height."""
    reference = registration.reference
    orbit, grid = burst_orbit(reference), burst_grid(reference)
    domain = registration.range.domain
    line, sample, height = offset_nodes(domain)
    time_s = line * grid.azimuth_time_interval_s
    range_m = grid.near_range_m + sample * grid.range_spacing_m
    latitude, longitude = rdr2geo_at_height(orbit, time_s, range_m, height)
    # One position per line: the nodes are scattered.
    column = (slice(None), np.newaxis)
    _, incidence = look_vectors(
        orbit, time_s, latitude[column], longitude[column], height[column].astype(np.float32)
    )
    baseline = perpendicular_baseline(
        registration.range,
        (grid, burst_grid(registration.secondary)),
        line,
        sample,
        height,
        incidence[:, 0].astype(np.float64),
    )
    return fit_offset_polynomials(line, sample, height, baseline, domain)[0]


def read_offsets(source: Source, burst_id: str, date: str) -> Offsets:
    """Return offsets and shifts of a burst and date as the alignment stage wrote them."""
    name = product(burst_id)

    def values(variable: str, *tail: slice) -> NDArray[Any]:
        found: NDArray[Any] = source.read(name, variable, (date, *tail))[0]
        return found

    domain = values("domain", slice(None), slice(None))
    return Offsets(
        OffsetPolynomial(domain, values("azimuth_coefficients", slice(None))),
        OffsetPolynomial(domain, values("range_coefficients", slice(None))),
        float(values("azimuth_shift")),
        float(values("range_shift")) + float(values("range_timing")),
        bool(values("is_exact")),
    )


def read_baseline(source: Source, burst_id: str, date: str) -> OffsetPolynomial:
    """Return the perpendicular baseline (m) of a burst and date as a polynomial."""
    name = product(burst_id)
    domain = source.read(name, "domain", (date, slice(None), slice(None)))[0]
    coefficients = source.read(name, "baseline_coefficients", (date, slice(None)))[0]
    return OffsetPolynomial(domain, coefficients)
