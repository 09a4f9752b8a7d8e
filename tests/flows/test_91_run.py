"""Whole runs on a small simulated stack: repeated, killed, resumed, by every engine."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bperp
from bperp.flows.config import StackConfig, write_config
from bperp.flows.engine import Selection, SerialExecutor, run_stages
from bperp.flows.export import export_product
from bperp.flows.root import Root
from bperp.flows.run import run_stack, setup_run, stack_status
from bperp.flows.simulation import simulate_stack
from bperp.flows.simulation_options import PRESETS
from bperp.flows.stack_index import index_stack
from bperp.stores.errors import BperpError
from bperp.stores.stamps import read_stamps_tree, validate_stamps_tree

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAFE products, orbits and elevations of six dates."""
    folder = tmp_path_factory.mktemp("inputs")
    simulate_stack(folder, dataclasses.replace(PRESETS["tiny"], seed=5))
    return folder


def configuration(inputs: Path, root: Path, **changes: Any) -> StackConfig:
    values = {
        "root": str(root),
        "slc": [str(inputs / "safe" / "*.SAFE")],
        "orbits": {"folders": [str(inputs / "orbits")]},
        "dem": {"path": str(inputs / "dem.tif")},
        "scatterers": {"min_phase_stability": 0.9},
        "export": {"formats": ["stamps", "csv"]},
    }
    return StackConfig.from_values(values | changes)


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> StackConfig:
    """A root that one process has made from beginning to end."""
    config = configuration(inputs, tmp_path_factory.mktemp("finished") / "root")
    summary = run_stack(config, engine="serial")
    assert summary["tasks_run"] > 30
    return config


def markers(root: Path | str) -> dict[str, bytes]:
    """Markers hold the digests of all blocks: equal markers, equal bytes."""
    found = {path.name: path.read_bytes() for path in (Path(root) / "markers").glob("*.json")}
    assert found
    return found


def test_a_second_run_does_nothing(finished: StackConfig) -> None:
    before = markers(finished.root)
    summary = run_stack(finished, engine="serial")
    assert summary["tasks_run"] == 0
    assert all(stage["status"] == "current" for stage in summary["stages"])
    assert all(export["unchanged"] for export in summary["exports"])
    assert markers(finished.root) == before


@pytest.mark.cluster
def test_dask_workers_write_the_same_bytes(
    finished: StackConfig, inputs: Path, tmp_path: Path
) -> None:
    run_stack(configuration(inputs, tmp_path / "root"), engine="local", workers=2)
    assert markers(tmp_path / "root") == markers(finished.root)


