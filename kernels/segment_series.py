"""Offset and phase of the pixels of a line, as series about the middle of each segment.

The phase of a resampled pixel is a smooth function of its sample and height, thousands of turns
large and needed to 1e-6 turn. Over a segment of 32 samples it is expanded to the second order in
the sample and the third in the height, in float64; what is left to do for each pixel is a
polynomial of small numbers in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.carrier import CarrierModel
from bperp.kernels.offset_powers import OffsetPowers
from bperp.kernels.orbit import FAST
from bperp.kernels.resample_rows import SEGMENT, term

SERIES = 15
"""Terms of a series: six of the offset, then nine of the phase (see ``expand_segment``)."""
CARRIER_POWERS = 7

Powers = tuple[float, float, float, float, float, float, float, float, float]
State = tuple[float, float, float]
Frame = tuple[float, float, float, float]
Rise = tuple[float, float, float, float]
Heights = tuple[float, float, float, float, float]


@njit(forceinline=True)
def _powers_of(rows: NDArray[np.float64], k: int) -> Powers:
    """Return nine powers of a row; zeros for a row that does not exist."""
    if k >= rows.shape[0]:
        return (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return (
        rows[k, 0], rows[k, 1], rows[k, 2], rows[k, 3], rows[k, 4],
        rows[k, 5], rows[k, 6], rows[k, 7], rows[k, 8],
    )  # fmt: skip


@njit(fastmath=FAST, forceinline=True)
def _step(state: State, power: float, u: float) -> State:
    """Make one step of Horner's scheme for value, slope and half the curvature."""
    value, slope, bend = state
    return value * u + power, slope * u + value, bend * u + slope


@njit(fastmath=FAST, forceinline=True)
def _expand_six(c: Powers, u: float) -> State:
    """Expand a polynomial of degree 6 about ``u``."""
    value = c[6] * u + c[5]
    state = (value * u + c[4], c[6] * u + value, c[6])
    state = _step(_step(state, c[3], u), c[2], u)
    return _step(_step(state, c[1], u), c[0], u)


@njit(fastmath=FAST, forceinline=True)
def _expand_eight(c: Powers, u: float) -> State:
    """Expand a polynomial of degree 8 about ``u``."""
    value = c[8] * u + c[7]
    state = (value * u + c[6], c[8] * u + value, c[8])
    state = _step(_step(state, c[5], u), c[4], u)
    state = _step(_step(state, c[3], u), c[2], u)
    return _step(_step(state, c[1], u), c[0], u)


@njit(fastmath=FAST, forceinline=True)
def _rise_three(c: Heights, w: float) -> Rise:
    """Expand a polynomial of degree 3 in the height about ``w``, to the third order."""
    c0, c1, c2, c3, _ = c
    b2 = c3 * w + c2
    b1 = b2 * w + c1
    d2 = c3 * w + b2
    return b1 * w + c0, d2 * w + b1, c3 * w + d2, c3


@njit(fastmath=FAST, forceinline=True)
def _rise_four(c: Heights, w: float) -> Rise:
    """Expand a polynomial of degree 4 in the height about ``w``, to the third order."""
    c0, c1, c2, c3, c4 = c
    b3 = c4 * w + c3
    b2 = b3 * w + c2
    b1 = b2 * w + c1
    d3 = c4 * w + b3
    d2 = d3 * w + b2
    e3 = c4 * w + d3
    return b1 * w + c0, d2 * w + b1, e3 * w + d2, c4 * w + e3


@njit(fastmath=FAST, forceinline=True)
def _expand_offset(
    expand: Callable[[Powers, float], State],
    rise: Callable[[Heights, float], Rise],
    c: tuple[Powers, Powers, Powers, Powers, Powers],
    u: float,
    w: float,
) -> tuple[Rise, Rise, Rise]:
    """Expand an offset: for each order in the sample four orders in the height."""
    v0, s0, b0 = expand(c[0], u)
    v1, s1, b1 = expand(c[1], u)
    v2, s2, b2 = expand(c[2], u)
    v3, s3, b3 = expand(c[3], u)
    v4, s4, b4 = expand(c[4], u)
    value = rise((v0, v1, v2, v3, v4), w)
    return value, rise((s0, s1, s2, s3, s4), w), rise((b0, b1, b2, b3, b4), w)


