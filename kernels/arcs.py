"""Arcs between neighbouring scatterers: the network, and the motion difference along every arc.

The atmosphere is nearly the same at both ends of a short arc, so the phase difference is explained
by a velocity difference and a DEM-error difference, found by maximal temporal coherence. That
unwraps the arc in time (Ferretti et al., IEEE TGRS 39(1), 2001; Kampes, "Radar Interferometry:
Persistent Scatterer Technique", 2006, chapter 4).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

from bperp.kernels._jit import njit
from bperp.kernels.weeding import keep_best_duplicate, keep_best_neighbour

__all__ = [
    "MINIMUM_BASELINE_STD_M",
    "ArcEstimates",
    "ArcSearch",
    "MotionDesign",
    "build_arcs",
    "estimate_arcs",
    "keep_best_duplicate",
    "keep_best_neighbour",
]

MINIMUM_BASELINE_STD_M = 1.0
"""With less spread of the baselines (metres, beyond a trend in time) heights are not estimated."""

MINIMUM_TIME_PHASE = 1e-3
"""Dates alike: 1 m/yr makes less phase than this, rad (some minutes)."""


class MotionDesign(NamedTuple):
    """What turns motion and height into phase.

    Attributes
    ----------
    time_years : float64 (m,)
        Date minus reference date, years.
    perpendicular_baseline_m : float32 (n, m)
        Perpendicular baseline of scatterer and date, metres.
    height_factor : float64 (n,)
        4 pi / (lambda R sin(incidence)), rad per metre of height and metre of baseline.
    wavelength_m : float
        Radar wavelength, metres.
    """

    time_years: NDArray[np.float64]
    perpendicular_baseline_m: NDArray[np.float32]
    height_factor: NDArray[np.float64]
    wavelength_m: float


class ArcSearch(NamedTuple):
    """Largest differences between the ends of an arc that are searched for."""

    maximum_velocity_m_yr: float = 0.05
    maximum_dem_error_m: float = 50.0


class ArcEstimates(NamedTuple):
    """Motion difference (end minus start) of every arc.

    Attributes
    ----------
    velocity_m_yr, dem_error_m : float64 (a,)
        Differences; positive velocity = end moves towards the satellite relative to the start.
        NaN where not estimable (fewer dates than unknowns); 0 where the dates or baselines do not
        vary.
    temporal_coherence : float32 (a,)
        0..1; 0 with no more dates than unknowns, where any phase would fit.
    unwrapped_phase : float32 (a, m)
        Model plus wrapped residual, rad, NaN at missing dates.
    """

    velocity_m_yr: NDArray[np.float64]
    dem_error_m: NDArray[np.float64]
    temporal_coherence: NDArray[np.float32]
    unwrapped_phase: NDArray[np.float32]


def _triangulate(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Delaunay edges of distinct points; a chain where they all lie on one line."""
    none = np.zeros((0, 2), np.int64)
    if points.shape[0] < 2:
        return none
    centred = points - points.mean(axis=0)
    _, extent, axes = np.linalg.svd(centred, full_matrices=False)
    if points.shape[0] < 3 or extent[1] <= 1e-9 * extent[0]:
        order = np.argsort(centred @ axes[0], kind="stable")
        return np.column_stack((order[:-1], order[1:])).astype(np.int64)
    try:
        mesh = Delaunay(centred)
    except QhullError:
        order = np.argsort(centred @ axes[0], kind="stable")
        return np.column_stack((order[:-1], order[1:])).astype(np.int64)
    corners = mesh.simplices.astype(np.int64)
    edges = [corners[:, (0, 1)], corners[:, (1, 2)], corners[:, (2, 0)]]
    # Points that Qhull leaves out for rounding hang on the vertex it names.
    edges.append(mesh.coplanar[:, (0, 2)].astype(np.int64))
    return np.concatenate(edges)


