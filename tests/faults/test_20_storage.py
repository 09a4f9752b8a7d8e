"""Disks that are full, limited or read-only, and stores that another version wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_registry import fault
from root_state import replace, root_state

from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.verify import verify_store

CHAIN = "import selfcheck_chain; selfcheck_chain.install()\n"
SMALL_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""


class Disk:
    """A file system in memory, mounted for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        mount(self.folder, options)

    def remount(self, options: str) -> None:
        mount(self.folder, f"remount,{options}")


def mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a file system is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def clean(forks, tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed run of the self-check chain leaves."""
    folder = tmp_path_factory.mktemp("clean")
    config = configuration(folder, folder / "root")
    assert forks.run("run", config, "--engine", "serial", prepare=CHAIN).code == 0
    return root_state(folder / "root")


def configuration(folder: Path, root: Path) -> Path:
    path = folder / "selfcheck.yaml"
    path.write_text(f"root: {root}\nslc: ['*.zip']\ndem: {{path: dem.tif}}\n")
    return path


def run(forks, config: Path, prepare: str = "", **environment: str):
    command = ("run", config, "--engine", "serial", "--json")
    return forks.run(*command, prepare=CHAIN + prepare, environment=environment)


# Full --------------------------------------------------------------------------------------------


@fault("G06", level="P")
def test_a_disk_that_fills_up_ends_the_run_and_more_space_resumes_it(forks, disk, tmp_path, clean):
    disk.mount("size=600k")
    root = disk.folder / "root"
    config = configuration(tmp_path, root)
    failed = run(forks, config)
    assert (failed.code, failed.error["code"]) == (4, "R804")
    assert failed.error["where"].startswith(("selfcheck/", "receipts/", "logs/"))
    assert not (root / "markers/selfcheck-sum.json").exists()
    assert not (root / "run.lock").exists()
    receipts = len(list(root.glob("receipts/**/*.json")))
    assert verify_store(CubeStore(str(root))).faults == {}
    disk.remount("size=32m")
    resumed = run(forks, config)
    assert resumed.code == 0, resumed.stdout
    assert resumed.document["tasks_run"] == 12 - receipts
    assert root_state(root) == clean


@fault("G06", level="P")
def test_a_disk_that_fills_up_leaves_what_was_finished(forks, disk, tmp_path, clean):
    disk.mount("size=8m")
    root = disk.folder / "root"
    config = configuration(tmp_path, root)
    assert run(forks, config).code == 0
    ballast = disk.folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk.folder).free - (1 << 17)))
    more = {"SELFCHECK": json.dumps({"dates": ["2020-01-01", "2020-01-13", "2020-01-25"]})}
    failed = run(forks, config, **more)
    assert (failed.code, failed.error["code"]) == (4, "R804")
    assert verify_store(CubeStore(str(root))).faults == {}
    ballast.unlink()
    assert run(forks, config, **more).code == 0
    assert run(forks, config).code == 0
    assert root_state(root) == clean


@fault("G06", level="P")
def test_a_limit_on_the_size_of_files_is_like_a_full_disk(forks, selfcheck, clean):
    failed = run(forks, selfcheck.config, SMALL_FILES)
    assert (failed.code, failed.error["code"]) == (4, "R804")
    assert run(forks, selfcheck.config).code == 0
    assert root_state(selfcheck.root) == clean


@fault("G06", level="P")
@pytest.mark.slow
def test_too_small_a_disk_is_found_before_any_work(forks, disk, stack):
    disk.mount("size=1m")
    text = stack.config.read_text()
    stack.config.write_text(text.replace(str(stack.root), str(disk.folder / "root")))
    checked = forks.run("check", stack.config, "--json")
    assert checked.code == 4
    errors = [item for item in checked.document["findings"] if item["level"] == "error"]
    assert [item["code"] for item in errors] == ["R804"]
    assert "GB needed" in errors[0]["message"]
    failed = forks.run("run", stack.config, "--json")
    assert (failed.code, failed.error["code"]) == (4, "R804")
    assert not list(disk.folder.glob("root/markers/*"))


# Read-only ---------------------------------------------------------------------------------------


@fault("G12", level="P")
@pytest.mark.slow
def test_a_read_only_root_is_found_before_work_and_can_be_read(forks, disk, stack):
    disk.mount("size=128m")
    root = disk.folder / "root"
    text = stack.config.read_text()
    stack.config.write_text(text.replace(str(stack.root), str(root)))
    subprocess.run(["cp", "-r", str(stack.root), str(root)], check=True)
    record = root / "stack.json"
    replace(record, record.read_bytes().replace(str(stack.root).encode(), str(root).encode()))
    disk.remount("ro")
    state = root_state(root)
    assert forks.run("verify", root).code == 0
    assert forks.run("status", root).code == 0
    assert forks.run("run", stack.config, "--dry-run").code == 0
    checked = forks.run("check", stack.config, "--json")
    assert checked.code == 4
    found = [item for item in checked.document["findings"] if item["level"] == "error"]
    assert [(item["code"], item["where"]) for item in found] == [("R807", "root")]
    for command in (("run", stack.config), ("repair", root)):
        failed = forks.run(*command, "--json")
        assert (failed.code, failed.error["code"]) == (4, "R807"), command
        assert "task_finished" not in failed.stderr or command[0] == "repair"
    assert root_state(root) == state
    disk.remount("rw")
    assert forks.run("check", stack.config).code == 0


@fault("G12", level="P")
def test_a_read_only_root_stops_a_run_before_its_first_task(forks, disk, tmp_path):
    disk.mount("size=8m,ro")
    config = configuration(tmp_path, disk.folder / "root")
    failed = run(forks, config)
    assert (failed.code, failed.error["code"]) == (4, "R807")
    assert "stage_started" not in failed.stderr
    disk.remount("rw")
    assert run(forks, config).code == 0


# Another version ---------------------------------------------------------------------------------


@fault("G13", level="U")
def test_a_store_of_a_newer_version_is_refused_and_left_alone(forks, selfcheck, clean):
    assert run(forks, selfcheck.config).code == 0
    group = selfcheck.root / "selfcheck/pattern/zarr.json"
    honest = group.read_bytes()
    newer = honest.replace(b'"bperp_schema": 1', b'"bperp_schema": 99')
    assert newer != honest
    replace(group, newer)
    before = root_state(selfcheck.root)
    failed = run(forks, selfcheck.config)
    assert (failed.code, failed.error["code"]) == (4, "R808")
    assert "upgrade" in failed.error["remedy"]
    assert root_state(selfcheck.root) == before
    with pytest.raises(StorageError, match="R808"):
        CubeStore(str(selfcheck.root)).open_dataset("selfcheck/pattern")
    replace(group, honest)
    assert run(forks, selfcheck.config).document["tasks_run"] == 0
    assert root_state(selfcheck.root) == clean


@fault("G13", level="U")
def test_a_renamed_variable_is_named(forks, selfcheck):
    assert run(forks, selfcheck.config).code == 0
    product = selfcheck.root / "selfcheck/pattern"
    (product / "number").rename(product / "numbers")
    with pytest.raises(StorageError, match="R801 selfcheck/pattern/number"):
        CubeStore(str(selfcheck.root)).open_dataset("selfcheck/pattern")
    found = verify_store(CubeStore(str(selfcheck.root)))
    assert "selfcheck/pattern/number/zarr.json" in found.faults
    (product / "numbers").rename(product / "number")
    assert verify_store(CubeStore(str(selfcheck.root))).is_sound
