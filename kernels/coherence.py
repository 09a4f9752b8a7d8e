"""Coherence in a sliding box, and what the sample coherence says about the true one.

Running sums would be faster for large boxes, but one bright target leaves its rounding error behind
for the rest of the image, and bytes then depend on where a tile begins. Here every sum is formed
anew from partial sums over 1, 4, 16, ... lines and then samples (a box of 5 x 15 takes 7 additions
in all, each of up to four terms), which the neighbouring boxes share: a result depends on nothing
but the box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.window_sums import (
    Interferogram,
    Rows,
    allocate,
    as_floats,
    check_images,
    finish,
    minimum_count,
    pixel,
)

__all__ = ["debias_coherence", "effective_looks", "sliding_coherence"]

STRIP = 2048
"""Samples worked on at a time: the lines of partial sums stay in the second-level cache."""

Terms = NDArray[np.float32]
Places = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_ONE = np.uint64(1)
_TWO = np.uint64(2)


def sliding_coherence(
    reference: NDArray[np.complex64],
    secondary: NDArray[np.complex64],
    azimuth_window: int,
    range_window: int,
    minimum_valid_fraction: float = 0.5,
    invalid_coherence: float = float("nan"),
    out: Interferogram | None = None,
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
    out : Interferogram, optional
        Arrays to write into, of the type and shape of the result: fresh memory costs a quarter of
        the time.

    Returns
    -------
    Interferogram
        Arrays of the shape of the input; `out` if it was given.

    Raises
    ------
    ValueError
        If shapes, windows, the fraction or `out` make no sense.
    """
    check_images(reference, secondary)
    if azimuth_window % 2 == 0 or range_window % 2 == 0:
        raise ValueError(f"windows must be odd, instead got {azimuth_window} x {range_window}")
    result = allocate((), reference.shape, 1, 1, out)
    threshold = minimum_count(azimuth_window * range_window, minimum_valid_fraction)
    _slide(
        as_floats(reference),
        as_floats(secondary),
        (azimuth_window, range_window),
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
def _terms(r: Rows, s: Rows, place: tuple[int, int], row: NDArray[np.float32]) -> None:
    # The five terms of a line, one after another in a row.
    left, width = place
    n = np.uint64(r.size) // _TWO
    re, im, pr = row[left : left + n], row[width + left :], row[2 * width + left :]
    ps, count = row[3 * width + left :], row[4 * width + left :]
    for i in range(n):
        j = _TWO * np.uint64(i)
        x, y, p, q, v = pixel(r[j], r[j + _ONE], s[j], s[j + _ONE])
        re[i], im[i], pr[i], ps[i], count[i] = x, y, p, q, v


# Windows are odd: the first sum to be put down has one or three terms, partial sums have four.


@njit
def _put_sum(source: Terms, places: Places, count: int, target: Terms) -> None:
    """Put the sum of one, three or four runs of `source` into `target`."""
    a, b, c, d = places
    n = np.uint64(target.size)
    if count == 4:
        for i in range(n):
            target[i] = (source[a + i] + source[b + i]) + (source[c + i] + source[d + i])
    elif count == 3:
        for i in range(n):
            target[i] = (source[a + i] + source[b + i]) + source[c + i]
    else:
        for i in range(n):
            target[i] = source[a + i]


@njit
def _add_sum(source: Terms, places: Places, count: int, target: Terms) -> None:
    """Add one, two or three runs of `source` to `target`."""
    a, b, c, _ = places
    n = np.uint64(target.size)
    if count == 3:
        for i in range(n):
            target[i] += (source[a + i] + source[b + i]) + source[c + i]
    elif count == 2:
        for i in range(n):
            target[i] += source[a + i] + source[b + i]
    else:
        for i in range(n):
            target[i] += source[a + i]


@njit
def _sum_lines(ring: Terms, line: int, window: int, size: int, total: NDArray[np.float32]) -> None:
    """Sum the last `window` lines; the terms of `line` are in the ring."""
    # Sums over 1, 4, 16, ... lines, each kept for as many lines as later sums need.
    width, offset, base = 1, 0, 0
    while True:
        rows = _ring_rows(window, width)
        digit = (window // width) % 4
        if digit:
            places = _places(base, line - offset, width, rows, size)
            if offset:
                _add_sum(ring, places, digit, total)
            else:
                _put_sum(ring, places, digit, total)
            offset += digit * width
        if 4 * width > window:
            return
        above = base + rows
        target = (above + line % _ring_rows(window, 4 * width)) * size
        places = _places(base, line, width, rows, size)
        _put_sum(ring, places, 4, ring[target : target + size])
        base, width = above, 4 * width


@njit(inline="always")
def _places(base: int, line: int, width: int, rows: int, size: int) -> Places:
    return (
        np.uint64((base + line % rows) * size),
        np.uint64((base + (line - width) % rows) * size),
        np.uint64((base + (line - 2 * width) % rows) * size),
        np.uint64((base + (line - 3 * width) % rows) * size),
    )


@njit
def _ring_rows(window: int, width: int) -> int:
    """Return how many lines of sums over `width` lines are needed later."""
    if 4 * width <= window:
        return 3 * width + 1
    return window % width + (window // width - 1) * width + 1


@njit
def _sum_samples(
    total: NDArray[np.float32], window: int, work: NDArray[np.float32], sums: NDArray[np.float32]
) -> None:
    """Sum `window` neighbours, all five quantities in one run."""
    source, length = total, total.size
    width, offset, parity = 1, 0, 0
    while True:
        digit = (window // width) % 4
        if digit:
            o, w = np.uint64(offset), np.uint64(width)
            n = length - offset - (digit - 1) * width
            places = (o, o + w, o + w + w, o)
            if offset:
                _add_sum(source, places, digit, sums[:n])
            else:
                _put_sum(source, places, digit, sums[:n])
            offset += digit * width
        if 4 * width > window:
            return
        length -= 3 * width
        w = np.uint64(width)
        _put_sum(source, (np.uint64(0), w, w + w, w + w + w), 4, work[parity, :length])
        source, parity, width = work[parity], 1 - parity, 4 * width


@njit
def _slide(
    r: Rows,
    s: Rows,
    windows: tuple[int, int],
    rule: tuple[float, float],
    result: Interferogram,
) -> None:
    lines, samples = result.coherence.shape
    half = (windows[0] // 2, windows[1] // 2)
    strip = max(STRIP, 16 * half[1])
    width = strip + 2 * half[1]
    size = 5 * width
    rows, level = 0, 1
    while level <= windows[0]:
        rows += _ring_rows(windows[0], level)
        level *= 4
    ring = np.empty(rows * size, np.float32)
    rows = _ring_rows(windows[0], 1)
    total, sums = np.zeros(size, np.float32), np.zeros(size, np.float32)
    work = np.zeros((2, size), np.float32)
    for left in range(0, samples, strip):
        ring[:] = np.float32(0.0)
        right = min(samples, left + strip)
        first, stop = max(0, left - half[1]), min(samples, right + half[1])
        place = (first - (left - half[1]), width)
        for line in range(lines + half[0]):
            row = ring[(line % rows) * size : (line % rows + 1) * size]
            if line < lines:
                _terms(r[line, 2 * first : 2 * stop], s[line, 2 * first : 2 * stop], place, row)
            else:
                row[:] = np.float32(0.0)  # beyond the image
            _sum_lines(ring, line, windows[0], size, total)
            if line < half[0]:
                continue
            _sum_samples(total, windows[1], work, sums)
            out = line - half[0]
            finish(
                sums.reshape(5, width),
                rule,
                result.interferogram[out, left:right],
                result.coherence[out, left:right],
                result.valid_count[out, left:right],
            )
