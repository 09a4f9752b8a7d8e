"""Is a root complete and unharmed: what ``bperp verify`` tells."""

from __future__ import annotations

import time
from typing import Any

from bperp.flows.interruption import terminable
from bperp.flows.progress import Progress
from bperp.flows.root import Root
from bperp.stores.verify import Verification, verify_store

__all__ = ["verify_root"]


def verify_root(
    root: str, *, readers: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Prove that a root is complete and unharmed, or name what is not; nothing is changed.

    Parameters
    ----------
    root : str
        Folder or URL.
    readers : int, optional
        Threads that read; see ``verify_store``.
    progress : Progress, optional
        Display.

    Returns
    -------
    dict
        JSON values: ``sound``, ``steps``, ``blocks``, ``bytes_read``, ``seconds``, ``faults`` (one
        per damaged object), and the names ``unfinished``, ``unsettled``, ``partial``, ``strays``.

    Raises
    ------
    BperpError
        R801 no root, R807, R808 or R810 when it cannot be read.
    """
    started = time.perf_counter()
    opened = Root.open(root)
    with terminable():
        found = verify_store(opened.store, readers=readers, watcher=progress)
    seconds = round(time.perf_counter() - started, 2)
    return {"root": opened.store.objects.url, **_as_values(found), "seconds": seconds}


def _as_values(found: Verification) -> dict[str, Any]:
    inventory = found.inventory
    return {
        "sound": found.is_sound,
        "steps": found.stages,
        "blocks": found.blocks,
        "bytes_read": found.bytes_read,
        "faults": [{"object": name, **fault.as_dict()} for name, fault in found.faults.items()],
        "unsettled": found.unsettled,
        "unfinished": inventory.unfinished if inventory else [],
        "partial": inventory.partial if inventory else [],
        "strays": inventory.strays if inventory else [],
    }
