"""Dask clusters that a run can have: started here, in jobs or pods, or found running.

All workers are alike wherever they are: one process and one thread, a memory limit that the nanny
enforces, no spilling. What differs is who starts them, and how they prove who they are.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bperp.flows.cluster_tls import Endpoint, TlsFiles

if TYPE_CHECKING:
    from bperp.flows.config_sections import ClusterOptions

__all__ = [
    "ALLOWED_DEATHS",
    "SCHEDULER_SETTINGS",
    "SINGLE_THREADED",
    "WORKER_PRELOAD",
    "WORKER_SETTINGS",
    "LocalWorkers",
    "RunningCluster",
    "endpoint_of",
    "patience_of",
    "settings_as_environment",
    "silence_dask",
    "start_cluster",
    "tls_of",
]

ALLOWED_DEATHS = 2
WORKER_PRELOAD = "bperp.flows.worker_preload"
SCHEDULER_SETTINGS: Mapping[str, Any] = {"distributed.scheduler.allowed-failures": ALLOWED_DEATHS}
WORKER_SETTINGS: Mapping[str, Any] = {
    # Results are a few hundred bytes: there is nothing to spill, and a paused worker would only
    # hide that a task needs more memory than it said.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}
SINGLE_THREADED: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "BLOSC_NTHREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
}
_PATIENCE_S = {"local": 60, "address": 60, "slurm": 86400, "kubernetes": 600}


class RunningCluster(Protocol):
    """A cluster that this run has started and will end."""

    @property
    def endpoint(self) -> Endpoint:
        """Where its scheduler is."""
        ...

    def mend(self) -> None:
        """Start again what has ended; raise a typed fault when nothing can be started."""
        ...

    def close(self) -> None:
        """End it within seconds, even when tasks are running; safe to call twice."""
        ...


def start_cluster(
    options: ClusterOptions | None, workers: int, memory_limit_bytes: int
) -> RunningCluster:
    """Start the cluster of a configuration; its workers arrive one after the other.

    Parameters
    ----------
    options : ClusterOptions or None
        Of kind local, slurm or kubernetes; None is local.
    workers : int
        Number of worker processes.
    memory_limit_bytes : int
        Memory of each.

    Raises
    ------
    BperpError
        R816 a package or program is missing, R817 the manager of the cluster refuses, R807 the
        shared folder cannot be written, C104 TLS files are missing.
    """
    silence_dask()
    if options is None or options.kind == "local":
        return LocalWorkers(workers, memory_limit_bytes)
    if options.kind == "slurm":
        from bperp.flows.cluster_slurm import SlurmWorkers

        return SlurmWorkers(options.slurm, workers, memory_limit_bytes, tls_of(options))
    from bperp.flows.cluster_kubernetes import KubernetesPods

    tls = tls_of(options)
    assert tls is not None, "the configuration asks for TLS files"
    return KubernetesPods(
        options.kubernetes, workers, memory_limit_bytes, tls, patience_of(options)
    )


def silence_dask() -> None:
    """Keep Dask from printing restarts and lost connections, which are reported as faults."""
    import distributed  # noqa: F401 (sets its own levels when it is imported)

    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def endpoint_of(options: ClusterOptions | None) -> Endpoint | None:
    """Return the scheduler of a cluster that runs already, ``None`` for one to be started."""
    if options is None or options.address is None:
        return None
    return Endpoint(options.address, tls_of(options))


def tls_of(options: ClusterOptions) -> TlsFiles | None:
    """Return the TLS files that a configuration names, if it does."""
    authority, certificate, key = options.tls_paths
    if authority is None or certificate is None or key is None:
        return None
    return TlsFiles(authority, certificate, key)


def patience_of(options: ClusterOptions | None) -> float:
    """Return how long to wait while there is no worker, in seconds."""
    if options is None or options.patience_s == "auto":
        return _PATIENCE_S[options.kind if options else "local"]
    return options.patience_s


def settings_as_environment(*settings: Mapping[str, Any]) -> dict[str, str]:
    """Return Dask settings as the environment variables that Dask reads them from."""
    merged = {name: value for part in settings for name, value in part.items()}
    return {
        "DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(value)
        for name, value in merged.items()
    }


class LocalWorkers:
    """Worker processes on this machine, reachable from this machine only.

    Parameters
    ----------
    workers : int
        Number of processes.
    memory_limit_bytes : int
        Memory of each.
    """

    def __init__(self, workers: int, memory_limit_bytes: int) -> None:
        self._workers = workers
        self._surroundings = contextlib.ExitStack()
        try:
            # Both for as long as it runs: workers that are started again need them too.
            self._surroundings.enter_context(_hidden_main())
            self._surroundings.enter_context(_local_settings())
            self._cluster = _start_local(workers, memory_limit_bytes)
        except BaseException:
            self._surroundings.close()
            raise

    @property
    def endpoint(self) -> Endpoint:
        """Where its scheduler is."""
        return Endpoint(str(self._cluster.scheduler_address))

    def mend(self) -> None:
        """Start a worker that died while its nanny still waited for it."""
        if len(self._cluster.workers) < self._workers:
            self._cluster.scale(self._workers)

    def close(self) -> None:
        """End the processes without waiting for running tasks."""
        with contextlib.suppress(Exception):
            self._cluster.close(timeout=5)
        self._surroundings.close()


def _local_settings() -> contextlib.AbstractContextManager[Any]:
    import dask

    # Imported before the settings: leaving their block would also undo what the import sets.
    import distributed  # noqa: F401

    environment = {
        **dask.config.get("distributed.nanny.pre-spawn-environ", {}),
        **SINGLE_THREADED,
    }
    settings: contextlib.AbstractContextManager[Any] = dask.config.set(
        {
            **SCHEDULER_SETTINGS,
            **WORKER_SETTINGS,
            "distributed.nanny.pre-spawn-environ": environment,
        }
    )
    return settings


def _start_local(workers: int, memory_limit: int) -> Any:
    import distributed

    start: Any = distributed.LocalCluster
    return start(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=memory_limit,
        host="127.0.0.1",
        # The scheduler serves HTTP even without a dashboard: any free port, this machine only.
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
        preload=[WORKER_PRELOAD],
    )


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
