"""One run per store: a lock that names its owner and survives no dead one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bperp.stores.errors import StorageError
from bperp.stores.objects import LocalObjects, ObjectStore

LOCK_NAME = "run.lock"


@dataclass(frozen=True)
class LockOwner:
    """Who holds a lock.

    ``started`` is for people; ``process_start`` tells a live owner from another process that was
    given the same number after a reboot.
    """

    pid: int
    host: str
    started: str
    process_start: str
    token: str

    @classmethod
    def current(cls) -> LockOwner:
        """Return this process as an owner, with a fresh token."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            process_start=_process_start(os.getpid()) or "",
            token=uuid.uuid4().hex,
        )

    def is_dead(self) -> bool:
        """Tell whether the owner is certainly gone; an owner on another host never is."""
        if self.host != socket.gethostname():
            return False
        start = _process_start(self.pid)
        return start is None or (bool(self.process_start) and start != self.process_start)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started}"


def read_owner(objects: ObjectStore) -> LockOwner | None:
    """Return the owner of a store's lock; ``None`` when free or unreadable."""
    text = objects.read(LOCK_NAME)
    try:
        return None if text is None else LockOwner(**json.loads(text))
    except (ValueError, TypeError):
        return None


@contextlib.contextmanager
def run_lock(objects: ObjectStore) -> Iterator[LockOwner]:
    """Hold the store for one run.

    Parameters
    ----------
    objects : ObjectStore
        Store to be locked.

    Yields
    ------
    LockOwner
        This process.

    Raises
    ------
    StorageError
        R806 naming the owner while another run is alive; R807 when the store is read-only.
    """
    owner = LockOwner.current()
    text = json.dumps(asdict(owner), indent=1).encode()
    with _guard(objects):
        while not objects.create(LOCK_NAME, text):
            holder = read_owner(objects)
            if holder is not None and not holder.is_dead():
                raise _locked(holder, objects)
            objects.remove(LOCK_NAME)
    try:
        yield owner
    finally:
        # Somebody may have removed the lock by hand and started another run.
        known = read_owner(objects)
        if known is not None and known.token == owner.token:
            objects.remove(LOCK_NAME)


@contextlib.contextmanager
def _guard(objects: ObjectStore) -> Iterator[None]:
    """Serialise the take-over of a dead owner's lock among the processes of one machine."""
    if not isinstance(objects, LocalObjects):
        yield
        return
    # Creating the folder also answers R807 for a store that cannot be written.
    objects.write(".guard", b"")
    objects.remove(".guard")
    descriptor = os.open(objects.folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _process_start(pid: int) -> str | None:
    """Return when a process started, ``None`` when it is not alive, empty when unknown."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] == "Z" else fields[19]


def _locked(holder: LockOwner, objects: ObjectStore) -> StorageError:
    return StorageError(
        "R806",
        "another run is using this store",
        where=objects.url,
        found=str(holder),
        remedy=f"wait for it or stop it; if that machine is gone, remove {LOCK_NAME}",
    )
