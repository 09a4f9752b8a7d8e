"""Digital numbers of a burst: survey on the way in."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.digital_numbers import survey_numbers


def test_survey_counts_what_numpy_counts() -> None:
    generator = np.random.default_rng(3)
    numbers = generator.integers(-3, 4, (40, 70, 2)).astype(np.int16)
    numbers[5, 6] = 32767, -32768
    numbers[7, 8, 1] = -32767
    numbers[0, 0] = 32767, 32767
    valid = (2, 31, 3, 66)
    inside = numbers[2:31, 3:66].astype(np.int32)
    found = survey_numbers(numbers, valid)
    assert found.zero_count == int((~inside.any(axis=2)).sum()) > 0
    assert found.saturated_count == int((np.abs(inside) >= 32767).sum()) == 3
    assert survey_numbers(numbers, (4, 4, 0, 70)) == (0, 0)


def test_survey_refuses_what_lies_outside() -> None:
    numbers = np.zeros((4, 5, 2), np.int16)
    with pytest.raises(ValueError, match="within"):
        survey_numbers(numbers, (0, 5, 0, 5))
    with pytest.raises(ValueError, match="instead got"):
        survey_numbers(numbers[..., 0], (0, 1, 0, 1))
