"""The filter stage: the kernel on the whole image, however the scene is cut into tasks."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bperp.kernels.goldstein import filter_goldstein
from bperp.pipeline import filtering
from bperp.pipeline.scene import tile_windows
from bperp.pipeline.stack import Scene, Stack

LINES, SAMPLES, LOOKS = 170, 210, (4, 20)
DATES = ("2023-01-01", "2023-01-13", "2023-01-25")
PAIRS = [f"{DATES[0]}_{date}" for date in DATES[1:]]


class Memory:
    """Interferograms of two pairs in memory: fringes in noise, a hole, and NaN at the edge."""

    def __init__(self, lines: int = LINES, samples: int = SAMPLES) -> None:
        random = np.random.default_rng(3)
        line, sample = np.mgrid[0:lines, 0:samples]
        fringes = np.stack([0.21 * line + 0.1 * sample, 0.002 * (line - 80.0) * (sample - 90.0)])
        # Quiet on the left, hopeless on the right.
        noise = random.normal(size=(2, lines, samples)) * np.where(sample < 180, 0.6, 2.0)
        phase = np.angle(np.exp(1j * (fringes + noise))).astype(np.float32)
        coherence = random.uniform(0.2, 0.9, phase.shape).astype(np.float32)
        for image in (phase, coherence):
            image[:, 40:60, 100:130] = np.nan
            image[1, :, :7] = np.nan
        self.truth = fringes
        self.arrays = {"phase": phase, "coherence": coherence}
        self.bytes_read = 0

    def read(self, product: str, variable: str, region: tuple[slice, ...]) -> np.ndarray:
        assert product == "scene/interferogram"
        pair = PAIRS.index(region[0])
        region = (slice(pair, pair + 1), *region[1:])
        for piece, size in zip(region, self.arrays[variable].shape, strict=True):
            assert 0 <= piece.start < piece.stop <= size
        values = np.array(self.arrays[variable][region])
        self.bytes_read += values.nbytes
        return values


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


def context(**options: Any) -> Any:
    chosen = {"enabled": True, "strength": "coherence", "window": 32, "overlap": 0.5, **options}
    scene = Scene(LINES * LOOKS[0] + 3, SAMPLES * LOOKS[1] + 19, LOOKS, ())
    return SimpleNamespace(
        stack=Stack(DATES[0], DATES, {}, scene),
        options={
            "filter": chosen,
            "interferogram": {"network": "single_reference", "neighbours": 1},
        },
    )


def run(plan: Any, source: Any) -> dict[str, np.ndarray]:
    arrays = {spec.name: np.full(spec.shape, -9.0, spec.dtype) for spec in plan.templates[0].arrays}
    chunks = plan.templates[0].arrays[0].chunks
    for task in plan.tasks:
        for block in filtering.STAGE.compute(task.parameters, source):
            target = arrays[block.variable]
            assert block.data.dtype == target.dtype
            assert block.origin[0] in task.labels
            origin = (PAIRS.index(block.origin[0]), *block.origin[1:])
            for start, length, size, chunk in zip(
                origin, block.data.shape, target.shape, chunks, strict=True
            ):
                assert start % chunk == 0
                assert length % chunk == 0 or start + length == size
            place = tuple(slice(o, o + n) for o, n in zip(origin, block.data.shape, strict=True))
            target[place] = block.data
    return arrays


def test_nothing_is_planned_when_the_filter_is_off() -> None:
    plan = filtering.STAGE.plan(context(enabled=False))
    assert plan.templates == ()
    assert plan.tasks == ()


@pytest.mark.parametrize(("window", "overlap"), [(32, 0.5), (16, 0.75), (64, 0.75)])
@pytest.mark.parametrize("strength", ["coherence", 0.6])
def test_tiles_hold_the_bytes_of_the_whole_image(
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    strength: str | float,
    window: int,
    overlap: float,
) -> None:
    chosen = context(strength=strength, window=window, overlap=overlap)
    whole = run(filtering.STAGE.plan(chosen), memory)
    for chunk, tile in [((16, 64), (32, 64)), ((30, 50), (60, 150)), ((7, 210), (77, 210))]:
        monkeypatch.setattr(filtering, "CHUNK", chunk)
        monkeypatch.setattr(filtering, "TILE", tile)
        plan = filtering.STAGE.plan(chosen)
        assert len(plan.tasks) > 2
        parts = run(plan, memory)
        for name, values in whole.items():
            assert values.tobytes() == parts[name].tobytes(), (name, tile)
    # And that is the kernel, pair by pair, with NaN where the interferogram has none.
    phase = memory.arrays["phase"]
    for pair in range(2):
        alpha = memory.arrays["coherence"][pair] if strength == "coherence" else strength
        phasor = np.exp(1j * phase[pair]).astype(np.complex64)
        expected = filter_goldstein(phasor, alpha, window=window, overlap=overlap)
        valid = np.isfinite(phase[pair])
        assert np.array_equal(np.isfinite(whole["phase"][pair]), valid)
        assert np.array_equal(np.isfinite(whole["phase_consistency"][pair]), valid)
        error = np.angle(np.exp(1j * whole["phase"][pair]) * expected.conj())[valid]
        clear = np.abs(expected[valid]) > 1e-2
        assert np.abs(error[clear]).max() < 1e-4
        consistency = np.minimum(np.abs(expected[valid]), 1)
        assert np.allclose(whole["phase_consistency"][pair][valid], consistency, atol=1e-5)


def test_filtered_phase_is_closer_to_the_truth_and_consistency_says_where(memory: Memory) -> None:
    result = run(filtering.STAGE.plan(context(strength=0.8)), memory)
    valid = np.isfinite(result["phase"])
    truth = np.exp(-1j * memory.truth)
    before = np.angle(np.exp(1j * memory.arrays["phase"]) * truth)[valid]
    after = np.angle(np.exp(1j * result["phase"]) * truth)[valid]
    quiet = np.broadcast_to(np.arange(SAMPLES) < 150, result["phase"].shape)[valid]
    assert np.sqrt(np.mean(after[quiet] ** 2)) < 0.5 * np.sqrt(np.mean(before[quiet] ** 2))
    consistency = result["phase_consistency"][valid]
    assert 0 <= consistency.min() <= consistency.max() <= 1
    wrong = np.abs(after) > 0.5
    assert 0.01 < wrong.mean() < 0.2
    assert np.median(consistency[wrong]) < np.quantile(consistency[~wrong], 0.1)


def test_tasks_name_the_interferogram_tiles_that_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtering, "CHUNK", (32, 32))
    monkeypatch.setattr(filtering, "TILE", (64, 64))
    plan = filtering.STAGE.plan(context())
    tiles = [key for key, _ in tile_windows((LINES, SAMPLES), (64, 64))]
    assert [task.key for task in plan.tasks] == [f"{t}/{d}" for t in tiles for d in DATES[1:]]
    assert [task.group for task in plan.tasks] == [tile for tile in tiles for _ in DATES[1:]]
    first = plan.tasks[0]
    # Lines and samples 0..64 with a halo of 32: three by three tiles of 32.
    names = {
        f"interferogram/tile-{row:03d}-{column:03d}/{DATES[1]}"
        for row in range(3)
        for column in range(3)
    }
    assert set(first.inputs) == names
    assert first.outputs == ("scene/filtered",)
    assert sum(task.pixels for task in plan.tasks) == 2 * LINES * SAMPLES
    spec = {array.name: array for array in plan.templates[0].arrays}
    assert spec["phase"].shape == (2, LINES, SAMPLES)
    assert spec["phase"].chunks == (1, 32, 32)
    assert list(plan.templates[0].coordinates) == ["reference_date", "secondary_date"]


def test_predicted_memory_covers_the_peak_and_is_not_far_above() -> None:
    source = Memory(512, 512)
    parameters = {"shape": [512, 512], "pairs": PAIRS, "strength": "coherence", "patch": 32,
                  "overlap": 0.75, "window": [0, 512, 0, 512]}  # fmt: skip
    list(filtering.STAGE.compute({**parameters, "window": [0, 64, 0, 64]}, source))
    tracemalloc.start()
    for _ in filtering.STAGE.compute(parameters, source):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    predicted = filtering._memory((0, 512, 0, 512))
    assert 0.25 * predicted < peak < predicted


def test_summary_counts_valid_pixels(memory: Memory) -> None:
    parameters = {**filtering.STAGE.plan(context()).tasks[0].parameters, "pairs": PAIRS}
    computation = filtering.STAGE.compute(parameters, memory)
    blocks = []
    while True:
        try:
            blocks.append(next(computation))
        except StopIteration as stop:
            summary = stop.value
            break
    consistency = [block.data for block in blocks if block.variable == "phase_consistency"]
    valid = [int(np.isfinite(image).sum()) for image in consistency]
    assert summary["valid_pixels"] == dict(zip(PAIRS, valid, strict=True))
    assert valid[0] == LINES * SAMPLES - 20 * 30
    assert list(summary["phase_consistency_sum"].values()) == pytest.approx(
        [float(np.nansum(image, dtype=np.float64)) for image in consistency]
    )
