"""Rounding of complex samples to pairs of 16-bit integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.orbit import FAST

__all__ = ["quantise_samples"]

_LEAST, _MOST = np.float32(-32768.0), np.float32(32767.0)
# Beyond the range of int16 but not of the rounding: values are kept within before that.
_FAR = np.float32(65536.0)
# Adding 1.5 * 2**23 leaves a float32 no room for a fraction: the sum is rounded, half to even.
_NO_FRACTION = np.float32(12582912.0)


@njit(fastmath=FAST)
def _quantise(values: NDArray[np.float32], out: NDArray[np.int16]) -> int:
    clipped = 0
    for i in range(np.uint64(values.size)):
        known = values[i] == values[i]
        value = values[i] if known else np.float32(0.0)
        value = min(max(value, -_FAR), _FAR)
        rounded = (value + _NO_FRACTION) - _NO_FRACTION
        kept = min(max(rounded, _LEAST), _MOST)
        clipped += (kept != rounded) | (not known)
        out[i] = np.int16(np.int32(kept))
    return clipped


def quantise_samples(samples: NDArray[np.complex64], out: NDArray[np.int16]) -> int:
    """Round complex samples to int16 in one pass, without temporaries.

    Parameters
    ----------
    samples : ndarray (lines, samples), complex64
        Samples in digital numbers; copied if they are not contiguous.
    out : ndarray (lines, samples, 2), int16, C-contiguous
        Receives real and imaginary parts, rounded half to even and kept within -32768..32767; a
        part that is NaN becomes 0.

    Returns
    -------
    int
        How many of the real and imaginary parts were clipped or NaN.

    Raises
    ------
    ValueError
        If types or shapes disagree, or ``out`` is not contiguous.
    """
    if samples.dtype != np.complex64 or out.dtype != np.int16:
        raise ValueError(
            f"samples must be complex64 and out int16, instead got {samples.dtype}, {out.dtype}"
        )
    if samples.ndim != 2 or out.shape != (*samples.shape, 2):
        raise ValueError(f"out must have the shape {(*samples.shape, 2)}, instead got {out.shape}")
    if not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous, instead got strides {out.strides}")
    values = np.ascontiguousarray(samples).reshape(-1).view(np.float32)
    return int(_quantise(values, out.reshape(-1)))
