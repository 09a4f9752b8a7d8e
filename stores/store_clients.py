"""The two client libraries for object stores behind one small interface.

A client makes one attempt, raises what its library raises and leaves out nothing: no caches, no
retries of its own. ``RemoteObjects`` adds patience and typed errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from bperp.stores.storage_faults import answer_of

_MD5_TAG = re.compile(r'^"?([0-9a-f]{32})"?$')


class StoreClient(Protocol):
    """Whole objects by name below one root; names are relative and use ``/``."""

    @property
    def repeats_silently(self) -> bool:
        """Whether the library may send a request again without telling."""
        ...

    def get(self, name: str) -> bytes:
        """Return an object (FileNotFoundError)."""
        ...

    def get_range(self, name: str, start: int, stop: int | None) -> bytes:
        """Return a part of an object; a negative start counts from its end."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Create or replace an object."""
        ...

    def put_new(self, name: str, data: bytes) -> bool:
        """Create an object by a conditional write; ``False`` when it exists."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store (FileNotFoundError)."""
        ...

    def modified(self, name: str) -> datetime | None:
        """Return the store's time of an object (FileNotFoundError); ``None`` if it has none."""
        ...

    def list_all(self, prefix: str) -> list[str]:
        """Return the names below a folder, in any order."""
        ...

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a folder, in any order."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; missing ones are fine."""
        ...


class FsspecClient:
    """Client of any fsspec file system.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
        Synchronous file system.
    base : str
        Root in the file system's own spelling.
    """

    def __init__(self, filesystem: Any, base: str) -> None:
        self.filesystem, self.base = filesystem, base.rstrip("/")

    @property
    def repeats_silently(self) -> bool:
        """True with aiohttp below: it repeats a PUT when a connection that it kept is closed."""
        return bool(self.filesystem.async_impl)

    def get(self, name: str) -> bytes:
        """Return an object (FileNotFoundError)."""
        return bytes(self.filesystem.cat_file(self._path(name)))

    def get_range(self, name: str, start: int, stop: int | None) -> bytes:
        """Return a part of an object; a negative start counts from its end."""
        return bytes(self.filesystem.cat_file(self._path(name), start=start, end=stop))

    def put(self, name: str, data: bytes) -> None:
        """Create or replace an object."""
        self.filesystem.pipe_file(self._path(name), data)

    def put_new(self, name: str, data: bytes) -> bool:
        """Create an object by a conditional write; ``False`` when it exists."""
        try:
            self.filesystem.pipe_file(self._path(name), data, mode="create")
        except OSError as error:
            # Not every server names the condition, without which s3fs raises a plain OSError.
            if isinstance(error, FileExistsError) or answer_of(error).code == "PreconditionFailed":
                return False
            raise
        return True

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store (FileNotFoundError)."""
        self.filesystem.invalidate_cache()
        self.filesystem.cp_file(self._path(source), self._path(target))

    def modified(self, name: str) -> datetime | None:
        """Return the store's time of an object (FileNotFoundError); ``None`` if it has none."""
        self.filesystem.invalidate_cache()
        try:
            moment: datetime | None = self.filesystem.modified(self._path(name))
        except NotImplementedError:
            return None
        return moment

    def list_all(self, prefix: str) -> list[str]:
        """Return the names below a folder, in any order."""
        folder = self._path(prefix) + "/"
        self.filesystem.invalidate_cache()
        # For the name of an object, some file systems return that object.
        found = [str(path) for path in self.filesystem.find(self._path(prefix))]
        return [path[len(self.base) + 1 :] for path in found if path.startswith(folder)]

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a folder, in any order."""
        self.filesystem.invalidate_cache()
        try:
            entries = self.filesystem.ls(self._path(prefix), detail=True)
        except FileNotFoundError as error:
            if answer_of(error).code == "NoSuchBucket":
                raise
            return []
        folders = [str(e["name"]).rstrip("/") for e in entries if e["type"] == "directory"]
        return [name.rsplit("/", 1)[-1] for name in folders if name != self._path(prefix)]

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; missing ones are fine."""
        self.filesystem.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            if len(names) == 1:
                self.filesystem.rm_file(self._path(names[0]))
            elif names:
                self.filesystem.rm([self._path(name) for name in names])

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}".rstrip("/")


class ObstoreClient:
    """Client of obstore (S3, Google Cloud Storage, Azure).

    Parameters
    ----------
    store : obstore.store.ObjectStore
        Store with the root as its prefix.
    """

    repeats_silently = False

    def __init__(self, store: Any) -> None:
        self.store = store

    def get(self, name: str) -> bytes:
        """Return an object (FileNotFoundError), twice read when its tag is not its MD5.

        The tag is the MD5 of the bytes unless the object is encrypted with a key of the user's
        or came in parts: another tag proves nothing, but then two answers have to agree.
        """
        data, tag = self._read(name)
        known = _MD5_TAG.match(tag)
        if known is None or known[1] == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return data
        if self._read(name)[0] != data:
            raise OSError("the store gave different bytes for one object")
        return data

    def get_range(self, name: str, start: int, stop: int | None) -> bytes:
        """Return a part of an object; a negative start counts from its end."""
        import obstore

        if stop is not None:
            return bytes(obstore.get_range(self.store, name, start=start, end=stop))
        options: Any = {"range": {"suffix": -start} if start < 0 else {"offset": start}}
        return bytes(obstore.get(self.store, name, options=options).bytes())

    def put(self, name: str, data: bytes) -> None:
        """Create or replace an object."""
        import obstore

        obstore.put(self.store, name, data, use_multipart=False)

    def put_new(self, name: str, data: bytes) -> bool:
        """Create an object by a conditional write; ``False`` when it exists."""
        import obstore

        try:
            obstore.put(self.store, name, data, mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        return True

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store (FileNotFoundError)."""
        import obstore

        obstore.copy(self.store, source, target)

    def modified(self, name: str) -> datetime | None:
        """Return the store's time of an object (FileNotFoundError)."""
        import obstore

        return obstore.head(self.store, name)["last_modified"]

    def list_all(self, prefix: str) -> list[str]:
        """Return the names below a folder, in any order."""
        import obstore

        return [str(entry["path"]) for entry in obstore.list(self.store, prefix or None).collect()]

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a folder, in any order."""
        import obstore

        found = obstore.list_with_delimiter(self.store, prefix or None)
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"]]

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; missing ones are fine."""
        import obstore

        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self.store, list(names))

    def _read(self, name: str) -> tuple[bytes, str]:
        import obstore

        answer = obstore.get(self.store, name)
        return bytes(answer.bytes()), str(answer.meta["e_tag"] or "")
