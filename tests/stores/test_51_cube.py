"""The cube store: whole chunks, read back, every damage noticed."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray

from bperp.pipeline.stage import ArraySpec, Block, Template
from bperp.stores.cube import CubeStore, TemplateState, open_root
from bperp.stores.errors import StorageError
from bperp.stores.layout import layout_digest, render_product, template_digest
from bperp.stores.receipts import Ledger, Marker

PRODUCT = "bursts/t052_109876_iw1/slc"
DATES = np.array(["2020-01-01", "2020-01-13", "2020-01-25", "2020-02-06"], "datetime64[D]")


def template(dates: int = 3, **changes) -> Template:
    array = {
        "name": "slc",
        "dims": ("date", "azimuth", "range", "iq"),
        "shape": (dates, 100, 150, 2),
        "chunks": (1, 64, 64, 2),
        "dtype": "int16",
        "fill_value": 0,
        "attributes": {"units": "1", "long_name": "digital numbers"},
    }
    coordinates = {
        "date": (("date",), DATES[:dates], {"standard_name": "time", "axis": "T"}),
        "orbit": (("date",), np.array(["precise"] * dates), {}),
    }
    return Template(PRODUCT, (ArraySpec(**{**array, **changes}),), coordinates, {"title": "burst"})


def numbers(date: int = 0) -> np.ndarray:
    return np.random.default_rng(date).integers(-999, 999, (1, 100, 150, 2)).astype(np.int16)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    root = str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}"
    cube = CubeStore(root)
    yield cube
    cube.objects.remove_tree("")


@pytest.fixture
def local(tmp_path: Path) -> CubeStore:
    cube = CubeStore(str(tmp_path / "run"))
    cube.create(template())
    for date in range(3):
        cube.write_block(Block(PRODUCT, "slc", (date, 0, 0, 0), numbers(date)))
    return cube


def vouch(store: CubeStore, *products: str) -> None:
    Ledger(store.objects).write_marker(Marker("ingest", "1", {}, {name: {} for name in products}))


def chunk_file(store: CubeStore, index: str = "0/0/0/0") -> Path:
    return Path(store.root) / PRODUCT / "slc" / "c" / index


def test_a_written_block_reads_back_and_its_hash_is_of_the_plain_bytes(store):
    store.create(template())
    data = numbers()
    record = store.write_block(Block(PRODUCT, "slc", (0, 0, 0, 0), data))
    assert record.sha256 == hashlib.sha256(data.astype("<i2").tobytes()).hexdigest()
    assert record.valid == np.count_nonzero(data)
    assert (record.origin, record.shape) == ((0, 0, 0, 0), (1, 100, 150, 2))
    np.testing.assert_array_equal(store.read(PRODUCT, "slc", (slice(0, 1),)), data)
    window = (slice(0, 1), slice(60, 70), slice(63, 129))
    np.testing.assert_array_equal(store.read(PRODUCT, "slc", window), data[:, 60:70, 63:129])


def test_a_tile_of_whole_chunks_at_the_edge_is_accepted(store):
    store.create(template())
    store.write_block(Block(PRODUCT, "slc", (2, 64, 128, 0), numbers()[:, 64:, 128:]))


@pytest.mark.parametrize(
    ("origin", "part"),
    [
        ((0, 0, 0, 0), np.s_[:, :50]),  # ends inside a chunk
        ((0, 10, 0, 0), np.s_[:, :64]),  # starts inside a chunk
        ((0, 64, 0, 0), np.s_[:, :64]),  # reaches beyond the array
        ((3, 0, 0, 0), np.s_[:]),  # no such date
        ((0, 0, 0, 0), np.s_[:, :0]),  # empty
        ((0, 0, 0), np.s_[:]),  # axes missing
        ((-1, 0, 0, 0), np.s_[:]),
    ],
)
def test_a_block_that_is_not_whole_chunks_is_refused(local, origin, part):
    before = chunk_file(local).read_bytes()
    with pytest.raises(StorageError, match="R809") as caught:
        local.write_block(Block(PRODUCT, "slc", origin, numbers(9)[part]))
    assert PRODUCT in str(caught.value)
    assert chunk_file(local).read_bytes() == before


def test_a_block_of_another_type_is_refused(local):
    with pytest.raises(StorageError, match=r"R809.*int16.*int32"):
        local.write_block(Block(PRODUCT, "slc", (0, 0, 0, 0), numbers().astype(np.int32)))


def test_big_endian_data_are_stored_as_the_same_numbers(local):
    record = local.write_block(Block(PRODUCT, "slc", (0, 0, 0, 0), numbers(5).astype(">i2")))
    assert record.sha256 == hashlib.sha256(numbers(5).tobytes()).hexdigest()
    np.testing.assert_array_equal(local.read(PRODUCT, "slc", (slice(0, 1),)), numbers(5))


def test_chunks_of_fill_value_are_written_too(local):
    zeros = np.zeros((1, 100, 150, 2), np.int16)
    assert local.write_block(Block(PRODUCT, "slc", (0, 0, 0, 0), zeros)).valid == 0
    assert chunk_file(local).exists()
    assert not local.read(PRODUCT, "slc", (slice(0, 1),)).any()


@pytest.mark.parametrize("position", [0, 20, 200, -1])
def test_a_flipped_bit_raises(local, position):
    data = bytearray(chunk_file(local).read_bytes())
    data[position] ^= 1
    chunk_file(local).write_bytes(bytes(data))
    with pytest.raises(StorageError, match=r"R803.*slc"):
        local.read(PRODUCT, "slc")


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_a_truncated_chunk_raises(local, keep):
    chunk_file(local).write_bytes(chunk_file(local).read_bytes()[:keep])
    with pytest.raises(StorageError, match="R803"):
        local.read(PRODUCT, "slc")


def test_a_missing_chunk_raises_and_names_itself(local):
    chunk_file(local, "1/1/2/0").unlink()
    with pytest.raises(StorageError, match=r"R802.*slc/c/1/1/2/0"):
        local.read(PRODUCT, "slc")
    local.read(PRODUCT, "slc", (slice(0, 1),))


def test_a_damaged_chunk_can_be_written_again(local):
    chunk_file(local, "0/1/2/0").write_bytes(b"x")
    local.write_block(Block(PRODUCT, "slc", (0, 0, 0, 0), numbers(0)))
    np.testing.assert_array_equal(local.read(PRODUCT, "slc", (slice(0, 1),)), numbers(0))


def test_a_write_that_does_not_read_back_is_noticed(local, monkeypatch):
    class Forgetful:
        """An array whose writes arrive with one number changed."""

        def __init__(self, array):
            self._array = array

        def __getattr__(self, name):
            return getattr(self._array, name)

        def __getitem__(self, key):
            values = np.array(self._array[key])
            values.flat[7] += 1
            return values

        def with_config(self, config):
            return self._array.with_config(config)

    honest = local.array(PRODUCT, "slc")
    monkeypatch.setattr(local, "array", lambda *_: Forgetful(honest))
    with pytest.raises(StorageError, match=r"R803.*than were written"):
        local.write_block(Block(PRODUCT, "slc", (0, 0, 0, 0), numbers()))


@pytest.mark.parametrize(
    "region",
    [(slice(0, 4),), (slice(-1, 1),), (slice(0, 1, 2),), (slice(0, 1),) * 5, (slice(2, 1),)],
)
def test_a_window_outside_the_array_is_a_programming_error(local, region):
    with pytest.raises(ValueError, match=PRODUCT):
        local.read(PRODUCT, "slc", region)


def test_an_unknown_product_or_variable_is_r801(local):
    for product, variable in (("scene/none", "phase"), (PRODUCT, "phase")):
        with pytest.raises(StorageError, match="R801"):
            local.read(product, variable)


def test_creating_twice_changes_nothing(local):
    files = {p: p.stat().st_mtime_ns for p in Path(local.root).rglob("*") if p.is_file()}
    assert local.create(template()) is TemplateState.SAME
    assert files == {p: p.stat().st_mtime_ns for p in Path(local.root).rglob("*") if p.is_file()}


def test_another_template_needs_permission(local):
    for changed in (template(4), template(dtype="int32"), template(chunks=(1, 32, 64, 2))):
        with pytest.raises(StorageError, match="R808"):
            local.create(changed)
    np.testing.assert_array_equal(local.read(PRODUCT, "slc", (slice(0, 1),)), numbers(0))


def test_a_further_date_keeps_the_chunks(local):
    chunks = {p: p.read_bytes() for p in Path(local.root).rglob("c/?/?/?/?")}
    assert local.create(template(4), replace=True) is TemplateState.COMPATIBLE
    assert chunks == {p: p.read_bytes() for p in Path(local.root).rglob("c/?/?/?/?")}
    np.testing.assert_array_equal(local.read(PRODUCT, "slc", (slice(2, 3),)), numbers(2))
    assert local.array(PRODUCT, "slc").shape == (4, 100, 150, 2)
    assert local.read(PRODUCT, "date").shape == (4,)
    with pytest.raises(StorageError, match="R802"):
        local.read(PRODUCT, "slc", (slice(3, 4),))


@pytest.mark.parametrize("change", [{"dtype": "int32"}, {"chunks": (1, 32, 64, 2)}])
def test_another_layout_removes_the_chunks(local, change):
    assert local.create(template(**change), replace=True) is TemplateState.DIFFERENT
    assert not chunk_file(local).exists()


def test_an_interrupted_creation_is_repaired(local, monkeypatch):
    class Killed(BaseException):
        pass

    written = []

    def die(name: str, data: bytes) -> None:
        if len(written) == 3:
            raise Killed
        written.append(name)
        type(local.objects).write(local.objects, name, data)

    monkeypatch.setattr(local.objects, "write", die)
    with pytest.raises(Killed):
        local.create(template(4), replace=True)
    monkeypatch.undo()
    # Neither the old nor the new template is taken for complete, and the chunks are still there.
    assert local.state(template(3)) is TemplateState.COMPATIBLE
    assert local.create(template(4), replace=True) is TemplateState.COMPATIBLE
    assert local.read(PRODUCT, "date").shape == (4,)
    np.testing.assert_array_equal(local.read(PRODUCT, "slc", (slice(0, 1),)), numbers(0))


def test_a_renamed_coordinate_leaves_nothing_behind(local):
    base = template()
    renamed = Template(PRODUCT, base.arrays, {"date": base.coordinates["date"]}, base.attributes)
    local.create(renamed, replace=True)
    assert local.variables(PRODUCT) == (("slc",), ("date",))
    assert not (Path(local.root) / PRODUCT / "orbit").exists()


def test_layout_and_template_digests_follow_their_rules():
    base = template()
    assert layout_digest(base) == layout_digest(template(4))
    assert template_digest(base) != template_digest(template(4))
    assert layout_digest(base) == layout_digest(template(attributes={"units": "m"}))
    for change in (
        {"dtype": "int32"},
        {"chunks": (1, 64, 32, 2)},
        {"fill_value": -1},
        {"shape": (3, 101, 150, 2)},
        {"attributes": {"scale_factor": 2.0}},
    ):
        assert layout_digest(base) != layout_digest(template(**change)), change
    # Two dates in one chunk: a further date changes the last chunk, so it must not pass for equal.
    assert layout_digest(template(chunks=(2, 64, 64, 2))) != layout_digest(
        template(4, chunks=(2, 64, 64, 2))
    )


def test_metadata_is_zarr_v3_with_a_checksum_last():
    meta = json.loads(render_product(template())["slc/zarr.json"])
    assert [codec["name"] for codec in meta["codecs"]] == ["bytes", "blosc", "crc32c"]
    blosc = meta["codecs"][1]["configuration"]
    assert (blosc["cname"], blosc["clevel"], blosc["shuffle"], blosc["typesize"]) == (
        "lz4",
        1,
        "bitshuffle",
        2,
    )
    assert meta["dimension_names"] == ["date", "azimuth", "range", "iq"]
    assert list(render_product(template()))[-1] == "zarr.json"
    assert render_product(template()) == render_product(template())


def test_templates_that_contradict_themselves_are_refused(store):
    with pytest.raises(ValueError, match="equally long"):
        store.create(template(chunks=(1, 64, 64)))
    with pytest.raises(ValueError, match="NaT"):
        render_product(Template(PRODUCT, (), {"date": (("date",), np.array(["NaT"], "M8[D]"), {})}))
    twice = template().arrays * 2
    with pytest.raises(ValueError, match="unique"):
        render_product(Template(PRODUCT, twice))


def test_a_newer_schema_is_refused(local):
    path = Path(local.root) / PRODUCT / "zarr.json"
    path.write_text(path.read_text().replace('"bperp_schema": 1', '"bperp_schema": 99'))
    with pytest.raises(StorageError, match="R808"):
        local.state(template())


def test_only_vouched_products_open(local):
    with pytest.raises(StorageError, match="R801"):
        open_root(local.root)
    with pytest.raises(StorageError, match="R801"):
        local.open_dataset(PRODUCT)
    vouch(local, PRODUCT)
    assert list(open_root(local.root)) == [PRODUCT]


def test_the_dataset_is_lazy_decoded_and_complete(store):
    scaled = {"scale_factor": 0.5, "_FillValue": 0, "units": "m"}
    store.create(template(attributes=scaled))
    for date in range(3):
        store.write_block(Block(PRODUCT, "slc", (date, 0, 0, 0), numbers(date)))
    vouch(store, PRODUCT)
    dataset = open_root(store.root)[PRODUCT]
    assert dataset.slc.chunks == ((1, 1, 1), (64, 36), (64, 64, 22), (2,))
    assert dataset.date.values.astype("datetime64[D]").tolist() == DATES[:3].tolist()
    assert list(dataset.orbit.values) == ["precise"] * 3
    assert "orbit" in dataset.coords
    expected = np.where(numbers(1) == 0, np.nan, 0.5 * numbers(1))
    np.testing.assert_array_equal(dataset.slc[1:2].values, expected)
    raw = store.open_dataset(PRODUCT, decode=False)
    assert raw.slc.dtype == np.int16
    np.testing.assert_array_equal(raw.slc[2, 10:90:7, 149].values, numbers(2)[0, 10:90:7, 149])


def test_plain_xarray_reads_the_same_numbers(tmp_path):
    store = CubeStore(str(tmp_path))
    for name, dtype, fill, missing in (
        ("a", "float32", float("nan"), -9.0),
        ("b", "int16", -1, -1),
    ):
        spec = ArraySpec(
            name, ("azimuth", "range"), (4, 6), (4, 3), dtype, fill, {"_FillValue": missing}
        )
        store.create(Template(f"scene/{name}", (spec,)))
        data = np.arange(24).reshape(4, 6).astype(dtype)
        data[0, 0] = missing
        store.write_block(Block(f"scene/{name}", name, (0, 0), data))
    vouch(store, "scene/a", "scene/b")
    for product, ours in open_root(str(tmp_path)).items():
        theirs = xarray.open_zarr(str(tmp_path / product), consolidated=False)
        theirs.attrs = {k: v for k, v in theirs.attrs.items() if not k.startswith("bperp_")}
        xarray.testing.assert_identical(ours.load(), theirs.load())
        assert np.isnan(ours[product[-1]].values[0, 0])


def test_the_dataset_reports_damage_with_codes(local):
    vouch(local, PRODUCT)
    dataset = local.open_dataset(PRODUCT)
    chunk_file(local, "2/0/0/0").write_bytes(b"broken")
    chunk_file(local, "1/0/0/0").unlink()
    with pytest.raises(StorageError, match="R803"):
        dataset.slc[2].compute(scheduler="synchronous")
    with pytest.raises(StorageError, match="R802"):
        dataset.slc[1].compute(scheduler="synchronous")
    dataset.slc[0].compute(scheduler="synchronous")


def test_stores_and_datasets_pickle_by_name(local):
    vouch(local, PRODUCT)
    copy = pickle.loads(pickle.dumps(local))
    np.testing.assert_array_equal(copy.read(PRODUCT, "slc"), local.read(PRODUCT, "slc"))
    dataset = pickle.loads(pickle.dumps(local.open_dataset(PRODUCT)))
    np.testing.assert_array_equal(dataset.slc[:1].values, numbers(0))


def test_complex_and_empty_arrays_work(store):
    specs = (
        ArraySpec("signal", ("azimuth", "range"), (5, 7), (5, 4), "complex64", 0),
        ArraySpec("point", ("scatterer",), (0,), (1,), "float64", float("nan")),
        ArraySpec("flag", ("azimuth",), (5,), (5,), "bool", 0),
    )
    store.create(Template("scene/mixed", specs))
    signal = (np.arange(35).reshape(5, 7) * (1 - 2j)).astype(np.complex64)
    store.write_block(Block("scene/mixed", "signal", (0, 0), signal))
    store.write_block(Block("scene/mixed", "flag", (0,), np.eye(5, dtype=bool)[1]))
    vouch(store, "scene/mixed")
    dataset = store.open_dataset("scene/mixed")
    np.testing.assert_array_equal(dataset.signal.values, signal)
    assert dataset.point.shape == (0,)
    assert dataset.flag.values.tolist() == [False, True, False, False, False]


def test_nan_fill_counts_as_invalid(store):
    spec = ArraySpec("phase", ("azimuth",), (4,), (4,), "float32", float("nan"))
    store.create(Template("scene/phase", (spec,)))
    data = np.array([0.0, np.nan, 1.0, np.nan], np.float32)
    assert store.write_block(Block("scene/phase", "phase", (0,), data)).valid == 2
