"""Tiles: results that do not depend on how a scene is cut, and no block beside the chunk grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bperp.kernels.neighbour_phase import NeighbourFilter
from bperp.kernels.phase_noise import PhaseNoiseOptions, phase_noise_halo_m
from bperp.pipeline import amplitude, interferogram, scatterers
from bperp.pipeline.scatterers import STAGE as SCATTERERS

LINES, SAMPLES = 160, 240
DAYS = [f"2023-01-{day:02d}" for day in range(1, 9)]
DATES = len(DAYS)
PAIRS = [[DAYS[0], DAYS[3]], [DAYS[3], DAYS[7]]]
LABELS = ["_".join(pair) for pair in PAIRS]
BURST = "t001_000001_iw1"


class Memory:
    """A source with one burst in memory: speckle of coherence 0.4 and some stable pixels."""

    def __init__(self) -> None:
        random = np.random.default_rng(11)
        shape = (LINES, SAMPLES)

        def field(*size: int) -> np.ndarray:
            return random.normal(size=size) + 1j * random.normal(size=size)

        common = field(*shape)
        slc = 60 * (np.sqrt(0.4) * common + np.sqrt(0.6) * field(DATES, *shape))
        slc[:, ::9, ::11] += 900
        pairs = np.stack([slc.real, slc.imag], axis=-1)
        row, column = np.mgrid[0:LINES, 0:SAMPLES]
        self.arrays: dict[tuple[str, str], np.ndarray] = {
            (f"bursts/{BURST}/coregistered", "slc"): np.rint(pairs).astype(np.int16),
            (f"bursts/{BURST}/geometry", "latitude"): 30 + row * 1e-4,
            (f"bursts/{BURST}/geometry", "longitude"): 10 + column * 1e-4,
            (f"bursts/{BURST}/geometry", "height"): np.zeros(shape, np.float32),
            (f"bursts/{BURST}/geometry", "incidence_angle"): np.full(shape, 0.6, np.float32),
        }
        terms = np.zeros((DATES, 92))
        terms[:, 0] = np.linspace(-120.0, 120.0, DATES)
        domain = np.array([[LINES / 2, LINES / 2], [SAMPLES / 2, SAMPLES / 2], [0.0, 500.0]])
        alignment = f"bursts/{BURST}/alignment"
        self.arrays[alignment, "domain"] = np.broadcast_to(domain, (DATES, 3, 2))
        self.arrays[alignment, "baseline_coefficients"] = terms

    def read(self, product: str, variable: str, region: tuple[slice, ...]) -> np.ndarray:
        array = self.arrays[product, variable]
        if isinstance(region[0], str):
            date = DAYS.index(region[0])
            region = (slice(date, date + 1), *region[1:])
        for piece, size in zip(region, array.shape, strict=True):
            assert (
                0 <= (piece.start or 0) <= (piece.stop if piece.stop is not None else size) <= size
            )
        return np.array(array[region])


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


SCENE = {
    "shape": [LINES, SAMPLES],
    "placements": [{"burst_id": BURST, "origin": [0, 0], "owned": [0, LINES, 0, SAMPLES]}],
}


def assemble(
    stage: Any, tasks: list[dict[str, Any]], source: Any, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for parameters in tasks:
        for block in stage.compute(parameters, source):
            first, *rest = block.origin
            origin = (LABELS.index(first) if isinstance(first, str) else first, *rest)
            place = tuple(slice(o, o + n) for o, n in zip(origin, block.data.shape, strict=True))
            array = arrays.setdefault(
                block.variable, np.zeros(shapes[block.variable], block.data.dtype)
            )
            array[place] = block.data
    return arrays


def interferogram_tasks(tile: tuple[int, int]) -> list[dict[str, Any]]:
    shape = (LINES // 4, SAMPLES // 8)
    windows = [window for _, window in interferogram.tile_windows(shape, tile)]
    common = {
        "scene": SCENE,
        "looks": [4, 8],
        "sampling": [1.49, 1.14, 0.7, 0.75],
        "burst_phase": "report",
        "numbers": [0],
        "filtered": [],
        "images": {},
    }
    return [
        {**common, "window": list(window), "pairs": pairs}
        for window in windows
        for pairs in ([], PAIRS[:1], PAIRS[1:])
    ]


def test_interferograms_do_not_depend_on_tiles_and_strips(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube, image = (2, LINES // 4, SAMPLES // 8), (LINES // 4, SAMPLES // 8)
    shapes = dict.fromkeys(("phase", "coherence", "debiased_coherence", "effective_looks"), cube)
    shapes |= dict.fromkeys(("latitude", "longitude"), image)
    whole = assemble(interferogram.STAGE, interferogram_tasks((128, 128)), memory, shapes)
    monkeypatch.setattr(interferogram, "STRIP_PIXELS", 1600)
    parts = assemble(interferogram.STAGE, interferogram_tasks((16, 10)), memory, shapes)
    for name, values in whole.items():
        assert np.array_equal(values, parts[name], equal_nan=True), name
    # A third of the windows holds a stable pixel, which raises its coherence.
    assert 0.35 < np.median(whole["coherence"]) < whole["coherence"].mean() < 0.65
    assert whole["latitude"][1, 0] == pytest.approx(30 + 5.5e-4)
    # Independent looks are fewer than pixels but more than one.
    assert 1 < whole["effective_looks"].max() < 32


def test_amplitude_does_not_depend_on_strips(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {
        "scene": SCENE,
        "window": [0, LINES, 0, SAMPLES],
        "dates": DAYS,
        "calibration": [100.0] * DATES,
        "max_amplitude_dispersion": 0.25,
    }
    shapes = dict.fromkeys(("amplitude_dispersion", "mean_amplitude"), (LINES, SAMPLES))
    whole = assemble(amplitude.STAGE, [task], memory, shapes)
    monkeypatch.setattr(amplitude, "STRIP_BYTES", 50_000)
    parts = assemble(amplitude.STAGE, [task], memory, shapes)
    for name, values in whole.items():
        assert np.array_equal(values, parts[name], equal_nan=True), name
    stable = whole["amplitude_dispersion"][::9, ::11]
    assert np.median(stable) < 0.1 < np.nanmedian(whole["amplitude_dispersion"])


def scatterer_tasks(
    make_burst: Any, tile: tuple[int, int], halo: list[int], slot: int
) -> list[dict[str, Any]]:
    image = make_burst(burst_id=BURST, lines=LINES, samples=SAMPLES)
    windows = [window for _, window in scatterers.tile_windows((LINES, SAMPLES), tile)]
    common = {
        "scene": SCENE,
        "shape": [LINES, SAMPLES],
        "halo": halo,
        "spacing_m": [14.0, 4.0],
        "trial_wraps": 0.3,
        "slot": slot,
        "dates": DAYS,
        "columns": list(range(DATES)),
        "date_count": DATES,
        "reference_date": DAYS[3],
        "max_amplitude_dispersion": 0.25,
        "images": {BURST: image.as_dict()},
        "options": {
            "filter_grid_m": 40.0,
            "low_pass_wavelength_m": 100.0,
            "iterations": 2,
            "weed_neighbours": True,
        },
    }
    return [{**common, "window": list(w), "slot_index": k} for k, w in enumerate(windows)]


def test_scatterers_do_not_depend_on_tiles(memory: Memory, make_burst: Any) -> None:
    statistics = {
        "scene": SCENE,
        "window": [0, LINES, 0, SAMPLES],
        "dates": DAYS,
        "calibration": [100.0] * DATES,
        "max_amplitude_dispersion": 0.25,
    }
    (first, _) = list(amplitude.STAGE.compute(statistics, memory))
    memory.arrays["scene/amplitude", "amplitude_dispersion"] = first.data

    def table(tile: tuple[int, int], halo: list[int]) -> dict[str, np.ndarray]:
        tasks = scatterer_tasks(make_burst, tile, halo, 8192)
        count = 8192 * len(tasks)
        names = (
            *("valid_mask", "kept_mask", "line", "sample", "latitude", "longitude", "height"),
            *("incidence_angle", "slant_range", "amplitude_dispersion", "phase_noise"),
        )
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (count,))
        shapes |= dict.fromkeys(("phase", "perpendicular_baseline"), (count, DATES))
        arrays = assemble(SCATTERERS, tasks, memory, shapes)
        rows = np.flatnonzero(arrays["valid_mask"])
        order = rows[np.lexsort((arrays["sample"][rows], arrays["line"][rows]))]
        return {name: values[order] for name, values in arrays.items()}

    whole = table((LINES, SAMPLES), [0, 0])
    parts = table((40, 120), [24, 90])
    assert len(whole["line"]) > 400
    reach = phase_noise_halo_m(PhaseNoiseOptions(0.3, 2, NeighbourFilter(40.0, 18.74, 40.0)))
    assert reach <= min(24 * 14.0, 90 * 4.0), "the halos of this test are those of the stage"
    for name, values in whole.items():
        assert np.array_equal(values, parts[name], equal_nan=True), name
    assert np.abs(whole["phase"][:, 3]).max() == 0
    assert np.allclose(whole["perpendicular_baseline"], np.linspace(-120.0, 120.0, DATES))
