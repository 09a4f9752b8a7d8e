"""GeoTIFF rasters: decoding against libtiff and tifffile, placement, systems; fault E07, E11."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bperp.stores.byte_source import BytesSource
from bperp.stores.errors import BperpError, ElevationError
from bperp.stores.geotiff import Placement, open_geotiff
from bperp.stores.tiff import open_page
from bperp.stores.tiff_decode import read_region, sample_dtype

GEOGRAPHIC = {1024: 2, 2048: 4326}


def geo_tags(
    keys: dict[int, int], corner: tuple[float, float], step: tuple[float, float], nodata: str = ""
) -> list[tuple]:
    """Return GeoTIFF tags; ``corner`` is the outer corner of the first sample (x, y)."""
    table = {1025: 1} | keys
    shift = (0.5 * step[0], -0.5 * step[1]) if table[1025] == 2 else (0.0, 0.0)
    directory = [1, 1, 1, len(table)]
    for key in sorted(table):
        directory += [key, 0, 1, table[key]]
    tags = [
        (33550, 12, 3, (*step, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, corner[0] + shift[0], corner[1] + shift[1], 0.0), True),
        (34735, 3, len(directory), tuple(directory), True),
    ]
    return [*tags, (42113, 2, len(nodata) + 1, nodata, True)] if nodata else tags


def write_raster(
    path: Path,
    values: np.ndarray,
    corner: tuple[float, float] = (12.0, 42.0),
    step: tuple[float, float] = (0.01, 0.01),
    keys: dict[int, int] | None = None,
    nodata: str = "",
    **options,
) -> Path:
    tags = geo_tags(GEOGRAPHIC if keys is None else keys, corner, step, nodata)
    tifffile.imwrite(
        path, values, photometric="minisblack", extratags=tags, metadata=None, **options
    )
    return path


def decoded(data: bytes, rows=None, columns=None) -> np.ndarray:
    source = BytesSource(data)
    page = open_page(source)
    rows, columns = rows or (0, page.length), columns or (0, page.width)
    return read_region(source, page, rows, columns, sample_dtype(page), None)[..., 0]


def landscape(kind: str) -> np.ndarray:
    random = np.random.default_rng(5)
    smooth = np.cumsum(np.cumsum(random.normal(size=(70, 90)), axis=0), axis=1)
    return (smooth * 10).astype(kind)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_integers_as_libtiff_writes_them(compression, predictor, kind):
    values, stream = landscape("i4").astype(kind), io.BytesIO()
    has_predictor = compression not in {None, "packbits"}
    tags = {317: predictor} if has_predictor else {}
    Image.fromarray(values).save(stream, "TIFF", compression=compression, tiffinfo=tags)
    data = stream.getvalue()
    assert open_page(BytesSource(data)).predictor == (predictor if has_predictor else 1)
    assert np.array_equal(decoded(data), values)
    assert np.array_equal(decoded(data, (11, 60), (7, 33)), values[11:60, 7:33])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("predictor", [1, 3])
def test_floats_as_libtiff_writes_them(compression, predictor):
    values, stream = landscape("f4") / 7, io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression=compression, tiffinfo={317: predictor})
    data = stream.getvalue()
    assert open_page(BytesSource(data)).predictor == predictor
    assert np.array_equal(decoded(data), values)


def test_long_lzw_streams_fill_and_clear_the_table():
    values = np.random.default_rng(1).integers(0, 256, (300, 200), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression="tiff_lzw")
    assert np.array_equal(decoded(stream.getvalue()), values)


@pytest.mark.parametrize("kind", ["i2", "i4", "f4", "f8", "u1"])
@pytest.mark.parametrize("options", [
    {}, {"tile": (32, 16)}, {"compression": "zlib", "tile": (32, 48)}, {"byteorder": ">"},
    {"compression": "zlib", "byteorder": ">", "rowsperstrip": 7}, {"bigtiff": True},
])  # fmt: skip
def test_layouts_as_tifffile_writes_them(kind, options):
    values, stream = landscape(kind), io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", **options)
    assert np.array_equal(decoded(stream.getvalue()), values)
    assert np.array_equal(decoded(stream.getvalue(), (31, 65), (15, 70)), values[31:65, 15:70])


@pytest.mark.parametrize("raster_type", [1, 2])
def test_placement_of_areas_and_points(tmp_path, raster_type):
    path = write_raster(
        tmp_path / "a.tif", landscape("i2"), keys=GEOGRAPHIC | {1025: raster_type}, nodata="-32768"
    )
    raster = open_geotiff(str(path))
    assert raster.placement == pytest.approx(Placement(12.005, 41.995, 0.01, -0.01), abs=1e-12)
    assert raster.bounds == pytest.approx((41.3, 12.0, 42.0, 12.9), abs=1e-9)
    assert raster.is_geographic
    assert (raster.nodata, raster.rows, raster.columns) == (-32768.0, 70, 90)


@pytest.mark.parametrize(
    ("keys", "vertical"),
    [
        ({1024: 2, 2048: 4326}, None),
        ({1024: 2, 2048: 4326, 4096: 5773}, "egm96"),
        ({1024: 2, 2048: 4326, 4096: 3855}, "egm2008"),
        ({1024: 2, 2048: 4979}, "ellipsoid"),
        ({1024: 2, 2048: 4326, 4096: 5030}, "ellipsoid"),
        ({1024: 2, 2048: 9707}, "egm96"),
        ({1024: 2, 2048: 9518}, "egm2008"),
        ({1024: 2, 2048: 4326, 4096: 5703}, "EPSG:5703"),
        ({1024: 1, 3072: 32633}, None),
    ],
)
def test_vertical_datum_as_stated(tmp_path, keys, vertical):
    raster = open_geotiff(str(write_raster(tmp_path / "a.tif", landscape("i2"), keys=keys)))
    assert raster.vertical == vertical
    assert raster.is_geographic == (keys[1024] == 2)
    assert len(raster.system.axis_info) == 2


def test_nodata_and_sparse_tiles_are_nan(tmp_path):
    values = landscape("f4")
    values[3, 4] = np.float32(-3.4028234663852886e38)
    path = write_raster(tmp_path / "a.tif", values, nodata="-3.40282346638529e+38")
    read = open_geotiff(str(path)).read((0, 70), (0, 90))
    assert np.isnan(read[3, 4])
    assert np.isnan(read).sum() == 1
    integers = landscape("i2")
    integers[:32, :32] = -32768
    tiled = write_raster(tmp_path / "b.tif", integers, nodata="-32768", tile=(32, 32))
    assert np.isnan(open_geotiff(str(tiled)).read((0, 70), (0, 90))[:32, :32]).all()
    data = bytearray(tiled.read_bytes())
    with tifffile.TiffFile(tiled) as oracle:
        tags = oracle.pages[0].tags
        for tag in (324, 325):
            width = tags[tag].valuebytecount // tags[tag].count
            data[tags[tag].valueoffset : tags[tag].valueoffset + width] = b"\0" * width
    tiled.write_bytes(bytes(data))
    sparse = open_geotiff(str(tiled)).read((0, 70), (0, 90))
    assert np.isnan(sparse[:32, :32]).all()
    assert np.array_equal(sparse[40:], integers[40:].astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({1024: 3, 2048: 4978}, "model 3"),
        ({1024: 1, 3072: 32767}, "code 32767"),
        ({1024: 2, 2048: 32767}, "code 32767"),
        ({1024: 2, 2048: 1}, "EPSG:1"),
        ({1024: 2, 2048: 4326, 2054: 9101}, "unit 9101"),
    ],
)
def test_e07_unknown_systems(tmp_path, keys, found):
    path = write_raster(tmp_path / "a.tif", landscape("i2"), keys=keys)
    with pytest.raises(ElevationError, match=rf"E604 a\.tif: .*found .*{found}.*EPSG:4326"):
        open_geotiff(str(path))


def test_e07_without_placement(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, landscape("i2"), photometric="minisblack")
    with pytest.raises(ElevationError, match=r"E604 .*no GeoTIFF keys"):
        open_geotiff(str(path))
    keys = [tag for tag in geo_tags(GEOGRAPHIC, (12, 42), (0.01, 0.01)) if tag[0] == 34735]
    rotated = (34264, 12, 16, (0.01, 0.002, 0, 12, 0.002, -0.01, 0, 42, *([0.0] * 7), 1.0), True)
    for extra in ([], [rotated]):
        tifffile.imwrite(path, landscape("i2"), photometric="minisblack", extratags=keys + extra)
        with pytest.raises(ElevationError, match=r"E604 .*rotated or has no placement"):
            open_geotiff(str(path))
    matrix = (34264, 12, 16, (0.01, 0, 0, 12, 0, -0.01, 0, 42, *([0.0] * 7), 1.0), True)
    tifffile.imwrite(path, landscape("i2"), photometric="minisblack", extratags=[*keys, matrix])
    placement = open_geotiff(str(path)).placement
    assert placement == pytest.approx(Placement(12.005, 41.995, 0.01, -0.01), abs=1e-12)


def test_e11_scaled_values_and_feet(tmp_path):
    feet = write_raster(tmp_path / "a.tif", landscape("i2"), keys=GEOGRAPHIC | {4099: 9002})
    with pytest.raises(ElevationError, match=r"E606 a\.tif: .*not in metres.*unit 9002"):
        open_geotiff(str(feet))
    item = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">{}</Item></GDALMetadata>'
    for scale, is_refused in (("0.1", True), ("1", False), ("1.0", False)):
        text = item.format(scale)
        tags = [
            *geo_tags(GEOGRAPHIC, (12, 42), (0.01, 0.01)),
            (42112, 2, len(text) + 1, text, True),
        ]
        path = tmp_path / "b.tif"
        tifffile.imwrite(
            path, landscape("i2"), photometric="minisblack", extratags=tags, metadata=None
        )
        if is_refused:
            with pytest.raises(ElevationError, match=r"E606 .*scale 0\.1"):
                open_geotiff(str(path))
        else:
            assert open_geotiff(str(path)).rows == 70


def test_unreadable_rasters(tmp_path):
    path = write_raster(tmp_path / "a.tif", landscape("i2"), compression="zlib")
    data = path.read_bytes()
    with tifffile.TiffFile(path) as oracle:
        place = oracle.pages[0].dataoffsets[0]
    broken = bytearray(data)
    broken[place : place + 20] = b"\xff" * 20
    path.write_bytes(bytes(broken))
    with pytest.raises(ElevationError, match=r"E602 a\.tif"):
        open_geotiff(str(path)).read((0, 70), (0, 90))
    for content in (b"", b"<html>", data[:100]):
        path.write_bytes(content)
        with pytest.raises(ElevationError, match=r"E602 a\.tif"):
            open_geotiff(str(path))
    with pytest.raises(ElevationError, match=r"E602 absent\.tif: .*no such file"):
        open_geotiff(str(tmp_path / "absent.tif"))
    bands = np.zeros((10, 10, 3), dtype=np.uint8)
    tags = geo_tags(GEOGRAPHIC, (12, 42), (0.01, 0.01))
    tifffile.imwrite(path, bands, photometric="rgb", extratags=tags)
    with pytest.raises(ElevationError, match=r"E602 .*3 bands"):
        open_geotiff(str(path))


@settings(max_examples=250, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_rasters_are_read_or_give_a_typed_error(seed, tmp_path_factory):
    random = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("fuzz") / "a.tif"
    options = [{}, {"compression": "zlib"}, {"tile": (32, 32)}][int(random.integers(3))]
    write_raster(path, landscape("i2"), nodata="-32768", **options)
    data = bytearray(path.read_bytes())
    for _ in range(int(random.integers(1, 6))):
        place = int(random.integers(min(700, len(data))))
        data[place] = int(random.integers(256))
    path.write_bytes(bytes(data))
    code = "read"
    try:
        raster = open_geotiff(str(path))
        if raster.rows * raster.columns < 10**6:
            raster.read((0, raster.rows), (0, raster.columns))
    except BperpError as error:
        code = error.code
    assert code in {"read", "E602", "E604", "E606"}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("pattern", "shape", "vertical", "corner", "limits"),
    [
        ("single-safes/sarsen-rome/Rome*.tif", (360, 360), "egm96", (12.45, 42.05), (5, 115)),
        (
            "eo_tools-morocco-2023/dem/dem-b1-s1a-iw1*.tiff",
            (605, 1873),
            None,
            (-8.898749925846829, 31.896805555555552),
            (146, 927),
        ),
        (
            "pyrate-stacks/*/geotiffs/cropA_T005A_dem.tif",
            (60, 100),
            None,
            (-99.19106978 + 0.5 * 0.0013888889, 19.45129262 - 0.5 * 0.0013888889),
            (2217, 2287),
        ),
    ],
)
def test_real_elevations(real_data, pattern, shape, vertical, corner, limits):
    path = next(real_data.glob(pattern))
    raster = open_geotiff(str(path))
    assert (raster.rows, raster.columns) == shape
    assert raster.vertical == vertical
    assert raster.placement[:2] == pytest.approx(corner, abs=1e-7)
    values = raster.read((0, raster.rows), (0, raster.columns))
    assert (np.nanmin(values), np.nanmax(values)) == limits
    if pattern.startswith("eo_tools"):
        return  # tifffile has no Zstandard here
    assert np.array_equal(values, tifffile.imread(path).astype(np.float32))


@pytest.mark.realdata
def test_real_floats(real_data):
    path = next(real_data.glob("eo_tools-morocco-2023/test-full-processor/*/phi_vv.tif"))
    values = open_geotiff(str(path)).read((0, 552), (0, 673))
    oracle = tifffile.imread(path)
    assert np.array_equal(np.isnan(values), oracle == -9999)
    assert np.array_equal(values[~np.isnan(values)], oracle[oracle != -9999])
