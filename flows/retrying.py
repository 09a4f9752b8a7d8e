"""A task is tried again when its fault may pass, and no longer than that is likely."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from bperp.flows.interruption import raise_if_requested
from bperp.flows.worker import TaskFailedError, is_transient, run_task
from bperp.stores.errors import BperpError, NetworkError
from bperp.stores.objects import is_local
from bperp.stores.patience import Spell, network_patience_s
from bperp.stores.storage_faults import LastingFaultError, is_passing

_FEW_ATTEMPTS = 3
_STEP_S = 0.5
_MISSING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def run_with_retries(site_text: str, order_text: str) -> dict[str, Any]:
    """Run a task, again when the fault was a passing one.

    Parameters
    ----------
    site_text, order_text : str
        ``RunSite`` and ``TaskOrder`` as JSON.

    Returns
    -------
    dict
        Fields of ``TaskResult``.

    Raises
    ------
    BperpError
        R810 once the network was out of order for longer than ``BPERP_NETWORK_PATIENCE_S``; any
        fault that will not pass, at once.
    TaskFailedError
        Everything else.

    Notes
    -----
    Faults of the network are waited for with growing, random pauses. Faults of a disk, and damaged
    chunks of an object store (which may have been damaged on the way), get three attempts. The
    objects of a store have the same patience by themselves, so what comes here after it was
    exhausted is not tried again.
    """
    is_remote = not is_local(json.loads(site_text)["root"])
    spell = Spell(network_patience_s())
    attempts = 0
    while True:
        try:
            return run_task(site_text, order_text)
        except (BperpError, TaskFailedError) as error:
            attempts += 1
            allowed = _attempts_allowed(error, is_remote=is_remote)
            pause = spell.pause_s(error) if attempts < allowed else None
            if pause is None:
                raise
            logging.getLogger(__name__).info("trying again after: %s", error)
        _sleep(pause)


def _attempts_allowed(error: BperpError | TaskFailedError, *, is_remote: bool) -> float:
    if isinstance(error, LastingFaultError):
        return 1
    if isinstance(error, NetworkError) and is_transient(error):
        return float("inf")
    if isinstance(error, BperpError):
        return _FEW_ATTEMPTS if is_remote and error.code == "R803" else 1
    cause = error.__cause__
    if isinstance(cause, ConnectionError | TimeoutError) or _is_of_a_client(cause):
        return float("inf")
    return _FEW_ATTEMPTS if error.transient and not isinstance(cause, _MISSING) else 1


def _is_of_a_client(cause: BaseException | None) -> bool:
    """Tell whether a library for object stores raised a fault that may pass, reading inputs."""
    if cause is None:
        return False
    chain = (cause, cause.__cause__)
    libraries = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "obstore", "azure")
    is_theirs = any(type(link).__module__.split(".")[0] in libraries for link in chain)
    return is_theirs and is_passing(cause)


def _sleep(pause_s: float) -> None:
    until = time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0.0:
        raise_if_requested()
        time.sleep(min(left, _STEP_S))
