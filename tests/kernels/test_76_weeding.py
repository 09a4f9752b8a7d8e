"""Thinning of adjacent and coinciding scatterers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bperp.kernels.arcs import keep_best_duplicate, keep_best_neighbour


def test_keeps_the_best_of_every_connected_group():
    rng = np.random.default_rng(0)
    image = rng.random((60, 80)) < 0.25
    azimuth, range_ = np.nonzero(image)
    quality = rng.random(azimuth.size)
    label = ndimage.label(image, np.ones((3, 3)))[0][azimuth, range_]
    expected = np.zeros(azimuth.size, bool)
    for group in range(1, label.max() + 1):
        members = np.flatnonzero(label == group)
        expected[members[np.argmax(quality[members])]] = True
    np.testing.assert_array_equal(keep_best_neighbour(azimuth, range_, quality), expected)


def test_order_of_the_scatterers_does_not_matter():
    rng = np.random.default_rng(1)
    azimuth, range_ = np.nonzero(rng.random((30, 30)) < 0.3)
    quality = rng.random(azimuth.size)
    keep = keep_best_neighbour(azimuth, range_, quality)
    order = rng.permutation(azimuth.size)
    shuffled = keep_best_neighbour(azimuth[order], range_[order], quality[order])
    np.testing.assert_array_equal(shuffled, keep[order])


def test_end_of_a_line_is_not_next_to_the_start_of_another():
    azimuth, range_ = np.array([0, 1, 1]), np.array([9, 0, 9])
    keep = keep_best_neighbour(azimuth, range_, np.array([0.5, 0.4, 0.6]))
    np.testing.assert_array_equal(keep, [False, True, True])


def test_equals_and_nan():
    same = np.zeros(3, np.int64)
    keep = keep_best_neighbour(same, np.arange(3), np.array([np.nan, 0.5, 0.5]))
    np.testing.assert_array_equal(keep, [False, True, False])
    keep = keep_best_neighbour(same, same, np.array([0.1, 0.3, 0.2]))
    np.testing.assert_array_equal(keep, [False, True, False])
    keep = keep_best_neighbour(same[:1], same[:1], np.array([np.nan]))
    np.testing.assert_array_equal(keep, [True])


def test_duplicates_keep_the_best():
    position = np.array([[0.0, 0.0], [0.2, -0.3], [5.0, 5.0], [0.0, 0.1], [5.0, 6.0]])
    keep = keep_best_duplicate(position, np.array([0.3, 0.9, 0.1, 0.9, 0.2]))
    np.testing.assert_array_equal(keep, [False, True, True, False, True])
    keep = keep_best_duplicate(position, np.array([0.3, 0.9, 0.1, 0.9, 0.2]), 20.0)
    np.testing.assert_array_equal(keep, [False, True, False, False, False])


@pytest.mark.parametrize("function", [keep_best_duplicate, None])
def test_nothing_in_nothing_out(function):
    if function is None:
        assert keep_best_neighbour(np.zeros(0, int), np.zeros(0, int), np.zeros(0)).shape == (0,)
    else:
        assert function(np.zeros((0, 2)), np.zeros(0)).shape == (0,)
