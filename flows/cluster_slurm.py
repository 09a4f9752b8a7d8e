"""Workers in SLURM jobs; the scheduler runs in this process, secured by certificates."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bperp.flows.cluster_faults import nothing_started, refused
from bperp.flows.cluster_tls import Endpoint, TlsFiles, temporary_certificates
from bperp.flows.clusters import (
    SCHEDULER_SETTINGS,
    SINGLE_THREADED,
    WORKER_PRELOAD,
    WORKER_SETTINGS,
    settings_as_environment,
)
from bperp.flows.interruption import handlers_kept
from bperp.stores.errors import ConfigurationError

if TYPE_CHECKING:
    from bperp.flows.config_sections import SlurmOptions

__all__ = ["SlurmWorkers"]

JOB_BASELINE_BYTES = 300_000_000
"""What a job holds besides its workers: the process that starts and watches them."""
_DEATH_TIMEOUT_S = 60
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/:=,+@%~-]+")


class SlurmWorkers:
    """Jobs with one worker process or several, each of one thread.

    Jobs that end (walltime, lost nodes) are replaced by ``mend``. Jobs whose scheduler has gone end
    by themselves.

    Parameters
    ----------
    options : SlurmOptions
        Queue, account, time, folders.
    workers : int
        Number of worker processes; rounded up to whole jobs.
    memory_limit_bytes : int
        Memory of each.
    tls : TlsFiles, optional
        Certificates to be used; default temporary ones in the shared folder.

    Raises
    ------
    StorageError
        R816 without dask-jobqueue or sbatch, R807 when a folder cannot be written.
    ConfigurationError
        C104 when a path cannot stand in a job script.
    """

    def __init__(
        self,
        options: SlurmOptions,
        workers: int,
        memory_limit_bytes: int,
        tls: TlsFiles | None = None,
    ) -> None:
        self._jobs = -(-workers // options.workers_per_job)
        self._faults: list[Exception] = []
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as started:
            if tls is None:
                shared = _plain(options.shared_directory or str(Path.home()))
                tls = started.enter_context(temporary_certificates(shared))
            self._tls = tls
            self._cluster = _start(options, memory_limit_bytes, tls, self._faults)
            started.callback(_end, self._cluster)
            self._cluster.scale(jobs=self._jobs)
            self._closing = started.pop_all()

    @property
    def endpoint(self) -> Endpoint:
        """Where its scheduler is."""
        return Endpoint(str(self._cluster.scheduler_address), self._tls)

    def job_script(self) -> str:
        """Return what is given to sbatch."""
        return str(self._cluster.job_script())

    def mend(self) -> None:
        """Replace jobs that have ended.

        Raises
        ------
        StorageError
            R817 with the words of sbatch when it took no job.
        """
        jobs = list(self._cluster.workers.values())
        # A limit on the number of jobs may refuse some of them: the others do the work.
        if jobs and not any(job.job_id for job in jobs) and self._faults:
            fault = self._faults[-1]
            remedy = "correct compute.cluster.slurm (queue, account, walltime), then run again"
            raise refused("SLURM", fault, remedy) from fault
        if len(jobs) < self._jobs:
            self._cluster.scale(jobs=self._jobs)

    def close(self) -> None:
        """Cancel all jobs and remove temporary certificates."""
        self._closing.close()


def _start(options: SlurmOptions, memory: int, tls: TlsFiles, faults: list[Exception]) -> Any:
    try:
        with handlers_kept():
            jobqueue: Any = importlib.import_module("dask_jobqueue")
    except ImportError as error:
        raise nothing_started("dask-jobqueue", "pip install 'bperp[slurm]'") from error
    if shutil.which("sbatch") is None:
        raise nothing_started("sbatch", "run on a machine that submits SLURM jobs")
    import dask

    number = options.workers_per_job
    with dask.config.set(SCHEDULER_SETTINGS):
        return jobqueue.SLURMCluster(
            job_cls=_job_class(jobqueue.SLURMCluster.job_cls, faults),
            queue=options.queue,
            account=options.account,
            walltime=options.walltime,
            cores=number,
            processes=number,
            memory=str(number * memory),
            job_mem=f"{-(-(number * memory + JOB_BASELINE_BYTES) // 2**20)}M",
            interface=options.interface,
            local_directory=options.local_directory,
            log_directory=_plain(options.log_directory) if options.log_directory else None,
            job_extra_directives=_directives(options),
            job_script_prologue=_exports(),
            job_name="bperp",
            python=_plain(sys.executable),
            death_timeout=_DEATH_TIMEOUT_S,
            worker_extra_args=_worker_arguments(memory),
            security=tls.as_security(),
            scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )


def _worker_arguments(memory: int) -> list[str]:
    return [
        "--preload",
        WORKER_PRELOAD,
        "--no-dashboard",
        # Workers serve HTTP even without a dashboard.
        "--dashboard-address",
        "127.0.0.1:0",
        # Once more and exact: dask-jobqueue rounds to three digits.
        "--memory-limit",
        str(memory),
    ]


def _exports() -> list[str]:
    environment = {
        **SINGLE_THREADED,
        **settings_as_environment(WORKER_SETTINGS, {"logging.distributed": "error"}),
    }
    return [f"export {name}={value}" for name, value in environment.items()]


def _directives(options: SlurmOptions) -> list[str]:
    nowhere = [] if options.log_directory else ["-o /dev/null", "-e /dev/null"]
    return [*nowhere, *options.job_extra]


def _job_class(plain: Any, faults: list[Exception]) -> Any:
    from distributed.core import Status

    class Job(plain):  # type: ignore[misc]
        """A job whose refusal is kept; dask-jobqueue would lose it in the event loop."""

        async def start(self) -> None:
            try:
                await super().start()
            except (OSError, RuntimeError, ValueError) as error:
                faults.append(error)
                self.status = Status.running

        async def close(self) -> None:
            await super().close()
            # Not said by dask-jobqueue; the cluster does not end before it is.
            self.status = Status.closed

    return Job


def _end(cluster: Any) -> None:
    with contextlib.suppress(Exception):
        cluster.close(timeout=5)


def _plain(path: str) -> str:
    if not _PLAIN_PATH.fullmatch(path):
        raise ConfigurationError(
            "C104",
            "the path has characters that cannot stand in a job script",
            where=path,
            remedy="set compute.cluster.slurm to folders without blanks",
        )
    return path
