"""What an object store has to keep to before a run may trust it, found out by a few requests."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from bperp.stores.errors import NetworkError
from bperp.stores.remote_objects import RemoteObjects
from bperp.stores.storage_faults import LastingFaultError

if TYPE_CHECKING:
    from bperp.stores.objects import ObjectStore

LISTING_LAG_S = 10.0
"""A new object that no listing shows for longer is taken for one that never will be."""

_FIRST, _SECOND = bytes(range(64)), b"second"


def require_exclusive_create(objects: ObjectStore) -> None:
    """Prove that a store refuses a second create, reads parts right, and shows what was written.

    Some S3 look-alikes accept ``If-None-Match`` and ignore it; two runs would then both believe
    that they hold the lock and overwrite each other's receipts. Others answer a request for the
    end of an object with its beginning.

    Parameters
    ----------
    objects : ObjectStore
        Store to probe by nine or ten small requests; one object is created and removed.

    Raises
    ------
    NetworkError
        R814 when the store lets the second writer win, R820 when it gives other bytes than were
        written or does not list what exists.

    Notes
    -----
    Listings of more than one page are not probed: that takes a thousand objects. A listing that
    lacks some receipts makes a run repeat their tasks.
    """
    folder = f"logs/probe-{uuid.uuid4().hex}"
    name = f"{folder}/object"
    try:
        _probe_create(objects, name)
        if isinstance(objects, RemoteObjects):
            for start, stop in ((-12, None), (5, 17)):
                part = f"bytes {start} to {'the end' if stop is None else stop - 1}"
                _expect(objects, part, _read_range(objects, name, start, stop), _FIRST[start:stop])
        objects.write(name, _SECOND)
        _expect(objects, "an object written anew", objects.read(name), _SECOND)
        _expect(objects, "the listing of a folder", _listed(objects, folder), [name])
    finally:
        objects.remove(name)


def _probe_create(objects: ObjectStore, name: str) -> None:
    first, second = objects.create(name, _FIRST), objects.create(name, _SECOND)
    kept = objects.read(name)
    # Libraries repeat a request when a connection breaks: nobody else writes under this name.
    if second or kept != _FIRST:
        raise NetworkError(
            "R814",
            "the object store does not honour conditional writes",
            where=objects.url,
            expected="the second write with If-None-Match to be refused",
            found="accepted" if second else f"{'kept' if first else 'refused'}, {kept!r} stored",
            remedy="use a store that enforces conditional PUT (AWS S3, MinIO) or a local folder",
        )


def _listed(objects: ObjectStore, folder: str) -> list[str]:
    """Return what a listing shows in the end: it may lag behind, but not for ever."""
    deadline = time.monotonic() + LISTING_LAG_S
    while not (found := objects.names(folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _read_range(objects: RemoteObjects, name: str, start: int, stop: int | None) -> object:
    try:
        return objects.read_range(name, start, stop)
    except LastingFaultError as error:
        # obstore compares the range of the answer with the one that it asked for.
        return error.found


def _expect(objects: ObjectStore, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise NetworkError(
            "R820",
            f"the object store gives {what} wrongly",
            where=objects.url,
            expected=repr(expected),
            found=repr(found)[:200],
            remedy="use another object store or a local folder",
        )
