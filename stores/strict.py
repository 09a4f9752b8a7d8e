"""A Zarr store in which a missing chunk is a fault and not a fill value."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from zarr.storage import FsspecStore, LocalStore, ObjectStore, WrapperStore

from bperp.stores.errors import StorageError
from bperp.stores.objects import is_local, local_path
from bperp.stores.patience import Spell, network_patience_s, patiently_awaited
from bperp.stores.storage_faults import storage_errors
from bperp.stores.store_choice import StoreChoice, choose_store

_CHUNK_KEY = re.compile(r"(^|/)c(/\d+)*$")

T = TypeVar("T")


class StrictStore(WrapperStore[Any]):
    """A Zarr store that refuses to pass off a missing chunk as fill value."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return an object of the store; a missing chunk is R802."""
        value = await self._get(key, prototype, byte_range)
        if value is None and _CHUNK_KEY.search(key):
            raise StorageError(
                "R802",
                "a chunk is missing",
                where=key,
                expected="every chunk of a finished product to exist",
                remedy="run 'bperp repair ROOT', then the same run again",
            )
        return value

    async def _get(self, key: str, prototype: Any, byte_range: Any) -> Any:
        return await self._store.get(key, prototype, byte_range)


class RemoteStrictStore(StrictStore):
    """The same in an object store, with typed faults and patience with the network."""

    async def set(self, key: str, value: Any, *arguments: Any) -> None:
        """Write an object."""
        await _patiently(key, lambda: self._store.set(key, value, *arguments))

    async def _get(self, key: str, prototype: Any, byte_range: Any) -> Any:
        return await _patiently(key, lambda: self._store.get(key, prototype, byte_range))


def open_strict_store(root: str, storage_options: Mapping[str, Any]) -> StrictStore:
    """Open a local folder or the URL of an object store for Zarr.

    Parameters
    ----------
    root : str
        Local folder or URL.
    storage_options : mapping
        Passed to fsspec.

    Returns
    -------
    StrictStore
        Readable and writable, through the same client library as ``open_objects``.
    """
    if is_local(root):
        return StrictStore(LocalStore(local_path(root)))
    return RemoteStrictStore(_open_remote(choose_store(root, storage_options)))


def _open_remote(choice: StoreChoice) -> FsspecStore | ObjectStore[Any]:
    if choice.library == "obstore":
        return ObjectStore(choice.open_obstore())
    filesystem, base = choice.open_filesystem()
    if filesystem.async_impl:
        filesystem = _AwaitedElsewhere(filesystem)
    else:
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

        filesystem = AsyncFileSystemWrapper(filesystem, asynchronous=True)
    return FsspecStore(filesystem, path=base)


class _AwaitedElsewhere:
    """An fsspec file system whose coroutines run in fsspec's own loop, awaited from Zarr's.

    So small objects and chunks share one file system with its connections, which is closed in the
    end; s3fs leaves those open that it makes for foreign loops.
    """

    async_impl = asynchronous = True

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._filesystem, name)
        if not inspect.iscoroutinefunction(member):
            return member

        async def awaited(*arguments: Any, **options: Any) -> Any:
            coroutine, loop = member(*arguments, **options), self._filesystem.loop
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

        return awaited


async def _patiently(key: str, attempt: Callable[[], Awaitable[T]]) -> T:
    async def operation() -> T:
        with storage_errors(key, remote=True):
            return await attempt()

    return await patiently_awaited(operation, Spell(network_patience_s()))
