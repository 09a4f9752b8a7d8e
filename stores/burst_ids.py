"""ESA burst identifiers: which burst of the 12-day cycle an acquisition belongs to.

A burst number counts burst cycles (IW1 + IW2 + IW3) since the ascending node of relative orbit 1,
on the clock of a nominal orbit, so that it names a place on the ground on every date.

References
----------
Sentinel-1 Level 1 Detailed Algorithm Definition, S1-TN-MDA-52-7445, issue 2.4, section 9.25.
Relative orbits: Sentinel-1 product description (SentiWiki, "SAR naming convention"); Sentinel-1C
changed its place in the constellation between 2026-06-08 and 2026-06-24.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from bperp.stores.errors import ProductError

__all__ = [
    "BURST_CYCLE_S",
    "BURST_PREAMBLE_S",
    "ORBITS_PER_CYCLE",
    "ORBIT_PERIOD_S",
    "ascending_nodes_ns",
    "burst_number",
    "format_burst_id",
    "nearest_node_ns",
    "node_longitude_deg",
    "node_relative_orbit",
    "parse_burst_id",
    "relative_orbit",
    "track_of_burst",
    "track_of_node",
]

ORBITS_PER_CYCLE = 175
ORBIT_PERIOD_S = 12 * 86400 / ORBITS_PER_CYCLE
BURST_CYCLE_S = 2.758273
"""Time between bursts of one swath in IW mode."""
BURST_PREAMBLE_S = 2.299849
"""Time from the node of relative orbit 1 to the first burst cycle of IW mode."""

NODE_LONGITUDE_DEG = 0.1455
"""Node of relative orbit 1, within 0.002 degrees on fourteen products of S1A and S1B, 2014-2023."""

_TRACK_SPACING_DEG = 360.0 / ORBITS_PER_CYCLE
_TURNS_PER_CYCLE = 12
_CYCLES = math.floor(ORBITS_PER_CYCLE * ORBIT_PERIOD_S / BURST_CYCLE_S)
# Sensing order is IW1, IW2, IW3: starts lie 0.832 s and 1.078 s apart. The number belongs to the
# middle of the IW2 burst of the cycle.
_IW1_TO_IW2_S, _IW2_TO_IW3_S = 0.832, 1.078
_START_TO_MIDDLE_S = {
    "IW1": _IW1_TO_IW2_S + _IW2_TO_IW3_S / 2,
    "IW2": _IW2_TO_IW3_S / 2,
    "IW3": -_IW2_TO_IW3_S / 2,
}
_BURST_ID = re.compile(r"t(\d{3})_(\d{6})_([a-z]+\d)", re.ASCII)


def relative_orbit(mission: str, absolute_orbit: int, where: str | None = None) -> int:
    """Return the relative orbit (track) 1..175 of an absolute orbit.

    Manifests of 2014 (IPF 2.36) name other tracks; the ground that was imaged agrees with this.

    Raises
    ------
    ProductError
        D305 for an unknown mission.
    """
    # The last S1C product before its manoeuvre has orbit 8018.
    offsets = {"S1A": 73, "S1B": 27, "S1C": 172 if absolute_orbit <= 8018 else 99, "S1D": 42}
    if mission not in offsets:
        raise ProductError(
            "D305",
            "unknown mission, so its relative orbits are unknown",
            where=where,
            expected="one of " + ", ".join(offsets),
            found=mission,
            remedy="update bperp, or leave this product out",
        )
    return (absolute_orbit - offsets[mission]) % ORBITS_PER_CYCLE + 1


def node_relative_orbit(
    start_orbit: int, stop_orbit: int, middle_ns: int, ascending_node_ns: int
) -> int:
    """Return the relative orbit that begins at the annotated ascending node.

    The annotated node may lie more than one orbit before a scene near the equator, so the
    relative orbit of the scene's start need not be the node's.

    Parameters
    ----------
    start_orbit, stop_orbit : int
        Relative orbits at the first and last line of the product, 1..175.
    middle_ns, ascending_node_ns : int
        Middle of the product and annotated node, UTC ns since 1970.

    Returns
    -------
    int
        1..175.
    """
    orbits = (middle_ns - ascending_node_ns) * 1e-9 / ORBIT_PERIOD_S
    # With a crossing inside the product the node is a whole number of orbits from that crossing,
    # where the stop orbit begins; without one the middle is far enough from any crossing.
    behind = stop_orbit - round(orbits) if start_orbit != stop_orbit else None
    node = start_orbit - math.floor(orbits) if behind is None else behind
    return (node - 1) % ORBITS_PER_CYCLE + 1


def track_of_node(longitude_deg: float) -> int | None:
    """Return the relative orbit 1..175 that has its node at a longitude, or None.

    All satellites of the mission repeat the same 175 ground tracks, 2.06 degrees apart. None:
    further than 0.1 degrees from all of them.
    """
    steps = (NODE_LONGITUDE_DEG - longitude_deg) / _TRACK_SPACING_DEG
    if abs(steps - round(steps)) * _TRACK_SPACING_DEG > 0.1:
        return None
    # From one orbit to the next the node moves by 12 of the 175 places.
    inverse = pow(_TURNS_PER_CYCLE, -1, ORBITS_PER_CYCLE)
    return round(steps) * inverse % ORBITS_PER_CYCLE + 1


def burst_number(
    swath: str, sensing_time_ns: int, ascending_node_ns: int, node_orbit: int
) -> tuple[int, float]:
    """Compute the ESA burst number of an IW burst.

    Parameters
    ----------
    swath : str
        ``IW1``, ``IW2`` or ``IW3``.
    sensing_time_ns : int
        Sensing time of the burst's first line (not its zero-Doppler time), UTC ns since 1970.
    ascending_node_ns : int
        Time of the ascending node, UTC ns since 1970.
    node_orbit : int
        Relative orbit that begins at that node, 1..175 (``node_relative_orbit``).

    Returns
    -------
    number : int
        1..375887.
    fraction : float
        Position of the burst within its slot, [0, 1): about 0.5; near 0 or 1 the number is
        uncertain.

    Notes
    -----
    ``number = 1 + floor((t_mid - t_node + (r - 1) T_orbit - T_preamble) / T_cycle)`` with the
    middle of the IW2 burst of the same burst cycle as ``t_mid``.
    """
    since_node_s = (sensing_time_ns - ascending_node_ns) * 1e-9 + _START_TO_MIDDLE_S[swath]
    since_first_s = since_node_s + (node_orbit - 1) * ORBIT_PERIOD_S - BURST_PREAMBLE_S
    slot = (since_first_s % (ORBITS_PER_CYCLE * ORBIT_PERIOD_S)) / BURST_CYCLE_S
    return math.floor(slot) % _CYCLES + 1, slot % 1.0


def track_of_burst(number: int) -> int:
    """Return the relative orbit 1..175 to which the burst map assigns a burst number.

    It is the orbit in which the IW1 burst of the cycle starts, for all three swaths; it does not
    depend on the date, so neither does the burst identifier.
    """
    start_s = (number - 0.5) * BURST_CYCLE_S + BURST_PREAMBLE_S - _START_TO_MIDDLE_S["IW1"]
    return math.floor(start_s / ORBIT_PERIOD_S) % ORBITS_PER_CYCLE + 1


def format_burst_id(number: int, swath: str, track: int | None = None) -> str:
    """Return the identifier of a burst, e.g. ``t052_110431_iw1``."""
    return f"t{track_of_burst(number) if track is None else track:03d}_{number:06d}_{swath.lower()}"


def parse_burst_id(burst_id: str) -> tuple[int, int, str]:
    """Return track, number and swath (upper case) of an identifier.

    Raises
    ------
    ProductError
        D304 when it is none.
    """
    match = _BURST_ID.fullmatch(burst_id)
    if match is None:
        raise ProductError(
            "D304",
            "not a burst identifier",
            expected="like t052_110431_iw1",
            found=repr(burst_id[:40]),
            remedy="take it from 'bperp inspect' or from the ESA burst map",
        )
    return int(match[1]), int(match[2]), match[3].upper()


_GRAVITY_M3_S2 = 3.986004418e14
_RADIUS_M = 6378137.0
_J2 = 1.08262668e-3
_ROTATION_RAD_S = 7.292115e-5
_State = tuple[float, float, float, float, float, float]


def ascending_nodes_ns(
    time_ns: int, position_m: NDArray[np.float64], velocity_m_s: NDArray[np.float64], back_s: float
) -> tuple[int, ...]:
    """Find ascending nodes before (or shortly after) one state vector.

    Parameters
    ----------
    time_ns : int
        Time of the state vector, UTC ns since 1970.
    position_m, velocity_m_s : ndarray (3,) float64
        Earth-fixed state vector in m and m/s.
    back_s : float
        How far to look back, s; 200 s ahead are searched as well.

    Returns
    -------
    tuple of int
        Times of the nodes, UTC ns since 1970; within 0.1 s of the truth over one orbit.

    Notes
    -----
    Runge-Kutta integration of the central and J2 gravity in the rotating frame: enough to tell
    an annotated node that is wrong by seconds, and it needs nothing but the annotation.
    """
    start: _State = tuple(float(v) for v in (*position_m, *velocity_m_s))  # type: ignore[assignment]
    nodes = []
    for step_s, limit_s in ((-20.0, back_s), (20.0, 200.0)):
        state, elapsed_s = start, 0.0
        while abs(elapsed_s) < limit_s:
            following = _runge_kutta(state, step_s)
            below, above = (following, state) if step_s < 0 else (state, following)
            if below[2] < 0.0 <= above[2]:
                nodes.append(time_ns + round((elapsed_s + _time_to_equator_s(state)) * 1e9))
            state, elapsed_s = following, elapsed_s + step_s
    return tuple(sorted(nodes))


def nearest_node_ns(
    annotated_ns: int,
    time_ns: NDArray[np.int64],
    position_m: NDArray[np.float64],
    velocity_m_s: NDArray[np.float64],
) -> int | None:
    """Return the node next to an annotated one as the first state vector has it, or None.

    The search ends two orbits before the state vector, which is further than any product needs.
    """
    back_s = min((int(time_ns[0]) - annotated_ns) * 1e-9 + 120.0, 2.1 * ORBIT_PERIOD_S)
    nodes = ascending_nodes_ns(int(time_ns[0]), position_m[0], velocity_m_s[0], max(back_s, 0.0))
    return min(nodes, key=lambda node: abs(node - annotated_ns), default=None)


def node_longitude_deg(
    node_ns: int, time_ns: int, position_m: NDArray[np.float64], velocity_m_s: NDArray[np.float64]
) -> float:
    """Return the longitude of a node from one state vector (3,), within 0.01 degrees."""
    state: _State = tuple(float(v) for v in (*position_m, *velocity_m_s))  # type: ignore[assignment]
    elapsed_s = (node_ns - time_ns) * 1e-9
    steps = math.ceil(abs(elapsed_s) / 20.0) + 1
    for _ in range(steps):
        state = _runge_kutta(state, elapsed_s / steps)
    return math.degrees(math.atan2(state[1], state[0]))


def _time_to_equator_s(state: _State) -> float:
    elapsed_s = 0.0
    for _ in range(3):
        step_s = -state[2] / state[5]
        state, elapsed_s = _runge_kutta(state, step_s), elapsed_s + step_s
    return elapsed_s


def _acceleration(state: _State) -> _State:
    x, y, z, u, v, w = state
    squared = x * x + y * y + z * z
    central = _GRAVITY_M3_S2 / (squared * math.sqrt(squared))
    oblate = 1.5 * _J2 * _RADIUS_M**2 / squared
    polar = 5.0 * z * z / squared
    plane = -central * (1.0 + oblate * (1.0 - polar)) + _ROTATION_RAD_S**2
    return (
        u,
        v,
        w,
        plane * x + 2.0 * _ROTATION_RAD_S * v,
        plane * y - 2.0 * _ROTATION_RAD_S * u,
        -central * (1.0 + oblate * (3.0 - polar)) * z,
    )


def _runge_kutta(state: _State, step_s: float) -> _State:
    def shifted(slope: _State, factor: float) -> _State:
        return tuple(a + factor * b for a, b in zip(state, slope, strict=True))  # type: ignore[return-value]

    first = _acceleration(state)
    second = _acceleration(shifted(first, step_s / 2))
    third = _acceleration(shifted(second, step_s / 2))
    fourth = _acceleration(shifted(third, step_s))
    mean = tuple(
        (a + 2.0 * b + 2.0 * c + d) / 6.0
        for a, b, c, d in zip(first, second, third, fourth, strict=True)
    )
    return shifted(mean, step_s)  # type: ignore[arg-type]