def build_arcs(
    position_m: NDArray[np.float64], maximum_length_m: float = math.inf
) -> NDArray[np.int64]:
    """Connect scatterers by the edges of their Delaunay triangulation.

    Parameters
    ----------
    position_m : float64 (n, 2)
        Metric coordinates; coinciding ones are joined to the first of them by an arc of length 0.
    maximum_length_m : float
        Longer arcs are left out (which may split the network).

    Returns
    -------
    int64 (a, 2)
        Start < end, sorted; empty for fewer than two scatterers. Points on one line give a chain.

    Raises
    ------
    ValueError
        If positions are not finite or not (n, 2).
    """
    position = np.asarray(position_m, np.float64)
    if position.ndim != 2 or position.shape[1] != 2 or not np.all(np.isfinite(position)):
        raise ValueError(f"position_m must be finite and (n, 2), instead got {position.shape}")
    if position.shape[0] < 2:
        return np.zeros((0, 2), np.int64)
    points, first, place = np.unique(position, axis=0, return_index=True, return_inverse=True)
    edges = first[_triangulate(points)]
    mates = np.column_stack((first[place.reshape(-1)], np.arange(position.shape[0])))
    arcs = np.concatenate((edges, mates[mates[:, 0] != mates[:, 1]]))
    arcs = np.unique(np.sort(arcs, axis=1), axis=0).astype(np.int64)
    length = np.linalg.norm(position[arcs[:, 1]] - position[arcs[:, 0]], axis=1)
    kept: NDArray[np.int64] = arcs[length <= maximum_length_m]
    return kept


_DEFAULT = ArcSearch()


@njit(fastmath={"contract", "reassoc"})
def _power(
    value: NDArray[np.float64], cosine: NDArray[np.float64], sine: NDArray[np.float64]
) -> tuple[float, float]:
    # |sum x conj(r)|^2 and |sum x r|^2 for the rotation r = cosine + j sine.
    rr = ii = ri = ir = 0.0
    for k in range(np.uint64(cosine.size)):
        rr += value[0, k] * cosine[k]
        ii += value[1, k] * sine[k]
        ri += value[0, k] * sine[k]
        ir += value[1, k] * cosine[k]
    return (rr + ii) ** 2 + (ir - ri) ** 2, (rr - ii) ** 2 + (ir + ri) ** 2


@njit
def _search_grid(
    value: NDArray[np.float64],
    height_phase: NDArray[np.float64],
    table: NDArray[np.float64],
    step_m: float,
    steps: int,
) -> tuple[int, int]:
    """Return the (velocity, height) steps of the highest peak; turns `value` meanwhile."""
    dates = height_phase.size
    turn_cosine, turn_sine = np.empty(dates), np.empty(dates)
    for k in range(dates):  # start at -steps
        turn_cosine[k] = math.cos(step_m * height_phase[k])
        turn_sine[k] = math.sin(step_m * height_phase[k])
        angle = steps * step_m * height_phase[k]
        cosine, sine = math.cos(angle), math.sin(angle)
        real = value[0, k] * cosine - value[1, k] * sine
        value[1, k] = value[0, k] * sine + value[1, k] * cosine
        value[0, k] = real
    best, velocity, height = -1.0, 0, 0
    for h in range(-steps, steps + 1):
        for v in range(table.shape[1]):
            plus, minus = _power(value, table[0, v], table[1, v])
            if plus > best:
                best, velocity, height = plus, v, h
            if minus > best:
                best, velocity, height = minus, -v, h
        for k in range(np.uint64(dates)):
            real = value[0, k] * turn_cosine[k] + value[1, k] * turn_sine[k]
            value[1, k] = value[1, k] * turn_cosine[k] - value[0, k] * turn_sine[k]
            value[0, k] = real
    return velocity, height


@njit
def _remove(
    wrapped: NDArray[np.complex128],
    columns: NDArray[np.float64],
    velocity: float,
    height: float,
    residual: NDArray[np.complex128],
) -> complex:
    total = 0.0j
    for k in range(wrapped.size):
        angle = -(columns[0, k] * velocity + columns[1, k] * height)
        residual[k] = wrapped[k] * complex(math.cos(angle), math.sin(angle))
        total += residual[k]
    return total


@njit
def _improve(
    residual: NDArray[np.complex128],
    total: complex,
    centred: NDArray[np.float64],
    is_estimated: tuple[bool, bool],
) -> tuple[float, float]:
    # One least-squares step on the residual angles; `centred` columns absorb the constant.
    tt = th = hh = te = he = 0.0
    for k in range(residual.size):
        if residual[k] != 0.0:
            turned = residual[k] * np.conj(total)
            angle = math.atan2(turned.imag, turned.real)
            tt += centred[0, k] ** 2
            th += centred[0, k] * centred[1, k]
            hh += centred[1, k] ** 2
            te += centred[0, k] * angle
            he += centred[1, k] * angle
    if is_estimated[0] and is_estimated[1]:
        determinant = tt * hh - th * th
        return (te * hh - he * th) / determinant, (he * tt - te * th) / determinant
    if is_estimated[0]:
        return te / tt, 0.0
    return 0.0, he / hh if is_estimated[1] else 0.0


