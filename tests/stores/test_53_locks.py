"""One run per store; a dead owner does not block, a live one is named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest

from bperp.stores import locks
from bperp.stores.errors import NetworkError, StorageError
from bperp.stores.locks import LOCK_NAME, LockOwner, read_owner, run_lock
from bperp.stores.objects import open_objects

BY_FSSPEC = pytest.param("s3 by fsspec", marks=pytest.mark.slow)


@pytest.fixture(params=["local", "memory", BY_FSSPEC, "s3 by obstore"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param.startswith("s3"):
        monkeypatch.setenv("BPERP_OBJECT_STORE", request.param.rpartition(" ")[2])
        return f"{request.getfixturevalue('s3').root}/run"
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}"


@pytest.fixture
def objects(root: str):
    store = open_objects(root)
    yield store
    store.remove_tree("")


def gone() -> int:
    """Return the number of a process that certainly existed and is gone."""
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def hold(objects, owner: LockOwner) -> None:
    objects.write(LOCK_NAME, json.dumps(asdict(owner)).encode())


def test_a_lock_is_held_and_given_back(objects):
    with run_lock(objects) as owner:
        assert owner.pid == os.getpid()
        assert read_owner(objects) == owner
    assert objects.names("") == []


def test_the_second_run_is_told_who_holds_the_store(objects):
    with run_lock(objects) as owner:
        with pytest.raises(StorageError, match="R806") as caught, run_lock(objects):
            pass
        assert f"process {os.getpid()} on {owner.host}" in str(caught.value)
        assert read_owner(objects) == owner


def test_an_error_is_not_hidden_by_a_store_that_is_gone(objects, monkeypatch):
    def fail(*_: object) -> None:
        raise NetworkError("R810", "no answer", remedy="wait")

    def lose_the_store() -> None:
        monkeypatch.setattr(type(objects), "read", fail)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), run_lock(objects):
        lose_the_store()
    monkeypatch.undo()


def test_an_error_inside_gives_the_lock_back(objects):
    with pytest.raises(RuntimeError), run_lock(objects):
        raise RuntimeError
    assert read_owner(objects) is None


def test_the_lock_of_a_dead_process_is_taken_over(objects):
    hold(objects, replace(LockOwner.current(), pid=gone(), process_start=""))
    with run_lock(objects) as owner:
        assert owner.pid == os.getpid()
        assert objects.names("") == [LOCK_NAME]
    assert objects.names("") == []


def test_a_live_process_with_a_recycled_number_is_not_the_owner(objects):
    hold(objects, replace(LockOwner.current(), process_start="1"))
    with run_lock(objects):
        pass


def elsewhere(**fields) -> LockOwner:
    return replace(LockOwner.current(), host="elsewhere", pid=gone(), **fields)


def test_an_owner_on_another_host_is_believed(objects):
    hold(objects, elsewhere())
    with pytest.raises(StorageError, match=r"R806.*elsewhere"), run_lock(objects):
        pass
    assert objects.names("") == [LOCK_NAME]


def test_an_owner_on_another_machine_of_the_same_name_is_believed(objects):
    hold(objects, replace(LockOwner.current(), pid=gone(), machine="another"))
    with pytest.raises(StorageError, match=r"R806"), run_lock(objects):
        pass


@pytest.mark.slow
def test_a_host_without_signs_of_life_gives_way(objects, root, monkeypatch):
    """Two stores, found locked by another host; later only one of them was touched again."""
    if root.startswith("memory") or os.environ.get("BPERP_OBJECT_STORE") == "fsspec":
        pytest.skip("one local and one remote store are enough to wait for")
    monkeypatch.setattr(locks, "LEASE_S", 3.0)
    alive, vanished = (open_objects(f"{root}/{name}") for name in ("alive", "vanished"))
    for store in (alive, vanished):
        hold(store, elsewhere())
        store.write(read_owner(store).beat_name, b"")
        with pytest.raises(StorageError, match=r"R806"), run_lock(store):
            pass
    time.sleep(4.1)  # S3 counts whole seconds
    alive.write(read_owner(alive).beat_name, b"")
    with pytest.raises(StorageError, match=r"R806"), run_lock(alive):
        pass
    with run_lock(vanished):
        assert vanished.names("") == [LOCK_NAME]


def test_an_owner_gives_signs_of_life_and_cleans_up(objects, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.1)
    with run_lock(objects) as owner:
        deadline = time.monotonic() + 20.0
        while objects.read(owner.beat_name) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    deadline = time.monotonic() + 20.0
    while objects.names(""):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lock_that_the_paused_owner_gives_back_is_not_the_new_one(objects, monkeypatch):
    monkeypatch.setattr(locks, "LEASE_S", -1.0)
    with contextlib.ExitStack() as newer:
        with run_lock(objects) as paused:
            hold(objects, replace(paused, host="elsewhere", machine="another"))
            other = newer.enter_context(run_lock(objects))
        assert read_owner(objects) == other
    assert objects.names("") == []


def test_a_successor_that_died_half_way_has_a_successor(objects):
    """The chain of claims: dead owner, dead claimant, dead claimant of the claimant."""
    stale = [replace(LockOwner.current(), pid=gone(), process_start="") for _ in range(3)]
    texts = [json.dumps(asdict(owner)).encode() for owner in stale]
    objects.write(LOCK_NAME, texts[0])
    for before, after in pairwise(texts):
        objects.write(f"{LOCK_NAME}.after-{hashlib.sha256(before).hexdigest()[:32]}", after)
    with run_lock(objects) as owner:
        assert read_owner(objects) == owner
        assert objects.names("") == [LOCK_NAME]


def test_a_successor_at_work_is_waited_for(objects):
    text = json.dumps(asdict(replace(LockOwner.current(), pid=gone(), process_start=""))).encode()
    objects.write(LOCK_NAME, text)
    rival = LockOwner.current()
    claim = f"{LOCK_NAME}.after-{hashlib.sha256(text).hexdigest()[:32]}"
    objects.write(claim, json.dumps(asdict(rival)).encode())
    with pytest.raises(StorageError, match=f"R806.*process {rival.pid}"), run_lock(objects):
        pass
    assert objects.names("") == [LOCK_NAME, claim]


def test_a_late_successor_does_not_replace_the_lock_of_another(objects, monkeypatch):
    """Another run took over and ended, and a third one began, between two steps of ours."""
    hold(objects, replace(LockOwner.current(), pid=gone(), process_start=""))
    third = elsewhere(token="third")
    claim = locks._claim

    def slow(*arguments):
        hold(objects, third)
        return claim(*arguments)

    monkeypatch.setattr(locks, "_claim", slow)
    with pytest.raises(StorageError, match=r"R806.*elsewhere"), run_lock(objects):
        pass
    assert read_owner(objects) == third
    assert objects.names("") == [LOCK_NAME]


def test_an_unreadable_lock_is_replaced(objects):
    objects.write(LOCK_NAME, b"{")
    with run_lock(objects):
        pass


def test_a_lock_taken_by_another_run_is_left_to_it(objects):
    with run_lock(objects):
        other = replace(LockOwner.current(), token="another")
        hold(objects, other)
    assert read_owner(objects) == other


RACER = """if True:
    import sys, time
    from bperp.stores.errors import NetworkError, StorageError
    from bperp.stores.locks import run_lock
    from bperp.stores.objects import open_objects
    objects = open_objects(sys.argv[1])
    objects.read("warm")
    print("ready", flush=True); sys.stdin.readline()
    try:
        with run_lock(objects):
            time.sleep(1.5); print("ran")
    except StorageError as error:
        print(error.code)
"""


def test_of_many_processes_that_find_a_stale_lock_one_runs(objects, root):
    if root.startswith("memory"):
        pytest.skip("memory is not shared by processes")
    hold(objects, replace(LockOwner.current(), pid=2**22 - 1, process_start=""))
    command = [sys.executable, "-c", RACER, root]
    pipe = subprocess.PIPE
    number = 2 if root.startswith("s3") else 4
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(number)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = sorted(process.communicate(timeout=30)[0].strip() for process in processes)
    assert outcomes == [*["R806"] * (number - 1), "ran"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_refused_before_the_start(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="R807"), run_lock(open_objects(str(tmp_path / "run"))):
        pass
