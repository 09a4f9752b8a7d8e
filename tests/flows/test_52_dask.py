"""The engine with Dask workers: same bytes, typed faults, deaths, limits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bperp.flows import executors
from bperp.flows.engine import (
    DaskExecutor,
    RunSite,
    SerialExecutor,
    StageContext,
    TaskFailedError,
    plan_stage,
    run_stages,
)
from bperp.flows.selfcheck import DEFAULTS, PATTERN_STAGE, STAGES, run_selfcheck
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ProductError, StorageError

pytestmark = pytest.mark.cluster


class Kept(DaskExecutor):
    """Stays open from test to test."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def kept() -> Iterator[DaskExecutor]:
    # Spawned workers inherit sys.path: that is how they find the stages that go wrong.
    sys.path.insert(0, str(Path(__file__).parent))
    executor = Kept(2, 1_000_000_000)
    executor.start()
    yield executor
    DaskExecutor.close(executor)
    sys.path.remove(str(Path(__file__).parent))


@pytest.fixture
def address(kept) -> str:
    # Tests before may have killed workers: only the cluster's owner starts new ones.
    deadline = time.monotonic() + 60
    while len(kept._known_workers()) < kept.workers and time.monotonic() < deadline:
        kept._cluster.scale(kept.workers)
        time.sleep(0.2)
    return kept.start()


@pytest.fixture
def faults(kept):
    import fault_stages

    return fault_stages.STAGE


def run(root, executor, stages=STAGES, **options):
    context = StageContext(options={"selfcheck": {**DEFAULTS, **options}, "faults": options})
    return run_stages(stages, context, CubeStore(str(root)), executor)


def digests(root: Path) -> dict[str, bytes]:
    found = [*root.glob("markers/*"), *root.glob("selfcheck/**/*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}


def test_the_result_does_not_depend_on_the_workers(address, tmp_path):
    summary = run(tmp_path / "two", DaskExecutor(address=address))
    assert summary.tasks_run == 12
    assert summary.peak_rss_bytes > 5e7
    run(tmp_path / "serial", SerialExecutor())
    assert digests(tmp_path / "two") == digests(tmp_path / "serial")
    assert run(tmp_path / "two", SerialExecutor()).tasks_run == 0


@pytest.mark.slow
def test_one_worker_gives_the_same_bytes(tmp_path):
    run(tmp_path / "one", DaskExecutor(1, 1_000_000_000))
    run(tmp_path / "serial", SerialExecutor())
    assert digests(tmp_path / "one") == digests(tmp_path / "serial")


def test_a_run_with_nothing_to_do_starts_no_cluster(tmp_path, monkeypatch):
    run(tmp_path, SerialExecutor())
    monkeypatch.setattr(executors, "_start_cluster", lambda *_: pytest.fail("started a cluster"))
    assert run(tmp_path, DaskExecutor(2, 1_000_000_000)).tasks_run == 0


def test_workers_and_limits_come_from_the_scheduler(address):
    executor = DaskExecutor(workers=17, memory_limit_bytes=1, address=address)
    assert (executor.workers, executor.memory_limit_bytes) == (2, 1_000_000_000)
    executor.close()


def test_workers_use_one_thread_each(address):
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        found = client.run(
            lambda: [
                os.environ.get(name)
                for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
            ]
        )
        threads = client.nthreads()
    assert list(found.values()) == [["1", "1", "1"]] * 2
    assert list(threads.values()) == [1, 1]


def test_typed_faults_arrive_typed(address, faults, tmp_path):
    with pytest.raises(ProductError, match=r"D306.*S1A.SAFE") as caught:
        run(tmp_path, DaskExecutor(address=address), (faults,), keys=["a"], fault={"a": "data"})
    assert caught.value.exit_code == 3


def test_a_bug_arrives_with_the_name_of_its_task(address, faults, tmp_path):
    with pytest.raises(TaskFailedError, match=r"faults/a: ZeroDivisionError: a bug") as caught:
        run(tmp_path, DaskExecutor(address=address), (faults,), keys=["a"], fault={"a": "bug"})
    assert "_go_wrong" in caught.value.details


def test_a_lost_worker_does_not_lose_the_run(kept, faults, tmp_path):
    keys, fault = list("abcdef"), {"c": "die-once"}
    (tmp_path / "flag").mkdir()
    summary = run(
        tmp_path / "run",
        kept,
        (faults,),
        keys=keys,
        fault=fault,
        flag=str(tmp_path / "flag"),
    )
    assert summary.tasks_run == 6
    assert [path.name for path in (tmp_path / "flag").iterdir()] == ["2"]


@pytest.mark.slow
def test_a_task_that_kills_every_worker_ends_the_run(kept, faults, tmp_path):
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"R805 faults/a: 3 workers died") as caught:
        run(tmp_path, kept, (faults,), keys=["a"], fault={"a": "die"})
    assert caught.value.exit_code == 4
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_task_beyond_the_memory_limit_ends_the_run(kept, faults, tmp_path):
    with pytest.raises(StorageError, match=r"R805 faults/a"):
        run(tmp_path, kept, (faults,), keys=["a"], fault={"a": "hog"})


def test_two_tasks_per_worker_are_in_flight(address, tmp_path):
    store = CubeStore(str(tmp_path))
    context = StageContext(options={"selfcheck": {**DEFAULTS, "chunk": 32}})
    plan = plan_stage(PATTERN_STAGE, context, store)
    store.create(plan.templates[0])
    pulled = []

    class Orders(list):
        def __iter__(self):
            for order in super().__iter__():
                pulled.append(order.key)
                yield order

    executor = DaskExecutor(address=address)
    finished = 0
    for _ in executor.run(RunSite(store.root), Orders(plan.orders)):
        finished += 1
        assert len(pulled) <= finished - 1 + 4
    executor.close()
    assert finished == len(plan.orders) == 20


def test_an_unreachable_scheduler_is_r813(tmp_path):
    lost = DaskExecutor(address="tcp://127.0.0.1:9", patience_s=1)
    with pytest.raises(StorageError, match=r"R813 tcp://127.0.0.1:9"):
        run(tmp_path, lost)


def test_the_selfcheck_proves_workers_and_storage(address, tmp_path):
    report = run_selfcheck(str(tmp_path), DaskExecutor(address=address))
    assert (report["tasks"], report["wrong"]) == (12, 0)
    assert list(tmp_path.iterdir()) == []
