"""Survey of digital numbers: how many pixels are empty or saturated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit

__all__ = ["NumberSurvey", "survey_numbers"]


class NumberSurvey(NamedTuple):
    """What ``survey_numbers`` counts.

    ``zero_count`` pixels are 0 + 0j, ``saturated_count`` real or imaginary parts have a magnitude
    of 32767 or more.
    """

    zero_count: int
    saturated_count: int


@njit
def _survey(
    pixels: NDArray[np.int32], parts: NDArray[np.int16], valid: tuple[int, int, int, int]
) -> tuple[int, int]:
    top, bottom, left, right = valid
    zeros = saturated = 0
    for line in range(np.uint64(top), np.uint64(bottom)):
        # A pixel seen as one number of 32 bits is zero when both parts are.
        for i in range(np.uint64(left), np.uint64(right)):
            zeros += pixels[line, i] == 0
        for i in range(np.uint64(2 * left), np.uint64(2 * right)):
            saturated += (parts[line, i] >= 32767) | (parts[line, i] <= -32767)
    return zeros, saturated


def survey_numbers(numbers: NDArray[np.int16], valid: tuple[int, int, int, int]) -> NumberSurvey:
    """Count empty and saturated digital numbers in one pass, without temporaries.

    Parameters
    ----------
    numbers : ndarray (lines, samples, 2), int16
        Real and imaginary parts of a burst.
    valid : tuple of 4 int
        Valid rectangle ``(first line, stop line, first sample, stop sample)``, within the burst;
        may be empty.

    Returns
    -------
    NumberSurvey
        Pixels of the rectangle that are 0 + 0j, and real or imaginary parts (each counts) that are
        at least 32767 in magnitude.

    Raises
    ------
    ValueError
        If the numbers are no pairs of int16, or the rectangle exceeds them.
    """
    if numbers.dtype != np.int16 or numbers.ndim != 3 or numbers.shape[2] != 2:
        raise ValueError(
            "numbers must be int16 (lines, samples, 2), "
            f"instead got {numbers.dtype} {numbers.shape}"
        )
    lines, samples, _ = numbers.shape
    top, bottom, left, right = valid
    if not (0 <= top <= bottom <= lines and 0 <= left <= right <= samples):
        raise ValueError(f"valid must lie within {(lines, samples)}, instead got {valid}")
    whole = np.ascontiguousarray(numbers).reshape(lines, 2 * samples)
    zeros, saturated = _survey(whole.view(np.int32), whole, valid)
    return NumberSurvey(int(zeros), int(saturated))