@njit
def _centre(
    wrapped: NDArray[np.complex128], columns: NDArray[np.float64], centred: NDArray[np.float64]
) -> int:
    count = 0
    for row in range(2):
        count = 0
        first = total = 0.0
        for k in range(wrapped.size):
            if wrapped[k] != 0.0:
                first = columns[row, k] if count == 0 else first
                total += columns[row, k] - first
                count += 1
        for k in range(wrapped.size):
            is_used = wrapped[k] != 0.0
            centred[row, k] = columns[row, k] - first - total / count if is_used else 0.0
    return count


@njit
def _is_estimable(
    centred: NDArray[np.float64], count: int, height_factor: float
) -> tuple[bool, bool]:
    # A column is dropped rather than inverted when it does not vary, or leaves nothing to check.
    tt = th = hh = 0.0
    for k in range(centred.shape[1]):
        tt += centred[0, k] ** 2
        th += centred[0, k] * centred[1, k]
        hh += centred[1, k] ** 2
    has_time = count > 2 and tt > MINIMUM_TIME_PHASE**2
    if has_time:
        hh -= th * th / tt
    limit = count * (height_factor * MINIMUM_BASELINE_STD_M) ** 2
    return has_time, count > (3 if has_time else 2) and hh > limit


@njit
def _span(values: NDArray[np.float64]) -> float:
    low = high = 0.0  # centred values have both signs
    for k in range(values.size):
        low, high = min(low, values[k]), max(high, values[k])
    return high - low


@njit
def _estimate_kernel(
    phasor: NDArray[np.complex64],
    arcs: NDArray[np.int64],
    design: MotionDesign,
    search: tuple[NDArray[np.float64], float, float],
    out: ArcEstimates,
) -> None:
    table, velocity_step, maximum_height = search
    dates = phasor.shape[1]
    wrapped, residual = np.empty(dates, np.complex128), np.empty(dates, np.complex128)
    columns, centred, value = np.empty((2, dates)), np.empty((2, dates)), np.empty((2, dates))
    for arc in range(arcs.shape[0]):
        i, j = arcs[arc, 0], arcs[arc, 1]
        factor = 0.5 * (design.height_factor[i] + design.height_factor[j])
        for k in range(dates):
            product = np.complex128(phasor[j, k]) * np.conj(np.complex128(phasor[i, k]))
            baseline = 0.5 * (
                design.perpendicular_baseline_m[i, k] + design.perpendicular_baseline_m[j, k]
            )
            length = abs(product)
            is_used = length > 0.0 and length < np.inf and math.isfinite(baseline)
            wrapped[k] = product / length if is_used else 0.0
            columns[0, k] = -4.0 * math.pi / design.wavelength_m * design.time_years[k]
            columns[1, k] = -factor * baseline if is_used else 0.0
            value[0, k], value[1, k] = wrapped[k].real, wrapped[k].imag
        count = _centre(wrapped, columns, centred)
        is_estimated = _is_estimable(centred, count, factor)
        v = h = 0.0
        if is_estimated[0] or is_estimated[1]:
            step = 0.5 * math.pi / _span(centred[1]) if is_estimated[1] else 0.0
            steps = math.ceil(maximum_height / step) if is_estimated[1] else 0
            trials = table if is_estimated[0] else table[:, :1]
            v_steps, h_steps = _search_grid(value, centred[1], trials, step, steps)
            v, h = v_steps * velocity_step, h_steps * step
        total = _remove(wrapped, columns, v, h, residual)
        for _ in range(3):
            dv, dh = _improve(residual, total, centred, is_estimated)
            improved = _remove(wrapped, columns, v + dv, h + dh, residual)
            if abs(improved) <= abs(total):
                total = _remove(wrapped, columns, v, h, residual)
                break
            total, v, h = improved, v + dv, h + dh
        _store(arc, (v, h), columns, residual, total, count, out)


