"""Small whole objects by name, on a local disk or in an object store.

Receipts, markers, locks and array metadata are a few kilobytes each and must appear whole or not
at all. Array chunks go through Zarr instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import fsspec

from bperp.stores.errors import NetworkError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


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


@contextlib.contextmanager
def storage_errors(where: str, *, remote: bool = False) -> Iterator[None]:
    """Turn operating system and network faults into typed errors.

    Parameters
    ----------
    where : str
        Name of the object for the message.
    remote : bool
        Whether unknown faults are the network's: they become R810.

    Raises
    ------
    StorageError
        R804 disk full, R807 permission denied.
    NetworkError
        R810 remote store not answering as it should.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                "R804",
                "the disk is full or the quota is used up",
                where=where,
                remedy="free space and run the same command again: it resumes",
            ) from error
        if error.errno in _DENIED or isinstance(error, PermissionError):
            raise StorageError(
                "R807",
                "writing or reading is not permitted",
                where=where,
                found=type(error).__name__,
                remedy="check the owner, the permissions and the credentials of the store",
            ) from error
        if remote:
            raise _unreachable(where, error) from error
        raise
    except Exception as error:
        if remote:
            raise _unreachable(where, error) from error
        raise


def open_objects(root: str, storage_options: Mapping[str, Any] | None = None) -> ObjectStore:
    """Open a local folder or an fsspec URL as an object store.

    Parameters
    ----------
    root : str
        Path, ``file://`` URL or any other fsspec URL such as ``s3://bucket/prefix``.
    storage_options : mapping, optional
        Passed to fsspec; never logged.

    Returns
    -------
    ObjectStore
        Nothing is created or contacted yet.
    """
    if is_local(root):
        return LocalObjects(local_path(root))
    filesystem, base = fsspec.core.url_to_fs(root, **dict(storage_options or {}))
    return RemoteObjects(filesystem, base, without_credentials(root))


def is_local(root: str) -> bool:
    """Tell whether a root is a folder of this machine."""
    return "://" not in root or root.startswith("file://")


def local_path(root: str) -> Path:
    """Return the absolute path of a local root."""
    return Path(root.removeprefix("file://")).expanduser().absolute()


def without_credentials(url: str) -> str:
    """Return a URL without user name, password and query, fit for logs and messages."""
    return re.sub(r"\?.*$", "", re.sub(r"(?<=://)[^/@]*@", "", url))


