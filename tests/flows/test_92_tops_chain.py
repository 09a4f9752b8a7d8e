"""The TOPS chain on a simulated stack of two swaths: shifts, seams, subsets, fallbacks, chunks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bperp.flows.config import StackConfig
from bperp.flows.engine import Selection, SerialExecutor, run_stages
from bperp.flows.root import Root
from bperp.flows.run import run_stack, setup_run
from bperp.flows.simulation import simulate_stack
from bperp.flows.simulation_options import PRESETS
from bperp.flows.validation import open_truth
from bperp.pipeline import registration

pytestmark = pytest.mark.slow

WHOLE = (slice(None), slice(None), slice(None))
AZIMUTH = (0.0, -0.0113, 0.0087, 0.0031)
RANGE = (0.0, 0.031, -0.042, 0.018)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four dates, two swaths of two bursts, timing errors in azimuth and range."""
    folder = tmp_path_factory.mktemp("inputs")
    options = dataclasses.replace(
        PRESETS["tiny"],
        date_count=4,
        swaths=("IW1", "IW2"),
        samples=640,
        lines_per_burst=500,
        seed=77,
        azimuth_misregistration_lines=AZIMUTH,
        range_misregistration_samples=RANGE,
        turbulence_rms_m=0.0005,
        stratified_std_per_km=0.0005,
    )
    simulate_stack(folder, options)
    return folder


def configuration(inputs: Path, root: Path, **changes: Any) -> StackConfig:
    values = {
        "root": str(root),
        "slc": [str(inputs / "safe" / "*.SAFE")],
        "orbits": {"folders": [str(inputs / "orbits")]},
        "dem": {"path": str(inputs / "dem.tif")},
        "reference_date": "2023-01-17",
    }
    return StackConfig.from_values(values | changes)


def process(inputs: Path, root: Path, last: str = "interferogram", **changes: Any) -> Root:
    setup = setup_run(configuration(inputs, root, **changes))
    run_stages(
        setup.stages, setup.context, setup.store, SerialExecutor(), selection=Selection(last=last)
    )
    return Root.open(str(root))


