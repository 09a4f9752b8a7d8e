"""The published cubes of a simulated stack: against the scatterers, the truth, another history."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import xarray

import bperp
from bperp.flows.config import StackConfig
from bperp.flows.engine import Selection, SerialExecutor, run_stages
from bperp.flows.picture_maps import GriddedMap
from bperp.flows.root import Root
from bperp.flows.run import setup_run
from bperp.flows.simulation import simulate_stack
from bperp.flows.simulation_options import PRESETS
from bperp.flows.step_pictures import draw_step
from bperp.flows.validation import open_truth
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError, StorageError
from bperp.stores.receipts import Ledger
from bperp.stores.verify import verify_store

pytestmark = pytest.mark.slow

CUBES = ("results/displacement", "results/overviews", "results/series")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    simulate_stack(folder, dataclasses.replace(PRESETS["tiny"], seed=5))
    return folder


def configuration(inputs: Path, root: Path, **changes: Any) -> StackConfig:
    values = {
        "root": str(root),
        "slc": [str(inputs / "safe" / "*.SAFE")],
        "orbits": {"folders": [str(inputs / "orbits")]},
        "dem": {"path": str(inputs / "dem.tif")},
        "reference_date": "2023-01-29",
        "scatterers": {"min_phase_stability": 0.9},
        "publish": {"enabled": True},
    }
    return StackConfig.from_values(values | changes)


def process(config: StackConfig, executor: Any = None, **selection: Any) -> dict[str, Any]:
    """Run up to the last step; return what was done by step."""
    setup = setup_run(config)
    chosen = Selection(**(selection or {"last": "publish"}))
    summary = run_stages(
        setup.stages,
        setup.context,
        setup.store,
        executor or SerialExecutor(),
        selection=chosen,
    )
    return {stage.name: stage for stage in summary.stages}


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> StackConfig:
    config = configuration(inputs, tmp_path_factory.mktemp("finished") / "root")
    done = process(config)
    # A map, six images, one place and one block of the series.
    assert done["publish"].run == 8
    return config


def open_cube(root: str, name: str) -> xarray.Dataset:
    """Open a cube as a user without bperp does."""
    url = f"{root}/results/{name}"
    return xarray.open_zarr(url, consolidated=True, zarr_format=3, chunks=None)


def marker(root: str) -> bytes:
    """The marker holds the digests of all blocks: equal markers, equal bytes."""
    return (Path(root) / "markers" / "publish.json").read_bytes()


def test_the_root_lists_the_cubes(finished: StackConfig) -> None:
    products = bperp.open(finished.root)
    assert [name for name in products if name.startswith("results/")] == [
        "results/displacement",
        "results/overviews/0",
        "results/series",
    ]
    for name in ("displacement", "series"):
        ours, theirs = products[f"results/{name}"], open_cube(finished.root, name)
        theirs.attrs = {k: v for k, v in theirs.attrs.items() if not k.startswith("bperp_")}
        xarray.testing.assert_identical(ours.load(), theirs.load())


def test_cells_are_the_means_of_the_scatterers_in_them(finished: StackConfig) -> None:
    table = bperp.open(finished.root)["scene/timeseries"].load()
    cube = open_cube(finished.root, "displacement")
    forth = pyproj.Transformer.from_crs("EPSG:4326", cube.attrs["crs"], always_xy=True)
    x, y = forth.transform(table.longitude.values, table.latitude.values)
    a, _, c, _, e, f = cube.attrs["spatial:transform"]
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in np.flatnonzero(np.isfinite(table.velocity_los.values)):
        members[math.floor((y[index] - f) / e), math.floor((x[index] - c) / a)].append(index)
    count = cube.scatterer_count.values
    assert {cell: len(rows) for cell, rows in members.items()} == {
        cell: count[cell] for cell in zip(*np.nonzero(count), strict=True)
    }
    assert len(members) > 500
    assert count.max() > 10
    errors = []
    for cell, rows in members.items():
        weights = table.velocity_sigma.values[rows] ** -2.0
        velocity = np.average(table.velocity_los.values[rows], weights=weights)
        assert cube.velocity_los.values[cell] == pytest.approx(velocity, rel=1e-6, abs=1e-9)
        series = np.average(table.displacement.values[rows], axis=0, weights=weights)
        errors.append(np.abs(cube.displacement.values[:, cell[0], cell[1]] - series).max())
    print(f"largest difference of a displacement: {1e3 * max(errors):.5f} mm")
    assert max(errors) < 1e-5, "a hundredth of a millimetre"


def test_both_forms_agree_and_the_reference_date_is_zero(finished: StackConfig) -> None:
    images, series = (open_cube(finished.root, name) for name in ("displacement", "series"))
    values = images.displacement.values
    assert values.tobytes() == series.displacement.values.tobytes()
    reference = images.date.values == np.datetime64(images.attrs["reference_date"])
    assert np.nanmax(np.abs(values[reference])) == 0.0
    overview = open_cube(finished.root, "overviews/0")
    np.testing.assert_array_equal(overview.displacement.values, values[-1])
    np.testing.assert_array_equal(overview.velocity_los.values, images.velocity_los.values)
    assert overview.date.values == images.date.values[-1]


def test_cells_are_nearer_to_the_truth_than_their_scatterers(
    finished: StackConfig, inputs: Path
) -> None:
    truth = open_truth(inputs / "truth.zarr")
    grid = GriddedMap(
        truth["longitude"].values, truth["latitude"].values, truth["velocity_los"].values
    )
    table = bperp.open(finished.root)["scene/timeseries"].load()
    lon, lat = table.longitude.values, table.latitude.values
    area = table.reference_mask.values > 0
    zero = float(np.mean(grid.at(lon[area], lat[area])))
    single = table.velocity_los.values - (grid.at(lon, lat) - zero)
    cube = open_cube(finished.root, "displacement")
    back = pyproj.Transformer.from_crs(cube.attrs["crs"], "EPSG:4326", always_xy=True)
    east, north = np.meshgrid(cube.x.values, cube.y.values)
    cells = cube.velocity_los.values - (grid.at(*back.transform(east, north)) - zero)
    rms = [1e3 * float(np.sqrt(np.nanmean(error**2))) for error in (single, cells)]
    print(f"velocity against the truth: scatterers {rms[0]:.2f}, cells {rms[1]:.2f} mm/yr rms")
    assert np.isfinite(cells).sum() > 500
    assert rms[1] < rms[0]


def test_a_second_run_does_nothing_and_another_grid_only_publishes(
    finished: StackConfig, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    values = finished.as_values() | {"root": str(root)}
    again = StackConfig.from_values(values)
    assert {stage.status for stage in process(again).values()} == {"current"}
    values["publish"] = values["publish"] | {"crs": "EPSG:4326", "spacing": 0.002}
    done = process(StackConfig.from_values(values))
    assert {name for name, stage in done.items() if stage.status != "current"} == {"publish"}
    cube = open_cube(str(root), "displacement")
    assert (cube.x.attrs["standard_name"], cube.attrs["proj:code"]) == ("longitude", "EPSG:4326")
    assert int(cube.scatterer_count.sum()) == int(
        open_cube(finished.root, "displacement").scatterer_count.sum()
    )


def test_an_appended_date_gives_the_bytes_of_a_fresh_run(
    finished: StackConfig, inputs: Path, tmp_path: Path
) -> None:
    last = Root.open(finished.root).stack.dates[-1]
    root = tmp_path / "root"
    process(configuration(inputs, root, dates={"exclude": [last]}))
    assert open_cube(str(root), "series").sizes["date"] == 5
    done = process(configuration(inputs, root))
    # The time series of all dates was made anew from the longer stack.
    assert done["publish"].run == 8
    assert marker(str(root)) == marker(finished.root)
    for name in ("displacement", "series"):
        xarray.testing.assert_identical(
            open_cube(str(root), name).load(), open_cube(finished.root, name).load()
        )


def test_a_damaged_shard_is_found_and_made_again(finished: StackConfig, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    shards = [root / f"results/{name}/displacement/c" for name in ("series", "displacement")]
    damaged, lost = shards[0] / "0/0/0", shards[1] / "3/0/0"
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(bytes(data))
    lost.unlink()
    faults = {name: fault.code for name, fault in verify_store(CubeStore(str(root))).faults.items()}
    assert faults == {
        "results/series/displacement/c/0/0/0": "R803",
        "results/displacement/displacement/c/3/0/0": "R802",
    }


def test_unfinished_cubes_are_not_listed(finished: StackConfig, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class DyingExecutor(SerialExecutor):
        def run(self, site: Any, orders: Any) -> Any:
            for number, result in enumerate(super().run(site, orders)):
                if number == 4:
                    raise Killed
                yield result

    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    for name in ("results", "receipts/publish"):
        shutil.rmtree(root / name)
    (root / "markers" / "publish.json").unlink()
    config = StackConfig.from_values(finished.as_values() | {"root": str(root)})
    with pytest.raises(Killed):
        process(config, DyingExecutor())
    assert not [name for name in bperp.open(str(root)) if name.startswith("results/")]
    with pytest.raises(StorageError, match="R801"):
        bperp.open(f"{root}/results/series")
    assert process(config)["publish"].run == 3, "the task that was at work has its receipt"
    assert marker(str(root)) == marker(finished.root)


def test_a_cube_taken_elsewhere_opens_alone(finished: StackConfig, tmp_path: Path) -> None:
    store = CubeStore(finished.root)
    assert sorted(Ledger(store.objects).markers()["publish"].products) == sorted(CUBES)
    for product in CUBES:
        copy = tmp_path / product.rpartition("/")[2]
        shutil.copytree(Path(finished.root) / product, copy)
        (name, dataset), *_ = bperp.open(str(copy)).items()
        assert name.startswith(product)
        expected = bperp.open(finished.root)[name]
        xarray.testing.assert_identical(dataset.load(), expected.load())
    assert verify_store(CubeStore(finished.root)).faults == {}


def test_the_picture_shows_the_cells(finished: StackConfig, tmp_path: Path) -> None:
    from PIL import Image

    root = Root.open(finished.root)
    given = (tmp_path, root.stack, root.source, root.summaries, root.config)
    (path,) = draw_step("publish", *given)
    assert path.name == "13-publish.png"
    with Image.open(path) as image:
        assert min(image.size) > 400
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    nothing = {**root.summaries, "publish": {}}
    assert draw_step("publish", tmp_path, root.stack, root.source, nothing, root.config) == []


@pytest.mark.cluster
def test_workers_write_the_same_bytes(finished: StackConfig, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    shutil.rmtree(root / "results")
    values = finished.as_values() | {"root": str(root)}
    config = StackConfig.from_values(values | {"compute": {"workers": 2}})
    done = process(config, setup_run(config).dask_executor(), only=("publish",))
    assert done["publish"].run == 8
    assert marker(str(root)) == marker(finished.root)


def test_a_map_that_misses_the_scene_is_refused(finished: StackConfig) -> None:
    values = finished.as_values()
    values["publish"] = values["publish"] | {"bounds": [0.0, 0.0, 1000.0, 1000.0]}
    with pytest.raises(BperpError, match=r"C102 publish\.bounds"):
        process(StackConfig.from_values(values))
