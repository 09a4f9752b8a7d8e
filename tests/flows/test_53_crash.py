"""Killed at any instant, interrupted, or out of space: nothing untrue is seen, and it resumes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bperp.flows.engine import SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, PATTERN, STAGES
from bperp.stores.cube import CubeStore, open_root
from bperp.stores.errors import StorageError
from bperp.stores.verify import verify_store

DRIVER = Path(__file__).parent / "crash_driver.py"
OPTIONS = {**DEFAULTS, "delay_s": 0.15}
PROGRAM = """if True:
    import sys
    from bperp.flows.engine import DaskExecutor, StageContext, run_stages
    from bperp.flows.selfcheck import STAGES
    from bperp.stores.cube import CubeStore

    if __name__ == "__main__":
        context = StageContext(options={"selfcheck": OPTIONS})
        executor = DaskExecutor(2, 1_000_000_000)
        try:
            run_stages(STAGES, context, CubeStore(sys.argv[1]), executor)
        except KeyboardInterrupt:
            sys.exit(130)
"""


def crash(scenario: str, folder: Path, first: int, step: int, limit: int) -> int:
    command = [sys.executable, str(DRIVER), scenario, str(folder)]
    command += [str(first), str(step), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


def test_a_kill_at_some_file_operations_is_survived(tmp_path):
    assert crash("append", tmp_path, 4, 24, 100) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "step"),
    [("first", 9), ("append", 9), ("insert", 9), ("rechunk", 9), ("repair", 6)],
)
def test_a_kill_at_many_file_operations_is_survived(tmp_path, scenario, step):
    assert crash(scenario, tmp_path, 1, step, 10_000) >= 10


def start(tmp_path: Path, options=OPTIONS) -> tuple[subprocess.Popen[str], str]:
    """Start a run with two Dask workers and wait until it has written some receipts."""
    root = str(tmp_path / "run")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("OPTIONS", repr(dict(options))))
    process = subprocess.Popen(
        [sys.executable, str(script), root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(Path(root).glob("receipts/**/*.json"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, root


def survivors(process: subprocess.Popen[str]) -> list[str]:
    """Return the live members of a process group; the dead ones may wait for a reaper."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            state, _parent, group = rest.split()[:3]
            if int(group) == process.pid and state != "Z":
                found.append(name)
    return found


def require_no_survivors(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    while survivors(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert survivors(process) == []


def finish_and_compare(root: str, tmp_path: Path) -> None:
    def run(where: str):
        context = StageContext(options={"selfcheck": OPTIONS})
        return run_stages(STAGES, context, CubeStore(where), SerialExecutor())

    def digests(where: str) -> dict[str, bytes]:
        found = [*Path(where).glob("markers/*"), *Path(where).glob("selfcheck/**/*")]
        return {str(p.relative_to(where)): p.read_bytes() for p in found if p.is_file()}

    assert 0 < run(root).tasks_run < 12
    run(str(tmp_path / "clean"))
    assert digests(root) == digests(str(tmp_path / "clean"))


@pytest.mark.cluster
@pytest.mark.slow
def test_kill_9_with_workers_leaves_no_process_and_resumes(tmp_path):
    process, root = start(tmp_path)
    process.kill()
    process.communicate(timeout=10)
    require_no_survivors(process)
    with pytest.raises(StorageError, match="R801"):
        open_root(root)
    assert verify_store(CubeStore(root)).faults == {}
    finish_and_compare(root, tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("group", [True, False])
def test_an_interrupted_run_ends_soon_with_130_and_resumes(tmp_path, number, group):
    process, root = start(tmp_path)
    sent = time.monotonic()
    # A terminal sends Ctrl-C to the whole group, a scheduler of jobs only to the program.
    (os.killpg if group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert time.monotonic() - sent < 10
    assert "Traceback" not in errors
    require_no_survivors(process)
    assert not Path(root, "run.lock").exists()
    log = Path(root, "logs/run-0001.jsonl").read_text()
    assert '"interrupted"' in log
    finish_and_compare(root, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_is_swallowed_still_ends_the_run(tmp_path, number):
    class Swallowing:
        def __del__(self):
            os.kill(os.getpid(), number)

    class Executor(SerialExecutor):
        def run(self, site, orders):
            for result in super().run(site, orders):
                Swallowing()
                yield result

    root = str(tmp_path / "run")
    context = StageContext(options={"selfcheck": DEFAULTS})
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        run_stages(STAGES, context, CubeStore(root), Executor())
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(list(Path(root).glob("receipts/**/*.json"))) == 1
    assert not Path(root, "run.lock").exists()


def test_a_disk_that_fills_up_is_r804_and_resumes(tmp_path, monkeypatch):
    import errno

    import zarr

    context = StageContext(options={"selfcheck": DEFAULTS})
    written = []
    honest = zarr.Array.__setitem__

    def fill_up(array, region, data):
        written.append(region)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(array, region, data)

    monkeypatch.setattr(zarr.Array, "__setitem__", fill_up)
    root = str(tmp_path / "run")
    with pytest.raises(StorageError, match=f"R804 {PATTERN}"):
        run_stages(STAGES, context, CubeStore(root), SerialExecutor())
    monkeypatch.undo()
    assert not list(Path(root).glob("markers/*"))
    assert run_stages(STAGES, context, CubeStore(root), SerialExecutor()).tasks_run in range(1, 12)
