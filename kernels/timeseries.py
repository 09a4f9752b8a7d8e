"""Velocity, DEM error and their precision from unwrapped phases; displacement.

Signs: phase = +4 pi (R_secondary - R_reference) / lambda, displacement towards the satellite
d = -lambda phase / (4 pi), height error h: phase = -4 pi B_perp h / (lambda R sin(incidence)).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.arcs import MINIMUM_BASELINE_STD_M, MINIMUM_TIME_PHASE, MotionDesign
from bperp.kernels.reference_area import reference_phase, select_reference

__all__ = [
    "DATES_MISSING",
    "NO_DEM_ERROR",
    "NO_SIGMA",
    "NO_VELOCITY",
    "MotionDesign",
    "VelocityFit",
    "VelocityOptions",
    "displacement_from_phase",
    "fit_velocity",
    "reference_phase",
    "select_reference",
]

NO_DEM_ERROR = 1
"""Flag: DEM error left out (baselines do not vary beyond a trend in time, or too few dates)."""
NO_VELOCITY = 2
"""Flag: velocity left out (fewer than two different dates)."""
NO_SIGMA = 4
"""Flag: as many unknowns as dates, nothing left to tell the precision from."""
DATES_MISSING = 8
"""Flag: some dates are missing."""


class VelocityOptions(NamedTuple):
    """How the line is fitted.

    Attributes
    ----------
    estimate_dem_error : bool
        Fit a DEM error beside the velocity.
    scale_by_residual : bool
        True: precision from the scatter of the residuals; weights are relative. False: weights
        are 1/variance in rad^-2 (or ``date_covariance`` is in rad^2) and taken as they are.
    date_covariance : float64 (m, m) or None
        Covariance of the phases between dates, positive definite: generalised least squares.
    """

    estimate_dem_error: bool = True
    scale_by_residual: bool = True
    date_covariance: NDArray[np.float64] | None = None


_DEFAULT = VelocityOptions()


class VelocityFit(NamedTuple):
    """Result of ``fit_velocity`` for n scatterers.

    Attributes
    ----------
    velocity_m_yr, velocity_sigma_m_yr : float64 (n,)
        Line-of-sight velocity, positive towards the satellite, and its standard deviation.
    dem_error_m, dem_error_sigma_m : float64 (n,)
        Height error of the DEM, positive = scatterer above the DEM.
    intercept_rad : float64 (n,)
        Phase of the line at time 0: noise of the reference date.
    residual_rms_rad : float64 (n,)
        Root mean square of the residuals over the dates present.
    temporal_coherence : float64 (n,)
        |mean exp(j residual)|, 0..1.
    covariance : float64 (n, 3, 3)
        Covariance of (intercept rad, velocity m/yr, DEM error m); NaN where left out.
    flags : uint8 (n,)
        Sum of NO_DEM_ERROR, NO_VELOCITY, NO_SIGMA, DATES_MISSING.
    """

    velocity_m_yr: NDArray[np.float64]
    velocity_sigma_m_yr: NDArray[np.float64]
    dem_error_m: NDArray[np.float64]
    dem_error_sigma_m: NDArray[np.float64]
    intercept_rad: NDArray[np.float64]
    residual_rms_rad: NDArray[np.float64]
    temporal_coherence: NDArray[np.float64]
    covariance: NDArray[np.float64]
    flags: NDArray[np.uint8]


@njit
def _decide_kernel(
    phase: NDArray[np.float64],
    weight: NDArray[np.float64],
    design: MotionDesign,
    wants_dem_error: bool,
    flags: NDArray[np.uint8],
) -> None:
    # What can be estimated is decided by plain spreads, in metres and years, before any solving.
    for p in range(phase.shape[0]):
        count = 0
        st = sb = stt = stb = sbb = 0.0
        time_0, baseline_0 = 0.0, 0.0
        for k in range(phase.shape[1]):
            if weight[p, k] > 0.0:
                if count == 0:
                    time_0 = design.time_years[k]
                    baseline_0 = np.float64(design.perpendicular_baseline_m[p, k])
                time = design.time_years[k] - time_0
                baseline = design.perpendicular_baseline_m[p, k] - baseline_0
                count += 1
                st += time
                sb += baseline
                stt += time * time
                stb += time * baseline
                sbb += baseline * baseline
        flag = DATES_MISSING if count < phase.shape[1] else 0
        varied = stt - st * st / count if count > 1 else 0.0
        time_phase = 4.0 * math.pi / design.wavelength_m * math.sqrt(max(varied, 0.0))
        has_time = time_phase > MINIMUM_TIME_PHASE
        flag += 0 if has_time else NO_VELOCITY
        spread = sbb - sb * sb / count if count > 1 else 0.0
        if has_time:
            spread -= (stb - st * sb / count) ** 2 / varied
        has_height = count > (3 if has_time else 2)
        has_height = has_height and spread > count * MINIMUM_BASELINE_STD_M**2
        flag += 0 if has_height and wants_dem_error else NO_DEM_ERROR
        flags[p] = flag


@njit(fastmath={"contract", "reassoc"})
def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    # Not numpy's: a BLAS may sum in another order elsewhere in memory.
    total = 0.0
    for k in range(np.uint64(left.size)):
        total += left[k] * right[k]
    return total


@njit
def _orthogonalise(
    columns: NDArray[np.float64],
    used: NDArray[np.int64],
    triangle: NDArray[np.float64],
    values: NDArray[np.float64],
    estimate: NDArray[np.float64],
) -> float:
    """QR by modified Gram-Schmidt and back substitution; returns the residual sum of squares."""
    for i in range(used.size):
        column = columns[used[i]]
        for j in range(i):
            triangle[j, i] = _dot(columns[used[j]], column)
            column -= triangle[j, i] * columns[used[j]]
        triangle[i, i] = math.sqrt(_dot(column, column))
        column *= 1.0 / triangle[i, i]
        estimate[i] = _dot(column, values)
        values -= estimate[i] * column
    for i in range(used.size - 1, -1, -1):
        for j in range(i + 1, used.size):
            estimate[i] -= triangle[i, j] * estimate[j]
        estimate[i] /= triangle[i, i]
    return _dot(values, values)


@njit
def _invert_triangle(triangle: NDArray[np.float64], size: int, out: NDArray[np.float64]) -> None:
    out[:] = 0.0
    for j in range(size):
        out[j, j] = 1.0 / triangle[j, j]
        for i in range(j - 1, -1, -1):
            total = 0.0
            for k in range(i + 1, j + 1):
                total += triangle[i, k] * out[k, j]
            out[i, j] = -total / triangle[i, i]


@njit
def _fit_kernel(
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    shared: NDArray[np.float64],
    height_phase: NDArray[np.float64],
    scale_by_residual: bool,
    out: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]],
) -> None:
    estimate, covariance, flags = out
    size, dates = values.shape
    columns, phase = np.empty((3, dates)), np.empty(dates)
    triangle, inverse, solution = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    for p in range(size):
        count = 0
        for k in range(dates):
            root = math.sqrt(weight[p, k]) if weight[p, k] > 0.0 else 0.0
            count += 1 if root > 0.0 else 0
            phase[k] = root * values[p, k] if root > 0.0 else 0.0
            columns[0, k] = root * shared[0, k]
            columns[1, k] = root * shared[1, k]
            columns[2, k] = root * height_phase[p, k] if root > 0.0 else 0.0
        used = np.array([0, 1, 2])
        if flags[p] & NO_DEM_ERROR:
            used = used[:2]
        if flags[p] & NO_VELOCITY:
            used = used[used != 1]
        estimate[p] = np.nan
        covariance[p] = np.nan
        variance = 1.0
        if count > 0:
            squares = _orthogonalise(columns, used, triangle, phase, solution)
            _invert_triangle(triangle, used.size, inverse)
            if scale_by_residual and count > used.size:
                variance = squares / (count - used.size)
            for i in range(used.size):
                estimate[p, used[i]] = solution[i]
        if count == 0 or (scale_by_residual and count <= used.size):
            flags[p] |= NO_SIGMA
        else:
            for i in range(used.size):
                for j in range(used.size):
                    covariance[p, used[i], used[j]] = variance * _dot(inverse[i], inverse[j])


@njit
def _residual_kernel(
    phase: NDArray[np.float64],
    weight: NDArray[np.float64],
    shared: NDArray[np.float64],
    height_phase: NDArray[np.float64],
    estimate: NDArray[np.float64],
    out: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    for p in range(phase.shape[0]):
        velocity = estimate[p, 1] if math.isfinite(estimate[p, 1]) else 0.0
        height = estimate[p, 2] if math.isfinite(estimate[p, 2]) else 0.0
        count = 0
        squares = 0.0
        total = 0.0j
        for k in range(phase.shape[1]):
            if weight[p, k] > 0.0:
                residual = phase[p, k] - estimate[p, 0]
                residual -= velocity * shared[1, k] + height * height_phase[p, k]
                squares += residual * residual
                total += complex(math.cos(residual), math.sin(residual))
                count += 1
        out[0][p] = math.sqrt(squares / count) if count else np.nan
        out[1][p] = min(abs(total) / count, 1.0) if count else np.nan


@njit
def _whiten(values: NDArray[np.float64], lower_inverse: NDArray[np.float64]) -> None:
    scratch = np.empty(values.shape[1])
    for p in range(values.shape[0]):
        for k in range(values.shape[1]):
            scratch[k] = values[p, k]
        for k in range(values.shape[1]):
            values[p, k] = _dot(lower_inverse[k, : k + 1], scratch[: k + 1])


def _fit_with_covariance(
    phase: NDArray[np.float64],
    weight: NDArray[np.float64],
    shared: NDArray[np.float64],
    height_phase: NDArray[np.float64],
    options: VelocityOptions,
    out: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]],
) -> None:
    """Generalised least squares: whiten all scatterers that have the same dates, then fit."""
    full = np.asarray(options.date_covariance, np.float64)
    patterns, pattern = np.unique(weight > 0.0, axis=0, return_inverse=True)
    for index in range(patterns.shape[0]):
        when = np.flatnonzero(patterns[index])
        who = np.flatnonzero(pattern.reshape(-1) == index)
        part = (out[0][who], out[1][who], out[2][who])
        inverse = np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(full[np.ix_(when, when)])))
        white = (
            phase[np.ix_(who, when)],
            np.ascontiguousarray(shared[:, when]),
            height_phase[np.ix_(who, when)],
        )
        for values in white:
            _whiten(values, inverse)
        weights = np.ones((who.size, when.size))
        _fit_kernel(white[0], weights, white[1], white[2], options.scale_by_residual, part)
        out[0][who], out[1][who], out[2][who] = part


def fit_velocity(
    phase_rad: NDArray[np.floating[Any]],
    design: MotionDesign,
    weight: NDArray[np.float64] | None = None,
    options: VelocityOptions = _DEFAULT,
) -> VelocityFit:
    """Fit a velocity and a DEM error to the unwrapped phase of every scatterer.

    Parameters
    ----------
    phase_rad : float (n, m)
        Unwrapped phase relative to the reference date and the reference area; NaN = missing.
        Without the reference date, whose phase is 0 by definition.
    design : MotionDesign
        Times, baselines and factors, as for the arcs.
    weight : float64 (m,) or (n, m), optional
        Weights, 1/variance of the phase; NaN or <= 0 leaves a date out. Default: all alike.
    options : VelocityOptions
        Unknowns and kind of precision.

    Returns
    -------
    VelocityFit
        NaN for what was left out, see ``flags``.

    Raises
    ------
    ValueError
        If shapes do not fit, or both ``weight`` and ``date_covariance`` are given.

    Notes
    -----
    phase_k = c - (4 pi / lambda) v t_k - height_factor B_k h, by weighted least squares (QR), per
    scatterer with the dates that it has. c takes up the noise of the reference date, which all
    phases share. Precision: s0^2 (A' W A)^-1 with s0^2 = r' W r / (dates - unknowns). The DEM error
    is left out below four dates (three without velocity) or if the baselines, freed of a trend in
    time, spread less than 1 m; the velocity if all dates are alike.

    References
    ----------
    51-stamps-algorithms, sections 7 and 9; 60-timeseries, section 4.8.
    """
    phase = np.ascontiguousarray(phase_rad, np.float64)
    size, dates = phase.shape
    shapes = (
        design.time_years.shape,
        design.perpendicular_baseline_m.shape,
        design.height_factor.shape,
    )
    if shapes != ((dates,), (size, dates), (size,)):
        raise ValueError(f"design {shapes} does not fit {size} scatterers on {dates} dates")
    if options.date_covariance is not None and weight is not None:
        raise ValueError("give either weight or date_covariance, not both")
    given = np.ones(dates) if weight is None else np.asarray(weight, np.float64)
    height_phase = -design.height_factor[:, None] * np.asarray(
        design.perpendicular_baseline_m, np.float64
    )
    is_usable = np.isfinite(phase) & np.isfinite(height_phase) & np.isfinite(given)
    weights = np.where(is_usable, np.fmax(given, 0.0), 0.0)
    time = np.ascontiguousarray(design.time_years, np.float64)
    shared = np.stack((np.ones(dates), -4.0 * math.pi / design.wavelength_m * time))
    out = (np.empty((size, 3)), np.empty((size, 3, 3)), np.zeros(size, np.uint8))
    clean = design._replace(
        time_years=time,
        perpendicular_baseline_m=np.ascontiguousarray(design.perpendicular_baseline_m, np.float32),
        height_factor=np.ascontiguousarray(design.height_factor, np.float64),
        wavelength_m=float(design.wavelength_m),
    )
    _decide_kernel(phase, weights, clean, options.estimate_dem_error, out[2])
    if options.date_covariance is None:
        _fit_kernel(phase, weights, shared, height_phase, options.scale_by_residual, out)
    else:
        _fit_with_covariance(phase, weights, shared, height_phase, options, out)
    quality = (np.empty(size), np.empty(size))
    _residual_kernel(phase, weights, shared, height_phase, out[0], quality)
    sigma = np.sqrt(out[1][:, (1, 2), (1, 2)])
    return VelocityFit(
        out[0][:, 1], sigma[:, 0], out[0][:, 2], sigma[:, 1], out[0][:, 0], *quality, out[1], out[2]
    )


def displacement_from_phase(
    phase_rad: NDArray[np.floating[Any]], wavelength_m: float
) -> NDArray[np.floating[Any]]:
    """Convert phase to line-of-sight displacement.

    Parameters
    ----------
    phase_rad : float
        Unwrapped phase, +4 pi (R_secondary - R_reference) / lambda, rad.
    wavelength_m : float
        Radar wavelength, metres.

    Returns
    -------
    float, same shape and type
        Metres, positive towards the satellite.
    """
    scale = phase_rad.dtype.type(-wavelength_m / (4.0 * math.pi))
    displacement: NDArray[np.floating[Any]] = phase_rad * scale
    return displacement