@pytest.mark.cluster
def test_a_killed_run_resumes_to_the_same_bytes(
    finished: StackConfig, inputs: Path, tmp_path: Path
) -> None:
    config = configuration(inputs, tmp_path / "root")
    write_config(config, tmp_path / "stack.yaml")
    command = [
        sys.executable,
        "-m",
        "bperp.flows.cli",
        "run",
        str(tmp_path / "stack.yaml"),
        "--json",
    ]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    receipts = tmp_path / "root" / "receipts" / "coregister"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not any(receipts.rglob("*.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(BperpError, match="R801"):
        Root.open(config.root).source.read("scene/timeseries", "line", (slice(0, 1),))
    summary = run_stack(config, engine="serial")
    assert summary["stages"][0]["run"] == 0, "ingest was finished and is not repeated"
    assert markers(config.root) == markers(finished.root)


@pytest.mark.prefect
def test_a_prefect_flow_writes_the_same_bytes(
    finished: StackConfig, inputs: Path, tmp_path: Path
) -> None:
    run_stack(configuration(inputs, tmp_path / "root"), engine="prefect", workers=2)
    assert markers(tmp_path / "root") == markers(finished.root)


def test_an_option_invalidates_exactly_what_depends_on_it(finished: StackConfig) -> None:
    values = finished.as_values()
    values["timeseries"]["min_arc_coherence"] = 0.8
    plan = run_stack(StackConfig.from_values(values), dry_run=True)
    status = {stage["name"]: stage["status"] for stage in plan["stages"]}
    assert status.pop("timeseries") == "planned"
    assert set(status.values()) == {"current"}
    values["misregistration"]["max_shift_lines"] = 0.04
    plan = run_stack(StackConfig.from_values(values), dry_run=True)
    status = {stage["name"]: stage["status"] for stage in plan["stages"]}
    current = [name for name, state in status.items() if state == "current"]
    # Filter, geocode and publish are switched off: nothing is left to do there.
    assert current == ["ingest", "geometry", "filter", "geocode", "publish"]


def test_a_replaced_product_is_noticed(finished: StackConfig, inputs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "safe"
    shutil.copytree(inputs / "safe", copy)
    product = sorted(copy.iterdir())[2]
    manifest = product / "manifest.safe"
    text = manifest.read_text()
    checksum = re.search(r"[0-9a-f]{32}", text)
    assert checksum is not None
    before = index_stack(configuration(inputs, tmp_path / "root", slc=[str(copy / "*.SAFE")]))
    manifest.write_text(text.replace(checksum[0], "0" * 32))
    after = index_stack(configuration(inputs, tmp_path / "root", slc=[str(copy / "*.SAFE")]))
    changed = {
        date
        for (burst, date), image in before.stack.images.items()
        if after.stack.images[burst, date] != image
    }
    assert changed == {before.stack.dates[2]}


def test_status_and_datasets(finished: StackConfig) -> None:
    status = stack_status(finished.root)
    assert all(step["finished"] for step in status["steps"].values())
    products = bperp.open(finished.root)
    series = products["scene/timeseries"]
    assert series.displacement.dims == ("scatterer", "date")
    assert series.displacement.attrs["positive"] == "towards the satellite"
    reference = series.date.values == np.datetime64(status["reference_date"])
    known = np.isfinite(series.velocity_los.values)
    assert np.abs(series.displacement.values[known][:, reference]).max() < 1e-9
    burst = products[f"bursts/{status['bursts'][0]}/coregistered"]
    assert burst.slc.dims == ("date", "azimuth", "range", "iq")


def test_exported_tree_holds_the_interferograms(finished: StackConfig) -> None:
    path = Path(export_product(finished.root, "stamps")["path"])
    assert [finding for finding in validate_stamps_tree(path) if finding.severity == "error"] == []
    tree = read_stamps_tree(path)
    root = Root.open(finished.root)
    date = next(d for d in root.stack.dates if d != root.stack.reference_date)
    rows = tree.read_interferogram_rows(date.replace("-", ""), 100, 116)
    burst = root.stack.scene.placements[0]
    here = root.stack.date_index(root.stack.reference_date)
    window = (slice(100 - burst.azimuth, 116 - burst.azimuth), slice(None), slice(None))

    def read(index: int) -> np.ndarray:
        pairs = root.source.read(
            f"bursts/{burst.burst_id}/coregistered", "slc", (slice(index, index + 1), *window)
        )[0].astype(np.float32)
        return pairs[..., 0] + 1j * pairs[..., 1]

    expected = read(here) * np.conj(read(root.stack.date_index(date)))
    inside = slice(burst.owned[2], burst.owned[3])
    assert np.array_equal(rows[:, inside], expected.astype(np.complex64)[:, inside])
    assert np.any(rows[:, inside] != 0)
    table = export_product(finished.root, "csv")
    header = Path(table["path"]).read_text().splitlines()[0]
    assert header == "lon,lat,height_m,velocity_mm_yr,sigma_mm_yr,coherence"


def test_a_missing_burst_is_a_hole(inputs: Path, tmp_path: Path) -> None:
    setup = setup_run(configuration(inputs, tmp_path / "root"))
    stack = setup.context.stack
    date = next(d for d in stack.dates if d != stack.reference_date)
    lost = stack.burst_ids[1]
    images = {key: image for key, image in stack.images.items() if key != (lost, date)}
    setup.context.stack = dataclasses.replace(stack, images=images)
    run_stages(
        setup.stages,
        setup.context,
        setup.store,
        SerialExecutor(),
        selection=Selection(last="timeseries"),
    )
    products = bperp.open(str(tmp_path / "root"))
    pair = np.flatnonzero(
        products["scene/interferogram"].secondary_date.values == np.datetime64(date)
    )
    coherence = products["scene/interferogram"].coherence.values[pair[0]]
    seam = stack.scene.placements[1].owned[0] // stack.scene.looks[0]
    assert np.isfinite(coherence[10 : seam - 1, 5:-5]).all()
    assert np.isnan(coherence[seam:]).all()
    series = products["scene/timeseries"]
    column = series.date.values == np.datetime64(date)
    assert np.isnan(series.displacement.values[:, column]).all()
    assert np.isfinite(series.velocity_los.values).any()


def test_bad_inputs_end_in_one_line(inputs: Path, tmp_path: Path) -> None:
    values = configuration(inputs, tmp_path / "root").as_values()
    values["dem"]["path"] = str(tmp_path / "none.tif")
    (tmp_path / "stack.yaml").write_text(json.dumps(values))
    command = [
        sys.executable,
        "-m",
        "bperp.flows.cli",
        "run",
        str(tmp_path / "stack.yaml"),
        "--engine",
        "serial",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert "none.tif" in line
    assert "fix:" in line
    assert "Traceback" not in result.stderr
