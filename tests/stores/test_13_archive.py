"""Folders and zip archives: faults A01 to A05, A14, A15, A16, I04, I05, I06."""

from __future__ import annotations

import importlib.util
import os
import pickle
import stat
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bperp.stores import zip_archive
from bperp.stores.archive import open_archive
from bperp.stores.byte_source import display_name
from bperp.stores.errors import BperpError, ProductError, SecurityError, StorageError

_spec = importlib.util.spec_from_file_location(
    "safe_text", Path(__file__).with_name("test_10_safe_text.py")
)
text = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(text)

FILES = {
    "manifest.safe": b"<m/>",
    "annotation/a.xml": b"<a/>" * 500,
    "measurement/b.tiff": b"12345678" * 99,
}


def packed(folder: Path, method: int = zipfile.ZIP_DEFLATED, prefix: str = "X.SAFE/") -> Path:
    return text.write_zip(folder, FILES, name="X", prefix=prefix, method=method)


def code_of(path: Path) -> str:
    with pytest.raises(BperpError) as caught:
        open_archive(str(path))
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("prefix", ["X.SAFE/", "", "safe/X.SAFE/"])
def test_zip_members_are_read_in_place(tmp_path, method, prefix):
    archive = open_archive(str(packed(tmp_path, method, prefix)))
    assert dict(archive.members()) == {name: len(data) for name, data in FILES.items()}
    for name, data in FILES.items():
        assert archive.read(name, 10_000) == data
        source = archive.source(name)
        assert source.size == len(data)
        # Forward, backward and beyond the end.
        for start, stop in ((0, 4), (10, 20), (20, 90), (5, 9), (len(data) - 3, len(data) + 50)):
            assert source.read(start, stop) == data[start:stop]
        source.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["X.zip"]


def test_archives_travel_to_workers(tmp_path):
    zipped = pickle.loads(pickle.dumps(open_archive(str(packed(tmp_path)))))
    assert zipped.read("annotation/a.xml", 10_000) == FILES["annotation/a.xml"]
    folder = text.write_folder(tmp_path, FILES, "X")
    opened = pickle.loads(pickle.dumps(open_archive(str(folder))))
    assert opened.read("annotation/a.xml", 10_000) == FILES["annotation/a.xml"]


def test_folder_zip_and_url_agree(tmp_path):
    folder = text.write_folder(tmp_path, FILES, "X")
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/readers/X.SAFE/{name}": data for name, data in FILES.items()})
    memory.pipe("/readers/X.zip", packed(tmp_path).read_bytes())
    urls = [
        str(folder),
        str(folder / "manifest.safe"),
        folder.as_uri(),
        str(packed(tmp_path)),
        "memory://readers/X.SAFE",
        "memory://readers/X.zip",
    ]
    for url in urls:
        archive = open_archive(url)
        assert dict(archive.members()) == {name: len(data) for name, data in FILES.items()}
        assert archive.md5("measurement/b.tiff") == "633ab69a9616164de5194789e1ebc4e9"
        assert archive.source("measurement/b.tiff").read(8, 16) == b"12345678"
    memory.rm("/readers", recursive=True)


def test_desktop_leftovers_are_no_members(tmp_path):
    junk = {"annotation/.DS_Store": b"x", "annotation/._a.xml": b"x", "Thumbs.db": b"x"}
    path = text.write_zip(tmp_path, FILES | junk, name="X")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/X.SAFE/._manifest.safe", b"x")
        archive.writestr("__MACOSX/X.SAFE/manifest.safe", b"x")
    assert set(open_archive(str(path)).members()) == set(FILES)
    folder = text.write_folder(tmp_path, FILES | junk, "Y")
    assert set(open_archive(str(folder)).members()) == set(FILES)


