"""Interpolation taps matched to the spectrum of the image (least squares).

The taps minimise the expected error over the power spectrum that the processor left: a Hamming
window of known coefficient over the processed bandwidth. A windowed sinc spends its accuracy on
frequencies without power and fails at the edge of the band, where Sentinel-1 IW1 still has some.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRACTIONS", "TAPS", "choose_taps", "design_taps", "expected_noise"]

FRACTIONS = 2048
"""Steps of the fraction in a table; the table has one row more, for the fraction 1."""
TAPS = 16
"""Width of every table; shorter sets are padded with zeros on both sides."""

_FREQUENCIES = 128
# White noise of -100 dB keeps the normal equations well conditioned where the band is narrow.
_NOISE = 1e-10


def choose_taps(bandwidth_hz: float, sampling_hz: float) -> int:
    """Return the number of taps for a band fill.

    Parameters
    ----------
    bandwidth_hz, sampling_hz : float, Hz
        Processed bandwidth and sampling rate.

    Returns
    -------
    int
        16 above a fill of 0.8 (IW1 in range), 12 above 0.7 (IW2 in range), else 8.
    """
    fill = bandwidth_hz / sampling_hz
    return 16 if fill > 0.8 else 12 if fill > 0.7 else 8


def _spectrum(
    fill: float, window_coefficient: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies (cycles per sample) and power, of unit sum, over the band."""
    nodes, weights = np.polynomial.legendre.leggauss(_FREQUENCIES)
    frequency = 0.5 * fill * nodes
    window = window_coefficient + (1.0 - window_coefficient) * np.cos(np.pi * nodes)
    power = weights * window**2
    return frequency, power / power.sum()


def design_taps(
    sampling_hz: float, bandwidth_hz: float, window_coefficient: float, taps: int
) -> NDArray[np.float32]:
    """Design a table of interpolation taps.

    Parameters
    ----------
    sampling_hz, bandwidth_hz : float, Hz
        Sampling rate and processed bandwidth (``0 < bandwidth <= sampling``).
    window_coefficient : float
        Hamming coefficient in [0.5, 1] of the processed spectrum.
    taps : int
        8, 12 or 16 taps.

    Returns
    -------
    ndarray (2049, 16), float32
        Row ``q`` interpolates at the fraction ``q / 2048`` between tap 7 and tap 8; fewer than 16
        taps are centred and padded with zeros. The taps of every row sum to one.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    With the power spectrum S(f), its correlation r(k) = int S(f) exp(2 pi j f k) df, and taps at
    the integers k, the error int S(f) |exp(2 pi j f d) - sum_k h_k exp(2 pi j f k)|^2 df is least
    for ``sum_l r(k - l) h_l = r(k - d)``; a Lagrange multiplier keeps ``sum_k h_k = 1``.
    A Doppler centroid that is wrong by 10 Hz raises the phase noise of 8 azimuth taps from 0.0016
    to 0.0026 rad (IW1).
    """
    fill = bandwidth_hz / sampling_hz
    if not 0.0 < fill <= 1.0:
        raise ValueError(f"bandwidth_hz must be within (0, sampling_hz], got {bandwidth_hz}")
    if not 0.5 <= window_coefficient <= 1.0:
        raise ValueError(f"window_coefficient must be within [0.5, 1], got {window_coefficient}")
    if taps not in (8, 12, 16):
        raise ValueError(f"taps must be 8, 12 or 16, got {taps}")
    frequency, power = _spectrum(fill, window_coefficient)
    places = np.arange(taps) - (taps // 2 - 1)
    fraction = np.arange(FRACTIONS + 1) / FRACTIONS

    def correlation(lags: NDArray[np.float64]) -> NDArray[np.float64]:
        angle = 2.0 * np.pi * lags[..., np.newaxis] * frequency
        return np.asarray(np.cos(angle) @ power, dtype=np.float64)

    system = np.ones((taps + 1, taps + 1))
    system[:taps, :taps] = correlation(np.subtract.outer(places, places).astype(np.float64))
    system[:taps, :taps] += _NOISE * np.eye(taps)
    system[taps, taps] = 0.0
    target = np.ones((taps + 1, fraction.size))
    target[:taps] = correlation(np.subtract.outer(places, fraction))
    table = np.zeros((fraction.size, TAPS), dtype=np.float32)
    margin = (TAPS - taps) // 2
    table[:, margin : margin + taps] = np.linalg.solve(system, target)[:taps].T
    # At the ends the exact answer is known; the noise term would leave 1e-5 there.
    table[[0, -1]] = 0.0
    table[0, TAPS // 2 - 1] = 1.0
    table[-1, TAPS // 2] = 1.0
    return table


def expected_noise(
    table: NDArray[np.float32], sampling_hz: float, bandwidth_hz: float, window_coefficient: float
) -> float:
    """Return the expected error power of a table relative to the signal, over all fractions.

    Parameters
    ----------
    table : ndarray (2049, 16), float32
        From ``design_taps``.
    sampling_hz, bandwidth_hz, window_coefficient : float
        The spectrum, as in ``design_taps``.

    Returns
    -------
    float
        Mean error power; for small values the phase noise is the root of its half, in rad.
    """
    frequency, power = _spectrum(bandwidth_hz / sampling_hz, window_coefficient)
    places = np.arange(TAPS) - (TAPS // 2 - 1)
    fraction = np.arange(table.shape[0]) / (table.shape[0] - 1)
    response = table.astype(np.float64) @ np.exp(2j * np.pi * np.outer(places, frequency))
    error = np.exp(2j * np.pi * np.outer(fraction, frequency)) - response
    return float(np.mean(np.abs(error) ** 2 @ power))
