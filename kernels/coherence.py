"""Coherence in a sliding box, and what the sample coherence says about the true one.

Running sums add the line and the column that enter and subtract those that leave. In float32 one
bright target would leave its rounding error behind for the rest of the image; here products are
rounded to float32 when they enter *and* when they leave and sums are float64, which makes the sums
of 16-bit samples exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.window_sums import (
    STRIP,
    Interferogram,
    Rows,
    Sums,
    allocate,
    as_floats,
    check_images,
    finish,
    minimum_count,
    pixel,
)

__all__ = ["debias_coherence", "effective_looks", "sliding_coherence"]

_ONE = np.uint64(1)
_TWO = np.uint64(2)


def sliding_coherence(
    reference: NDArray[np.complex64],
    secondary: NDArray[np.complex64],
    azimuth_window: int,
    range_window: int,
    minimum_valid_fraction: float = 0.5,
    invalid_coherence: float = float("nan"),
) -> Interferogram:
    """Estimate coherence and the averaged interferogram in a box around every pixel.

    Parameters
    ----------
    reference, secondary : ndarray
        complex64 ``(azimuth, range)``; 0 + 0j and NaN mark missing pixels.
    azimuth_window, range_window : int
        Odd edges of the box. At the image border the box is cut, so a tile needs a halo of half a
        box to be independent of tiling.
    minimum_valid_fraction : float, default 0.5
        Share of the *full* box that must be valid.
    invalid_coherence : float, default NaN
        Coherence to write where it is not.

    Returns
    -------
    Interferogram
        Arrays of the shape of the input.

    Raises
    ------
    ValueError
        If shapes, windows or the fraction make no sense.
    """
    check_images(reference, secondary)
    if azimuth_window % 2 == 0 or range_window % 2 == 0:
        raise ValueError(f"windows must be odd, instead got {azimuth_window} x {range_window}")
    result = allocate((), reference.shape, 1, 1)
    threshold = minimum_count(azimuth_window * range_window, minimum_valid_fraction)
    _slide(
        as_floats(reference),
        as_floats(secondary),
        (azimuth_window // 2, range_window // 2),
        (threshold, invalid_coherence),
        result,
    )
    return result


def effective_looks(
    azimuth_looks: int,
    range_looks: int,
    azimuth_oversampling: float,
    range_oversampling: float,
    azimuth_window_coefficient: float = 1.0,
    range_window_coefficient: float = 1.0,
) -> float:
    """Return the number of independent looks in a window of correlated samples.

    Parameters
    ----------
    azimuth_looks, range_looks : int
        Window in lines and samples.
    azimuth_oversampling, range_oversampling : float
        Sampling rate over processed bandwidth, at least 1 (IW1: about 1.49 and 1.14).
    azimuth_window_coefficient, range_window_coefficient : float, default 1
        Hamming coefficient of the spectral weight, (0.5, 1]; 1 is a rectangular spectrum.

    Returns
    -------
    float
        At least 1, at most ``azimuth_looks * range_looks``.

    Raises
    ------
    ValueError
        If looks or oversampling are below 1 or a coefficient is outside (0.5, 1].

    Notes
    -----
    Along each axis ``n_eff = n / (1 + 2 sum_k (1 - k/n) rho(k)^2)``, with the correlation ``rho``
    of samples ``k`` apart: the Fourier transform of the squared spectral weight
    ``(a + (1-a) cos(2 pi f / B))^2``. It is the ratio mean^2 / variance of an averaged intensity.
    """
    azimuth = _axis_looks(azimuth_looks, azimuth_oversampling, azimuth_window_coefficient)
    return azimuth * _axis_looks(range_looks, range_oversampling, range_window_coefficient)


def debias_coherence(
    coherence: NDArray[np.float32], effective_looks: float | NDArray[np.float32]
) -> NDArray[np.float32]:
    """Remove the upward bias of the sample coherence to first order in 1 / looks.

    Parameters
    ----------
    coherence : ndarray
        float32, any shape, sample coherence in [0, 1]; NaN stays NaN.
    effective_looks : float or ndarray
        Independent looks (broadcast against `coherence`), at least 1.

    Returns
    -------
    ndarray
        float32 in [0, 1]; 0 where the sample is what zero coherence would give, or less.

    Raises
    ------
    ValueError
        If `effective_looks` is below 1.

    Notes
    -----
    Solves ``E[c^2] = g^2 + (1 - g^2)^2 / L`` for ``g``. The relation is exact at g = 0
    (``E[c^2] = 1 / L``) and g = 1 and leaves terms of order 1 / L^2 in between [1]_.
    Noise around zero is cut at zero, so an *average* of debiased values keeps some bias there.

    References
    ----------
    .. [1] Touzi, Lopes, Bruniquel, Vachon, "Coherence estimation for SAR imagery", IEEE TGRS 37,
       1999.
    """
    looks = np.asarray(effective_looks, dtype=np.float64)
    if np.any(looks < 1.0):
        raise ValueError(f"effective_looks must be at least 1, instead got {looks.min()}")
    square = np.square(coherence, dtype=np.float64)
    # u^2 + (L - 2) u + 1 - L c^2 = 0 in u = g^2; the discriminant is negative only below the bias.
    half = 0.5 * (looks - 2.0)
    root = np.sqrt(np.maximum(half * half - 1.0 + looks * square, 0.0)) - half
    root = np.where(looks * square <= 1.0, 0.0, root)
    return np.sqrt(np.clip(root, 0.0, 1.0)).astype(np.float32)


def _axis_looks(looks: int, oversampling: float, coefficient: float) -> float:
    if looks < 1 or oversampling < 1.0 or not 0.5 < coefficient <= 1.0:
        raise ValueError(
            "looks and oversampling must be at least 1 and the window coefficient in (0.5, 1], "
            f"instead got {looks}, {oversampling} and {coefficient}"
        )
    lag = np.arange(1, looks)
    delay = lag / oversampling
    a, b = coefficient, 1.0 - coefficient
    centre, first, second = a * a + 0.5 * b * b, a * b, 0.25 * b * b
    correlation = centre * np.sinc(delay)
    correlation += first * (np.sinc(delay - 1.0) + np.sinc(delay + 1.0))
    correlation += second * (np.sinc(delay - 2.0) + np.sinc(delay + 2.0))
    correlation /= centre
    return float(looks / (1.0 + 2.0 * np.sum((1.0 - lag / looks) * correlation**2)))


@njit
def _slide_lines(r: Rows, s: Rows, r_old: Rows, s_old: Rows, columns: Sums, left: int) -> None:
    # Products are rounded to float32 when they enter and when they leave, so they cancel exactly.
    right = left + r.size // 2
    re, im, pr = columns[0, left:right], columns[1, left:right], columns[2, left:right]
    ps, n = columns[3, left:right], columns[4, left:right]
    for i in range(np.uint64(r.size) // _TWO):
        j = _TWO * np.uint64(i)
        x, y, p, q, v = pixel(r[j], r[j + _ONE], s[j], s[j + _ONE])
        x2, y2, p2, q2, v2 = pixel(r_old[j], r_old[j + _ONE], s_old[j], s_old[j + _ONE])
        re[i] += np.float64(x) - np.float64(x2)
        im[i] += np.float64(y) - np.float64(y2)
        pr[i] += np.float64(p) - np.float64(p2)
        ps[i] += np.float64(q) - np.float64(q2)
        n[i] += np.float64(v - v2)


@njit
def _slide_columns(columns: Sums, prefix: Sums, span: np.uint64, sums: Sums) -> None:
    # One addition per sample in sequence; the differences run in vector registers.
    re, im, pr, ps, n = columns[0], columns[1], columns[2], columns[3], columns[4]
    sum_re, sum_im, sum_pr, sum_ps, sum_n = prefix[0], prefix[1], prefix[2], prefix[3], prefix[4]
    a = b = c = d = e = 0.0
    for i in range(np.uint64(columns.shape[1])):
        j = np.uint64(i)
        a += re[j]
        b += im[j]
        c += pr[j]
        d += ps[j]
        e += n[j]
        k = j + _ONE
        sum_re[k], sum_im[k], sum_pr[k], sum_ps[k], sum_n[k] = a, b, c, d, e
    for row in range(5):
        total, out = prefix[row], sums[row]
        for i in range(np.uint64(sums.shape[1])):
            out[i] = total[np.uint64(i) + span] - total[i]


@njit
def _slide(
    r: Rows,
    s: Rows,
    half: tuple[int, int],
    rule: tuple[float, float],
    result: Interferogram,
) -> None:
    width = result.coherence.shape[1]
    strip = max(STRIP // 2, 16 * half[1])
    columns = np.empty((5, strip + 2 * half[1]), np.float64)
    prefix = np.zeros((5, strip + 2 * half[1] + 1), np.float64)
    sums = np.empty((5, strip), np.float64)
    for left in range(0, width, strip):
        columns[:] = 0.0
        edges = (left, min(width, left + strip))
        _slide_strip(r, s, edges, half, rule, (columns, prefix, sums), result)


@njit
def _slide_strip(
    r: Rows,
    s: Rows,
    edges: tuple[int, int],
    half: tuple[int, int],
    rule: tuple[float, float],
    work: tuple[Sums, Sums, Sums],
    result: Interferogram,
) -> None:
    columns, prefix, sums = work
    lines, width = result.coherence.shape
    left, right = edges
    first, stop = max(0, left - half[1]), min(width, right + half[1])
    c0, c1 = 2 * first, 2 * stop
    nothing = np.zeros(c1 - c0, np.float32)
    for line in range(-half[0], lines):
        new, old = line + half[0], line - half[0] - 1
        r_new, s_new = (r[new, c0:c1], s[new, c0:c1]) if new < lines else (nothing, nothing)
        r_old, s_old = (r[old, c0:c1], s[old, c0:c1]) if old >= 0 else (nothing, nothing)
        _slide_lines(r_new, s_new, r_old, s_old, columns, first - (left - half[1]))
        if line < 0:
            continue
        _slide_columns(columns, prefix, np.uint64(2 * half[1] + 1), sums)
        finish(
            sums,
            rule,
            result.interferogram[line, left:right],
            result.coherence[line, left:right],
            result.valid_count[line, left:right],
        )
