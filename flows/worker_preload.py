"""Run by each worker of a local cluster when it starts (a Dask preload module)."""

from __future__ import annotations

import signal


def dask_setup(_worker: object) -> None:
    """Leave Ctrl-C and SIGTERM to the program that owns the cluster.

    A terminal sends signals to all processes of a group. Workers that died on their own would print
    tracebacks and be started again while the program is closing the cluster. They end with their
    nanny, and at once when the program is killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
