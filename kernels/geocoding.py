"""Images at fractional positions: the resampling step of geocoding.

A bilinear value comes from those of the four neighbours that are valid, with weights that sum to
one, if they hold at least half of the weight; beyond the edges nothing is valid. Complex images
are interpolated as complex numbers: unlike a wrapped phase these are continuous.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.orbit import FAST

__all__ = ["Resampling", "interpolate_image"]

Resampling = Literal["nearest", "bilinear"]
"""How values between pixels come about."""

_LEAST_WEIGHT = 0.5


@njit(fastmath=FAST)
def _edge_real(image: NDArray[np.float32], line: float, sample: float) -> float:
    """Interpolate where neighbours are missing or NaN."""
    top, left = math.floor(line), math.floor(sample)
    down, across = line - top, sample - left
    total = weights = 0.0
    for k in range(4):
        r, c = int(top) + (k >> 1), int(left) + (k & 1)
        if r < 0 or c < 0 or r >= image.shape[0] or c >= image.shape[1]:
            continue
        value = np.float64(image[r, c])
        if not math.isnan(value):
            weight = (down if k >> 1 else 1.0 - down) * (across if k & 1 else 1.0 - across)
            total += weight * value
            weights += weight
    return total / weights if weights >= _LEAST_WEIGHT else math.nan


@njit(fastmath=FAST)
def _edge_complex(image: NDArray[np.complex64], line: float, sample: float) -> complex:
    """Interpolate where neighbours are missing, NaN or zero."""
    top, left = math.floor(line), math.floor(sample)
    down, across = line - top, sample - left
    real = imaginary = weights = 0.0
    for k in range(4):
        r, c = int(top) + (k >> 1), int(left) + (k & 1)
        if r < 0 or c < 0 or r >= image.shape[0] or c >= image.shape[1]:
            continue
        value = image[r, c]
        known = not (math.isnan(value.real) or math.isnan(value.imag))
        if known and (value.real != 0.0 or value.imag != 0.0):
            weight = (down if k >> 1 else 1.0 - down) * (across if k & 1 else 1.0 - across)
            real += weight * value.real
            imaginary += weight * value.imag
            weights += weight
    if weights >= _LEAST_WEIGHT:
        return complex(real / weights, imaginary / weights)
    return complex(math.nan, math.nan)


@njit(fastmath=FAST)
def _bilinear_real(
    image: NDArray[np.float32],
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    bottom, right = np.float64(image.shape[0] - 1), np.float64(image.shape[1] - 1)
    for i in range(np.uint64(line.size)):
        row, column = line[i], sample[i]
        value = math.nan
        if row >= 0.0 and column >= 0.0 and row < bottom and column < right:
            r, c = np.uint64(row), np.uint64(column)
            under, beside = r + np.uint64(1), c + np.uint64(1)
            down, across = row - np.float64(r), column - np.float64(c)
            upper, lower = np.float64(image[r, c]), np.float64(image[under, c])
            upper += across * (np.float64(image[r, beside]) - upper)
            lower += across * (np.float64(image[under, beside]) - lower)
            value = upper + down * (lower - upper)
        if math.isnan(value) and abs(row) < 1e15 and abs(column) < 1e15:
            value = _edge_real(image, row, column)
        out[i] = value


@njit(fastmath=FAST)
def _bilinear_complex(
    image: NDArray[np.complex64],
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    out: NDArray[np.complex64],
) -> None:
    bottom, right = np.float64(image.shape[0] - 1), np.float64(image.shape[1] - 1)
    for i in range(np.uint64(line.size)):
        row, column = line[i], sample[i]
        real = imaginary = math.nan
        if row >= 0.0 and column >= 0.0 and row < bottom and column < right:
            r, c = np.uint64(row), np.uint64(column)
            under, beside = r + np.uint64(1), c + np.uint64(1)
            a, b, d, e = image[r, c], image[r, beside], image[under, c], image[under, beside]
            known = (a.real != 0.0) | (a.imag != 0.0)
            known &= (b.real != 0.0) | (b.imag != 0.0)
            known &= (d.real != 0.0) | (d.imag != 0.0)
            known &= (e.real != 0.0) | (e.imag != 0.0)
            if known:
                down, across = row - np.float64(r), column - np.float64(c)
                upper = a.real + across * (b.real - a.real)
                lower = d.real + across * (e.real - d.real)
                real = upper + down * (lower - upper)
                upper = a.imag + across * (b.imag - a.imag)
                lower = d.imag + across * (e.imag - d.imag)
                imaginary = upper + down * (lower - upper)
        lost = math.isnan(real) or math.isnan(imaginary)
        if lost and abs(row) < 1e15 and abs(column) < 1e15:
            out[i] = _edge_complex(image, row, column)
        else:
            out[i] = complex(real, imaginary)


@njit
def _nearest(
    image: NDArray[Any],
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    out: NDArray[Any],
) -> None:
    """Set the values of the nearest pixels; ``out`` keeps what it holds beyond the edges."""
    lines, samples = np.float64(image.shape[0]), np.float64(image.shape[1])
    for i in range(np.uint64(line.size)):
        row, column = np.floor(line[i] + 0.5), np.floor(sample[i] + 0.5)
        if row >= 0.0 and column >= 0.0 and row < lines and column < samples:
            out[i] = image[np.uint64(row), np.uint64(column)]


def interpolate_image(
    image: NDArray[Any],
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    method: Resampling = "bilinear",
) -> NDArray[Any]:
    """Interpolate an image at fractional positions.

    Parameters
    ----------
    image : ndarray (lines, samples), float32, complex64 or an integer type
        Invalid pixels are NaN; complex ones also zero.
    line, sample : ndarray, any shape, float64
        Positions in pixels; whole numbers are the centres of pixels. NaN = nowhere.
    method : {"bilinear", "nearest"}
        Integer images (masks, labels) know the nearest pixel only.

    Returns
    -------
    ndarray, shape of ``line``, dtype of ``image``
        NaN (integers: 0) where there is no value: in ``bilinear`` where valid neighbours hold
        less than half of the weight, in ``nearest`` where no pixel lies within half a pixel.
        Nearest values are those of the image, ties going to the higher index.

    Raises
    ------
    TypeError
        If the image has another dtype, or an integer image is to be interpolated.
    ValueError
        If the method is unknown, the image is not 2-D or the positions differ in shape.

    Notes
    -----
    Of four valid neighbours the value is the usual ``(1-d)(1-a) z00 + (1-d) a z01 + d (1-a) z10 +
    d a z11``, computed in float64 as nested differences, which keeps a constant constant to the
    last bit.
    """
    kind = image.dtype.kind
    if image.dtype not in (np.float32, np.complex64) and kind not in "iub":
        raise TypeError(f"image must be float32, complex64 or integer, instead got {image.dtype}")
    if method not in ("nearest", "bilinear"):
        raise ValueError(f"method must be 'nearest' or 'bilinear', instead got {method!r}")
    if method == "bilinear" and kind in "iub":
        raise TypeError(f"method must be 'nearest' for an image of {image.dtype}")
    if image.ndim != 2 or line.shape != sample.shape:
        raise ValueError(
            "image must be 2-D and line and sample of one shape, instead got "
            f"{image.shape}, {line.shape} and {sample.shape}"
        )
    rows = np.ascontiguousarray(line, dtype=np.float64).reshape(-1)
    columns = np.ascontiguousarray(sample, dtype=np.float64).reshape(-1)
    pixels = np.ascontiguousarray(image)
    fill = 0 if kind in "iub" else complex(np.nan, np.nan) if kind == "c" else np.nan
    if method == "nearest":
        out = np.full(rows.size, fill, image.dtype)
        _nearest(pixels, rows, columns, out)
    else:
        out = np.empty(rows.size, image.dtype)
        (_bilinear_complex if kind == "c" else _bilinear_real)(pixels, rows, columns, out)
    return out.reshape(line.shape)
