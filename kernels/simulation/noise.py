"""What disturbs the phase: decorrelation of the ground, the atmosphere, the receiver.

Everything is drawn from generators keyed by the thing drawn (``generator``), never from one running
stream, so that the result depends neither on the number of workers nor on how many dates follow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bperp.kernels._jit import njit

Array = NDArray[np.float64]
Complex = NDArray[np.complex64]

DAYS_PER_YEAR = 365.25


class Decorrelation(NamedTuple):
    """How the reflectivity of the distributed ground changes between dates."""

    initial: float
    """Coherence towards zero time, 0 to 1."""
    long_term: float
    """Coherence that never fades, 0 to ``initial``."""
    decay_days: float
    """Time constant of the rest."""
    seasonal: float
    """Loss of coherent power in the worst season, 0 to 1."""
    worst_day_of_year: float
    signal_to_noise: float
    """Ground power over thermal noise power."""


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return the random generator of one keyed quantity."""
    entropy = [seed, *(int(k) & 0xFFFFFFFF for k in key)]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))


def coherent_fraction(model: Decorrelation, days: Array, days_of_year: Array) -> Array:
    """Return the share of the power of each date that may be coherent with other dates.

    Parameters
    ----------
    model : Decorrelation
    days, days_of_year : (dates,) float64
        Days since any origin, and day of the year.

    Returns
    -------
    (dates,) float64
        Between 0 and 1.
    """
    angle = 2.0 * np.pi * (days_of_year - model.worst_day_of_year) / DAYS_PER_YEAR
    season = 1.0 - model.seasonal * 0.5 * (1.0 + np.cos(angle))
    result: Array = np.broadcast_to(season, days.shape) * (
        model.signal_to_noise / (1.0 + model.signal_to_noise)
    )
    return result


def coherence_matrix(model: Decorrelation, days: Array, days_of_year: Array) -> Array:
    """Return the coherence between all dates that the simulated field has by construction.

    Parameters
    ----------
    model : Decorrelation
    days, days_of_year : (dates,) float64

    Returns
    -------
    (dates, dates) float64
        ``sqrt(q_i q_j) (g + (g0 - g) exp(-|t_i - t_j| / tau))`` and ones on the diagonal.
    """
    lag = np.abs(days[:, None] - days[None, :])
    fading = (model.initial - model.long_term) * np.exp(-lag / model.decay_days)
    share = np.sqrt(coherent_fraction(model, days, days_of_year))
    matrix = share[:, None] * share[None, :] * (model.long_term + fading)
    np.fill_diagonal(matrix, 1.0)
    return matrix


@njit
def evolve_field(
    fading: Complex,
    lasting: Complex,
    innovation: NDArray[np.float32],
    weights: Array,
    amplitude: Complex,
) -> None:
    """Take the random reflectivity of the ground to the next date.

    ``x <- r x + sqrt(1 - r^2) w``; ``amplitude = a lasting + b x + c w'``.

    Parameters
    ----------
    fading : (n,) complex64
        First-order Markov part, updated in place.
    lasting : (n,) complex64
        Part that stays.
    innovation : (n, 4) float32
        Independent standard normal numbers of this date.
    weights : (5,) float64
        ``r``, ``sqrt(1 - r^2)``, ``a``, ``b``, ``c``; the last three include the scale.
    amplitude : (n,) complex64
        Result.
    """
    half = np.float32(np.sqrt(0.5))
    keep, renew = np.float32(weights[0]), np.float32(weights[1]) * half
    a, b, c = np.float32(weights[2]), np.float32(weights[3]), np.float32(weights[4]) * half
    for i in range(fading.shape[0]):
        real = keep * fading[i].real + renew * innovation[i, 0]
        imaginary = keep * fading[i].imag + renew * innovation[i, 1]
        fading[i] = np.complex64(complex(real, imaginary))
        amplitude[i] = np.complex64(
            complex(
                a * lasting[i].real + b * real + c * innovation[i, 2],
                a * lasting[i].imag + b * imaginary + c * innovation[i, 3],
            )
        )


def field_weights(model: Decorrelation, days: Array, days_of_year: Array, scale: float) -> Array:
    """Return the weights of ``evolve_field`` for every date, ``(dates, 5)`` float64.

    ``scale`` is the standard deviation of a scatterer's complex amplitude. The first date keeps
    nothing: its Markov part is drawn afresh.
    """
    share = coherent_fraction(model, days, days_of_year)
    keep = np.zeros(len(days))
    keep[1:] = np.exp(-np.diff(days) / model.decay_days)
    return np.stack(
        [
            keep,
            np.sqrt(1.0 - keep**2),
            scale * np.sqrt(share * model.long_term),
            scale * np.sqrt(share * (model.initial - model.long_term)),
            scale * np.sqrt(1.0 - share * model.initial),
        ],
        axis=1,
    )


def power_law_surface(
    shape: tuple[int, int],
    spacing_m: tuple[float, float],
    exponent: float,
    smooth_m: float,
    random: np.random.Generator,
) -> Array:
    """Draw a random surface with a power-law spectrum.

    Parameters
    ----------
    shape : (int, int)
    spacing_m : (float, float)
        Distance of rows and of columns.
    exponent : float
        The two-dimensional power spectrum falls as ``k ** -exponent``: 8/3 for turbulent delay,
        about 4 for smooth hills.
    smooth_m : float
        Standard deviation of a Gaussian blur, 0 for none.
    random : numpy.random.Generator

    Returns
    -------
    shape float64
        Zero mean, unit standard deviation.
    """
    # Twice the size, so that opposite edges of the part that is kept do not belong together.
    padded = tuple(scipy.fft.next_fast_len(2 * n) for n in shape)
    rows = scipy.fft.fftfreq(padded[0], spacing_m[0])[:, None]
    columns = scipy.fft.rfftfreq(padded[1], spacing_m[1])[None, :]
    wavenumber = np.hypot(rows, columns)
    wavenumber[0, 0] = np.inf
    gain = wavenumber ** (-0.5 * exponent)
    wavenumber[0, 0] = 0.0
    gain *= np.exp(-2.0 * (np.pi * smooth_m * wavenumber) ** 2)
    spectrum = scipy.fft.rfft2(random.standard_normal(padded)) * gain
    surface = scipy.fft.irfft2(spectrum, s=padded)[: shape[0], : shape[1]]
    surface -= surface.mean()
    result: Array = surface / surface.std()
    return result
