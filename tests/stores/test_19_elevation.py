"""Elevation windows and geoids: faults E01 to E11 and the real models."""

from __future__ import annotations

import importlib.util
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest

from bperp.stores.elevation import ElevationModel
from bperp.stores.errors import ElevationError
from bperp.stores.geoid import open_geoid

_spec = importlib.util.spec_from_file_location(
    "raster_text", Path(__file__).with_name("test_18_geotiff.py")
)
text = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(text)

ELLIPSOID = {1024: 2, 2048: 4979}
EGM96 = {1024: 2, 2048: 4326, 4096: 5773}
STEP = 0.01


def plane(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Return heights that bilinear interpolation reproduces, different at every place."""
    return 500.0 + 20.0 * (lat - 42.0) + 7.0 * (lon - 12.0)


def tile(
    path: Path,
    west: float = 12.0,
    north: float = 42.0,
    size: tuple[int, int] = (100, 120),
    step: tuple[float, float] = (STEP, STEP),
    heights=plane,
    **options,
) -> Path:
    """Write heights of (latitude, longitude) with the given outer corner."""
    lat = north - step[1] * (np.arange(size[0]) + 0.5)
    lon = west + step[0] * (np.arange(size[1]) + 0.5)
    values = heights(lat[:, None], lon[None, :] + np.zeros(size)).astype(np.float32)
    options = {"keys": ELLIPSOID, "nodata": "-32768"} | options
    return text.write_raster(path, values, (west, north), step, **options)


def coordinates(grid, shape) -> tuple[np.ndarray, np.ndarray]:
    lat = grid.lat0 + grid.dlat * np.arange(shape[0])
    lon = grid.lon0 + grid.dlon * np.arange(shape[1])
    return lat[:, None], lon[None, :]


def assert_is_plane(heights, grid, atol: float = 1e-3) -> None:
    expected = plane(*coordinates(grid, heights.shape))
    assert np.abs(heights - expected).max() < atol


def fault(code: str, **contents) -> object:
    pattern = code + "".join(f".*{value}" for value in contents.values())
    return pytest.raises(ElevationError, match=pattern)


def test_e08_samples_lie_where_the_grid_says(tmp_path):
    for raster_type in (1, 2):
        path = tile(tmp_path / "a.tif", keys=ELLIPSOID | {1025: raster_type})
        heights, grid = ElevationModel.open(str(path)).window(41.5, 12.3, 41.8, 12.9)
        assert heights.dtype == np.float32
        assert grid.dlat == pytest.approx(-STEP)
        assert grid.dlon == pytest.approx(STEP)
        lat, lon = coordinates(grid, heights.shape)
        assert lat[0, 0] >= 41.8 > lat[1, 0]
        assert lat[-1, 0] <= 41.5 < lat[-2, 0]
        assert lon[0, 0] <= 12.3 < lon[0, 1]
        assert lon[0, -1] >= 12.9 > lon[0, -2]
        assert_is_plane(heights, grid)


def test_south_up_rasters_come_out_north_up(tmp_path):
    lat = 41.0 + STEP * (np.arange(100) + 0.5)
    lon = 12.0 + STEP * (np.arange(120) + 0.5)
    values = plane(lat[:, None], lon[None, :]).astype(np.float32)
    path = text.write_raster(
        tmp_path / "a.tif", values, (12.0, 41.0), (STEP, -STEP), keys=ELLIPSOID
    )
    heights, grid = ElevationModel.open(str(path)).window(41.2, 12.1, 41.4, 12.4)
    assert grid.dlat < 0
    assert_is_plane(heights, grid)


def test_windows_agree_wherever_they_overlap(tmp_path):
    random = np.random.default_rng(2)
    rough = random.normal(300.0, 90.0, (100, 120)).astype(np.float32)
    rough[40:47, 60:64] = -32768
    rough[10, 10] = -32768
    path = text.write_raster(
        tmp_path / "a.tif", rough, (12.0, 42.0), (STEP, STEP), keys=ELLIPSOID, nodata="-32768"
    )
    model = ElevationModel.open(str(path))
    whole, grid = model.window(41.0, 12.0, 42.0, 13.2)
    assert whole.shape == (100, 120)
    assert np.isfinite(whole).all()
    for bounds in (
        (41.52, 12.5, 41.56, 12.62),
        (41.3, 12.62, 41.57, 12.8),
        (41.8, 12.0, 42.0, 12.2),
    ):
        part, place = model.window(*bounds)
        row = round((place.lat0 - grid.lat0) / grid.dlat)
        column = round((place.lon0 - grid.lon0) / grid.dlon)
        assert np.array_equal(
            part, whole[row : row + part.shape[0], column : column + part.shape[1]]
        )


def test_tiles_are_joined_without_seam(tmp_path):
    for k, (west, north) in enumerate(((12.0, 42.0), (13.2, 42.0), (12.0, 41.0), (13.2, 41.0))):
        tile(tmp_path / f"{k}.tif", west, north)
    (tmp_path / "readme.txt").write_text("no raster")
    model = ElevationModel.open(str(tmp_path))
    assert len(model.tiles) == 4
    patch = model.read(40.7, 12.9, 41.4, 13.6)
    assert_is_plane(patch.heights_m, patch.grid)
    assert (patch.filled_samples, patch.void_samples, patch.absent_samples) == (0, 0, 0)
    assert len(patch.sources) == 4
    # Tiles that share their border samples, as SRTM's do.
    shared = [tile(tmp_path / f"s{k}.tif", 12.0 + 1.19 * k, 42.0) for k in range(2)]
    heights, grid = ElevationModel.open([str(p) for p in shared]).window(41.3, 13.0, 41.7, 13.5)
    assert_is_plane(heights, grid)


def test_e04_tiles_of_another_width_leave_no_seam(tmp_path):
    # North of 50 degrees Copernicus tiles have 1.5 times the spacing in longitude.
    south = tile(tmp_path / "s.tif", 12.0, 42.0)
    north = [
        tile(tmp_path / f"n{k}.tif", 12.0 + 0.6 * k, 43.0, (100, 40), (0.015, STEP))
        for k in range(2)
    ]
    model = ElevationModel.open([str(south), *map(str, north)])
    patch = model.read(41.8, 12.3, 42.3, 12.9)
    assert patch.grid.dlon == pytest.approx(STEP)
    assert np.isfinite(patch.heights_m).all()
    # Half a sample at the outer edge of a tile is held, so a plane is exact within a coarse step.
    assert_is_plane(patch.heights_m, patch.grid, atol=7.0 * 0.015 * 0.5 + 1e-3)
    lat, lon = coordinates(patch.grid, patch.heights_m.shape)
    inner = np.abs(np.broadcast_to(lon, patch.heights_m.shape) - 12.6) > 0.02
    error = np.abs(patch.heights_m - plane(lat, lon))
    assert error[inner].max() < 1e-3


def test_e10_antimeridian(tmp_path):
    def heights(lat, lon):
        return plane(lat, np.where(lon < 0, lon + 360.0, lon) - 167.0)

    tile(tmp_path / "w.tif", 179.0, 42.0, (100, 100), heights=heights)
    tile(tmp_path / "e.tif", -180.0, 42.0, (100, 100), heights=heights)
    model = ElevationModel.open(str(tmp_path))
    for west, east in ((179.7, -179.6), (179.7, 180.4), (-180.3, -179.6)):
        patch, grid = model.window(41.2, west, 41.8, east)
        assert patch.shape[1] > 60
        lat, lon = coordinates(grid, patch.shape)
        turned = np.where(lon < 0, lon + 360.0, lon)
        assert np.abs(patch - plane(lat, turned - 167.0)).max() < 1e-3
    assert model.covers((41.2, 179.7, 41.8, -179.6))
    assert not model.covers((41.2, 177.0, 41.8, -179.6))
    whole = tile(tmp_path / "sub.tif", 179.5, 42.0, (100, 100), heights=heights)
    one = ElevationModel.open(str(whole))
    assert one.covers((41.2, 179.7, 41.8, -179.6))
    patch, grid = one.window(41.2, -179.9, 41.8, -179.6)
    lat, lon = coordinates(grid, patch.shape)
    assert np.abs(patch - plane(lat, np.where(lon < 0, lon + 360.0, lon) - 167.0)).max() < 1e-3


def test_e07_projected_elevations_are_warped(tmp_path):
    transformer = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    x = 300_000.0 + 30.0 * (np.arange(700) + 0.5)
    y = 4_650_000.0 - 30.0 * (np.arange(600) + 0.5)
    lon, lat = transformer.transform(*np.meshgrid(x, y))
    values = plane(lat, lon).astype(np.float32)
    path = text.write_raster(
        tmp_path / "utm.tif", values, (300_000.0, 4_650_000.0), (30.0, 30.0),
        keys={1024: 1, 3072: 32633}, nodata="-32768",
    )  # fmt: skip
    with fault("E604", cause="vertical datum .* not stated"):
        ElevationModel.open(str(path))
    model = ElevationModel.open(str(path), "ellipsoid")
    bounds = (lat.min() + 0.02, lon.min() + 0.02, lat.max() - 0.02, lon.max() - 0.02)
    patch = model.read(*bounds)
    assert np.isfinite(patch.heights_m).all()
    assert_is_plane(patch.heights_m, patch.grid, atol=2e-3)
    metres = (abs(patch.grid.dlat) * 111_200, patch.grid.dlon * 111_200 * np.cos(np.radians(42)))
    assert metres == pytest.approx((30.0, 30.0), rel=0.02)
    assert model.covers(bounds)
    assert not model.covers((bounds[0] - 0.1, *bounds[1:]))


def test_e03_small_holes_are_filled_and_large_ones_are_not(tmp_path):
    def holed(lat, lon):
        heights = plane(lat, lon)
        heights[20:25, 30:33] = -32768
        heights[50, 60] = np.nan
        heights[60:95, 10:90] = -32768
        return heights

    model = ElevationModel.open(str(tile(tmp_path / "a.tif", heights=holed)))
    patch = model.read(41.0, 12.0, 42.0, 13.2)
    assert patch.filled_samples == 5 * 3 + 1
    assert patch.void_samples == 35 * 80
    assert patch.absent_samples == 0
    assert np.isnan(patch.heights_m[60:95, 10:90]).all()
    known = ~np.isnan(patch.heights_m)
    error = np.abs(patch.heights_m - plane(*coordinates(patch.grid, patch.heights_m.shape)))
    # A plane satisfies Laplace's equation, so the filling is exact.
    assert error[known].max() < 1e-3


def test_e09_area_outside_one_file(tmp_path):
    model = ElevationModel.open(str(tile(tmp_path / "a.tif")))
    assert model.covers((41.0, 12.0, 42.0, 13.2))
    assert not model.covers((40.9, 12.1, 41.5, 12.3))
    with fault(
        "E605 a.tif", cause="does not cover", where="lat 40.9000, lon 12.1000", fix="larger"
    ):
        model.window(40.9, 12.1, 41.5, 12.3)
    with fault("E605"):
        model.require((41.1, 12.1, 41.5, 14.0))


def test_e01_e02_missing_tile_is_an_error_unless_it_is_sea(tmp_path):
    paths = [tile(tmp_path / f"{k}.tif", 12.0 + 2.4 * k, 42.0) for k in range(2)]
    urls = [str(p) for p in paths]
    bounds = (41.4, 13.0, 41.6, 14.6)
    with fault("E601 2 tiles", where="lat 41.4000, lon 13.2"):
        ElevationModel.open(urls).window(*bounds)
    masked = ElevationModel.open(urls, absent="mask").read(*bounds)
    assert masked.absent_samples == np.isnan(masked.heights_m).sum() > 1000
    with fault("E603"):
        ElevationModel.open(urls, absent="sea")
    geoid = write_geoid(tmp_path / "geoid.tif")
    sea = ElevationModel.open(urls, geoid=str(geoid), absent="sea").read(*bounds)
    lat, lon = coordinates(sea.grid, sea.heights_m.shape)
    absent = np.isnan(masked.heights_m)
    assert sea.absent_samples == absent.sum()
    assert np.abs(sea.heights_m - undulation(lat, lon))[absent].max() < 1e-3
    assert np.abs(sea.heights_m - plane(lat, lon))[~absent].max() < 1e-3


def undulation(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    return 30.0 + 0.1 * lat + 0.02 * ((lon + 180.0) % 360.0 - 180.0)


def write_geoid(path: Path, west: float = -180.0, columns: int = 1440) -> Path:
    lat = 90.0 - 0.25 * np.arange(721)
    lon = west + 0.25 * np.arange(columns)
    values = undulation(lat[:, None], lon[None, :]).astype(np.float32)
    # Grids of undulations have their samples on whole degrees: pixel is point.
    return text.write_raster(
        path, values, (west - 0.125, 90.125), (0.25, 0.25), keys=text.GEOGRAPHIC | {1025: 2}
    )


def write_gtx(path: Path) -> Path:
    lat, lon = -90.0 + 0.25 * np.arange(721), -180.0 + 0.25 * np.arange(1440)
    head = struct.pack(">4d2i", -90.0, -180.0, 0.25, 0.25, 721, 1440)
    path.write_bytes(head + undulation(lat[:, None], lon[None, :]).astype(">f4").tobytes())
    return path


@pytest.mark.parametrize("kind", ["tif", "tif360", "gtx"])
def test_geoid_grids(tmp_path, kind):
    path = {
        "tif": lambda: write_geoid(tmp_path / "g.tif"),
        "tif360": lambda: write_geoid(tmp_path / "g.tif", 0.0, 1441),
        "gtx": lambda: write_gtx(tmp_path / "g.gtx"),
    }[kind]()
    geoid = open_geoid("egm96", str(path))
    lat = np.linspace(42.0, 41.1, 50)
    for lon in (
        np.linspace(12.03, 13.4, 60),
        np.linspace(-0.9, 0.9, 70),
        np.linspace(-179, -178, 9),
    ):
        error = geoid.undulation_m(lat, lon) - undulation(lat[:, None], lon[None, :])
        assert np.abs(error).max() < 1e-3
    # Across the antimeridian the made-up plane jumps; either side is exact.
    lon = np.linspace(179.2, 180.8, 65)
    found = geoid.undulation_m(lat, lon)
    good = np.abs(lon - 180.0) > 0.25
    assert np.abs(found - undulation(lat[:, None], lon[None, :]))[:, good].max() < 1e-3


def test_e05_e06_orthometric_heights_need_a_geoid(tmp_path):
    path = tile(tmp_path / "a.tif", keys=EGM96)
    for datum in ("auto", "egm96"):
        with fault("E603 egm96", cause="PROJ has no geoid grid", fix="dem.geoid"):
            ElevationModel.open(str(path), datum)
    model = ElevationModel.open(str(path), geoid=str(write_geoid(tmp_path / "geoid.tif")))
    assert model.datum == "egm96"
    patch = model.read(41.3, 12.2, 41.6, 12.7)
    lat, lon = coordinates(patch.grid, patch.heights_m.shape)
    assert np.abs(patch.heights_m - plane(lat, lon) - undulation(lat, lon)).max() < 2e-3
    assert patch.sources == ("a.tif", "geoid.tif")


@pytest.mark.parametrize(
    ("keys", "declared", "found"),
    [
        (EGM96, "ellipsoid", "egm96"),
        (EGM96, "egm2008", "egm96"),
        (ELLIPSOID, "egm96", "ellipsoid"),
        ({1024: 2, 2048: 4326}, "auto", "nothing"),
        ({1024: 2, 2048: 4326, 4096: 5798}, "auto", "egm84"),
        ({1024: 2, 2048: 4326, 4096: 5703}, "auto", "EPSG:5703"),
    ],
)
def test_e05_datum_in_conflict_or_unknown(tmp_path, keys, declared, found):
    path = tile(tmp_path / "a.tif", keys=keys)
    with fault("E604 a.tif", found=f"{found} in the file", fix="vertical_datum"):
        ElevationModel.open(str(path), declared)


def test_e05_tiles_of_different_datum(tmp_path):
    paths = [tile(tmp_path / "a.tif", keys=EGM96), tile(tmp_path / "b.tif", 13.2)]
    with fault("E604 2 tiles", found="egm96, ellipsoid"):
        ElevationModel.open([str(p) for p in paths])


@pytest.mark.parametrize("case", ["small", "metres", "truncated", "absent", "text"])
def test_e06_unusable_geoids(tmp_path, case):
    path = tmp_path / ("g.gtx" if case in {"truncated", "metres"} else "g.tif")
    if case == "small":
        text.write_raster(path, np.full((20, 20), 30.0, np.float32), (5.0, 50.0), (0.1, 0.1))
    elif case == "metres":
        write_gtx(path)
        data = bytearray(path.read_bytes())
        data[40:] = np.full(721 * 1440, 4000.0, ">f4").tobytes()
        path.write_bytes(bytes(data))
    elif case == "truncated":
        path.write_bytes(write_gtx(path).read_bytes()[:-100])
    elif case == "text":
        path.write_text("<html>")

    def read() -> None:
        open_geoid("egm96", str(path)).undulation_m(np.array([42.0, 41.0]), np.array([12.0, 13.0]))

    with fault(f"E603 {path.name}"):
        read()


def test_e06_grid_of_the_proj_installation(tmp_path):
    # A grid that PROJ finds under its own name; in a process of its own, as PROJ keeps paths.
    write_gtx(tmp_path / "egm96_15.gtx")
    program = (
        "import sys, numpy as np, pyproj\n"
        "pyproj.datadir.append_data_dir(sys.argv[1])\n"
        "from bperp.stores.geoid import open_geoid\n"
        "g = open_geoid('egm96')\n"
        "print(g.label, *g.undulation_m(np.array([42.0, 41.5]), np.array([12.0, 12.3])).ravel())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    label, datum, *values = done.stdout.split()
    assert (label, datum) == ("PROJ", "egm96")
    expected = undulation(np.array([[42.0], [41.5]]), np.array([[12.0, 12.3]])).ravel()
    assert np.allclose([float(v) for v in values], expected, atol=2e-3)


@pytest.mark.parametrize(
    ("factor", "nodata"), [(30.0, "-32768"), (1.0, "")], ids=["feet or scaled", "no nodata tag"]
)
def test_e11_implausible_heights(tmp_path, factor, nodata):
    def heights(lat, lon):
        values = plane(lat, lon) * factor
        values[5, 5] = -32768.0
        return values

    model = ElevationModel.open(str(tile(tmp_path / "a.tif", heights=heights, nodata=nodata)))
    with fault("E606 a.tif", cause="implausible", fix="metres"):
        model.window(41.5, 12.0, 42.0, 12.5)


def test_arguments_and_paths(tmp_path):
    model = ElevationModel.open(tile(tmp_path / "a.tif").as_uri())
    for bounds in ((42.0, 12.0, 41.0, 13.0), (41.0, 12.0, 91.0, 13.0), (41.0, 12.0, 42.0, 12.0)):
        with pytest.raises(ValueError, match=r"bounds must be \(south, west, north, east\)"):
            model.window(*bounds)
    (tmp_path / "empty").mkdir()
    with fault("E602", cause="no elevation files"):
        ElevationModel.open(str(tmp_path / "empty"))
    with fault("E602 absent.tif", cause="no such file"):
        ElevationModel.open(str(tmp_path / "absent.tif"))
    again = pickle.loads(pickle.dumps(model))
    assert_is_plane(*again.window(41.5, 12.3, 41.8, 12.9))


@pytest.mark.realdata
def test_real_rome_is_refused_without_geoid_and_accepted_with_one(real_data, tmp_path):
    path = str(next(real_data.glob("single-safes/sarsen-rome/Rome*.tif")))
    with fault("E603 egm96"):
        ElevationModel.open(path)
    with fault("E604 Rome-30m-DEM.tif", found="egm96 in the file"):
        ElevationModel.open(path, "ellipsoid")
    model = ElevationModel.open(path, geoid=str(write_geoid(tmp_path / "geoid.tif")))
    heights, grid = model.window(41.98, 12.47, 42.03, 12.52)
    raw = model.tiles[0].read((0, 360), (0, 360))
    row, column = round((42.05 - grid.lat0) * 3600), round((grid.lon0 - 12.45) * 3600)
    lat, lon = coordinates(grid, heights.shape)
    orthometric = raw[row : row + heights.shape[0], column : column + heights.shape[1]]
    assert np.abs(heights - orthometric - undulation(lat, lon)).max() < 1e-3
    assert model.covers((41.9502, 12.45, 42.05, 12.5497))


@pytest.mark.realdata
def test_real_morocco_covers_its_burst(real_data):
    path = str(next(real_data.glob("eo_tools-morocco-2023/dem/dem-b1-s1a-iw1*.tiff")))
    with fault("E604", found="nothing in the file"):
        ElevationModel.open(path)
    model = ElevationModel.open(path, "ellipsoid")
    patch = model.read(31.6, -8.8, 31.8, -7.9)
    assert (patch.filled_samples, patch.void_samples, patch.absent_samples) == (0, 0, 0)
    # Plain of Marrakesh.
    assert 300.0 < np.median(patch.heights_m) < 700.0
