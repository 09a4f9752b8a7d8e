"""Published cubes: shards written whole, metadata in one document, a seal that vouches alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import bperp
from bperp.pipeline.stage import ArraySpec, Block, Template
from bperp.stores.cube import CubeStore, TemplateState
from bperp.stores.errors import StorageError
from bperp.stores.geozarr import GridPlace, grid_attributes, multiscale_attributes
from bperp.stores.layout import layout_digest, template_digest
from bperp.stores.receipts import Ledger, Marker

PRODUCT = "results/series"
NAN = float("nan")
DAYS = np.arange(40) * 12 + 19000
TIME = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
# Two shards along time, two along y, one along x; none of the axes ends with a shard.
SHAPE, CHUNKS, SHARDS = (11, 13, 7), (8, 4, 4), (8, 8, 8)


def template(dates: int = SHAPE[0], **changes) -> Template:
    fields = {
        "name": "displacement",
        "dims": ("date", "y", "x"),
        "shape": (dates, *SHAPE[1:]),
        "chunks": CHUNKS,
        "dtype": "float32",
        "fill_value": NAN,
        "attributes": {"units": "m", "grid_mapping": "spatial_ref"},
        "shards": SHARDS,
    }
    coordinates = {
        "date": (("date",), DAYS[:dates], TIME),
        "y": (("y",), np.arange(SHAPE[1]) * -100.0, {"axis": "Y"}),
        "x": (("x",), np.arange(SHAPE[2]) * 100.0, {"axis": "X"}),
        "spatial_ref": ((), np.zeros((), np.int32), {"crs_wkt": "..."}),
    }
    return Template(PRODUCT, (ArraySpec(**{**fields, **changes}),), coordinates, {"title": "t"})


def values(dates: int = SHAPE[0]) -> np.ndarray:
    random = np.random.default_rng(3).normal(size=(40, *SHAPE[1:])).astype(np.float32)
    random[:, 8:12, 4:] = np.nan  # a chunk of nothing but fill value
    return random[:dates]


def write(store: CubeStore, dates: int = SHAPE[0], first: int = 0) -> None:
    """Write shard by shard, from the date ``first`` on."""
    data = values(dates)
    for start in range(first, dates, SHARDS[0]):
        for top in range(0, SHAPE[1], SHARDS[1]):
            part = data[start : start + SHARDS[0], top : top + SHARDS[1]]
            store.write_block(Block(PRODUCT, "displacement", (start, top, 0), part))


@pytest.fixture
def store(tmp_path: Path) -> CubeStore:
    cube = CubeStore(str(tmp_path / "run"))
    cube.create(template())
    write(cube)
    return cube


def shard(store: CubeStore, index: str = "0/0/0") -> Path:
    return Path(store.root) / PRODUCT / "displacement" / "c" / index


def objects_of(store: CubeStore) -> dict[str, bytes]:
    """Return the bytes of all shards by index."""
    folder = shard(store, "")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*/*")}


def group(store: CubeStore) -> Path:
    return Path(store.root) / PRODUCT / "zarr.json"


def vouch(store: CubeStore, *products: str) -> None:
    entries = {name: {"content": f"digest of {name}"} for name in products}
    Ledger(store.objects).write_marker(Marker("publish", "1", {}, entries))


def open_plain(path: Path | str, **options) -> xarray.Dataset:
    given = {"consolidated": True, "zarr_format": 3, "chunks": None}
    return xarray.open_zarr(str(path), **{**given, **options})


# --- shards ----------------------------------------------------------------------------------


def test_digests_of_products_without_shards_are_those_of_earlier_versions():
    arrays = (
        ArraySpec("phase", ("pair", "azimuth", "range"), (3, 100, 150), (1, 64, 64), "float32",
                  NAN, {"units": "rad"}),
        ArraySpec("count", ("azimuth",), (100,), (64,), "int32", 0, {"scale_factor": 2.0}),
    )  # fmt: skip
    old = Template("scene/x", arrays, {"pair": (("pair",), np.arange(3), {})}, {"title": "t"})
    layout = "517f31f3f4fb870bc19f68780a49477c37d1ab2566e5b86712d4362947e277ea"
    assert layout_digest(old) == layout
    described = "40a800a480e8a5ddd83fd69ed65cd9a74c67aa160fbbd10294803ca2393a083f"
    assert template_digest(old) == described


def test_shards_are_part_of_the_layout_and_the_number_of_dates_is_not():
    assert layout_digest(template()) == layout_digest(template(12))
    assert layout_digest(template()) != layout_digest(template(shards=(8, 16, 8)))
    assert layout_digest(template()) != layout_digest(template(chunks=(8, 2, 4)))
    unsharded = [template(dates, shards=None) for dates in (11, 12)]
    assert layout_digest(unsharded[0]) != layout_digest(unsharded[1])


def test_what_is_written_comes_back_here_and_in_another_reader(store):
    np.testing.assert_array_equal(store.read(PRODUCT, "displacement"), values())
    plain = zarr.open_array(str(Path(store.root) / PRODUCT / "displacement"), mode="r")
    assert (plain.chunks, plain.shards) == (CHUNKS, SHARDS)
    np.testing.assert_array_equal(plain[:], values())
    assert len(objects_of(store)) == 4, "one object per shard"


def test_every_chunk_is_stored_and_every_checksum_stands(store):
    metadata = json.loads((Path(store.root) / PRODUCT / "displacement" / "zarr.json").read_text())
    (sharding,) = metadata["codecs"]
    assert sharding["name"] == "sharding_indexed"
    inside = [codec["name"] for codec in sharding["configuration"]["codecs"]]
    assert inside == ["bytes", "blosc", "crc32c"]
    index = [codec["name"] for codec in sharding["configuration"]["index_codecs"]]
    assert index == ["bytes", "crc32c"]
    # The index of a shard, by the specification: offset and size of each chunk, then a checksum.
    data = shard(store, "0/1/0").read_bytes()
    entries = np.frombuffer(data[-4 - 16 * 4 : -4], "<u8").reshape(1, 2, 2, 2)
    assert (entries[..., 1] < 2**63).all(), "chunks of fill value are stored like all others"


@pytest.mark.parametrize(
    ("origin", "part"),
    [
        ((0, 0, 0), np.s_[:8, :4]),  # a whole row of chunks, half a shard
        ((0, 4, 0), np.s_[:8, :8]),
        ((0, 0, 0), np.s_[:4, :8]),
        ((0, 0, 0), np.s_[:9, :8]),
        ((4, 0, 0), np.s_[:8, :8]),
    ],
)
def test_a_block_that_is_not_whole_shards_is_refused(store, origin, part):
    before = shard(store).read_bytes()
    with pytest.raises(StorageError, match="R809"):
        store.write_block(Block(PRODUCT, "displacement", origin, values()[part]))
    assert shard(store).read_bytes() == before


def test_a_block_may_hold_several_shards(store):
    record = store.write_block(Block(PRODUCT, "displacement", (0, 0, 0), values()))
    assert record.shape == SHAPE
    assert record.valid == int(np.isfinite(values()).sum())
    store.verify_block(record)


def test_a_missing_shard_raises_and_names_itself(store):
    shard(store, "0/1/0").unlink()
    with pytest.raises(StorageError, match=r"R802.*displacement/c/0/1/0"):
        store.read(PRODUCT, "displacement")
    store.read(PRODUCT, "displacement", (slice(0, 8), slice(0, 8)))
    with pytest.raises(StorageError, match="R802"):
        store.read(PRODUCT, "displacement", (slice(3, 4), slice(9, 10), slice(1, 2)))


def test_flipped_bits_raise_whichever_way_the_shard_is_read(store):
    """Everything in one piece, and one pixel by the index."""
    original = shard(store).read_bytes()
    everything, pixel = (slice(0, 8), slice(0, 8)), (slice(0, 8), slice(0, 1), slice(0, 1))
    index = len(original) - 4 - 16 * 4
    noticed = 0
    for position in [*range(0, index, 7), *range(index, len(original), 3)]:
        data = bytearray(original)
        data[position] ^= 1 << position % 8
        shard(store).write_bytes(bytes(data))
        with pytest.raises(StorageError, match="R803"):
            store.read(PRODUCT, "displacement", everything)
        try:
            read = store.read(PRODUCT, "displacement", pixel)
        except StorageError as fault:
            noticed += fault.code == "R803"
        else:
            # Another chunk is damaged: this pixel is none of its business.
            assert position < index
            np.testing.assert_array_equal(read, values()[pixel])
    assert noticed > (len(original) - index) / 3


@pytest.mark.parametrize("keep", [0, 3, 67, 68, 100, -1])
def test_a_truncated_shard_raises(store, keep):
    shard(store).write_bytes(shard(store).read_bytes()[:keep])
    for window in ((slice(0, 8), slice(0, 8)), (slice(0, 8), slice(0, 1), slice(0, 1))):
        with pytest.raises(StorageError, match="R803"):
            store.read(PRODUCT, "displacement", window)


@pytest.mark.parametrize("left", [None, b"", b"x" * 300])
def test_a_lost_or_damaged_shard_is_replaced(store, left):
    shard(store).unlink()
    if left is not None:
        shard(store).write_bytes(left)
    store.write_block(Block(PRODUCT, "displacement", (0, 0, 0), values()[:8, :8]))
    np.testing.assert_array_equal(store.read(PRODUCT, "displacement"), values())


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"\0" + data[1:]])
def test_a_shard_that_arrives_as_other_bytes_is_noticed(store, monkeypatch, change):
    honest = store.objects.write
    monkeypatch.setattr(store.objects, "write", lambda name, data: honest(name, change(data)))
    with pytest.raises(StorageError, match=r"R803.*than were written"):
        store.write_block(Block(PRODUCT, "displacement", (0, 0, 0), values()[:8, :8]))


def test_a_shard_is_one_write_and_reads_nothing_before(store, monkeypatch):
    calls = []

    def spy(name: str) -> None:
        honest = getattr(store.objects, name)

        def noting(*given):
            calls.append((name, given[0]))
            return honest(*given)

        monkeypatch.setattr(store.objects, name, noting)

    spy("read")
    spy("write")
    store.write_block(Block(PRODUCT, "displacement", (0, 0, 0), values()[:8, :8]))
    place = f"{PRODUCT}/displacement/c/0/0/0"
    assert calls == [("write", place), ("read", place)]


def test_the_same_data_give_the_same_bytes(store, tmp_path):
    other = CubeStore(str(tmp_path / "other"))
    other.create(template())
    write(other)
    assert objects_of(store) == objects_of(other)


def test_a_further_date_changes_the_last_shards_only(store):
    before = objects_of(store)
    assert store.create(template(12), replace=True) is TemplateState.COMPATIBLE
    assert before == objects_of(store)
    # What was there stays readable; the new date is fill value until its shard is written.
    np.testing.assert_array_equal(store.read(PRODUCT, "displacement")[:11], values())
    write(store, 12, first=8)
    np.testing.assert_array_equal(store.read(PRODUCT, "displacement"), values(12))
    after = objects_of(store)
    assert {name[0] for name in before if after[name] != before[name]} == {"1"}


def test_verification_names_damaged_shards(store):
    records = [
        store.write_block(Block(PRODUCT, "displacement", (0, top, 0), values()[:8, top : top + 8]))
        for top in (0, 8)
    ]
    data = bytearray(shard(store, "0/1/0").read_bytes())
    data[5] ^= 4
    shard(store, "0/1/0").write_bytes(bytes(data))
    store.verify_block(records[0])
    with pytest.raises(StorageError, match="R803"):
        store.verify_block(records[1])
    shard(store, "0/1/0").unlink()
    with pytest.raises(StorageError, match="R802"):
        store.verify_block(records[1])


# --- one document for all metadata -----------------------------------------------------------


def test_the_document_is_the_one_that_zarr_would_write(store, tmp_path):
    ours = json.loads(group(store).read_text())["consolidated_metadata"]
    shutil.copytree(Path(store.root) / PRODUCT, tmp_path / "copy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(str(tmp_path / "copy"), zarr_format=3)
    theirs = json.loads((tmp_path / "copy" / "zarr.json").read_text())["consolidated_metadata"]
    assert ours["kind"] == theirs["kind"]
    assert ours["must_understand"] is False
    assert set(ours["metadata"]) == {"displacement", "date", "y", "x", "spatial_ref"}
    for name, document in theirs["metadata"].items():
        mine = {k: v for k, v in ours["metadata"][name].items() if k in document}
        assert mine == document, name


def test_plain_xarray_reads_times_units_and_gaps_without_a_warning(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = open_plain(Path(store.root) / PRODUCT)
    assert dataset.date.values.astype("datetime64[D]").astype(int).tolist() == DAYS[:11].tolist()
    assert dataset.displacement.attrs["units"] == "m"
    assert set(dataset.coords) == {"date", "y", "x", "spatial_ref"}
    np.testing.assert_array_equal(dataset.displacement.values, values())


def test_only_published_products_have_it(tmp_path):
    store = CubeStore(str(tmp_path))
    inner = Template("scene/series", template().arrays, template().coordinates)
    store.create(inner)
    document = json.loads((tmp_path / "scene" / "series" / "zarr.json").read_text())
    assert "consolidated_metadata" not in document
    assert "bperp_product" not in document["attributes"]


def test_it_is_never_older_than_what_it_describes(store, monkeypatch):
    """Whenever the document can be read, it says of every array what the array says of itself."""

    class Killed(BaseException):
        pass

    for last in range(8):
        written = []

        def die(name: str, data: bytes, written=written, last=last) -> None:
            if len(written) == last:
                raise Killed
            written.append(name)
            type(store.objects).write(store.objects, name, data)

        monkeypatch.setattr(store.objects, "write", die)
        wanted = template(11 + (last + 1) % 2, attributes={"units": "m", "round": last})
        with pytest.raises(Killed):
            store.create(wanted, replace=True)
        monkeypatch.undo()
        document = json.loads(group(store).read_text())
        if "consolidated_metadata" in document:
            assert written == []
            for name, described in document["consolidated_metadata"]["metadata"].items():
                own = (group(store).parent / name / "zarr.json").read_text()
                assert json.loads(own) == described
        else:
            with pytest.raises(ValueError, match="onsolidated"):
                open_plain(group(store).parent)
        store.create(wanted, replace=True)
        assert open_plain(group(store).parent).displacement.attrs["round"] == last


def test_distrust_and_removal_take_it_away(store):
    store.distrust(PRODUCT)
    assert "consolidated_metadata" not in json.loads(group(store).read_text())
    store.create(template(), replace=True)
    assert "consolidated_metadata" in json.loads(group(store).read_text())
    store.remove(PRODUCT)
    assert not group(store).exists()


# --- a cube that is alone --------------------------------------------------------------------


@pytest.fixture
def sealed(store: CubeStore) -> CubeStore:
    store.seal(PRODUCT, "a" * 64)
    return store


def test_a_copied_cube_opens_by_its_seal(sealed, tmp_path):
    copy = tmp_path / "elsewhere" / "cube.zarr"
    shutil.copytree(Path(sealed.root) / PRODUCT, copy)
    for url in (str(copy), f"{copy}/", f"file://{copy}"):
        (name, dataset), *rest = bperp.open(url).items()
        assert (name, rest) == (PRODUCT, [])
        np.testing.assert_array_equal(dataset.displacement.values, values())
        assert dataset.date.dtype.kind == "M"
    shutil.rmtree(sealed.root)
    np.testing.assert_array_equal(
        bperp.open(str(copy))[PRODUCT].displacement[3].values, values()[3]
    )


def test_a_cube_may_be_a_root_of_an_object_store(sealed):
    memory = CubeStore("memory://cube-alone")
    for path in sorted((Path(sealed.root) / PRODUCT).rglob("*")):
        if path.is_file():
            name = str(path.relative_to(Path(sealed.root) / PRODUCT))
            memory.objects.write(name, path.read_bytes())
    try:
        dataset = bperp.open("memory://cube-alone")[PRODUCT]
        np.testing.assert_array_equal(dataset.displacement[:, 2, 3].values, values()[:, 2, 3])
    finally:
        memory.objects.remove_tree("")


def test_a_cube_without_a_seal_does_not_open(store):
    path = str(Path(store.root) / PRODUCT)
    with pytest.raises(StorageError, match=r"R801.*bperp_content"):
        bperp.open(path)
    store.seal(PRODUCT, "a" * 64)
    assert list(bperp.open(path)) == [PRODUCT]
    # The next run takes the seal back before it changes anything, whether the template is the
    # same or not.
    for again in (template(), template(12)):
        store.seal(PRODUCT, "a" * 64)
        store.create(again, replace=True)
        with pytest.raises(StorageError, match="R801"):
            bperp.open(path)
        open_plain(path)
    store.seal(PRODUCT, "b" * 64)
    store.distrust(PRODUCT)
    with pytest.raises(StorageError, match="R801"):
        bperp.open(path)


def test_inner_products_and_other_folders_do_not_open_alone(tmp_path):
    store = CubeStore(str(tmp_path))
    store.create(Template("scene/series", template().arrays, template().coordinates))
    store.seal("scene/series", "a" * 64)
    with pytest.raises(StorageError, match="R801"):
        bperp.open(str(tmp_path / "scene" / "series"))
    zarr.create_group(str(tmp_path / "foreign"), zarr_format=3)
    with pytest.raises(StorageError, match="R801"):
        bperp.open(str(tmp_path / "foreign"))


def test_holes_and_damage_of_a_copy_are_noticed_when_read(sealed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(Path(sealed.root) / PRODUCT, copy)
    (copy / "displacement" / "c" / "0" / "1" / "0").unlink()
    dataset = bperp.open(str(copy))[PRODUCT]
    with pytest.raises(StorageError, match="R802"):
        dataset.displacement[0, 10].compute(scheduler="synchronous")
    path = copy / "displacement" / "c" / "1" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match="R803"):
        dataset.displacement[9, 0].compute(scheduler="synchronous")
    np.testing.assert_array_equal(dataset.displacement[:8, 0].values, values()[:8, 0])


def test_a_newer_cube_is_refused(sealed):
    path = group(sealed)
    path.write_text(path.read_text().replace('"bperp_schema": 1', '"bperp_schema": 99'))
    with pytest.raises(StorageError, match="R808"):
        bperp.open(str(path.parent))


def test_a_seal_changes_nothing_else(store):
    before = json.loads(group(store).read_text())
    vouch(store, PRODUCT)
    store.seal(PRODUCT, "a" * 64)
    assert store.state(template()) is TemplateState.SAME
    after = json.loads(group(store).read_text())
    assert after["attributes"].pop("bperp_content") == "a" * 64
    assert after == before
    store.unseal(PRODUCT)
    assert json.loads(group(store).read_text()) == before


# --- groups inside a product -----------------------------------------------------------------

PLACE = GridPlace(500000.0, 4000000.0, 100.0, (5, 3), 'PROJCRS["..."]', 32633)


def overviews() -> Template:
    arrays, coordinates = [], {}
    for level in range(2):
        place = PLACE.halved(level)
        arrays.append(
            ArraySpec(f"{level}/velocity", ("y", "x"), place.shape, place.shape, "float32", NAN,
                      {"units": "m year-1"}, place.shape)
        )  # fmt: skip
        coordinates[f"{level}/y"] = (("y",), np.arange(place.shape[0]) * 1.0, {})
        coordinates[f"{level}/x"] = (("x",), np.arange(place.shape[1]) * 1.0, {})
        coordinates[f"{level}/spatial_ref"] = ((), np.zeros((), np.int32), {"crs_wkt": "..."})
    groups = {str(level): grid_attributes(PLACE.halved(level)) for level in range(2)}
    levels = [PLACE, PLACE.halved(1)]
    attributes = {**multiscale_attributes(levels, "average"), "groups": groups}
    return Template("results/overviews", tuple(arrays), coordinates, attributes)


@pytest.fixture
def levels(tmp_path: Path) -> CubeStore:
    cube = CubeStore(str(tmp_path / "run"))
    cube.create(overviews())
    for spec in overviews().arrays:
        data = np.arange(np.prod(spec.shape), dtype=np.float32).reshape(spec.shape)
        cube.write_block(Block("results/overviews", spec.name, (0, 0), data))
    vouch(cube, "results/overviews")
    return cube


def test_levels_open_as_products_of_their_own(levels, tmp_path):
    found = bperp.open(levels.root)
    assert list(found) == ["results/overviews/0", "results/overviews/1"]
    assert found["results/overviews/1"].velocity.shape == (3, 2)
    assert found["results/overviews/1"].attrs["spatial:shape"] == [3, 2]
    assert "spatial_ref" in found["results/overviews/0"].coords
    levels.seal("results/overviews", "a" * 64)
    copy = tmp_path / "copy"
    shutil.copytree(Path(levels.root) / "results/overviews", copy)
    assert list(bperp.open(str(copy))) == list(found)


def test_levels_open_in_plain_xarray_together_and_alone(levels):
    path = Path(levels.root) / "results" / "overviews"
    tree = xarray.open_datatree(str(path), engine="zarr", consolidated=True, zarr_format=3)
    assert [node.name for node in tree.leaves] == ["0", "1"]
    for level in ("0", "1"):
        alone = open_plain(path / level)
        member = open_plain(path, group=level)
        for dataset in (alone, member, tree[level].to_dataset()):
            expected = np.arange(alone.velocity.size).reshape(alone.velocity.shape)
            np.testing.assert_array_equal(dataset.velocity.values, expected)
        assert alone.attrs["Conventions"] == "CF-1.11"
        assert "spatial_ref" in alone.coords


def test_a_compatible_change_renews_the_documents_of_levels(levels, monkeypatch):
    class Killed(BaseException):
        pass

    def die(name: str, data: bytes) -> None:
        if name.endswith("1/velocity/zarr.json"):
            raise Killed
        type(levels.objects).write(levels.objects, name, data)

    monkeypatch.setattr(levels.objects, "write", die)
    base = overviews()
    arrays = tuple(
        ArraySpec(s.name, s.dims, s.shape, s.chunks, s.dtype, NAN, {"units": "mm"}, s.shards)
        for s in base.arrays
    )
    changed = Template(base.product, arrays, base.coordinates, base.attributes)
    with pytest.raises(Killed):
        levels.create(changed, replace=True)
    monkeypatch.undo()
    path = Path(levels.root) / "results" / "overviews"
    for folder in (path, path / "1"):
        with pytest.raises((ValueError, FileNotFoundError)):
            open_plain(folder)
    assert levels.create(changed, replace=True) is TemplateState.COMPATIBLE
    assert open_plain(path / "1").velocity.attrs["units"] == "mm"
    np.testing.assert_array_equal(open_plain(path / "1").velocity.values.ravel(), np.arange(6))


# --- GeoZarr ---------------------------------------------------------------------------------


def corners(transform: list[float], column: float, row: float) -> tuple[float, float]:
    """Map a corner of the grid as the convention ``spatial`` defines it."""
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def test_the_transform_leads_to_the_box():
    found = grid_attributes(PLACE)
    rows, columns = found["spatial:shape"]
    west, north = corners(found["spatial:transform"], 0, 0)
    east, south = corners(found["spatial:transform"], columns, rows)
    assert found["spatial:bbox"] == [west, south, east, north]
    assert (found["proj:code"], found["spatial:registration"]) == ("EPSG:32633", "pixel")
    assert "proj:code" not in grid_attributes(PLACE._replace(epsg=None))


def test_levels_follow_the_rules_of_the_convention():
    found = multiscale_attributes([PLACE.halved(k) for k in range(3)], "average")
    # Version 0.1: every level has a transform, a derived one also tells how it was derived, and
    # none of it stands at the group.
    assert not {"spatial:transform", "spatial:shape"} & set(found)
    assert {"spatial:dimensions", "proj:wkt2"} <= set(found)
    layout = found["multiscales"]["layout"]
    assert [item["asset"] for item in layout] == ["0", "1", "2"]
    assert [item.get("derived_from") for item in layout] == [None, "0", "1"]
    for level, item in enumerate(layout):
        place = PLACE.halved(level)
        assert item["spatial:shape"] == list(place.shape)
        assert corners(item["spatial:transform"], 0, 0) == (PLACE.left, PLACE.top)
        # The centre of the first cell, in the level before and in its own words.
        scale, shift = item["transform"]["scale"][0], item["transform"]["translation"][0]
        before = PLACE.halved(max(level - 1, 0))
        centre = corners(before.transform, 0.5 + shift, 0.5 + shift)
        assert centre == corners(item["spatial:transform"], 0.5, 0.5)
        assert place.spacing == before.spacing * scale
    registered = {item["name"]: item for item in found["zarr_conventions"]}
    assert set(registered) == {"multiscales", "proj", "spatial"}
    for name, item in registered.items():
        assert item["schema_url"].endswith(f"zarr-conventions/{name}/refs/tags/v0.1/schema.json")


# --- without bperp ---------------------------------------------------------------------------

READER = """
import sys

