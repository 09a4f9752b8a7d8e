"""Series of offset and phase over a segment, against the polynomials they come from."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.carrier import CarrierModel, carrier_phase
from bperp.kernels.chebyshev import OffsetPolynomial, evaluate_points, offset_domain
from bperp.kernels.offset_powers import collapse_line, term_degrees, to_powers
from bperp.kernels.resample_rows import SEGMENT, STRIDE, expand_segment
from bperp.kernels.segment_series import (
    SERIES,
    collapse_carrier,
    expand_line,
    frame_of,
    is_large,
)

DOMAIN = offset_domain(1500, 21000, (0.0, 4000.0))
LINE, FIRST_SAMPLE, SEGMENTS = 411, 9600, 20
FLATTENING = (np.array([407.3, 1e-4, 84.0]), -0.21)


def draw(terms: int, seed: int, main: dict[tuple[int, int, int], float]) -> OffsetPolynomial:
    """Return an offset of which high degrees are small, as in real ones, plus given main terms."""
    degrees = term_degrees(terms)
    coefficients = np.random.default_rng(seed).normal(size=terms) * 10.0 ** -(1.0 + degrees.sum(1))
    for degree, value in main.items():
        coefficients[[tuple(row) for row in degrees].index(degree)] += value
    return OffsetPolynomial(DOMAIN, coefficients)


def steep_carrier() -> CarrierModel:
    """Return 2000 turns at the ends of the burst, with a tenth of them changing over the swath."""
    powers = np.zeros((3, 7))
    powers[0, :4] = 3.0, 40.0, -6.0, 1.0
    powers[1, :4] = -10.0, 50.0, 8.0, -2.0
    powers[2, :4] = 870.0, -40.0, 5.0, 1.0
    return CarrierModel(749.5, 2.0555563e-3, 10500.0, 10500.0, powers)


@pytest.mark.parametrize("terms", [60, 92, 129])
def test_phase_to_a_hundred_thousandth_of_a_radian(terms: int) -> None:
    azimuth = draw(terms, 1, {(0, 0, 0): 2.3, (0, 1, 0): 0.05, (0, 0, 1): 5e-3})
    across = draw(terms, 2, {(0, 0, 0): -7.4, (0, 1, 0): 2.2, (0, 0, 1): 0.28})
    constants, shift = FLATTENING
    carrier = steep_carrier()
    size = SEGMENTS * SEGMENT
    sample = FIRST_SAMPLE + np.arange(size)
    generator = np.random.default_rng(3)
    trend = 1500.0 + 1200.0 * np.sin(sample / 400.0)
    height = (trend + 40.0 * generator.normal(size=size)).astype(np.float32)

    powers = to_powers(azimuth), to_powers(across)
    rows = tuple(np.empty((item.powers.shape[0], 9)) for item in powers)
    for item, row in zip(powers, rows, strict=True):
        collapse_line(item, float(LINE), row)
    sweep = np.zeros((3, 9))
    collapse_carrier(carrier, LINE + 0.37, sweep)
    level = height[SEGMENT // 2 :: SEGMENT].copy()
    middle, series = np.empty(SEGMENTS), np.empty(SERIES * STRIDE, np.float32)
    phase = (carrier.center_sample, carrier.half_samples, shift, *constants)
    large = is_large(powers[0]) or is_large(powers[1])
    assert large == (terms == 129)
    expand_line(
        (*rows, sweep), (frame_of(powers[0]), frame_of(powers[1])), phase,
        (FIRST_SAMPLE + SEGMENT / 2, level), large, (middle, series),
    )  # fmt: skip
    shifts = np.empty((2, size), np.float32)
    bounds = [expand_segment(series, s, (height, level), shifts) for s in range(SEGMENTS)]

    levels = height.astype(np.float64)
    along = evaluate_points(azimuth, LINE, sample, levels)
    distance = evaluate_points(across, LINE, sample, levels)
    found = np.repeat(middle, SEGMENT) + shifts[0]
    assert np.abs(found - distance).max() < 5e-7
    turns = carrier_phase(carrier, LINE + 0.37 + along, sample + shift + distance)
    turns += constants[0] + constants[1] * sample + constants[2] * distance
    error = shifts[1] - turns
    error -= np.rint(error)
    assert 2.0 * np.pi * np.sqrt(np.mean(error**2)) < 1e-5
    assert 2.0 * np.pi * np.abs(error).max() < 5e-5
    relative = shifts[0].reshape(SEGMENTS, SEGMENT)
    np.testing.assert_allclose(bounds, np.stack([relative.min(1), relative.max(1)], 1), atol=1e-5)
