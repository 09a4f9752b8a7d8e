"""Where the satellite passes: orbits placed over a scene, displaced by baselines, and measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.simulation.orbit import (
    EARTH_ROTATION_RAD_S,
    NODAL_PERIOD_S,
    OrbitPolynomial,
    evaluate_orbit,
    geodetic_to_ecef,
    propagate,
    zero_doppler,
)

Array = NDArray[np.float64]

NODE_STATE = np.array([7_076_846.4, 0.0, 0.0, -8.9, -1_583.996, 7_430.369])
"""Sentinel-1 state (m, m/s) at its ascending node, turned to longitude zero.

A published state vector of S1A (2023-09-04, track 52) carried back to the equator.
"""


def turn_about_axis(state: Array, angle_rad: float) -> Array:
    """Turn states ``(..., 6)`` about the Earth's axis, eastwards for a positive angle."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    rotation = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return np.concatenate([state[..., :3] @ rotation.T, state[..., 3:] @ rotation.T], axis=-1)


def place_orbit(
    latitude_rad: float, longitude_rad: float, height_m: float, range_m: float, ascending: bool
) -> tuple[float, Array]:
    """Turn the Sentinel-1 orbit so that it sees a point at zero Doppler and a given slant range.

    Parameters
    ----------
    latitude_rad, longitude_rad, height_m : float
        The point.
    range_m : float
        Wanted slant range in m.
    ascending : bool
        Direction of flight over the point; the antenna looks to the right.

    Returns
    -------
    time_s : float
        Time since the ascending node.
    state : (6,) float64
        Earth-fixed state at that time.

    Raises
    ------
    ValueError
        If the latitude is out of the satellite's reach.
    """
    target = geodetic_to_ecef(
        np.float64(latitude_rad), np.float64(longitude_rad), np.float64(height_m)
    )
    times = np.arange(0.0, NODAL_PERIOD_S, 10.0)
    states = propagate(NODE_STATE, 0.0, times)
    rising = states[:, 5] > 0.0
    offset = np.abs(np.arcsin(states[:, 2] / np.linalg.norm(states[:, :3], axis=1)) - latitude_rad)
    offset[rising != ascending] = np.inf
    nearest = int(np.argmin(offset))
    sideways = (-1.0 if ascending else 1.0) * 0.08 / np.cos(latitude_rad)
    turn = longitude_rad + sideways - float(np.arctan2(states[nearest, 1], states[nearest, 0]))
    time, state = float(times[nearest]), states[nearest]
    for _ in range(30):
        value = _sight(turn_about_axis(state, turn), target, range_m)
        ahead = propagate(state, time, np.array([time + 0.1]))[0]
        later = (_sight(turn_about_axis(ahead, turn), target, range_m) - value) / 0.1
        turned = (_sight(turn_about_axis(state, turn + 1e-6), target, range_m) - value) / 1e-6
        step = np.linalg.solve(np.stack([later, turned], axis=1), value)
        step = np.clip(step, [-60.0, -0.05], [60.0, 0.05])
        turn -= float(step[1])
        state = propagate(state, time, np.array([time - step[0]]))[0]
        time -= float(step[0])
        if abs(step[0]) < 1e-9:
            return time, turn_about_axis(state, turn)
    raise ValueError(f"no Sentinel-1 orbit sees latitude {np.degrees(latitude_rad):.2f} deg")


def _sight(state: Array, target: Array, range_m: float) -> Array:
    separation = target - state[:3]
    speed = np.linalg.norm(state[3:])
    return np.array([separation @ state[3:] / speed, np.linalg.norm(separation) - range_m])


def displace_state(state: Array, target: Array, perpendicular_m: float, parallel_m: float) -> Array:
    """Move a state across track by a baseline, keeping the orbits parallel.

    Parameters
    ----------
    state : (6,) float64
        Earth-fixed state that sees ``target`` at zero Doppler.
    target : (3,) float64
        Ground point.
    perpendicular_m, parallel_m : float
        Baseline towards the look side and up (perpendicular to the line of sight), and along the
        line of sight towards the target.

    Returns
    -------
    (6,) float64
        Displaced state; the velocity is turned with the orbit so that the distance stays.
    """
    sight = (target - state[:3]) / np.linalg.norm(target - state[:3])
    flight = state[3:] / np.linalg.norm(state[3:])
    upward = np.cross(sight, flight)
    upward *= np.sign(upward @ state[:3]) / np.linalg.norm(upward)
    shift = perpendicular_m * upward + parallel_m * sight
    inertial = state[3:] + np.cross([0.0, 0.0, EARTH_ROTATION_RAD_S], state[:3])
    angular = np.cross(state[:3], inertial) / (state[:3] @ state[:3])
    turning = np.cross(angular, shift) - np.cross([0.0, 0.0, EARTH_ROTATION_RAD_S], shift)
    return np.concatenate([state[:3] + shift, state[3:] + turning])


def perpendicular_baseline(
    reference: OrbitPolynomial, other: OrbitPolynomial, points_m: Array, guess_s: Array
) -> Array:
    """Measure the perpendicular baseline from its effect on range.

    ``B = -R * d(R_other - R_reference)/de`` for a ground point moved by ``e`` upwards and away from
    the sensor, perpendicular to the line of sight: positive when the other orbit is displaced up
    and towards the look side. This is the sign of StaMPS and of jLinda.

    Parameters
    ----------
    reference, other : OrbitPolynomial
    points_m : (n, 3) float64
    guess_s : (n,) float64

    Returns
    -------
    (n,) float64
        Perpendicular baseline in m.
    """
    time, distance = zero_doppler(reference, points_m, guess_s)
    position, velocity, _ = evaluate_orbit(reference, time)
    sight = (points_m - position) / distance[:, None]
    upward = np.cross(sight, velocity)
    upward /= np.linalg.norm(upward, axis=1, keepdims=True)
    upward *= np.sign(np.sum(upward * position, axis=1))[:, None]
    change = np.zeros(len(points_m))
    for side in (-1.0, 1.0):
        moved = points_m + side * 50.0 * upward
        change += side * (
            zero_doppler(other, moved, time)[1] - zero_doppler(reference, moved, time)[1]
        )
    result: Array = -distance * change / 100.0
    return result