# None in this table is what Python itself takes for "cannot be imported".
sys.modules.update(dict.fromkeys(("bperp", "dask", "pyproj", "numba")))
import warnings
warnings.simplefilter("error")
import numpy as np
import xarray

url = sys.argv[1]
dataset = xarray.open_zarr(url, consolidated=True, chunks=None)
assert dataset.date.dtype.kind == "M", dataset.date.dtype
assert dataset.displacement.attrs["units"] == "m"
pixel = dataset.displacement.sel(x=210.0, y=-390.0, method="nearest")
print(*(str(day) for day in dataset.date.values.astype("datetime64[D]")[:2]))
print(*(f"{value:.6f}" for value in pixel.values))
print(int(np.isnan(dataset.displacement.values).sum()))
"""


def test_others_read_it_from_an_object_store_without_bperp(sealed, s3):
    remote = CubeStore(f"{s3.root}/open")
    remote.create(template())
    write(remote)
    result = subprocess.run(
        [sys.executable, "-c", READER, f"{s3.root}/open/{PRODUCT}"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert result.returncode == 0, result.stderr
    days, series, gaps = result.stdout.splitlines()
    assert days == " ".join(str(d) for d in DAYS[:2].astype("datetime64[D]"))
    assert series == " ".join(f"{value:.6f}" for value in values()[:, 4, 2])
    assert int(gaps) == int(np.isnan(values()).sum())