@pytest.fixture(scope="module")
def plain(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Root:
    return process(inputs, tmp_path_factory.mktemp("plain") / "root")


@pytest.fixture(scope="module")
def truth(inputs: Path) -> xr.Dataset:
    return open_truth(inputs / "truth.zarr")


def phase(root: Root) -> np.ndarray:
    return root.source.read("scene/interferogram", "phase", WHOLE)


def test_shifts_of_the_network_are_those_injected(plain: Root, truth: xr.Dataset) -> None:
    stack = plain.stack
    hub = stack.date_index(stack.reference_date)
    azimuth = truth["azimuth_misregistration_lines"].values
    across = truth["range_misregistration_samples"].values
    for index, date in enumerate(stack.dates):
        item = plain.summaries["alignment"][date]
        if date == stack.reference_date:
            assert item["azimuth_shift_lines"] == 0.0
            continue
        error = item["azimuth_shift_lines"] - (azimuth[index] - azimuth[hub])
        print(f"{date}: azimuth {error:+.6f} of {item['azimuth_shift_sigma_lines']:.6f} line")
        assert abs(error) < 4 * item["azimuth_shift_sigma_lines"] < 0.004
        for swath, found in item["range_shift"].items():
            # The annotated range is too small by the error, so the target stands farther.
            error = found["samples"] - (across[index] - across[hub])
            print(f"{date} {swath}: range {error:+.5f} of {found['sigma']:.5f} sample")
            assert abs(error) < 4.5 * found["sigma"] < 0.05
        assert item["outlier_pairs"] == []
        assert "range-shift-not-estimated" not in item["flags"]


def test_a_date_is_measured_against_dates_towards_the_reference_only(plain: Root) -> None:
    table = plain.source.read("scene/misregistration", "partner_date", (slice(None),) * 2)
    days = np.array(plain.stack.dates, "datetime64[D]").astype(np.int64)
    assert table[3].tolist() == [days[1], days[2], -(2**31)]
    assert table[2].tolist() == [days[1], -(2**31), -(2**31)]
    assert table[0].tolist() == [days[1], -(2**31), -(2**31)]


def test_bursts_and_swaths_fit_together(plain: Root) -> None:
    """Without cross-sensor constants the phase agrees wherever bursts overlap."""
    for pair, item in plain.summaries.get("seams", {}).items():
        print(f"{pair}: {item['measured']} of {item['seams']} seams, {item['phase_rms_rad']} rad")
    difference = plain.source.read("scene/seams", "phase_difference", (slice(None),) * 2)
    sigma = plain.source.read("scene/seams", "phase_difference_sigma", (slice(None),) * 2)
    measured = np.isfinite(sigma)
    assert measured.mean() > 0.8
    assert difference.shape[1] == 5, "two seams in azimuth, three between the swaths"
    assert np.abs(difference[measured]).max() < 0.2
    assert np.abs(difference[measured] / sigma[measured]).max() < 6


def test_burst_constants_are_removed_on_request(inputs: Path, plain: Root, tmp_path: Path) -> None:
    found = process(inputs, tmp_path / "root", interferogram={"burst_phase": "remove"})
    constants = found.source.read("scene/seams", "burst_phase", (slice(None),) * 2)
    scene = found.stack.scene
    turned = np.angle(np.exp(1j * (phase(plain) - phase(found))))
    for index, place in enumerate(scene.placements):
        top, bottom, left, right = place.owned
        rows = slice(-(-top // scene.looks[0]), bottom // scene.looks[0])
        columns = slice(-(-left // scene.looks[1]), right // scene.looks[1])
        for pair in range(len(constants)):
            part = turned[pair, rows, columns]
            assert np.isfinite(part).any()
            assert np.nanmax(np.abs(part - constants[pair, index])) < 1e-5


def test_pixels_of_an_area_of_interest_are_those_of_the_whole_scene(
    inputs: Path, plain: Root, tmp_path: Path
) -> None:
    burst = plain.stack.burst_ids[0]
    middle = (slice(200, 320), slice(200, 420))
    place = [
        plain.source.read(f"bursts/{burst}/geometry", name, middle)
        for name in ("longitude", "latitude")
    ]
    low, high = ([float(f(axis)) for axis in place] for f in (np.nanmin, np.nanmax))
    part = process(inputs, tmp_path / "root", aoi=[*low, *high], aoi_subset="pixels")
    crop, looks = part.stack.scene.crop, part.stack.scene.looks
    assert crop is not None
    found = phase(part)
    assert found.size < 0.7 * phase(plain).size
    top, left = crop[0] // looks[0], crop[2] // looks[1]
    same = phase(plain)[:, top : top + found.shape[1], left : left + found.shape[2]]
    np.testing.assert_array_equal(found, same)
    status = part.source.read(f"bursts/{burst}/geometry", "status", (slice(None),) * 2)
    assert (status == 0).any()


def test_range_solved_pixel_by_pixel_agrees_with_the_polynomial(
    inputs: Path, plain: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "RANGE_TOLERANCE_SAMPLES", 0.0)
    exact = process(inputs, tmp_path / "root")
    date = exact.stack.dates[0]
    assert "offsets-per-pixel" in exact.summaries["alignment"][date]["flags"]
    difference = np.angle(np.exp(1j * (phase(exact) - phase(plain))))
    assert np.nanstd(difference) < 0.02
    assert abs(np.nanmean(difference)) < 1e-3


CHUNKED = ("geometry", "ingest", "coregister", "layout", "amplitude", "scatterers")


@pytest.mark.parametrize("chunk", [(256, 192), (128, 640)])
def test_chunks_do_not_change_a_bit(
    inputs: Path,
    plain: Root,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk: tuple[int, int],
) -> None:
    for name in CHUNKED:
        module = sys.modules[f"bperp.pipeline.{name}"]
        monkeypatch.setattr(module, "CHUNK_LINES", chunk[0], raising=False)
        monkeypatch.setattr(module, "CHUNK_SAMPLES", chunk[1], raising=False)
    monkeypatch.setattr("bperp.pipeline.interferogram.TILE", (chunk[0] // 8, chunk[1] // 40))
    other = process(inputs, tmp_path / "root")
    for name in ("phase", "coherence", "effective_looks", "debiased_coherence"):
        before, after = (r.source.read("scene/interferogram", name, WHOLE) for r in (plain, other))
        np.testing.assert_array_equal(after, before, err_msg=name)
    for burst in plain.stack.burst_ids:
        name = f"bursts/{burst}/coregistered"
        cubes = [r.source.read(name, "slc", (slice(None),) * 4) for r in (plain, other)]
        np.testing.assert_array_equal(cubes[0], cubes[1], err_msg=name)


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_do_not_change_a_bit(
    inputs: Path, plain: Root, tmp_path: Path, workers: int
) -> None:
    config = configuration(inputs, tmp_path / "root")
    run_stack(config, last="interferogram", workers=workers)
    for stage in ("misregistration", "alignment", "coregister", "seams", "interferogram"):
        markers = [
            (Path(root) / "markers" / f"{stage}.json").read_bytes()
            for root in (config.root, plain.store.root)
        ]
        assert markers[0] == markers[1], stage


def test_filtered_and_geocoded_on_request(inputs: Path, tmp_path: Path) -> None:
    root = process(
        inputs,
        tmp_path / "root",
        last="geocode",
        filter={"enabled": True},
        geocode={"enabled": True, "spacing": 40.0},
        interferogram={"looks": [2, 8]},
    )
    filtered = root.source.read("scene/filtered", "phase", WHOLE)
    rough = phase(root)
    assert np.nanstd(np.diff(filtered, axis=2)) < 0.8 * np.nanstd(np.diff(rough, axis=2))
    maps = root.store.open_dataset("scene/geocoded")
    assert maps.phase.dims == ("pair", "y", "x")
    assert maps.attrs["phase_product"] == "scene/filtered"
    assert float(maps.valid_mask.mean()) > 0.3
    sight = maps.line_of_sight.values[:, maps.valid_mask.values > 0]
    np.testing.assert_allclose(np.linalg.norm(sight, axis=0), 1.0, atol=1e-5)


def test_a_later_date_leaves_the_earlier_ones_alone(
    inputs: Path, plain: Root, tmp_path: Path
) -> None:
    last = plain.stack.dates[-1]
    fewer = process(inputs, tmp_path / "root", last="alignment", dates={"exclude": [last]})
    for burst in plain.stack.burst_ids:
        name = f"bursts/{burst}/alignment"
        for variable in ("azimuth_shift", "range_shift", "azimuth_coefficients"):
            rows = slice(0, len(fewer.stack.dates))
            before, after = (r.source.read(name, variable, (rows,)) for r in (fewer, plain))
            np.testing.assert_array_equal(before, after, err_msg=variable)


def test_common_band_filter_regains_coherence(tmp_path: Path) -> None:
    """Scatterers fixed to the ground lose coherence with the baseline; the filter gets it back."""
    options = dataclasses.replace(
        PRESETS["tiny"],
        date_count=2,
        lines_per_burst=300,
        samples=512,
        seed=78,
        baselines_m=(0.0, 700.0),
        relief_m=20.0,
        coherence_initial=1.0,
        coherence_decay_days=1e6,
        signal_to_noise_db=40.0,
        scatterers_per_pixel=4.0,
        turbulence_rms_m=0.0,
        stratified_std_per_km=0.0,
    )
    inputs = tmp_path / "inputs"
    simulate_stack(inputs, options)
    means = {}
    for choice in ("never", "auto", "always"):
        root = process(
            inputs,
            tmp_path / choice,
            reference_date="2023-01-05",
            interferogram={"common_band": choice},
        )
        coherence = root.source.read("scene/interferogram", "coherence", WHOLE)
        looks = root.source.read("scene/interferogram", "effective_looks", WHOLE)
        means[choice] = float(np.nanmean(coherence[looks > 0.8 * looks.max()]))
    print(means)
    # 7 of 56.5 MHz differ at 700 m in IW1.
    assert 0.7 < means["never"] < 0.93
    assert means["auto"] == means["always"] > means["never"] + 0.05
    assert means["always"] > 0.9
