"""From SAFE products to velocities: accuracy against the truth of simulated stacks.

The seeds are not those of the presets, and the simulator shares no geometry or carrier code with
the processor.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bperp.flows.config import StackConfig
from bperp.flows.engine import Selection, SerialExecutor, run_stages
from bperp.flows.root import Root
from bperp.flows.run import setup_run
from bperp.flows.simulation import simulate_stack
from bperp.flows.simulation_options import PRESETS, SimulationOptions
from bperp.flows.validation import compare_velocity, locate_truth, match_truth, open_truth
from bperp.kernels.chebyshev import evaluate_points
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.zero_doppler import geo2rdr, rdr2geo_at_height
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.radar import burst_duration_s, burst_orbit
from bperp.pipeline.registration import read_offsets

pytestmark = pytest.mark.slow

EVERYTHING = (slice(None),)


def process(folder: Path, options: SimulationOptions, **changes: Any) -> tuple[Root, xr.Dataset]:
    """Simulate a stack and run the chain on it in this process."""
    simulate_stack(folder / "input", options)
    values = {
        "root": str(folder / "root"),
        "slc": [str(folder / "input" / "safe" / "*.SAFE")],
        "orbits": {"folders": [str(folder / "input" / "orbits")]},
        "dem": {"path": str(folder / "input" / "dem.tif")},
        "reference_date": str(options.date_list()[options.reference_index]),
    }
    last = changes.pop("last", None)
    setup = setup_run(StackConfig.from_values(values | changes))
    selection = Selection(last=last)
    run_stages(setup.stages, setup.context, setup.store, SerialExecutor(), selection=selection)
    return Root.open(str(folder / "root")), open_truth(folder / "input" / "truth.zarr")


@pytest.fixture(scope="module")
def psi(tmp_path_factory: pytest.TempPathFactory) -> tuple[Root, xr.Dataset]:
    """Thirty dates over three years, two short bursts."""
    options = dataclasses.replace(PRESETS["psi"], seed=20261, reference_index=14)
    return process(tmp_path_factory.mktemp("psi"), options)


@pytest.fixture(scope="module")
def overlap(tmp_path_factory: pytest.TempPathFactory) -> tuple[Root, xr.Dataset]:
    """Four dates of two full-height bursts without persistent scatterers, known shifts."""
    options = SimulationOptions(
        date_count=4,
        lines_per_burst=1501,
        samples=600,
        persistent_per_km2=0.01,
        azimuth_misregistration_lines=(0.0, 0.0213, -0.0171, 0.0052),
        range_misregistration_std_samples=0.0,
        coherence_initial=0.8,
        coherence_long_term=0.3,
        turbulence_rms_m=0.0,
        stratified_std_per_km=0.0,
        bowl_velocity_m_yr=0.0,
        ramp_m_yr_per_km=(0.0, 0.0),
        seed=20262,
    )
    folder = tmp_path_factory.mktemp("overlap")
    return process(folder, options, last="interferogram", interferogram={"looks": [8, 24]})


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> tuple[Root, xr.Dataset]:
    """Six dates of scatterers so strong that their phase shows the errors of the chain."""
    options = SimulationOptions(
        date_count=6,
        samples=400,
        persistent_per_km2=40.0,
        signal_to_clutter_db=(37.0, 1.0),
        signal_to_clutter_limits_db=(35.0, 39.0),
        baseline_std_m=120.0,
        seed=20263,
    )
    return process(tmp_path_factory.mktemp("strong"), options, last="scatterers")


def test_velocity_bias_and_rmse(psi: tuple[Root, xr.Dataset]) -> None:
    found = compare_velocity(*psi)
    print(found.as_dict())
    assert len(found.velocity) > 1000
    assert abs(found.bias_mm_yr) < 0.3
    assert found.rmse_mm_yr <= 1.1 * found.floor_mm_yr
    # The comparison itself must be able to fail: the truth is not flat.
    assert 1000 * np.std(found.truth) > 3 * found.rmse_mm_yr


def test_velocity_sigma_is_calibrated(psi: tuple[Root, xr.Dataset]) -> None:
    root, truth = psi
    found = compare_velocity(root, truth)
    sigma = root.source.read("scene/timeseries", "velocity_sigma", EVERYTHING)[found.estimated]
    score = (found.velocity - found.truth) / sigma
    # The atmosphere's trend and the reference's noise are common, so the mean is left out.
    assert 0.8 < np.std(score) < 1.4


def test_most_true_scatterers_are_found(psi: tuple[Root, xr.Dataset]) -> None:
    root, truth = psi
    read = root.source.read
    line, sample = (read("scene/timeseries", name, EVERYTHING) for name in ("line", "sample"))
    solved = np.isfinite(read("scene/timeseries", "velocity_los", EVERYTHING))
    # Of adjacent pixels the most stable one stays, which need not be the nearest.
    _, points = match_truth(root.stack, truth, line, sample, solved, reach_pixels=2.0)
    # At the edge of the scene some dates see nothing: bursts start a few lines apart.
    place = [np.rint(np.nan_to_num(axis)).astype(int) for axis in locate_truth(root.stack, truth)]
    everywhere = (slice(None), slice(None))
    dispersion = root.source.read("scene/amplitude", "amplitude_dispersion", everywhere)
    seen = np.isfinite(dispersion[tuple(place)])
    strong = seen & (truth["signal_to_clutter"].values > 10**1.8)
    share = np.isin(np.flatnonzero(strong), points).mean()
    print(f"share of scatterers above 18 dB that were found: {share:.3f}")
    assert share > 0.95


def expected_phase(
    root: Root, truth: xr.Dataset, date: str, rows: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Phase of reference * conj(date) of true scatterers at the pixels of table rows, rad."""
    stack = root.stack
    read = root.source.read
    dates = [str(np.datetime64(d, "D")) for d in truth["date"].values]
    here, there = dates.index(stack.reference_date), dates.index(date)
    ecef = geodetic_to_ecef(
        np.radians(truth["latitude_deg"].values[points]),
        np.radians(truth["longitude_deg"].values[points]),
        truth["height_m"].values[points],
    )
    line, sample = (
        read("scene/scatterers", "line", EVERYTHING)[rows],
        read("scene/scatterers", "sample", EVERYTHING)[rows],
    )
    height = read("scene/scatterers", "height", EVERYTHING)[rows].astype(float)
    extra = np.full(len(rows), np.nan)
    for place in stack.scene.placements:
        top, bottom, left, right = place.owned
        mine = (line >= top) & (line < bottom) & (sample >= left) & (sample < right)
        reference, secondary = stack.reference(place.burst_id), stack.images[place.burst_id, date]
        own = [axis[mine] for axis in ecef]
        difference = range_m(secondary, own) - range_m(reference, own)
        offset = read_offsets(root.source, place.burst_id, date).range
        pixels = evaluate_points(
            offset, line[mine] - place.azimuth, sample[mine] - place.range, height[mine]
        )
        removed = (
            pixels * reference.range_spacing_m + secondary.near_range_m - reference.near_range_m
        )
        extra[mine] = difference - removed
    delay = truth["atmosphere_m"].values[points] - truth["displacement_m"].values[points]
    wavelength = truth.attrs["wavelength_m"]
    return 4 * np.pi / wavelength * (extra + delay[:, there] - delay[:, here])