@njit
def _store(
    arc: int,
    estimate: tuple[float, float],
    columns: NDArray[np.float64],
    residual: NDArray[np.complex128],
    total: complex,
    count: int,
    out: ArcEstimates,
) -> None:
    out.velocity_m_yr[arc], out.dem_error_m[arc] = estimate
    is_judged = count > 1
    out.temporal_coherence[arc] = min(abs(total) / count, 1.0) if is_judged else 0.0
    constant = math.atan2(total.imag, total.real)
    for k in range(residual.size):
        phase = np.nan
        if residual[k] != 0.0:
            turned = residual[k] * np.conj(total)
            model = columns[0, k] * estimate[0] + columns[1, k] * estimate[1]
            phase = model + constant + math.atan2(turned.imag, turned.real)
        out.unwrapped_phase[arc, k] = phase


def estimate_arcs(
    phasor: NDArray[np.complex64],
    arcs: NDArray[np.int64],
    design: MotionDesign,
    search: ArcSearch = _DEFAULT,
) -> ArcEstimates:
    """Estimate velocity and DEM-error difference along every arc from wrapped phases.

    Parameters
    ----------
    phasor : complex64 (n, m)
        Phase of scatterer and date, reference * conj(secondary); amplitude irrelevant, 0 or NaN =
        missing.
    arcs : int64 (a, 2)
        Start and end scatterer.
    design : MotionDesign
        Times, baselines and factors.
    search : ArcSearch
        Largest differences to search for.

    Returns
    -------
    ArcEstimates
        Differences end minus start, temporal coherence and unwrapped phase of each arc.

    Raises
    ------
    ValueError
        If shapes do not fit, an index is out of range or a search limit is not positive.

    Notes
    -----
    Maximises |sum_k exp(j (dphi_k - a_k dv - b_k dh))| with a_k = -4 pi t_k / lambda and b_k =
    -4 pi B_k / (lambda R sin(incidence)): a grid with steps of a quarter cycle over the time span
    and over the arc's own baseline span, then up to three least-squares steps on the residual
    angles, each kept only if the sum grows. The constant (noise of the reference date) is free.
    Dates alike, baselines alike (spread below 1 m) or too few dates: the height, then the velocity
    is left out and stays 0.

    References
    ----------
    Ferretti, Prati, Rocca, IEEE TGRS 39(1), 2001, eq. 9.
    """
    size, dates = phasor.shape
    shapes = (
        design.time_years.shape,
        design.perpendicular_baseline_m.shape,
        design.height_factor.shape,
    )
    if shapes != ((dates,), (size, dates), (size,)):
        raise ValueError(f"design {shapes} does not fit {size} scatterers on {dates} dates")
    if arcs.size and not 0 <= arcs.min() <= arcs.max() < size:
        raise ValueError(f"arcs name scatterers outside 0..{size - 1}")
    if not (search.maximum_velocity_m_yr > 0.0 and search.maximum_dem_error_m > 0.0):
        raise ValueError(f"search limits must be positive, instead got {search}")
    count = arcs.shape[0]
    out = ArcEstimates(
        np.empty(count),
        np.empty(count),
        np.empty(count, np.float32),
        np.empty((count, dates), np.float32),
    )
    table, step = _velocity_table(design, search.maximum_velocity_m_yr)
    clean = MotionDesign(
        np.ascontiguousarray(design.time_years, np.float64),
        np.ascontiguousarray(design.perpendicular_baseline_m, np.float32),
        np.ascontiguousarray(design.height_factor, np.float64),
        float(design.wavelength_m),
    )
    _estimate_kernel(
        np.ascontiguousarray(phasor, np.complex64),
        np.ascontiguousarray(arcs, np.int64),
        clean,
        (table, step, float(search.maximum_dem_error_m)),
        out,
    )
    return out


def _velocity_table(design: MotionDesign, maximum: float) -> tuple[NDArray[np.float64], float]:
    """Rotations (cosine | sine, trial >= 0, date) of the velocity grid, and its step in m/yr."""
    rate = -4.0 * math.pi / design.wavelength_m
    time = np.asarray(design.time_years, np.float64)
    span = float(np.ptp(time)) if time.size else 0.0
    step = 0.5 * math.pi / (abs(rate) * span) if span > 0.0 else 0.0
    trials = math.ceil(maximum / step) if step > 0.0 else 0
    angle = np.arange(trials + 1)[:, None] * step * rate * time[None, :]
    return np.ascontiguousarray(np.stack((np.cos(angle), np.sin(angle)))), step
