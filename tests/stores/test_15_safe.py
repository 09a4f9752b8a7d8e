"""SAFE products: faults A06 to A12, A17, names, manifests, and the real products."""

from __future__ import annotations

import importlib.util
import pickle
import re
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bperp.stores.errors import BperpError, ProductError
from bperp.stores.manifest import parse_manifest
from bperp.stores.product_name import parse_name
from bperp.stores.safe import open_safe

_spec = importlib.util.spec_from_file_location(
    "safe_text", Path(__file__).with_name("test_10_safe_text.py")
)
text = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(text)


def product_of(tmp_path: Path, **changes):
    return open_safe(str(text.write_folder(tmp_path, text.safe_files(**changes))))


def code_of(path: Path | str, **options) -> str:
    with pytest.raises(BperpError) as caught:
        open_safe(str(path), **options)
    assert "\n" not in str(caught.value)
    assert "fix: " in str(caught.value)
    return caught.value.code


def test_name_fields():
    name = parse_name(text.NAME + ".SAFE")
    assert (name.mission, name.mode, name.product_type) == ("S1A", "IW", "SLC")
    assert (name.polarization_code, name.absolute_orbit) == ("DV", 50174)
    assert (name.datatake, name.unique_id) == (0x0609E3, "DAA1")
    assert name.stop_ns - name.start_ns == 4 * 10**9
    assert str(name) == text.NAME
    assert parse_name(text.NAME.lower() + ".zip") == name
    for other in ("S2A_MSIL1C_20170102T111442_N0204_R137_T30TWN_20170102T111441.SAFE", "x", ""):
        assert parse_name(other) is None


@pytest.mark.parametrize("kind", ["folder", "zip", "memory"])
def test_everything_is_found_in_any_container(tmp_path, kind):
    files = text.safe_files()
    url = str(text.write_folder(tmp_path, files))
    if kind == "zip":
        url = str(text.write_zip(tmp_path, files))
    if kind == "memory":
        url = f"memory://safe/{text.NAME}.SAFE"
        fsspec.filesystem("memory").pipe(
            {f"/safe/{text.NAME}.SAFE/{name}": data for name, data in files.items()}
        )
    product = open_safe(url)
    assert (product.name, product.mission, product.ipf_version) == (text.NAME, "S1A", "003.61")
    assert (product.absolute_orbit, product.relative_orbit) == (50174, 52)
    assert product.orbit_direction == "ascending"
    assert product.flags == ()
    assert product.swaths() == (("IW1", "VH"), ("IW1", "VV"), ("IW2", "VV"))
    annotation = product.annotation("iw1", "vv")
    assert (annotation.product_name, annotation.ipf_version) == (text.NAME, "003.61")
    assert annotation.where.startswith(Path(url).name)
    assert product.calibration("IW1", "VV").vectors
    assert product.noise("IW1", "VV").range_vectors
    assert product.measurement("IW1", "VV") == f"measurement/{text.STEM}.tiff".format(
        swath="iw1", pol="vv", number=2
    )
    product.verify()
    again = pickle.loads(pickle.dumps(product))
    assert again.annotation("IW1", "VV").bursts[0].burst_id == annotation.bursts[0].burst_id
    assert again.content_id() == product.content_id()


def test_bursts_of_one_cycle_share_their_number_over_swaths(tmp_path):
    product = product_of(tmp_path)
    first = product.annotation("IW1", "VV").bursts[0]
    other = product.annotation("IW2", "VV").bursts[0]
    # Both start at the same time here, so IW2 belongs to the cycle before or the same one.
    assert first.computed_number - other.computed_number in {0, 1}
    assert other.burst_id_source == "computed"


def test_content_id_follows_the_content_and_not_the_container(tmp_path):
    files = text.safe_files()
    folder = open_safe(str(text.write_folder(tmp_path / "a", files)))
    zipped = open_safe(str(text.write_zip(tmp_path, files, prefix="deep/" + text.NAME + ".SAFE/")))
    assert folder.content_id() == zipped.content_id()
    other = text.safe_files(annotation=text.annotation_xml(old_rates=True))
    assert product_of(tmp_path / "b").content_id() == folder.content_id()
    changed = open_safe(str(text.write_folder(tmp_path / "c", other)))
    assert changed.content_id() != folder.content_id()
    # Without checksums the sizes still tell.
    bare = {**files, "manifest.safe": text.manifest_xml()}
    longer = {**bare, next(n for n in bare if n.endswith(".tiff")): b"1"}
    ids = [
        open_safe(str(text.write_folder(tmp_path / k, f))).content_id()
        for k, f in (("d", bare), ("e", longer))
    ]
    assert len({*ids, folder.content_id()}) == 3


