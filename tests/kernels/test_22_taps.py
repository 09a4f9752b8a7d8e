"""Interpolation taps: partition of unity, symmetry, and noise on the real spectra."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.taps import FRACTIONS, TAPS, choose_taps, design_taps, expected_noise

SAMPLING = 64.345e6
IW1, IW2, IW3 = 56.5e6, 48.3e6, 42.79e6


def phase_noise(table: np.ndarray, sampling: float, bandwidth: float, coefficient: float) -> float:
    return float(np.sqrt(0.5 * expected_noise(table, sampling, bandwidth, coefficient)))


@pytest.mark.parametrize("taps", [8, 12, 16])
def test_rows_sum_to_one_and_mirror(taps: int) -> None:
    table = design_taps(SAMPLING, IW2, 0.75, taps)
    assert table.shape == (FRACTIONS + 1, TAPS)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=3e-7)
    np.testing.assert_allclose(table[::-1, ::-1], table, atol=1e-6)
    margin = (TAPS - taps) // 2
    assert not table[:, :margin].any()
    assert not table[:, TAPS - margin :].any()
    # Fraction zero and one are the samples themselves, and the table is continuous there.
    np.testing.assert_array_equal(table[0], np.eye(TAPS)[TAPS // 2 - 1])
    np.testing.assert_array_equal(table[-1], np.eye(TAPS)[TAPS // 2])
    assert np.abs(np.diff(table, axis=0)).max() < 8e-4


def test_interpolates_a_tone_of_the_band() -> None:
    table = design_taps(SAMPLING, IW1, 0.75, 16)
    places = np.arange(TAPS) - (TAPS // 2 - 1)
    for frequency in (0.0, 0.1, -0.33, 0.4):
        samples = np.exp(2j * np.pi * frequency * places)
        found = table @ samples
        truth = np.exp(2j * np.pi * frequency * np.arange(FRACTIONS + 1) / FRACTIONS)
        assert np.abs(found - truth).max() < 0.03


@pytest.mark.parametrize(
    ("sampling", "bandwidth", "coefficient", "taps", "limit"),
    [
        (SAMPLING, IW1, 0.75, 16, 0.0036),
        (SAMPLING, IW2, 0.75, 12, 0.0010),
        (SAMPLING, IW3, 0.75, 8, 0.0020),
        (486.486, 327.0, 0.70, 8, 0.0018),
    ],
)
def test_noise_on_the_real_spectra(
    sampling: float, bandwidth: float, coefficient: float, taps: int, limit: float
) -> None:
    table = design_taps(sampling, bandwidth, coefficient, taps)
    assert phase_noise(table, sampling, bandwidth, coefficient) < limit


def test_ten_times_better_than_a_windowed_sinc_of_eight() -> None:
    places = np.arange(TAPS) - (TAPS // 2 - 1)
    distance = places - (np.arange(FRACTIONS + 1) / FRACTIONS)[:, np.newaxis]
    window = np.where(np.abs(distance) < 4, np.cos(np.pi * distance / 8) ** 2, 0.0)
    hann = (np.sinc(distance) * window).astype(np.float32)
    ours = design_taps(SAMPLING, IW1, 0.75, 16)
    noise = phase_noise(hann, SAMPLING, IW1, 0.75)
    assert 0.040 < noise < 0.050  # the 0.046 rad known of ISCE
    assert phase_noise(ours, SAMPLING, IW1, 0.75) < 0.1 * noise


def test_no_other_taps_of_unit_sum_are_better() -> None:
    table = design_taps(SAMPLING, IW3, 0.75, 8).copy()
    best = expected_noise(table, SAMPLING, IW3, 0.75)
    generator = np.random.default_rng(4)
    for _ in range(20):
        change = np.zeros(TAPS, np.float32)
        change[4:12] = 1e-3 * generator.normal(size=8)
        change[4:12] -= change[4:12].mean()
        assert expected_noise(table + change, SAMPLING, IW3, 0.75) > best


def test_choice_follows_the_fill_of_the_band() -> None:
    assert [choose_taps(band, SAMPLING) for band in (IW1, IW2, IW3)] == [16, 12, 8]
    assert choose_taps(327.0, 486.486) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.1, 0.75, 8), "bandwidth_hz"),
        ((1.0, 0.5, 0.4, 8), "window_coefficient"),
        ((1.0, 0.5, 0.75, 10), "8, 12 or 16"),
    ],
)
def test_refuses_nonsense(arguments: tuple[float, float, float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        design_taps(*arguments)
