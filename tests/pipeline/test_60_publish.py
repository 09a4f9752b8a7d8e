"""Publishing: cells hold means of their scatterers, whatever the tiles, and cost few requests."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
import pytest
import zarr
from fault_proxy import fault_proxy
from moto_endpoint import exported

from bperp.pipeline import publish, publish_cells, publish_layout
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.map_grid import MapGrid
from bperp.pipeline.publish_cells import halve, round_displacement
from bperp.pipeline.publish_layout import (
    DISPLACEMENT,
    MAPS,
    OVERVIEWS,
    SERIES,
    SERIES_DATES,
    level_count,
)
from bperp.pipeline.stack import Stack, arrange_scene
from bperp.pipeline.stage import Plan, Task
from bperp.stores.blocks import PlacedBlock
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ConfigurationError
from bperp.stores.layout import layout_digest, render_product

TABLE = "scene/timeseries"
MakeBurst = Callable[..., BurstImage]
SCATTERERS = 900


def dates_of(count: int) -> tuple[str, ...]:
    first = np.datetime64("2015-01-05", "D")
    return tuple(str(first + 6 * number) for number in range(count))


def make_stack(make: MakeBurst, count: int) -> Stack:
    """One burst of 6 km x 6 km on many dates; the burst of the last date but one is missing."""
    dates = dates_of(count)
    fields = {"lines": 420, "samples": 1500, "valid": (6, 414, 24, 1476)}
    burst = make(date=dates[0], **fields)
    other = make(date=dates[0], **{**fields, "burst_id": "t001_000002_iw1"},
                 first_line_time_ns=burst.first_line_time_ns + 720_000_000)  # fmt: skip
    times = tuple(time - 0.72 for time in burst.orbit.time_s)
    other = dataclasses.replace(other, orbit=dataclasses.replace(other.orbit, time_s=times))
    bursts = [burst, other]
    images = {(b.burst_id, d): dataclasses.replace(b, date=d) for b in bursts for d in dates}
    if count > 2:
        images.pop((other.burst_id, dates[-2]))
    return Stack(dates[0], dates, images, arrange_scene(bursts, (1, 1)))


class Table:
    """A table of scatterers as a source; remembers what was read of it."""

    def __init__(self, box_deg: tuple[float, float, float, float], dates: tuple[str, ...],
                 count: int = SCATTERERS, seed: int = 1) -> None:  # fmt: skip
        random = np.random.default_rng(seed)
        west, south, east, north = box_deg
        lost = random.random(count) < 0.1
        velocity = random.normal(0.0, 0.01, count)
        displacement = random.normal(0.0, 0.02, (count, len(dates))).astype(np.float32)
        velocity[lost], displacement[lost] = np.nan, np.nan
        displacement[random.random(displacement.shape) < 0.02] = np.nan
        displacement[:, -2] = np.nan  # a date without all bursts
        sigma = random.uniform(0.2e-3, 3e-3, count)
        sigma[random.random(count) < 0.05] = np.nan
        self.arrays: dict[str, np.ndarray] = {
            "longitude": random.uniform(west, east, count),
            "latitude": random.uniform(south, north, count),
            "velocity_los": velocity,
            "velocity_sigma": sigma,
            "dem_error": np.where(random.random(count) < 0.1, np.nan, random.normal(size=count)),
            "height": random.uniform(0, 900, count).astype(np.float32),
            "temporal_coherence": random.random(count).astype(np.float32),
            "phase_noise": random.random(count).astype(np.float32),
            "displacement": displacement,
            "date": np.array(dates, "datetime64[D]").astype(np.int64),
        }
        self.windows: list[tuple[str, tuple[int, ...]]] = []
        self.made: dict[str, Any] = {}

    def read(self, product: str, variable: str, region: tuple[slice, ...]) -> np.ndarray:
        assert product == TABLE
        window = self.arrays[variable][region]
        self.windows.append((variable, window.shape))
        return window.copy()

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        return make()


class Context:
    """What the stage sees of a stack with a finished time series."""

    def __init__(self, stack: Stack, count: int = SCATTERERS, **options: Any) -> None:
        given = {"enabled": True, "crs": "auto", "spacing": "auto", "bounds": "auto", **options}
        self.stack, self.options = stack, {"publish": given}
        self._receipts = {
            "timeseries": {"scene": {"summary": {"scatterers": count}}},
            "geometry": {
                burst: {"summary": {"height_min_m": 0.0, "height_max_m": 100.0}}
                for burst in stack.burst_ids
            },
        }

    def receipts(self, stage: str) -> dict[str, dict[str, Any]]:
        return self._receipts[stage]


def inputs_of(task: Task) -> dict[str, Any]:
    """Return what the engine hands to the task."""
    return json.loads(json.dumps({**task.parameters, **task.locations}))


def run(plan: Plan, source: Any) -> dict[tuple[str, str], np.ndarray]:
    """Compute all tasks; every element is written exactly once, by whole shards."""
    specs = {(t.product, spec.name): spec for t in plan.templates for spec in t.arrays}
    arrays = {key: np.zeros(spec.shape, spec.dtype) for key, spec in specs.items()}
    written = {key: np.zeros(spec.shape, np.int64) for key, spec in specs.items()}
    dates = list(plan.templates[0].coordinates["date"][1])
    for task in plan.tasks:
        for block in publish.STAGE.compute(inputs_of(task), source):
            assert block.product in task.outputs
            spec, origin = specs[block.product, block.variable], block.origin
            if isinstance(origin[0], str):
                assert task.labels == (origin[0],)
                day = np.datetime64(origin[0], "D").astype(np.int64)
                origin = (dates.index(day), *origin[1:])
            assert block.data.dtype == np.dtype(spec.dtype)
            ends = [o + n for o, n in zip(origin, block.data.shape, strict=True)]
            for start, end, edge, size in zip(origin, ends, spec.shards, spec.shape, strict=True):
                assert start % edge == 0
                assert end in (size, start + edge)
            place = tuple(slice(o, e) for o, e in zip(origin, ends, strict=True))
            arrays[block.product, block.variable][place] = block.data
            written[block.product, block.variable][place] += 1
    for key, count in written.items():
        assert (count == 1).all(), key
    return arrays


def box_of(plan: Plan) -> tuple[float, float, float, float]:
    """Return west, south, east, north of the inner part of a UTM map, in degrees."""
    x, y = (plan.templates[0].coordinates[name][1] for name in ("x", "y"))
    crs = plan.templates[0].attributes["proj:code"]
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    west, south = back.transform(x[3], y[-4])
    east, north = back.transform(x[-4], y[3])
    return west, south, east, north


@dataclasses.dataclass
class Case:
    stack: Stack
    table: Table
    plan: Plan
    arrays: dict[tuple[str, str], np.ndarray]


DATES = 5


@pytest.fixture(scope="module")
def case(make_burst: MakeBurst) -> Case:
    stack = make_stack(make_burst, DATES)
    plan = publish.STAGE.plan(Context(stack))
    table = Table(box_of(plan), stack.dates)
    return Case(stack, table, plan, run(plan, table))


def cells_of(case: Case, crs: str, spacing: float) -> dict[tuple[int, int], list[int]]:
    """Sort the connected scatterers into cells, one by one."""
    forth = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x0, y0 = (case.plan.templates[0].coordinates[name][1][0] for name in ("x", "y"))
    cells = defaultdict(list)
    columns = case.table.arrays
    for row, velocity in enumerate(columns["velocity_los"]):
        if math.isfinite(velocity):
            x, y = forth.transform(columns["longitude"][row], columns["latitude"][row])
            cell = math.floor((y0 - y) / spacing + 0.5), math.floor((x - x0) / spacing + 0.5)
            cells[cell].append(row)
    return cells


def weighted_mean(values: list[float], sigmas: list[float]) -> float:
    pairs = [
        (value, (sigma if math.isfinite(sigma) else 1.0) ** -2)
        for value, sigma in zip(values, sigmas, strict=True)
        if math.isfinite(value)
    ]
    total = math.fsum(weight for _, weight in pairs)
    return math.fsum(v * weight for v, weight in pairs) / total if pairs else math.nan


# --- numbers ---------------------------------------------------------------------------------


def test_cells_hold_the_weighted_means_of_their_scatterers(case: Case) -> None:
    columns, cells = case.table.arrays, cells_of(case, "EPSG:32631", 100.0)
    count = case.arrays[DISPLACEMENT, "scatterer_count"]
    assert count.sum() == np.isfinite(columns["velocity_los"]).sum()
    assert set(zip(*np.nonzero(count), strict=True)) == set(cells)
    assert max(map(len, cells.values())) >= 3
    displacement = case.arrays[DISPLACEMENT, "displacement"]
    for cell, rows in cells.items():
        assert count[cell] == len(rows)
        sigmas = [columns["velocity_sigma"][row] for row in rows]
        for variable in MAPS:
            expected = weighted_mean([columns[variable.name][row] for row in rows], sigmas)
            found = case.arrays[DISPLACEMENT, variable.name][cell]
            assert found == pytest.approx(expected, rel=1e-6, nan_ok=True), variable.name
        for date in range(DATES):
            expected = weighted_mean([columns["displacement"][row, date] for row in rows], sigmas)
            assert displacement[date][cell] == pytest.approx(expected, abs=4e-6, nan_ok=True)


def test_empty_cells_and_dates_are_gaps(case: Case) -> None:
    empty = case.arrays[DISPLACEMENT, "scatterer_count"] == 0
    assert 0.5 < empty.mean() < 0.95
    for (product, name), values in case.arrays.items():
        if product == DISPLACEMENT and name != "scatterer_count":
            assert np.isnan(values[..., empty]).all(), name
    assert np.isnan(case.arrays[DISPLACEMENT, "displacement"][-2]).all()
    assert np.isfinite(case.arrays[DISPLACEMENT, "displacement"][-1]).any()


def test_a_scene_without_connected_scatterers_is_all_gaps(case: Case) -> None:
    table = Table(box_of(case.plan), case.stack.dates)
    table.arrays["velocity_los"][:] = np.nan
    found = run(case.plan, table)
    assert not found.pop((DISPLACEMENT, "scatterer_count")).any()
    assert all(np.isnan(values).all() for values in found.values())


def test_both_forms_hold_the_same_bytes(case: Case) -> None:
    images = case.arrays[DISPLACEMENT, "displacement"]
    assert images.tobytes() == case.arrays[SERIES, "displacement"].tobytes()
    for name in ("x", "y", "date"):
        first, second = (t.coordinates[name][1] for t in case.plan.templates[:2])
        np.testing.assert_array_equal(first, second)


def test_the_slope_of_a_cell_is_its_velocity(case: Case) -> None:
    """All variables of a cell are means with the same weights."""
    table = Table(box_of(case.plan), case.stack.dates, seed=4)
    years = np.arange(DATES) * 6 / 365.25
    table.arrays["displacement"] = (table.arrays["velocity_los"][:, None] * years).astype("f4")
    found = run(case.plan, table)
    series, velocity = found[SERIES, "displacement"], found[DISPLACEMENT, "velocity_los"]
    known = np.isfinite(velocity)
    expected = velocity[known] * years[:, None]
    assert np.abs(series[:, known] - expected).max() < 4.1e-6


def test_rounding_stays_below_a_hundredth_of_a_millimetre_and_pays(tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    exact = np.cumsum(random.normal(0.0, 0.003, (64, 64, 64)), axis=0).astype(np.float32)
    exact[:, random.random((64, 64)) < 0.5] = np.nan
    rounded = round_displacement(exact.copy())
    error = np.abs(rounded.astype(np.float64) - exact)
    assert np.nanmax(error) <= 2.0**-18 < 4e-6
    assert np.array_equal(np.isnan(rounded), np.isnan(exact))
    assert not np.signbit(round_displacement(np.array([-1e-9], np.float32)))[0]
    sizes = []
    for name, values in (("exact", exact), ("rounded", rounded)):
        plan = publish_layout.published_templates(
            fake_stack(64), MapGrid("EPSG:32633", 100.0, 5000, 40000, 64, 64), dates_of(64)[-1]
        )
        store = CubeStore(str(tmp_path / name))
        store.create(plan[1])
        store.write_block(PlacedBlock(SERIES, "displacement", (0, 0, 0), values))
        sizes.append(sum(p.stat().st_size for p in (tmp_path / name).rglob("c/0/0/0")))
    print(f"{exact.nbytes} bytes: {sizes[0]} exact, {sizes[1]} rounded")
    assert sizes[1] < 0.75 * sizes[0]


def fake_stack(count: int) -> Any:
    """What the templates need of a stack."""

    @dataclasses.dataclass
    class Dated:
        dates: tuple[str, ...]
        reference_date: str

    return Dated(dates_of(count), dates_of(count)[0])


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (1, 1), (1, 8)])
def test_halving_averages_what_there_is(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    image[np.random.default_rng(3).random(shape) < 0.4] = np.nan
    found = halve(image)
    assert found.shape == (-(-shape[0] // 2), -(-shape[1] // 2))
    for (row, column), value in np.ndenumerate(found):
        block = image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        known = block[np.isfinite(block)].astype(np.float64)
        expected = known.mean() if known.size else math.nan
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-7, nan_ok=True)


# --- maps ------------------------------------------------------------------------------------


def test_a_map_in_degrees(case: Case) -> None:
    plan = publish.STAGE.plan(Context(case.stack, crs="EPSG:4326"))
    assert plan.templates[0].attributes["spacing"] == 8e-4
    found = run(plan, case.table)
    degrees = Case(case.stack, case.table, plan, found)
    cells = cells_of(degrees, "EPSG:4326", 8e-4)
    count = found[DISPLACEMENT, "scatterer_count"]
    assert {cell: len(rows) for cell, rows in cells.items()} == {
        cell: count[cell] for cell in zip(*np.nonzero(count), strict=True)
    }


def test_longitudes_from_both_sides_of_the_antimeridian_meet() -> None:
    grid = MapGrid("EPSG:4326", 0.001, 179_990, 10_010, 20, 20)
    table = Table((0.0, 0.0, 1.0, 1.0), dates_of(3), count=4)
    table.arrays["longitude"] = np.array([179.9955, -179.9955, 180.0045, 179.9])
    table.arrays["latitude"] = np.full(4, 10.0005)
    table.arrays["velocity_los"] = np.zeros(4)
    found = publish_cells.locate_scatterers(table, grid, 4)
    assert found.index.tolist() == [0, 1, 2], "the last one lies beside the map"
    assert found.column.tolist() == [5, 14, 14]
    assert set(found.row.tolist()) == {9}


def test_neither_tiles_nor_pieces_change_the_numbers(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small tiles, several blocks of dates, a table in many chunks, overviews of tiles."""
    for module in (publish, publish_layout):
        monkeypatch.setattr(module, "TILE", 32)
        monkeypatch.setattr(module, "SERIES_TILE", 16)
        monkeypatch.setattr(module, "SERIES_DATES", 2)
    monkeypatch.setattr(publish_layout, "CHUNK", 8)
    monkeypatch.setattr(publish_layout, "SERIES_CHUNK", 4)
    monkeypatch.setattr(publish_layout, "SMALLEST_OVERVIEW", 20)
    monkeypatch.setattr(publish_cells, "SCATTERER_CHUNK", 64)
    monkeypatch.setattr(publish, "DATES_TOGETHER", 2)
    plan = publish.STAGE.plan(Context(case.stack))
    table = Table(box_of(plan), case.stack.dates)
    found = run(plan, table)
    keys = [task.key.split("/") for task in plan.tasks]
    assert sum(kind == "map" for kind, *_ in keys) >= 4
    blocks = [sum(key[:2] == ["series", f"00{block}"] for key in keys) for block in range(3)]
    assert blocks[0] == blocks[1] == blocks[2] > 20
    for key, values in case.arrays.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))
    assert max(shape[0] for name, shape in table.windows if name != "date") <= 64
    levels = sorted({name.split("/")[0] for product, name in found if product == OVERVIEWS})
    assert levels == ["0", "1", "2", "3"]
    for name in ("velocity_los", "displacement"):
        for finer, coarser in pairwise(levels):
            expected = halve(found[OVERVIEWS, f"{finer}/{name}"])
            np.testing.assert_array_equal(found[OVERVIEWS, f"{coarser}/{name}"], expected)
    np.testing.assert_array_equal(
        found[OVERVIEWS, "0/displacement"], found[DISPLACEMENT, "displacement"][-1]
    )


