"""Where tasks run: in this process, or in Dask workers; both give the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from bperp.flows.interruption import raise_if_requested
from bperp.flows.worker import (
    RunSite,
    TaskOrder,
    TaskResult,
    is_transient,
    run_task,
)
from bperp.stores.errors import StorageError

BASELINE_BYTES = 400_000_000
"""Resident memory of a worker that has imported everything and compiled its kernels."""
USABLE_SHARE = 0.9
"""Share of a worker's limit that may be planned for; above 0.95 the nanny ends the worker."""

_CONNECT_ATTEMPTS = 5
_CONNECTING = threading.Lock()
"""Under Prefect the batches of one process connect at the same time."""

_IN_FLIGHT_PER_WORKER = 2
_ATTEMPTS = 3
_ALLOWED_DEATHS = 2
_POLL_S = 0.02
_CHECK_S = 5.0
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "BLOSC_NTHREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
}


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


def run_with_retries(site_text: str, order_text: str) -> dict[str, Any]:
    """Run a task, again when the fault was a passing one (network, input and output).

    Parameters
    ----------
    site_text, order_text : str
        ``RunSite`` and ``TaskOrder`` as JSON.

    Returns
    -------
    dict
        Fields of ``TaskResult``.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return run_task(site_text, order_text)
        except Exception as error:
            if not is_transient(error):
                raise
            logging.getLogger(__name__).warning("trying again after: %s", error)
    return run_task(site_text, order_text)


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
        Worker processes of a local cluster; default one per core.
    memory_limit_bytes : int, optional
        Memory of one local worker; default an equal share of this machine's.
    address : str, optional
        Scheduler to be used instead of a local cluster, such as ``tcp://host:8786``.
    patience_s : float, default 60
        How long to wait for the scheduler to answer, and for workers when there are none.
    """

    def __init__(
        self,
        workers: int | None = None,
        memory_limit_bytes: int | None = None,
        address: str | None = None,
        patience_s: float = 60.0,
    ) -> None:
        self.address = address
        self.patience_s = patience_s
        self._cluster: Any = None
        self._client: Any = None
        self._main = contextlib.ExitStack()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._workers = workers or cores or 1
        self._limit = memory_limit_bytes

    @property
    def workers(self) -> int:
        """Number of worker threads, asked from the scheduler when it is not ours."""
        if self.address is None:
            return self._workers
        return sum(worker["nthreads"] for worker in self._known_workers()) or 1

    @property
    def memory_limit_bytes(self) -> int | None:
        """Smallest memory limit of the workers."""
        if self.address is None:
            return self._limit or _machine_bytes() // self._workers
        limits = [worker["memory_limit"] for worker in self._known_workers()]
        return min((int(limit) for limit in limits if limit), default=None)

    def start(self) -> str:
        """Start the cluster unless it runs; return the address of its scheduler."""
        self._connect()
        return str(self._client.scheduler.address)

    def run(self, site: RunSite, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        """Yield a result for each order as it finishes; two orders per worker are in flight."""
        if not orders:
            return
        client = self._connect()
        site_text, waiting = site.as_json(), iter(orders)
        futures = {
            _submit(client, site_text, order): order
            for order in itertools.islice(waiting, _IN_FLIGHT_PER_WORKER * self.workers)
        }
        finished = _distributed().as_completed(list(futures), loop=client.loop)
        try:
            while futures:
                self._wait(finished)
                future = next(finished)
                order = futures.pop(future)
                yield TaskResult(**self._answer(future, order))
                for following in itertools.islice(waiting, 1):
                    submitted = _submit(client, site_text, following)
                    futures[submitted] = following
                    finished.add(submitted)
        finally:
            with contextlib.suppress(Exception):
                client.cancel(list(futures), force=True)

    def close(self) -> None:
        """Stop our workers without waiting for running tasks; leave a foreign cluster alone."""
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        with contextlib.suppress(Exception):
            if client is not None:
                client.close(timeout=3)
        with contextlib.suppress(Exception):
            if cluster is not None:
                cluster.close(timeout=5)
        self._main.close()

    def _connect(self) -> Any:
        if self._client is None:
            distributed = _distributed()
            # Restarts and lost connections are ours to report; Dask does it in tracebacks.
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            if self.address is None:
                self._main.enter_context(_hidden_main())
                self._cluster = _start_cluster(self._workers, int(self.memory_limit_bytes or 0))
            target = self.address or self._cluster.scheduler_address
            self._client = self._open_client(distributed, target)
        return self._client

    def _open_client(self, distributed: Any, target: str) -> Any:
        """Connect to a scheduler.

        A busy scheduler may send its greeting together with other messages, which the client
        takes for a broken protocol (AssertionError): that is worth another try.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                with _CONNECTING:
                    return distributed.Client(target, set_as_default=False, timeout=self.patience_s)
            except AssertionError as error:
                if attempt == _CONNECT_ATTEMPTS:
                    raise _scheduler_lost(target, error) from error
                time.sleep(attempt * _POLL_S)
            except OSError as error:
                raise _scheduler_lost(target, error) from error

    def _known_workers(self) -> list[dict[str, Any]]:
        client = self._connect()
        # Not client.scheduler_info: its cache is overwritten without the workers every two seconds.
        try:
            return list(client.sync(client.scheduler.identity, n_workers=-1)["workers"].values())
        except OSError as error:
            raise _scheduler_lost(self._name(), error) from error

    def _wait(self, finished: Any) -> None:
        """Wait for the next result, and see to it that there are workers to give one."""
        checked = time.monotonic()
        seen = checked
        raise_if_requested()
        while not finished.has_ready():
            time.sleep(_POLL_S)
            raise_if_requested()
            now = time.monotonic()
            if now - checked < _CHECK_S:
                continue
            checked = now
            if self._known_workers():
                seen = now
            if self._cluster is not None and len(self._cluster.workers) < self._workers:
                # A worker that dies while its nanny still waits for it is not started again.
                self._cluster.scale(self._workers)
            if now - seen > self.patience_s:
                raise _scheduler_lost(self._name(), TimeoutError("there are no workers"))

    def _name(self) -> str:
        return self.address or "the local scheduler"

    def _answer(self, future: Any, order: TaskOrder) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = future.result()
        except _distributed().KilledWorker as error:
            raise _worker_died(order, self.memory_limit_bytes) from error
        except OSError as error:
            raise _scheduler_lost(self._name(), error) from error
        except Exception as error:
            if future.cancelled():
                raise _scheduler_lost(self._name(), error) from error
            raise
        return answer


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep spawned workers from importing the program's main module.

    They need nothing of it. Under Prefect it would load Prefect into every worker, and a script
    without a ``__name__`` guard would start a cluster in every worker.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    main.__spec__ = None
    if file is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


def _distributed() -> Any:
    # Imported late (1.3 s), and untyped in part.
    import distributed

    return distributed


def _submit(client: Any, site_text: str, order: TaskOrder) -> Any:
    return client.submit(
        run_with_retries,
        site_text,
        order.as_json(),
        key=f"{order.name}-{order.id[:12]}",
        pure=False,
    )


def _start_cluster(workers: int, memory_limit: int) -> Any:
    import dask

    # Imported before the settings: leaving their block would also undo what the import sets.
    distributed = _distributed()
    settings = {
        "distributed.scheduler.allowed-failures": _ALLOWED_DEATHS,
        # Results are a few hundred bytes: there is nothing to spill, and a paused worker would
        # only hide that a task needs more memory than it said.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.nanny.pre-spawn-environ": {
            **dask.config.get("distributed.nanny.pre-spawn-environ", {}),
            **_SINGLE_THREADED,
        },
    }
    with dask.config.set(settings):
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_limit,
            host="127.0.0.1",
            # The scheduler serves HTTP even without a dashboard: any free port, this machine only.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            preload=["bperp.flows.worker_preload"],
        )


def _machine_bytes() -> int:
    from distributed.system import MEMORY_LIMIT

    # The client, the scheduler and everybody else on this machine need room too.
    return int(0.8 * MEMORY_LIMIT)


def _worker_died(order: TaskOrder, limit: int | None) -> StorageError:
    found = f"a limit of {limit / 1e6:.0f} MB" if limit else "no limit"
    return StorageError(
        "R805",
        f"{_ALLOWED_DEATHS + 1} workers died one after the other in the same task",
        where=order.name,
        expected=f"{(order.memory_bytes + BASELINE_BYTES) / 1e6:.0f} MB to be enough, as predicted",
        found=found,
        remedy="give the workers more memory (fewer workers), then run again to resume",
    )


def _scheduler_lost(address: str, error: Exception) -> StorageError:
    return StorageError(
        "R813",
        "the Dask cluster does not answer",
        where=address,
        found=f"{type(error).__name__}: {error}"[:200],
        remedy="check that scheduler and workers run, then run again to resume",
    )