@njit(fastmath=FAST)
def collapse_carrier(model: CarrierModel, line: float, rows: NDArray[np.float64]) -> None:
    """Insert a line: ``rows`` (3, 9) get phase, Doppler (per line) and half the sweep (turns)."""
    eta, step = (line - model.middle_line) * model.line_interval_s, model.line_interval_s
    for k in range(CARRIER_POWERS):
        a, b, c = model.powers[0, k], model.powers[1, k], model.powers[2, k]
        rows[0, k] = a + eta * (b + eta * c)
        rows[1, k] = (b + 2.0 * eta * c) * step
        rows[2, k] = c * step * step


@njit(fastmath=FAST)
def tabulate_carrier(model: CarrierModel, first_sample: int, table: NDArray[np.float64]) -> None:
    """Expand the terms of the carrier in the middle of each segment: ``table`` (9, segments)."""
    scale = 1.0 / model.half_samples
    for k in range(3):
        c = model.powers[k]
        powers = (c[0], c[1], c[2], c[3], c[4], c[5], c[6], 0.0, 0.0)
        for s in range(table.shape[1]):
            sample = np.float64(first_sample + s * SEGMENT + SEGMENT // 2)
            u = (sample - model.center_sample) * scale
            value, slope, bend = _expand_six(powers, u)
            table[3 * k, s] = value
            table[3 * k + 1, s] = slope * scale
            table[3 * k + 2, s] = bend * scale * scale


@njit(fastmath=FAST, forceinline=True)
def _expand_carrier(
    c: tuple[Powers, Powers, Powers], u: float, scale: float, lines: float
) -> tuple[float, tuple[float, float], State]:
    """Expand the carrier about a source position, some lines from the nominal one.

    Returns the phase, its slopes per sample and per line, and the second order: half the curvature
    per sample squared, the mixed derivative, and half the curvature per line squared.
    """
    p, px, pxx = _expand_six(c[0], u)
    q, qx, qxx = _expand_six(c[1], u)
    z, zx, zxx = _expand_six(c[2], u)
    across = (px + lines * (qx + lines * zx)) * scale
    bend = (pxx + lines * (qxx + lines * zxx)) * (scale * scale)
    cross = (qx + 2.0 * lines * zx) * scale
    return p + lines * (q + lines * z), (across, q + 2.0 * lines * z), (bend, cross, z)


@njit(forceinline=True)
def _five_powers(rows: NDArray[np.float64]) -> tuple[Powers, Powers, Powers, Powers, Powers]:
    """Return the powers of an offset that was collapsed to a line."""
    return (
        _powers_of(rows, 0), _powers_of(rows, 1), _powers_of(rows, 2), _powers_of(rows, 3),
        _powers_of(rows, 4),
    )  # fmt: skip


@njit
def frame_of(offsets: OffsetPowers) -> Frame:
    """Return centres and inverse half widths of sample and height."""
    domain = offsets.domain
    return domain[1, 0], 1.0 / domain[1, 1], domain[2, 0], 1.0 / domain[2, 1]


@njit(fastmath=FAST, forceinline=True)
def _expand_segments(
    expand: Callable[[Powers, float], State],
    rise: Callable[[Heights, float], Rise],
    rows: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    frames: tuple[Frame, Frame],
    phase: tuple[float, float, float, float, float, float],
    middles: tuple[float, NDArray[np.float32]],
    out: tuple[NDArray[np.float64], NDArray[np.float32]],
) -> None:
    a, (a_centre, a_scale, a_level, a_climb) = _five_powers(rows[0]), frames[0]
    r, (r_centre, r_scale, r_level, r_climb) = _five_powers(rows[1]), frames[1]
    c0, c1, c2 = _powers_of(rows[2], 0), _powers_of(rows[2], 1), _powers_of(rows[2], 2)
    centre, scale, shift = phase[0], 1.0 / phase[1], phase[2]
    constant, ramp, per_sample = phase[3], phase[4], phase[5]
    first_sample, heights = middles
    middle, series = out
    for s in range(np.uint64(heights.size)):
        sample, height = first_sample + np.float64(s) * SEGMENT, np.float64(heights[s])
        u, w = (sample - a_centre) * a_scale, (height - a_level) * a_climb
        value, slope, curvature = _expand_offset(expand, rise, a, u, w)
        a00, a10, a20, a30 = value
        a01, a11, a02 = slope[0], slope[1], curvature[0]
        u, w = (sample - r_centre) * r_scale, (height - r_level) * r_climb
        value, slope, curvature = _expand_offset(expand, rise, r, u, w)
        r00, r10, r20, r30 = value
        (r01, r11, r21, _), r02, r12 = slope, curvature[0], curvature[1]
        a10, a01, a11 = a10 * a_climb, a01 * a_scale, a11 * (a_climb * a_scale)
        r10, r01, r11 = r10 * r_climb, r01 * r_scale, r11 * (r_climb * r_scale)
        r02, r20 = r02 * (r_scale * r_scale), r20 * (r_climb * r_climb)
        a02, a20 = a02 * (a_scale * a_scale), a20 * (a_climb * a_climb)
        r30 *= r_climb * r_climb * r_climb
        a30 *= a_climb * a_climb * a_climb
        middle[s] = r00
        series[s] = r01
        series[term(1, s)] = r02
        series[term(2, s)] = r10
        series[term(3, s)] = r11
        series[term(4, s)] = r20
        series[term(5, s)] = r30
        u = (sample + r00 + shift - centre) * scale
        turns, (across, along), (bend, cross, z) = _expand_carrier((c0, c1, c2), u, scale, a00)
        # One sample of range offset turns the phase by the carrier's slope and the flattening.
        turn, stretch = across + per_sample, 1.0 + r01
        turns += constant + ramp * sample + per_sample * r00
        series[term(6, s)] = turns - np.floor(turns + 0.5)
        series[term(7, s)] = ramp + across + turn * r01 + along * a01
        bent = bend * stretch * stretch + a01 * (cross * stretch + z * a01)
        series[term(8, s)] = turn * r02 + along * a02 + bent
        series[term(9, s)] = turn * r10 + along * a10
        bent = 2.0 * (bend * stretch * r10 + z * a01 * a10)
        bent += cross * (stretch * a10 + r10 * a01)
        series[term(10, s)] = turn * r11 + along * a11 + bent
        series[term(11, s)] = turn * (r12 * (r_climb * r_scale * r_scale))
        bent = bend * r10 * r10 + a10 * (cross * r10 + z * a10)
        series[term(12, s)] = turn * r20 + along * a20 + bent
        series[term(13, s)] = turn * (r21 * (r_climb * r_climb * r_scale))
        series[term(14, s)] = turn * r30 + along * a30


@njit
def is_large(offsets: OffsetPowers) -> bool:
    """Say whether an offset has more than six powers of the sample or three of the height."""
    return offsets.powers.shape[0] > 4 or bool(np.any(offsets.powers[:, :, 7:] != 0.0))


@njit
def expand_line(
    rows: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    frames: tuple[Frame, Frame],
    phase: tuple[float, float, float, float, float, float],
    middles: tuple[float, NDArray[np.float32]],
    large: bool,
    out: tuple[NDArray[np.float64], NDArray[np.float32]],
) -> None:
    """Expand offset and phase of one line in all segments.

    ``rows`` are azimuth offset, range offset and carrier collapsed to the line, ``frames`` those of
    the two offsets; ``phase`` the carrier's centre sample and half width, the range shift and the
    flattening's three numbers; ``middles`` the first segment's middle sample and the reference
    heights of all; ``large`` says that an offset is (see ``is_large``). ``out`` gets the range
    offset in the middle of every segment, and the series of 15 terms.
    """
    if large:
        _expand_segments(_expand_eight, _rise_four, rows, frames, phase, middles, out)
    else:
        _expand_segments(_expand_six, _rise_three, rows, frames, phase, middles, out)