def test_overviews_show_the_last_date_that_has_values(make_burst: MakeBurst) -> None:
    stack = make_stack(make_burst, DATES)
    images = {k: v for k, v in stack.images.items() if k != (stack.burst_ids[1], stack.dates[-1])}
    plan = publish.STAGE.plan(Context(dataclasses.replace(stack, images=images)))
    overview = plan.templates[2]
    assert overview.coordinates["0/date"][1] == plan.templates[0].coordinates["date"][1][-3]
    assert plan.tasks[0].parameters["latest"] == stack.dates[-3]


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((511, 300), 1), ((512, 1), 2), ((1023, 1024), 3), ((2500, 1700), 4), ((20000, 9), 7)],
)
def test_halving_ends_below_512_cells(shape: tuple[int, int], levels: int) -> None:
    assert level_count(shape) == levels
    assert -(-max(shape) // 2 ** (levels - 1)) < 512


def test_options_that_do_not_fit_are_named_as_those_of_this_step(case: Case) -> None:
    with pytest.raises(ConfigurationError, match=r"C102 publish\.bounds.*publish\.crs"):
        publish.STAGE.plan(Context(case.stack, bounds=[0, 0, 1, 1]))


def test_nothing_is_planned_unless_asked(case: Case) -> None:
    assert publish.STAGE.plan(Context(case.stack, enabled=False)) == Plan((), ())


# --- metadata --------------------------------------------------------------------------------


def test_coordinates_transform_and_system_agree(case: Case) -> None:
    for template in case.plan.templates[:2]:
        a, _, c, _, e, f = template.attributes["spatial:transform"]
        x, y = template.coordinates["x"][1], template.coordinates["y"][1]
        np.testing.assert_allclose(x, c + a * (np.arange(len(x)) + 0.5), rtol=0, atol=1e-6)
        np.testing.assert_allclose(y, f + e * (np.arange(len(y)) + 0.5), rtol=0, atol=1e-6)
        mapping = template.coordinates["spatial_ref"][2]
        west, width, _, north, _, height = map(float, mapping["GeoTransform"].split())
        assert (west, width, north, height) == (c, a, f, e)
        assert pyproj.CRS.from_wkt(template.attributes["proj:wkt2"]).to_epsg() == 32631
        assert pyproj.CRS.from_cf(mapping).to_epsg() == 32631


def test_variables_say_what_cf_asks_for(case: Case) -> None:
    for template in case.plan.templates:
        names = {spec.name for spec in template.arrays} | set(template.coordinates)
        for spec in template.arrays:
            attributes, group = spec.attributes, spec.name.rpartition("/")[0]
            assert attributes["units"]
            assert attributes["long_name"]
            place = f"{group}/" if group else ""
            assert f"{place}{attributes['grid_mapping']}" in names
            assert set(attributes.get("ancillary_variables", "").split()) <= names
            if "valid_range" in attributes:
                low, high = attributes["valid_range"]
                values = case.arrays[template.product, spec.name]
                assert low <= np.nanmin(values)
                assert np.nanmax(values) <= high
        for name, (_, _, attributes) in template.coordinates.items():
            wanted = {"x": "X", "y": "Y", "date": "T"}.get(name.rpartition("/")[2])
            assert attributes.get("axis", "T") == (wanted or "T")
    group = json.loads(render_product(case.plan.templates[0])["zarr.json"])["attributes"]
    assert group["Conventions"] == "CF-1.11"
    assert group["bperp_schema"] == 1


def test_every_asset_of_the_overviews_exists(case: Case) -> None:
    objects = render_product(case.plan.templates[2])
    group = json.loads(objects["zarr.json"])
    for item in group["attributes"]["multiscales"]["layout"]:
        level = json.loads(objects[f"{item['asset']}/zarr.json"])
        assert level["attributes"]["spatial:transform"] == item["spatial:transform"]
        array = json.loads(objects[f"{item['asset']}/velocity_los/zarr.json"])
        assert array["shape"] == item["spatial:shape"]
        assert array["dimension_names"] == level["attributes"]["spatial:dimensions"]


# --- what an appended date costs -------------------------------------------------------------


def identities(stack: Stack) -> tuple[dict[str, str], list[str]]:
    """Return what the identity of each task is made of, given equal inputs, and the layouts."""
    plan = publish.STAGE.plan(Context(stack))
    found = {t.key: json.dumps([t.parameters, t.inputs], sort_keys=True) for t in plan.tasks}
    return found, [layout_digest(template) for template in plan.templates]


@pytest.mark.parametrize("count", [3, SERIES_DATES - 1, SERIES_DATES, SERIES_DATES + 5])
def test_an_appended_date_adds_its_image_and_changes_the_last_block(
    make_burst: MakeBurst, count: int
) -> None:
    before, layouts = identities(make_stack(make_burst, count))
    after, longer = identities(make_stack(make_burst, count + 1))
    assert layouts == longer, "no shard that exists is thrown away"
    new = {key for key in after if key not in before}
    changed = {key for key in before if after[key] != before[key]}
    assert {key for key in new if key.startswith("image")} == {
        f"image/tile-000-000/{dates_of(count + 1)[-1]}"
    }
    assert {key.split("/")[0] for key in changed} <= {"map", "series"}
    last = f"series/{count // SERIES_DATES:03d}"
    assert {key.rpartition("/")[0] for key in (new | changed) if "series" in key} == {last}
    assert not set(before) - set(after)


def test_a_date_in_between_changes_the_blocks_from_there_on(make_burst: MakeBurst) -> None:
    whole = make_stack(make_burst, 4)
    lost = whole.dates[1]
    fewer = dataclasses.replace(
        whole,
        dates=tuple(d for d in whole.dates if d != lost),
        images={key: image for key, image in whole.images.items() if key[1] != lost},
    )
    before, after = identities(fewer)[0], identities(whole)[0]
    changed = {key for key in before if after[key] != before[key]}
    assert {key.split("/")[0] for key in changed} == {"series"}


# --- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["map", "image", "series"])
def test_predicted_memory_is_enough_and_not_wild(make_burst: MakeBurst, form: str) -> None:
    stack, count = make_stack(make_burst, 120), 40_000
    plan = publish.STAGE.plan(Context(stack, count, spacing=12.5 if form != "series" else 25.0))
    table = Table(box_of(plan), stack.dates, count)
    task = max((t for t in plan.tasks if t.key.startswith(form)), key=lambda t: t.memory_bytes)
    tracemalloc.start()
    sizes = [block.data.nbytes for block in publish.STAGE.compute(inputs_of(task), table)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Unpacking a chunk of the table and packing a shard are the store's; about as much again.
    peak += 2 * min(count, publish_cells.SCATTERER_CHUNK) * len(stack.dates) * 4 + max(sizes)
    print(f"{form}: {task.memory_bytes / 1e6:.0f} MB predicted, {peak / 1e6:.0f} MB needed")
    assert peak < task.memory_bytes < 4 * peak + (64 << 20)


# --- requests --------------------------------------------------------------------------------


READER = """
import json, sys, warnings
warnings.simplefilter("error")
import xarray
from zarr.storage import FsspecStore, WrapperStore

class Counting(WrapperStore):
    requests = size = 0

    async def get(self, key, prototype, byte_range=None):
        value = await self._store.get(key, prototype, byte_range)
        Counting.requests, Counting.size = Counting.requests + 1, Counting.size + len(value or b"")
        return value

def counted():
    found = Counting.requests, Counting.size
    Counting.requests = Counting.size = 0
    return found

def opened(url):
    # Unless told not to, s3fs asks for the size of everything before it fetches it.
    store = FsspecStore.from_url(url, storage_options={"max_concurrency": 1})
    counted()
    return xarray.open_zarr(Counting(store), consolidated=True, zarr_format=3, chunks=None)

for url, x, y in json.loads(sys.argv[1]):
    series = opened(f"{url}/results/series")
    opening = counted()
    pixel = series.displacement.sel(x=x, y=y, method="nearest").values.tolist()
    reading = counted()
    images = opened(f"{url}/results/displacement")
    row, column = (int(abs(images[name].values - at).argmin()) for name, at in (("y", y), ("x", x)))
    counted()
    image = images.displacement.isel(date=-1).values
    print(json.dumps([opening, reading, counted(), pixel, float(image[row, column])]))
"""


def write_cubes(root: str, make: MakeBurst, count: int) -> tuple[list[float], np.ndarray]:
    """Write the series and the last image of a small map; return a place and its series."""
    plan = publish.STAGE.plan(Context(make_stack(make, count)))
    table = Table(box_of(plan), dates_of(count))
    store = CubeStore(root)
    for template in plan.templates[:2]:
        store.create(template)
    chosen = [task for task in plan.tasks if task.key.startswith("series")]
    chosen.append(next(t for t in plan.tasks if t.key.endswith(dates_of(count)[-1])))
    place, series = [0.0, 0.0], np.zeros(0)
    for task in chosen:
        for block in publish.STAGE.compute(inputs_of(task), table):
            first = count - 1 if isinstance(block.origin[0], str) else block.origin[0]
            origin = (int(first), *(int(edge) for edge in block.origin[1:]))
            store.write_block(PlacedBlock(block.product, block.variable, origin, block.data))
            if block.product == SERIES:
                row, column = np.argwhere(np.isfinite(block.data[-1]))[20]
                axes = zip(("x", "y"), (origin[2] + column, origin[1] + row), strict=True)
                coordinates = plan.templates[1].coordinates
                place = [float(coordinates[name][1][index]) for name, index in axes]
                series = block.data[:, row, column]
    return place, series


@pytest.mark.slow
def test_a_pixel_costs_at_most_eight_requests_and_an_image_one(
    make_burst: MakeBurst, s3: Any
) -> None:
    counts = (400, 700)
    written = [write_cubes(f"{s3.root}/{count}", make_burst, count) for count in counts]
    asked = [[f"{s3.root}/{n}", *place] for n, (place, _) in zip(counts, written, strict=True)]
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        command = [sys.executable, "-c", READER, json.dumps(asked)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    for count, (_, series), answer in zip(counts, written, answers, strict=True):
        opening, reading, showing, pixel, shown = answer
        wire = [item for item in proxy.requests if f"/{count}/results/series" in item[1]]
        print(f"{count} dates: opening {opening[0]} requests, {opening[1]} bytes; pixel "
              f"{reading[0]} requests, {reading[1]} bytes; image {showing[0]} request, "
              f"{showing[1]} bytes; on the wire {len(wire)}")  # fmt: skip
        assert len(wire) == opening[0] + reading[0] <= 8, wire
        assert {method for method, _, _ in wire} == {"GET"}
        np.testing.assert_array_equal(np.array(pixel, np.float32), series)
        assert np.isfinite(series).mean() > 0.9
        images = proxy.count("", rf"/{count}/results/displacement/displacement/c/")
        assert images == showing[0] == 1
        assert shown == series[-1]


def test_zarr_agrees_about_chunks_and_shards(case: Case) -> None:
    """The shapes that the requests follow from."""
    memory = {name: zarr.buffer.default_buffer_prototype().buffer.from_bytes(data)
              for name, data in render_product(case.plan.templates[1]).items()}  # fmt: skip
    array = zarr.open_array(zarr.storage.MemoryStore(memory), path="displacement", mode="r")
    assert array.chunks[0] == array.shards[0] == SERIES_DATES >= 700
    image = case.plan.templates[0].arrays[0]
    assert image.shards[0] == 1
    assert all(edge >= size for edge, size in zip(image.shards[1:], image.shape[1:], strict=True))