def range_m(image: BurstImage, ecef: list[np.ndarray]) -> np.ndarray:
    return geo2rdr(burst_orbit(image), *ecef, 0.5 * burst_duration_s(image))[1]


def test_phase_at_strong_scatterers(strong: tuple[Root, xr.Dataset]) -> None:
    root, truth = strong
    read = root.source.read
    # The pixel on which the scatterer stands, not one beside it, which holds less of its power.
    rows, points = match_truth(
        root.stack,
        truth,
        read("scene/scatterers", "line", EVERYTHING),
        read("scene/scatterers", "sample", EVERYTHING),
        read("scene/scatterers", "valid_mask", EVERYTHING) > 0,
        reach_pixels=0.5,
    )
    assert len(rows) >= 100
    phase = read("scene/scatterers", "phase", (slice(None), slice(None)))[rows]
    residual = []
    for date in root.stack.dates:
        if date != root.stack.reference_date:
            turned = phase[:, root.stack.date_index(date)] - expected_phase(
                root, truth, date, rows, points
            )
            residual.append(np.angle(np.exp(1j * turned)))
    rms = float(np.sqrt(np.mean(np.square(residual))))
    print(
        f"phase at {len(rows)} scatterers of 35 to 39 dB: "
        f"rms {rms:.4f} rad, mean {np.mean(residual):+.4f}"
    )
    assert rms < 0.05


