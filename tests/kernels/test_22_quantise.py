"""Rounding to int16 against numpy's, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.quantise import quantise_samples


def test_repeats_rint_and_clip() -> None:
    generator = np.random.default_rng(5)
    values = (generator.normal(size=(37, 41, 2)) * 16000.0).astype(np.float32)
    values[0] = np.rint(values[0]) + np.float32(0.5)
    values[1, :6, 0] = 32767.0, 32767.5, -32768.5, -32769.0, 1e30, -np.inf
    out = np.empty((37, 41, 2), np.int16)
    count = quantise_samples(values.view(np.complex64)[..., 0], out)
    rounded = np.rint(values)
    np.testing.assert_array_equal(out, np.clip(rounded, -32768, 32767).astype(np.int16))
    assert count == np.count_nonzero((rounded > 32767) | (rounded < -32768)) > 100


def test_nan_becomes_zero_and_counts() -> None:
    samples = np.array([[complex(np.nan, 7.0), complex(-3.0, np.nan)]], np.complex64)
    out = np.empty((1, 2, 2), np.int16)
    assert quantise_samples(samples, out) == 2
    assert out.tolist() == [[[0, 7], [-3, 0]]]


def test_takes_part_of_an_array() -> None:
    whole = np.arange(60, dtype=np.float32).reshape(5, 12).astype(np.complex64)
    out = np.empty((3, 4, 2), np.int16)
    assert quantise_samples(whole[1:4, 2:10:2], out) == 0
    np.testing.assert_array_equal(out[..., 0], whole[1:4, 2:10:2].real)


@pytest.mark.parametrize(
    ("samples", "out", "message"),
    [
        (np.zeros((2, 3), np.complex128), np.zeros((2, 3, 2), np.int16), "complex64"),
        (np.zeros((2, 3), np.complex64), np.zeros((2, 3, 2), np.int32), "int16"),
        (np.zeros((2, 3), np.complex64), np.zeros((3, 2, 2), np.int16), "shape"),
        (np.zeros((2, 3), np.complex64), np.zeros((4, 3, 2), np.int16)[::2], "contiguous"),
    ],
)
def test_refuses_nonsense(samples: np.ndarray, out: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantise_samples(samples, out)
