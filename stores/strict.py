"""A Zarr store in which a missing chunk is a fault and not a fill value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zarr.storage import FsspecStore, LocalStore, WrapperStore

from bperp.stores.errors import StorageError
from bperp.stores.objects import is_local, local_path

_CHUNK_KEY = re.compile(r"(^|/)c(/\d+)*$")


class StrictStore(WrapperStore[Any]):
    """A Zarr store that refuses to pass off a missing chunk as fill value."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return an object of the store; a missing chunk is R802."""
        value = await self._store.get(key, prototype, byte_range)
        if value is None and _CHUNK_KEY.search(key):
            raise StorageError(
                "R802",
                "a chunk is missing",
                where=key,
                expected="every chunk of a finished product to exist",
                remedy="run 'bperp verify --repair' and then the same run again",
            )
        return value


def open_strict_store(root: str, storage_options: Mapping[str, Any]) -> StrictStore:
    """Open a local folder or an fsspec URL for Zarr.

    Parameters
    ----------
    root : str
        Local folder or fsspec URL.
    storage_options : mapping
        Passed to fsspec.

    Returns
    -------
    StrictStore
        Readable and writable.
    """
    if is_local(root):
        return StrictStore(LocalStore(local_path(root)))
    return StrictStore(FsspecStore.from_url(root, storage_options=dict(storage_options) or None))
