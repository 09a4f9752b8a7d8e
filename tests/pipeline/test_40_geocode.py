"""Geocoding: a field known on the ground is seen by the radar and comes back on the map."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from bperp.kernels.ellipsoid import ecef_to_geodetic, geodetic_to_ecef
from bperp.kernels.geocoding import interpolate_image
from bperp.kernels.layover import LAYOVER
from bperp.kernels.orbit import evaluate_orbit
from bperp.kernels.terrain import rdr2geo
from bperp.pipeline import geocode
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.map_grid import boxes_on_map, plan_map_grid
from bperp.pipeline.radar import burst_orbit
from bperp.pipeline.stack import Stack, arrange_scene
from bperp.pipeline.stage import Plan
from bperp.stores.cube import CubeStore
from bperp.stores.dataset import open_product
from bperp.stores.errors import ConfigurationError
from bperp.stores.projection import choose_projection, open_projection

LINE_NS = 2_055_556.3
SAMPLING_HZ = 64.34523812571428e6
LOOKS = (3, 12)
POSTING_DEG = 1.0 / 3600.0
DATES = ("2023-01-01", "2023-01-13", "2023-01-25")
PAIRS = [f"{DATES[0]}_{date}" for date in DATES[1:]]
MakeBurst = Callable[..., BurstImage]


def make_stack(make: MakeBurst) -> Stack:
    """Two bursts and one of the next swath, off the common grid by 0.4 line and 0.3 sample."""
    bursts = []
    for name, lines, samples in (
        ("t001_000001_iw1", 0.0, 0.0),
        ("t001_000002_iw1", 360.0, 0.0),
        ("t001_000001_iw2", 150.4, 1300.3),
    ):
        delay_ns = round(lines * LINE_NS)
        burst = make(
            burst_id=name,
            swath=name[-3:].upper(),
            lines=420,
            samples=1500,
            valid=(6, 414, 24, 1476),
            first_line_time_ns=1_672_531_200_000_000_000 + delay_ns,
            slant_range_time_s=5.343e-3 + samples / SAMPLING_HZ,
        )
        # One orbit for all: its times count from the first line of each burst.
        times = tuple(time - delay_ns * 1e-9 for time in burst.orbit.time_s)
        bursts.append(
            dataclasses.replace(burst, orbit=dataclasses.replace(burst.orbit, time_s=times))
        )
    images = {(burst.burst_id, burst.date): burst for burst in bursts}
    for date in DATES[1:]:
        images |= {(b.burst_id, date): dataclasses.replace(b, date=date) for b in bursts}
    return Stack(DATES[0], DATES, images, arrange_scene(bursts, LOOKS))


def lean_ground(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Hills of 150 m, 2 km across, in degrees around the scene."""
    north, east = latitude * 111e3, longitude * 111e3
    return 120.0 + 75.0 * np.sin(north / 620.0 + 0.4) * np.cos(east / 700.0)


class Memory:
    """A source with an elevation model on an absolute grid, and images in radar geometry."""

    def __init__(self, ground: Callable[..., np.ndarray]) -> None:
        self.ground = ground
        self.arrays: dict[tuple[str, str], np.ndarray] = {}

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        return make()

    def elevation(
        self, south: float, west: float, north: float, east: float
    ) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        top, bottom = int(np.floor(-north / POSTING_DEG)), int(np.ceil(-south / POSTING_DEG))
        left, right = int(np.floor(west / POSTING_DEG)), int(np.ceil(east / POSTING_DEG))
        latitudes = -np.arange(top, bottom + 1) * POSTING_DEG
        longitudes = np.arange(left, right + 1) * POSTING_DEG
        heights = self.ground(latitudes[:, np.newaxis], longitudes)
        origin = (-top * POSTING_DEG, left * POSTING_DEG, -POSTING_DEG, POSTING_DEG)
        return heights.astype(np.float32), origin

    def read(self, product: str, variable: str, region: tuple[slice, ...]) -> np.ndarray:
        array = self.arrays[product, variable]
        pair = PAIRS.index(region[0])
        region = (slice(pair, pair + 1), *region[1:])
        for piece, size in zip(region, array.shape, strict=True):
            assert 0 <= piece.start < piece.stop <= size
        return np.array(array[region])


