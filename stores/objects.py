"""Small whole objects by name, on a local disk or in an object store.

Receipts, markers, locks and array metadata are a few kilobytes each and must appear whole or not
at all. Array chunks go through Zarr instead, by the same client library (see ``store_choice``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from bperp.stores.local_objects import LocalObjects
from bperp.stores.probe import require_exclusive_create
from bperp.stores.remote_objects import RemoteObjects
from bperp.stores.storage_faults import storage_errors, without_credentials
from bperp.stores.store_choice import choose_store
from bperp.stores.store_clients import FsspecClient, ObstoreClient

__all__ = [
    "LocalObjects",
    "ObjectStore",
    "RemoteObjects",
    "is_local",
    "local_path",
    "open_objects",
    "require_exclusive_create",
    "storage_errors",
    "without_credentials",
]


class ObjectStore(Protocol):
    """Named byte strings under one root; names are relative and use ``/``."""

    @property
    def url(self) -> str:
        """Root without credentials, for messages."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, ``None`` when there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object in one step."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create an object unless it exists; ``False`` when somebody else was first."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy a whole object, inside the store where it can; R802 when there is none."""
        ...

    def modified(self, name: str) -> float | None:
        """Return when an object was written, by the clock of the store, in s since 1970.

        ``None`` when there is none, or when the store does not tell.
        """
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below a folder, without partial writes."""
        ...

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is fine."""
        ...

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and everything in it; a missing one is fine."""
        ...


def open_objects(root: str, storage_options: Mapping[str, Any] | None = None) -> ObjectStore:
    """Open a local folder or the URL of an object store.

    Parameters
    ----------
    root : str
        Path, ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://`` URL.
    storage_options : mapping, optional
        Passed to fsspec; never logged.

    Returns
    -------
    ObjectStore
        Nothing is created or contacted yet.

    Raises
    ------
    BperpError
        See ``choose_store``.
    """
    if is_local(root):
        return LocalObjects(local_path(root))
    choice = choose_store(root, storage_options)
    url = without_credentials(root)
    if choice.library == "obstore":
        return RemoteObjects(ObstoreClient(choice.open_obstore()), url)
    return RemoteObjects(FsspecClient(*choice.open_filesystem()), url)


def is_local(root: str) -> bool:
    """Tell whether a root is a folder of this machine."""
    return "://" not in root or root.startswith("file://")


def local_path(root: str) -> Path:
    """Return the absolute path of a local root."""
    return Path(root.removeprefix("file://")).expanduser().absolute()