def test_a06_missing_annotation(tmp_path):
    product = product_of(tmp_path, annotation=None, manifest=text.manifest_xml(text.safe_files()))
    assert product.swaths() == (("IW1", "VH"), ("IW2", "VV"))
    assert product.annotation("IW2", "VV").swath == "IW2"
    with pytest.raises(ProductError, match=r"D205 .*IW1 VV is declared .* IW1 VH, IW2 VV"):
        product.annotation("IW1", "VV")
    with pytest.raises(ProductError, match=r"D205 .*IW3 VV is not in this product"):
        product.annotation("IW3", "VV")
    only = {"manifest.safe": text.manifest_xml()}
    assert code_of(text.write_folder(tmp_path / "b", only)) == "D205"


def test_a07_a08_missing_pixels_and_tables_are_flags(tmp_path):
    product = product_of(tmp_path, measurement=None, calibration=None, noise=None)
    assert set(product.flags) == {
        "measurement-missing:IW1-VV",
        "calibration-missing:IW1-VV",
        "noise-missing:IW1-VV",
    }
    assert product.measurement("IW1", "VV") is None
    assert product.calibration("IW1", "VV") is None
    assert product.noise("IW1", "VV") is None
    assert product.annotation("IW1", "VV").bursts


def test_a09_two_annotations_for_one_swath(tmp_path):
    files = text.safe_files()
    member = next(
        name for name in files if "iw1-slc-vv" in name and name.startswith("annotation/s")
    )
    files[member.replace("-002.xml", "-005.xml")] = files[member]
    with pytest.raises(ProductError, match=r"D207 .*two annotation files for IW1 VV.*separate"):
        open_safe(str(text.write_folder(tmp_path, files)))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("S1A_", "S1B_", "mission S1B"),
        ("050174", "050175", "orbit 50175"),
        ("0609E3", "0609E4", "datatake"),
        ("1SDV", "1SSV", "polarizations"),
        ("20230904T055747_", "20230804T055747_", "start"),
    ],
)
def test_a10_name_against_manifest(tmp_path, old, new, named):
    path = text.write_folder(tmp_path, text.safe_files(), text.NAME.replace(old, new))
    with pytest.raises(ProductError, match=f"D208 .*{named}"):
        open_safe(str(path))
    product = open_safe(str(path), trust_manifest=True)
    assert "manifest-trusted-over-name" in product.flags
    assert product.mission == "S1A"


def test_a10_zip_named_after_another_product(tmp_path):
    path = text.write_zip(tmp_path, text.safe_files(), name=text.NAME.replace("DAA1", "DAA2"))
    assert code_of(path) == "D208"


def test_renamed_product_takes_its_name_from_the_manifest(tmp_path):
    product = open_safe(str(text.write_folder(tmp_path, text.safe_files(), "first")))
    assert product.flags == ("name-from-manifest",)
    assert (product.name, product.fields.polarization_code) == ("first", "DV")
    zipped = text.write_zip(tmp_path, text.safe_files(), name="download")
    assert open_safe(str(zipped)).name == text.NAME
    loose = text.write_zip(tmp_path, text.safe_files(), name="loose", prefix="")
    assert open_safe(str(loose)).name == "loose"


def test_a10_annotation_of_another_product_or_swath(tmp_path):
    other = text.annotation_xml().replace(b"<swath>IW1", b"<swath>IW2")
    with pytest.raises(ProductError, match=r"D208 .*another product or swath"):
        product_of(tmp_path / "a", annotation=other).annotation("IW1", "VV")
    with pytest.raises(ProductError, match="D208"):
        product_of(tmp_path / "b", annotation=text.annotation_xml(polarization="VH")).annotation(
            "IW1", "VV"
        )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (text.NAME.replace("SLC_", "GRDH"), "D209"),
        (text.NAME.replace("_IW_", "_EW_"), "D209"),
        (text.NAME.replace("_IW_SLC__1", "_S3_SLC__1"), "D209"),
        (text.NAME.replace("SLC__1", "RAW__0"), "D209"),
        (text.NAME.replace("S1A_", "S1E_"), "D305"),
        (text.NAME + "_COG", "D212"),
        ("S1_202513_IW2_20220917T001240_VV_2B56-BURST", "D210"),
    ],
)
def test_a11_a12_a17_other_products_are_refused_by_name(tmp_path, name, code):
    assert code_of(text.write_folder(tmp_path, text.safe_files(), name)) == code
    assert code_of(tmp_path / f"{text.NAME}.zarr") == "D212"
    assert code_of(tmp_path / "s1a-iw1-slc-vv.tiff") == "D210"


def test_a11_manifest_of_another_product(tmp_path):
    files = text.safe_files()
    files["manifest.safe"] = files["manifest.safe"].replace(b"productType>SLC", b"productType>GRD")
    with pytest.raises(ProductError, match=r"D209 .*expected Sentinel-1 IW SLC.*found IW GRD"):
        open_safe(str(text.write_folder(tmp_path, files, "renamed")))


