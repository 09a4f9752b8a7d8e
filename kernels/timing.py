"""Corrections that turn annotated times and ranges into zero-Doppler times and geometric ranges.

Every correction of this module is to be ADDED to the annotated value to get the true one::

    true time = annotated time + correction,    true range = annotated range + correction

The first three undo approximations of the Sentinel-1 processor, which focuses with stop-and-go
pulses, with chirps that know no Doppler shift, and with one terrain height per burst.

References
----------
Gisinger et al. (2021), In-Depth Verification of Sentinel-1 and TerraSAR-X Geolocation Accuracy
Using the Australian Corner Reflector Array, IEEE Transactions on Geoscience and Remote Sensing 59.
Gisinger (2020), Sentinel-1 ETAD Algorithm Technical Baseline Document, ETAD-DLR-DD-0008.
Rodriguez-Cassola et al. (2015), Doppler-Related Distortions in TOPS SAR Images, IEEE Transactions
on Geoscience and Remote Sensing 53.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.carrier import SPEED_OF_LIGHT_M_S, RangePolynomials
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit

__all__ = [
    "annotated_rate_hz_s",
    "bistatic_azimuth_delay_s",
    "displacement_corrections",
    "doppler_range_shift_m",
    "fm_mismatch_azimuth_s",
    "true_fm_rate_hz_s",
]

Array = NDArray[np.float64]


def bistatic_azimuth_delay_s(
    slant_range_time_s: Array | float,
    mid_swath_slant_range_time_s: float,
    rank: int,
    pri_s: float,
) -> Array:
    """Compute what the flight between transmission and reception adds to the azimuth time.

    Parameters
    ----------
    slant_range_time_s : ndarray or float, float64, s
        Two-way range times of the pixels.
    mid_swath_slant_range_time_s : float, s
        Two-way range time whose half the processor subtracted from all its times: that of the
        middle of IW2 (EW3; the swath itself in stripmap). Zero if it subtracted nothing.
    rank : int
        Pulses in the air: whole pulse intervals between a transmission and its echo window.
    pri_s : float, s
        Pulse repetition interval.

    Returns
    -------
    ndarray, float64, s
        To be added to annotated azimuth times; 0 to 0.6 ms (4 m) in IW.

    Notes
    -----
    An echo that arrives tau after its transmission at t belongs to the place of the satellite at
    ``t + tau/2``. The instrument dates it by the pulse interval in which it arrives, that is by
    ``t + rank PRI``, and the processor subtracts tau_mid/2 everywhere. Hence::

        annotated = t + rank PRI - tau_mid/2
        true - annotated = tau/2 + tau_mid/2 - rank PRI
    """
    tau = np.asarray(slant_range_time_s, dtype=np.float64)
    return np.asarray(0.5 * tau + (0.5 * mid_swath_slant_range_time_s - rank * pri_s))


def doppler_range_shift_m(doppler_hz: Array | float, chirp_rate_hz_s: float) -> Array:
    """Compute the range that a Doppler shift hides in the compressed chirp.

    Parameters
    ----------
    doppler_hz : ndarray or float, float64, Hz
        Total Doppler frequency of the pixels, positive for approaching targets.
    chirp_rate_hz_s : float, Hz/s
        Rate of the transmitted chirp with its sign (Sentinel-1: about +1e12).

    Returns
    -------
    ndarray, float64, m
        To be added to annotated one-way ranges; up to 0.5 m at the ends of a TOPS burst.

    Notes
    -----
    The echo of a target at tau has the frequency ``K (t - tau) + f``. The matched filter takes it
    for an unshifted one, ``K (t - tau')``, whence ``tau' = tau - f/K``: the true range is larger
    by ``c/2 f/K``.
    """
    doppler = np.asarray(doppler_hz, dtype=np.float64)
    return np.asarray(0.5 * SPEED_OF_LIGHT_M_S / chirp_rate_hz_s * doppler)


def true_fm_rate_hz_s(
    orbit: OrbitPolynomial, ground_m: Array, time_s: Array, wavelength_m: float
) -> Array:
    """Compute the azimuth frequency modulation rate of ground points from the orbit.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    ground_m : ndarray (3, n), float64, m
        Earth-fixed positions of the points.
    time_s : ndarray (n,), float64, s
        Their zero-Doppler times, since the epoch of the orbit.
    wavelength_m : float, m
        Wavelength of the radar.

    Returns
    -------
    ndarray (n,), float64, Hz/s
        Negative: about -2300 in IW1 to -2050 in IW3.

    Notes
    -----
    The derivative of the Doppler frequency ``-2/lambda dR/dt``. At zero Doppler, with the vector
    d = p - x from the ground to the satellite::

        k = -2/lambda d2R/dt2 = -2/lambda (v.v + d.a) / |d|
    """
    position, velocity, acceleration = evaluate_orbit(orbit, time_s)
    away = position - ground_m.T
    curvature = np.sum(velocity * velocity, axis=1) + np.sum(away * acceleration, axis=1)
    return np.asarray(-2.0 / wavelength_m * curvature / np.linalg.norm(away, axis=1))


def annotated_rate_hz_s(
    polynomials: RangePolynomials, azimuth_time_s: float, range_time_s: Array
) -> Array:
    """Evaluate annotated polynomials of range time at one azimuth time.

    Parameters
    ----------
    polynomials : RangePolynomials
        For instance the azimuth frequency modulation rate, by which the burst was focused.
    azimuth_time_s : float, s
        Middle of the burst: a burst is focused as a whole.
    range_time_s : ndarray, float64, s
        Two-way range times.

    Returns
    -------
    ndarray, float64
        Linear in azimuth time between the polynomials on either side, which are each evaluated
        about their own range time; constant beyond the first and the last.
    """
    order = np.argsort(polynomials.azimuth_time_s)
    times = polynomials.azimuth_time_s[order]
    total = np.zeros(np.shape(range_time_s))
    for unit, row in zip(np.eye(times.size), order, strict=True):
        weight = float(np.interp(azimuth_time_s, times, unit))
        if weight > 0.0:
            tau = range_time_s - polynomials.range_time_s[row]
            coefficients = polynomials.coefficients[row]
            total += weight * np.polynomial.polynomial.polyval(tau, coefficients)
    return total


def fm_mismatch_azimuth_s(
    doppler_hz: Array, true_rate_hz_s: Array, annotated_rate_hz_s: Array
) -> Array:
    """Compute the azimuth time lost by focusing with the rate of another height.

    Parameters
    ----------
    doppler_hz : ndarray, float64, Hz
        Total Doppler frequency of the pixels.
    true_rate_hz_s, annotated_rate_hz_s : ndarray, float64, Hz/s
        Rates of the target, and of the filter that focused it.

    Returns
    -------
    ndarray, float64, s
        To be added to annotated azimuth times; at the ends of a burst 1 m per km between the
        target's height and the one that the processor assumed.

    Notes
    -----
    A target of rate k has its frequency f at ``t + f/k``. The filter moves that frequency back by
    ``f/k'``, so that a target with the Doppler centroid f appears at ``t + f/k - f/k'``::

        true - annotated = f (1/k' - 1/k)

    The difference with the other sign, which is also found in the literature, is the shift of the
    image, not its correction.
    """
    return np.asarray(doppler_hz * (1.0 / annotated_rate_hz_s - 1.0 / true_rate_hz_s))


def displacement_corrections(
    orbit: OrbitPolynomial, ground_m: Array, time_s: Array, displacement_m: Array
) -> tuple[Array, Array]:
    """Refer times and ranges of displaced ground to where the ground is without displacement.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    ground_m : ndarray (3, n), float64, m
        Earth-fixed positions x without the displacement.
    time_s : ndarray (n,), float64, s
        Their zero-Doppler times, since the epoch of the orbit.
    displacement_m : ndarray (3, n), float64, m
        Earth-fixed displacement e at the time of the measurement, e.g. by tides.

    Returns
    -------
    azimuth_s, range_m : ndarray (n,), float64, s and m
        To be added to measured times and ranges.

    Notes
    -----
    With the unit vector u from the ground to the satellite at p, ``|p - x - e| = |p - x| - e.u``:
    displacement towards the satellite shortens the measured range, and ``+e.u`` corrects it. The
    measured time t solves ``(x + e - p).v = 0``; to first order in e::

        dt (v.v + (p - x).a) = e.v,    correction -dt
    """
    position, velocity, acceleration = evaluate_orbit(orbit, time_s)
    away = position - ground_m.T
    moved = displacement_m.T
    pace = np.sum(velocity * velocity, axis=1) + np.sum(away * acceleration, axis=1)
    azimuth_s = -np.sum(moved * velocity, axis=1) / pace
    range_m = np.sum(moved * away, axis=1) / np.linalg.norm(away, axis=1)
    return azimuth_s, range_m