def radar_positions(stack: Stack, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (deg) of the centres of the multilooked pixels, burst by burst."""
    rows, columns = stack.scene.lines // LOOKS[0], stack.scene.samples // LOOKS[1]
    latitude, longitude = np.full((2, rows, columns), np.nan)
    line = np.arange(rows) * LOOKS[0] + 1.0  # of three looks the second is the middle
    sample = np.arange(columns) * LOOKS[1] + 5.5  # of twelve, between the sixth and the seventh
    heights, origin = memory.elevation(-0.1, 2.5, 0.3, 4.5)
    for place in stack.scene.placements:
        image = stack.reference(place.burst_id)
        row = np.flatnonzero((line >= place.owned[0]) & (line < place.owned[1]))
        column = np.flatnonzero((sample >= place.owned[2]) & (sample < place.owned[3]))
        found = rdr2geo(
            burst_orbit(image),
            (line[row] - place.azimuth) * image.azimuth_time_interval_s,
            image.near_range_m + (sample[column] - place.range) * image.range_spacing_m,
            heights,
            origin,
        )
        assert not found[3].any()
        latitude[np.ix_(row, column)] = np.degrees(found[0])
        longitude[np.ix_(row, column)] = np.degrees(found[1])
    return latitude, longitude


SHARE = 0.8


def shares(latitude: np.ndarray, longitude: np.ndarray, box: tuple[float, ...]) -> tuple:
    """Map latitude and longitude to 0.1..0.9, for coherences that tell where they are from."""
    south, west, north, east = box
    return (
        0.1 + SHARE * (latitude - south) / (north - south),
        0.1 + SHARE * (longitude - west) / (east - west),
    )


def fringes(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Phase of 1.3 rad in 100 m to the north-east: three pixels wrap it at every third."""
    return (latitude + 0.7 * longitude) * 111e3 * 0.008


@dataclasses.dataclass
class Case:
    stack: Stack
    memory: Memory
    box: tuple[float, float, float, float]

    def context(self, **options: Any) -> Any:
        return Context(self.stack, options)


@dataclasses.dataclass
class Context:
    stack: Stack
    geocode_options: dict[str, Any]
    filtered: bool = False
    timing: dict[str, bool] = dataclasses.field(default_factory=dict)
    heights_m: tuple[float, float] = (45.0, 195.0)

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        default = {
            "enabled": True,
            "crs": "auto",
            "spacing": 25.0,
            "bounds": "auto",
            "resampling": "bilinear",
        }
        return {
            "geocode": {**default, **self.geocode_options},
            "filter": {"enabled": self.filtered},
            "interferogram": {"network": "single_reference", "neighbours": 1},
            "geometry": {"missing_elevation": "stop", "timing": self.timing},
        }

    def receipts(self, stage: str) -> dict[str, dict[str, Any]]:
        if stage == "geometry":
            low, high = self.heights_m
            summary = {"height_min_m": low, "height_max_m": high}
            return {burst: {"summary": summary} for burst in self.stack.burst_ids}
        raise AssertionError(f"geocoding needs no results of {stage}")

    def tasks(self, stage: str) -> list[str]:
        assert stage in ("interferogram", "filter")
        return [f"tile-000-000/{date}" for date in DATES[1:]]


@pytest.fixture(scope="module")
def case(make_burst: MakeBurst) -> Case:
    stack, memory = make_stack(make_burst), Memory(lean_ground)
    latitude, longitude = radar_positions(stack, memory)
    box = tuple(
        float(f(v)) for f, v in ((np.nanmin, latitude), (np.nanmin, longitude),
                                 (np.nanmax, latitude), (np.nanmax, longitude))
    )  # fmt: skip
    coherence = np.stack(shares(latitude, longitude, box)).astype(np.float32)
    phase = np.angle(np.exp(1j * fringes(latitude, longitude))).astype(np.float32)
    memory.arrays["scene/interferogram", "coherence"] = coherence
    memory.arrays["scene/interferogram", "phase"] = np.stack([phase, -phase])
    memory.arrays["scene/filtered", "phase"] = np.stack([0.5 * phase, 0.5 * phase])
    return Case(stack, memory, box)  # type: ignore[arg-type]


def run(plan: Plan, source: Any) -> dict[str, np.ndarray]:
    """Compute all tasks; every element is written exactly once, on the chunk grid."""
    (template,) = plan.templates
    arrays = {a.name: np.zeros(a.shape, a.dtype) for a in template.arrays}
    written = {a.name: np.zeros(a.shape, np.int64) for a in template.arrays}
    chunks = {a.name: a.chunks for a in template.arrays}
    for task in plan.tasks:
        assert task.outputs == ("scene/geocoded",)
        for block in geocode.STAGE.compute(json.loads(json.dumps(task.parameters)), source):
            first, *rest = block.origin
            assert isinstance(first, str) == bool(task.labels)
            origin = (PAIRS.index(first) if isinstance(first, str) else first, *rest)
            place = tuple(slice(o, o + n) for o, n in zip(origin, block.data.shape, strict=True))
            assert all(o % c == 0 for o, c in zip(origin, chunks[block.variable], strict=True))
            assert block.data.dtype == arrays[block.variable].dtype
            arrays[block.variable][place] = block.data
            written[block.variable][place] += 1
    for name, count in written.items():
        assert (count == 1).all(), name
    for name in ("x", "y"):
        arrays[name] = template.coordinates[name][1]
    return arrays


def ground_of(result: dict[str, np.ndarray], crs: str) -> tuple[np.ndarray, np.ndarray]:
    """Return latitude and longitude (deg) of all cells."""
    x, y = np.meshgrid(result["x"], result["y"])
    longitude, latitude = open_projection(crs).to_geographic(x, y)
    return latitude, longitude


@pytest.fixture(scope="module")
def utm(case: Case) -> dict[str, np.ndarray]:
    return run(geocode.STAGE.plan(case.context()), case.memory)


def inside(result: dict[str, np.ndarray]) -> np.ndarray:
    return np.isfinite(result["coherence"]).all(axis=0) & np.isfinite(result["phase"]).all(axis=0)


def interior(result: dict[str, np.ndarray]) -> np.ndarray:
    """Leave out the rim, where values are those of the last pixel for up to half a pixel."""
    return np.asarray(binary_erosion(inside(result), iterations=3))


def test_a_field_on_the_ground_comes_back(case: Case, utm: dict[str, np.ndarray]) -> None:
    latitude, longitude = ground_of(utm, "EPSG:32631")
    known = inside(utm)
    assert 0.3 < known.mean() < 0.95
    for found, expected in zip(
        utm["coherence"], shares(latitude, longitude, case.box), strict=True
    ):
        assert np.abs(found - expected)[known].max() < 0.005 * SHARE


def test_positions_are_good_to_a_tenth_of_a_pixel(case: Case, utm: dict[str, np.ndarray]) -> None:
    latitude, longitude = ground_of(utm, "EPSG:32631")
    known = interior(utm)
    north, east = (
        (found - expected)[known] / SHARE * size * 111.3e3
        for found, expected, size in zip(
            utm["coherence"],
            shares(latitude, longitude, case.box),
            (case.box[2] - case.box[0], case.box[3] - case.box[1]),
            strict=True,
        )
    )
    # The orbit flies north: lines are north, 13.9 m apart; samples are about 4.4 m on the ground.
    assert np.abs(north).max() < 0.1 * LOOKS[0] * 13.9
    assert np.abs(east).max() < 0.1 * LOOKS[1] * 4.4
    # No half pixel on average: the centre of a multilooked pixel is the middle of its looks.
    assert abs(np.mean(north)) < 0.2
    assert abs(np.mean(east)) < 0.2


def test_phases_survive_wrapping(case: Case, utm: dict[str, np.ndarray]) -> None:
    expected = fringes(*ground_of(utm, "EPSG:32631"))
    known = interior(utm)
    for found, sign in zip(utm["phase"], (1, -1), strict=True):
        error = np.angle(np.exp(1j * (found - sign * expected)))[known]
        assert np.sqrt(np.mean(error**2)) < 0.03
        assert np.abs(error).max() < 0.15
        assert np.abs(found[known]).max() > 3.1
    # The radar's fringes wrap within three pixels, where wrapped phases have no mean.
    wrapped = case.memory.arrays["scene/interferogram", "phase"][0]
    between = interpolate_image(wrapped, *np.meshgrid(*[np.arange(40.0, 90.0) + 0.5] * 2))
    truth = interpolate_image(
        np.exp(1j * wrapped).astype(np.complex64), *np.meshgrid(*[np.arange(40.0, 90.0) + 0.5] * 2)
    )
    assert np.abs(np.angle(np.exp(1j * between) * np.conj(truth))).max() > 1.0


def test_geometry_of_the_cells(case: Case, utm: dict[str, np.ndarray]) -> None:
    latitude, longitude = ground_of(utm, "EPSG:32631")
    known = inside(utm)
    height = utm["height"][known]
    # The model is bilinear between samples 31 m apart, with 4e-4 of curvature per metre.
    assert np.abs(height - lean_ground(latitude, longitude)[known]).max() < 0.1
    sight = utm["line_of_sight"][:, known].astype(np.float64)
    assert np.abs(np.linalg.norm(sight, axis=0) - 1).max() < 1e-6
    assert np.abs(np.arccos(sight[2]) - utm["incidence_angle"][known]).max() < 1e-3
    # Follow the line of sight from the ground: it ends on the orbit, at right angles to it.
    first = case.stack.reference("t001_000001_iw1")
    pick = slice(0, None, 997)
    north, east = np.radians(latitude[known][pick]), np.radians(longitude[known][pick])
    ground = np.stack(geodetic_to_ecef(north, east, height[pick]))
    e, n, u = sight[:, pick]
    out = np.cos(north) * u - np.sin(north) * n
    unit = np.stack(
        [
            np.cos(east) * out - np.sin(east) * e,
            np.sin(east) * out + np.cos(east) * e,
            np.sin(north) * u + np.cos(north) * n,
        ]
    )
    track = evaluate_orbit(burst_orbit(first), np.linspace(-1.5, 2.5, 4001))[0]
    for point, ray in zip(ground.T, unit.T, strict=True):
        along = (track - point) @ ray
        miss = np.linalg.norm(track - point - along[:, np.newaxis] * ray, axis=1)
        nearest = np.argmin(np.linalg.norm(track - point, axis=1))
        assert miss[nearest] < 5.0
        assert ecef_to_geodetic(*(point + along[nearest] * ray))[2] == pytest.approx(7e5, abs=2e4)


def test_masks_say_where_the_data_are(utm: dict[str, np.ndarray]) -> None:
    valid = utm["valid_mask"] == 1
    known = inside(utm)
    # Half of the bilinear weight and the nearest pixel part ways at the rim only.
    assert np.mean(valid != known) < 0.02
    assert not np.isfinite(utm["height"][utm["incidence_angle"] == 0]).any()
    assert not utm["layover_shadow"].any()
    assert np.isnan(utm["phase"][:, 0, 0]).all()


def test_tiles_do_not_change_bytes(
    case: Case, utm: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geocode, "TILE", 96)
    plan = geocode.STAGE.plan(case.context())
    assert len(plan.tasks) > 15
    parts = run(plan, case.memory)
    for name, values in utm.items():
        assert values.tobytes() == parts[name].tobytes(), name


def test_neighbouring_products_share_cells(case: Case, utm: dict[str, np.ndarray]) -> None:
    x, y = utm["x"], utm["y"]
    bounds = [x[40] - 3.0, y[150] - 7.0, x[130] + 5.0, y[60] + 1.0]
    part = run(geocode.STAGE.plan(case.context(bounds=bounds)), case.memory)
    assert np.array_equal(part["x"], x[40:131])
    assert np.array_equal(part["y"], y[60:151])
    for name in ("phase", "coherence", "height", "line_of_sight", "valid_mask"):
        assert np.array_equal(part[name], utm[name][..., 60:151, 40:131], equal_nan=True), name


def test_systems_agree_at_common_points(case: Case, utm: dict[str, np.ndarray]) -> None:
    degrees = run(geocode.STAGE.plan(case.context(crs="EPSG:4326", spacing=2e-4)), case.memory)
    latitude, longitude = ground_of(utm, "EPSG:32631")
    row = (degrees["y"][0] - latitude) / 2e-4
    column = (longitude - degrees["x"][0]) / 2e-4
    for name in ("coherence", "height", "incidence_angle"):
        ours, theirs = np.atleast_3d(utm[name].T).T, np.atleast_3d(degrees[name].T).T
        for mine, other in zip(ours, theirs, strict=True):
            there = interpolate_image(other, row, column)
            both = np.isfinite(there) & np.isfinite(mine)
            assert both.mean() > 0.3
            assert np.abs(there - mine)[both].max() < 0.005 * np.ptp(mine[both]), name


def test_nearest_returns_only_values_of_the_radar(case: Case) -> None:
    result = run(geocode.STAGE.plan(case.context(resampling="nearest")), case.memory)
    for name in ("phase", "coherence"):
        for pair, found in enumerate(result[name]):
            known = found[np.isfinite(found)]
            assert known.size > 1000
            assert np.isin(known, case.memory.arrays["scene/interferogram", name][pair]).all()


def test_the_filtered_phase_is_taken_when_there_is_one(case: Case) -> None:
    context = Context(case.stack, {"resampling": "nearest"}, filtered=True)
    plan = geocode.STAGE.plan(context)
    assert [task.key for task in plan.tasks[:2]] == [f"tile-000-000/{k}" for k in ("map", DATES[1])]
    place = f"tile-000-000/{DATES[1]}"
    assert plan.tasks[0].inputs == ()
    assert plan.tasks[1].inputs == (f"interferogram/{place}", f"filter/{place}")
    assert plan.templates[0].attributes["phase_product"] == "scene/filtered"
    result = run(plan, case.memory)
    known = np.isfinite(result["phase"])
    assert known.any()
    assert np.abs(result["phase"][known]).max() < 0.51 * np.pi
    plain = geocode.STAGE.plan(case.context())
    assert plain.tasks[1].inputs == (f"interferogram/{place}",)
    assert plain.templates[0].attributes["phase_product"] == "scene/interferogram"


def test_tiles_beyond_the_scene_hold_fill_values(case: Case) -> None:
    left, low, right, high = scene_box(case)
    bounds = [left, low, right + 20_000.0, high]
    plan = geocode.STAGE.plan(case.context(bounds=bounds))
    empty = [task for task in plan.tasks if not task.parameters["bursts"]]
    assert empty
    result = run(plan, case.memory)
    beyond = result["x"] > right + 1000.0
    assert np.isnan(result["phase"][..., beyond]).all()
    assert np.isnan(result["height"][..., beyond]).all()
    assert not result["valid_mask"][..., beyond].any()


def scene_box(case: Case) -> tuple[float, float, float, float]:
    south, west, north, east = case.box
    outline = (np.array([south, south, north, north]), np.array([west, east, west, east]))
    return boxes_on_map("EPSG:32631", [outline])[0]


def test_unknown_heights_leave_cells_empty(case: Case) -> None:
    middle = 0.5 * (case.box[1] + case.box[3])

    def holed(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        heights = lean_ground(latitude, longitude)
        return np.where(longitude > middle, np.nan, heights)

    source = Memory(holed)
    source.arrays = case.memory.arrays
    result = run(geocode.STAGE.plan(case.context()), source)
    longitude = ground_of(result, "EPSG:32631")[1]
    beyond = longitude > middle + POSTING_DEG
    assert np.isfinite(result["height"][~beyond]).any()
    for name in ("phase", "coherence", "height", "line_of_sight"):
        assert np.isnan(result[name][..., beyond]).all(), name


def test_a_steep_ridge_is_marked_on_its_front(case: Case) -> None:
    middle = 0.5 * (case.box[1] + case.box[3])

    def ridge(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        # 45 degrees towards the radar in the west, which looks at 30 degrees; gentle behind.
        east = (longitude - middle) * 111e3 + 0.0 * latitude
        return np.clip(np.minimum(east, 300.0 - (east - 300.0) * 0.3), 0.0, 300.0)

    source = Memory(ridge)
    source.arrays = case.memory.arrays
    context = Context(case.stack, {}, heights_m=(0.0, 300.0))
    result = run(geocode.STAGE.plan(context), source)
    longitude = ground_of(result, "EPSG:32631")[1]
    east = (longitude - middle) * 111e3
    seen = np.isfinite(result["height"])
    layover = (result["layover_shadow"] & LAYOVER) > 0
    front = seen & (east > 40.0) & (east < 260.0)
    # Sea level at the foot, and 300 m up at 300 m: ranges from the top to the foot are shared.
    flat = seen & ((east < -400.0) | (east > 1100.0))
    assert front.sum() > 100
    assert layover[front].all()
    assert not layover[flat].any()
    assert layover[seen & (east > -60.0) & (east < -30.0)].all()


def test_corrections_of_timing_move_the_image(case: Case) -> None:
    context = Context(case.stack, {}, timing={"bistatic": True})
    result = run(geocode.STAGE.plan(context), case.memory)
    latitude, longitude = ground_of(result, "EPSG:32631")
    error = result["coherence"][0] - shares(latitude, longitude, case.box)[0]
    north = error[interior(result)] / SHARE * (case.box[2] - case.box[0]) * 110.574e3
    # Annotated times are early: tau/2 + tau_mid/2 - 9 pulses, at the speed of the ground track.
    middle_s = 5.343e-3 + 1400.0 / SAMPLING_HZ
    late_s = 0.5 * middle_s + 0.5 * 5.8527e-3 - 9.0 / 1717.129
    speed_m_s = np.sqrt(3.986004418e14 / 7_078_137.0**3) * 6_378_137.0
    assert late_s * speed_m_s > 2.0
    assert np.mean(north) == pytest.approx(-late_s * speed_m_s, abs=0.1)


def test_a_disabled_step_plans_nothing(case: Case) -> None:
    assert geocode.STAGE.plan(case.context(enabled=False)) == Plan((), ())


def test_the_product_opens_with_its_reference_system(case: Case, tmp_path: Any) -> None:
    from pyproj import CRS

    plan = geocode.STAGE.plan(case.context())
    store = CubeStore(str(tmp_path))
    store.create(plan.templates[0])
    dataset = open_product(store, "scene/geocoded")
    assert CRS.from_cf(dict(dataset.spatial_ref.attrs)).to_epsg() == 32631
    assert dataset.phase.attrs["grid_mapping"] == "spatial_ref"
    left, width, _, top, _, height = (
        float(word) for word in dataset.spatial_ref.attrs["GeoTransform"].split()
    )
    assert (width, height) == (25.0, -25.0)
    assert dataset.x.values[0] == left + 12.5
    assert dataset.y.values[0] == top - 12.5
    assert np.all(np.diff(dataset.y.values) == -25.0)
    assert left % 25.0 == top % 25.0 == 0.0
    assert dataset.x.attrs["standard_name"] == "projection_x_coordinate"
    assert dataset.attrs["epsg"] == 32631


def outline(south: float, west: float, north: float, east: float) -> tuple:
    latitude, longitude = np.meshgrid([south, north], [west, east])
    return latitude.ravel(), longitude.ravel()


def options(**changes: Any) -> dict[str, Any]:
    return {"crs": "auto", "spacing": "auto", "bounds": "auto", **changes}


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ((52.3, 4.9), "EPSG:32631"),
        ((-33.9, 151.2), "EPSG:32756"),
        ((10.0, 180.5), "EPSG:32601"),
        ((10.0, -180.0), "EPSG:32601"),
        ((84.5, 30.0), "EPSG:3413"),
        ((-84.5, 30.0), "EPSG:3031"),
    ],
)
def test_the_default_system_is_that_of_the_place(place: tuple[float, float], code: str) -> None:
    assert choose_projection(*place) == code


def test_grids_across_the_antimeridian_are_in_one_piece() -> None:
    pieces = [outline(10.0, 179.2, 10.2, 179.8), outline(10.1, -180.1, 10.3, -179.5)]
    grid = plan_map_grid(options(crs="EPSG:4326", spacing=0.001), pieces, 50.0)
    assert grid.x(0, grid.columns)[0] == pytest.approx(179.2, abs=0.01)
    assert grid.x(0, grid.columns)[-1] == pytest.approx(180.5, abs=0.01)
    grid = plan_map_grid(options(), pieces, 50.0)
    assert grid.crs == "EPSG:32660"
    assert 130_000 < grid.columns * grid.spacing < 160_000


@pytest.mark.parametrize(("pixel_m", "spacing"), [(41.7, 40.0), (9.99, 8.0), (10.0, 10.0)])
def test_automatic_spacing_is_a_round_number(pixel_m: float, spacing: float) -> None:
    assert plan_map_grid(options(), [outline(50, 7, 50.1, 7.2)], pixel_m).spacing == spacing
    degrees = plan_map_grid(options(crs="EPSG:4326"), [outline(50, 7, 50.1, 7.2)], pixel_m)
    assert 0.6 * pixel_m < degrees.spacing * 111e3 <= pixel_m


def refusals() -> Iterable[dict[str, Any]]:
    yield options(crs="EPSG:999999")
    yield options(crs="EPSG:4979")  # three dimensions
    yield options(crs="EPSG:5773")  # heights only
    yield options(crs="+proj=gnom +lat_0=-60 +lon_0=190")  # the other half of the Earth
    yield options(bounds=[0.0, 10.0, 5.0, 10.0])
    yield options(bounds=[0.0, 0.0, 5.0, 5.0])  # elsewhere
    yield options(spacing=1e-3)  # metres for degrees


@pytest.mark.parametrize("wrong", list(refusals()))
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"C102 geocode\.(crs|bounds|spacing)"):
        plan_map_grid(wrong, [outline(50.0, 7.0, 51.0, 9.0)], 50.0)
