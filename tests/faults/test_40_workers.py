"""Worker processes that die, starve or lose their scheduler; threads and ports of a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_registry import fault
from fork_server import FAULT_STAGES
from root_state import root_state

from bperp.flows.clusters import LocalWorkers
from bperp.flows.engine import DaskExecutor, SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

MEMORY_BYTES = 1_000_000_000
DASK_PORTS = (8786, 8787)
CLUSTER = """
import sys, time
from bperp.flows.clusters import LocalWorkers
workers = LocalWorkers(1, 1_000_000_000)
print(workers.endpoint, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def taken_ports() -> Iterator[list[int]]:
    """Hold the ports that Dask likes best, unless somebody else does already."""
    with contextlib.ExitStack() as stack:
        for port in DASK_PORTS:
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield [port for port in DASK_PORTS if is_taken(port)]


def is_taken(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


@pytest.fixture(scope="module")
def cluster(taken_ports) -> Iterator[LocalWorkers]:
    # Spawned workers inherit sys.path: that is how they find the stages that go wrong.
    sys.path.insert(0, str(FAULT_STAGES))
    workers = LocalWorkers(2, MEMORY_BYTES)
    yield workers
    workers.close()
    sys.path.remove(str(FAULT_STAGES))


@pytest.fixture
def executor(cluster) -> Iterator[DaskExecutor]:
    cluster.mend()
    executor = DaskExecutor(address=str(cluster.endpoint))
    yield executor
    executor.close()


def run(root: Path, executor, **options):
    context = StageContext(options={"selfcheck": {**DEFAULTS, **options}})
    return run_stages(STAGES, context, CubeStore(str(root)), executor)


def run_faults(root: Path, executor, **options):
    import fault_stages

    context = StageContext(options={"faults": {"keys": list("abcd"), **options}})
    return run_stages((fault_stages.STAGE,), context, CubeStore(str(root)), executor)


@fault("G25", level="P")
def test_ports_in_use_do_not_hinder_a_cluster(taken_ports, executor, tmp_path, recwarn):
    assert taken_ports == list(DASK_PORTS)
    assert run(tmp_path / "run", executor).tasks_run == 12
    assert not [item for item in recwarn if "Port" in str(item.message)]


@fault("G22", level="P")
def test_every_worker_uses_one_thread(cluster):
    from distributed import Client

    def threads() -> dict[str, object]:
        import numba
        import numpy as np
        import zarr

        before = len(list(Path("/proc/self/task").iterdir()))
        np.linalg.svd(np.ones((300, 300)))
        return {
            "numba": numba.get_num_threads(),
            "zarr": zarr.config.get("threading.max_workers"),
            "started by BLAS": len(list(Path("/proc/self/task").iterdir())) - before,
        }

    with Client(str(cluster.endpoint), set_as_default=False) as client:
        assert list(client.nthreads().values()) == [1, 1]
        found = client.run(threads)
    assert list(found.values()) == [{"numba": 1, "zarr": 1, "started by BLAS": 0}] * 2


# That a task which ends every worker, by memory or otherwise, ends the run with R805 and not in an
# endless loop of new workers takes a minute; tests/flows/test_52_dask.py proves it.


@fault("G07", level="P")
def test_a_task_beyond_the_memory_of_a_worker_is_refused_before_anything_changes(
    executor, tmp_path
):
    with pytest.raises(StorageError, match=r"R805 faults/a.*MB per worker") as caught:
        run_faults(tmp_path / "run", executor, memory_bytes=MEMORY_BYTES)
    assert caught.value.exit_code == 4
    assert "compute.memory_per_worker" in caught.value.remedy
    assert not list((tmp_path / "run").glob("receipts/**/*"))


@fault("G10", level="P")
def test_a_lost_worker_costs_its_task_only(executor, tmp_path):
    run_faults(tmp_path / "clean", SerialExecutor())
    flag = tmp_path / "flag"
    flag.mkdir()
    summary = run_faults(tmp_path / "run", executor, fault={"b": "die-once"}, flag=str(flag))
    assert summary.tasks_run == 4
    marker = "markers/faults.json"
    content = [root_state(tmp_path / name)["scene/faults/x/c/1/0"] for name in ("run", "clean")]
    assert content[0] == content[1]
    assert (tmp_path / "run" / marker).exists()


@fault("G10", level="P")
def test_a_lost_scheduler_ends_the_run_and_it_resumes(forks, tmp_path):
    run(tmp_path / "clean", SerialExecutor())
    cluster = forks.start(prepare=CLUSTER)
    address = first_line(cluster.folder / "out")

    class Losing(DaskExecutor):
        def run(self, site, orders):
            for number, result in enumerate(super().run(site, orders)):
                if number == 2:
                    os.killpg(cluster.pid, signal.SIGKILL)
                yield result

    started = time.monotonic()
    with pytest.raises(StorageError, match="R813") as caught:
        run(tmp_path / "run", Losing(address=address), delay_s=0.2)
    assert caught.value.exit_code == 4
    assert time.monotonic() - started < 120
    cluster.wait()
    assert 0 < run(tmp_path / "run", SerialExecutor(), delay_s=0.2).tasks_run < 12
    run(tmp_path / "slow", SerialExecutor(), delay_s=0.2)
    assert root_state(tmp_path / "run") == root_state(tmp_path / "slow")


def first_line(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists() or "\n" not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return path.read_text().splitlines()[0]