def test_coordinates(psi: tuple[Root, xr.Dataset]) -> None:
    """The simulator's image positions, brought back to the ground, are where it put them."""
    root, truth = psi
    worst = 0.0
    for index, burst in enumerate(truth.attrs["burst_ids"]):
        image = root.stack.reference(burst)
        mine = truth["burst_index"].values == index
        time = truth["azimuth_line"].values[mine] * image.azimuth_time_interval_s
        distance = image.near_range_m + truth["range_sample"].values[mine] * image.range_spacing_m
        found = rdr2geo_at_height(
            burst_orbit(image), time, distance, truth["height_m"].values[mine]
        )
        north = (np.degrees(found[0]) - truth["latitude_deg"].values[mine]) * 111_000
        east = (np.degrees(found[1]) - truth["longitude_deg"].values[mine]) * 111_000
        worst = max(worst, float(np.abs(north).max()), float(np.abs(east).max()))
    print(f"largest error of the coordinates: {worst:.3f} m")
    assert worst < 1.0


def test_geometry_product(psi: tuple[Root, xr.Dataset]) -> None:
    """Scatterers that stand on the elevation model have the coordinates of their pixel."""
    root, truth = psi
    line, sample = locate_truth(root.stack, truth)
    on_ground = np.isfinite(line) & (np.abs(truth["dem_error_m"].values) < 0.3)
    checked = 0
    for place in root.stack.scene.placements:
        top, bottom, left, right = place.owned
        row, column = line - place.azimuth, sample - place.range
        mine = np.flatnonzero(
            on_ground
            & (line >= top)
            & (line < bottom - 1)
            & (sample >= left)
            & (sample < right - 1)
        )
        whole = (slice(None), slice(None))
        for name in ("latitude", "longitude"):
            image = root.source.read(f"bursts/{place.burst_id}/geometry", name, whole)
            i, j = np.floor(row[mine]).astype(int), np.floor(column[mine]).astype(int)
            u, v = row[mine] - i, column[mine] - j
            value = (image[i, j] * (1 - u) + image[i + 1, j] * u) * (1 - v)
            value += (image[i, j + 1] * (1 - u) + image[i + 1, j + 1] * u) * v
            error = (value - truth[f"{name}_deg"].values[mine]) * 111_000
            assert np.abs(error).max() < 1.0
        checked += len(mine)
    assert checked > 20


def test_azimuth_misregistration(overlap: tuple[Root, xr.Dataset]) -> None:
    root, truth = overlap
    for index, date in enumerate(root.stack.dates):
        item = root.summaries["alignment"][date]
        error = item["azimuth_shift_lines"] - truth["azimuth_misregistration_lines"].values[index]
        print(f"{date}: azimuth shift {item['azimuth_shift_lines']:+.5f}, error {error:+.6f} line")
        assert abs(error) < 0.001
        if date != root.stack.reference_date:
            assert abs(error) < 5 * item["azimuth_shift_sigma_lines"] < 0.001


def test_coherence(overlap: tuple[Root, xr.Dataset]) -> None:
    root, truth = overlap
    read = root.source.read
    looks = read("scene/interferogram", "effective_looks", (slice(None),) * 3)
    found = read("scene/interferogram", "coherence", (slice(None),) * 3)
    assert np.nanmax(looks) > 50
    reference = root.stack.date_index(root.stack.reference_date)
    others = [k for k in range(len(root.stack.dates)) if k != reference]
    for row, date in enumerate(others):
        full = (looks[row] > 50) & np.isfinite(found[row])
        mean, injected = (
            float(found[row][full].mean()),
            float(truth["coherence"].values[reference, date]),
        )
        print(f"{root.stack.dates[date]}: coherence {mean:.3f}, injected {injected:.3f}")
        assert mean == pytest.approx(injected, abs=0.03)


def test_interferogram_has_no_seam_between_bursts(overlap: tuple[Root, xr.Dataset]) -> None:
    """Without motion and atmosphere the phase is zero in both bursts and across their seam."""
    root, _ = overlap
    phase = root.source.read("scene/interferogram", "phase", (slice(None),) * 3)
    coherence = root.source.read("scene/interferogram", "coherence", (slice(None),) * 3)
    seam = root.stack.scene.placements[0].owned[1] // root.stack.scene.looks[0]
    weight = np.nan_to_num(coherence) ** 2
    for image, share in zip(np.nan_to_num(phase), weight, strict=True):
        rows = (share * np.exp(1j * image)).sum(axis=1)
        above, below = np.angle(rows[:seam].sum()), np.angle(rows[seam:].sum())
        print(f"mean phase above and below the seam: {above:+.4f} {below:+.4f} rad")
        assert abs(np.angle(np.exp(1j * (above - below)))) < 0.05
