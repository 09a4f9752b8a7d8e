"""One run per store; a dead owner does not block, a live one is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bperp.stores.errors import StorageError
from bperp.stores.locks import LOCK_NAME, LockOwner, read_owner, run_lock
from bperp.stores.objects import open_objects


@pytest.fixture(params=["local", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path):
    root = str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}"
    store = open_objects(root)
    yield store
    store.remove_tree("")


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


def test_an_error_inside_gives_the_lock_back(objects):
    with pytest.raises(RuntimeError), run_lock(objects):
        raise RuntimeError
    assert read_owner(objects) is None


def test_the_lock_of_a_dead_process_is_taken_over(objects):
    process = subprocess.run(  # a process number that certainly existed and is gone
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    hold(objects, replace(LockOwner.current(), pid=int(process.stdout), process_start=""))
    with run_lock(objects) as owner:
        assert owner.pid == os.getpid()


def test_a_live_process_with_a_recycled_number_is_not_the_owner(objects):
    hold(objects, replace(LockOwner.current(), process_start="1"))
    with run_lock(objects):
        pass


def test_an_owner_on_another_host_is_believed(objects):
    hold(objects, replace(LockOwner.current(), host="elsewhere", pid=1, process_start="1"))
    with pytest.raises(StorageError, match=r"R806.*elsewhere"), run_lock(objects):
        pass


def test_an_unreadable_lock_is_replaced(objects):
    objects.write(LOCK_NAME, b"{")
    with run_lock(objects):
        pass


def test_a_lock_taken_by_another_run_is_left_to_it(objects):
    with run_lock(objects):
        other = replace(LockOwner.current(), token="another")
        hold(objects, other)
    assert read_owner(objects) == other


def test_of_many_processes_that_find_a_stale_lock_one_runs(tmp_path):
    objects = open_objects(str(tmp_path))
    hold(objects, replace(LockOwner.current(), pid=2**22 - 1, process_start=""))
    code = """if True:
        import sys, time
        from bperp.stores.errors import StorageError
        from bperp.stores.locks import run_lock
        from bperp.stores.objects import open_objects
        objects = open_objects(sys.argv[1])
        print("ready", flush=True); sys.stdin.readline()
        try:
            with run_lock(objects):
                time.sleep(1.0); print("ran")
        except StorageError as error:
            print(error.code)
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = sorted(process.communicate(timeout=30)[0].strip() for process in processes)
    assert outcomes == ["R806", "R806", "R806", "ran"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_refused_before_the_start(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="R807"), run_lock(open_objects(str(tmp_path / "run"))):
        pass
