"""Thinning by the eight neighbouring pixels."""

from __future__ import annotations

import numpy as np

from bperp.kernels.weeding import keep_local_best


def slow(line: np.ndarray, sample: np.ndarray, quality: np.ndarray) -> np.ndarray:
    keep = np.ones(len(line), bool)
    for i in range(len(line)):
        for j in range(len(line)):
            near = max(abs(line[i] - line[j]), abs(sample[i] - sample[j])) == 1
            earlier = (line[j], sample[j]) < (line[i], sample[i])
            if near and (quality[j] > quality[i] or (quality[j] == quality[i] and earlier)):
                keep[i] = False
    return keep


def test_against_all_pairs() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        pixels = random.choice(15 * 12, size=90, replace=False)
        line, sample = pixels // 12, pixels % 12
        quality = random.integers(0, 6, 90) / 6.0
        expected = slow(line, sample, quality)
        assert np.array_equal(keep_local_best(line, sample, quality), expected)


def test_a_tile_with_a_halo_of_one_pixel_gives_what_the_scene_gives() -> None:
    random = np.random.default_rng(4)
    pixels = random.choice(60 * 60, size=1500, replace=False)
    line, sample = pixels // 60, pixels % 60
    quality = random.random(1500)
    whole = keep_local_best(line, sample, quality)
    part = (line >= 19) & (line < 41) & (sample >= 9) & (sample < 31)
    inner = (line >= 20) & (line < 40) & (sample >= 10) & (sample < 30)
    tile = np.zeros(1500, bool)
    tile[part] = keep_local_best(line[part], sample[part], quality[part])
    assert np.array_equal(tile[inner], whole[inner])
    assert 0 < whole.sum() < 1500


def test_unknown_quality_loses_and_no_scatterer_is_no_error() -> None:
    line, sample = np.array([5, 5]), np.array([7, 8])
    assert keep_local_best(line, sample, np.array([np.nan, 0.1])).tolist() == [False, True]
    empty = np.zeros(0, np.int64)
    assert keep_local_best(empty, empty, np.zeros(0)).size == 0
    # Column 0 and the last column of the line above are no neighbours.
    assert keep_local_best(np.array([3, 4]), np.array([9, 0]), np.array([0.5, 0.4])).all()
