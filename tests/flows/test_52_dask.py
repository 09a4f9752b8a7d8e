"""The engine with Dask workers: same bytes, typed faults, deaths, limits."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bperp.flows import executors
from bperp.flows.bundles import LARGEST_BUNDLE, OrderQueue
from bperp.flows.engine import (
    DaskExecutor,
    RunSite,
    SerialExecutor,
    StageContext,
    TaskFailedError,
    TaskOrder,
    plan_stage,
    run_stages,
)
from bperp.flows.selfcheck import DEFAULTS, PATTERN_STAGE, STAGES, run_selfcheck
from bperp.flows.staging import begin_stage
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ProductError, StorageError

cluster = pytest.mark.cluster


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
    while len(kept._connect().known_workers()) < kept.workers and time.monotonic() < deadline:
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


def orders_of(groups: str) -> list[TaskOrder]:
    """Return an order for each letter, which is its group; a blank has none."""
    nothing = {"parameters": {}, "inputs": {}, "readable": (), "outputs": ()}
    return [
        TaskOrder(str(i), "m:S", "s", "1", str(i), memory_bytes=1, group=group.strip(), **nothing)
        for i, group in enumerate(groups)
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text("ab ", max_size=120), st.integers(1, 9))
def test_bundles_keep_order_and_groups_and_leave_work_for_everybody(groups, workers):
    orders, queue, taken = orders_of(groups), OrderQueue(orders_of(groups)), []
    while bundle := queue.take(workers, 0):
        left = len(orders) - len(taken)
        assert len(bundle) <= min(LARGEST_BUNDLE, -(-left // workers))
        assert len({order.group for order in bundle}) == 1
        assert len(bundle) == 1 or bundle[0].group
        taken += bundle
    assert taken == orders


def test_a_group_is_one_bundle_when_there_is_enough_for_all():
    queue = OrderQueue(orders_of("a" * 30 + "b" * 40 + "c" * 5))
    sizes = [len(queue.take(2, 0)) for _ in range(3)]
    assert sizes == [30, 23, 11]


def test_suspects_run_one_by_one_and_alone():
    queue = OrderQueue(orders_of("aabb"))
    first, second = queue.take(2, 0), queue.take(2, 1)
    queue.suspect(first)
    assert queue.take(2, 1) == ()
    assert [queue.take(2, 0), queue.take(2, 0)] == [(order,) for order in first]
    assert [order.key for order in (*first, *second, *queue.take(2, 0))] == ["0", "1", "2", "3"]


@cluster
def test_the_result_does_not_depend_on_the_workers(address, tmp_path):
    summary = run(tmp_path / "two", DaskExecutor(address=address))
    assert summary.tasks_run == 12
    assert summary.peak_rss_bytes > 5e7
    run(tmp_path / "serial", SerialExecutor())
    assert digests(tmp_path / "two") == digests(tmp_path / "serial")
    assert run(tmp_path / "two", SerialExecutor()).tasks_run == 0


@cluster
@pytest.mark.slow
def test_one_worker_gives_the_same_bytes(tmp_path):
    run(tmp_path / "one", DaskExecutor(1, 1_000_000_000))
    run(tmp_path / "serial", SerialExecutor())
    assert digests(tmp_path / "one") == digests(tmp_path / "serial")


def test_a_run_with_nothing_to_do_starts_no_cluster(tmp_path, monkeypatch):
    run(tmp_path, SerialExecutor())
    monkeypatch.setattr(executors, "start_cluster", lambda *_: pytest.fail("started a cluster"))
    assert run(tmp_path, DaskExecutor(2, 1_000_000_000)).tasks_run == 0


@cluster
def test_workers_and_limits_come_from_the_scheduler(address):
    executor = DaskExecutor(workers=17, memory_limit_bytes=1, address=address)
    assert (executor.workers, executor.memory_limit_bytes) == (2, 1_000_000_000)
    executor.close()


@cluster
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


@cluster
def test_nothing_listens_beyond_this_machine(address):
    import psutil

    own = psutil.Process()
    found = [
        connection.laddr.ip
        for process in (own, *own.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(found) >= 6  # scheduler, nannies and workers, each with a port for HTTP or for Dask
    assert set(found) == {"127.0.0.1"}


@cluster
def test_the_log_of_the_program_is_left_alone(address, tmp_path):
    def state():
        root = logging.getLogger()
        return root.level, list(root.handlers), root.filters, logging.raiseExceptions

    before = state()
    run(tmp_path, DaskExecutor(address=address))
    assert state() == before


@cluster
def test_typed_faults_arrive_typed(address, faults, tmp_path):
    with pytest.raises(ProductError, match=r"D306.*S1A.SAFE") as caught:
        run(tmp_path, DaskExecutor(address=address), (faults,), keys=["a"], fault={"a": "data"})
    assert caught.value.exit_code == 3


@cluster
def test_a_bug_arrives_with_the_name_of_its_task(address, faults, tmp_path):
    with pytest.raises(TaskFailedError, match=r"faults/a: ZeroDivisionError: a bug") as caught:
        run(tmp_path, DaskExecutor(address=address), (faults,), keys=["a"], fault={"a": "bug"})
    assert "_go_wrong" in caught.value.details


def grouped(stage, root, **options) -> tuple[RunSite, list[TaskOrder]]:
    """Return the orders of a stage, those of a batch as one group."""
    store = CubeStore(str(root))
    context = StageContext(options={"selfcheck": {**DEFAULTS, **options}, "faults": options})
    plan = plan_stage(stage, context, store)
    store.create(plan.templates[0])
    orders = begin_stage(plan, store, None).orders
    return RunSite(store.root), [dataclasses.replace(o, group=o.batch) for o in orders]


@cluster
def test_the_orders_of_a_group_are_done_in_turn_by_one_worker(address, tmp_path):
    site, orders = grouped(PATTERN_STAGE, tmp_path / "groups", chunk=32)
    executor = DaskExecutor(address=address)
    results = list(executor.run(site, orders))
    executor.close()
    assert sorted(result.key for result in results) == sorted(order.key for order in orders)
    # Twenty orders in two groups for two workers: the first bundle is one whole group.
    first = [result for result in results if result.key.startswith("2020-01-01")]
    assert len(first) == 10
    assert len({result.pid for result in first}) == 1
    assert [result.key for result in first] == [order.key for order in orders[:10]]
    run(tmp_path / "single", SerialExecutor(), (PATTERN_STAGE,), chunk=32)

    def chunks(root: Path) -> dict[str, bytes]:
        found = (root / "selfcheck").rglob("c/*")
        return {str(p.relative_to(root)): p.read_bytes() for p in found if p.is_file()}

    assert chunks(tmp_path / "groups") == chunks(tmp_path / "single") != {}


@pytest.mark.slow
@cluster
def test_groups_spare_the_scheduler(kept, address, tmp_path):
    def seconds(name: str, **changes) -> float:
        small = {"lines": 120, "samples": 16, "chunk": 1}
        site, orders = grouped(PATTERN_STAGE, tmp_path / name, **small)
        orders = [dataclasses.replace(order, **changes) for order in orders]
        started = time.process_time()
        assert len(list(kept.run(site, orders))) == 240
        return time.process_time() - started

    seconds("warm")
    # Client and scheduler run in this process; a group costs them as much as one order.
    assert seconds("in groups") < 0.5 * seconds("one by one", group="")


@cluster
def test_a_fault_in_a_group_is_that_of_its_order(address, faults, tmp_path):
    keys, fault = ["a1", "a2", "a3", "a4"], {"a3": "bug"}
    site, orders = grouped(faults, tmp_path, keys=keys, fault=fault)
    executor, done = DaskExecutor(address=address), []
    with pytest.raises(TaskFailedError, match="faults/a3: ZeroDivisionError"):
        done.extend(result.key for result in executor.run(site, orders))
    executor.close()
    assert done[:2] == ["a1", "a2"] or set(done) <= {"a1", "a2", "a4"}
    assert "a3" not in done


@cluster
def test_two_tasks_per_worker_are_in_flight(address, tmp_path):
    store = CubeStore(str(tmp_path))
    context = StageContext(options={"selfcheck": {**DEFAULTS, "chunk": 32}})
    plan = plan_stage(PATTERN_STAGE, context, store)
    store.create(plan.templates[0])
    pulled = []

    class Orders(list):
        def __getitem__(self, place):
            if isinstance(place, slice):
                pulled.extend(range(*place.indices(len(self))))
            return super().__getitem__(place)

    executor = DaskExecutor(address=address)
    finished = 0
    for _ in executor.run(RunSite(store.root), Orders(plan.orders)):
        finished += 1
        assert len(pulled) <= finished - 1 + 4
    executor.close()
    assert finished == len(pulled) == len(plan.orders) == 20


@cluster
def test_an_unreachable_scheduler_is_r813(tmp_path):
    lost = DaskExecutor(address="tcp://127.0.0.1:9", patience_s=1)
    with pytest.raises(StorageError, match=r"R813 tcp://127.0.0.1:9"):
        run(tmp_path, lost)


@cluster
def test_the_selfcheck_proves_workers_and_storage(address, tmp_path):
    report = run_selfcheck(str(tmp_path), DaskExecutor(address=address))
    assert (report["tasks"], report["wrong"]) == (12, 0)
    assert list(tmp_path.iterdir()) == []


# --- workers that die ------------------------------------------------------------------------


@cluster
def test_workers_that_are_started_again_are_like_the_first(kept, address):
    import dask

    own = kept._connect()
    cluster = own.cluster._cluster
    cluster.scale(1)
    deadline = time.monotonic() + 60
    while len(cluster.workers) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    while len(own.known_workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    found = own.client.run(
        lambda: (
            os.environ.get("BLOSC_NTHREADS"),
            dask.config.get("distributed.worker.memory.spill"),
            dask.config.get("distributed.worker.memory.terminate"),
        )
    )
    assert list(found.values()) == [("1", False, 0.95)] * 2


@cluster
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
@cluster
def test_the_killer_in_a_group_is_found(kept, faults, tmp_path):
    keys = ["a1", "a2", "a3", "a4"]
    site, orders = grouped(faults, tmp_path, keys=keys, fault={"a2": "die"})
    done = []
    with pytest.raises(StorageError, match=r"R805 faults/a2: 3 workers died"):
        done.extend(result.key for result in kept.run(site, orders))
    assert set(done) <= {"a1", "a3", "a4"}


@cluster
@pytest.mark.slow
def test_a_task_that_kills_every_worker_ends_the_run(kept, faults, tmp_path):
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"R805 faults/a: 3 workers died") as caught:
        run(tmp_path, kept, (faults,), keys=["a"], fault={"a": "die"})
    assert caught.value.exit_code == 4
    assert time.monotonic() - started < 60


@cluster
@pytest.mark.slow
def test_a_task_beyond_the_memory_limit_ends_the_run(kept, faults, tmp_path):
    with pytest.raises(StorageError, match=r"R805 faults/a"):
        run(tmp_path, kept, (faults,), keys=["a"], fault={"a": "hog"})
