"""Focused TOPS response of ground scatterers: carrier, impulse response, quantisation.

The carrier follows from the geometry of a rotating beam, not from a deramping routine. With raw
time ``s`` and zero-Doppler time ``e`` counted from the burst middle, a target has the Doppler
history ``ka (s - e)`` and the beam centre moves as ``f_dc + ks s``. Where both are equal the target
is in the beam centre, so its spectrum is centred on ``f = ka (f_dc + ks e) / (ka - ks)``, i.e.
``kt e + f_dc ka / (ka - ks)`` with ``kt = ka ks / (ka - ks)``. ESA's definition of the TOPS SLC
deramping function (Miranda 2015, COPE-GSEG-EOPG-TN-14-0025) writes the same line as
``kt (e - e_ref) + f_dc`` with ``e_ref = -f_dc / ka + constant``; the constant is fixed by putting
the middle of the range at the middle of the burst.

A scatterer then contributes ``A exp(-4 pi j R / lambda) h_r(r - r0) h_a(e - e0)
exp(2 pi j f (e - e0))``: its focused spectrum is symmetric about ``f`` with flat phase. The range
response is exactly band limited (spreading on a twofold grid and a window in the frequency domain);
the azimuth response is a tapered sum over 17 lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.simulation.orbit import (
    SPEED_OF_LIGHT_M_S,
    OrbitPolynomial,
    solve_zero_doppler,
)

Array = NDArray[np.float64]

AZIMUTH_TAPS = 17
SPREAD_TAPS = 8
FRACTIONS = 4096
PAD_SAMPLES = 32
_SPREAD_SHAPE = 2.30 * SPREAD_TAPS


class Response(NamedTuple):
    """Tables of one swath's impulse response."""

    azimuth_taps: NDArray[np.float32]
    """(FRACTIONS + 1, 17): peak 1, the line fraction runs from -0.5 to 0.5."""
    spread_taps: NDArray[np.float32]
    """(FRACTIONS + 1, 8): spreading kernel on the twofold range grid."""
    range_window: NDArray[np.float32]
    """(transform length,) in FFT order: window over the transform of the spreading kernel."""
    power: float
    """Sum of the squared response over the pixels of one scatterer."""


class BurstSignal(NamedTuple):
    """Where and how one burst on one date was really acquired."""

    orbit: OrbitPolynomial
    first_line_s: float
    """True zero-Doppler time of the first line, seconds since the ascending node."""
    line_interval_s: float
    first_sample_m: float
    """True one-way slant range of the first sample."""
    sample_spacing_m: float
    wavelength_m: float
    carrier_rate_hz_s: Array
    """(samples,) ``kt``."""
    carrier_offset_hz: Array
    """(samples,) carrier frequency at the burst middle, ``f_dc - kt e_ref``."""


class Targets(NamedTuple):
    """Scatterers as one date sees them."""

    position_m: Array
    """(n, 3) Earth-fixed positions."""
    amplitude: NDArray[np.complex64]
    """(n,)"""
    path_m: NDArray[np.float32]
    """(n,) one-way lengthening of the path: delay minus displacement."""
    guess_s: Array
    """(n,) zero-Doppler time to within 20 ms."""


def steering_doppler_rate(
    speed_m_s: float, radar_frequency_hz: float, steering_rate_rad_s: float
) -> float:
    """Return the Doppler rate of the beam ``ks = 2 v f k_psi / c`` in Hz/s."""
    return 2.0 * speed_m_s * radar_frequency_hz * steering_rate_rad_s / SPEED_OF_LIGHT_M_S


def carrier_line(
    fm_rate_hz_s: Array, doppler_hz: Array, steering_hz_s: float, middle: int
) -> tuple[Array, Array]:
    """Return rate and offset of the carrier frequency over range.

    Parameters
    ----------
    fm_rate_hz_s, doppler_hz : (samples,) float64
        ``ka`` (negative) and Doppler centroid.
    steering_hz_s : float
        ``ks`` (positive for Sentinel-1).
    middle : int
        Sample at which the burst is centred.

    Returns
    -------
    rate_hz_s, offset_hz : (samples,) float64
        ``f = rate * e + offset`` with ``e`` the zero-Doppler time from the burst middle.
    """
    rate = fm_rate_hz_s * steering_hz_s / (fm_rate_hz_s - steering_hz_s)
    crossing = -doppler_hz / fm_rate_hz_s
    reference = crossing - crossing[middle]
    return rate, doppler_hz - rate * reference


