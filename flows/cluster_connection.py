"""A client of a scheduler, with typed faults in place of waiting for ever."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from bperp.flows.cluster_faults import other_program, scheduler_lost
from bperp.flows.cluster_tls import Endpoint
from bperp.flows.clusters import RunningCluster, silence_dask
from bperp.flows.interruption import raise_if_requested
from bperp.stores.errors import StorageError

__all__ = ["ANSWER_S", "Connection", "Watch", "threads_of"]

ANSWER_S = 30.0
"""A scheduler that says nothing for so long is lost; one that computes answers within a second."""
_GOODBYE_S = 3.0
_POLL_S = 0.02
_LOOK_S = 0.2
_CHECK_S = 5.0
_CONNECT_ATTEMPTS = 5
_CONNECTING = threading.Lock()
"""Under Prefect the batches of one process connect at the same time."""


class Connection:
    """A connected client.

    Parameters
    ----------
    endpoint : Endpoint
        Scheduler.
    cluster : RunningCluster or None
        The cluster behind it if it is ours: kept going, and ended with the connection.
    patience_s : float
        How long to go on without workers.

    Raises
    ------
    SecurityError
        X906 when the connection would not be safe; nothing was connected then.
    StorageError
        R813 when nobody answers.
    """

    def __init__(
        self, endpoint: Endpoint, cluster: RunningCluster | None, patience_s: float
    ) -> None:
        self.endpoint, self.cluster, self.patience_s = endpoint, cluster, patience_s
        self.client = _open_client(endpoint, min(patience_s, ANSWER_S))

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Return the answer to a question about the client, or raise R813 when none comes."""

        async def ask() -> Any:
            return await question(self.client)

        try:
            return self.client.sync(ask, callback_timeout=ANSWER_S)
        except OSError as error:
            raise self.lost(error) from error

    def known_workers(self) -> list[dict[str, Any]]:
        """Return what the scheduler knows of its workers; replace those of ours that ended."""
        # Not client.scheduler_info: its cache is overwritten without the workers every two seconds.
        identity = self.ask(lambda client: client.scheduler.identity(n_workers=-1))
        if self.cluster is not None:
            self.cluster.mend()
        return list(identity["workers"].values())

    def first_workers(self) -> list[dict[str, Any]]:
        """Return what is known of the workers, once there is at least one."""
        deadline = time.monotonic() + self.patience_s
        while not (workers := self.known_workers()):
            raise_if_requested()
            if time.monotonic() > deadline:
                raise self.lost(TimeoutError("there are no workers"))
            time.sleep(_LOOK_S)
        return workers

    def require_same_program(self) -> None:
        """Refuse workers that lack this program, or run another version of it (R816).

        They would close at the first task, or leave bytes that depend on who did the work.
        """
        self.first_workers()
        try:
            own = metadata.version("bperp")
        except metadata.PackageNotFoundError:
            return  # run from its source, without a version to compare
        found = self.ask(lambda client: client.run(metadata.version, "bperp", on_error="return"))
        for worker, version in found.items():
            if isinstance(version, OSError):
                continue  # it ended while it was asked
            if version != own:
                raise other_program(worker, own, version)

    def lost(self, error: Exception) -> StorageError:
        """Return R813 for this scheduler."""
        return scheduler_lost(self.endpoint.address, error)

    def close(self) -> None:
        """Leave the scheduler, and end the cluster if it is ours, whatever runs there."""
        with contextlib.suppress(Exception):
            self.client.close(timeout=_GOODBYE_S)
        if self.cluster is not None:
            self.cluster.close()


class Watch:
    """Looks now and then whether there is still somebody who works.

    Parameters
    ----------
    connection : Connection
        Scheduler to be asked.
    threads : int, optional
        Worker threads to reckon with; default as many as there are, now and later.
    """

    def __init__(self, connection: Connection, threads: int | None = None) -> None:
        self._connection, self._fixed = connection, threads
        self._known = 1 if threads else threads_of(connection.first_workers())
        self._looked = self._seen = time.monotonic()

    @property
    def threads(self) -> int:
        """Number of worker threads to find work for."""
        return self._fixed or self._known

    def look(self) -> None:
        """Raise when the run was interrupted, or when there were no workers for too long."""
        raise_if_requested()
        now = time.monotonic()
        if now - self._looked < _CHECK_S:
            return
        self._looked, workers = now, self._connection.known_workers()
        if workers:
            self._seen, self._known = now, threads_of(workers)
        elif now - self._seen > self._connection.patience_s:
            raise self._connection.lost(TimeoutError("there are no workers"))


def threads_of(workers: list[dict[str, Any]]) -> int:
    """Return the number of threads of some workers."""
    return sum(worker["nthreads"] for worker in workers)


def _open_client(endpoint: Endpoint, timeout_s: float) -> Any:
    """Connect to a scheduler.

    A busy scheduler may send its greeting together with other messages, which the client takes for
    a broken protocol (AssertionError): that is worth another try.
    """
    security = endpoint.as_security()
    import distributed

    silence_dask()
    connect: Any = distributed.Client
    options = {"set_as_default": False, **({"security": security} if security else {})}
    attempt = 0
    while True:
        attempt += 1
        try:
            with _CONNECTING:
                return connect(endpoint.address, timeout=timeout_s, **options)
        except AssertionError as error:
            if attempt == _CONNECT_ATTEMPTS:
                raise scheduler_lost(endpoint.address, error) from error
            time.sleep(attempt * _POLL_S)
        except OSError as error:
            raise scheduler_lost(endpoint.address, error) from error