def test_a01_truncated_zip(tmp_path):
    path = packed(tmp_path)
    data = path.read_bytes()
    for size in (len(data) - 5, len(data) // 2, 30):
        path.write_bytes(data[:size])
        assert code_of(path) == "D201"
    with pytest.raises(ProductError, match=r"no central directory.*found 30 bytes.*fetch"):
        open_archive(str(path))


def test_a03_error_page_saved_as_zip(tmp_path):
    path = tmp_path / "X.zip"
    path.write_text("<html><head><title>Login</title></head></html>")
    with pytest.raises(ProductError, match=r"D203 .*starts with '<html>.*credentials"):
        open_archive(str(path))


def test_a04_zero_bytes(tmp_path):
    path = tmp_path / "X.zip"
    path.touch()
    assert code_of(path) == "D201"


def test_a05_no_manifest_or_several(tmp_path):
    without = {name: data for name, data in FILES.items() if name != "manifest.safe"}
    assert code_of(text.write_folder(tmp_path, without, "X")) == "D204"
    assert code_of(text.write_zip(tmp_path, without, name="X")) == "D204"
    twice = FILES | {"other/manifest.safe": b"<m/>"}
    assert code_of(text.write_zip(tmp_path, twice, name="Y")) == "D204"
    assert code_of(tmp_path / "absent.SAFE") == "D204"
    for name in "PQ":
        text.write_folder(tmp_path / "two", FILES, name)
    assert code_of(tmp_path / "two") == "D204"


def test_a14_zip_inside_zip_says_so(tmp_path):
    inner = packed(tmp_path).read_bytes()
    path = text.write_zip(tmp_path, {"X.zip": inner}, name="outer", prefix="")
    with pytest.raises(ProductError, match=r"D204 .*zip archive inside.*unpack the outer"):
        open_archive(str(path))


def test_a15_odd_paths_links_and_read_only_folders(tmp_path):
    odd = tmp_path / "Vulcão #1 (ä b)" / ("long" * 50)
    folder = text.write_folder(odd, FILES, "X")
    assert open_archive(str(folder)).read("annotation/a.xml", 9999) == FILES["annotation/a.xml"]
    link = tmp_path / "link.SAFE"
    link.symlink_to(folder)
    assert set(open_archive(str(link)).members()) == set(FILES)
    folder.chmod(0o555)
    before = sorted(str(p) for p in folder.rglob("*"))
    open_archive(str(folder)).read("manifest.safe", 9999)
    assert sorted(str(p) for p in folder.rglob("*")) == before
    folder.chmod(0o755)
    zipped = text.write_zip(odd, FILES, name="Ünïcode name")
    assert set(open_archive(str(zipped)).members()) == set(FILES)


def test_a16_upper_case_names(tmp_path):
    files = {name.upper(): data for name, data in FILES.items()}
    assert "MANIFEST.SAFE" in open_archive(str(text.write_folder(tmp_path, files, "X"))).members()
    assert "MANIFEST.SAFE" in open_archive(str(text.write_zip(tmp_path, files, name="X"))).members()


def test_product_inside_a_folder_of_its_name(tmp_path):
    text.write_folder(tmp_path / "download", FILES, "X")
    assert open_archive(str(tmp_path / "download")).label == "X.SAFE"


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "/etc/evil", "a/../../evil", "C:evil.txt", "C:/evil", "a\\..\\evil", "a\nb"],
)
def test_i04_names_that_leave_the_archive(tmp_path, name):
    path = packed(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"evil")
    assert code_of(path) == "X903"
    assert not any("evil" in p.name for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_i05_links_and_devices(tmp_path, kind):
    path = packed(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("X.SAFE/annotation/s1a.xml")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert code_of(path) == "X903"


def test_encrypted_and_repeated_members(tmp_path):
    path = packed(tmp_path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("X.SAFE/annotation/a.xml", b"other")
    assert code_of(path) == "D207"
    data = bytearray(packed(tmp_path).read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1  # flag bit 0 of the first directory entry
    path.write_bytes(bytes(data))
    assert code_of(path) == "X903"


def test_i06_sizes_are_limited(tmp_path, monkeypatch):
    path = text.write_zip(tmp_path, FILES | {"big.xml": b"\0" * 3_000_000}, name="X")
    assert path.stat().st_size < 10_000
    archive = open_archive(str(path))
    with pytest.raises(SecurityError, match=r"X902.*at most 1000000 bytes; found 3000000 bytes"):
        archive.read("big.xml", 1_000_000)
    folder = text.write_folder(tmp_path, FILES, "X")
    with pytest.raises(SecurityError, match="X902"):
        open_archive(str(folder)).read("annotation/a.xml", 100)
    monkeypatch.setattr(zip_archive, "MEMBER_LIMIT_BYTES", 2_000_000)
    with pytest.raises(SecurityError, match="X902"):
        open_archive(str(path))
    many = {f"f{k}": b"" for k in range(10_001)} | FILES
    assert code_of(text.write_zip(tmp_path, many, name="Z")) == "X903"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a02_flipped_byte_fails_the_checksum(tmp_path, method):
    path = packed(tmp_path, method)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("X.SAFE/annotation/a.xml")
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0x10
    path.write_bytes(bytes(data))
    archive = open_archive(str(path))
    with pytest.raises(ProductError, match=r"D202 X.zip/annotation/a.xml.*fetch"):
        archive.read("annotation/a.xml", 10_000)
    with pytest.raises(ProductError, match="D202"):
        archive.md5("annotation/a.xml")
    assert archive.read("manifest.safe", 100) == FILES["manifest.safe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = packed(tmp_path)
    path.chmod(0)
    with pytest.raises(StorageError, match="R807"):
        open_archive(str(path))


def test_names_for_messages_hide_tokens():
    assert display_name("s3://bucket/a/X.zip?X-Amz-Signature=secret") == "X.zip"
    assert display_name("/a/b/X.SAFE/") == "X.SAFE"


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_archives_give_members_or_a_typed_error(tmp_path, seed):
    random = np.random.default_rng(seed)
    path = packed(tmp_path, int(random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
    data = bytearray(path.read_bytes())
    for _ in range(int(random.integers(1, 6))):
        place = int(random.integers(len(data)))
        if random.random() < 0.3:
            del data[place : place + int(random.integers(1, 40))]
        else:
            data[place] = int(random.integers(256))
    path.write_bytes(bytes(data))
    code = "D200"
    try:
        archive = open_archive(str(path))
        for name in archive.members():
            archive.read(name, 100_000)
            source = archive.source(name)
            source.read(3, 50)
            source.close()
    except BperpError as error:
        code = error.code
    assert code[:2] in {"D2", "X9"}
