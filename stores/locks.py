"""One run per store: a lock that names its owner and outlives no dead one for long.

The lock is the object ``run.lock``, created by a conditional write. Two kinds of owners give way:

* a process of this host that is gone (its number is free or belongs to another process);
* a process of another host that has not been heard of for ``LEASE_S``. A live owner touches its
  object ``run.lock.beat-...`` every ``BEAT_S``. Times are those of the store's own clock.

Two runs that find the same stale lock must not both take it, and not all stores can replace an
object only if it is still the same one. So the successor of a lock is whoever creates the object
``run.lock.after-<hash of the stale lock>``; only the creator may replace ``run.lock``, and only
while it still holds the stale text. One that dies in between has a successor by the same rule.

An owner that was paused for longer than the lease finds another token in ``run.lock``: its tasks
compare tokens before they start and before they record a receipt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bperp.stores.errors import BperpError, StorageError
from bperp.stores.objects import ObjectStore

LOCK_NAME = "run.lock"
BEAT_S = 60.0
LEASE_S = 900.0
"""Longer than an owner may be out of reach of its store (see ``patience``)."""

_ROUNDS = 10


@dataclass(frozen=True)
class LockOwner:
    """Who holds a lock.

    ``started`` is for people; ``process_start`` tells a live owner from another process that was
    given the same number after a reboot, ``machine`` another machine or container of the same name.
    """

    pid: int
    host: str
    started: str
    process_start: str
    token: str
    machine: str = ""

    @classmethod
    def current(cls) -> LockOwner:
        """Return this process as an owner, with a fresh token."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            process_start=_process_start(os.getpid()) or "",
            token=uuid.uuid4().hex,
            machine=_machine(),
        )

    @property
    def beat_name(self) -> str:
        """Name of the object whose age tells when the owner was last alive."""
        return f"{LOCK_NAME}.beat-{self.token}"

    def is_here(self) -> bool:
        """Tell whether process numbers of the owner mean something in this process."""
        same_name = self.host == socket.gethostname()
        return same_name and (not self.machine or self.machine == _machine())

    def is_dead(self) -> bool:
        """Tell whether the owner is certainly gone; an owner on another host never is."""
        if not self.is_here():
            return False
        start = _process_start(self.pid)
        return start is None or (bool(self.process_start) and start != self.process_start)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started}"


def read_owner(objects: ObjectStore) -> LockOwner | None:
    """Return the owner of a store's lock; ``None`` when free or unreadable."""
    return _parsed(objects.read(LOCK_NAME))


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
    _acquire(objects, owner)
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(objects, owner, stopped), daemon=True)
    beating.start()
    try:
        yield owner
    except BaseException:
        stopped.set()
        # The store may be what went wrong. A lock that stays behind is that of a dead owner.
        with contextlib.suppress(BperpError, OSError):
            _release(objects, owner)
        raise
    stopped.set()
    _release(objects, owner)


def _acquire(objects: ObjectStore, owner: LockOwner) -> None:
    text = json.dumps(asdict(owner), indent=1).encode()
    for _ in range(_ROUNDS):
        if objects.create(LOCK_NAME, text):
            return
        held = objects.read(LOCK_NAME)
        # Libraries repeat a request when a connection breaks: the first may have been carried out.
        if held == text or (held is not None and _succeed(objects, held, text)):
            return
    raise _locked(read_owner(objects), objects)


def _release(objects: ObjectStore, owner: LockOwner) -> None:
    # Somebody may have removed the lock by hand, or taken it over, and started another run.
    known = read_owner(objects)
    if known is not None and known.token == owner.token:
        objects.remove(LOCK_NAME)
    objects.remove(owner.beat_name)


def _succeed(objects: ObjectStore, held: bytes, text: bytes) -> bool:
    """Take over a stale lock; ``False`` when it is no longer the one that was held."""
    claims = _claim(objects, held, text)
    try:
        if not claims or objects.read(LOCK_NAME) != held:
            return False
        objects.write(LOCK_NAME, text)
    finally:
        for claim in reversed(claims):
            objects.remove(claim)
    if (holder := _parsed(held)) is not None:
        objects.remove(holder.beat_name)
    return True


def _claim(objects: ObjectStore, held: bytes, text: bytes) -> list[str]:
    """Become the only successor of a lock; return the objects that say so, empty to look again."""
    claims: list[str] = []
    while True:
        _require_gone(objects, held)
        claims.append(f"{LOCK_NAME}.after-{hashlib.sha256(held).hexdigest()[:32]}")
        if objects.create(claims[-1], text):
            return claims
        rival = objects.read(claims[-1])
        if rival == text:
            return claims
        if rival is None:
            # The rival is done, and so is everything that was claimed on the way to it.
            return []
        held = rival


def _require_gone(objects: ObjectStore, text: bytes) -> None:
    holder = _parsed(text)
    if holder is None or holder.is_dead():
        return
    if not holder.is_here() and _silence_s(objects, holder) > LEASE_S:
        return
    raise _locked(holder, objects)


def _silence_s(objects: ObjectStore, holder: LockOwner) -> float:
    """Return how long ago an owner was last alive, by the clock of the store; 0 if unknown."""
    last = objects.modified(holder.beat_name) or objects.modified(LOCK_NAME)
    sample = f"{LOCK_NAME}.clock-{uuid.uuid4().hex}"
    objects.write(sample, b"")
    try:
        now = objects.modified(sample)
    finally:
        objects.remove(sample)
    return 0.0 if last is None or now is None else now - last


def _beat(objects: ObjectStore, owner: LockOwner, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT_S):
        # A beat that fails is made up for by the next one; the tasks report a lasting fault.
        with contextlib.suppress(BperpError, OSError):
            objects.write(owner.beat_name, b"")
    # One that was under way when the run ended leaves nothing behind.
    with contextlib.suppress(BperpError, OSError):
        objects.remove(owner.beat_name)


def _parsed(text: bytes | None) -> LockOwner | None:
    try:
        return None if text is None else LockOwner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _machine() -> str:
    """Return what tells machines and containers of one name apart, empty when there is nothing."""
    marks = []
    with contextlib.suppress(OSError):
        marks.append(Path("/etc/machine-id").read_text().strip())
    with contextlib.suppress(OSError):
        marks.append(str(Path("/proc/self/ns/pid").readlink()))
    # The number of a machine is not for others to see.
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16] if marks else ""


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


def _locked(holder: LockOwner | None, objects: ObjectStore) -> StorageError:
    return StorageError(
        "R806",
        "another run is using this store",
        where=objects.url,
        found=str(holder) if holder is not None else "a lock that changes hands",
        remedy=f"wait for it or stop it; if its machine is gone, the store is free "
        f"{LEASE_S / 60:.0f} minutes after its last sign of life, or when {LOCK_NAME} is removed",
    )