def _hamming_transform(position: Array, bandwidth: float, coefficient: float) -> Array:
    """Transform of ``a + (1 - a) cos(2 pi f / B)`` over ``|f| < B / 2``, peak one."""
    x = position * bandwidth
    side = 0.5 * (1.0 - coefficient)
    value = coefficient * np.sinc(x) + side * (np.sinc(x - 1.0) + np.sinc(x + 1.0))
    result: Array = value / coefficient
    return result


def _spread(distance: Array) -> Array:
    inside = np.clip(1.0 - (2.0 * distance / SPREAD_TAPS) ** 2, 0.0, None)
    result: Array = np.exp(_SPREAD_SHAPE * (np.sqrt(inside) - 1.0)) * (inside > 0.0)
    return result


def transform_length(samples: int) -> int:
    """Return the even FFT length that holds the samples and their margins."""
    return int(scipy.fft.next_fast_len((samples + 2 * PAD_SAMPLES + 1) // 2)) * 2


def build_response(
    samples: int, range_band: tuple[float, float], azimuth_band: tuple[float, float]
) -> Response:
    """Tabulate the impulse response of a swath.

    Parameters
    ----------
    samples : int
        Samples of a burst line.
    range_band, azimuth_band : (bandwidth, coefficient)
        Bandwidth as a fraction of the sampling rate and Hamming coefficient.

    Returns
    -------
    Response
    """
    fraction = (np.arange(FRACTIONS + 1) / FRACTIONS - 0.5)[:, None]
    lines = np.arange(AZIMUTH_TAPS) - AZIMUTH_TAPS // 2
    distance = lines - fraction
    taper = np.i0(3.0 * np.sqrt(np.clip(1.0 - (2.0 * distance / AZIMUTH_TAPS) ** 2, 0.0, None)))
    azimuth = _hamming_transform(distance, *azimuth_band) * taper / np.i0(3.0)
    cells = np.arange(SPREAD_TAPS) - (SPREAD_TAPS // 2 - 1)
    spread = _spread(cells - np.arange(FRACTIONS + 1)[:, None] / FRACTIONS)
    window, range_power = _range_window(transform_length(samples), range_band)
    azimuth_power = float(np.mean(np.sum(azimuth[:-1] ** 2, axis=1)))
    return Response(
        azimuth.astype(np.float32),
        spread.astype(np.float32),
        window.astype(np.float32),
        range_power * azimuth_power,
    )


def _range_window(length: int, band: tuple[float, float]) -> tuple[Array, float]:
    bandwidth, coefficient = band
    frequency = scipy.fft.fftfreq(length)
    window = coefficient + (1.0 - coefficient) * np.cos(2.0 * np.pi * frequency / bandwidth)
    window *= np.abs(frequency) <= 0.5 * bandwidth
    window /= np.mean(window)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    reach = 0.5 * SPREAD_TAPS
    transform = reach * np.sum(
        weights * _spread(reach * nodes) * np.cos(np.pi * frequency[:, None] * reach * nodes),
        axis=1,
    )
    return window / transform, float(np.mean(window**2))


@njit(fastmath={"contract", "reassoc", "nsz"})
def add_targets(
    real: NDArray[np.float32],
    imaginary: NDArray[np.float32],
    burst: BurstSignal,
    response: Response,
    targets: Targets,
) -> None:
    """Add scatterers to the twofold range grid of a burst.

    Parameters
    ----------
    real, imaginary : (lines, 2 * transform length) float32
        Accumulated in place; column ``2 * (sample + PAD_SAMPLES)``.
    burst : BurstSignal
    response : Response
    targets : Targets
    """
    lines = real.shape[0]
    columns = real.shape[1]
    middle = 0.5 * lines
    samples = burst.carrier_rate_hz_s.shape[0]
    for i in range(targets.position_m.shape[0]):
        time, distance = solve_zero_doppler(
            burst.orbit,
            targets.position_m[i, 0],
            targets.position_m[i, 1],
            targets.position_m[i, 2],
            targets.guess_s[i],
            2,
        )
        line = (time - burst.first_line_s) / burst.line_interval_s
        nearest = int(np.floor(line + 0.5))
        start = nearest - AZIMUTH_TAPS // 2
        if start + AZIMUTH_TAPS <= 0 or start >= lines:
            continue
        distance += targets.path_m[i]
        sample = (distance - burst.first_sample_m) / burst.sample_spacing_m
        column = 2.0 * (sample + PAD_SAMPLES)
        cell = int(np.floor(column))
        first = cell - (SPREAD_TAPS // 2 - 1)
        if first < 0 or first + SPREAD_TAPS > columns:
            continue
        entry = min(max(int(sample + 0.5), 0), samples - 1)
        carrier = burst.line_interval_s * (
            burst.carrier_rate_hz_s[entry] * (line - middle) * burst.line_interval_s
            + burst.carrier_offset_hz[entry]
        )
        turns = carrier * (start - line) - 2.0 * distance / burst.wavelength_m
        turns -= np.floor(turns + 0.5)
        step = carrier - np.floor(carrier + 0.5)
        c = np.complex64(complex(np.cos(2.0 * np.pi * turns), np.sin(2.0 * np.pi * turns)))
        c *= targets.amplitude[i]
        turn = np.complex64(complex(np.cos(2.0 * np.pi * step), np.sin(2.0 * np.pi * step)))
        row = int((line - nearest + 0.5) * FRACTIONS + 0.5)
        fraction = int((column - cell) * FRACTIONS + 0.5)
        w = response.spread_taps[fraction]
        taps = (w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7])
        for tap in range(AZIMUTH_TAPS):
            at = start + tap
            if 0 <= at < lines:
                weight = response.azimuth_taps[row, tap]
                _add_row(real, at, first, c.real * weight, taps)
                _add_row(imaginary, at, first, c.imag * weight, taps)
            c *= turn


@njit(inline="always")
def _add_row(
    grid: NDArray[np.float32], line: int, first: int, value: Any, taps: tuple[Any, ...]
) -> None:
    # Written out: eight loads, eight products, eight stores. As a loop every store might alias the
    # next load, which costs a factor of two.
    row, c = np.uint64(line), np.uint64(first)
    c1, c2, c3, c4 = c + np.uint64(1), c + np.uint64(2), c + np.uint64(3), c + np.uint64(4)
    c5, c6, c7 = c + np.uint64(5), c + np.uint64(6), c + np.uint64(7)
    s0, s1 = grid[row, c] + value * taps[0], grid[row, c1] + value * taps[1]
    s2, s3 = grid[row, c2] + value * taps[2], grid[row, c3] + value * taps[3]
    s4, s5 = grid[row, c4] + value * taps[4], grid[row, c5] + value * taps[5]
    s6, s7 = grid[row, c6] + value * taps[6], grid[row, c7] + value * taps[7]
    grid[row, c], grid[row, c1], grid[row, c2], grid[row, c3] = s0, s1, s2, s3
    grid[row, c4], grid[row, c5], grid[row, c6], grid[row, c7] = s4, s5, s6, s7


def form_lines(
    real: NDArray[np.float32],
    imaginary: NDArray[np.float32],
    response: Response,
    samples: int,
) -> NDArray[np.complex64]:
    """Turn lines of the twofold grid into band-limited image lines.

    Parameters
    ----------
    real, imaginary : (lines, 2 * transform length) float32
        Sums of ``add_targets``.
    response : Response
    samples : int
        Samples wanted.

    Returns
    -------
    (lines, samples) complex64
    """
    length = real.shape[1] // 2
    grid = np.empty(real.shape, np.complex64)
    grid.real, grid.imag = real, imaginary
    spectrum = scipy.fft.fft(grid, axis=1, overwrite_x=True)
    band = np.empty((real.shape[0], length), np.complex64)
    half = length // 2
    band[:, :half] = spectrum[:, :half]
    band[:, half:] = spectrum[:, 2 * length - half :]
    band *= response.range_window
    image = scipy.fft.ifft(band, axis=1, overwrite_x=True)
    # scipy keeps single precision; its annotations do not say so.
    return np.asarray(image[:, PAD_SAMPLES : PAD_SAMPLES + samples], dtype=np.complex64)


def quantise(image: NDArray[np.complex64], valid: tuple[int, int, int, int]) -> NDArray[np.int16]:
    """Round to 16-bit integers and blank what the annotation calls invalid.

    Parameters
    ----------
    image : (lines, samples) complex64
        Digital numbers.
    valid : (first line, stop line, first sample, stop sample)

    Returns
    -------
    (lines, samples, 2) int16
        Real and imaginary parts; clipped at 32767.
    """
    result = np.zeros((*image.shape, 2), np.int16)
    rows, columns = slice(valid[0], valid[1]), slice(valid[2], valid[3])
    inner = image[rows, columns]
    for part, values in enumerate((inner.real, inner.imag)):
        result[rows, columns, part] = np.rint(np.clip(values, -32767.0, 32767.0))
    return result