class LocalObjects:
    """Objects are files; writes go to a temporary name first.

    Parameters
    ----------
    folder : pathlib.Path
        Root; created with the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        """Root folder."""
        return str(self.folder)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, ``None`` when there is none."""
        with storage_errors(name):
            try:
                return self._path(name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object in one step."""
        target = self._path(name)
        with storage_errors(name), self._partial(target, data) as partial:
            partial.replace(target)

    def create(self, name: str, data: bytes) -> bool:
        """Create an object unless it exists; ``False`` when somebody else was first."""
        target = self._path(name)
        with storage_errors(name), self._partial(target, data) as partial:
            try:
                # A link fails when the name exists, and the name never shows half a file.
                os.link(partial, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _create_without_links(target, data)
            return True

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below a folder, without partial writes."""
        base = self._path(prefix)
        found = []
        for folder, _, files in os.walk(base):
            relative = Path(folder).relative_to(self.folder)
            found += [str(relative / file) for file in files if not file.endswith(".partial")]
        return sorted(found)

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder."""
        base = self._path(prefix)
        return (
            sorted(entry.name for entry in base.iterdir() if entry.is_dir())
            if base.exists()
            else []
        )

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is fine."""
        with storage_errors(name):
            self._path(name).unlink(missing_ok=True)

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and everything in it; a missing one is fine."""
        with storage_errors(prefix), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._path(prefix))

    def remove_partials(self, prefix: str) -> int:
        """Remove what killed writers left behind below a folder; return how many files."""
        leftovers = list(self._path(prefix).rglob("*.partial"))
        with storage_errors(prefix):
            for path in leftovers:
                path.unlink(missing_ok=True)
        return len(leftovers)

    def _path(self, name: str) -> Path:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"name must stay below the root, instead got {name!r}")
        return self.folder / name

    @contextlib.contextmanager
    def _partial(self, target: Path, data: bytes) -> Iterator[Path]:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name[:80]}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)


class RemoteObjects:
    """Objects of an fsspec file system.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
        Synchronous file system.
    base : str
        Root in the file system's own spelling.
    url : str
        Root for messages.
    """

    def __init__(self, filesystem: Any, base: str, url: str) -> None:
        self.filesystem, self.base, self._url = filesystem, base.rstrip("/"), url

    @property
    def url(self) -> str:
        """Root without credentials, for messages."""
        return self._url

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, ``None`` when there is none."""
        path = self._path(name)
        with storage_errors(name, remote=True):
            try:
                return bytes(self.filesystem.cat_file(path))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object in one step."""
        path = self._path(name)
        with storage_errors(name, remote=True):
            self.filesystem.pipe_file(path, data)

    def create(self, name: str, data: bytes) -> bool:
        """Create an object unless it exists, by a conditional PUT."""
        path = self._path(name)
        with storage_errors(name, remote=True):
            try:
                self.filesystem.pipe_file(path, data, mode="create")
            except OSError as error:
                if isinstance(error, FileExistsError) or "PreconditionFailed" in repr(error):
                    return False
                raise
        return True

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below a folder."""
        path = self._path(prefix)
        with storage_errors(prefix, remote=True):
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(path)
        return sorted(str(item)[len(self.base) + 1 :] for item in found)

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder."""
        path = self._path(prefix)
        with storage_errors(prefix, remote=True):
            self.filesystem.invalidate_cache()
            try:
                entries = self.filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return []
        folders = [entry["name"] for entry in entries if entry["type"] == "directory"]
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in folders)

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is fine."""
        path = self._path(name)
        with storage_errors(name, remote=True), contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(path)

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and everything in it; a missing one is fine."""
        path = self._path(prefix)
        with storage_errors(prefix, remote=True), contextlib.suppress(FileNotFoundError):
            self.filesystem.rm(path, recursive=True)

    def _path(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"name must stay below the root, instead got {name!r}")
        return f"{self.base}/{name}".rstrip("/")


def require_exclusive_create(objects: ObjectStore) -> None:
    """Prove that a second exclusive create of one name is refused.

    Some S3 look-alikes accept ``If-None-Match`` and ignore it; two runs would then both believe
    that they hold the lock and overwrite each other's receipts.

    Parameters
    ----------
    objects : ObjectStore
        Store to probe; one small object is created and removed.

    Raises
    ------
    NetworkError
        R814 when the store lets the second writer win.
    """
    name = f"logs/probe-{uuid.uuid4().hex}"
    try:
        first, second = objects.create(name, b"first"), objects.create(name, b"second")
        kept = objects.read(name)
    finally:
        objects.remove(name)
    if not first or second or kept != b"first":
        raise NetworkError(
            "R814",
            "the object store does not honour conditional writes",
            where=objects.url,
            expected="the second write with If-None-Match to be refused",
            found="accepted" if second else repr(kept),
            remedy="use a store that enforces conditional PUT (AWS S3, MinIO) or a local folder",
        )


def _create_without_links(target: Path, data: bytes) -> bool:
    # exFAT and some network file systems have no hard links: a reader may then meet a half-written
    # object, which the ledger takes for a missing one.
    try:
        with target.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        return False
    return True


def _unreachable(where: str, error: Exception) -> NetworkError:
    return NetworkError(
        "R810",
        "the object store did not answer as it should",
        where=where,
        found=f"{type(error).__name__}: {without_credentials(str(error))[:200]}",
        remedy="check the endpoint, the network and the credentials; run again to resume",
    )
