"""What can go wrong with a cluster as such, as typed errors."""

from __future__ import annotations

from bperp.stores.errors import StorageError

__all__ = [
    "nothing_started",
    "other_program",
    "refused",
    "scheduler_lost",
    "worker_died",
]


def worker_died(task: str, needed_bytes: int, limit_bytes: int | None, deaths: int) -> StorageError:
    """Return R805: one task ended every worker that tried it, most likely for memory."""
    return StorageError(
        "R805",
        f"{deaths} workers died one after the other in the same task",
        where=task,
        expected=f"{needed_bytes / 1e6:.0f} MB to be enough, as predicted",
        found=f"a limit of {limit_bytes / 1e6:.0f} MB" if limit_bytes else "no limit",
        remedy="give the workers more memory (fewer workers), then run again to resume",
    )


def scheduler_lost(address: str, error: Exception) -> StorageError:
    """Return R813: scheduler or workers are not there, or not any more."""
    return StorageError(
        "R813",
        "the Dask cluster does not answer",
        where=address,
        found=f"{type(error).__name__}: {error}"[:200],
        remedy="check that scheduler and workers run, then run again to resume",
    )


def other_program(worker: str, own: str, found: object) -> StorageError:
    """Return R816: a worker of somebody else's cluster does not run this program."""
    return StorageError(
        "R816",
        "a worker of the cluster does not run this version of bperp",
        where=worker,
        expected=f"bperp {own}",
        found=f"bperp {found}" if isinstance(found, str) else "no bperp",
        remedy="install the same version where the workers run",
    )


def nothing_started(what: str, remedy: str) -> StorageError:
    """Return R816: a package or program that a kind of cluster needs is not on this machine."""
    return StorageError(
        "R816",
        "the chosen kind of cluster needs something that is not installed",
        where=f"compute.cluster: {what}",
        remedy=remedy,
    )


def refused(manager: str, error: object, remedy: str) -> StorageError:
    """Return R817: SLURM or Kubernetes does not do what it is asked."""
    return StorageError(
        "R817",
        f"{manager} refuses to start the cluster",
        where="compute.cluster",
        found=" ".join(str(error).split())[:400],
        remedy=remedy,
    )