def test_a02_verify_compares_with_the_manifest(tmp_path):
    files = text.safe_files()
    member = next(name for name in files if name.endswith("iw1-slc-vv-20230904t055747-2"
                  "0230904t055751-050174-0609e3-002.tiff"))  # fmt: skip
    flipped = bytearray(files[member])
    flipped[-5] ^= 1
    product = open_safe(str(text.write_folder(tmp_path, {**files, member: bytes(flipped)})))
    with pytest.raises(ProductError, match=r"D202 .*iw1-slc-vv.*tiff: .*MD5"):
        product.verify()
    product.verify((next(name for name in files if "iw2" in name and name.endswith(".tiff")),))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"<safe:number>A</safe:number>", b"", "D302"),
        (b"Sentinel-1 IPF", b"Other", "D302"),
        (b'orbitNumber type="start">50174', b'orbitNumber type="start">x', "D301"),
        (b"</xfdu:XFDU>", b"", "D301"),
        (b"<metadataSection>", b"<!DOCTYPE x><metadataSection>", "X901"),
        (b"relativeOrbitNumber", b"orbit", "D302"),
    ],
)
def test_manifest_faults(old, new, code):
    data = text.manifest_xml(text.safe_files()).replace(old, new)
    with pytest.raises(BperpError, match=f"{code} x/manifest.safe"):
        parse_manifest(data, "x/manifest.safe")


def test_upper_case_members_work(tmp_path):
    files = {name.upper(): data for name, data in text.safe_files().items()}
    product = open_safe(str(text.write_folder(tmp_path, files)))
    assert product.annotation("IW1", "VV").bursts
    assert product.flags == ()


def test_track_of_a_manifest_that_contradicts_the_formula(tmp_path):
    def with_track(track: int) -> bytes:
        manifest = text.manifest_xml(text.safe_files()).decode()
        return re.sub(r'(relativeOrbitNumber type="\w+">)52', rf"\g<1>{track}", manifest).encode()

    product = product_of(tmp_path / "a", manifest=with_track(54))
    assert product.relative_orbit == 52
    assert product.flags == ("relative-orbit-manifest-says:54",)
    assert product.annotation("IW1", "VV").bursts[0].burst_id.startswith("t052_")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_products_open_or_give_a_typed_error(tmp_path, seed):
    random = np.random.default_rng(seed)
    files = text.safe_files()
    for _ in range(int(random.integers(1, 4))):
        name = sorted(files)[int(random.integers(len(files)))]
        data = bytearray(files[name])
        place = int(random.integers(len(data)))
        if random.random() < 0.2:
            del files[name]
            continue
        if random.random() < 0.5:
            data[place] = int(random.integers(256))
        else:
            del data[place : place + int(random.integers(1, 300))]
        files[name] = bytes(data)
    if not files:
        return
    path = text.write_zip(tmp_path, files)
    code = "D200"
    try:
        product = open_safe(str(path))
        product.content_id()
        for swath, polarization in product.swaths():
            product.annotation(swath, polarization)
            product.calibration(swath, polarization)
            product.noise(swath, polarization)
        product.verify()
    except BperpError as error:
        code = error.code
    assert code[0] in {"D", "O", "X"}


@pytest.mark.realdata
def test_real_products_open(real_data):
    expected = {
        "20141004": ("S1A", "002.36", "descending", 3),
        "20141227": ("S1A", "002.71", "descending", 3),
        "20200511": ("S1A", "003.20", "descending", 6),
        "20210401": ("S1B", "003.31", "descending", 2),
        "20220104": ("S1A", "003.40", "ascending", 1),
        "20220828": ("S1A", "003.52", "ascending", 3),
        "20220929": ("S1A", "003.52", "descending", 3),
        "20221011": ("S1A", "003.52", "ascending", 3),
        "20221016": ("S1A", "003.52", "ascending", 1),
        "20221024": ("S1A", "003.52", "ascending", 3),
        "20230108": ("S1A", "003.52", "descending", 1),
        "20230904": ("S1A", "003.61", "descending", 3),
        "20230916": ("S1A", "003.61", "descending", 3),
    }
    paths = [
        *real_data.glob("s1-reader-safe-orbits/safe/*.zip"),
        *real_data.glob("eo_tools-morocco-2023/S1/*.SAFE"),
        *real_data.glob("single-safes/*/*.SAFE"),
    ]
    found, ids = {}, set()
    for path in paths:
        product = open_safe(str(path))
        facts = (product.mission, product.ipf_version, product.orbit_direction)
        found[product.name[17:25]] = (*facts, len(product.swaths()))
        ids.add(product.content_id())
        assert product.name == path.name.partition(".")[0]
        assert product.fields.absolute_orbit == product.absolute_orbit
    assert found == expected
    assert len(ids) == len(paths)


@pytest.mark.realdata
def test_real_deep_check_finds_what_was_trimmed(real_data):
    path = next(real_data.glob("eo_tools-morocco-2023/S1/*20230904*.SAFE"))
    product = open_safe(str(path))
    members = [m for key, m in product.index.items() if key[0] != "measurement"]
    product.verify(tuple(members))
    with pytest.raises(ProductError, match=r"D202 .*1251007724 bytes.*found 352936 bytes"):
        product.verify((product.measurement("IW1", "VV"),))
