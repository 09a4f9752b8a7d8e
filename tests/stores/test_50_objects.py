"""Small objects: atomic, exclusive, typed faults, no credentials in messages."""

from __future__ import annotations

import errno
import multiprocessing
from pathlib import Path

import pytest

from bperp.stores import local_objects as module
from bperp.stores.canonical import canonical_json, digest, plain
from bperp.stores.errors import NetworkError, StorageError
from bperp.stores.objects import (
    LocalObjects,
    open_objects,
    require_exclusive_create,
    storage_errors,
    without_credentials,
)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "local":
        yield open_objects(str(tmp_path))
    else:
        remote = open_objects(f"memory://{tmp_path.name}")
        yield remote
        remote.remove_tree("")


def test_an_object_is_read_replaced_and_removed(store):
    assert store.read("a/b.json") is None
    store.write("a/b.json", b"1")
    store.write("a/b.json", b"22")
    assert store.read("a/b.json") == b"22"
    assert store.names("a") == ["a/b.json"]
    assert store.children("") == ["a"]
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert store.read("a/b.json") is None


def test_only_the_first_create_wins(store):
    assert store.create("x", b"first")
    assert not store.create("x", b"second")
    assert store.read("x") == b"first"
    require_exclusive_create(store)
    assert store.names("logs") == []


def test_a_tree_is_removed_whole(store):
    for name in ("p/zarr.json", "p/a/c/0", "q/zarr.json"):
        store.write(name, b"x")
    store.remove_tree("p")
    store.remove_tree("p")
    assert store.names("") == ["q/zarr.json"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd"])
def test_names_stay_below_the_root(store, name):
    with pytest.raises(ValueError, match="below the root"):
        store.write(name, b"x")


def _race(folder: str, gate, won) -> None:
    gate.wait()
    if LocalObjects(Path(folder)).create("marker", str(id(gate)).encode() * 1000):
        won.put(1)


def test_of_eight_processes_one_creates(tmp_path):
    fork = multiprocessing.get_context("fork")
    gate, won = fork.Barrier(8), fork.Queue()
    processes = [fork.Process(target=_race, args=(str(tmp_path), gate, won)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert won.get(timeout=5) == 1
    assert won.empty()
    assert [path.name for path in tmp_path.iterdir()] == ["marker"]


def test_a_file_system_without_links_still_creates_once(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no links")

    monkeypatch.setattr(module.os, "link", refuse)
    store = LocalObjects(tmp_path)
    assert store.create("x", b"1")
    assert not store.create("x", b"2")
    assert store.read("x") == b"1"


def test_a_copy_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    store = LocalObjects(tmp_path)
    store.write("source", b"new" * 1000)
    store.write("target", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StorageError, match="R804 target"):
        store.copy("source", "target")
    assert store.read("target") == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_partial_files_are_ignored_and_removed(tmp_path):
    store = LocalObjects(tmp_path)
    store.write("p/a", b"1")
    (tmp_path / "p" / ".a.123.partial").write_bytes(b"half")
    assert store.names("p") == ["p/a"]
    assert store.remove_partials("p") == 1
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["a"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "R804"), (errno.EDQUOT, "R804"), (errno.EACCES, "R807"), (errno.EROFS, "R807")],
)
def test_operating_system_faults_have_codes(number, code):
    with pytest.raises(StorageError, match=code) as caught, storage_errors("markers/x.json"):
        raise OSError(number, "injected")
    assert caught.value.where == "markers/x.json"


def test_a_full_disk_leaves_the_old_object(tmp_path, monkeypatch):
    store = LocalObjects(tmp_path)
    store.write("m", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StorageError, match="R804"):
        store.write("m", b"new")
    assert store.read("m") == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_store_that_ignores_conditional_writes_is_refused(tmp_path):
    class Lenient(LocalObjects):
        def create(self, name: str, data: bytes) -> bool:
            self.write(name, data)
            return True

    with pytest.raises(NetworkError, match="R814"):
        require_exclusive_create(Lenient(tmp_path))


def test_remote_faults_are_network_errors_without_credentials():
    with pytest.raises(NetworkError, match="R810") as caught, storage_errors("x", remote=True):
        raise RuntimeError("GET s3://key:secret@host/x?X-Amz-Signature=abc failed")
    assert "secret" not in str(caught.value)
    assert "Signature" not in str(caught.value)
    assert without_credentials("s3://user:pw@bucket/run") == "s3://bucket/run"


def test_canonical_json_is_one_spelling():
    assert canonical_json({"b": (1, 2), "a": 0.1}) == b'{"a":0.1,"b":[1,2]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    for bad in (float("nan"), {1, 2}, Path("x")):
        with pytest.raises(ValueError, match=r"JSON"):
            canonical_json({"a": bad})


def test_plain_turns_numpy_into_strict_json():
    import numpy as np

    value = {"n": np.int64(3), "x": [np.float32(0.5), float("nan")], "a": np.arange(2), 7: True}
    assert plain(value) == {"n": 3, "x": [0.5, None], "a": [0, 1], "7": True}
    with pytest.raises(ValueError, match="complex"):
        plain({"z": 1j})
