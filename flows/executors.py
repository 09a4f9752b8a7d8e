"""Where tasks run: in this process, or in Dask workers; both give the same bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bperp.flows.bundles import BundleResult, Flight, OrderQueue
from bperp.flows.cluster_connection import ANSWER_S, Connection, Watch, threads_of
from bperp.flows.cluster_faults import worker_died
from bperp.flows.cluster_tls import Endpoint
from bperp.flows.clusters import endpoint_of, patience_of, start_cluster
from bperp.flows.interruption import raise_if_requested
from bperp.flows.retrying import run_with_retries
from bperp.flows.worker import (
    RunSite,
    TaskOrder,
    TaskResult,
)

if TYPE_CHECKING:
    from bperp.flows.config_sections import ClusterOptions

BASELINE_BYTES = 400_000_000
"""Resident memory of a worker that has imported everything and compiled its kernels."""
USABLE_SHARE = 0.9
"""Share of a worker's limit that may be planned for; above 0.95 the nanny ends the worker."""

_IN_FLIGHT_PER_WORKER = 2
_POLL_S = 0.02


class Executor(Protocol):
    """Runs tasks in any order and any number at once."""

    @property
    def workers(self) -> int:
        """Number of tasks that run at once."""
        ...

    @property
    def memory_limit_bytes(self) -> int | None:
        """Memory of one worker, ``None`` when there is no limit."""
        ...

    def run(self, site: RunSite, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        """Yield a result for each order as it finishes; raise the first fault."""
        ...

    def close(self) -> None:
        """Stop the workers; safe to call twice, quick even when tasks are running."""
        ...


class SerialExecutor:
    """Run tasks one after the other in this process, for tests, debugging and small stacks.

    Parameters
    ----------
    memory_limit_bytes : int, optional
        Refuse plans that need more.
    """

    def __init__(self, memory_limit_bytes: int | None = None) -> None:
        self.workers = 1
        self.memory_limit_bytes = memory_limit_bytes

    def run(self, site: RunSite, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        """Yield a result for each order, in order."""
        site_text = site.as_json()
        for order in orders:
            raise_if_requested()
            yield TaskResult(**run_with_retries(site_text, order.as_json()))

    def close(self) -> None:
        """Do nothing."""


class DaskExecutor:
    """Run tasks in Dask workers: one process and one thread each, on this machine or elsewhere.

    The cluster starts with the first task, so a run that has nothing to do costs nothing.

    Parameters
    ----------
    workers : int, optional
        Worker processes of a cluster to be started; default one per core of this machine.
    memory_limit_bytes : int, optional
        Memory of one of them; default an equal share of this machine's.
    address : str, optional
        Scheduler to be used instead of a new cluster, such as ``tcp://127.0.0.1:8786``, or the
        text of an ``Endpoint``.
    cluster : ClusterOptions, optional
        Kind of cluster; default worker processes on this machine.
    patience_s : float, optional
        How long to go on without workers; default as the options say.
    """

    def __init__(
        self,
        workers: int | None = None,
        memory_limit_bytes: int | None = None,
        address: str | None = None,
        *,
        cluster: ClusterOptions | None = None,
        patience_s: float | None = None,
    ) -> None:
        self.patience_s = patience_of(cluster) if patience_s is None else patience_s
        self._options = cluster
        self._foreign = Endpoint.parse(address) if address else endpoint_of(cluster)
        self._connection: Connection | None = None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._workers = workers or cores or 1
        self._limit = memory_limit_bytes

    @property
    def workers(self) -> int:
        """Number of worker threads, asked from the scheduler when it is not ours."""
        if self._foreign is None:
            return self._workers
        return threads_of(self._connect().first_workers())

    @property
    def memory_limit_bytes(self) -> int | None:
        """Smallest memory of a worker thread."""
        if self._foreign is None:
            return self._limit or _machine_bytes() // self._workers
        workers = self._connect().first_workers()
        shares = [(int(worker["memory_limit"] or 0), worker["nthreads"]) for worker in workers]
        return min((limit // threads for limit, threads in shares if limit), default=None)

    def start(self) -> str:
        """Start the cluster unless it runs; return the text of its ``Endpoint``.

        Returns when there is a worker.
        """
        connection = self._connect()
        connection.first_workers()
        return str(connection.endpoint)

    def run(self, site: RunSite, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        """Yield a result for each order as it finishes; two bundles per worker are in flight.

        Neither the order of the results nor the division into bundles changes any bytes: each task
        writes blocks of its own, and depends on finished stages only.
        """
        if not orders:
            return
        connection = self._connect()
        if self._foreign is not None:
            connection.require_same_program()
        watch = Watch(connection, self._workers if self._foreign is None else None)
        queue, flight = OrderQueue(orders), Flight(connection.client, site)
        try:
            while _send(queue, flight, watch.threads):
                while not flight.has_ready():
                    watch.look()
                    time.sleep(_POLL_S)
                watch.look()
                future, bundle, alone = flight.next()
                answer = self._answer((connection, watch), future, bundle, alone=alone)
                if answer is None:
                    queue.suspect(bundle)
                    continue
                results, fault = answer
                yield from (TaskResult(**result) for result in results)
                if fault is not None:
                    raise fault
        finally:
            flight.cancel()

    def close(self) -> None:
        """Stop our workers without waiting for running tasks; leave a foreign cluster alone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection:
        if self._connection is None:
            if self._foreign is not None:
                self._connection = Connection(self._foreign, None, self.patience_s)
            else:
                self._connection = self._start_own()
        return self._connection

    def _start_own(self) -> Connection:
        cluster = start_cluster(self._options, self._workers, int(self.memory_limit_bytes or 0))
        try:
            return Connection(cluster.endpoint, cluster, self.patience_s)
        except BaseException:
            cluster.close()
            raise

    def _answer(
        self,
        asked: tuple[Connection, Watch],
        future: Any,
        bundle: Sequence[TaskOrder],
        *,
        alone: bool,
    ) -> BundleResult | None:
        """Return what a bundle gave, ``None`` when its workers died and it may not be to blame."""
        connection, watch = asked
        try:
            return _result(watch, future)
        except _distributed().KilledWorker as error:
            if not alone or len(bundle) > 1:
                return None
            order, deaths = bundle[0], error.allowed_failures + 1
            needed = order.memory_bytes + BASELINE_BYTES
            raise worker_died(order.name, needed, self.memory_limit_bytes, deaths) from error
        except OSError as error:
            raise connection.lost(error) from error
        except Exception as error:
            if future.cancelled():
                raise connection.lost(error) from error
            raise


def _send(queue: OrderQueue, flight: Flight, threads: int) -> bool:
    """Give every worker thread something to do and something to follow; tell if anything runs."""
    while len(flight) < _IN_FLIGHT_PER_WORKER * threads:
        bundle = queue.take(threads, len(flight))
        if not bundle:
            break
        flight.submit(bundle)
    return len(flight) > 0


def _result(watch: Watch, future: Any) -> BundleResult:
    while True:
        try:
            answer: BundleResult = future.result(ANSWER_S)
            return answer
        except TimeoutError:
            # The worker died with its result, which is made once more; or nobody is there.
            watch.look()


def _distributed() -> Any:
    # Imported late (1.3 s), and untyped in part.
    import distributed

    return distributed


def _machine_bytes() -> int:
    from distributed.system import MEMORY_LIMIT

    # The client, the scheduler and everybody else on this machine need room too.
    return int(0.8 * MEMORY_LIMIT)
